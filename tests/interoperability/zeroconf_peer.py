"""python-zeroconf on a machine of the lab.

`browse TYPE...` tells what is there, `follow TYPE` what comes and goes; `announce TYPE ID PORT ADDRESS` lasts until the input ends.
"""

import json
import socket
import sys
import time

from zeroconf import ServiceInfo, Zeroconf


def browse(types):
    zeroconf = Zeroconf()
    found = {}

    class Listener:
        def add_service(self, zeroconf, kind, name):
            info = zeroconf.get_service_info(kind, name, 3000)
            if info is not None:
                found[kind] = {
                    "type": kind.removesuffix(".local."),
                    "instance": name.removesuffix("." + kind),
                    "host": info.server.rstrip("."),
                    "port": info.port,
                    "addresses": info.parsed_addresses(),
                    "txt": {key.decode(): value.decode() for key, value in info.properties.items()},
                }

        update_service = remove_service = lambda *_: None

    for kind in types:
        zeroconf.add_service_listener(kind + ".local.", Listener())
    deadline = time.monotonic() + 20
    while len(found) < len(types) and time.monotonic() < deadline:
        time.sleep(0.05)
    for line in found.values():
        print(json.dumps(line))
    zeroconf.close()


def follow(kind):
    class Listener:
        def add_service(self, zeroconf, kind, name):
            if zeroconf.get_service_info(kind, name, 3000) is not None:
                print("=", name, flush=True)

        def remove_service(self, zeroconf, kind, name):
            print("-", name, flush=True)

        update_service = lambda *_: None

    zeroconf = Zeroconf()
    print("follows", flush=True)
    zeroconf.add_service_listener(kind + ".local.", Listener())
    sys.stdin.read()
    zeroconf.close()


def announce(kind, identity, port, address):
    zeroconf = Zeroconf()
    info = ServiceInfo(
        kind + ".local.",
        f"{identity}.{kind}.local.",
        addresses=[socket.inet_aton(address)],
        port=int(port),
        properties={"v": "1", "id": identity, "name": "milan"},
        server="python.local.",
    )
    print("registers", flush=True)
    zeroconf.register_service(info, strict=False)
    sys.stdin.read()
    zeroconf.close()


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "browse":
        browse(rest)
    else:
        {"follow": follow, "announce": announce}[verb](*rest)

#!/bin/sh
# Avahi on a machine of the lab: `browse TYPE...`, or `announce TYPE ID PORT ADDRESS` until the input ends.
# Avahi and its bus get a /run of their own, and end with this shell.
set -e
[ -n "$AVAHI_PEER" ] || AVAHI_PEER=1 exec unshare --mount "$0" "$@"

mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/dbus /run/avahi-daemon
[ /var/run -ef /run ] || mount --bind /run /var/run
dbus-daemon --system --nofork --nopidfile 2>/dev/null &
bus=$!
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.1; done
avahi-daemon --no-drop-root --no-rlimits >/dev/null 2>&1 &
avahi=$!
trap 'kill $avahi $bus $publisher 2>/dev/null' EXIT

browse() {
  for type in "$@"; do
    for try in 1 2 3 4 5 6 7 8 9 10; do
      seen=$(timeout 5 avahi-browse --resolve --parsable --terminate "$type" 2>/dev/null | grep '^=.*;IPv4;' || true)
      [ -z "$seen" ] || break
      sleep 0.5
    done
    # =;interface;IPv4;instance;type;domain;host;address;port;"key=value" ...
    echo "$seen" | head -n 1 | sed -E '
      s/^=;[^;]*;IPv4;([^;]*);([^;]*);local;([^;]*);([^;]*);([0-9]*);(.*)$/{"type":"\2","instance":"\1","host":"\3","addresses":["\4"],"port":\5,"txt":{\6}}/
      s/"([a-z]+)=([^"]*)"/"\1":"\2",/g
      s/,\}\}$/}}/'
  done
}

announce() {
  while ! avahi-browse --all --terminate >/dev/null 2>&1; do sleep 0.1; done
  avahi-publish --service "$2" "$1" "$3" v=1 "id=$2" name=milan >/dev/null 2>&1 &
  publisher=$!
  cat >/dev/null
}

"$@"

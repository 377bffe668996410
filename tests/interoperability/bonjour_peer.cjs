// bonjour-service on a machine of the lab: `browse TYPE...`, or `announce TYPE ID PORT ADDRESS` until the input ends.
const { Bonjour } = require("bonjour-service");

const bonjour = new Bonjour();
const short = (type) => type.replace(/^_/, "").replace(/\._tcp$/, "");

function end() {
  bonjour.unpublishAll(() => bonjour.destroy(() => process.exit(0)));
}

function browse(types) {
  const found = new Map();
  for (const type of types) {
    bonjour.find({ type: short(type) }, (service) => {
      const { name, host, port, addresses, txt } = service;
      found.set(type, { type, instance: name, host, port, addresses, txt });
      if (found.size === types.length) finish();
    });
  }
  const finish = () => {
    for (const line of found.values()) console.log(JSON.stringify(line));
    end();
  };
  setTimeout(finish, 20_000).unref();
}

function announce(type, id, port) {
  const txt = { v: "1", id, name: "milan" };
  bonjour.publish({ name: id, type: short(type), port: Number(port), host: "node.local", txt, disableIPv6: true });
  process.stdin.resume().on("end", end);
}

const [verb, ...rest] = process.argv.slice(2);
if (verb === "browse") browse(rest);
else announce(...rest);

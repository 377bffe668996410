//! The networks that this machine is on, followed as they change.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    net::Ipv4Addr,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use nix::{ifaddrs::InterfaceAddress, net::if_::InterfaceFlags};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ranges::Overlap;
use crate::{
    discovery::interfaces::{InterfaceRules, addresses, on_lan, subnet_of},
    engine::{addresses::OwnNetworks, addressing::Surroundings, overlay::INTERFACE},
};

/// Where the resolvers stand: what programs read, and what systemd-resolved asks for them.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// The routes of the main table (proc_pid_net(5)).
const ROUTES: &str = "/proc/thread-self/net/route";
/// How much of them is read: 512 routes.
const ROUTES_LIMIT: u64 = 64 << 10;

/// How often the interfaces are read. Reading them takes microseconds; what depends on them must
/// be right within a second of a change.
const INTERVAL: Duration = Duration::from_millis(500);

/// What is known about this machine's networks.
#[derive(Debug, Clone)]
pub(super) struct Networks {
    /// For the judgement of addresses that are to be dialled.
    pub(super) own: watch::Receiver<OwnNetworks>,
    /// For the choice of ranges under which peers are seen.
    pub(super) around: watch::Receiver<Surroundings>,
}

/// Follows the interfaces.
#[derive(Debug)]
pub(super) struct Follower {
    base: OwnNetworks,
    rules: InterfaceRules,
    own: watch::Sender<OwnNetworks>,
    around: watch::Sender<Surroundings>,
    /// What was warned of and is still so.
    overlaps: BTreeSet<Overlap>,
}

impl Follower {
    /// Reads the interfaces once. `base` holds what does not come from them.
    pub(super) fn new(base: OwnNetworks, rules: InterfaceRules) -> (Self, Networks) {
        let (own, own_receiver) = watch::channel(base.clone());
        let (around, around_receiver) = watch::channel(Surroundings::default());
        let mut follower = Self {
            base,
            rules,
            own,
            around,
            overlaps: BTreeSet::new(),
        };
        follower.look();
        (
            follower,
            Networks {
                own: own_receiver,
                around: around_receiver,
            },
        )
    }

    /// Follows the interfaces until the shutdown.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let Ok(rows) = addresses() else {
            return;
        };
        let is_others = |row: &InterfaceAddress| row.interface_name != INTERFACE;
        let rows: Vec<InterfaceAddress> = rows.filter(is_others).collect();
        replace(
            &self.own,
            own_networks(self.base.clone(), &rows, &self.rules),
        );
        let subnets = beyond_loopback(rows.iter()).filter_map(|subnet| match subnet {
            IpNet::V4(range) => Some(range.trunc()),
            IpNet::V6(_) => None,
        });
        let around = Surroundings {
            networks: subnets.collect(),
            avoided: avoided(),
        };
        replace(&self.around, around);
        let overlaps = Overlap::find(&rows, &self.rules);
        overlaps.difference(&self.overlaps).for_each(Overlap::tell);
        self.overlaps = overlaps;
    }
}

/// Adds to a base what interfaces say.
fn own_networks(
    base: OwnNetworks,
    rows: &[InterfaceAddress],
    rules: &InterfaceRules,
) -> OwnNetworks {
    let mut own = base;
    own.addresses
        .extend(rows.iter().filter_map(subnet).map(|it| it.addr()));
    for subnet in beyond_loopback(on_lan(rows, rules)) {
        own.on_link.push(subnet.trunc());
        own.said
            .extend(Some(subnet.addr()).filter(|own| rules.said.holds(*own)));
    }
    own
}

fn beyond_loopback<'a>(
    rows: impl Iterator<Item = &'a InterfaceAddress>,
) -> impl Iterator<Item = IpNet> {
    rows.filter(|row| !row.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(subnet)
}

fn subnet(row: &InterfaceAddress) -> Option<IpNet> {
    subnet_of(row.address.as_ref(), row.netmask.as_ref())
}

fn avoided() -> BTreeSet<Ipv4Net> {
    let mut routes = String::new();
    if let Ok(file) = File::open(ROUTES) {
        // What is beyond the limit is not known, as if the file could not be read.
        let _ = file.take(ROUTES_LIMIT).read_to_string(&mut routes);
    }
    let resolvers = RESOLVERS.map(|path| fs::read_to_string(path).unwrap_or_default());
    let routes = routes.lines().flat_map(route);
    let resolvers = resolvers.iter().flat_map(|text| text.lines());
    routes.chain(resolvers.filter_map(resolver)).collect()
}

/// Reads the resolver on a line of resolv.conf(5).
fn resolver(line: &str) -> Option<Ipv4Net> {
    let mut words = line.split_whitespace();
    let address = (words.next()? == "nameserver").then(|| words.next())??;
    Some(Ipv4Net::from(address.parse::<Ipv4Addr>().ok()?))
}

/// Reads where a line of the table of routes leads to, and through whom. The default route leads to
/// no place of its own, and our routes are no hindrance to themselves.
fn route(line: &str) -> Vec<Ipv4Net> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, gateway, _, _, _, _, mask, ..] = words[..] else {
        return Vec::new();
    };
    let address = |text| {
        let number = u32::from_str_radix(text, 16).ok()?;
        // The kernel prints the bytes of the packet as a number of this machine.
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    };
    let (Some(destination), Some(gateway), Some(mask)) =
        (address(destination), address(gateway), address(mask))
    else {
        return Vec::new();
    };
    let range = Ipv4Net::with_netmask(destination, mask).ok();
    let gateway = Some(gateway).filter(|it| !it.is_unspecified());
    range
        .filter(|it| it.prefix_len() > 0)
        .into_iter()
        .chain(gateway.map(Ipv4Net::from))
        .filter(|_| interface != INTERFACE)
        .collect()
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|present| {
        let changed = *present != value;
        *present = value;
        changed
    });
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::discovery::interfaces::Said;

    #[test]
    fn routes_are_read_as_the_kernel_prints_them() {
        let number = |text: &str| {
            let address: Ipv4Addr = text.parse().unwrap();
            format!("{:08X}", u32::from_ne_bytes(address.octets()))
        };
        let read = |interface: &str, destination, gateway, mask| {
            let [destination, gateway, mask] = [destination, gateway, mask].map(number);
            let line =
                format!("{interface}\t{destination}\t{gateway}\t0003\t0\t0\t0\t{mask}\t0\t0\t0   ");
            let ranges = route(&line).into_iter().map(|it| it.to_string());
            ranges.collect::<Vec<_>>()
        };
        let vpn = read("tun0", "10.0.0.0", "10.8.0.1", "255.0.0.0");
        assert_eq!(vpn, ["10.0.0.0/8", "10.8.0.1/32"]);
        let default = read("eth0", "0.0.0.0", "10.0.2.2", "0.0.0.0");
        assert_eq!(default, ["10.0.2.2/32"]);
        let link = read("eth0", "10.0.2.0", "0.0.0.0", "255.255.255.0");
        assert_eq!(link, ["10.0.2.0/24"]);
        let ours = read(INTERFACE, "10.71.0.0", "0.0.0.0", "255.255.0.0");
        assert_eq!(ours, [""; 0]);
        let heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU";
        assert_eq!(route(heading), []);
        assert_eq!(route("eth0 cut off"), []);
    }

    #[test]
    fn only_what_is_on_a_lan_and_heard_is_named() {
        let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let place = |text: &str| Some(SocketAddr::new(text.parse().unwrap(), 0).into());
        let rows = [
            ("eth0", "10.0.0.5", "255.255.255.0", up),
            ("eth0", "2001:db8::5", "ffff:ffff:ffff:ffff::", up),
            ("eth1", "10.1.0.5", "255.255.255.0", InterfaceFlags::empty()),
        ];
        let rows = rows.map(|(name, address, netmask, flags)| InterfaceAddress {
            interface_name: name.to_owned(),
            flags,
            address: place(address),
            netmask: place(netmask),
            broadcast: None,
            destination: None,
        });
        let rules = InterfaceRules {
            said: Said::V4,
            ..InterfaceRules::default()
        };
        let own = own_networks(OwnNetworks::default(), &rows, &rules);
        let [on_link, said] = [
            own.on_link.iter().map(ToString::to_string).collect(),
            own.said.iter().map(ToString::to_string).collect(),
        ]
        .map(|texts: Vec<String>| texts.join(" "));
        assert_eq!(on_link, "10.0.0.0/24 2001:db8::/64");
        assert_eq!(said, "10.0.0.5");
        assert_eq!(own.addresses.len(), 3);
    }

    #[test]
    fn resolvers_are_read_from_their_lines() {
        let text = "# a comment\nsearch example.org\nnameserver 10.5.0.53\nnameserver fd00::53\n options ndots:1";
        let read: Vec<_> = text.lines().filter_map(resolver).collect();
        assert_eq!(read, ["10.5.0.53/32".parse().unwrap()]);
    }
}

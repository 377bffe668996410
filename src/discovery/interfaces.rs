//! Which interfaces are used for discovery, and which addresses are next to us on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    path::Path,
};

use ipnet::IpNet;
use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::{InterfaceFlags, if_nametoindex},
    sys::socket::SockaddrStorage,
};

/// Interfaces of containers, bridges between them and tunnels: no LAN is behind these. A star at the
/// end stands for anything.
const SKIPPED: &[&str] = &[
    "lo",
    "veth*",
    "cni*",
    "docker*",
    "br-*",
    "virbr*",
    "cali*",
    "flannel*",
    "cilium*",
    "lxc*",
    "azv*",
    "wg*",
    "tun*",
    "liqo*",
    "landbridge*",
    "podman*",
    "lxdbr*",
    "tailscale*",
    "zt*",
    "vmnet*",
    "vboxnet*",
];

/// Where clouds answer with the credentials of the machine: nobody's peer endpoint.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Which interfaces and addresses are used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterfaceRules {
    /// When not empty, only these interfaces, even those that are skipped by default.
    pub allow: Vec<String>,
    /// Never these interfaces.
    pub deny: Vec<String>,
    /// Our pod and service ranges: an address in them is on no LAN.
    pub excluded: Vec<IpNet>,
    /// Which of our addresses others reach us at: nothing is said of the others.
    pub said: Said,
}

/// Which of our addresses others reach us at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Said {
    /// All of them.
    #[default]
    Any,
    /// Those of IPv4.
    V4,
    /// This one.
    One(IpAddr),
}

impl Said {
    /// Returns where whoever listens at an address is reached. Who listens on loopback only tries
    /// things out on one machine.
    pub fn by(listen: IpAddr) -> Self {
        let listen = listen.to_canonical();
        if listen == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            Self::V4
        } else if listen.is_unspecified() || listen.is_loopback() {
            Self::Any
        } else {
            Self::One(listen)
        }
    }

    /// Returns whether others reach us at an address of ours.
    pub fn holds(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::One(one) => address == one,
        }
    }
}

impl InterfaceRules {
    /// Returns whether an interface may be used with this address of its own.
    pub fn allows(&self, name: &str, address: IpAddr) -> bool {
        self.allows_name(name) && self.allows_address(address)
    }

    /// Returns whether an interface may be used at all.
    pub fn allows_name(&self, name: &str) -> bool {
        let is_allowed = self.allow.is_empty() || lists(&self.allow, name);
        is_allowed && !lists(&self.deny, name) && !self.skips(name)
    }

    /// Returns whether an interface is left out because of its kind, and nobody has named it.
    pub fn skips(&self, name: &str) -> bool {
        let is_named = lists(&self.deny, name) || !self.allow.is_empty();
        !is_named && SKIPPED.iter().any(|pattern| matches(pattern, name))
    }

    /// Returns whether an address may be somebody's on a LAN.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
        let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        !address.is_unspecified()
            && !address.is_loopback()
            && !address.is_multicast()
            && !broadcast
            && !mapped
            && !METADATA.contains(&address)
            && !self.excludes(address)
    }

    /// Returns whether an address is in a range of our own pods or services.
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.excluded.iter().any(|range| range.contains(&address))
    }
}

fn lists(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// An interface that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its number, which the system gives it.
    pub index: u32,
    /// Its addresses, with the subnets that are on link there.
    pub subnets: Vec<IpNet>,
    /// Those of its addresses that others are told.
    pub said: Vec<IpAddr>,
}

impl Link {
    /// Returns whether an address is next to us on this link.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| {
            let broadcast = address.is_ipv4() && subnet.prefix_len() < 31;
            subnet.contains(&address)
                && !(broadcast && (address == subnet.broadcast() || address == subnet.network()))
        })
    }

    /// Returns our own addresses on this link.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.subnets.iter().map(IpNet::addr)
    }
}

/// The interfaces that may be used, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links(BTreeMap<String, Link>);

impl Links {
    /// Reads the interfaces of this machine: those that are up, multicast and allowed, and where others
    /// reach us.
    pub fn read(rules: &InterfaceRules) -> io::Result<Self> {
        let mut links: BTreeMap<String, Link> = BTreeMap::new();
        let rows: Vec<InterfaceAddress> = addresses()?.collect();
        let rows = on_lan(&rows, rules);
        for row in rows.filter(|row| row.flags.contains(InterfaceFlags::IFF_MULTICAST)) {
            let subnet = subnet_of(row.address.as_ref(), row.netmask.as_ref());
            // An interface that goes away meanwhile has no number any more.
            let index = if_nametoindex(row.interface_name.as_str());
            if let (Some(subnet), Ok(index)) = (subnet, index) {
                let link = links.entry(row.interface_name.clone()).or_default();
                link.index = index;
                link.subnets.push(subnet);
                link.said
                    .extend(Some(subnet.addr()).filter(|own| rules.said.holds(*own)));
            }
        }
        links.retain(|_, link| !link.said.is_empty());
        Ok(Self(links))
    }

    /// Returns the links by name, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Link)> {
        self.0.iter().map(|(name, link)| (name.as_str(), link))
    }

    /// Returns the link with a number, and its name.
    pub fn numbered(&self, index: u32) -> Option<(&str, &Link)> {
        self.iter().find(|(_, link)| link.index == index)
    }

    /// Returns whether an address is our own, on whichever link.
    pub fn holds(&self, address: IpAddr) -> bool {
        let mut links = self.0.values();
        links.any(|link| link.addresses().any(|own| own == address))
    }

    /// Returns the names of the interfaces, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Returns whether there is no interface.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether an address is next to us on an interface. What was heard on a LAN and is
    /// not on that LAN was forged, or is of no use to us.
    pub fn reaches(&self, interface: &str, address: IpAddr) -> bool {
        self.0
            .get(interface)
            .is_some_and(|link| link.reaches(address))
    }
}

impl FromIterator<(String, Link)> for Links {
    fn from_iter<I: IntoIterator<Item = (String, Link)>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

/// Returns the names of the interfaces that could be used if they knew multicast.
pub fn without_multicast(rules: &InterfaceRules) -> Vec<String> {
    let Ok(rows) = addresses() else {
        return Vec::new();
    };
    let rows: Vec<InterfaceAddress> = rows.collect();
    let is_said = |row: &InterfaceAddress| {
        let address = row.address.as_ref().and_then(ip_of);
        address.is_some_and(|address| rules.said.holds(address))
    };
    let names: BTreeSet<String> = on_lan(&rows, rules)
        .filter(|row| !row.flags.contains(InterfaceFlags::IFF_MULTICAST) && is_said(row))
        .map(|row| row.interface_name.clone())
        .collect();
    names.into_iter().collect()
}

/// Lists the addresses of this machine by interface. A label of an address, which the system gives
/// in place of the name (`eth0:1`), is cut off: it makes no interface.
pub(crate) fn addresses() -> io::Result<impl Iterator<Item = InterfaceAddress>> {
    Ok(getifaddrs()?.map(|mut row| {
        if let Some(end) = row.interface_name.find(':') {
            row.interface_name.truncate(end);
        }
        row
    }))
}

/// Returns those of our addresses that are on a LAN.
pub(crate) fn on_lan<'a>(
    rows: &'a [InterfaceAddress],
    rules: &'a InterfaceRules,
) -> impl Iterator<Item = &'a InterfaceAddress> {
    let of_pods = bridges_of_pods(rows, rules);
    rows.iter().filter(move |row| {
        let address = row.address.as_ref().and_then(ip_of);
        address.is_some_and(|address| rules.allows_address(address))
            && why_unused(row, rules, &of_pods).is_none()
    })
}

/// Returns why an interface is no LAN of ours, if it is none.
pub(super) fn why_unused(
    row: &InterfaceAddress,
    rules: &InterfaceRules,
    of_pods: &BTreeSet<String>,
) -> Option<&'static str> {
    let name = row.interface_name.as_str();
    let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    if rules.skips(name) {
        Some("no LAN is behind its kind (lan.interfaces.allow takes it all the same)")
    } else if !rules.allows_name(name) {
        Some("lan.interfaces leaves it out")
    } else if of_pods.contains(name) {
        Some("our own pods are behind it (lan.interfaces.allow takes it all the same)")
    } else if !row.flags.contains(up) {
        Some("it is down")
    } else {
        None
    }
}

/// The bridges behind which our own pods are and nobody else, unless interfaces are named.
pub(super) fn bridges_of_pods(
    rows: &[InterfaceAddress],
    rules: &InterfaceRules,
) -> BTreeSet<String> {
    if !rules.allow.is_empty() {
        return BTreeSet::new();
    }
    let rows = rows.iter().filter_map(|row| {
        let address = row.address.as_ref().and_then(ip_of)?;
        Some((row.interface_name.clone(), address))
    });
    let mut names = inside(rows, rules);
    names.retain(|name| is_bridge(name));
    names
}

/// Returns whether an interface is a bridge.
pub(crate) fn is_bridge(name: &str) -> bool {
    let interface = Path::new("/sys/class/net").join(name);
    interface.join("bridge").exists()
}

/// The interfaces that have addresses in our own ranges, and besides these link-local ones at most.
fn inside(
    rows: impl Iterator<Item = (String, IpAddr)>,
    rules: &InterfaceRules,
) -> BTreeSet<String> {
    let is_link_local = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let others = rows.filter(|(_, address)| !is_link_local(address));
    let (inside, outside): (Vec<_>, Vec<_>) =
        others.partition(|(_, address)| rules.excludes(*address));
    let mut names: BTreeSet<String> = inside.into_iter().map(|(name, _)| name).collect();
    for (name, _) in outside {
        names.remove(&name);
    }
    names
}

/// Returns an address of an interface with its subnet; none of a family other than IP.
pub(crate) fn subnet_of(
    address: Option<&SockaddrStorage>,
    netmask: Option<&SockaddrStorage>,
) -> Option<IpNet> {
    let (address, netmask) = (ip_of(address?)?, ip_of(netmask?)?);
    IpNet::with_netmask(address, netmask).ok()
}

pub(super) fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Returns a place on the interface with a number: a link-local address means nothing without it (RFC
/// 4007, section 6).
pub(super) fn socket_address(address: IpAddr, port: u16, index: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(v6, port, 0, index))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(address, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_keeps_its_interface() {
        for (address, expected) in [
            ("fe80::9", "[fe80::9%2]:5870"),
            ("2001:db8::9", "[2001:db8::9]:5870"),
            ("169.254.1.9", "169.254.1.9:5870"),
        ] {
            let address = address.parse().expect("the table holds addresses");
            assert_eq!(socket_address(address, 5870, 2).to_string(), expected);
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("the table holds addresses")
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn interfaces_without_a_lan_behind_them_are_skipped() {
        let rules = InterfaceRules::default();
        for name in [
            "eth0", "enp3s0", "wlan0", "wlp2s0", "br0", "bond0", "lowpan0",
        ] {
            assert!(rules.allows_name(name), "{name}");
        }
        for name in [
            "lo",
            "veth12ab",
            "cni0",
            "docker0",
            "br-0a1b",
            "virbr0",
            "cali123",
            "flannel.1",
            "cilium_host",
            "lxc_health",
            "azv0a1b2c",
            "wg0",
            "tun0",
            "liqo.host",
            "landbridge0",
            "podman0",
            "lxdbr0",
            "tailscale0",
            "ztly5abcde",
            "vmnet8",
            "vboxnet0",
        ] {
            assert!(!rules.allows_name(name), "{name}");
        }
    }

    #[test]
    fn the_lists_of_the_configuration_win() {
        let rules = InterfaceRules {
            allow: list(&["eth*", "docker0"]),
            deny: list(&["eth1"]),
            ..InterfaceRules::default()
        };
        let allowed = ["eth0", "eth1", "docker0", "wlan0"].map(|name| rules.allows_name(name));
        assert_eq!(allowed, [true, false, true, false]);
    }

    #[test]
    fn who_is_reached_at_one_address_says_no_other() {
        for (listen, told) in [
            ("192.168.1.5", "192.168.1.5"),
            ("2001:db8::5", "2001:db8::5"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("0.0.0.0", "192.168.1.5 10.0.0.5"),
            ("::", "192.168.1.5 10.0.0.5 2001:db8::5 fe80::5"),
            ("127.0.0.1", "192.168.1.5 10.0.0.5 2001:db8::5 fe80::5"),
        ] {
            let said = Said::by(ip(listen));
            let own = ["192.168.1.5", "10.0.0.5", "2001:db8::5", "fe80::5"];
            let told_now: Vec<&str> = own.into_iter().filter(|it| said.holds(ip(it))).collect();
            assert_eq!(told_now.join(" "), told, "{listen}");
        }
    }

    #[test]
    fn what_is_down_or_behind_pods_is_no_lan() {
        let rules = InterfaceRules {
            excluded: vec!["10.244.0.0/16".parse().expect("the test names a range")],
            ..InterfaceRules::default()
        };
        let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let rows = [
            ("eth0", "10.0.0.5", up),
            ("eth0", "10.244.1.5", up),
            ("eth1", "10.1.0.5", InterfaceFlags::empty()),
            ("eth2", "10.2.0.5", InterfaceFlags::IFF_UP),
            ("docker0", "172.17.0.1", up),
        ];
        let rows = rows.map(|(name, address, flags)| InterfaceAddress {
            interface_name: name.to_owned(),
            flags,
            address: Some(SocketAddr::new(ip(address), 0).into()),
            netmask: None,
            broadcast: None,
            destination: None,
        });
        let found = on_lan(&rows, &rules).filter_map(|row| row.address.as_ref().and_then(ip_of));
        assert_eq!(found.collect::<Vec<_>>(), [ip("10.0.0.5")]);
    }
    #[test]
    fn addresses_that_can_be_nobodys_peer_endpoint_are_refused() {
        let rules = InterfaceRules {
            excluded: vec!["10.244.0.0/16".parse().expect("the test names a range")],
            ..InterfaceRules::default()
        };
        for address in [
            "192.168.1.7",
            "10.243.0.1",
            "169.254.1.2",
            "fe80::1",
            "2001:db8::1",
        ] {
            assert!(rules.allows_address(ip(address)), "{address}");
        }
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "::1",
            "::",
            "224.0.0.251",
            "ff02::fb",
            "255.255.255.255",
            "169.254.169.254",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "10.244.3.4",
        ] {
            assert!(!rules.allows_address(ip(address)), "{address}");
        }
    }

    #[test]
    fn an_interface_of_pods_is_none_of_a_lan_by_its_link_local_address() {
        let rules = InterfaceRules {
            excluded: vec!["10.244.0.0/16".parse().expect("the test names a range")],
            ..InterfaceRules::default()
        };
        let rows = [
            ("cbr0", "10.244.0.1"),
            ("cbr0", "fe80::1"),
            ("cbr0", "169.254.1.1"),
            ("br0", "10.244.1.1"),
            ("br0", "192.168.1.5"),
            ("br1", "fe80::2"),
            ("br2", "10.0.0.5"),
        ];
        let rows = rows.map(|(name, address)| (name.to_owned(), ip(address)));
        let names = inside(rows.into_iter(), &rules);
        assert_eq!(names, BTreeSet::from(["cbr0".to_owned()]));
    }

    #[test]
    fn a_neighbour_is_on_a_subnet_of_the_interface_that_it_was_heard_on() {
        let link = |index, nets: &[&str]| Link {
            index,
            subnets: nets.iter().map(|net| net.parse().expect("nets")).collect(),
            said: Vec::new(),
        };
        let links: Links = [
            (
                "eth0".to_owned(),
                link(2, &["192.168.1.5/24", "fe80::1/64"]),
            ),
            ("eth1".to_owned(), link(3, &["10.0.0.0/31"])),
        ]
        .into_iter()
        .collect();
        assert_eq!(links.numbered(3).map(|(name, _)| name), Some("eth1"));
        for (interface, address, expected) in [
            ("eth0", "192.168.1.7", true),
            ("eth0", "192.168.1.255", false),
            ("eth0", "192.168.1.0", false),
            ("eth0", "fe80::77", true),
            ("eth0", "10.0.0.1", false),
            ("eth1", "10.0.0.1", true),
            ("eth1", "192.168.1.7", false),
            ("eth9", "192.168.1.7", false),
        ] {
            assert_eq!(
                links.reaches(interface, ip(address)),
                expected,
                "{interface} {address}"
            );
        }
    }

    #[test]
    fn loopback_is_not_among_the_interfaces_of_this_machine() {
        let links = Links::read(&InterfaceRules::default()).expect("interfaces can be listed");
        assert!(!links.names().contains(&"lo".to_owned()));
    }
}

//! Whether multicast works here: for each interface, whether what we send comes back to us and
//! whether anybody else is heard, and which other programs speak multicast DNS on this machine.
//!
//! A question goes out under a name that nobody else has, so that its copy is known again. That the
//! network carries it is only shown by somebody who answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use nix::net::if_::InterfaceFlags;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    interfaces::{InterfaceRules, addresses, bridges_of_pods, ip_of, why_unused},
    mdns::{GROUP_V4, GROUP_V6, PORT},
};
use crate::engine::domain::SERVICE_TYPES;

mod stacks;

pub use stacks::Stack;

/// What everybody answers who offers anything (RFC 6763, section 9).
const EVERYBODY: &str = "_services._dns-sd._udp";
/// How often the question is sent, evenly over the time.
const TIMES: u32 = 3;
/// The most others that are told for an interface.
const OTHERS: usize = 16;

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Finding {
    /// The interfaces, in the order of their names.
    pub interfaces: Vec<Interface>,
    /// Other programs with the port of multicast DNS.
    pub stacks: Vec<Stack>,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Why it is not used, if it is not.
    pub skipped: Option<&'static str>,
    /// Whether another program has the port for itself. In IPv6 alone that would matter little.
    pub port_taken: bool,
    /// Why nothing can be sent.
    pub cannot_send: Option<String>,
    /// Whether what was sent came back.
    pub came_back: bool,
    /// Who else was heard.
    pub others: BTreeSet<IpAddr>,
}

/// What an interface is worth, with what a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Others are heard: multicast goes out and comes in.
    Works(String),
    /// What is sent comes back, and nobody else is heard.
    Alone(String),
    /// Nothing goes out or nothing comes in.
    Broken(String),
    /// It is not used.
    Skipped(String),
}

impl Interface {
    /// Judges the interface.
    pub fn verdict(&self) -> Verdict {
        if let Some(why) = self.skipped {
            return Verdict::Skipped(format!("not used: {why}"));
        }
        if self.port_taken {
            let advice =
                "another program holds UDP port 5353 for itself: stop it, or let it share the port";
            return Verdict::Broken(advice.to_owned());
        }
        if !self.others.is_empty() {
            let others: Vec<String> = self.others.iter().map(ToString::to_string).collect();
            let others = others.join(", ");
            return Verdict::Works(format!("multicast goes out and comes in: heard {others}"));
        }
        if let Some(error) = &self.cannot_send {
            return Verdict::Broken(format!(
                "multicast cannot be sent ({error}): let UDP port 5353 out of the firewall of this machine"
            ));
        }
        if !self.came_back {
            let advice = "what is sent does not come back: let UDP port 5353 into this machine (firewall-cmd --add-service=mdns, ufw allow 5353/udp)";
            return Verdict::Broken(advice.to_owned());
        }
        let advice = "multicast goes out and comes back, and nobody else is heard: either nobody else is there, or the network keeps it back (client isolation of a Wi-Fi, IGMP snooping without a querier, another VLAN): run this on another machine too";
        Verdict::Alone(advice.to_owned())
    }
}

impl Finding {
    /// Says who another program is and what to do about it.
    pub fn advice(&self, stack: &Stack) -> String {
        stack.advice(self.interfaces.iter().any(|one| one.port_taken))
    }
}

impl Stack {
    /// Says who it is and what to do about it, when somebody has the port for itself or not.
    fn advice(&self, port_taken: bool) -> String {
        let name = if self.name.is_empty() {
            format!("a program of user {}", self.user)
        } else {
            self.name.clone()
        };
        let who = match self.pid {
            Some(pid) => format!("{name} (process {pid})"),
            None => name,
        };
        let what = match self.name.as_str() {
            "landbridge" => "is a daemon on this machine".to_owned(),
            "avahi-daemon" => "also speaks multicast DNS here: fine, unless disallow-other-stacks=yes stands in /etc/avahi/avahi-daemon.conf".to_owned(),
            "systemd-resolve" => "also speaks multicast DNS here: fine; MulticastDNS=no in /etc/systemd/resolved.conf ends it".to_owned(),
            _ if port_taken => "has the port of multicast DNS here: stop it, or let it share the port".to_owned(),
            _ => "also has the port of multicast DNS here: fine, as long as it shares it".to_owned(),
        };
        format!("{who} {what}")
    }
}

/// Looks at every interface for this long.
///
/// # Errors
///
/// When the interfaces cannot be listed.
pub async fn check(rules: &InterfaceRules, wait: Duration) -> io::Result<Finding> {
    let rows = rows(rules)?;
    let own: BTreeSet<IpAddr> = rows.iter().flat_map(|row| row.addresses.clone()).collect();
    let probes = rows.into_iter().map(|row| probe(row, &own, wait));
    Ok(Finding {
        interfaces: futures::future::join_all(probes).await,
        stacks: stacks::others(PORT),
    })
}

/// Lists the interfaces and says which are not used.
fn rows(rules: &InterfaceRules) -> io::Result<Vec<Interface>> {
    let mut rows: BTreeMap<String, Interface> = BTreeMap::new();
    let listed: Vec<_> = addresses()?.collect();
    let of_pods = bridges_of_pods(&listed, rules);
    let mut excluded = BTreeSet::new();
    for row in listed {
        let name = row.interface_name.clone();
        let interface = rows.entry(name.clone()).or_insert_with(|| Interface {
            name,
            ..Interface::default()
        });
        let address = row.address.as_ref().and_then(ip_of);
        let allowed = address.filter(|address| rules.allows_address(*address));
        interface.addresses.extend(allowed);
        if address.is_some_and(|address| rules.excludes(address)) {
            excluded.insert(row.interface_name.clone());
        }
        let can_multicast = row.flags.contains(InterfaceFlags::IFF_MULTICAST);
        let unused = why_unused(&row, rules, &of_pods);
        interface.skipped = unused.or_else(|| (!can_multicast).then_some("it cannot multicast"));
    }
    let mut rows: Vec<Interface> = rows.into_values().collect();
    for row in rows.iter_mut().filter(|row| row.addresses.is_empty()) {
        let why = if excluded.contains(&row.name) {
            "its address is in the range of this cluster's own pods or services (cluster.podCIDR, cluster.serviceCIDR)"
        } else {
            "it has no address"
        };
        row.skipped.get_or_insert(why);
    }
    Ok(rows)
}

/// Sends on one interface in both families and listens.
async fn probe(mut row: Interface, own: &BTreeSet<IpAddr>, wait: Duration) -> Interface {
    if row.skipped.is_some() {
        return row;
    }
    let has_v4 = row.addresses.iter().any(IpAddr::is_ipv4);
    let has_v6 = row.addresses.iter().any(IpAddr::is_ipv6);
    let families = [(has_v4, true), (has_v6, false)];
    let families = families.iter().filter(|(has, _)| *has);
    let heard = families.map(async |(_, v4)| (*v4, hear(&row, *v4, own, wait).await));
    for (v4, outcome) in futures::future::join_all(heard).await {
        match outcome {
            Ok(heard) => {
                row.came_back |= heard.came_back;
                row.others.extend(heard.others);
            }
            // The other family may do.
            Err(error) => {
                row.port_taken |= v4 && error.kind() == io::ErrorKind::AddrInUse;
                row.cannot_send = Some(error.to_string());
            }
        }
    }
    if row.came_back || !row.others.is_empty() {
        row.cannot_send = None;
    }
    row
}

#[derive(Default)]
struct Heard {
    came_back: bool,
    others: BTreeSet<IpAddr>,
}

async fn hear(
    row: &Interface,
    v4: bool,
    own: &BTreeSet<IpAddr>,
    wait: Duration,
) -> io::Result<Heard> {
    let (socket, group) = open(row, v4)?;
    let question = question()?;
    let begun = Instant::now();
    let mut heard = Heard::default();
    let mut buffer = vec![0; 9000];
    for round in 0..TIMES {
        socket.send_to(&question, group).await?;
        let until = begun + wait * (round + 1) / TIMES;
        while let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await {
            let Ok((length, from)) = received else { break };
            if buffer.get(..length) == Some(question.as_slice()) {
                heard.came_back = true;
            } else if !own.contains(&from.ip()) && heard.others.len() < OTHERS {
                heard.others.insert(from.ip());
            }
        }
        sleep_until(until).await;
    }
    Ok(heard)
}

/// Opens a socket that hears the group on this interface only, beside whoever has the port.
fn open(row: &Interface, v4: bool) -> io::Result<(UdpSocket, SocketAddr)> {
    let index = nix::net::if_::if_nametoindex(row.name.as_str())?;
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    let group = if v4 {
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
        let first = row.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        socket.set_multicast_all_v4(false)?;
        socket.join_multicast_v4_n(&GROUP_V4, &socket2::InterfaceIndexOrAddress::Index(index))?;
        socket.set_multicast_if_v4(&first.unwrap_or(Ipv4Addr::UNSPECIFIED))?;
        socket.set_multicast_ttl_v4(255)?;
        socket.set_multicast_loop_v4(true)?;
        SocketAddr::from((GROUP_V4, PORT))
    } else {
        socket.set_only_v6(true)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
        socket.set_multicast_all_v6(false)?;
        socket.join_multicast_v6(&GROUP_V6, index)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(true)?;
        SocketAddr::V6(SocketAddrV6::new(GROUP_V6, PORT, 0, index))
    };
    Ok((UdpSocket::from_std(socket.into())?, group))
}

/// Writes a question that is ours alone: its last name is made by chance.
fn question() -> io::Result<Vec<u8>> {
    use ring::rand::SecureRandom as _;
    let mut chance = [0_u8; 8];
    ring::rand::SystemRandom::new()
        .fill(&mut chance)
        .map_err(io::Error::other)?;
    let own = format!("{:016x}.landbridge-check", u64::from_be_bytes(chance));
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    let names = std::iter::once(EVERYBODY)
        .chain(SERVICE_TYPES)
        .chain([own.as_str()]);
    for name in names {
        let name = Name::from_ascii(format!("{name}.local.")).map_err(io::Error::other)?;
        message.add_query(Query::query(name, RecordType::PTR));
    }
    message.to_vec().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> Interface {
        Interface {
            name: "eth0".to_owned(),
            came_back: true,
            ..Interface::default()
        }
    }

    #[test]
    fn each_state_of_an_interface_has_its_verdict() {
        let heard = Interface {
            others: ["10.0.0.2".parse().expect("an address")].into(),
            ..interface()
        };
        assert!(
            matches!(heard.verdict(), Verdict::Works(text) if text.ends_with("heard 10.0.0.2"))
        );
        assert!(matches!(interface().verdict(), Verdict::Alone(text) if text.contains("VLAN")));
        let deaf = Interface {
            came_back: false,
            ..interface()
        };
        assert!(matches!(deaf.verdict(), Verdict::Broken(text) if text.contains("ufw allow")));
        let mute = Interface {
            cannot_send: Some("Operation not permitted".to_owned()),
            ..deaf
        };
        assert!(matches!(mute.verdict(), Verdict::Broken(text) if text.contains("not permitted")));
        let taken = Interface {
            port_taken: true,
            ..mute.clone()
        };
        assert!(matches!(taken.verdict(), Verdict::Broken(text) if text.contains("stop it")));
        let down = Interface {
            skipped: Some("it is down"),
            ..mute
        };
        assert_eq!(
            down.verdict(),
            Verdict::Skipped("not used: it is down".to_owned())
        );
    }

    #[test]
    fn a_program_on_the_port_is_fine_unless_somebody_has_it_for_itself() {
        let stack = Stack {
            name: "other".to_owned(),
            pid: None,
            user: 0,
        };
        for (port_taken, word) in [(false, "fine"), (true, "stop it")] {
            let row = Interface {
                port_taken,
                ..interface()
            };
            let finding = Finding {
                interfaces: vec![interface(), row],
                ..Finding::default()
            };
            let advice = finding.advice(&stack);
            assert!(advice.contains(word), "{advice}");
        }
    }

    #[test]
    fn what_is_left_out_says_by_whom() {
        let loopback = |deny: &[&str]| {
            let deny = deny.iter().map(|&name| name.to_owned()).collect();
            let rules = InterfaceRules {
                deny,
                ..InterfaceRules::default()
            };
            let rows = rows(&rules).expect("interfaces can be listed");
            let mut rows = rows.into_iter().filter(|row| row.name == "lo");
            rows.find_map(|row| row.skipped).unwrap_or_default()
        };
        assert!(loopback(&[]).contains("its kind"));
        assert_eq!(loopback(&["lo"]), "lan.interfaces leaves it out");
    }

    #[test]
    fn the_question_is_ours_alone_and_fits_in_a_frame() {
        let (one, other) = (
            question().expect("a message"),
            question().expect("a message"),
        );
        assert_ne!(one, other);
        assert!(one.len() < 512);
    }
}

//! Which addresses may be dialled, and what a URL of a peer endpoint is.
//!
//! An advertisement, a DNS record and an object can name any address. Nothing is sent to one that
//! this policy refuses, so that nobody can aim us at a third machine or at ourselves.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
    str::FromStr,
};

use ipnet::IpNet;

use crate::api::foreign_cluster::DiscoveryType;

/// The port of a URL that names none: that of HTTPS, as Liqo's URLs mean it.
pub const DEFAULT_PORT: u16 = 443;

/// Ports where nothing of ours listens and much harm is possible: SSH, SMTP, DNS, etcd, kubelet.
const REFUSED_PORTS: [u16; 6] = [22, 25, 53, 2379, 2380, 10250];
/// The instance metadata of clouds, IPv4.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The instance metadata of clouds, IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Our own networks, which decide what is near, far and ourselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnNetworks {
    /// The range of our pods.
    pub pod_cidr: Option<IpNet>,
    /// The range of our services.
    pub service_cidr: Option<IpNet>,
    /// The subnets of the interfaces that discovery uses.
    pub on_link: Vec<IpNet>,
    /// The addresses of this machine on its LANs that others reach it at.
    pub said: Vec<IpAddr>,
    /// The addresses of this machine and its nodes.
    pub addresses: Vec<IpAddr>,
    /// The ports of API servers on [`OwnNetworks::addresses`], refused whatever else is allowed.
    pub api_ports: Vec<u16>,
    /// Whether this machine itself may be dialled when a person names it: loopback and its own
    /// addresses. For several clusters on one host.
    pub loopback_allowed: bool,
}

/// Indicates why an address may not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Indicates 0.0.0.0/8 or ::.
    #[error("the address is unspecified")]
    Unspecified,
    /// Indicates 127.0.0.0/8 or ::1.
    #[error("the address is loopback")]
    Loopback,
    /// Indicates a multicast group.
    #[error("the address is multicast")]
    Multicast,
    /// Indicates a broadcast address.
    #[error("the address is broadcast")]
    Broadcast,
    /// Indicates an address in a range that is reserved by the standards.
    #[error("the address is reserved")]
    Reserved,
    /// Indicates the metadata service of a cloud.
    #[error("the address is a cloud's metadata service")]
    Metadata,
    /// Indicates a link-local address without the interface that it is meant on.
    #[error("the address is link-local and its interface is not known")]
    LinkLocal,
    /// Indicates an address of our own pods or services.
    #[error("the address is in a range of this cluster's own pods or services")]
    OwnRange,
    /// Indicates an address of this machine.
    #[error("the address is this machine's own")]
    OwnAddress,
    /// Indicates an address heard on a LAN that is not of that LAN.
    #[error("the address is on no subnet of the LAN that it was heard on")]
    OffLink,
    /// Indicates a port that other services are known by.
    #[error("the port belongs to another service")]
    Port,
}

/// Decides whether an address that `source` named may be dialled.
pub fn judge(address: SocketAddr, source: DiscoveryType, own: &OwnNetworks) -> Result<(), Refusal> {
    let address = normalise(address);
    let here = source == DiscoveryType::Manual && own.loopback_allowed;
    judge_port(address, own)?;
    match address {
        SocketAddr::V4(v4) => judge_v4(*v4.ip(), here)?,
        SocketAddr::V6(v6) => judge_v6(*v6.ip(), v6.scope_id(), here)?,
    }
    let ip = address.ip();
    if own.addresses.contains(&ip) && !here {
        return Err(Refusal::OwnAddress);
    }
    let own_ranges = [own.pod_cidr, own.service_cidr];
    let in_own_range = own_ranges.iter().flatten().any(|range| range.contains(&ip));
    // A machine that lives on its own pod bridge may still be named by its own address.
    if in_own_range && !(here && own.addresses.contains(&ip)) {
        return Err(Refusal::OwnRange);
    }
    judge_subnet(ip, source, own)
}

/// Tells whether an address holds on one link only (RFC 4291, section 2.5.6).
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Turns an IPv4 address in IPv6 clothes (RFC 4291, section 2.5.5.2) into an IPv4 address.
pub fn normalise(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

fn judge_port(address: SocketAddr, own: &OwnNetworks) -> Result<(), Refusal> {
    let port = address.port();
    let ip = address.ip();
    let is_own_api =
        own.api_ports.contains(&port) && (own.addresses.contains(&ip) || ip.is_loopback());
    if port == 0 || REFUSED_PORTS.contains(&port) || is_own_api {
        return Err(Refusal::Port);
    }
    Ok(())
}

fn judge_v4(ip: Ipv4Addr, here: bool) -> Result<(), Refusal> {
    let [first, second, ..] = ip.octets();
    if ip == METADATA_V4 {
        Err(Refusal::Metadata)
    } else if first == 0 {
        Err(Refusal::Unspecified)
    } else if ip.is_loopback() && !here {
        Err(Refusal::Loopback)
    } else if ip.is_multicast() {
        Err(Refusal::Multicast)
    } else if ip.is_broadcast() {
        Err(Refusal::Broadcast)
    } else if first >= 240 {
        Err(Refusal::Reserved)
    } else if (first, second) == (169, 254) {
        Err(Refusal::LinkLocal)
    } else {
        Ok(())
    }
}

fn judge_v6(ip: Ipv6Addr, scope: u32, here: bool) -> Result<(), Refusal> {
    let [first, ..] = ip.segments();
    if ip == METADATA_V6 {
        Err(Refusal::Metadata)
    } else if ip.is_unspecified() {
        Err(Refusal::Unspecified)
    } else if ip.is_loopback() {
        if here { Ok(()) } else { Err(Refusal::Loopback) }
    } else if ip.is_multicast() {
        Err(Refusal::Multicast)
    } else if embeds_v4(ip) || first & 0xffc0 == 0xfec0 {
        Err(Refusal::Reserved)
    } else if ip.is_unicast_link_local() && scope == 0 {
        Err(Refusal::LinkLocal)
    } else {
        Ok(())
    }
}

/// Tells whether an address is one of the transitions through which an IPv4 address that is refused
/// could be reached after all: IPv4-compatible (::/96), IPv4-translated
/// (::ffff:0:0:0/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48), 6to4
/// (2002::/16) and Teredo (2001::/32).
fn embeds_v4(ip: Ipv6Addr) -> bool {
    matches!(
        ip.segments(),
        [0, 0, 0, 0, 0 | 0xffff, 0, ..]
            | [0x64, 0xff9b, 0 | 1, ..]
            | [0x2002, ..]
            | [0x2001, 0, ..]
    )
}

fn judge_subnet(ip: IpAddr, source: DiscoveryType, own: &OwnNetworks) -> Result<(), Refusal> {
    let is_broadcast = own.on_link.iter().any(|subnet| match (subnet, ip) {
        (IpNet::V4(subnet), IpAddr::V4(ip)) => subnet.prefix_len() < 31 && subnet.broadcast() == ip,
        _ => false,
    });
    if is_broadcast {
        return Err(Refusal::Broadcast);
    }
    // A link-local address with its scope is on that link by definition.
    let link_local = is_link_local(ip);
    let on_link = link_local || own.on_link.iter().any(|subnet| subnet.contains(&ip));
    if source == DiscoveryType::Lan && !on_link {
        return Err(Refusal::OffLink);
    }
    Ok(())
}

/// Indicates a text that is not the URL of a peer endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Indicates another scheme.
    #[error("the URL does not begin with https://")]
    Scheme,
    /// Indicates a user, a path, a query or a fragment.
    #[error("the URL has more than a host and a port: write https://host:port")]
    TooMuch,
    /// Indicates a host that is neither an address nor a name.
    #[error("the host of the URL is neither an IP address nor a DNS name")]
    Host,
    /// Indicates a port that is not 1 to 65535.
    #[error("the port of the URL is not a number from 1 to 65535")]
    Port,
}

/// The URL of a peer endpoint: https, a host, a port, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthUrl {
    host: Host,
    port: u16,
}

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address as it stands.
    Address(IpAddr),
    /// A DNS name, lower-case, without a final dot.
    Name(String),
}

impl AuthUrl {
    /// Returns the host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `host:port`, as it stands in an HTTP request.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Makes the URL of an address; a scope does not survive, since it means something here only.
    pub fn from_address(address: SocketAddr) -> Self {
        let address = normalise(address);
        Self {
            host: Host::Address(address.ip()),
            port: address.port(),
        }
    }
}

impl FromStr for AuthUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scheme = text.get(..8).ok_or(UrlError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("https://") {
            return Err(UrlError::Scheme);
        }
        let rest = text.get(8..).unwrap_or_default();
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@', '\\']) {
            return Err(UrlError::TooMuch);
        }
        let (host, port) = split_port(authority)?;
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(address) => Host::Address(IpAddr::V6(
                address.parse::<Ipv6Addr>().map_err(|_| UrlError::Host)?,
            )),
            None => parse_host(host)?,
        };
        Ok(Self { host, port })
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), UrlError> {
    let after_bracket = authority.rfind(']').map_or(0, |index| index + 1);
    let tail = authority.get(after_bracket..).unwrap_or_default();
    let Some(colon) = tail.find(':') else {
        return Ok((authority, DEFAULT_PORT));
    };
    let (host, port) = authority.split_at(after_bracket + colon);
    let digits = port.get(1..).unwrap_or_default();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(UrlError::Port),
        Ok(port) => Ok((host, port)),
    }
}

fn parse_host(host: &str) -> Result<Host, UrlError> {
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    // What ends in a number is an address in decimal, octal or hexadecimal clothes to some resolvers.
    let numeric = last.bytes().next().is_none_or(|byte| byte.is_ascii_digit())
        && (last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() > 253 || numeric || !name.split('.').all(is_label) {
        return Err(UrlError::Host);
    }
    Ok(Host::Name(name))
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => write!(formatter, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

impl fmt::Display for AuthUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "https://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests;

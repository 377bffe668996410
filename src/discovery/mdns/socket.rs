//! The sockets of multicast DNS: which interface a packet came by, and by which one it leaves.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use ipnet::IpNet;
use nix::{
    cmsg_space,
    libc::{in_addr, in_pktinfo, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrStorage, recvmsg,
        sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::{GROUP_V4, GROUP_V6, wire::SIZE_LIMIT};
use crate::discovery::{
    DiscoveryError,
    interfaces::{Link, Links},
};

/// Every packet leaves with the longest life (RFC 6762, section 11).
const HOPS: u32 = 255;
/// Room for what arrives at once when everybody answers; the system may give less.
const BUFFER: usize = 1 << 20;

/// A packet as it arrived.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Who sent it.
    pub(super) source: SocketAddr,
    /// The number of the interface that it came by.
    pub(super) interface: u32,
    /// How many bytes it has; more than the limit of a packet when it was longer.
    pub(super) length: usize,
}

/// A socket for each family that the machine has.
#[derive(Debug)]
pub(super) struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    port: u16,
    joined: BTreeMap<u32, (bool, bool)>,
}

impl Sockets {
    /// Opens the sockets. A machine may lack one of the families, but a port that is taken in IPv4
    /// hides us from most neighbours.
    pub(super) fn open(port: u16) -> Result<Self, DiscoveryError> {
        let v4 = match open_v4(port) {
            Err(reason) if reason.kind() == io::ErrorKind::AddrInUse => {
                return Err(DiscoveryError::PortTaken { port, reason });
            }
            other => other,
        };
        let v6 = open_v6(port);
        if let Err(error) = &v6 {
            tracing::debug!(%error, "No socket for multicast DNS in IPv6");
        }
        match (v4, v6) {
            (Err(error), Err(_)) => Err(DiscoveryError::Socket(error)),
            (v4, v6) => Ok(Self {
                v4: v4.ok(),
                v6: v6.ok(),
                port,
                joined: BTreeMap::new(),
            }),
        }
    }

    /// Joins the groups on the links that are there, and leaves them on others.
    pub(super) fn follow(&mut self, links: &Links) {
        let gone: Vec<u32> = self.joined.keys().copied().collect();
        for index in gone {
            if links.numbered(index).is_none() {
                self.joined.remove(&index);
                self.leave(index);
            }
        }
        for (name, link) in links.iter() {
            let wanted = (has_v4(link), has_v6(link));
            let mut joined = self.joined.get(&link.index).copied().unwrap_or_default();
            if let (true, false, Some(socket)) = (wanted.0, joined.0, &self.v4) {
                let interface = InterfaceIndexOrAddress::Index(link.index);
                joined.0 = noted(
                    name,
                    &view(socket).join_multicast_v4_n(&GROUP_V4, &interface),
                );
            }
            if let (true, false, Some(socket)) = (wanted.1, joined.1, &self.v6) {
                joined.1 = noted(name, &view(socket).join_multicast_v6(&GROUP_V6, link.index));
            }
            self.joined.insert(link.index, joined);
        }
    }

    /// The system does so itself when an interface is gone for good.
    fn leave(&self, index: u32) {
        if let Some(socket) = &self.v4 {
            let interface = InterfaceIndexOrAddress::Index(index);
            let _ = view(socket).leave_multicast_v4_n(&GROUP_V4, &interface);
        }
        if let Some(socket) = &self.v6 {
            let _ = view(socket).leave_multicast_v6(&GROUP_V6, index);
        }
    }

    /// Waits for a packet.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        let socket = match (&self.v4, &self.v6) {
            (Some(v4), Some(v6)) => tokio::select! {
                ready = v4.readable() => ready.map(|()| v4)?,
                ready = v6.readable() => ready.map(|()| v6)?,
            },
            (Some(one), None) | (None, Some(one)) => {
                one.readable().await?;
                one
            }
            (None, None) => return std::future::pending().await,
        };
        socket.try_io(Interest::READABLE, || receive(socket, buffer))
    }

    /// Sends a packet to everybody on a link: in IPv4 from each of our subnets there, since others
    /// believe nobody who is not on theirs, and in IPv6 from the link-local address. Returns whether
    /// it left at all.
    pub(super) fn multicast(&self, name: &str, link: &Link, data: &[u8]) -> bool {
        let mut sent = false;
        if let Some(socket) = &self.v4 {
            for source in sources(link) {
                sent |= noted(name, &self.send_v4(socket, link.index, source, data));
            }
        }
        if let Some(socket) = self.v6.as_ref().filter(|_| has_v6(link)) {
            let group = SocketAddrV6::new(GROUP_V6, self.port, 0, link.index);
            sent |= noted(name, &view(socket).send_to(data, &group.into()).map(drop));
        }
        sent
    }

    /// Sends a packet to one address.
    pub(super) fn unicast(&self, target: SocketAddr, data: &[u8]) {
        let socket = if target.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(socket) = socket
            && let Err(error) = view(socket).send_to(data, &target.into())
        {
            tracing::debug!(%target, %error, "An answer could not be sent");
        }
    }

    fn send_v4(
        &self,
        socket: &UdpSocket,
        index: u32,
        source: Ipv4Addr,
        data: &[u8],
    ) -> io::Result<()> {
        let none = in_addr { s_addr: 0 };
        let information = in_pktinfo {
            ipi_ifindex: i32::try_from(index).unwrap_or_default(),
            ipi_spec_dst: in_addr {
                s_addr: u32::from_ne_bytes(source.octets()),
            },
            ipi_addr: none,
        };
        let group = SockaddrIn::from(SocketAddrV4::new(GROUP_V4, self.port));
        sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(data)],
            &[ControlMessage::Ipv4PacketInfo(&information)],
            MsgFlags::MSG_DONTWAIT,
            Some(&group),
        )?;
        Ok(())
    }
}

/// Our first address in each subnet of a link.
fn sources(link: &Link) -> Vec<Ipv4Addr> {
    let mut sources = BTreeMap::new();
    for subnet in &link.subnets {
        if let IpNet::V4(own) = subnet {
            sources.entry(own.trunc()).or_insert_with(|| own.addr());
        }
    }
    sources.into_values().collect()
}

fn has_v4(link: &Link) -> bool {
    link.addresses().any(|address| address.is_ipv4())
}

fn has_v6(link: &Link) -> bool {
    link.addresses().any(|address| address.is_ipv6())
}

fn view(socket: &UdpSocket) -> socket2::SockRef<'_> {
    socket2::SockRef::from(socket)
}

/// Returns whether something went well, and says so where it did not.
fn noted(interface: &str, result: &io::Result<()>) -> bool {
    if let Err(error) = result {
        tracing::debug!(interface, %error, "Multicast does not work");
    }
    result.is_ok()
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut space = cmsg_space!(in_pktinfo, in6_pktinfo);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let cut = message.flags.contains(MsgFlags::MSG_TRUNC);
    let interface = message.cmsgs()?.find_map(|one| interface_of(&one));
    let source = message.address.as_ref().and_then(address_of);
    Ok(Datagram {
        // A packet without either is nobody's: it is dropped like one from elsewhere.
        source: source.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        interface: interface.unwrap_or_default(),
        length: if cut { SIZE_LIMIT + 1 } else { message.bytes },
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other kinds were not asked for"
)]
fn interface_of(message: &ControlMessageOwned) -> Option<u32> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(information) => {
            u32::try_from(information.ipi_ifindex).ok()
        }
        ControlMessageOwned::Ipv6PacketInfo(information) => Some(information.ipi6_ifindex),
        _ => None,
    }
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    })
}

fn open_v4(port: u16) -> io::Result<UdpSocket> {
    let socket = shared(Domain::IPV4)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(HOPS)?;
    socket.set_ttl_v4(HOPS)?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    UdpSocket::from_std(socket.into())
}

fn open_v6(port: u16) -> io::Result<UdpSocket> {
    let socket = shared(Domain::IPV6)?;
    socket.set_only_v6(true)?;
    socket.set_multicast_loop_v6(true)?;
    socket.set_multicast_hops_v6(HOPS)?;
    socket.set_unicast_hops_v6(HOPS)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket that lets other mDNS stacks of this machine have the port too.
fn shared(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Without CAP_NET_ADMIN the system may give less, which is as good on a quiet LAN.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(BUFFER);
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subnet_hears_us_once() {
        let nets = ["10.0.0.6/24", "10.0.0.5/24", "10.1.0.5/24", "fe80::5/64"];
        let link = Link {
            index: 2,
            subnets: nets.map(|net| net.parse().expect("nets")).into(),
            said: Vec::new(),
        };
        let wanted: [Ipv4Addr; 2] =
            ["10.0.0.6", "10.1.0.5"].map(|text| text.parse().expect("an address"));
        assert_eq!(sources(&link), wanted);
    }
}

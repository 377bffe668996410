//! The interface, its address and its routes, through rtnetlink.
//!
//! Everything here belongs to us by the interface's name or by the routes' protocol number, so that
//! nothing of anybody else's is ever changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use futures::TryStreamExt as _;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
    },
};
use rustix::net::sockopt;
use tokio::time::timeout;

use super::driver::Error;

/// The protocol number of our routes: nobody's in iproute2's rt_protos.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(76);
/// How long the kernel may take to answer; it needs microseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// What the kernel says about a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkFacts {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Whether somebody holds the other end, which a TUN needs to pass packets.
    pub(crate) held: bool,
}

/// A connection to the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    handle: Handle,
}

impl Links {
    /// Connects; the connection lives as long as the result.
    pub(crate) fn connect() -> Result<Self, Error> {
        // The strict check makes the kernel filter, so that a large routing table is never dumped.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .map_err(|source| Error::kernel("connect to rtnetlink", source))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<LinkFacts>, Error> {
        let what = "look an interface up";
        let mut links = Box::pin(self.handle.link().get().match_name(name).execute());
        match limited(what, links.try_next()).await {
            Ok(link) => Ok(link.as_ref().map(facts)),
            Err(Error::Kernel { source, .. }) if is(&source, Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn bring_up(&self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up();
        self.change("bring the interface up", message).await
    }

    pub(crate) async fn set_mtu(&self, index: u32, mtu: u16) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu.into());
        self.change("set the MTU", message).await
    }

    async fn change(&self, what: &str, to: LinkMessageBuilder<LinkUnspec>) -> Result<(), Error> {
        limited(what, self.handle.link().change(to.build()).execute()).await
    }

    pub(crate) async fn delete(&self, index: u32) -> Result<(), Error> {
        let deletion = self.handle.link().del(index).execute();
        tolerate(
            limited("delete the interface", deletion).await,
            Errno::ENODEV,
        )
    }

    pub(crate) async fn addresses(&self, index: u32) -> Result<BTreeSet<Ipv4Net>, Error> {
        let messages = self.address_messages(index).await?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    pub(crate) async fn add_address(&self, index: u32, address: Ipv4Addr) -> Result<(), Error> {
        let addition = self.handle.address().add(index, address.into(), 32);
        let result = limited("add the address", addition.execute()).await;
        tolerate(result, Errno::EEXIST)
    }

    pub(crate) async fn remove_address(&self, index: u32, address: Ipv4Net) -> Result<(), Error> {
        for message in self.address_messages(index).await? {
            if address_of(&message) == Some(address) {
                let removal = self.handle.address().del(message).execute();
                limited("remove an address", removal).await?;
            }
        }
        Ok(())
    }

    async fn address_messages(&self, index: u32) -> Result<Vec<AddressMessage>, Error> {
        let request = self.handle.address().get().set_link_index_filter(index);
        limited("list addresses", request.execute().try_collect()).await
    }

    /// Lists our routes; one that does not lead through `index` has no source.
    pub(crate) async fn routes(
        &self,
        index: u32,
    ) -> Result<BTreeMap<Ipv4Net, Option<Ipv4Addr>>, Error> {
        let messages = self.route_messages().await?;
        let read = |message: &RouteMessage| {
            let through = message
                .attributes
                .iter()
                .any(|it| matches!(it, RouteAttribute::Oif(oif) if *oif == index));
            Some((destination(message)?, source(message).filter(|_| through)))
        };
        Ok(messages.iter().filter_map(read).collect())
    }

    /// Adds a route, or replaces our own; somebody else's is left alone and makes this fail.
    pub(crate) async fn add_route(
        &self,
        index: u32,
        range: Ipv4Net,
        source: Ipv4Addr,
    ) -> Result<(), Error> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .output_interface(index)
            .pref_source(source)
            .protocol(PROTOCOL)
            .build();
        let known = self.routes(index).await?.contains_key(&range);
        let mut addition = self.handle.route().add(message);
        if known {
            addition = addition.replace();
        }
        let what = format!("add a route to {range} (is there another one?)");
        limited(&what, addition.execute()).await
    }

    pub(crate) async fn remove_route(&self, range: Ipv4Net) -> Result<(), Error> {
        for message in self.route_messages().await? {
            if destination(&message) == Some(range) {
                let removal = self.handle.route().del(message).execute();
                tolerate(limited("remove a route", removal).await, Errno::ESRCH)?;
            }
        }
        Ok(())
    }

    async fn route_messages(&self) -> Result<Vec<RouteMessage>, Error> {
        let wanted = RouteMessageBuilder::<Ipv4Addr>::new()
            .protocol(PROTOCOL)
            .build();
        let routes: Vec<RouteMessage> = limited(
            "list routes",
            self.handle.route().get(wanted).execute().try_collect(),
        )
        .await?;
        let ours = routes
            .into_iter()
            .filter(|it| it.header.protocol == PROTOCOL);
        Ok(ours.collect())
    }
}

/// Returns the largest packet that the path to an endpoint carries, as far as the kernel knows.
pub(crate) fn path_mtu(endpoint: SocketAddr) -> Option<u32> {
    // Connecting a UDP socket sends nothing; it only looks the route up.
    if let IpAddr::V4(address) = endpoint.ip().to_canonical() {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((address, endpoint.port())).ok()?;
        sockopt::ip_mtu(&socket).ok()
    } else {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(endpoint).ok()?;
        sockopt::ipv6_mtu(&socket).ok()
    }
}

fn facts(link: &LinkMessage) -> LinkFacts {
    let mtu = link.attributes.iter().find_map(|it| {
        let LinkAttribute::Mtu(mtu) = it else {
            return None;
        };
        Some(*mtu)
    });
    LinkFacts {
        index: link.header.index,
        mtu: mtu.unwrap_or(0),
        up: link.header.flags.contains(LinkFlags::Up),
        held: link
            .attributes
            .iter()
            .any(|it| matches!(it, LinkAttribute::Carrier(carrier) if *carrier == 1)),
    }
}

fn address_of(message: &AddressMessage) -> Option<Ipv4Net> {
    message.attributes.iter().find_map(|it| {
        let AddressAttribute::Local(IpAddr::V4(address)) = it else {
            return None;
        };
        Ipv4Net::new(*address, message.header.prefix_len).ok()
    })
}

fn destination(message: &RouteMessage) -> Option<Ipv4Net> {
    message.attributes.iter().find_map(|it| {
        let RouteAttribute::Destination(RouteAddress::Inet(address)) = it else {
            return None;
        };
        Ipv4Net::new(*address, message.header.destination_prefix_length).ok()
    })
}

fn source(message: &RouteMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|it| {
        let RouteAttribute::PrefSource(RouteAddress::Inet(source)) = it else {
            return None;
        };
        Some(*source)
    })
}

async fn limited<T>(
    what: &str,
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    let limit = LIMIT;
    let answer = timeout(limit, request).await.map_err(|_| Error::Timeout {
        what: "the kernel's answer",
        limit,
    })?;
    answer.map_err(|error| {
        let source = if let rtnetlink::Error::NetlinkError(message) = &error {
            message.to_io()
        } else {
            io::Error::other(error.to_string())
        };
        Error::kernel(what, source)
    })
}

fn tolerate(result: Result<(), Error>, errno: Errno) -> Result<(), Error> {
    match result {
        Err(Error::Kernel { source, .. }) if is(&source, errno) => Ok(()),
        other => other,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_to_ourselves_is_known_in_both_families() {
        for text in ["127.0.0.1:9", "[::ffff:127.0.0.1]:9", "[::1]:9"] {
            let endpoint: SocketAddr = text.parse().unwrap();
            // A machine may have no IPv6.
            if UdpSocket::bind((endpoint.ip(), 0)).is_ok() || endpoint.is_ipv4() {
                let mtu = path_mtu(endpoint);
                assert!(mtu.is_some_and(|mtu| mtu > 60_000), "{text}: {mtu:?}");
            }
        }
    }
}

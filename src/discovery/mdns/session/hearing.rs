//! What becomes of a packet: it is dropped, heard or answered.

use std::{io, time::Duration};

use tokio::time::Instant;

use super::{ANNOUNCEMENT_PAUSE, Session};
use crate::discovery::{
    DiscoveryError,
    mdns::{
        fraction,
        neighbours::Origin,
        responder,
        socket::Datagram,
        wire::{Packet, SIZE_LIMIT},
    },
};

/// The least time between two objections to somebody who takes us back, who has one second to last.
const OBJECTION_PAUSE: Duration = Duration::from_millis(250);
/// How long an answer waits that others may give too (RFC 6762, section 6).
const SHARED_ANSWER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

impl Session<'_> {
    pub(super) async fn receive(
        &self,
        buffer: &mut [u8],
    ) -> Result<Option<Datagram>, DiscoveryError> {
        let Some(sockets) = &self.sockets else {
            return std::future::pending().await;
        };
        match sockets.receive(buffer).await {
            Ok(datagram) => Ok(Some(datagram)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(DiscoveryError::Socket(error)),
        }
    }

    /// Takes a packet, if it is from a neighbour and there is time for it.
    pub(super) fn take(&mut self, received: Option<&Datagram>, buffer: &[u8]) {
        let now = Instant::now();
        let Some(datagram) = received else {
            return;
        };
        let source = datagram.source.ip();
        let Some((_, link)) = self.links.numbered(datagram.interface) else {
            return;
        };
        if link.addresses().any(|own| own == source) {
            let line = self.lines.entry(datagram.interface).or_default();
            (line.silent, line.is_blocked) = (None, false);
        }
        // Whoever is not on this link speaks through a router (RFC 6762, section 11).
        if !link.reaches(source) || !self.neighbours.admits(source, now) {
            return;
        }
        let Some(data) = buffer.get(..datagram.length.min(buffer.len())) else {
            return;
        };
        if datagram.length > SIZE_LIMIT || data == self.asked {
            return;
        }
        let packet = match Packet::decode(data) {
            Ok(packet) => packet,
            Err(error) => {
                tracing::trace!(%source, %error, "Ignoring a packet");
                return;
            }
        };
        if packet.is_response {
            self.hear(&packet, datagram, now);
        } else {
            self.answer(&packet, datagram, now);
        }
    }

    fn hear(&mut self, packet: &Packet, datagram: &Datagram, now: Instant) {
        let own = &self.announcement;
        // Answers come from the port of multicast DNS (RFC 6762, section 6).
        if datagram.source.port() != self.port
            || responder::is_own(packet, &own.cluster_id, &own.boot)
        {
            return;
        }
        if self
            .responder
            .as_ref()
            .is_some_and(|responder| responder.is_denied(packet))
        {
            self.announce_soon(OBJECTION_PAUSE, now);
        }
        if !self.announcement.discover {
            return;
        }
        let origin = Origin {
            interface: datagram.interface,
            source: datagram.source.ip(),
        };
        let is_new = self.neighbours.hear(packet, origin, &self.links, now);
        if is_new {
            self.announce_soon(ANNOUNCEMENT_PAUSE, now);
        }
    }

    fn answer(&mut self, query: &Packet, datagram: &Datagram, now: Instant) {
        let (Some(responder), Some(sockets)) = (&self.responder, &self.sockets) else {
            return;
        };
        let (Some(wish), Some((_, link))) = (
            responder.wish(query),
            self.links.numbered(datagram.interface),
        ) else {
            return;
        };
        if datagram.source.port() != self.port {
            let reply = responder.legacy(query, link.addresses(), wish.list);
            sockets.unicast(datagram.source, &reply.encode());
            return;
        }
        let line = self.lines.entry(datagram.interface).or_default();
        let recent = |within| line.announced.is_some_and(|last| now < last + within);
        if wish.unicast && recent(self.announcement.ttl / 4) {
            let reply = responder.announcement(link.addresses(), wish.list);
            sockets.unicast(datagram.source, &reply.encode());
            return;
        }
        let wait = if wish.shared {
            SHARED_ANSWER.0 + SHARED_ANSWER.1.mul_f64(fraction())
        } else {
            Duration::ZERO
        };
        let polite = line.announced.map_or(now, |last| last + ANNOUNCEMENT_PAUSE);
        let due = (now + wait).max(polite);
        line.answer = Some(match line.answer {
            Some((earlier, list)) => (earlier.min(due), list || wish.list),
            None => (due, wish.list),
        });
    }
}

//! What becomes of a packet: it is dropped, heard or answered.

use std::{io, time::Duration};

use tokio::time::Instant;

use super::{ANNOUNCEMENT_PAUSE, Session, lines::Unfinished};
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
/// How long the rest of a query is waited for, from its first packet on (RFC 6762, section 7.2). It
/// is not waited for anew with each packet: nobody shall put an answer off for ever.
const REST_OF_QUERY: (Duration, Duration) =
    (Duration::from_millis(400), Duration::from_millis(100));
/// Of how many askers on a link the rest is waited for at a time; others are answered before.
const UNFINISHED: usize = 64;
/// How long an answer waits that others may give too (RFC 6762, section 6).
const SHARED_ANSWER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));
/// So many neighbours may tell a newcomer of themselves in the same moment.
const FEW: usize = 8;

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
        let is_next_to_us = link.reaches(source);
        if link.addresses().any(|own| own == source) {
            let line = self.lines.entry(datagram.interface).or_default();
            if line.open() {
                self.speak_anew(now);
            }
        }
        // Whoever is not on this link speaks through a router (RFC 6762, section 11).
        if !is_next_to_us || !self.neighbours.admits(source, now) {
            return;
        }
        let Some(data) = buffer.get(..datagram.length.min(buffer.len())) else {
            return;
        };
        // Others who know as little ask the same.
        let is_echo = || self.links.holds(source) && self.asked.iter().any(|own| own == data);
        if datagram.length > SIZE_LIMIT || is_echo() {
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
            if datagram.source.port() == self.port {
                let interface = datagram.interface;
                self.neighbours
                    .hear_questions(&packet, interface, &self.links, now);
            }
            self.answer(&packet, datagram, now);
        }
    }

    fn hear(&mut self, packet: &Packet, datagram: &Datagram, now: Instant) {
        let own = &self.announcement;
        // Answers come from the port of multicast DNS (RFC 6762, section 6).
        if datagram.source.port() != self.port {
            return;
        }
        let is_own = responder::is_own(packet, &own.cluster_id, &own.boot);
        // What our own packets hold anybody can say.
        let is_from_us = is_own && self.links.holds(datagram.source.ip());
        let responder = self.responder.as_ref().filter(|_| !is_from_us);
        if responder.is_some_and(|responder| responder.is_denied(packet)) {
            self.announce_soon(OBJECTION_PAUSE, now, Duration::ZERO);
        }
        if is_own || !self.announcement.discover {
            return;
        }
        let origin = Origin {
            interface: datagram.interface,
            source: datagram.source.ip(),
        };
        let is_new = self.neighbours.hear(packet, origin, &self.links, now);
        if is_new {
            let moment = moment(self.neighbours.len() > FEW);
            self.announce_soon(ANNOUNCEMENT_PAUSE, now, moment);
        }
    }

    fn answer(&mut self, query: &Packet, datagram: &Datagram, now: Instant) {
        let (Some(responder), Some(sockets)) = (&self.responder, &self.sockets) else {
            return;
        };
        let Some((_, link)) = self.links.numbered(datagram.interface) else {
            return;
        };
        let line = self.lines.entry(datagram.interface).or_default();
        let source = datagram.source.ip();
        if let Some(earlier) = line.unfinished.get_mut(&source) {
            responder.drop_answered(&mut earlier.questions, query);
        }
        let Some(wish) = responder.wish(query) else {
            return;
        };
        if datagram.source.port() != self.port {
            let reply = responder.legacy(query, link.said.iter().copied(), wish.list);
            sockets.unicast(datagram.source, &reply.encode());
            return;
        }
        if query.is_truncated && line.unfinished.len() < UNFINISHED {
            let due = now + REST_OF_QUERY.0 + REST_OF_QUERY.1.mul_f64(fraction());
            let questions = query.questions.clone();
            let query = Unfinished { questions, due };
            line.unfinished.entry(source).or_insert(query);
            return;
        }
        let recent = |within| line.announced.is_some_and(|last| now < last + within);
        if wish.unicast && recent(self.announcement.ttl / 4) {
            let reply = responder.announcement(link.said.iter().copied(), wish.list);
            sockets.unicast(datagram.source, &reply.encode());
            return;
        }
        line.answer_after(moment(wish.shared), wish.list, now);
    }

    /// Answers what is still open of the queries whose rest was waited for.
    pub(super) fn answer_unfinished(&mut self, now: Instant) {
        let Some(responder) = &self.responder else {
            return;
        };
        for line in self.lines.values_mut() {
            let finished = line.unfinished.extract_if(.., |_, query| query.due <= now);
            let finished: Vec<Unfinished> = finished.map(|(_, query)| query).collect();
            for query in finished {
                if let Some(wish) = responder.wish_of(&query.questions, &Packet::default()) {
                    line.answer_after(moment(wish.shared), wish.list, now);
                }
            }
        }
    }
}

/// How long to wait with what others may say at the same time too.
fn moment(is_shared: bool) -> Duration {
    if is_shared {
        SHARED_ANSWER.0 + SHARED_ANSWER.1.mul_f64(fraction())
    } else {
        Duration::ZERO
    }
}

//! Questions: for everybody at their time, about neighbours after a moment, and few packets a second.

use std::time::Duration;

use tokio::time::Instant;

use super::Session;
use crate::discovery::mdns::{
    fraction,
    responder::ENTRIES,
    wire::{Packet, Question},
};

/// How long a question about neighbours waits, so that not all who have it ask at the same time (RFC
/// 6762, section 5.2).
const WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));
/// The pause for each packet of such questions: nobody reads more than fifty a second of us.
const PAUSE: Duration = Duration::from_millis(50);

/// When neighbours are asked about.
#[derive(Debug, Default)]
pub(super) struct Asking {
    pub(super) due: Option<Instant>,
    /// The end of the pause after the last packets.
    free: Option<Instant>,
}

impl Session<'_> {
    /// Asks about neighbours, or sees to it that it is done soon.
    pub(super) fn ask_about_neighbours(&mut self, now: Instant) {
        if !self.neighbours.has_questions() {
            self.asking.due = None;
            return;
        }
        let due = self.asking.due.unwrap_or_else(|| {
            let polite = now + WAIT.0 + WAIT.1.mul_f64(fraction());
            self.asking.free.map_or(polite, |free| free.max(polite))
        });
        self.asking.due = Some(due);
        if due > now {
            return;
        }
        let questions: Vec<Question> = self.neighbours.take_questions().into_iter().collect();
        let queries: Vec<Packet> = questions
            .chunks(ENTRIES)
            .map(|questions| Packet {
                questions: questions.to_vec(),
                ..Packet::default()
            })
            .collect();
        self.ask(&queries, now);
        let free = queries.iter().fold(now, |free, _| free + PAUSE);
        self.asking.free = Some(free);
        self.asking.due = self.neighbours.has_questions().then_some(free);
    }

    /// Asks on all links.
    pub(super) fn ask(&mut self, queries: &[Packet], now: Instant) {
        let Some(sockets) = self.sockets.as_ref().filter(|_| !queries.is_empty()) else {
            return;
        };
        self.asked = queries.iter().map(Packet::encode).collect();
        for (name, link) in self.links.iter() {
            for query in &self.asked {
                sockets.multicast(name, link, query);
            }
            let line = self.lines.entry(link.index).or_default();
            line.silent.get_or_insert(now);
        }
    }
}

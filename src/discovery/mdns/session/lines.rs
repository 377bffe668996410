//! The links that discovery speaks on: what is remembered of each, and which of them let us.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{ANNOUNCEMENT_PAUSE, BROWSE, Session, responder};
use crate::discovery::{
    DiscoveryError, Health,
    interfaces::{Links, without_multicast},
    mdns::{
        fraction,
        wire::{Packet, Question},
    },
};

/// For how long link events are collected: an address change comes as several.
const LINK_DEBOUNCE: Duration = Duration::from_millis(20);
/// How long what we send may take to come back to ourselves.
const ECHO: Duration = Duration::from_secs(2);

/// The waits between two tries on a link that is blocked double from one to the other.
const TRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));

/// The waits between two times that we speak as if we had just come double from one to the other while
/// links come and go all the time, as those of pods do.
const ANEW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// For each neighbour, how long a question for everybody may wait after somebody was lost.
const LOST: Duration = Duration::from_millis(20);

/// When we last spoke as if we had just come, and when we do so again.
#[derive(Debug, Default)]
pub(super) struct Anew {
    last: Option<Instant>,
    wait: Duration,
    pub(super) due: Option<Instant>,
}

impl Anew {
    /// Takes note that we want to, and tells whether it is now; otherwise it is later.
    fn may_be(&mut self, now: Instant) -> bool {
        let free = self.last.map(|last| last + self.wait);
        if free.is_some_and(|free| free > now) {
            self.due = free;
            return false;
        }
        let was_quiet = free.is_none_or(|free| free + ANEW.1 <= now);
        self.wait = if was_quiet {
            ANEW.0
        } else {
            (self.wait * 2).min(ANEW.1)
        };
        (self.last, self.due) = (Some(now), None);
        true
    }
}

/// What is remembered of a link.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When we were last announced there.
    pub(super) announced: Option<Instant>,
    /// When somebody there is to be answered, and whether the service types are asked for.
    pub(super) answer: Option<(Instant, bool)>,
    /// What is asked by those who are still telling what they know.
    pub(super) unfinished: BTreeMap<IpAddr, Unfinished>,
    /// Since when nothing of what we sent there came back.
    pub(super) silent: Option<Instant>,
    pub(super) is_blocked: bool,
    /// When it is tried once more while it is blocked, and the wait before.
    try_at: Option<Instant>,
    try_wait: Duration,
}

/// A query whose known answers come in several packets.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// The questions that are open yet.
    pub(super) questions: Vec<Question>,
    /// When it is answered.
    pub(super) due: Instant,
}

impl Line {
    /// Sees to it that somebody there is answered as soon as that is polite, and a moment later.
    pub(super) fn answer_after(&mut self, moment: Duration, list: bool, now: Instant) {
        let polite = self.announced.map(|last| last + ANNOUNCEMENT_PAUSE);
        let due = polite.map_or(now, |polite| polite.max(now)) + moment;
        self.answer = Some(match self.answer {
            Some((earlier, listed)) => (earlier.min(due), listed || list),
            None => (due, list),
        });
    }

    /// Takes note that something came back to us; returns whether it was blocked.
    pub(super) fn open(&mut self) -> bool {
        (self.silent, self.try_at, self.try_wait) = (None, None, Duration::ZERO);
        std::mem::take(&mut self.is_blocked)
    }

    /// Whether it is blocked and to be tried once more now.
    fn is_try_due(&mut self, now: Instant) -> bool {
        self.is_blocked |= self.silent.is_some_and(|since| since + ECHO <= now);
        let is_due = self.is_blocked && self.try_at.is_none_or(|due| due <= now);
        if is_due {
            self.try_wait = (self.try_wait * 2).clamp(TRY.0, TRY.1);
            self.try_at = Some(now + self.try_wait);
        }
        is_due
    }

    /// Answers nobody there of those who have asked.
    pub(super) fn drop_answers(&mut self) {
        self.answer = None;
        self.unfinished.clear();
    }

    /// When something is to be done there.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let unfinished = self.unfinished.values().map(|query| query.due);
        let answer = self.answer.map(|(due, _)| due);
        unfinished.chain(answer).min()
    }
}

impl Session<'_> {
    pub(super) fn health(&self) -> Health {
        let is_blocked = |index| self.lines.get(&index).is_some_and(|line| line.is_blocked);
        let links = self.links.iter();
        let named = links.map(|(name, link)| (name.to_owned(), is_blocked(link.index)));
        let (blocked, working): (Vec<_>, Vec<_>) = named.partition(|(_, blocked)| *blocked);
        let names = |links: Vec<(String, bool)>| links.into_iter().map(|(name, _)| name).collect();
        let (interfaces, working): (Vec<String>, Vec<String>) = (names(blocked), names(working));
        if self.sockets.is_none() {
            Health::SwitchedOff
        } else if self.links.is_empty() {
            Health::NoInterface {
                without_multicast: self.without_multicast.clone(),
            }
        } else if interfaces.is_empty() {
            Health::Working {
                interfaces: working,
            }
        } else {
            Health::Blocked {
                interfaces,
                working,
            }
        }
    }

    pub(super) fn note_link_event(&mut self) {
        self.links_due
            .get_or_insert_with(|| Instant::now() + LINK_DEBOUNCE);
    }

    pub(super) fn look_at_links(&mut self, now: Instant) -> Result<(), DiscoveryError> {
        let links = Links::read(&self.rules).map_err(DiscoveryError::Interfaces)?;
        self.without_multicast = if links.is_empty() {
            without_multicast(&self.rules)
        } else {
            Vec::new()
        };
        if links == self.links {
            return Ok(());
        }
        tracing::debug!(interfaces = ?links.names(), "Network addresses changed");
        let taken_back = self.taken_back(&links);
        self.links = links;
        let links = &self.links;
        self.lines
            .retain(|index, _| links.numbered(*index).is_some());
        if let Some(sockets) = &mut self.sockets {
            sockets.follow(links);
            for (index, packet) in taken_back {
                if let Some((name, link)) = links.numbered(index) {
                    sockets.multicast(name, link, &packet.encode());
                }
            }
        }
        self.neighbours.links_changed(links, now);
        self.speak_anew(now);
        Ok(())
    }

    /// Takes back the addresses that links have no more which are still there.
    pub(super) fn taken_back(&self, links: &Links) -> Vec<(u32, Packet)> {
        let Some(responder) = &self.responder else {
            return Vec::new();
        };
        let left = links.iter().filter_map(|(_, link)| {
            let (_, before) = self.links.numbered(link.index)?;
            let is_left = |address: &&IpAddr| !link.said.contains(*address);
            let left: Vec<IpAddr> = before.said.iter().filter(is_left).copied().collect();
            (!left.is_empty()).then(|| (link.index, responder.withdrawal(left.into_iter())))
        });
        left.collect()
    }

    /// Announces us and asks for everybody as if we had just come, or does so later when that was
    /// lately.
    pub(super) fn speak_anew(&mut self, now: Instant) {
        if self.responder.is_none() && self.browse_at.is_none() {
            self.anew.due = None;
            return;
        }
        if !self.anew.may_be(now) {
            return;
        }
        if self.responder.is_some() {
            self.announce_now_and_again(now);
        }
        if self.browse_at.is_some() {
            self.browse_at = Some(now);
            self.browse_wait = BROWSE.0;
        }
    }

    /// Asks for everybody as if we had just come, since somebody was lost, or does so later when that
    /// was lately. All others have lost it at the same time, so that we wait the longer the more they
    /// are.
    pub(super) fn look_anew(&mut self, now: Instant) {
        let Some(browse_at) = self.browse_at else {
            self.search.due = None;
            return;
        };
        if self.search.may_be(now) {
            let crowd = f64::from(u32::try_from(self.neighbours.len()).unwrap_or(u32::MAX));
            let chance = LOST.mul_f64((crowd + 1.0) * fraction());
            self.browse_at = Some(browse_at.min(now + chance));
            self.browse_wait = BROWSE.0;
        }
    }

    /// Finds out on which links nothing of what we send comes back, and tries once more there.
    pub(super) fn check_lines(&mut self, now: Instant) {
        for index in self.due_tries(now) {
            if let (Some(sockets), Some((name, link)), Some(query)) = (
                &self.sockets,
                self.links.numbered(index),
                responder::echo(&self.announcement.cluster_id),
            ) {
                sockets.multicast(name, link, &query.encode());
            }
        }
        let (neighbours, refused) = (self.neighbours.len(), self.neighbours.refused());
        tracing::trace!(neighbours, refused, "Neighbours on the LAN");
    }

    /// Returns the links that are blocked and to be tried now. The others are left alone.
    pub(super) fn due_tries(&mut self, now: Instant) -> Vec<u32> {
        let lines = self.lines.iter_mut();
        let due = lines.filter_map(|(index, line)| line.is_try_due(now).then_some(*index));
        due.collect()
    }
}

//! The links that discovery speaks on: what is remembered of each, and which of them let us.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{ANNOUNCEMENT_PAUSE, BROWSE, Session};
use crate::discovery::{
    DiscoveryError, Health,
    interfaces::{Links, without_multicast},
    mdns::wire::Question,
};

/// For how long link events are collected: an address change comes as several.
const LINK_DEBOUNCE: Duration = Duration::from_millis(20);
/// How long what we send may take to come back to ourselves.
const ECHO: Duration = Duration::from_secs(2);

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
    /// Sees to it that somebody there is answered by then.
    pub(super) fn answer_by(&mut self, due: Instant, list: bool) {
        let polite = self.announced.map(|last| last + ANNOUNCEMENT_PAUSE);
        let due = polite.map_or(due, |polite| polite.max(due));
        self.answer = Some(match self.answer {
            Some((earlier, listed)) => (earlier.min(due), listed || list),
            None => (due, list),
        });
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
        self.links = links;
        let links = &self.links;
        self.lines
            .retain(|index, _| links.numbered(*index).is_some());
        if let Some(sockets) = &mut self.sockets {
            sockets.follow(links);
        }
        self.neighbours.links_changed(links, now);
        if self.responder.is_some() {
            self.announce_now_and_again(now);
        }
        if self.browse_at.is_some() {
            self.browse_at = Some(now);
            self.browse_wait = BROWSE.0;
        }
        Ok(())
    }

    /// Finds out on which links nothing of what we send comes back, and tries once more there.
    pub(super) fn check_lines(&mut self, now: Instant) {
        for line in self.lines.values_mut() {
            line.is_blocked |= line.silent.is_some_and(|since| since + ECHO <= now);
        }
        if self.lines.values().any(|line| line.is_blocked) {
            if self.browse_at.is_some() {
                self.browse_at = Some(now);
            } else {
                self.announce_soon(ANNOUNCEMENT_PAUSE, now);
            }
        }
        let (neighbours, refused) = (self.neighbours.len(), self.neighbours.refused());
        tracing::trace!(neighbours, refused, "Neighbours on the LAN");
    }
}

//! Whom to ask about: few at a time, those who are known first, and what nobody else asks.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Links, Neighbours, Packet, Question, wire::kind};

/// About how many neighbours questions may wait while what strangers say makes us doubt others: what
/// is doubted has to be asked about at once.
pub(super) const DOUBTS_AT_ONCE: usize = 32;
/// How many questions are asked at once.
pub(super) const QUESTIONS_AT_ONCE: usize = 240;

/// The rows that are to be asked about, each unless it is heard after a moment.
#[derive(Debug, Default)]
pub(super) struct Wanted(BTreeMap<String, Instant>);

impl Wanted {
    pub(super) fn add(&mut self, key: &str, since: Instant) {
        let latest = self.0.entry(key.to_owned()).or_insert(since);
        *latest = since.max(*latest);
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether somebody who is doubted now would be asked in time.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < DOUBTS_AT_ONCE
    }
}

impl Neighbours {
    /// Returns whether anything is to be asked.
    pub(in crate::discovery::mdns) fn has_questions(&self) -> bool {
        !self.wanted.0.is_empty()
    }

    /// Returns what is to be asked next.
    pub(in crate::discovery::mdns) fn take_questions(&mut self) -> BTreeSet<Question> {
        let wanted = self.wanted.0.iter().filter_map(|(key, since)| {
            let row = self.rows.get(key)?;
            Some((!row.is_known, *since, key.clone()))
        });
        let mut wanted: Vec<(bool, Instant, String)> = wanted.collect();
        wanted.sort_unstable();
        let mut questions = BTreeSet::new();
        for (_, since, key) in wanted {
            let Some(row) = self.rows.get_mut(&key) else {
                continue;
            };
            if !row.is_confirmed(since, &self.hosts) {
                let more = row.questions(&key, &self.types);
                if questions.len() + more.len() > QUESTIONS_AT_ONCE {
                    break;
                }
                questions.extend(more);
                row.note_asked();
            }
            self.wanted.remove(&key);
        }
        questions
    }

    /// Leaves to somebody else what it has asked just now (RFC 6762, section 7.3).
    pub(in crate::discovery::mdns) fn hear_questions(
        &mut self,
        query: &Packet,
        interface: u32,
        links: &Links,
        now: Instant,
    ) {
        let Some((interface, _)) = links.numbered(interface) else {
            return;
        };
        // Whoever names what it knows may not get the answer that we need.
        if !self.has_questions() || !query.answers.is_empty() {
            return;
        }
        for question in &query.questions {
            if question.kind != kind::SRV || question.unicast {
                continue;
            }
            let Some((_, key)) = self.instance_at(&question.name) else {
                continue;
            };
            if let Some(row) = self.rows.get_mut(&key)
                && self.wanted.0.contains_key(&key)
                && row.is_left_to_others(interface, &self.hosts, now)
            {
                self.wanted.remove(&key);
            }
        }
    }
}

//! What one SearchDomain has led to so far: what is told to the roster, and when to look again.

use std::{collections::BTreeMap, time::Duration};

use super::{Dnssec, Entry, Ground, INSTANCES, Look, Problem, TARGETS, Verdict, verdict};
use crate::{
    api::foreign_cluster::DiscoveryType,
    engine::{
        backoff::Backoff,
        sighting::{Event, Sighting, Voucher},
    },
};

/// The shortest and the longest wait between two looks.
const PACE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// How much of a wait may be added by chance, so that a fleet does not ask all at once.
const SPREAD: f64 = 0.1;
/// For how long a find holds: longer than three looks, so that a name server that is away for a
/// while changes nothing.
pub const HOLD: Duration = Duration::from_mins(16);
/// The most refusals that are reported.
const REFUSALS: usize = 32;

/// What a person is told about a SearchDomain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How many instances lead to an endpoint.
    pub found: usize,
    /// The instances that do not, each with the reason; the first ones only.
    pub refused: Vec<(String, String)>,
    /// Why the look was not complete, if it was not.
    pub problem: Option<Problem>,
    /// How many instances were beyond the bound.
    pub surplus: usize,
    /// Whether the answers are signed.
    pub dnssec: Dnssec,
}

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the roster is told.
    pub events: Vec<Event>,
    /// What a person is told.
    pub report: Report,
    /// How long to wait before the next look.
    pub wait: Duration,
}

/// The memory of one SearchDomain between its looks.
#[derive(Debug)]
pub struct Book {
    search_domain: String,
    told: BTreeMap<String, Sighting>,
    backoff: Backoff,
}

impl Book {
    /// Opens the book of the SearchDomain with this name.
    pub fn new(search_domain: String) -> Self {
        Self {
            search_domain,
            told: BTreeMap::new(),
            backoff: Backoff::new(PACE.0, PACE.1),
        }
    }

    /// Takes what a look brought. `chance`, between 0 and 1, spreads the next look.
    pub fn handle_look(&mut self, look: &Look, ground: &Ground<'_>, chance: f64) -> Outcome {
        let mut report = Report {
            surplus: look.surplus,
            dnssec: look.dnssec,
            problem: look.incomplete.clone(),
            ..Report::default()
        };
        let mut found = BTreeMap::new();
        let mut kept = Vec::new();
        for entry in &look.entries {
            match verdict(entry, ground) {
                Verdict::Found(claim, endpoints) => {
                    let sighting = self.sighting(entry, claim, endpoints);
                    found.insert(entry.instance.clone(), sighting);
                }
                Verdict::Ourselves => {}
                Verdict::Refused(why) => report.refuse(&entry.instance, why),
                Verdict::Unclear(why) => {
                    kept.push(entry.instance.as_str());
                    report.refuse(&entry.instance, why.clone());
                    report.problem.get_or_insert(Problem::Passing(why));
                }
            }
        }
        let unsure = matches!(look.incomplete, Some(Problem::Passing(_)));
        let mut events: Vec<Event> = found.values().cloned().map(Event::Seen).collect();
        // Who writes the domain must not grow our memory by new names in each look.
        let mut room = INSTANCES.saturating_sub(found.len() + kept.len());
        for (instance, sighting) in std::mem::take(&mut self.told) {
            let known = look.entries.iter().any(|entry| entry.instance == instance);
            if found.contains_key(&instance) {
                continue;
            }
            let is_kept = kept.contains(&instance.as_str());
            if is_kept || (unsure && !known && room > 0) {
                room = room.saturating_sub(usize::from(!is_kept));
                self.told.insert(instance, sighting);
            } else {
                events.push(Event::Seen(withdrawn(sighting)));
            }
        }
        report.found = found.len();
        self.told.append(&mut found);
        let wait = self.wait(look.ttl, report.problem.as_ref(), chance);
        Outcome {
            events,
            report,
            wait,
        }
    }

    /// Takes back everything that was told, since the SearchDomain is gone or names another domain.
    pub fn close(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.told)
            .into_values()
            .map(|sighting| Event::Seen(withdrawn(sighting)))
            .collect()
    }

    fn sighting(
        &self,
        entry: &Entry,
        claim: super::Claim,
        endpoints: Vec<std::net::SocketAddr>,
    ) -> Sighting {
        Sighting {
            source: DiscoveryType::Wan,
            instance: entry.instance.clone(),
            cluster_id: claim.cluster_id,
            name: claim.name,
            boot: claim.boot,
            endpoints,
            interface: None,
            search_domain: Some(self.search_domain.clone()),
            vouchers: self.vouchers(entry),
            ttl: HOLD,
        }
    }

    /// What the domain says of the hosts of an entry, in an order that does not change.
    fn vouchers(&self, entry: &Entry) -> Vec<Voucher> {
        let services = entry.services.iter().flatten();
        let named = services.filter(|service| !service.target.is_empty());
        let mut vouchers: Vec<Voucher> = named
            .map(|service| Voucher {
                search_domain: self.search_domain.clone(),
                host: service.target.clone(),
                keys: service.keys.clone(),
            })
            .collect();
        vouchers.sort_unstable();
        vouchers.dedup();
        vouchers.truncate(TARGETS);
        vouchers
    }

    /// The answers say for how long they hold; what failed is tried again sooner, and later each time.
    fn wait(&mut self, ttl: Option<Duration>, problem: Option<&Problem>, chance: f64) -> Duration {
        let longest = PACE.1.div_f64(1.0 + SPREAD);
        let base = ttl.unwrap_or(longest).clamp(PACE.0, longest);
        let chance = if chance.is_finite() {
            chance.clamp(0.0, 1.0)
        } else {
            1.0
        };
        let regular = base.mul_f64(1.0 + SPREAD * chance);
        if matches!(problem, Some(Problem::Passing(_))) {
            return self.backoff.next(chance).clamp(PACE.0, regular);
        }
        self.backoff.reset();
        regular
    }
}

impl Report {
    fn refuse(&mut self, instance: &str, why: String) {
        if self.refused.len() < REFUSALS {
            self.refused.push((instance.to_owned(), why));
        }
    }
}

fn withdrawn(sighting: Sighting) -> Sighting {
    Sighting {
        endpoints: Vec::new(),
        vouchers: Vec::new(),
        ..sighting
    }
}

//! What is said of an advertisement under one service type: where it is, and what it is.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{host::Host, wire::Name};
use crate::discovery::{fraction, record::Record};

/// The most sources of one advertisement that are told apart.
const LOCATIONS: usize = 4;
/// After which shares of its time a location is asked for again, give or take two per cent (RFC 6762,
/// section 5.2).
const REFRESH: [f64; 4] = [0.80, 0.85, 0.90, 0.95];

/// What is said under one service type.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// The oldest first.
    pub(super) locations: Vec<Location>,
    /// What each source says about the instance, the oldest first.
    pub(super) descriptions: Vec<(IpAddr, Record)>,
}

/// Where one source says that the instance is.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) source: IpAddr,
    pub(super) port: u16,
    pub(super) target: Name,
    pub(super) ttl: Duration,
    pub(super) expires: Instant,
    /// Whether its source has taken it back.
    pub(super) is_taken_back: bool,
    pub(super) refresh: Refresh,
}

/// When to ask again whether something still is where it was.
#[derive(Debug)]
pub(super) struct Refresh {
    pub(super) heard: Instant,
    ttl: Duration,
    step: usize,
    pub(super) due: Option<Instant>,
}

impl Refresh {
    pub(super) fn new(heard: Instant, ttl: Duration) -> Self {
        let mut refresh = Self {
            heard,
            ttl,
            step: 0,
            due: None,
        };
        refresh.schedule();
        refresh
    }

    /// Goes on to the first time after that.
    pub(super) fn pass(&mut self, by: Instant) {
        while self.due.is_some_and(|due| due <= by) {
            self.schedule();
        }
    }

    fn schedule(&mut self) {
        let share = REFRESH
            .get(self.step)
            .map(|share| share + fraction() / 50.0);
        self.due = share.map(|share| self.heard + self.ttl.mul_f64(share));
        self.step += 1;
    }
}

impl Service {
    /// Takes where a source says that the instance is.
    pub(super) fn locate(&mut self, location: Location, hosts: &BTreeMap<Name, Host>) {
        let mut present = self.locations.iter_mut();
        if let Some(present) = present.find(|one| one.source == location.source) {
            *present = location;
            return;
        }
        if self.locations.len() >= LOCATIONS {
            // Who names an address of its own can be there; the others can only be wrong.
            let leads_home = |one: &Location| {
                let host = hosts.get(&one.target);
                host.is_some_and(|host| host.has(one.source))
            };
            let oldest = self.locations.iter().position(|one| !leads_home(one));
            self.locations.remove(oldest.unwrap_or_default());
        }
        self.locations.push(location);
    }

    /// Takes what a source says about an instance.
    pub(super) fn describe(&mut self, instance: &str, source: IpAddr, record: Record) {
        let descriptions = &mut self.descriptions;
        if let Some((_, present)) = descriptions.iter_mut().find(|(by, _)| *by == source) {
            *present = record;
            return;
        }
        if descriptions.len() >= LOCATIONS {
            let oldest = descriptions
                .iter()
                .position(|(_, one)| !is_named_by(instance, one));
            descriptions.remove(oldest.unwrap_or_default());
        }
        descriptions.push((source, record));
    }
}

/// Whether an instance is named by the id that a description claims, as ours and those of Liqo are.
pub(super) fn is_named_by(instance: &str, record: &Record) -> bool {
    let id = record.cluster_id.as_ref();
    id.is_some_and(|id| id.as_str().eq_ignore_ascii_case(instance))
}

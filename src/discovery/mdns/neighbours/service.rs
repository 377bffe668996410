//! What is said of an advertisement under one service type: where it is, and what it is.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::wire::Name;
use crate::discovery::record::Record;

/// The most sources of one advertisement that are told apart.
const LOCATIONS: usize = 4;

/// What is said under one service type.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) locations: Vec<Location>,
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
}

impl Service {
    /// Takes where a source says that the instance is.
    pub(super) fn locate(&mut self, location: Location) {
        let (source, locations) = (location.source, &mut self.locations);
        let is_full = locations.len() >= LOCATIONS;
        match locations.iter_mut().find(|one| one.source == source) {
            Some(present) => *present = location,
            None if is_full => {}
            None => locations.push(location),
        }
    }

    /// Takes what a source says about an instance.
    pub(super) fn describe(&mut self, source: IpAddr, record: Record) {
        let descriptions = &mut self.descriptions;
        let is_full = descriptions.len() >= LOCATIONS;
        match descriptions.iter_mut().find(|(by, _)| *by == source) {
            Some((_, present)) => *present = record,
            None if is_full => {}
            None => descriptions.push((source, record)),
        }
    }
}

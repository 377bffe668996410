//! Who may be heard how often: a bucket of tokens for each source address, so that a flood drowns
//! only itself.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

/// How many sources are told apart. Beyond that all others share one bucket.
const SOURCES: usize = 2048;
/// How many packets a source may send at once, and how many a second after that. A host that has
/// dozens of services sends so many when somebody asks for all of them.
const PACKETS: (u32, u32) = (200, 50);
/// How many new advertisements a source may have at once, and how many a second after that.
const NEWCOMERS: (u32, u32) = (16, 1);

/// The buckets of all sources.
#[derive(Debug, Default)]
pub(super) struct Gate {
    sources: BTreeMap<IpAddr, Buckets>,
    others: Buckets,
    refused: u64,
}

#[derive(Debug, Default)]
struct Buckets {
    packets: Bucket,
    newcomers: Bucket,
}

/// When the bucket will be full again; full when that has passed.
#[derive(Debug, Default)]
struct Bucket(Option<Instant>);

impl Gate {
    /// Returns whether a packet of a source is to be read.
    pub(super) fn admits_packet(&mut self, source: IpAddr, now: Instant) -> bool {
        let admitted = self.of(source, now).packets.take(PACKETS, now);
        if !admitted {
            self.refused = self.refused.saturating_add(1);
        }
        admitted
    }

    /// Returns whether a new advertisement of a source is to be remembered.
    pub(super) fn admits_newcomer(&mut self, source: IpAddr, now: Instant) -> bool {
        self.of(source, now).newcomers.take(NEWCOMERS, now)
    }

    /// Returns how many packets were not read.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    fn of(&mut self, source: IpAddr, now: Instant) -> &mut Buckets {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, buckets| !buckets.is_full(now));
            if self.sources.len() >= SOURCES {
                return &mut self.others;
            }
        }
        self.sources.entry(source).or_default()
    }
}

impl Buckets {
    fn is_full(&self, now: Instant) -> bool {
        [&self.packets, &self.newcomers]
            .iter()
            .all(|bucket| bucket.0.is_none_or(|full| full <= now))
    }
}

impl Bucket {
    fn take(&mut self, (burst, per_second): (u32, u32), now: Instant) -> bool {
        let token = Duration::from_secs(1) / per_second;
        let full = self.0.map_or(now, |full| full.max(now)) + token;
        let fits = full <= now + token * burst;
        if fits {
            self.0 = Some(full);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + last).to_be_bytes())
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate_whatever_others_do() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        let mut admitted = [0; 2];
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            admitted[0] += u32::from(gate.admits_packet(ip(1), now));
            admitted[1] += u32::from(gate.admits_newcomer(ip(1), now));
        }
        assert_eq!(admitted, [200 + 499, 16 + 9]);
        assert_eq!(gate.refused(), 10_000 - 699);
        assert!(gate.admits_packet(ip(2), start) && gate.admits_newcomer(ip(2), start));
    }

    #[test]
    fn more_sources_than_are_told_apart_share_what_is_left() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let admitted = (0..10_000).filter(|source| gate.admits_newcomer(ip(*source), now));
        assert_eq!(admitted.count(), SOURCES + 16);
        assert_eq!(gate.sources.len(), SOURCES);
        // Whoever was silent for long enough makes room.
        let later = now + Duration::from_secs(2);
        assert!(gate.admits_newcomer(ip(20_000), later));
    }
}

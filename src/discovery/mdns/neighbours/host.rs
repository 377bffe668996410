//! A host that somebody is said to be on: its addresses, by interface, for as long as they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    DOUBT, FAREWELL, Origin,
    wire::{Name, Question, kind},
};

/// The most addresses of a host.
const ADDRESSES: usize = 16;
/// What was heard so lately is not replaced by another packet of the same burst (RFC 6762, section
/// 10.2).
const BURST: Duration = Duration::from_secs(1);

/// A host.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// The rows that are said to be on it.
    pub(super) rows: BTreeSet<String>,
    addresses: BTreeMap<(u32, IpAddr), Lease>,
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Lease {
    source: IpAddr,
    heard: Instant,
    expires: Instant,
}

impl Host {
    /// Returns the addresses, each with the number of the interface that it was heard on.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        self.addresses.keys().copied()
    }

    /// Returns whether an address is among its addresses, on whichever interface.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses().any(|(_, own)| own == address)
    }

    /// Takes an address; returns whether it is news.
    pub(super) fn hear(
        &mut self,
        from: Origin,
        address: IpAddr,
        ttl: Duration,
        now: Instant,
    ) -> bool {
        let key = (from.interface, address);
        let is_new = !self.addresses.contains_key(&key);
        if is_new && self.addresses.len() >= ADDRESSES {
            // Anybody can name many addresses, and speaks from few.
            if from.source != address {
                return false;
            }
            self.forget_one();
        }
        let lease = Lease {
            source: from.source,
            heard: now,
            expires: now + ttl,
        };
        self.addresses.insert(key, lease);
        is_new
    }

    /// Forgets the oldest address, or rather one that only others have named.
    fn forget_one(&mut self) {
        let oldest = self
            .addresses
            .iter()
            .min_by_key(|((_, address), lease)| (lease.source == *address, lease.heard))
            .map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.addresses.remove(&key);
        }
    }

    /// Takes an address back.
    pub(super) fn withdraw(&mut self, from: Origin, address: IpAddr, now: Instant) {
        if let Some(lease) = self.addresses.get_mut(&(from.interface, address)) {
            lease.end_within(deadline(lease.source == from.source, now));
        }
    }

    /// Lets what was heard before run out, since a packet named all addresses of a family; returns
    /// whether that is to be doubted and asked about.
    pub(super) fn replace(&mut self, from: Origin, is_v4: bool, now: Instant) -> bool {
        let mut is_doubted = false;
        for ((interface, address), lease) in &mut self.addresses {
            let concerned = *interface == from.interface && address.is_ipv4() == is_v4;
            if concerned && lease.heard + BURST < now {
                let own = lease.source == from.source;
                lease.end_within(deadline(own, now));
                is_doubted |= !own;
            }
        }
        let recent = self.asked.is_some_and(|asked| now < asked + BURST);
        if is_doubted && !recent {
            self.asked = Some(now);
        }
        is_doubted && !recent
    }

    /// Lets everything run out unless it is confirmed until then.
    pub(super) fn doubt_all(&mut self, deadline: Instant) {
        for lease in self.addresses.values_mut() {
            lease.end_within(deadline);
        }
    }

    /// Forgets what is over; returns whether there was any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.addresses.len();
        self.addresses.retain(|_, lease| lease.expires > now);
        self.addresses.len() != before
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.addresses.values().map(|lease| lease.expires).min()
    }
}

impl Lease {
    fn end_within(&mut self, deadline: Instant) {
        self.expires = self.expires.min(deadline);
    }
}

/// How long something holds that was taken back: whoever said it need not be asked.
fn deadline(by_its_source: bool, now: Instant) -> Instant {
    now + if by_its_source { FAREWELL } else { DOUBT }
}

/// Asks for the addresses of a host.
pub(super) fn questions(name: &Name) -> [Question; 2] {
    [kind::A, kind::AAAA].map(|kind| Question {
        name: name.clone(),
        kind,
        unicast: false,
    })
}

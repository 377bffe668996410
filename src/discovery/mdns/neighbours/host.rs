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
/// The least time between two questions that strangers make us ask.
pub(super) const ASK_PAUSE: Duration = Duration::from_secs(1);
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
    /// Who has named it last.
    source: IpAddr,
    /// Whether others have named it before.
    is_shared: bool,
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
        let present = self.addresses.get(&key);
        let (is_new, is_shared) = (
            present.is_none(),
            present.is_some_and(|lease| lease.is_shared || lease.source != from.source),
        );
        if is_new && self.addresses.len() >= ADDRESSES {
            // Anybody can name many addresses, and speaks from few.
            if from.source != address {
                return false;
            }
            self.forget_one();
        }
        let lease = Lease {
            source: from.source,
            is_shared,
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

    /// Takes an address back; returns whether it is to be asked about.
    pub(super) fn withdraw(
        &mut self,
        from: Origin,
        address: IpAddr,
        now: Instant,
        may_doubt: bool,
    ) -> bool {
        self.take_back(from, now, may_doubt, |interface, own, _| {
            interface == from.interface && own == address
        })
    }

    /// Lets what was heard before run out, since a packet named all addresses of a family; returns
    /// whether it is to be asked about.
    pub(super) fn replace(
        &mut self,
        from: Origin,
        is_v4: bool,
        now: Instant,
        may_doubt: bool,
    ) -> bool {
        self.take_back(from, now, may_doubt, |interface, address, lease| {
            let concerned = interface == from.interface && address.is_ipv4() == is_v4;
            concerned && lease.heard + BURST < now
        })
    }

    /// Lets addresses run out. Those that are not the source's own are doubted if they may be, unless
    /// they were asked about a moment ago: who confirmed them then has said it.
    fn take_back(
        &mut self,
        from: Origin,
        now: Instant,
        may_doubt: bool,
        concerned: impl Fn(u32, IpAddr, &Lease) -> bool,
    ) -> bool {
        let rests = !may_doubt || is_recent(self.asked, now);
        let mut is_doubted = false;
        for ((interface, address), lease) in &mut self.addresses {
            if !concerned(*interface, *address, lease) {
                continue;
            }
            if lease.is_of(from.source, *address) {
                lease.end_within(now + FAREWELL);
            } else if !rests {
                lease.end_within(now + DOUBT);
                is_doubted = true;
            }
        }
        let asks = is_doubted && self.asked != Some(now);
        if asks {
            self.asked = Some(now);
        }
        asks
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

    /// Returns whether all addresses were heard after a moment.
    pub(super) fn is_heard(&self, since: Instant) -> bool {
        self.addresses.values().all(|lease| lease.heard > since)
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.addresses.values().map(|lease| lease.expires).min()
    }
}

impl Lease {
    /// Whether a source may take it back: it speaks from there, or has alone named it. Anybody can
    /// name the address of somebody else.
    fn is_of(&self, source: IpAddr, address: IpAddr) -> bool {
        source == address || (self.source == source && !self.is_shared)
    }

    fn end_within(&mut self, deadline: Instant) {
        self.expires = self.expires.min(deadline);
    }
}

/// Whether something was asked less than a second ago, and not just now.
pub(super) fn is_recent(asked: Option<Instant>, now: Instant) -> bool {
    asked.is_some_and(|asked| asked < now && now < asked + ASK_PAUSE)
}

/// Asks for the addresses of a host.
pub(super) fn questions(name: &Name) -> [Question; 2] {
    [kind::A, kind::AAAA].map(|kind| Question {
        name: name.clone(),
        kind,
        unicast: false,
    })
}

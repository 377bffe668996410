//! Who may have a connection: a bounded number of strangers, few for each address, and accepted
//! peers apart from them.
//!
//! When all places of strangers are taken, a newcomer gets that of somebody else, so that nobody can
//! keep others out by staying: of one who does not finish the handshake, else of one from the most
//! crowded address; the oldest goes first. Where an address has all that are its own, it gets that of
//! one of them, if that has been there for long.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an honest handshake takes at the most, when places are scarce.
const HONEST_HANDSHAKE: Duration = Duration::from_millis(500);

/// How long one has its place for sure when another one of its address wants it. Behind one address
/// there may be many clusters, and accepted ones begin as strangers, too.
const SURE: Duration = Duration::from_mins(10);

/// The places of strangers.
#[derive(Debug)]
pub(super) struct Strangers {
    inside: Mutex<Inside>,
    in_all: usize,
    for_each: usize,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    open: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    since: Instant,
    shaken: bool,
    away: CancellationToken,
}

impl Strangers {
    /// Makes places, so many in all and for each address.
    pub(super) fn new(in_all: usize, for_each: usize) -> Arc<Self> {
        Arc::new(Self {
            inside: Mutex::default(),
            in_all,
            for_each,
        })
    }

    /// Gives a place to a newcomer, unless its address has its share already, and has had it for a
    /// short time only.
    pub(super) fn enter(strangers: &Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let mut inside = strangers.lock();
        let now = Instant::now();
        if inside.crowd(address) >= strangers.for_each {
            let ticket = inside.oldest(address, now)?;
            inside.send_away(ticket);
        }
        if inside.open.len() >= strangers.in_all {
            inside.send_one_away(now);
        }
        let ticket = inside.next;
        inside.next += 1;
        let away = CancellationToken::new();
        let connection = Connection {
            address,
            since: now,
            shaken: false,
            away: away.clone(),
        };
        inside.open.insert(ticket, connection);
        Some(Stranger {
            strangers: Arc::clone(strangers),
            ticket,
            away,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn crowd(&self, address: IpAddr) -> usize {
        let all = self.open.values();
        all.filter(|one| one.address == address).count()
    }

    /// Who of an address has been here for longest, and for long.
    fn oldest(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let (ticket, oldest) = self.open.iter().find(|(_, one)| one.address == address)?;
        (now.duration_since(oldest.since) >= SURE).then_some(*ticket)
    }

    fn send_one_away(&mut self, now: Instant) {
        let mut crowds: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for one in self.open.values() {
            *crowds.entry(one.address).or_default() += 1;
        }
        let rank = |(ticket, one): &(&u64, &Connection)| {
            let dawdles = !one.shaken && now.duration_since(one.since) > HONEST_HANDSHAKE;
            let crowd = crowds.get(&one.address).copied().unwrap_or_default();
            (Reverse(dawdles), Reverse(crowd), **ticket)
        };
        if let Some((ticket, _)) = self.open.iter().min_by_key(rank) {
            self.send_away(*ticket);
        }
    }

    fn send_away(&mut self, ticket: u64) {
        if let Some(one) = self.open.remove(&ticket) {
            tracing::debug!(address = %one.address, "Stranger made room for another one");
            one.away.cancel();
        }
    }
}

/// The place of a stranger; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    strangers: Arc<Strangers>,
    ticket: u64,
    away: CancellationToken,
}

impl Stranger {
    /// Notes that the handshake is over.
    pub(super) fn shaken(&self) {
        if let Some(one) = self.strangers.lock().open.get_mut(&self.ticket) {
            one.shaken = true;
        }
    }

    /// Returns what is cancelled when somebody else needs the place.
    pub(super) fn away(&self) -> CancellationToken {
        self.away.clone()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.lock().open.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(index: u32) -> IpAddr {
        IpAddr::from(Ipv4Addr::from(0x0a00_0000 + index))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_few_places_and_they_come_back() {
        let strangers = Strangers::new(16, 4);
        let first: Vec<_> = (0..4)
            .map(|_| Strangers::enter(&strangers, address(0)).unwrap())
            .collect();
        assert!(Strangers::enter(&strangers, address(0)).is_none());
        assert!(Strangers::enter(&strangers, address(1)).is_some());
        drop(first);
        assert!(Strangers::enter(&strangers, address(0)).is_some());
        assert!(strangers.lock().open.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stays_for_long_makes_room_for_another_one_of_its_address() {
        let strangers = Strangers::new(16, 2);
        let [first, second, other] =
            [0, 0, 1].map(|index| Strangers::enter(&strangers, address(index)).unwrap());
        tokio::time::advance(SURE / 2).await;
        assert!(Strangers::enter(&strangers, address(0)).is_none());
        tokio::time::advance(SURE / 2).await;
        let third = Strangers::enter(&strangers, address(0)).unwrap();
        let away = [&first, &second, &other, &third].map(|one| one.away().is_cancelled());
        assert_eq!(away, [true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_gets_the_place_of_the_oldest_of_the_most_crowded_address() {
        let strangers = Strangers::new(5, 4);
        let lonely = Strangers::enter(&strangers, address(0)).unwrap();
        let crowd: Vec<_> = (0..4)
            .map(|_| Strangers::enter(&strangers, address(1)).unwrap())
            .collect();
        let newcomer = Strangers::enter(&strangers, address(2)).unwrap();
        assert!(crowd[0].away().is_cancelled());
        assert!(!lonely.away().is_cancelled() && !newcomer.away().is_cancelled());
        assert_eq!(strangers.lock().open.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_the_handshake_goes_before_who_has() {
        let strangers = Strangers::new(4, 3);
        let crowd: Vec<_> = (0..3)
            .map(|_| Strangers::enter(&strangers, address(1)).unwrap())
            .collect();
        crowd.iter().for_each(Stranger::shaken);
        let slow = Strangers::enter(&strangers, address(2)).unwrap();
        let quick = Strangers::enter(&strangers, address(3)).unwrap();
        assert!(!slow.away().is_cancelled(), "it may still be honest");
        tokio::time::advance(HONEST_HANDSHAKE * 2).await;
        quick.shaken();
        let _newcomer = Strangers::enter(&strangers, address(4)).unwrap();
        assert!(slow.away().is_cancelled());
        assert!(!crowd[1].away().is_cancelled());
    }
}

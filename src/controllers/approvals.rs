//! The approval codes of peers that came to us, the exchanges that lead to them, and how many begin.
//!
//! Whoever stands in between knows the code of an exchange first: as home before it reveals its own
//! nonce, as foreign once home has revealed. It could begin again and again, in two sessions, until
//! their codes agree. So what counts is each beginning, however it ends.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    api::ClusterId,
    peer::{
        approval::{Nonce, code},
        certificates::Proven,
        limits::{Buckets, Rate},
    },
};

/// How many exchanges may begin with one peer, and with all together, in each of our two roles. A peer
/// that loses its connection now and then does not come near it.
const BEGINNINGS: (Rate, Rate) = (
    Rate {
        burst: 8,
        each: Duration::from_mins(10),
    },
    Rate {
        burst: 64,
        each: Duration::from_mins(1),
    },
);
/// For how long a person is told that none could begin. Whoever stands in between stops once two codes
/// agree, and nobody would look before.
const WITHHELD: Duration = Duration::from_hours(24);
/// How many codes are kept. A code belongs to the session of its peer, whatever becomes of the object.
const CODES: usize = 1024;
/// How long an exchange may take.
const LIFETIME: Duration = Duration::from_mins(1);

/// What is remembered between the two requests of an exchange, and its outcome.
#[derive(Debug, Default)]
pub(crate) struct Approvals(Mutex<State>);

#[derive(Debug)]
struct State {
    /// As few as may begin in the lifetime of one.
    exchanges: BTreeMap<[u8; 32], Exchange>,
    /// The last code of each peer, the oldest first.
    codes: VecDeque<(ClusterId, String)>,
    as_foreign: Buckets,
    as_home: Buckets,
}

impl Default for State {
    fn default() -> Self {
        let full = Buckets::new(BEGINNINGS.0, BEGINNINGS.1, Instant::now());
        Self {
            exchanges: BTreeMap::new(),
            codes: VecDeque::new(),
            as_foreign: full.clone(),
            as_home: full,
        }
    }
}

#[derive(Debug)]
struct Exchange {
    commitment: String,
    nonce: Nonce,
    begun: Instant,
}

impl Approvals {
    /// Takes the commitment of a session and returns our nonce, if chance gives one and the peer has
    /// not begun too often.
    pub(crate) fn begin(
        &self,
        exporter: [u8; 32],
        home: &ClusterId,
        commitment: String,
        now: Instant,
    ) -> Option<Nonce> {
        let nonce = Nonce::generate().ok()?;
        let mut state = self.lock();
        state.as_foreign.try_take(home.as_str(), now).ok()?;
        state
            .exchanges
            .retain(|_, exchange| now < exchange.begun + LIFETIME);
        let exchange = Exchange {
            commitment,
            nonce,
            begun: now,
        };
        state.exchanges.insert(exporter, exchange);
        Some(nonce)
    }

    /// Takes the nonce that a session committed to, and notes the code of its peer. A nonce that
    /// was not committed to ends the exchange without a code.
    pub(crate) fn finish(
        &self,
        exporter: &[u8; 32],
        home: &Proven,
        foreign: &Proven,
        revealed: Nonce,
    ) {
        let mut state = self.lock();
        let Some(exchange) = state.exchanges.remove(exporter) else {
            return;
        };
        state.codes.retain(|(peer, _)| *peer != home.cluster_id);
        if revealed.keeps(&exchange.commitment) {
            let code = code((home, revealed), (foreign, exchange.nonce), exporter);
            if state.codes.len() >= CODES {
                state.codes.pop_front();
            }
            state.codes.push_back((home.cluster_id.clone(), code));
        }
    }

    /// Returns the code of the last session in which a peer came to us.
    pub(crate) fn code(&self, peer: &ClusterId) -> Option<String> {
        let state = self.lock();
        let mut codes = state.codes.iter();
        let (_, code) = codes.find(|(home, _)| home == peer)?;
        Some(code.clone())
    }

    /// Tells whether we may begin an exchange with a peer that we ask.
    pub(crate) fn may_ask(&self, foreign: &ClusterId, now: Instant) -> bool {
        self.lock().as_home.wait(foreign.as_str(), now).is_none()
    }

    /// Counts an exchange in which we reveal our nonce to a peer that we asked.
    pub(crate) fn note_reveal(&self, foreign: &ClusterId, now: Instant) {
        self.lock().as_home.take(foreign.as_str(), now);
    }

    /// Tells whether so many exchanges have begun that none could begin with a peer, now or within
    /// the last day.
    pub(crate) fn are_withheld(&self, peer: &ClusterId, now: Instant) -> bool {
        let state = self.lock();
        let both = [&state.as_foreign, &state.as_home];
        both.iter()
            .any(|one| one.ran_out(peer.as_str(), WITHHELD, now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Fingerprint;

    const SECOND: Duration = Duration::from_secs(1);

    fn cluster(key: &[u8]) -> Proven {
        Proven {
            cluster_id: ClusterId::from_spki(key),
            fingerprint: Fingerprint::from_spki(key),
        }
    }

    #[test]
    fn both_sides_of_an_exchange_get_the_same_code() {
        let approvals = Approvals::default();
        let (home, foreign) = (cluster(b"home"), cluster(b"foreign"));
        let (exporter, own) = ([7; 32], Nonce::generate().unwrap());
        let theirs = approvals
            .begin(exporter, &home.cluster_id, own.commitment(), Instant::now())
            .unwrap();
        approvals.finish(&exporter, &home, &foreign, own);
        let expected = code((&home, own), (&foreign, theirs), &exporter);
        assert_eq!(approvals.code(&home.cluster_id), Some(expected));
    }

    #[test]
    fn who_changes_its_nonce_gets_no_code() {
        let approvals = Approvals::default();
        let (home, foreign) = (cluster(b"home"), cluster(b"foreign"));
        let (own, other) = (Nonce::generate().unwrap(), Nonce::generate().unwrap());
        approvals.begin([7; 32], &home.cluster_id, own.commitment(), Instant::now());
        approvals.finish(&[7; 32], &home, &foreign, other);
        assert_eq!(approvals.code(&home.cluster_id), None);
        approvals.finish(&[7; 32], &home, &foreign, own);
        assert_eq!(
            approvals.code(&home.cluster_id),
            None,
            "an exchange is good for one try"
        );
    }

    #[test]
    fn so_many_codes_are_kept_and_the_newest() {
        let approvals = Approvals::default();
        let (foreign, now) = (cluster(b"foreign"), Instant::now());
        let homes: Vec<_> = (0..=CODES).map(|it| cluster(&it.to_be_bytes())).collect();
        for (minute, home) in (0..).zip(&homes) {
            let (own, now) = (Nonce::generate().unwrap(), now + SECOND * 60 * minute);
            approvals.begin([7; 32], &home.cluster_id, own.commitment(), now);
            approvals.finish(&[7; 32], home, &foreign, own);
        }
        let is_kept = |home: &Proven| approvals.code(&home.cluster_id).is_some();
        assert_eq!(homes.iter().position(is_kept), Some(1));
        assert_eq!(approvals.lock().codes.len(), CODES);
    }

    #[test]
    fn who_begins_without_end_is_given_few_nonces() {
        let approvals = Approvals::default();
        let (eve, start) = (cluster(b"eve").cluster_id, Instant::now());
        let given = |seconds: u32| {
            let now = start + SECOND * seconds;
            approvals.begin([7; 32], &eve, String::new(), now).is_some()
        };
        let count = (0..1000).filter(|seconds| given(*seconds)).count();
        assert!(count < 12, "{count} nonces");
        assert!(approvals.are_withheld(&eve, start + SECOND * 1000));
        let other = cluster(b"other").cluster_id;
        assert!(!approvals.are_withheld(&other, start + SECOND * 1000));
    }

    #[test]
    fn an_exchange_that_broke_off_hinders_no_later_one() {
        let approvals = Approvals::default();
        let (home, foreign) = (cluster(b"home"), cluster(b"foreign"));
        let now = Instant::now();
        for broken in [1, 2] {
            let begun = approvals.begin([broken; 32], &home.cluster_id, String::new(), now);
            assert!(begun.is_some());
        }
        let own = Nonce::generate().unwrap();
        approvals.begin([7; 32], &home.cluster_id, own.commitment(), now);
        approvals.finish(&[7; 32], &home, &foreign, own);
        assert!(approvals.code(&home.cluster_id).is_some());
        assert!(!approvals.are_withheld(&home.cluster_id, now));
    }

    #[test]
    fn a_new_name_for_each_exchange_is_bounded_too() {
        let approvals = Approvals::default();
        let now = Instant::now();
        let given = |number: u32| {
            let mut exporter = [0; 32];
            exporter[..4].copy_from_slice(&number.to_be_bytes());
            let id = ClusterId::from_spki(&exporter);
            approvals.begin(exporter, &id, String::new(), now).is_some()
        };
        assert_eq!((0..1000).filter(|number| given(*number)).count(), 64);
        assert_eq!(approvals.lock().exchanges.len(), 64);
        let anybody = cluster(b"anybody").cluster_id;
        for (hours, is_told) in [(1, true), (25, false)] {
            let later = now + Duration::from_hours(hours);
            assert_eq!(approvals.are_withheld(&anybody, later), is_told, "{hours}");
        }
    }

    #[test]
    fn we_reveal_our_nonce_to_one_peer_few_times() {
        let approvals = Approvals::default();
        let (eve, start) = (cluster(b"eve").cluster_id, Instant::now());
        let revealed = |seconds: u32| {
            let now = start + SECOND * seconds;
            let may = approvals.may_ask(&eve, now);
            if may {
                approvals.note_reveal(&eve, now);
            }
            may
        };
        let count = (0..1000).filter(|seconds| revealed(*seconds)).count();
        assert!((3..12).contains(&count), "{count} times");
    }
}

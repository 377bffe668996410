//! The approval codes of peers that came to us, and the exchanges that lead to them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::ClusterId,
    peer::{
        approval::{Nonce, code},
        certificates::Proven,
    },
};

/// How many exchanges may be under way. More peers than that wait for no person at once; the
/// oldest makes way.
const EXCHANGES: usize = 256;
/// How long an exchange may take.
const LIFETIME: SignedDuration = SignedDuration::from_mins(1);

/// What is remembered between the two requests of an exchange, and its outcome.
#[derive(Debug, Default)]
pub(crate) struct Approvals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    exchanges: BTreeMap<[u8; 32], Exchange>,
    codes: BTreeMap<ClusterId, String>,
}

#[derive(Debug)]
struct Exchange {
    commitment: String,
    nonce: Nonce,
    begun: Timestamp,
}

impl Approvals {
    /// Takes the commitment of a session and returns our nonce, if chance gives one.
    pub(crate) fn begin(
        &self,
        exporter: [u8; 32],
        commitment: String,
        now: Timestamp,
    ) -> Option<Nonce> {
        let nonce = Nonce::generate().ok()?;
        let mut state = self.lock();
        state
            .exchanges
            .retain(|_, exchange| now < exchange.begun + LIFETIME);
        if state.exchanges.len() >= EXCHANGES {
            let oldest = state
                .exchanges
                .iter()
                .min_by_key(|(_, exchange)| exchange.begun);
            if let Some(oldest) = oldest.map(|(exporter, _)| *exporter) {
                state.exchanges.remove(&oldest);
            }
        }
        state.exchanges.insert(
            exporter,
            Exchange {
                commitment,
                nonce,
                begun: now,
            },
        );
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
        if revealed.keeps(&exchange.commitment) {
            let code = code((home, revealed), (foreign, exchange.nonce), exporter);
            state.codes.insert(home.cluster_id.clone(), code);
        } else {
            state.codes.remove(&home.cluster_id);
        }
    }

    /// Returns the code of the last session in which a peer came to us.
    pub(crate) fn code(&self, peer: &ClusterId) -> Option<String> {
        self.lock().codes.get(peer).cloned()
    }

    /// Forgets a peer.
    pub(crate) fn forget(&self, peer: &ClusterId) {
        self.lock().codes.remove(peer);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Fingerprint;

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
            .begin(exporter, own.commitment(), Timestamp::UNIX_EPOCH)
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
        approvals.begin([7; 32], own.commitment(), Timestamp::UNIX_EPOCH);
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
    fn a_flood_of_exchanges_is_bounded() {
        let approvals = Approvals::default();
        for number in 0..1000_u32 {
            let mut exporter = [0; 32];
            exporter[..4].copy_from_slice(&number.to_be_bytes());
            approvals.begin(exporter, String::new(), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(approvals.lock().exchanges.len(), EXCHANGES);
    }
}

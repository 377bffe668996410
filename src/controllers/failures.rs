//! What fails again and again: each cause is told once, and tried again ever less often.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::context::chance;
use crate::engine::backoff::Backoff;

/// The longest wait before the first new try.
const RETRY_BASE: Duration = Duration::from_secs(4);
/// The longest wait before any.
const RETRY_CEILING: Duration = Duration::from_secs(30);

/// What fails at present, by its kind and name.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<BTreeMap<(String, String), Failure>>);

#[derive(Debug)]
struct Failure {
    cause: String,
    backoff: Backoff,
}

/// What follows from a failure.
#[derive(Debug)]
pub(crate) struct Noted {
    /// Whether its cause has not been told yet, of this or of anything else.
    pub(crate) is_news: bool,
    /// How long to wait before it is tried again.
    pub(crate) wait: Duration,
}

impl Failures {
    /// Notes that something failed.
    pub(crate) fn note(&self, kind: &str, name: &str, cause: String) -> Noted {
        let mut all = self.lock();
        let is_news = all.values().all(|one| one.cause != cause);
        let key = (kind.to_owned(), name.to_owned());
        let failure = all.entry(key).or_insert_with(|| Failure {
            cause: String::new(),
            backoff: Backoff::new(RETRY_BASE, RETRY_CEILING),
        });
        failure.cause = cause;
        let wait = failure.backoff.next(chance());
        Noted { is_news, wait }
    }

    /// Notes that something works, so that its next failure is news.
    pub(crate) fn mended(&self, kind: &str, name: &str) {
        let mut all = self.lock();
        if !all.is_empty() {
            all.remove(&(kind.to_owned(), name.to_owned()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_until_it_is_mended_or_changes() {
        let failures = Failures::default();
        let is_news = |name: &str, cause: &str| {
            let noted = failures.note("ForeignCluster", name, cause.to_owned());
            noted.is_news
        };
        assert!(is_news("milan", "the API is down"));
        assert!(!is_news("milan", "the API is down"));
        assert!(!is_news("turin", "the API is down"), "it is the same cause");
        assert!(is_news("turin", "the API is full"));
        failures.mended("ForeignCluster", "milan");
        assert!(is_news("milan", "the API is down"));
    }

    #[test]
    fn what_fails_is_tried_again_ever_less_often() {
        let failures = Failures::default();
        let wait = || failures.note("ForeignCluster", "milan", String::new()).wait;
        assert!(wait() <= RETRY_BASE);
        let last = (0..10).map(|_| wait()).fold(Duration::ZERO, |_, wait| wait);
        assert!(last >= RETRY_CEILING / 2);
        failures.mended("ForeignCluster", "milan");
        assert!(wait() <= RETRY_BASE);
    }
}

//! When tokens end, by a clock that nobody can set.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::api::token::GivenToken;

/// The ends of the tokens that we gave out, by the uids of their Secrets.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<BTreeMap<String, End>>);

/// The end of a token.
#[derive(Debug, Clone, Copy)]
struct End {
    /// As its Secret says.
    expires: Timestamp,
    /// By our own clock.
    at: Instant,
}

impl Ends {
    /// Notes when these tokens end. A token that is gone is forgotten, and so is an end that a person
    /// has moved or taken away.
    pub(super) fn note(&self, tokens: &[(GivenToken, String)], now: Timestamp) {
        let said: BTreeMap<&str, Timestamp> = tokens
            .iter()
            .filter_map(|(token, _)| Some((token.uid.as_str(), token.expires?)))
            .collect();
        let mut ends = self.lock();
        ends.retain(|uid, end| said.get(uid.as_str()) == Some(&end.expires));
        for (token, _) in tokens {
            let Some(expires) = token.expires else {
                continue;
            };
            // A clock that was set back since the token was made gives it no longer life.
            let life = token.created.map(|created| expires.duration_since(created));
            let left = expires.duration_since(now);
            let left = life
                .map_or(left, |life| left.min(life))
                .max(SignedDuration::ZERO);
            let at = Instant::now() + Duration::try_from(left).unwrap_or_default();
            let end = End { expires, at };
            ends.entry(token.uid.clone()).or_insert(end);
        }
    }

    /// Whether the end of a token has come.
    pub(super) fn has_come(&self, token: &GivenToken) -> bool {
        let end = self.lock().get(&token.uid).copied();
        end.is_some_and(|end| Instant::now() >= end.at)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, End>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::token::TokenHash;

    fn ending(expires: Option<i64>) -> [(GivenToken, String); 1] {
        let at = |second| Timestamp::from_second(second).unwrap();
        let token = GivenToken {
            name: "invite".to_owned(),
            uid: "1".to_owned(),
            hash: TokenHash::of("0123456789abcdef0123456789abcdef").unwrap(),
            created: Some(at(1_000)),
            expires: expires.map(at),
            uses: None,
            used_by: [].into(),
            ended: false,
        };
        [(token, String::new())]
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_a_person_moves_is_the_new_one() {
        let ends = Ends::default();
        let now = Timestamp::from_second(1_000).unwrap();
        for (said, after_a_minute) in [
            (Some(1_030), true),
            (Some(1_600), false),
            (None, false),
            (Some(1_030), true),
        ] {
            let tokens = ending(said);
            ends.note(&tokens, now);
            assert!(!ends.has_come(&tokens[0].0), "{said:?}");
            tokio::time::advance(Duration::from_mins(1)).await;
            assert_eq!(ends.has_come(&tokens[0].0), after_a_minute, "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_gives_no_longer_life() {
        let ends = Ends::default();
        let tokens = ending(Some(1_030));
        ends.note(&tokens, Timestamp::UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(ends.has_come(&tokens[0].0));
    }
}

//! A strict count of guesses, so that no secret can be found by trying.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The guesses of the last minute, so that no minute ever has more of them. A bucket would let
/// through its burst and its rate.
#[derive(Debug, Default)]
pub struct Guesses {
    /// When each was made and by whom, the oldest first. At most [`GUESSES_TOGETHER`].
    recent: VecDeque<(Instant, String)>,
}

/// How often a source may guess within a minute.
pub const GUESSES_PER_SOURCE: usize = 5;
/// How often all sources together may guess within a minute.
pub const GUESSES_TOGETHER: usize = 50;
/// How long a guess counts.
const GUESS_TIME: Duration = Duration::from_mins(1);

impl Guesses {
    /// Counts a guess if it is allowed now, else tells how long to wait. It counts before it is
    /// looked at, so that guesses at the same time count too.
    pub fn try_take(&mut self, source: &str, now: Instant) -> Result<(), Duration> {
        while self
            .recent
            .front()
            .is_some_and(|(made, _)| now >= *made + GUESS_TIME)
        {
            self.recent.pop_front();
        }
        let own = || self.recent.iter().filter(|(_, by)| by == source);
        let oldest = if self.recent.len() >= GUESSES_TOGETHER {
            self.recent.front()
        } else if own().count() >= GUESSES_PER_SOURCE {
            own().next()
        } else {
            None
        };
        if let Some((made, _)) = oldest {
            return Err((*made + GUESS_TIME).saturating_duration_since(now));
        }
        self.recent.push_back((now, source.to_owned()));
        Ok(())
    }

    /// Takes back what turned out to be no guess.
    pub fn give_back(&mut self, source: &str) {
        if let Some(index) = self.recent.iter().rposition(|(_, by)| by == source) {
            self.recent.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_a_million_guesses_no_minute_sees_more_than_fifty() {
        let mut guesses = Guesses::default();
        let start = Instant::now();
        let mut looked_at: Vec<(Instant, usize)> = Vec::new();
        for number in 0..1_000_000_u32 {
            // 40 sources for a little more than half an hour.
            let now = start + Duration::from_millis(2) * number;
            let source = usize::try_from(number % 40).unwrap();
            if guesses.try_take(&source.to_string(), now).is_ok() {
                looked_at.push((now, source));
            }
        }
        assert!(guesses.recent.len() <= GUESSES_TOGETHER);
        let window = |end: usize, source: Option<usize>| {
            let (last, _) = looked_at[end];
            looked_at[..=end]
                .iter()
                .filter(|(made, by)| {
                    *made + GUESS_TIME > last && source.is_none_or(|one| one == *by)
                })
                .count()
        };
        for (end, (_, source)) in looked_at.iter().enumerate() {
            assert!(window(end, None) <= GUESSES_TOGETHER);
            assert!(window(end, Some(*source)) <= GUESSES_PER_SOURCE);
        }
        let minutes = 2_000_000 / 60_000;
        assert!(
            looked_at.len() >= minutes * GUESSES_TOGETHER,
            "{}",
            looked_at.len()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_no_guess_does_not_count() {
        let mut guesses = Guesses::default();
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(guesses.try_take("rome", now), Ok(()));
            guesses.give_back("rome");
        }
        for _ in 0..GUESSES_PER_SOURCE {
            assert_eq!(guesses.try_take("milan", now), Ok(()));
        }
        assert_eq!(guesses.try_take("milan", now), Err(GUESS_TIME));
        assert_eq!(guesses.try_take("rome", now), Ok(()));
        assert_eq!(guesses.try_take("milan", now + GUESS_TIME), Ok(()));
    }
}

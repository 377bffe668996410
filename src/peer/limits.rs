//! How often one source, and all together, may ask for something: token buckets, and a strict count
//! of guesses.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// How many sources are remembered; beyond that the one that is nearest to forgotten goes.
const SOURCES: usize = 1024;

/// A rate with a burst.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// How much may be asked for at once.
    pub burst: u32,
    /// How long one request takes to be allowed again.
    pub each: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// When the bucket is full again; the future part of it is what was taken.
    full_at: Instant,
}

impl Bucket {
    fn wait(self, rate: Rate, now: Instant) -> Option<Duration> {
        let used = self.full_at.saturating_duration_since(now) + rate.each;
        used.checked_sub(rate.each * rate.burst)
            .filter(|wait| !wait.is_zero())
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.each;
    }
}

/// Buckets of many sources under one common bucket.
#[derive(Debug)]
pub struct Buckets {
    per_source: Rate,
    together: Rate,
    common: Bucket,
    sources: BTreeMap<String, Bucket>,
}

impl Buckets {
    /// Makes full buckets.
    pub fn new(per_source: Rate, together: Rate, now: Instant) -> Self {
        Self {
            per_source,
            together,
            common: Bucket { full_at: now },
            sources: BTreeMap::new(),
        }
    }

    /// Tells how long a source would have to wait, `None` when it may ask now.
    pub fn wait(&self, source: &str, now: Instant) -> Option<Duration> {
        let own = self
            .sources
            .get(source)
            .and_then(|bucket| bucket.wait(self.per_source, now));
        own.max(self.common.wait(self.together, now))
    }

    /// Counts one request of a source.
    pub fn take(&mut self, source: &str, now: Instant) {
        self.common.take(self.together, now);
        if !self.sources.contains_key(source) && self.sources.len() >= SOURCES {
            self.forget_one();
        }
        self.sources
            .entry(source.to_owned())
            .or_insert(Bucket { full_at: now })
            .take(self.per_source, now);
    }

    /// Counts one request if it is allowed now, else tells how long to wait.
    pub fn try_take(&mut self, source: &str, now: Instant) -> Result<(), Duration> {
        if let Some(wait) = self.wait(source, now) {
            return Err(wait);
        }
        self.take(source, now);
        Ok(())
    }

    fn forget_one(&mut self) {
        let fullest = self
            .sources
            .iter()
            .min_by_key(|(_, bucket)| bucket.full_at)
            .map(|(source, _)| source.clone());
        if let Some(source) = fullest {
            self.sources.remove(&source);
        }
    }
}

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

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_source_gets_its_burst_and_then_its_rate() {
        let rate = Rate {
            burst: 3,
            each: SECOND,
        };
        let together = Rate {
            burst: 5,
            each: SECOND,
        };
        let now = Instant::now();
        let mut buckets = Buckets::new(rate, together, now);
        for _ in 0..3 {
            assert_eq!(buckets.try_take("a", now), Ok(()));
        }
        assert_eq!(buckets.try_take("a", now), Err(SECOND));
        assert_eq!(buckets.try_take("a", now + SECOND), Ok(()));
        assert_eq!(buckets.try_take("b", now + SECOND), Ok(()));
        assert_eq!(
            buckets.try_take("c", now + SECOND),
            Ok(()),
            "the common bucket refilled by one"
        );
        assert_eq!(
            buckets.try_take("d", now + SECOND),
            Err(SECOND),
            "all together are too many"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_remembered_sources_is_bounded() {
        let rate = Rate {
            burst: 1_000_000,
            each: Duration::from_millis(1),
        };
        let now = Instant::now();
        let mut buckets = Buckets::new(rate, rate, now);
        for index in 0..5_000 {
            buckets.take(&index.to_string(), now);
        }
        assert_eq!(buckets.sources.len(), SOURCES);
    }

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

//! How often one source, and all together, may ask for something, and how much of it may be open.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
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
    /// When it was last empty.
    empty: Option<Instant>,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self {
            full_at: now,
            empty: None,
        }
    }

    fn wait(self, rate: Rate, now: Instant) -> Option<Duration> {
        let used = self.full_at.saturating_duration_since(now) + rate.each;
        used.checked_sub(rate.each * rate.burst)
            .filter(|wait| !wait.is_zero())
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.each;
        if self.wait(rate, now).is_some() {
            self.empty = Some(now);
        }
    }

    fn was_empty(self, within: Duration, now: Instant) -> bool {
        let moment = self.empty;
        moment.is_some_and(|moment| now.saturating_duration_since(moment) < within)
    }
}

/// Buckets of many sources under one common bucket.
#[derive(Debug, Clone)]
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
            common: Bucket::full(now),
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
            .or_insert_with(|| Bucket::full(now))
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

    /// Tells whether a source had to wait at some moment within a time that ends now.
    pub fn ran_out(&self, source: &str, within: Duration, now: Instant) -> bool {
        let own = self.sources.get(source).copied();
        let mut buckets = own.into_iter().chain([self.common]);
        buckets.any(|bucket| bucket.was_empty(within, now))
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

/// How many of something each has open, by whom it counts for.
#[derive(Debug)]
pub struct Guests<Key> {
    inside: Mutex<BTreeMap<Key, usize>>,
    in_all: usize,
    for_each: usize,
}

impl<Key: Ord + Clone> Guests<Key> {
    /// Makes places, so many in all and for each.
    pub fn new(in_all: usize, for_each: usize) -> Arc<Self> {
        Arc::new(Self {
            inside: Mutex::default(),
            in_all,
            for_each,
        })
    }

    /// Gives a place, if one is left.
    pub fn enter(guests: &Arc<Self>, key: Key) -> Option<Guest<Key>> {
        let mut inside = guests.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = inside.values().sum();
        let own = inside.get(&key).copied().unwrap_or_default();
        if total >= guests.in_all || own >= guests.for_each {
            return None;
        }
        inside.insert(key.clone(), own + 1);
        Some(Guest {
            guests: Arc::clone(guests),
            key,
        })
    }
}

/// One of the guests; leaves when dropped.
#[derive(Debug)]
pub struct Guest<Key: Ord + Clone> {
    guests: Arc<Guests<Key>>,
    key: Key,
}

impl<Key: Ord + Clone> Drop for Guest<Key> {
    fn drop(&mut self) {
        let mut inside = self
            .guests
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match inside.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                inside.remove(&self.key);
            }
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

    #[test]
    fn an_accepted_peer_has_a_share_and_no_more() {
        let guests = Guests::new(3, 2);
        let _held: Vec<_> = (0..2).filter_map(|_| Guests::enter(&guests, 1)).collect();
        assert!(Guests::enter(&guests, 1).is_none());
        let other = Guests::enter(&guests, 2);
        assert!(other.is_some() && Guests::enter(&guests, 3).is_none());
        drop(other);
        assert!(Guests::enter(&guests, 3).is_some());
    }
}

//! Time as the roster counts it: it never goes back nor leaps ahead, whatever the wall clock does.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The roster is looked at once a minute at least: what is longer is a clock that was set, or a machine
/// that slept. What the sources have to say of that time, they say themselves.
const LONGEST_STEP: Duration = Duration::from_secs(61);

/// Adds up the steps of a wall clock that may jump: a step back counts as none, and one ahead as no
/// more than the longest that is usual.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<Timestamp>,
    elapsed: Duration,
}

impl Clock {
    /// Notes the present time.
    pub(super) fn observe(&mut self, now: Timestamp) {
        let step = self.last.map(|last| now.duration_since(last));
        let step = step.and_then(|step| Duration::try_from(step).ok());
        let step = step.unwrap_or_default().min(LONGEST_STEP);
        self.elapsed = self.elapsed.saturating_add(step);
        self.last = Some(now);
    }

    /// Returns the time counted so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns the wall-clock time of a counted one.
    pub(super) fn timestamp(&self, counted: Duration) -> Timestamp {
        let ahead = counted.saturating_sub(self.elapsed);
        let ahead = SignedDuration::try_from(ahead).unwrap_or(SignedDuration::MAX);
        self.last
            .and_then(|last| last.checked_add(ahead).ok())
            .unwrap_or(Timestamp::MAX)
    }
}

/// Lets through so many a second, and as many at once after a pause.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    allowance: Duration,
    reserved_until: Duration,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            interval,
            allowance: interval.saturating_mul(per_second.saturating_sub(1)),
            reserved_until: Duration::ZERO,
        }
    }

    /// Takes a place if there is one.
    pub(super) fn take(&mut self, time: Duration) -> bool {
        if self.next() > time {
            return false;
        }
        self.reserved_until = self.reserved_until.max(time) + self.interval;
        true
    }

    /// Returns when the next place is free.
    pub(super) fn next(&self) -> Duration {
        self.reserved_until.saturating_sub(self.allowance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_neither_stops_nor_rewinds_time() {
        let at = |second| Timestamp::from_second(second).expect("the test uses small numbers");
        let mut clock = Clock::default();
        for second in [1000, 1010, 500, 505] {
            clock.observe(at(second));
        }
        assert_eq!(clock.elapsed(), Duration::from_secs(15));
        assert_eq!(clock.timestamp(Duration::from_secs(17)), at(507));
    }

    #[test]
    fn a_clock_that_is_set_ahead_or_has_slept_lets_little_time_pass() {
        let at = |second| Timestamp::from_second(second).expect("the test uses small numbers");
        let mut clock = Clock::default();
        for second in [1000, 1060, 100_000, 100_005] {
            clock.observe(at(second));
        }
        assert_eq!(clock.elapsed(), Duration::from_secs(60 + 61 + 5));
    }

    #[test]
    fn a_pace_gives_its_places_at_once_and_then_one_by_one() {
        let mut pace = Pace::new(20);
        let taken = (0..40).filter(|_| pace.take(Duration::ZERO)).count();
        assert_eq!(taken, 20);
        assert_eq!(pace.next(), Duration::from_millis(50));
        assert!(pace.take(Duration::from_millis(50)));
        assert!(!pace.take(Duration::from_millis(99)));
    }
}

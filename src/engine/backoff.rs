//! How long to wait before the next try: exponential with jitter, which is given as an argument.

use std::time::Duration;

/// Counts failed tries and says how long to wait before the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    ceiling: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts with waits around `base` that double up to `ceiling`.
    pub const fn new(base: Duration, ceiling: Duration) -> Self {
        Self {
            base,
            ceiling,
            attempts: 0,
        }
    }

    /// Returns the next wait. `jitter`, between 0 and 1, spreads it over the upper half of its range,
    /// so that many who failed together do not return together and nobody returns at once.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        let half = self.base.saturating_mul(factor).min(self.ceiling) / 2;
        let share = if jitter.is_finite() {
            jitter.clamp(0.0, 1.0)
        } else {
            1.0
        };
        half.saturating_add(half.mul_f64(share))
    }

    /// Returns how many waits were asked for since the last success.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Forgets the failures, after a success.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.attempts(), 5);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(500));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_the_ceiling_nor_nothing(
            base in 1_u64..10_000, ceiling in 1_u64..100_000, jitter in any::<f64>(), tries in 1_usize..80,
        ) {
            let mut backoff = Backoff::new(Duration::from_millis(base), Duration::from_millis(ceiling));
            for _ in 0..tries {
                let wait = backoff.next(jitter);
                prop_assert!(wait <= Duration::from_millis(ceiling));
                prop_assert!(wait >= Duration::from_millis(base.min(ceiling)) / 2);
            }
        }
    }
}

//! Token buckets: how often a client may do something.

use std::time::Duration;

/// Allows a sustained rate and a burst.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_s: f64,
    burst: f64,
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// Full at `now`. Both figures in events.
    #[must_use]
    pub fn new(now: Duration, per_s: u32, burst: u32) -> Self {
        Self { per_s: f64::from(per_s), burst: f64::from(burst), tokens: f64::from(burst), at: now }
    }

    /// Takes one token; `false` when there is none.
    pub fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.at).as_secs_f64() * self.per_s;
        self.tokens = (self.tokens + earned).min(self.burst);
        self.at = self.at.max(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_then_the_sustained_rate() {
        let mut bucket = TokenBucket::new(ms(0), 10, 3);
        assert_eq!((0..5).filter(|_| bucket.take(ms(0))).count(), 3);
        assert!(!bucket.take(ms(99)));
        assert!(bucket.take(ms(101)));
        assert_eq!((0..50).filter(|_| bucket.take(ms(60_000))).count(), 3);
        // A clock that went back neither refills nor panics.
        assert!(!bucket.take(ms(0)));
    }
}

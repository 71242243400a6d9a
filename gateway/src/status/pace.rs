//! How fast the API server may be written to.
//!
//! Invariant: never more than a burst at once, and one per interval in the long run.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A bucket of tokens that fills by itself.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    burst: u32,
    /// When the bucket would be full if nothing more is taken.
    full_at: Instant,
}

impl Pace {
    /// One each `every`, or up to `burst` that were saved up.
    pub(super) fn new(every: Duration, burst: u32) -> Pace {
        Pace { every, burst, full_at: Instant::now() }
    }

    /// Takes a token if there is one.
    #[must_use]
    pub(super) fn try_take(&mut self) -> bool {
        let now = Instant::now();
        let ready = self.next() <= now;
        if ready {
            self.full_at = self.full_at.max(now) + self.every;
        }
        ready
    }

    /// Waits for a token and takes it.
    pub(super) async fn take(&mut self) {
        while !self.try_take() {
            sleep_until(self.next()).await;
        }
    }

    /// When there is a token.
    fn next(&self) -> Instant {
        // With `burst` tokens missing the bucket is empty.
        self.full_at.checked_sub(self.every * self.burst.saturating_sub(1)).unwrap_or(self.full_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_one_by_one() {
        let mut pace = Pace::new(Duration::from_secs(1), 3);
        let begin = Instant::now();
        for _ in 0..5 {
            pace.take().await;
        }
        assert_eq!(begin.elapsed().as_secs(), 2, "three at once, then one each second");
        assert!(!pace.try_take());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let saved = (0..9).filter(|_| pace.try_take()).count();
        assert_eq!(saved, 3, "no more is saved up than a burst");
    }
}

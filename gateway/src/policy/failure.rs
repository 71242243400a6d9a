//! Why a policy could not judge, and what is made of that.
//!
//! Invariant: each is counted, and the log is told of at most one in a second.

use super::Reply;
use prometheus::IntCounterVec;
use std::{
    any::Any,
    error::Error,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Whatever keeps a policy from judging: the request is refused with 503, and this goes to the log.
///
/// Any error becomes one by `?`; it is no [`Error`] itself, for the sake of that. Clients never see its words.
///
/// # Examples
/// ```
/// use gateway::policy::Failure;
///
/// fn count(text: &str) -> Result<u32, Failure> {
///     Ok(text.parse()?)
/// }
/// assert!(count("many").is_err());
/// assert_eq!(Failure::new("the store is closed").to_string(), "the store is closed");
/// ```
pub struct Failure(Box<dyn Error + Send + Sync>);

impl Failure {
    /// One with these words, or this error.
    #[must_use]
    pub fn new(why: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure(why.into())
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(Box::new(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Failure {
    /// Of a policy that panicked.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Failure {
        let words = panic.downcast_ref::<&str>().copied();
        let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Failure::new(format!("it panicked: {}", words.unwrap_or("without words")))
    }
}

/// What becomes of failures: the request is refused, the failure counted, and the log told now and then.
#[derive(Debug)]
pub struct Failures {
    /// By policy.
    counter: IntCounterVec,
    began: Instant,
    /// Milliseconds since then, and one, of the last line in the log; 0: none yet.
    told: AtomicU64,
    untold: AtomicU64,
}

/// Milliseconds between two lines in the log.
const PAUSE: u64 = 1000;

impl Failures {
    /// Counted by this counter, whose one label is the policy's name.
    #[must_use]
    pub fn new(counter: IntCounterVec) -> Failures {
        Failures { counter, began: Instant::now(), told: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }

    /// Notes one, and says what the request gets.
    pub(super) fn note(&self, policy: &str, failure: &Failure) -> Reply {
        self.counter.with_label_values(&[policy]).inc();
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        if let Some(untold) = self.turn(now) {
            tell(policy, failure, untold);
        }
        Reply::broken(policy)
    }

    /// How many were not told since the last line, where it is time for another one.
    fn turn(&self, now: u64) -> Option<u64> {
        let told = self.told.load(Ordering::Relaxed);
        let due = told == 0 || now.saturating_sub(told) >= PAUSE;
        if due && self.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.untold.swap(0, Ordering::Relaxed));
        }
        self.untold.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Says it to the log.
pub(super) fn tell(policy: &str, failure: &Failure, untold: u64) {
    tracing::warn!(policy, %failure, untold, "a policy could not judge: the request is refused");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_told_now_and_then() {
        let counter = IntCounterVec::new(prometheus::Opts::new("failures", "f"), &["policy"]).unwrap();
        let failures = Failures::new(counter.clone());
        for _ in 0..3 {
            assert_eq!(
                failures.note("waf", &Failure::new("x")).status(),
                http::StatusCode::SERVICE_UNAVAILABLE
            );
        }
        assert_eq!(counter.with_label_values(&["waf"]).get(), 3);
        let told = failures.told.load(Ordering::Relaxed);
        assert_eq!(failures.turn(told + PAUSE - 1), None);
        assert_eq!(failures.turn(told + PAUSE), Some(3), "those in between");
        assert_eq!(failures.turn(told + PAUSE), None);
    }
}

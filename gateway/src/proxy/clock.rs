//! The time that a route gives to an exchange, and to each attempt.
//!
//! Invariant: the clock starts when the whole request has arrived, runs on over all attempts and stops with the whole
//! response (Envoy: the route's timeout); a try's clock stops when its response begins. A request of a route without
//! limits has none, unless it asks for a tunnel, whose clock never runs out.

use super::failure::Cause;
use pingora_core::protocols::http::ServerSession;
use pingora_error::Result;
use pingora_proxy::Session;
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// When one exchange must be over.
pub(super) struct Clock {
    limit: Option<Duration>,
    per_try: Option<Duration>,
    /// When the whole request had arrived.
    complete: OnceLock<Instant>,
    /// Where the client's session comes back to.
    returned: Mutex<Option<Box<ServerSession>>>,
}

/// A moment at which time is up, and what is up then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at: Instant,
    pub(super) cause: Cause,
}

impl Clock {
    /// A clock for these limits; `None` where there are none.
    pub(super) fn new(limit: Option<Duration>, per_try: Option<Duration>) -> Option<Arc<Self>> {
        (limit.is_some() || per_try.is_some())
            .then(|| Arc::new(Self { limit, per_try, complete: OnceLock::new(), returned: Mutex::default() }))
    }

    /// A clock that never runs out, for the sake of its stand-in.
    pub(super) fn endless() -> Arc<Self> {
        Arc::new(Self { limit: None, per_try: None, complete: OnceLock::new(), returned: Mutex::default() })
    }

    /// Notes that the request has arrived, where it has.
    pub(super) fn note(&self, session: &mut Session, now: Instant) {
        if session.as_downstream_mut().is_body_done() {
            self.complete.get_or_init(|| now);
        }
    }

    pub(super) fn request_arrived(&self) {
        self.complete.get_or_init(Instant::now);
    }

    pub(super) fn end_of_route(&self) -> Option<End> {
        let at = self.complete.get()?.checked_add(self.limit?)?;
        Some(End { at, cause: Cause::RouteTimeout })
    }

    fn end_of_try(&self, attempt: Instant) -> Option<End> {
        let begin = attempt.max(*self.complete.get()?);
        Some(End { at: begin.checked_add(self.per_try?)?, cause: Cause::PerTryTimeout })
    }

    pub(super) fn end(&self, attempt: Instant) -> Option<End> {
        match (self.end_of_route(), self.end_of_try(attempt)) {
            (Some(route), Some(one)) => Some(if one.at < route.at { one } else { route }),
            (route, one) => route.or(one),
        }
    }

    /// How long an attempt that begins `now` may take to get a connection; `None`: as long as it likes.
    ///
    /// # Errors
    /// When the time is up already.
    pub(super) fn left(&self, now: Instant) -> Result<Option<Duration>> {
        match self.end(now) {
            Some(End { at, cause }) if at <= now => Err(cause.error()),
            end => Ok(end.map(|end| end.at - now)),
        }
    }

    /// How long the route has left; `None`: as long as it likes.
    ///
    /// # Errors
    /// When its time is up.
    pub(super) fn left_of_route(&self) -> Result<Option<Duration>> {
        let now = Instant::now();
        match self.end_of_route() {
            Some(End { at, cause }) if at <= now => Err(cause.error()),
            end => Ok(end.map(|end| end.at - now)),
        }
    }

    /// What is up at `now` for the attempt that began at `attempt`.
    pub(super) fn up(&self, attempt: Instant, now: Instant) -> Option<Cause> {
        self.end(attempt).filter(|end| end.at <= now).map(|end| end.cause)
    }

    /// Whether no attempt may follow.
    pub(super) fn is_over(&self) -> bool {
        self.end_of_route().is_some_and(|end| end.at <= Instant::now())
    }

    /// What an upstream is told it has, for an attempt that began at `attempt` (Envoy: `setTimeoutHeaders`): at least 1 ms,
    /// because 0 would be no limit.
    pub(super) fn expected(&self, attempt: Instant) -> Option<Duration> {
        const LEAST: Duration = Duration::from_millis(1);
        let elapsed = self.complete.get().map(|complete| attempt.saturating_duration_since(*complete));
        // In whole milliseconds, as Envoy counts: a moment takes nothing off.
        let elapsed = elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        let elapsed = Duration::from_millis(elapsed);
        let left = self.limit.map(|limit| limit.saturating_sub(elapsed));
        let expected = match (self.per_try, left) {
            (Some(one), Some(left)) => one.min(left),
            (one, left) => one.or(left)?,
        };
        Some(expected.max(LEAST))
    }

    pub(super) fn returned(&self) -> MutexGuard<'_, Option<Box<ServerSession>>> {
        // A session in the slot is whole whatever became of who put it there.
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn without_a_limit_there_is_no_clock() {
        assert!(Clock::new(None, None).is_none());
    }

    #[test]
    fn nothing_runs_before_the_request_has_arrived() {
        let clock = Clock::new(Some(millis(1)), Some(millis(1))).unwrap();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(9)).unwrap();
        assert!(matches!(clock.left(Instant::now()), Ok(None)));
        assert_eq!(clock.up(long_ago, Instant::now()), None);
        assert!(!clock.is_over());
        assert_eq!(clock.expected(long_ago), Some(millis(1)));
    }

    #[test]
    fn a_try_has_its_own_time_within_the_routes() {
        let clock = Clock::new(Some(millis(500)), Some(millis(200))).unwrap();
        clock.request_arrived();
        let start = *clock.complete.get().unwrap();
        for (attempt, at, up) in [
            (0, 199, None),
            (0, 200, Some(Cause::PerTryTimeout)),
            (300, 499, None),
            (300, 500, Some(Cause::RouteTimeout)),
            (400, 500, Some(Cause::RouteTimeout)),
        ] {
            assert_eq!(clock.up(start + millis(attempt), start + millis(at)), up, "{attempt} {at}");
        }
        assert_eq!(clock.left(start).unwrap(), Some(millis(200)));
        assert_eq!(clock.left(start + millis(400)).unwrap(), Some(millis(100)));
        assert!(clock.left(start + millis(500)).is_err());
    }
}

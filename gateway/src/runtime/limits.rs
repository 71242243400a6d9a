//! Limits of one cluster: requests, retries, and who waits for a connection.
//!
//! Invariant: what is counted up is counted down by the drop of its guard. Counters survive reloads, so that a change of
//! configuration neither forgets what is under way nor counts it twice. A cluster without limits counts nothing.

use routing::cluster::{Pool, RetryLimit};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// What a limit says to one more.
#[derive(Debug)]
#[must_use]
pub enum Admission<T> {
    /// It may; the guard ends it.
    Granted(T),
    /// It may not: the limit is reached.
    Overflow,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `maxConnections`.
    Connections,
    /// `http1MaxPendingRequests`.
    Pending,
    /// `http2MaxRequests`.
    Requests,
    /// `maxRetries` or `retryBudget`.
    Retries,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Pending, Self::Requests, Self::Retries];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
            Self::Retries => "retries",
        }
    }
}

/// What is under way in one cluster.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU32,
    retries: AtomicU32,
    pending: AtomicU32,
    pub(super) connections: AtomicU32,
    overflows: [AtomicU64; 4],
    opened: AtomicU64,
    retried: AtomicU64,
    recent: Mutex<VecDeque<Instant>>,
    slots: Mutex<Slots>,
}

/// Requests that hold a connection, and those that wait for one, first come first served.
#[derive(Debug, Default)]
struct Slots {
    held: u32,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// One counted thing; its drop ends the count.
#[derive(Debug)]
pub struct Counted {
    counters: Arc<Counters>,
    what: Limit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(counter) = self.counters.counter(self.what) {
            counter.fetch_sub(1, Relaxed);
        }
    }
}

/// The right to one connection; its drop passes it on to who waits longest.
#[derive(Debug)]
struct Slot(Option<Arc<Counters>>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(counters) = self.0.take() else { return };
        let mut passed_on = Slot(Some(counters.clone()));
        loop {
            let next = {
                let mut slots = counters.slots();
                let next = slots.waiting.pop_front();
                if next.is_none() {
                    slots.held = slots.held.saturating_sub(1);
                    passed_on.0 = None;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(passed_on) {
                Ok(()) => return,
                // It gave up waiting: the next one.
                Err(back) => passed_on = back,
            }
        }
    }
}

/// One request in a cluster with limits.
#[derive(Debug)]
pub struct Admitted {
    _request: Option<Counted>,
    _slot: Option<Slot>,
}

impl Counters {
    /// Notes a connection that was made to an endpoint.
    pub fn connected(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// Connections that were made to endpoints.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Retries that were let through.
    #[must_use]
    pub fn retried(&self) -> u64 {
        self.retried.load(Relaxed)
    }

    /// How often a limit was reached.
    #[must_use]
    pub fn overflows(&self, limit: Limit) -> u64 {
        self.overflows.get(limit as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// How many are under way now; of requests only where something limits them.
    #[must_use]
    pub fn now(&self, limit: Limit) -> u32 {
        match limit {
            Limit::Connections => self.connections.load(Relaxed),
            other => self.counter(other).map_or(0, |count| count.load(Relaxed)),
        }
    }

    pub(super) fn overflow<T>(&self, limit: Limit) -> Admission<T> {
        if let Some(count) = self.overflows.get(limit as usize) {
            count.fetch_add(1, Relaxed);
        }
        Admission::Overflow
    }

    fn counter(&self, what: Limit) -> Option<&AtomicU32> {
        match what {
            Limit::Requests => Some(&self.requests),
            Limit::Retries => Some(&self.retries),
            Limit::Pending => Some(&self.pending),
            // Counted by the connections themselves.
            Limit::Connections => None,
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more, if fewer than `most` are.
    pub(super) fn count(self: &Arc<Self>, what: Limit, most: u32) -> Admission<Counted> {
        let Some(counter) = self.counter(what) else { return Admission::Overflow };
        if counter.fetch_add(1, Relaxed) < most {
            return Admission::Granted(Counted { counters: self.clone(), what });
        }
        counter.fetch_sub(1, Relaxed);
        self.overflow(what)
    }

    /// Admits one request by all limits; waits for a connection where `one_each`, as with HTTP/1, every request holds
    /// one.
    pub(super) async fn admit(self: &Arc<Self>, pool: &Pool, one_each: bool) -> Admission<Admitted> {
        let counts = pool.max_requests.is_some() || matches!(pool.retries, RetryLimit::Budget { .. });
        let request = if counts {
            match self.count(Limit::Requests, pool.max_requests.unwrap_or(u32::MAX)) {
                Admission::Granted(request) => Some(request),
                Admission::Overflow => return Admission::Overflow,
            }
        } else {
            None
        };
        if let RetryLimit::Budget { interval: Some(interval), .. } = pool.retries {
            self.remember(interval);
        }
        let slot = match pool.max_connections.filter(|_| one_each) {
            None => None,
            Some(most) => match self.slot(most, pool.max_pending).await {
                Admission::Granted(slot) => Some(slot),
                Admission::Overflow => return Admission::Overflow,
            },
        };
        Admission::Granted(Admitted { _request: request, _slot: slot })
    }

    async fn slot(self: &Arc<Self>, most: u32, max_pending: Option<u32>) -> Admission<Slot> {
        let (receiver, _pending) = {
            let mut slots = self.slots();
            if slots.held < most {
                slots.held += 1;
                return Admission::Granted(Slot(Some(self.clone())));
            }
            let pending = match self.count(Limit::Pending, max_pending.unwrap_or(u32::MAX)) {
                Admission::Granted(pending) => pending,
                Admission::Overflow => return Admission::Overflow,
            };
            let (sender, receiver) = oneshot::channel();
            slots.waiting.push_back(sender);
            (receiver, pending)
        };
        match receiver.await {
            Ok(slot) => Admission::Granted(slot),
            // Whoever holds a slot passes it on, so this does not come.
            Err(_) => Admission::Overflow,
        }
    }

    /// Admits one retry.
    pub(super) fn retry(self: &Arc<Self>, pool: &Pool) -> Admission<Option<Counted>> {
        let admission = self.room_for_retry(pool);
        if matches!(admission, Admission::Granted(_)) {
            self.retried.fetch_add(1, Relaxed);
        }
        admission
    }

    fn room_for_retry(self: &Arc<Self>, pool: &Pool) -> Admission<Option<Counted>> {
        let most = match pool.retries {
            RetryLimit::Unlimited => return Admission::Granted(None),
            RetryLimit::Concurrent(most) => most,
            RetryLimit::Budget { millionths, minimum, interval } => {
                let active = u64::from(self.requests.load(Relaxed)) + interval.map_or(0, |i| self.recent(i));
                let share = active * u64::from(millionths) / 1_000_000;
                minimum.max(u32::try_from(share).unwrap_or(u32::MAX))
            }
        };
        match self.count(Limit::Retries, most) {
            Admission::Granted(retry) => Admission::Granted(Some(retry)),
            Admission::Overflow => Admission::Overflow,
        }
    }

    fn remember(&self, interval: Duration) {
        let now = Instant::now();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut recent, now, interval);
        recent.push_back(now);
    }

    /// Requests that began within the interval.
    fn recent(&self, interval: Duration) -> u64 {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut recent, Instant::now(), interval);
        recent.len() as u64
    }
}

fn forget(recent: &mut VecDeque<Instant>, now: Instant, interval: Duration) {
    while recent.front().is_some_and(|begun| now.saturating_duration_since(*begun) > interval) {
        recent.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted<T>(admission: Admission<T>) -> T {
        match admission {
            Admission::Granted(guard) => guard,
            Admission::Overflow => panic!("overflow"),
        }
    }

    fn overflowed<T>(admission: &Admission<T>) -> bool {
        matches!(admission, Admission::Overflow)
    }

    #[tokio::test]
    async fn requests_beyond_the_limit_overflow_until_one_ends() {
        let counters = Arc::new(Counters::default());
        let pool = Pool { max_requests: Some(2), ..Pool::default() };
        let first = granted(counters.admit(&pool, true).await);
        let _second = granted(counters.admit(&pool, true).await);
        assert!(overflowed(&counters.admit(&pool, true).await));
        assert_eq!((counters.now(Limit::Requests), counters.overflows(Limit::Requests)), (2, 1));
        drop(first);
        let _third = granted(counters.admit(&pool, true).await);
    }

    #[tokio::test]
    async fn who_waits_for_a_connection_is_served_in_turn_and_the_queue_is_bounded() {
        let counters = Arc::new(Counters::default());
        let pool = Pool { max_connections: Some(1), max_pending: Some(2), ..Pool::default() };
        let first = granted(counters.admit(&pool, true).await);
        let wait = |name: &'static str, order: Arc<Mutex<Vec<&'static str>>>| {
            let (counters, pool) = (counters.clone(), pool.clone());
            tokio::spawn(async move {
                let guard = granted(counters.admit(&pool, true).await);
                order.lock().unwrap().push(name);
                drop(guard);
            })
        };
        let order = Arc::new(Mutex::new(Vec::new()));
        let a = wait("a", order.clone());
        while counters.now(Limit::Pending) < 1 {
            tokio::task::yield_now().await;
        }
        let b = wait("b", order.clone());
        while counters.now(Limit::Pending) < 2 {
            tokio::task::yield_now().await;
        }
        assert!(overflowed(&counters.admit(&pool, true).await));
        assert_eq!(counters.overflows(Limit::Pending), 1);
        // Over HTTP/2 requests share connections and nobody waits.
        let _shared = granted(counters.admit(&pool, false).await);
        drop(first);
        a.await.unwrap();
        b.await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["a", "b"]);
        let _free_again = granted(counters.admit(&pool, true).await);
        assert_eq!(counters.now(Limit::Pending), 0);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_keeps_nobody_waiting() {
        let counters = Arc::new(Counters::default());
        let pool = Pool { max_connections: Some(1), ..Pool::default() };
        let first = granted(counters.admit(&pool, true).await);
        {
            let admit = counters.admit(&pool, true);
            let waited = tokio::time::timeout(Duration::from_millis(1), admit).await;
            assert!(waited.is_err());
        }
        drop(first);
        let _next = granted(counters.admit(&pool, true).await);
    }

    #[tokio::test]
    async fn a_budget_is_a_share_of_what_is_under_way_and_never_below_its_minimum() {
        let counters = Arc::new(Counters::default());
        let budget = RetryLimit::Budget { millionths: 200_000, minimum: 1, interval: None };
        let pool = Pool { retries: budget, ..Pool::default() };
        let _one = granted(counters.retry(&pool));
        assert!(overflowed(&counters.retry(&pool)));
        let mut requests = Vec::new();
        for _ in 0..10 {
            requests.push(granted(counters.admit(&pool, true).await));
        }
        let _two = granted(counters.retry(&pool));
        assert!(overflowed(&counters.retry(&pool)));
        assert_eq!(counters.overflows(Limit::Retries), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn with_an_interval_requests_of_late_count_too() {
        let counters = Arc::new(Counters::default());
        let interval = Some(Duration::from_secs(10));
        let budget = RetryLimit::Budget { millionths: 500_000, minimum: 0, interval };
        let pool = Pool { retries: budget, ..Pool::default() };
        for _ in 0..4 {
            drop(granted(counters.admit(&pool, true).await));
        }
        let _two = (granted(counters.retry(&pool)), granted(counters.retry(&pool)));
        assert!(overflowed(&counters.retry(&pool)));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(overflowed(&counters.retry(&pool)));
    }

    #[test]
    fn concurrent_retries_are_counted() {
        let counters = Arc::new(Counters::default());
        let pool = Pool { retries: RetryLimit::Concurrent(1), ..Pool::default() };
        let first = granted(counters.retry(&pool));
        assert!(overflowed(&counters.retry(&pool)));
        drop(first);
        assert!(granted(counters.retry(&pool)).is_some());
        assert!(granted(counters.retry(&Pool::default())).is_none());
    }
}

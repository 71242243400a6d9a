//! Passive health: an endpoint that fails again and again is left alone for a while.
//!
//! Invariant: the rules are Envoy's (outlier_detection_impl.cc). What is known of an address survives reloads; counting
//! takes no lock, ejecting does. Without outlier detection nothing here runs.

use super::{
    cluster::Cluster,
    endpoint::{EndpointLoad, NoAnswer},
};
use routing::cluster::Outlier;
use std::{
    sync::{
        Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// What is known of one address.
#[derive(Debug, Default)]
pub struct Record {
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    ejected: AtomicBool,
    /// Number by which the next ejection is longer; shrinks while all is well.
    ejections: AtomicU32,
    total: AtomicU64,
    until: Mutex<Option<Instant>>,
}

impl Record {
    /// Whether the address is left alone now.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// How long it is still left alone; `None` when it is not.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let until = (*self.until.lock().unwrap_or_else(PoisonError::into_inner))?;
        self.is_ejected().then(|| until.saturating_duration_since(Instant::now()))
    }

    /// How often it was ejected, ever.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.total.load(Relaxed)
    }

    fn clear(&self) {
        for counter in [&self.errors, &self.gateway_errors, &self.local_failures] {
            counter.store(0, Relaxed);
        }
    }

    fn eject(&self, outlier: &Outlier) {
        let count = self.ejections.fetch_add(1, Relaxed).saturating_add(1);
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) =
            Instant::now().checked_add(outlier.ejection(count));
        self.total.fetch_add(1, Relaxed);
        self.ejected.store(true, Relaxed);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|until| until <= now)
    }
}

/// Counts an error and says whether the limit is reached.
fn reached(counter: &AtomicU32, limit: Option<u32>) -> bool {
    let count = counter.fetch_add(1, Relaxed).saturating_add(1);
    limit.is_some_and(|limit| count >= limit)
}

impl Cluster {
    pub(super) fn observe_status(&self, load: &EndpointLoad, status: u16) {
        let Some(outlier) = &self.spec.outlier else { return };
        load.record.local_failures.store(0, Relaxed);
        let error = if outlier.error_codes.is_empty() {
            status >= 500
        } else {
            outlier.error_codes.contains(&status)
        };
        self.observe(load, outlier, error, matches!(status, 502..=504));
    }

    pub(super) fn observe_failure(&self, load: &EndpointLoad, why: NoAnswer) {
        let Some(outlier) = &self.spec.outlier else { return };
        if why == NoAnswer::Ours {
            return;
        }
        if !outlier.split {
            // What has no answer counts as the 503 or 504 that the client gets.
            self.observe(load, outlier, true, true);
        } else if reached(&load.record.local_failures, outlier.local_origin) {
            self.eject(load, outlier);
        }
    }

    fn observe(&self, load: &EndpointLoad, outlier: &Outlier, error: bool, gateway: bool) {
        let record = &load.record;
        if !error {
            record.errors.store(0, Relaxed);
            record.gateway_errors.store(0, Relaxed);
            return;
        }
        let by_gateway = if gateway {
            reached(&record.gateway_errors, outlier.consecutive_gateway)
        } else {
            record.gateway_errors.store(0, Relaxed);
            false
        };
        let by_errors = reached(&record.errors, outlier.consecutive_5xx);
        if by_gateway || by_errors {
            self.eject(load, outlier);
        }
    }

    /// Ejects, unless too many are already.
    #[cold]
    fn eject(&self, load: &EndpointLoad, outlier: &Outlier) {
        let one_at_a_time = self.changing();
        if load.record.is_ejected() {
            return;
        }
        load.record.clear();
        let view = self.endpoints();
        let ejected = view.all.iter().filter(|e| e.load.record.is_ejected()).count() as u64;
        if (ejected + 1) * 100 > u64::from(outlier.max_ejection_percent) * view.all.len() as u64 {
            return;
        }
        load.record.eject(outlier);
        self.refresh(&one_at_a_time);
        let endpoint = view.all.iter().find(|e| std::ptr::eq(&*e.load, load));
        let address = endpoint.map(|e| e.endpoint.address.to_string()).unwrap_or_default();
        tracing::warn!(cluster = %self.spec.name, endpoint = %address, "endpoint ejected");
    }

    /// Lets those return whose time is up, and forgives those that behaved.
    pub(super) fn sweep(&self) {
        let one_at_a_time = self.changing();
        let now = Instant::now();
        let mut returned = false;
        for state in &self.endpoints().all {
            let record = &state.load.record;
            if !record.is_ejected() {
                let _none_left = record.ejections.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
            } else if record.is_due(now) || self.spec.outlier.is_none() {
                record.clear();
                record.ejected.store(false, Relaxed);
                returned = true;
                tracing::info!(cluster = %self.spec.name, endpoint = %state.endpoint.address, "endpoint returned");
            }
        }
        if returned {
            self.refresh(&one_at_a_time);
        }
    }
}

/// Shortest and longest time between two looks at endpoints that are new.
const WARMUP_STEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Sweeps and warms up until the cluster is dropped.
pub(super) async fn care(cluster: Weak<Cluster>) {
    let (mut sweep_at, mut warm_at) = (None, None);
    loop {
        let now = Instant::now();
        let next = {
            let Some(cluster) = cluster.upgrade() else { return };
            if let Some(outlier) = &cluster.spec.outlier {
                let due = sweep_at.is_some_and(|at| now >= at);
                if due {
                    cluster.sweep();
                }
                if due || sweep_at.is_none() {
                    sweep_at = now.checked_add(outlier.interval.max(Duration::from_millis(1)));
                }
            }
            if let Some(warmup) = &cluster.spec.warmup {
                if warm_at.is_some_and(|at| now >= at) && cluster.is_warming(now) {
                    cluster.refresh(&cluster.changing());
                }
                if warm_at.is_none_or(|at| now >= at) {
                    warm_at = now.checked_add((warmup.duration / 50).clamp(WARMUP_STEP.0, WARMUP_STEP.1));
                }
            }
            match (sweep_at, warm_at) {
                (Some(a), Some(b)) => a.min(b),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => return,
            }
        };
        tokio::time::sleep_until(next).await;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::runtime::testing::{cluster, ip, spec};
    use routing::cluster::ClusterSpec;
    use std::sync::Arc;

    fn outlier() -> Outlier {
        Outlier {
            consecutive_5xx: Some(3),
            consecutive_gateway: None,
            local_origin: None,
            split: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 50,
            error_codes: Box::default(),
        }
    }

    pub(in crate::runtime) fn watched(outlier: Outlier, count: u8) -> Arc<Cluster> {
        let spec = ClusterSpec { outlier: Some(outlier), ..spec() };
        cluster(spec, (0..count).map(|i| ip([10, 0, 0, i])).collect())
    }

    fn answer(cluster: &Arc<Cluster>, index: usize, statuses: &[u16]) {
        for status in statuses {
            cluster.endpoints().all[index].begin(cluster).answered(*status);
        }
    }

    pub(in crate::runtime) fn ejected(cluster: &Cluster) -> Vec<usize> {
        let view = cluster.endpoints();
        (0..view.all.len()).filter(|i| view.all[*i].record().is_ejected()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn errors_in_a_row_eject_and_a_success_between_them_does_not() {
        let cluster = watched(outlier(), 2);
        answer(&cluster, 0, &[500, 503, 200, 500, 500]);
        assert_eq!(ejected(&cluster), [0_usize; 0]);
        answer(&cluster, 0, &[500]);
        assert_eq!(ejected(&cluster), [0]);
        for _ in 0..50 {
            let picked = cluster.pick(|| fastrand::u64(..), None, &[]).unwrap();
            assert_eq!(picked.endpoint.address, ip([10, 0, 0, 1]).address);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_ejected_than_the_percentage_allows() {
        let cluster = watched(Outlier { max_ejection_percent: 10, ..outlier() }, 9);
        answer(&cluster, 0, &[500; 9]);
        assert_eq!(ejected(&cluster), [0_usize; 0], "one of nine is more than a tenth");
        let cluster = watched(outlier(), 4);
        (0..4).for_each(|index| answer(&cluster, index, &[500; 3]));
        assert_eq!(ejected(&cluster), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejection_grows_and_shrinks_and_ends_at_a_sweep() {
        let cluster = watched(outlier(), 2);
        let seconds = |n| tokio::time::advance(Duration::from_secs(n));
        answer(&cluster, 0, &[500; 3]);
        seconds(29).await;
        cluster.sweep();
        assert_eq!(ejected(&cluster), [0]);
        seconds(1).await;
        cluster.sweep();
        assert_eq!(ejected(&cluster), [0_usize; 0]);
        answer(&cluster, 0, &[500; 3]);
        seconds(59).await;
        cluster.sweep();
        assert_eq!(ejected(&cluster), [0], "the second takes twice as long");
        seconds(1).await;
        cluster.sweep();
        cluster.sweep();
        cluster.sweep();
        answer(&cluster, 0, &[500; 3]);
        assert_eq!(
            cluster.endpoints().all[0].record().remaining(),
            Some(Duration::from_secs(30)),
            "forgiven"
        );
        assert_eq!(cluster.endpoints().all[0].record().ejections(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn gateway_errors_count_apart_and_listed_statuses_in_place_of_5xx() {
        let cluster =
            watched(Outlier { consecutive_5xx: None, consecutive_gateway: Some(2), ..outlier() }, 2);
        answer(&cluster, 0, &[500, 500, 500, 502, 500, 503]);
        assert_eq!(ejected(&cluster), [0_usize; 0]);
        answer(&cluster, 0, &[504]);
        assert_eq!(ejected(&cluster), [0]);
        let cluster = watched(Outlier { error_codes: [429].into(), ..outlier() }, 2);
        answer(&cluster, 0, &[500, 500, 500]);
        answer(&cluster, 1, &[429, 429, 429]);
        assert_eq!(ejected(&cluster), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_without_an_answer_count_with_the_others_unless_split() {
        let fail = |cluster: &Arc<Cluster>, why| {
            for _ in 0..3 {
                cluster.endpoints().all[0].begin(cluster).failed(why);
            }
        };
        let cluster = watched(outlier(), 2);
        fail(&cluster, NoAnswer::Ours);
        assert_eq!(ejected(&cluster), [0_usize; 0]);
        fail(&cluster, NoAnswer::Connection);
        assert_eq!(ejected(&cluster), [0]);
        let cluster = watched(Outlier { split: true, local_origin: None, ..outlier() }, 2);
        fail(&cluster, NoAnswer::Timeout);
        assert_eq!(ejected(&cluster), [0_usize; 0]);
        let cluster = watched(Outlier { split: true, local_origin: Some(3), ..outlier() }, 2);
        fail(&cluster, NoAnswer::Timeout);
        assert_eq!(ejected(&cluster), [0]);
    }
}

//! What is counted about writing into the cluster.
//!
//! Invariant: no label comes from a resource, so the number of series is fixed.

use prometheus::{IntCounterVec, IntGauge, Opts};

use crate::telemetry::{self, names};

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server has taken it.
    Written,
    /// The server has it already.
    Unchanged,
    /// Somebody else was faster.
    Conflict,
    /// The right to do so is missing.
    Refused,
    /// Anything else.
    Failed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Written => "written",
            Outcome::Unchanged => "unchanged",
            Outcome::Conflict => "conflict",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// Gauges and counters of the writer.
#[derive(Debug, Clone)]
pub struct Metrics {
    leader: IntGauge,
    writes: IntCounterVec,
    events: IntCounterVec,
    leases: IntCounterVec,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When metrics of these names are registered already.
    pub fn register(telemetry: &telemetry::Metrics) -> prometheus::Result<Metrics> {
        let by_result = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["result"]);
        let metrics = Metrics {
            leader: IntGauge::new(
                names::STATUS_LEADER,
                "1 while this process writes what it finds into the cluster.",
            )?,
            writes: by_result(
                names::STATUS_WRITES,
                "Statuses of resources that were to be written, by what came of it.",
            )?,
            events: by_result(
                names::STATUS_EVENTS,
                "Events about resources that were to be written, by what came of it.",
            )?,
            leases: by_result(
                names::STATUS_LEASES,
                "Attempts at the Lease of who writes, by what came of it.",
            )?,
        };
        telemetry.register(Box::new(metrics.leader.clone()))?;
        telemetry.register(Box::new(metrics.writes.clone()))?;
        telemetry.register(Box::new(metrics.events.clone()))?;
        telemetry.register(Box::new(metrics.leases.clone()))?;
        Ok(metrics)
    }

    pub(super) fn set_leader(&self, leader: bool) {
        self.leader.set(i64::from(leader));
    }

    pub(super) fn count_write(&self, outcome: Outcome) {
        self.writes.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(super) fn count_event(&self, outcome: Outcome) {
        self.events.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(super) fn count_lease(&self, outcome: Outcome) {
        self.leases.with_label_values(&[outcome.as_str()]).inc();
    }

    #[cfg(test)]
    pub(super) fn lease_refusals(&self) -> u64 {
        self.leases.with_label_values(&[Outcome::Refused.as_str()]).get()
    }
}

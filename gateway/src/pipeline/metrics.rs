//! The pipeline's own metrics.
//!
//! Invariant: no label comes from a resource, so the number of series is fixed.

use std::{collections::BTreeSet, time::Duration};

use config_model::diagnostic::{Diagnostics, Effect, Severity};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{Built, Synchronization};
use crate::telemetry;

/// Gauges and counters about configuration.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) synchronized: IntGauge,
    generation: IntGauge,
    rejected: IntGauge,
    resources: IntGauge,
    unparsable: IntGauge,
    findings: IntGaugeVec,
    pub(super) updates: IntCounterVec,
    duration: Histogram,
}

impl Metrics {
    /// Those that every part of the process knows are taken from `telemetry`, the rest is made and registered there.
    ///
    /// # Errors
    /// When metrics of these names are registered already.
    pub fn register(telemetry: &telemetry::Metrics) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            synchronized: telemetry.config_synchronized.clone(),
            generation: telemetry.config_generation.clone(),
            rejected: telemetry.config_rejected.clone(),
            resources: IntGauge::new("limen_config_resources", "Resources read from the source.")?,
            unparsable: IntGauge::new(
                "limen_config_unparsable_documents",
                "Documents of the source that cannot be read.",
            )?,
            findings: IntGaugeVec::new(
                Opts::new("limen_config_findings", "What is wrong with the configuration, by severity."),
                &["severity"],
            )?,
            updates: IntCounterVec::new(
                Opts::new("limen_config_updates_total", "States taken from the source, by what they led to."),
                &["result"],
            )?,
            duration: Histogram::with_opts(
                HistogramOpts::new(
                    "limen_config_update_duration_seconds",
                    "Time from a changed state to the configuration in force.",
                )
                .buckets(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            )?,
        };
        telemetry.register(Box::new(metrics.resources.clone()))?;
        telemetry.register(Box::new(metrics.unparsable.clone()))?;
        telemetry.register(Box::new(metrics.findings.clone()))?;
        telemetry.register(Box::new(metrics.updates.clone()))?;
        telemetry.register(Box::new(metrics.duration.clone()))?;
        Ok(metrics)
    }

    pub(super) fn set(&self, built: &Built, findings: &Diagnostics, synchronization: Synchronization) {
        self.synchronized.set(i64::from(synchronization == Synchronization::Current));
        self.generation.set(i64::try_from(built.generation).unwrap_or(i64::MAX));
        let rejected = findings
            .iter()
            .filter(|finding| finding.effect == Effect::Rejected)
            .filter_map(|finding| finding.resource.as_ref())
            .collect::<BTreeSet<_>>();
        self.rejected.set(i64::try_from(rejected.len()).unwrap_or(i64::MAX));
        self.resources.set(i64::try_from(built.resources).unwrap_or(i64::MAX));
        self.unparsable.set(i64::try_from(built.unparsable).unwrap_or(i64::MAX));
        for severity in [Severity::Error, Severity::Warning, Severity::Info] {
            let count = i64::try_from(findings.count(severity)).unwrap_or(i64::MAX);
            self.findings.with_label_values(&[severity.as_str()]).set(count);
        }
    }

    pub(super) fn count_published(&self, took: Duration) {
        self.updates.with_label_values(&["published"]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn count_identical(&self) {
        self.updates.with_label_values(&["identical"]).inc();
    }
}

//! The pipeline's own metrics.
//!
//! Invariant: no label comes from a resource, so the number of series is fixed.

use std::{collections::BTreeSet, time::Duration};

use config_model::diagnostic::{Diagnostics, Effect, Severity};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{Built, Synchronization};
use crate::telemetry::{self, names};

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
    compile: Histogram,
    swap: Histogram,
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
            resources: IntGauge::new(names::CONFIG_RESOURCES, "Resources read from the source.")?,
            unparsable: IntGauge::new(
                names::CONFIG_UNPARSABLE,
                "Documents of the source that cannot be read.",
            )?,
            findings: IntGaugeVec::new(
                Opts::new(names::CONFIG_FINDINGS, "What is wrong with the configuration, by severity."),
                &["severity"],
            )?,
            updates: IntCounterVec::new(
                Opts::new(names::CONFIG_UPDATES, "States taken from the source, by what they led to."),
                &["result"],
            )?,
            duration: times(
                names::CONFIG_DURATION,
                "Time from a changed state to the configuration in force.",
            )?,
            compile: times(names::CONFIG_COMPILE, "Time to validate and compile a state.")?,
            swap: times(
                names::CONFIG_SWAP,
                "Time to put in force what was compiled: endpoints, sockets, certificates.",
            )?,
        };
        telemetry.register(Box::new(metrics.resources.clone()))?;
        telemetry.register(Box::new(metrics.unparsable.clone()))?;
        telemetry.register(Box::new(metrics.findings.clone()))?;
        telemetry.register(Box::new(metrics.updates.clone()))?;
        for times in [&metrics.duration, &metrics.compile, &metrics.swap] {
            telemetry.register(Box::new(times.clone()))?;
        }
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

    /// Counts a change, by the time it took in all and to compile.
    pub(super) fn count_published(&self, took: Duration, compiled: Duration) {
        self.updates.with_label_values(&["published"]).inc();
        self.duration.observe(took.as_secs_f64());
        self.compile.observe(compiled.as_secs_f64());
        self.swap.observe(took.saturating_sub(compiled).as_secs_f64());
    }

    pub(super) fn count_identical(&self) {
        self.updates.with_label_values(&["identical"]).inc();
    }
}

fn times(name: &str, help: &str) -> prometheus::Result<Histogram> {
    let buckets = vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
}

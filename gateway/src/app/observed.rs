//! What the parts of the process say of themselves when metrics are read: listeners, connections, certificates, drain, names.
//!
//! Invariant: read off the data plane, of what is counted anyway; labels come from the configuration or are of a fixed set.

use std::sync::Arc;

use async_trait::async_trait;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{
    admin::seconds_of,
    drain::{DrainController, DrainState},
    listener::{Handshake, ListenerManager},
    report::table::certificate_name,
    runtime::dns::{Answer, Resolve, ResolveError},
    snapshot::SnapshotCell,
    telemetry::{Metrics, names},
};

/// Reads them at each scrape.
pub(super) struct Observed {
    listeners: ListenerManager,
    snapshots: Arc<SnapshotCell>,
    drain: Arc<DrainController>,
    descriptions: Vec<Desc>,
}

struct Families {
    listeners: IntGaugeVec,
    accepted: IntCounter,
    refused: IntCounter,
    handshakes: IntCounterVec,
    expiry: IntGaugeVec,
    draining: IntGauge,
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        let gauges = |name, help, label| IntGaugeVec::new(Opts::new(name, help), &[label]);
        Ok(Families {
            listeners: gauges(names::LISTENERS, "Listeners, by whether they are bound.", "state")?,
            accepted: IntCounter::new(names::CONNECTIONS, "Client connections ever accepted.")?,
            refused: IntCounter::new(
                names::CONNECTIONS_REFUSED,
                "Client connections closed at once because there were too many.",
            )?,
            handshakes: IntCounterVec::new(
                Opts::new(names::HANDSHAKES, "Client connections with TLS that is ended here."),
                &["result"],
            )?,
            expiry: gauges(
                names::CERTIFICATE_EXPIRY,
                "When a certificate that is served ends, in seconds since 1970.",
                "certificate",
            )?,
            draining: IntGauge::new(
                names::DRAINING,
                "0 while serving, 1 during a drain, 2 when the process is about to end.",
            )?,
        })
    }

    fn each(&self) -> [&dyn Collector; 6] {
        [&self.listeners, &self.accepted, &self.refused, &self.handshakes, &self.expiry, &self.draining]
    }
}

impl Observed {
    /// Registers them.
    ///
    /// # Errors
    /// When metrics of these names are registered already.
    pub(super) fn register(
        metrics: &Metrics,
        listeners: ListenerManager,
        snapshots: Arc<SnapshotCell>,
        drain: Arc<DrainController>,
    ) -> prometheus::Result<()> {
        let families = Families::new()?;
        let descriptions = families.each().into_iter().flat_map(|f| f.desc().into_iter().cloned()).collect();
        metrics.register(Box::new(Observed { listeners, snapshots, drain, descriptions }))
    }

    fn read(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let families = Families::new()?;
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        families.listeners.with_label_values(&["bound"]).set(count(self.listeners.bound().len()));
        families.listeners.with_label_values(&["failed"]).set(count(self.listeners.failures().len()));
        families.accepted.inc_by(self.listeners.accepted());
        families.refused.inc_by(u64::try_from(self.listeners.refused()).unwrap_or(u64::MAX));
        for end in Handshake::ALL {
            families.handshakes.with_label_values(&[end.as_str()]).inc_by(self.listeners.handshakes(end));
        }
        for summary in self.snapshots.load().certificates.summaries() {
            if let Some(until) = seconds_of(&summary.not_after) {
                families.expiry.with_label_values(&[&*certificate_name(&summary.source)]).set(until);
            }
        }
        families.draining.set(match self.drain.state() {
            DrainState::Live => 0,
            DrainState::Draining => 1,
            DrainState::Quitting => 2,
        });
        Ok(families.each().into_iter().flat_map(Collector::collect).collect())
    }
}

impl Collector for Observed {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The same names were taken when this was made.
        self.read().unwrap_or_default()
    }
}

/// A resolver whose questions are counted.
pub(super) struct CountedResolver<R> {
    resolver: R,
    lookups: IntCounterVec,
}

impl<R: Resolve> CountedResolver<R> {
    /// Counts the questions to `resolver`.
    ///
    /// # Errors
    /// When the metric is registered already.
    pub(super) fn new(resolver: R, metrics: &Metrics) -> prometheus::Result<Self> {
        let opts = Opts::new(names::DNS, "Questions for addresses of names, by what came of them.");
        let lookups = IntCounterVec::new(opts, &["result"])?;
        for result in ["answered", "failed", "given_up"] {
            let _shown_from_the_start = lookups.with_label_values(&[result]);
        }
        metrics.register(Box::new(lookups.clone()))?;
        Ok(Self { resolver, lookups })
    }
}

#[async_trait]
impl<R: Resolve> Resolve for CountedResolver<R> {
    async fn resolve(&self, name: &str) -> Result<Answer, ResolveError> {
        let mut question = Question { lookups: &self.lookups, result: "given_up" };
        let answer = self.resolver.resolve(name).await;
        question.result = if answer.is_ok() { "answered" } else { "failed" };
        answer
    }
}

/// Counts itself when it is over, also when nobody waits for the answer any more.
struct Question<'q> {
    lookups: &'q IntCounterVec,
    result: &'static str,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.lookups.with_label_values(&[self.result]).inc();
    }
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Identity;
    use std::time::Duration;

    struct Answers;

    #[async_trait]
    impl Resolve for Answers {
        async fn resolve(&self, name: &str) -> Result<Answer, ResolveError> {
            match name {
                "good" => Ok(Answer { addresses: Vec::new(), ttl: Duration::ZERO }),
                "bad" => Err(ResolveError("no".to_owned())),
                _ => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn questions_are_counted_by_what_came_of_them() {
        let metrics = Metrics::new(Identity::default(), "test").unwrap();
        let resolver = CountedResolver::new(Answers, &metrics).unwrap();
        let _answers = [resolver.resolve("good").await.is_ok(), resolver.resolve("bad").await.is_ok()];
        assert!(tokio::time::timeout(Duration::from_secs(1), resolver.resolve("never")).await.is_err());
        let text = String::from_utf8(metrics.encode()).unwrap();
        for result in ["answered", "failed", "given_up"] {
            assert!(text.contains(&format!("{}{{result=\"{result}\"}} 1", names::DNS)), "{text}");
        }
    }
}

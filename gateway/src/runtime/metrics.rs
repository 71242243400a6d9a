//! What clusters in force have to say to metrics: ejections, limits reached, connections.
//!
//! Invariant: read when scraped, so that requests pay nothing; only clusters that eject or limit, or that connections were made to,
//! are named, which bounds the series by the configuration.

use super::{Cluster, Limit};
use crate::telemetry::names;
use prometheus::{
    IntCounterVec, IntGaugeVec, Opts,
    core::{Collector as PrometheusCollector, Desc},
    proto::MetricFamily,
};
use std::sync::Arc;

/// Reads the clusters at each scrape.
pub struct Collector {
    clusters: Box<dyn Fn() -> Vec<Arc<Cluster>> + Send + Sync>,
    descriptions: Vec<Desc>,
}

struct Families {
    ejected: IntGaugeVec,
    ejections: IntCounterVec,
    overflows: IntCounterVec,
    active: IntGaugeVec,
    opened: IntCounterVec,
    retried: IntCounterVec,
}

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        Ok(Self {
            ejected: gauge(names::EJECTED, "Endpoints that are left alone now.", &["cluster"])?,
            ejections: counter(names::EJECTIONS, "Ejections of endpoints.", &["cluster"])?,
            overflows: counter(
                names::OVERFLOWS,
                "Requests and retries that a limit refused.",
                &["cluster", "limit"],
            )?,
            active: gauge(names::LIMITED, "What counts towards a limit now.", &["cluster", "limit"])?,
            opened: counter(names::UPSTREAM_CONNECTIONS, "Connections made to endpoints.", &["cluster"])?,
            retried: counter(names::RETRIES, "Retries of requests.", &["cluster"])?,
        })
    }

    fn each(&self) -> [&dyn PrometheusCollector; 6] {
        [&self.ejected, &self.ejections, &self.overflows, &self.active, &self.opened, &self.retried]
    }
}

impl Collector {
    pub(super) fn new(
        clusters: impl Fn() -> Vec<Arc<Cluster>> + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        let families = Families::new()?;
        let descriptions = families.each().into_iter().flat_map(|f| f.desc().into_iter().cloned()).collect();
        Ok(Self { clusters: Box::new(clusters), descriptions })
    }

    fn read(&self) -> Result<Vec<MetricFamily>, prometheus::Error> {
        let families = Families::new()?;
        for cluster in (self.clusters)() {
            let name = cluster.spec.name.as_str();
            if cluster.spec.outlier.is_some() {
                let view = cluster.endpoints();
                let ejected = view.all.iter().filter(|e| e.record().is_ejected()).count();
                let ejections = view.all.iter().map(|e| e.record().ejections()).sum();
                families.ejected.with_label_values(&[name]).set(i64::try_from(ejected).unwrap_or(i64::MAX));
                families.ejections.with_label_values(&[name]).inc_by(ejections);
            }
            let (opened, retried) = (cluster.counters.opened(), cluster.counters.retried());
            if opened + retried > 0 {
                families.opened.with_label_values(&[name]).inc_by(opened);
                families.retried.with_label_values(&[name]).inc_by(retried);
            }
            for limit in Limit::ALL.into_iter().filter(|limit| cluster.has_limit(*limit)) {
                let labels = [name, limit.as_str()];
                families.overflows.with_label_values(&labels).inc_by(cluster.counters.overflows(limit));
                families.active.with_label_values(&labels).set(i64::from(cluster.counters.now(limit)));
            }
        }
        Ok(families.each().into_iter().flat_map(PrometheusCollector::collect).collect())
    }
}

impl PrometheusCollector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The same names were taken when this was made.
        self.read().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{
        Admission,
        testing::{cluster, ip, spec},
    };
    use routing::cluster::{ClusterSpec, Pool, UpstreamProtocol};

    #[tokio::test]
    async fn only_clusters_with_limits_are_named_and_what_they_refused_is_counted() {
        let pool = Pool { max_requests: Some(1), ..Pool::default() };
        let limited = cluster(ClusterSpec { pool, ..spec() }, vec![ip([10, 0, 0, 1])]);
        let plain = cluster(ClusterSpec::new("plain.example", 80, ""), vec![ip([10, 0, 0, 1])]);
        let held = limited.admit(UpstreamProtocol::Http1).await;
        assert!(matches!(limited.admit(UpstreamProtocol::Http1).await, Admission::Overflow));
        let registry = prometheus::Registry::new();
        let clusters = vec![limited, plain];
        registry.register(Box::new(Collector::new(move || clusters.clone()).unwrap())).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let labels = "{cluster=\"outbound|80||a.example.com\",limit=\"requests\"}";
        assert!(text.contains(&format!("limen_upstream_overflows_total{labels} 1")), "{text}");
        assert!(text.contains(&format!("limen_upstream_limited{labels} 1")), "{text}");
        assert!(!text.contains("plain.example"), "{text}");
        drop(held);
    }

    #[tokio::test]
    async fn connections_and_retries_are_told_of_clusters_that_were_asked() {
        let asked = cluster(spec(), vec![ip([10, 0, 0, 1])]);
        let silent = cluster(ClusterSpec::new("plain.example", 80, ""), vec![ip([10, 0, 0, 1])]);
        asked.counters.connected();
        asked.counters.connected();
        assert!(matches!(asked.admit_retry(), Admission::Granted(_)));
        let registry = prometheus::Registry::new();
        let clusters = vec![asked, silent];
        registry.register(Box::new(Collector::new(move || clusters.clone()).unwrap())).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let labels = "{cluster=\"outbound|80||a.example.com\"}";
        assert!(text.contains(&format!("limen_upstream_connections_total{labels} 2")), "{text}");
        assert!(text.contains(&format!("limen_upstream_retries_total{labels} 1")), "{text}");
        assert!(!text.contains("plain.example"), "{text}");
    }
}

//! Metrics and their registry.
//!
//! Invariant: the request path formats no label: the handles of a series are made at its first request and found by
//! a small key after that. The number of series is bounded by the configuration, never by what clients send.

use super::{flags::Flags, names};
use arc_swap::ArcSwap;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use routing::cluster::{ClusterName, ClusterSpec};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Who this gateway is, as the `source_*` labels say it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the workload (the Deployment).
    pub workload: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// Canonical service: `service.istio.io/canonical-name`, or label `app`.
    pub canonical_service: String,
    /// Canonical revision; `latest` where none is set.
    pub canonical_revision: String,
    /// Label `version`.
    pub version: String,
    /// Label `app`.
    pub app: String,
    /// Name of the cluster in the sense of Kubernetes.
    pub cluster: String,
}

impl Default for Identity {
    fn default() -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            workload: unknown(),
            namespace: unknown(),
            canonical_service: unknown(),
            canonical_revision: "latest".to_owned(),
            version: unknown(),
            app: unknown(),
            cluster: unknown(),
        }
    }
}

/// Protocol of a request as metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestProtocol {
    /// Plain HTTP of any version.
    Http,
    /// Content type `application/grpc`.
    Grpc,
    /// Not HTTP.
    Tcp,
}

/// One finished request.
#[derive(Debug)]
pub struct Sample<'a> {
    /// Cluster it was sent to; `None` where there is none.
    pub cluster: Option<&'a ClusterSpec>,
    /// Protocol.
    pub protocol: RequestProtocol,
    /// Status sent; 0 when none was.
    pub code: u16,
    /// Status of a gRPC call, where known.
    pub grpc_status: Option<u8>,
    /// Response flags.
    pub flags: Flags,
    /// Time it took.
    pub duration: Duration,
    /// Bytes from the client.
    pub request_bytes: u64,
    /// Bytes to the client.
    pub response_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    cluster: Option<ClusterName>,
    protocol: RequestProtocol,
    code: u16,
    grpc_status: Option<u8>,
    flags: Flags,
}

struct Series {
    requests: IntCounter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

type Cache = HashMap<Key, Arc<Series>, foldhash::fast::RandomState>;

/// Of connections that are not HTTP.
struct Tcp {
    opened: IntCounterVec,
    closed: IntCounterVec,
    sent: IntCounterVec,
    received: IntCounterVec,
}

/// A label that connections have too.
fn is_tcps(label: &str) -> bool {
    !matches!(label, "response_code" | "grpc_response_status")
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    identity: Identity,
    requests: IntCounterVec,
    duration: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
    series: ArcSwap<Cache>,
    extend: Mutex<()>,
    tcp: Tcp,
    /// Generation of the configuration in force.
    pub config_generation: IntGauge,
    /// 1 while the configuration in force is what its source says.
    pub config_synchronized: IntGauge,
    /// Resources that are not served as written.
    pub config_rejected: IntGauge,
    /// Client connections open now.
    pub active_connections: IntGauge,
    /// Access log lines lost.
    pub access_log_dropped: IntCounter,
    /// Copies for mirrors that were not made, or given up.
    pub mirror_dropped: IntCounter,
}

impl Metrics {
    /// A registry of its own.
    ///
    /// # Errors
    /// When two metrics have one name; that is a mistake in this file.
    pub fn new(identity: Identity, version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str| {
            let vec = HistogramVec::new(
                HistogramOpts::new(name, help).buckets(names::BUCKETS.to_vec()),
                &names::HTTP_LABELS,
            )?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let requests =
            IntCounterVec::new(Opts::new(names::REQUESTS, "Requests served."), &names::HTTP_LABELS)?;
        registry.register(Box::new(requests.clone()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let tcp = |name: &str, help: &str| {
            let labels: Vec<&str> = names::HTTP_LABELS.into_iter().filter(|label| is_tcps(label)).collect();
            let vec = IntCounterVec::new(Opts::new(name, help), &labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let build = IntGauge::with_opts(
            Opts::new(names::BUILD, "Version of the proxy.")
                .const_label("component", "proxy")
                .const_label("tag", version),
        )?;
        build.set(1);
        registry.register(Box::new(build))?;
        Ok(Self {
            duration: histogram(names::REQUEST_DURATION, "Duration of requests in milliseconds.")?,
            request_bytes: histogram(names::REQUEST_BYTES, "Size of requests in bytes.")?,
            response_bytes: histogram(names::RESPONSE_BYTES, "Size of responses in bytes.")?,
            config_generation: gauge(names::CONFIG_GENERATION, "Generation of the configuration in force.")?,
            config_synchronized: gauge(
                names::CONFIG_SYNCHRONIZED,
                "1 while the configuration in force is its source's.",
            )?,
            config_rejected: gauge(names::CONFIG_REJECTED, "Resources that are not served as written.")?,
            active_connections: gauge(names::ACTIVE_CONNECTIONS, "Client connections open now.")?,
            access_log_dropped: counter(
                names::ACCESS_LOG_DROPPED,
                "Access log lines lost to a slow reader.",
            )?,
            mirror_dropped: counter(
                names::MIRROR_DROPPED,
                "Copies for mirrors not made, or given up, for want of room.",
            )?,
            tcp: Tcp {
                opened: tcp(names::TCP_OPENED, "Connections opened that are not HTTP.")?,
                closed: tcp(names::TCP_CLOSED, "Connections closed that are not HTTP.")?,
                sent: tcp(names::TCP_SENT, "Bytes sent to clients on connections that are not HTTP.")?,
                received: tcp(
                    names::TCP_RECEIVED,
                    "Bytes received from clients on connections that are not HTTP.",
                )?,
            },
            requests,
            identity,
            series: ArcSwap::from_pointee(Cache::default()),
            extend: Mutex::new(()),
            registry,
        })
    }

    /// Counts one finished request.
    pub fn record(&self, sample: &Sample<'_>) {
        let key = Key {
            cluster: sample.cluster.map(|c| c.name.clone()),
            protocol: sample.protocol,
            code: sample.code,
            grpc_status: sample.grpc_status,
            flags: sample.flags,
        };
        let known = self.series.load().get(&key).cloned();
        let series = known.unwrap_or_else(|| self.make(key, sample.cluster));
        series.requests.inc();
        series.duration.observe(sample.duration.as_secs_f64() * 1000.0);
        #[expect(clippy::cast_precision_loss, reason = "a histogram of sizes needs no exact terabytes")]
        {
            series.request_bytes.observe(sample.request_bytes as f64);
            series.response_bytes.observe(sample.response_bytes as f64);
        }
    }

    /// Counts a connection that is not HTTP, when it begins.
    pub fn tcp_opened(&self, cluster: Option<&ClusterSpec>) {
        self.of_tcp(&self.tcp.opened, cluster, Flags::default()).inc();
    }

    /// Counts it when it is over, with the bytes that clients sent and got.
    pub fn tcp_closed(&self, cluster: Option<&ClusterSpec>, flags: Flags, received: u64, sent: u64) {
        self.of_tcp(&self.tcp.closed, cluster, flags).inc();
        self.of_tcp(&self.tcp.sent, cluster, flags).inc_by(sent);
        self.of_tcp(&self.tcp.received, cluster, flags).inc_by(received);
    }

    fn of_tcp(&self, vec: &IntCounterVec, cluster: Option<&ClusterSpec>, flags: Flags) -> IntCounter {
        let key = Key { cluster: None, protocol: RequestProtocol::Tcp, code: 0, grpc_status: None, flags };
        let flags = flags.to_string();
        let all = self.values(&key, cluster, "", &flags, "");
        let labelled = names::HTTP_LABELS.into_iter().zip(all);
        let values: Vec<&str> =
            labelled.filter(|(label, _)| is_tcps(label)).map(|(_, value)| value).collect();
        vec.with_label_values(&values)
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(error = %e, "metrics cannot be encoded");
        }
        out
    }

    /// Everything as data, for who sums it up.
    #[must_use]
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }

    /// Registers a metric of another part of the process.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn register(&self, collector: Box<dyn prometheus::core::Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    #[cold]
    fn make(&self, key: Key, cluster: Option<&ClusterSpec>) -> Arc<Series> {
        let one_at_a_time = self.extend.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.series.load_full();
        if let Some(series) = current.get(&key) {
            return series.clone();
        }
        let code = key.code.to_string();
        let flags = key.flags.to_string();
        let grpc = match (key.protocol, key.grpc_status) {
            (RequestProtocol::Grpc, Some(status)) => status.to_string(),
            _ => String::new(),
        };
        let values = self.values(&key, cluster, &code, &flags, &grpc);
        let series = Arc::new(Series {
            requests: self.requests.with_label_values(&values),
            duration: self.duration.with_label_values(&values),
            request_bytes: self.request_bytes.with_label_values(&values),
            response_bytes: self.response_bytes.with_label_values(&values),
        });
        // Copied whole: this happens once per series, and readers must never wait for it.
        let mut next = (*current).clone();
        next.insert(key, series.clone());
        self.series.store(Arc::new(next));
        drop(one_at_a_time);
        series
    }

    fn values<'v>(
        &'v self,
        key: &Key,
        cluster: Option<&'v ClusterSpec>,
        code: &'v str,
        flags: &'v str,
        grpc: &'v str,
    ) -> [&'v str; 25] {
        const UNKNOWN: &str = "unknown";
        let host = cluster.map_or(UNKNOWN, |c| &*c.host);
        let (name, namespace) = service_name(host);
        let me = &self.identity;
        [
            "source",
            &me.workload,
            &me.canonical_service,
            &me.canonical_revision,
            &me.namespace,
            UNKNOWN,
            &me.app,
            &me.version,
            &me.cluster,
            UNKNOWN,
            UNKNOWN,
            UNKNOWN,
            UNKNOWN,
            UNKNOWN,
            host,
            UNKNOWN,
            "latest",
            name,
            namespace,
            UNKNOWN,
            match key.protocol {
                RequestProtocol::Http => "http",
                RequestProtocol::Grpc => "grpc",
                RequestProtocol::Tcp => "tcp",
            },
            code,
            grpc,
            flags,
            // Istio: the source side never knows what the destination's proxy does.
            UNKNOWN,
        ]
    }
}

/// Short name and namespace of a host: of `reviews.default.svc.cluster.local`, `reviews` and `default`; another host
/// is its own name and has no namespace.
fn service_name(host: &str) -> (&str, &str) {
    let mut parts = host.splitn(4, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(namespace), Some("svc")) => (name, namespace),
        _ => (host, "unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(code: u16) -> Sample<'static> {
        Sample {
            cluster: None,
            protocol: RequestProtocol::Http,
            code,
            grpc_status: None,
            flags: Flags::default(),
            duration: Duration::from_millis(3),
            request_bytes: 100,
            response_bytes: 200,
        }
    }

    #[test]
    fn a_connection_is_counted_with_its_bytes() {
        let metrics = Metrics::new(Identity::default(), "1.2.3").unwrap();
        metrics.tcp_opened(None);
        metrics.tcp_closed(None, Flags::default(), 3, 5);
        let text = String::from_utf8(metrics.encode()).unwrap();
        for (name, value) in [
            (names::TCP_OPENED, " 1"),
            (names::TCP_CLOSED, " 1"),
            (names::TCP_RECEIVED, " 3"),
            (names::TCP_SENT, " 5"),
        ] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(line.ends_with(value) && line.contains("request_protocol=\"tcp\""), "{line}");
        }
    }

    #[test]
    fn a_request_is_counted_under_istios_names_and_every_label_has_a_value() {
        let metrics = Metrics::new(Identity::default(), "1.2.3").unwrap();
        metrics.record(&sample(404));
        metrics.record(&sample(404));
        let text = String::from_utf8(metrics.encode()).unwrap();
        let line = text.lines().find(|l| l.starts_with("istio_requests_total{")).unwrap();
        assert!(line.ends_with("} 2"), "{line}");
        for label in names::HTTP_LABELS {
            assert!(line.contains(&format!("{label}=\"")), "{label} is missing");
        }
        assert!(line.contains("reporter=\"source\"") && line.contains("response_code=\"404\""));
        assert!(text.contains("istio_request_duration_milliseconds_bucket"));
        assert!(text.contains("istio_build{component=\"proxy\",tag=\"1.2.3\"} 1"));
    }

    #[test]
    fn a_service_of_kubernetes_has_a_short_name_and_any_other_host_is_its_own() {
        assert_eq!(service_name("reviews.default.svc.cluster.local"), ("reviews", "default"));
        assert_eq!(service_name("api.example.com"), ("api.example.com", "unknown"));
    }
}

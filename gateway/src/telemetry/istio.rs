//! Istio's metrics: requests, connections and messages of gRPC, by where they went.
//!
//! Invariant: the request path formats no label and hashes no text; labels are made when metrics are read. A target lives as long as
//! something of the configuration or a request holds it, and is told once more after that.

mod histogram;
mod labels;
mod series;
mod target;

pub use series::RequestProtocol;
pub use target::{Principals, Target};

use super::{flags::Flags, identity::Identity, names};
use labels::{Labels, Told};
use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, LabelPair, Metric, MetricFamily, MetricType},
};
use routing::cluster::{ClusterSpec, Workload};
use series::{AllBounds, Outcome, TcpSeries};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use target::{Place, Service};

/// Targets are looked through for ones that nothing holds when there are twice as many as were left the last time, and so many more.
const SLACK: usize = 64;

/// How often counters of connections that are not HTTP are told of (Istio: `tcp_reporting_duration`).
pub const REPORTING_INTERVAL: Duration = Duration::from_secs(5);

/// One finished request.
#[derive(Debug)]
pub struct Sample {
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
    /// Bytes from the client, head and framing included.
    pub request_bytes: u64,
    /// Bytes to the client, head and framing included.
    pub response_bytes: u64,
}

/// All of Istio's metrics.
pub struct IstioMetrics {
    identity: Identity,
    bounds: AllBounds,
    targets: Mutex<Targets>,
    nowhere: Arc<Target>,
    descriptions: Vec<Desc>,
}

#[derive(Default)]
struct Targets {
    known: HashMap<Place, Arc<Target>>,
    left: usize,
}

impl Targets {
    /// Forgets targets that nothing else holds.
    fn sweep(&mut self) {
        self.known.retain(|_, target| Arc::strong_count(target) > 1);
        self.left = self.known.len();
    }
}

impl IstioMetrics {
    /// Of the gateway `identity`, with the upper bounds of buckets by the name of the metric.
    ///
    /// # Errors
    /// When a name is none for Prometheus; that is a mistake of the module's.
    pub fn new(identity: Identity, bounds: impl Fn(&str) -> Vec<f64>) -> Result<Self, prometheus::Error> {
        let nowhere = Place { service: None, workload: None, principals: Principals::default() };
        let nowhere = Arc::new(Target::new(nowhere));
        let describe = |(name, help): &(&str, &str)| {
            Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), HashMap::new())
        };
        let known = HashMap::from([(nowhere.place.clone(), nowhere.clone())]);
        Ok(Self {
            identity,
            bounds: AllBounds::new(bounds),
            targets: Mutex::new(Targets { known, left: 0 }),
            nowhere,
            descriptions: names::ISTIO.iter().map(describe).collect::<Result<_, _>>()?,
        })
    }

    /// Where requests go that go nowhere.
    #[must_use]
    pub fn nowhere(&self) -> &Arc<Target> {
        &self.nowhere
    }

    /// Where requests go that get to no endpoint of the cluster.
    #[must_use]
    pub fn cluster(&self, spec: &ClusterSpec) -> Arc<Target> {
        let service = Some(Service::of(spec));
        self.target(Place { service, workload: None, principals: Principals::default() })
    }

    /// Where requests to a workload of the cluster go.
    #[must_use]
    pub fn workload(
        &self,
        spec: &ClusterSpec,
        workload: &Arc<Workload>,
        principals: Principals,
    ) -> Arc<Target> {
        let (service, workload) = (Some(Service::of(spec)), Some(workload.clone()));
        self.target(Place { service, workload, principals })
    }

    fn target(&self, place: Place) -> Arc<Target> {
        let mut targets = self.targets();
        if let Some(known) = targets.known.get(&place) {
            return known.clone();
        }
        if targets.known.len() >= targets.left * 2 + SLACK {
            targets.sweep();
        }
        let target = Arc::new(Target::new(place.clone()));
        targets.known.insert(place, target.clone());
        target
    }

    /// How often counters of connections that are not HTTP are told of.
    #[must_use]
    pub fn reporting_interval(&self) -> Duration {
        REPORTING_INTERVAL
    }

    /// Counts a connection that is not HTTP, when its labels are known.
    pub fn tcp_opened(&self, target: &Target, flags: Flags) {
        target.tcp(flags).opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that clients sent and got on such a connection since the last time.
    pub fn tcp_moved(&self, target: &Target, flags: Flags, received: u64, sent: u64) {
        let series = target.tcp(flags);
        series.received.fetch_add(received, Ordering::Relaxed);
        series.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// Counts the end of such a connection.
    pub fn tcp_closed(&self, target: &Target, flags: Flags) {
        target.tcp(flags).closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one finished request.
    pub fn record(&self, target: &Target, sample: &Sample) {
        let outcome = Outcome::new(sample.protocol, sample.code, sample.grpc_status, sample.flags);
        // Envoy counts whole milliseconds.
        let millis = u64::try_from(sample.duration.as_millis()).unwrap_or(u64::MAX);
        target.observe(&self.bounds, outcome, (millis, sample.request_bytes, sample.response_bytes));
    }

    /// Sums of requests, for who watches: by service, the count of each status and the cumulative counts of durations.
    #[must_use]
    pub fn services(&self) -> BTreeMap<String, ServiceCounts> {
        let mut services: BTreeMap<String, ServiceCounts> = BTreeMap::new();
        for target in self.all() {
            for series in target.series() {
                let host = target.place.service.as_ref().map_or("unknown", |service| &*service.host);
                if !services.contains_key(host) {
                    let buckets = vec![0; self.bounds.duration.buckets()];
                    services.insert(host.to_owned(), ServiceCounts { codes: BTreeMap::new(), buckets });
                }
                let Some(counts) = services.get_mut(host) else { continue };
                *counts.codes.entry(series.outcome.code()).or_default() += series.duration.count();
                series.duration.add_cumulative(&mut counts.buckets);
            }
        }
        services
    }

    /// Upper bounds of the buckets of durations, in milliseconds.
    #[must_use]
    pub fn duration_bounds(&self) -> &[f64] {
        self.bounds.duration.upper()
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Target>> {
        self.targets().known.values().cloned().collect()
    }

    fn families(&self) -> Vec<MetricFamily> {
        let labels = Labels::of(&self.identity);
        let mut families = Families::default();
        let targets = self.all();
        for target in &targets {
            for series in target.series() {
                let pairs = labels.pairs(&target.place, &Told::Requests(series.outcome));
                families.count(names::REQUESTS, &pairs, series.duration.count());
                for (name, histogram, bounds) in [
                    (names::REQUEST_DURATION, &series.duration, &self.bounds.duration),
                    (names::REQUEST_BYTES, &series.request_bytes, &self.bounds.request_bytes),
                    (names::RESPONSE_BYTES, &series.response_bytes, &self.bounds.response_bytes),
                ] {
                    let mut sums = histogram::Sums::default();
                    histogram.add_to(&mut sums);
                    let mut metric = Metric::default();
                    metric.set_histogram(sums.to_proto(bounds));
                    families.push((name, MetricType::HISTOGRAM), &pairs, metric);
                }
            }
            for (flags, series) in target.all_tcp() {
                let pairs = labels.pairs(&target.place, &Told::Connections(flags));
                for (name, counter) in connections(&series) {
                    families.count(name, &pairs, counter.load(Ordering::Relaxed));
                }
            }
            if let Some((requests, responses)) = target.messages() {
                let pairs = labels.pairs(&target.place, &Told::Messages);
                families.count(names::REQUEST_MESSAGES, &pairs, requests);
                families.count(names::RESPONSE_MESSAGES, &pairs, responses);
            }
        }
        drop(targets);
        // What nothing holds any more has been told now.
        self.targets().sweep();
        families.finish()
    }
}

/// What a registry reads.
pub(super) struct Read(pub(super) Arc<IstioMetrics>);

impl Collector for Read {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.families()
    }
}

fn connections(series: &TcpSeries) -> [(&'static str, &AtomicU64); 4] {
    [
        (names::TCP_OPENED, &series.opened),
        (names::TCP_CLOSED, &series.closed),
        (names::TCP_SENT, &series.sent),
        (names::TCP_RECEIVED, &series.received),
    ]
}

/// Requests of one service.
#[derive(Debug)]
pub struct ServiceCounts {
    /// Requests by status.
    pub codes: BTreeMap<u16, u64>,
    /// Durations: for each bucket how many requests took so long or less; all of them last.
    pub buckets: Vec<u64>,
}

/// Metrics by name, as they are gathered.
#[derive(Default)]
struct Families(BTreeMap<&'static str, (MetricType, Vec<Metric>)>);

impl Families {
    fn count(&mut self, name: &'static str, labels: &[LabelPair], value: u64) {
        let mut counter = Counter::default();
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
        counter.set_value(value as f64);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        self.push((name, MetricType::COUNTER), labels, metric);
    }

    fn push(&mut self, (name, kind): (&'static str, MetricType), labels: &[LabelPair], mut metric: Metric) {
        metric.set_label(labels.to_vec());
        self.0.entry(name).or_insert_with(|| (kind, Vec::new())).1.push(metric);
    }

    fn finish(self) -> Vec<MetricFamily> {
        let family = |(name, (kind, metrics)): (&'static str, (MetricType, Vec<Metric>))| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            let help = names::ISTIO.iter().find(|(known, _)| *known == name).map_or("", |(_, help)| help);
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(metrics);
            family
        };
        self.0.into_iter().map(family).collect()
    }
}

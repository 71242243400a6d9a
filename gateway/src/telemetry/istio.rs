//! Istio's metrics: requests, connections and messages of gRPC, by where they went.
//!
//! Invariant: the request path formats no label and hashes no text; labels are made when metrics are read. A target lives as long as
//! something of the configuration or a request holds it, and is told once more after that.

mod histogram;
mod labels;
mod read;
mod rules;
mod series;
mod target;

pub use rules::{Change, Expressions, Rule, Rules, Values};
pub use series::RequestProtocol;
pub use target::{Principals, Target};

use super::{flags::Flags, identity::Identity};
use arc_swap::ArcSwap;
use labels::Labels;
use read::Told;
use routing::cluster::{ClusterSpec, Workload};
use series::{AllBounds, Outcome};
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

/// How often counters of connections that are not HTTP are told of where nothing is said (Istio: `tcp_reporting_duration`).
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

impl Sample {
    fn outcome(&self) -> Outcome {
        Outcome::new(self.protocol, self.code, self.grpc_status, self.flags)
    }

    /// Envoy counts whole milliseconds.
    fn numbers(&self) -> (u64, u64, u64) {
        (millis(self.duration), self.request_bytes, self.response_bytes)
    }
}

/// All of Istio's metrics.
pub struct IstioMetrics {
    identity: Identity,
    bounds: AllBounds,
    targets: Mutex<Targets>,
    nowhere: Arc<Target>,
    in_force: ArcSwap<InForce>,
    /// How many sets of expressions there were.
    made: AtomicU64,
    /// Milliseconds.
    interval: AtomicU64,
}

/// What the configuration says.
#[derive(Default)]
struct InForce {
    rules: Rules,
    expressions: Option<Arc<Expressions>>,
}

#[derive(Default)]
struct Targets {
    known: HashMap<Place, Arc<Target>>,
    left: usize,
    /// What was told together with others of targets that are forgotten: without it sums would fall.
    departed: Told,
}

impl Targets {
    /// Forgets targets that nothing else holds.
    fn sweep(&mut self, labels: &Labels<'_>, rules: &Rules) {
        let departed = &mut self.departed;
        self.known.retain(|_, target| {
            let held = Arc::strong_count(target) > 1;
            if !held && rules.merge() {
                departed.depart(target, labels, rules);
            }
            held
        });
        self.left = self.known.len();
    }
}

impl IstioMetrics {
    /// Of the gateway `identity`, with the upper bounds of buckets by the name of the metric.
    pub fn new(identity: Identity, bounds: impl Fn(&str) -> Vec<f64>) -> Self {
        let nowhere =
            Place { service: None, workload: None, principals: Principals::default(), inbound: false };
        let nowhere = Arc::new(Target::new(nowhere));
        let known = HashMap::from([(nowhere.place.clone(), nowhere.clone())]);
        Self {
            identity,
            bounds: AllBounds::new(bounds),
            targets: Mutex::new(Targets { known, ..Targets::default() }),
            nowhere,
            in_force: ArcSwap::default(),
            made: AtomicU64::new(0),
            interval: AtomicU64::new(millis(REPORTING_INTERVAL)),
        }
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
        let inbound = spec.name.is_inbound();
        self.target(Place { service, workload: None, principals: Principals::default(), inbound })
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
        self.target(Place { service, workload, principals, inbound: spec.name.is_inbound() })
    }

    fn target(&self, place: Place) -> Arc<Target> {
        let mut targets = self.targets();
        if let Some(known) = targets.known.get(&place) {
            return known.clone();
        }
        if targets.known.len() >= targets.left * 2 + SLACK {
            targets.sweep(&Labels::of(&self.identity), &self.in_force.load().rules);
        }
        let target = Arc::new(Target::new(place.clone()));
        targets.known.insert(place, target.clone());
        target
    }

    /// Puts in force what is told, with the time between two updates of counters of connections; what is to be evaluated of requests,
    /// if anything. Other labels than before begin anew.
    pub fn set(&self, rules: Rules, interval: Duration) -> Option<Arc<Expressions>> {
        self.interval.store(millis(interval), Ordering::Relaxed);
        // One at a time.
        let mut targets = self.targets();
        let before = self.in_force.load_full();
        if before.rules == rules {
            return before.expressions.clone();
        }
        let same = before.rules.has_labels_of(&rules);
        let expressions = match before.expressions.as_ref() {
            Some(known) if same => Some(known.clone()),
            _ if rules.expressions.is_empty() => None,
            _ => {
                let id = self.made.fetch_add(1, Ordering::Relaxed);
                Some(Arc::new(Expressions { id, all: rules.expressions.clone() }))
            }
        };
        self.in_force.store(Arc::new(InForce { rules, expressions: expressions.clone() }));
        if !same {
            targets.departed = Told::default();
            targets.known.values().for_each(|target| target.reset());
        }
        expressions
    }

    /// How often counters of connections that are not HTTP are told of.
    #[must_use]
    pub fn reporting_interval(&self) -> Duration {
        Duration::from_millis(self.interval.load(Ordering::Relaxed).max(1))
    }

    /// Counts a connection that is not HTTP, when its labels are known.
    pub fn tcp_opened(&self, target: &Target, flags: Flags, values: Option<&Values>) {
        target.tcp(flags, self.current(values)).opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that clients sent and got on such a connection since the last time.
    pub fn tcp_moved(
        &self,
        target: &Target,
        flags: Flags,
        values: Option<&Values>,
        (received, sent): (u64, u64),
    ) {
        let series = target.tcp(flags, self.current(values));
        series.received.fetch_add(received, Ordering::Relaxed);
        series.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// Counts the end of such a connection.
    pub fn tcp_closed(&self, target: &Target, flags: Flags, values: Option<&Values>) {
        target.tcp(flags, self.current(values)).closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one finished request.
    pub fn record(&self, target: &Target, sample: &Sample) {
        target.observe(&self.bounds, sample.outcome(), sample.numbers());
    }

    /// Counts one finished request, with labels that are made of it.
    pub fn record_with(&self, target: &Target, sample: &Sample, values: Values) {
        match self.current(Some(&values)) {
            Some(_) => target.observe_made(&self.bounds, sample.outcome(), values, sample.numbers()),
            None => self.record(target, sample),
        }
    }

    /// Values of the expressions in force; those of a configuration before are told as not known.
    fn current(&self, values: Option<&Values>) -> Option<Values> {
        let values = values?;
        let in_force = self.in_force.load();
        (in_force.expressions.as_ref()?.id == values.id).then(|| values.clone())
    }

    /// Sums of requests, for who watches: by service, the count of each status and the cumulative counts of durations.
    #[must_use]
    pub fn services(&self) -> BTreeMap<String, ServiceCounts> {
        let mut services: BTreeMap<String, ServiceCounts> = BTreeMap::new();
        for target in self.all() {
            let made = target.all_made().into_iter().map(|(_, series)| series);
            for series in target.series().into_iter().chain(made) {
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

    /// The bucket of a duration.
    #[must_use]
    pub fn duration_bucket(&self, duration: Duration) -> usize {
        self.bounds.duration.place(millis(duration))
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

    /// Writes all of them in Prometheus' text format.
    pub(super) fn write(&self, out: &mut String) {
        let labels = Labels::of(&self.identity);
        let in_force = self.in_force.load_full();
        let rules = &in_force.rules;
        let targets = self.all();
        let mut told = Told::default();
        for target in &targets {
            told.add(target, &labels, rules);
        }
        // What nothing holds any more has been told now. Nothing of it departs before what departed is added.
        let mut known = self.targets();
        told.add_departed(&mut known.departed);
        drop(targets);
        known.sweep(&labels, rules);
        drop(known);
        told.write(&self.bounds, out);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Requests of one service.
#[derive(Debug)]
pub struct ServiceCounts {
    /// Requests by status.
    pub codes: BTreeMap<u16, u64>,
    /// Durations: for each bucket how many requests took so long or less; all of them last.
    pub buckets: Vec<u64>,
}

//! Where requests go, in the words of Istio's labels, and what is counted of those that went there.
//!
//! Invariant: the number of series is bounded by the configuration: beyond so many outcomes of one target, further ones are counted
//! by the class of their status. Looking a series up takes no lock; making one, once, does.

use super::{
    rules::Values,
    series::{AllBounds, Messages, Outcome, Series, TcpSeries},
};
use crate::telemetry::flags::Flags;
use arc_swap::ArcSwap;
use routing::cluster::{ClusterSpec, Workload};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
};

/// Outcomes that are found without hashing: the first that a target has.
const FIRST: usize = 4;
/// Outcomes of one target that are told apart.
const MOST_OUTCOMES: usize = 256;
/// Series of one target whose labels the configuration makes of requests; what is beyond is told with labels that are not known.
const MOST_MADE: usize = 1024;

/// Names in certificates of the connection to an upstream, as far as it verified them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Principals {
    /// Of the gateway's own certificate.
    pub source: Option<Arc<str>>,
    /// Of the upstream's.
    pub destination: Option<Arc<str>>,
}

/// What tells targets apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) service: Option<Service>,
    /// `None`: no endpoint was chosen.
    pub(super) workload: Option<Arc<Workload>>,
    pub(super) principals: Principals,
    /// It is the workload beside this sidecar, which tells of what came to it (Istio: `reporter=destination`).
    pub(super) inbound: bool,
}

/// A service, by host, name and namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Service {
    pub(super) host: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) namespace: Arc<str>,
}

impl Service {
    pub(super) fn of(spec: &ClusterSpec) -> Self {
        Self { host: spec.host.clone(), name: spec.service.clone(), namespace: spec.namespace.clone() }
    }
}

/// Where requests go. Two with the same labels are the same object.
#[derive(Debug)]
pub struct Target {
    pub(super) place: Place,
    first: [OnceLock<Arc<Series>>; FIRST],
    more: ArcSwap<Outcomes>,
    making: Mutex<()>,
    made: ArcSwap<Made>,
    tcp: Mutex<BTreeMap<Connections, Arc<TcpSeries>>>,
    messages: Messages,
}

/// What tells connections of one target apart.
type Connections = (Flags, Option<Values>);
/// Series with labels that are made of requests.
type Made = HashMap<Values, BTreeMap<Outcome, Arc<Series>>>;
type Outcomes = HashMap<Outcome, Arc<Series>, foldhash::fast::RandomState>;

impl Target {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            first: std::array::from_fn(|_| OnceLock::new()),
            more: ArcSwap::from_pointee(Outcomes::default()),
            making: Mutex::new(()),
            made: ArcSwap::from_pointee(Made::default()),
            tcp: Mutex::new(BTreeMap::new()),
            messages: Messages::default(),
        }
    }

    /// Whether it is for connections whose ends have these names.
    #[must_use]
    pub fn has(&self, principals: &Principals) -> bool {
        self.place.principals == *principals
    }

    /// Whether it is for the service that the cluster is of.
    #[must_use]
    pub fn is_of(&self, spec: &ClusterSpec) -> bool {
        self.place.service.as_ref().is_some_and(|service| {
            (&service.host, &service.name, &service.namespace) == (&spec.host, &spec.service, &spec.namespace)
        })
    }

    /// Counts one request.
    pub(super) fn observe(&self, bounds: &AllBounds, outcome: Outcome, numbers: (u64, u64, u64)) {
        for slot in &self.first {
            match slot.get() {
                Some(series) if series.outcome == outcome => return series.observe(bounds, numbers),
                Some(_) => {}
                None => return self.make(bounds, outcome).observe(bounds, numbers),
            }
        }
        let more = self.more.load();
        let class = || (more.len() >= MOST_OUTCOMES).then(|| more.get(&outcome.class())).flatten();
        match more.get(&outcome).or_else(class) {
            Some(series) => series.observe(bounds, numbers),
            None => self.make(bounds, outcome).observe(bounds, numbers),
        }
    }

    /// Counts one request with labels that are made of it.
    pub(super) fn observe_made(
        &self,
        bounds: &AllBounds,
        outcome: Outcome,
        values: Values,
        numbers: (u64, u64, u64),
    ) {
        if let Some(series) = self.made.load().get(&values).and_then(|outcomes| outcomes.get(&outcome)) {
            return series.observe(bounds, numbers);
        }
        let one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.made.load_full();
        if known.values().map(BTreeMap::len).sum::<usize>() >= MOST_MADE
            && known.get(&values).is_none_or(|outcomes| !outcomes.contains_key(&outcome))
        {
            drop(one_at_a_time);
            return self.observe(bounds, outcome, numbers);
        }
        let mut next = (*known).clone();
        let outcomes = next.entry(values).or_default();
        let series =
            outcomes.entry(outcome).or_insert_with(|| Arc::new(Series::new(outcome, bounds))).clone();
        self.made.store(Arc::new(next));
        series.observe(bounds, numbers);
    }

    /// Every series with labels that are made of requests.
    pub(super) fn all_made(&self) -> Vec<(Values, Arc<Series>)> {
        let made = self.made.load();
        let mut all: Vec<_> = made
            .iter()
            .flat_map(|(values, outcomes)| outcomes.values().map(|series| (values.clone(), series.clone())))
            .collect();
        all.sort_by(|(a, one), (b, other)| (a, one.outcome).cmp(&(b, other.outcome)));
        all
    }

    /// Begins anew: what is told from now on has other labels.
    pub(super) fn reset(&self) {
        self.series().iter().for_each(|series| series.reset());
        self.made.store(Arc::default());
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.messages.reset();
    }

    #[cold]
    fn make(&self, bounds: &AllBounds, outcome: Outcome) -> Arc<Series> {
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.more.load_full();
        let outcome = if known.len() >= MOST_OUTCOMES { outcome.class() } else { outcome };
        for slot in &self.first {
            let series = slot.get_or_init(|| Arc::new(Series::new(outcome, bounds)));
            if series.outcome == outcome {
                return series.clone();
            }
        }
        if let Some(series) = known.get(&outcome) {
            return series.clone();
        }
        // Copied whole: this happens once a series, and readers must never wait for it.
        let mut next = (*known).clone();
        let series = next.entry(outcome).or_insert_with(|| Arc::new(Series::new(outcome, bounds))).clone();
        self.more.store(Arc::new(next));
        series
    }

    /// Every outcome there was.
    pub(super) fn series(&self) -> Vec<Arc<Series>> {
        let more = self.more.load();
        let mut rest: Vec<_> = more.values().cloned().collect();
        rest.sort_by_key(|series| series.outcome);
        self.first.iter().filter_map(OnceLock::get).cloned().chain(rest).collect()
    }

    /// The counters of connections with these flags, and labels that are made of them.
    pub(super) fn tcp(&self, flags: Flags, values: Option<Values>) -> Arc<TcpSeries> {
        let mut tcp = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        let values = values.filter(|_| tcp.len() < MOST_MADE);
        tcp.entry((flags, values)).or_default().clone()
    }

    /// The counters of connections, by flags and made labels.
    pub(super) fn all_tcp(&self) -> Vec<(Connections, Arc<TcpSeries>)> {
        let tcp = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        tcp.iter().map(|(key, series)| (key.clone(), series.clone())).collect()
    }

    /// Notes that there was a gRPC call, so that its messages are shown though there be none.
    pub fn grpc_called(&self) {
        self.messages.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts messages of a gRPC call that the client sent.
    pub fn request_messages(&self, count: u32) {
        self.messages.requests.fetch_add(u64::from(count), Ordering::Relaxed);
    }

    /// Counts messages of a gRPC call that the client got.
    pub fn response_messages(&self, count: u32) {
        self.messages.responses.fetch_add(u64::from(count), Ordering::Relaxed);
    }

    /// Messages of gRPC calls: sent by clients, and got; `None` where there never was a call.
    pub(super) fn messages(&self) -> Option<(u64, u64)> {
        self.messages.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{istio::series::RequestProtocol, names};

    fn bounds() -> AllBounds {
        AllBounds::new(|_| names::BUCKETS.to_vec())
    }

    fn target() -> Target {
        Target::new(Place {
            service: None,
            workload: None,
            principals: Principals::default(),
            inbound: false,
        })
    }

    #[test]
    fn every_outcome_has_its_own_series() {
        let (target, bounds) = (target(), bounds());
        for _ in 0..3 {
            for code in 200..210 {
                let outcome = Outcome::new(RequestProtocol::Http, code, None, Flags::default());
                target.observe(&bounds, outcome, (1, 2, 3));
            }
        }
        let series = target.series();
        assert_eq!(series.len(), 10);
        assert!(series.iter().all(|series| series.duration.count() == 3));
    }

    #[test]
    fn an_upstream_that_answers_with_every_status_makes_no_series_without_end() {
        let (target, bounds) = (target(), bounds());
        let mut requests = 0;
        for code in 100..1000 {
            for status in 0..20 {
                let outcome = Outcome::new(RequestProtocol::Grpc, code, Some(status), Flags::default());
                target.observe(&bounds, outcome, (1, 2, 3));
                requests += 1;
            }
        }
        let series = target.series();
        assert!(series.len() <= FIRST + MOST_OUTCOMES + 10, "{}", series.len());
        assert_eq!(
            series.iter().map(|series| series.duration.count()).sum::<u64>(),
            requests,
            "none is lost"
        );
    }
}

//! Endpoints as they can be dialled, and what is remembered of each address.
//!
//! Invariant: a counter goes up once per attempt and down once, by the drop of its guard; what is remembered follows the
//! address over reloads, and what is counted of a workload follows the workload. A view is immutable: a change makes a new one.

use super::{cluster::Cluster, outlier::Record};
use crate::telemetry::istio::{IstioMetrics, Principals, Target};
use arc_swap::ArcSwapOption;
use routing::{
    balance::{EndpointSet, LoadView},
    cluster::{Address, ClusterSpec, Endpoint, Workload},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};
use tokio::time::Instant;

/// What is remembered of one address in one cluster; outlives every view that lists it.
#[derive(Debug)]
pub struct EndpointLoad {
    in_flight: AtomicU32,
    attempts: AtomicU64,
    failures: AtomicU64,
    pub(super) record: Record,
    /// When the address was first seen: slow start counts from here.
    pub(super) since: Instant,
}

impl Default for EndpointLoad {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::default(),
            attempts: AtomicU64::default(),
            failures: AtomicU64::default(),
            record: Record::default(),
            since: Instant::now(),
        }
    }
}

/// One endpoint that can be dialled: its address is never a name.
#[derive(Debug)]
pub struct EndpointState {
    /// As compiled, with the address resolved.
    pub endpoint: Endpoint,
    pub(super) load: Arc<EndpointLoad>,
    counted: Counted,
}

/// Where requests to an endpoint are counted, once there was one.
#[derive(Debug, Default)]
struct Counted {
    plain: OnceLock<Arc<Target>>,
    /// Over TLS, with the names of both ends.
    secured: ArcSwapOption<Target>,
}

impl Counted {
    /// Whether something was counted, for the service that the cluster is of now.
    fn is_of(&self, spec: &ClusterSpec) -> bool {
        let secured = self.secured.load();
        self.plain.get().or(secured.as_ref()).is_some_and(|target| target.is_of(spec))
    }

    /// The same, for another endpoint of the workload.
    fn again(&self) -> Self {
        let plain = self.plain.get().cloned().map_or_else(OnceLock::new, OnceLock::from);
        Self { plain, secured: ArcSwapOption::new(self.secured.load_full()) }
    }
}

impl EndpointState {
    /// An endpoint of which nothing is remembered.
    #[must_use]
    pub fn alone(endpoint: Endpoint) -> Self {
        Self { endpoint, load: Arc::default(), counted: Counted::default() }
    }

    /// Another endpoint of which nothing is remembered, counted where this one is.
    pub(super) fn elsewhere(&self, endpoint: Endpoint) -> Self {
        Self { endpoint, load: Arc::default(), counted: self.counted.again() }
    }

    /// Where requests to this endpoint are counted.
    pub fn target(&self, spec: &ClusterSpec, metrics: &IstioMetrics) -> &Arc<Target> {
        let make = || metrics.workload(spec, &self.endpoint.identity, Principals::default());
        self.counted.plain.get_or_init(make)
    }

    /// Where requests to this endpoint are counted on a connection whose ends have these names.
    pub fn secured_target(
        &self,
        spec: &ClusterSpec,
        principals: &Principals,
        metrics: &IstioMetrics,
    ) -> Arc<Target> {
        let known = self.counted.secured.load();
        if let Some(target) = known.as_ref().filter(|target| target.has(principals)) {
            return target.clone();
        }
        let target = metrics.workload(spec, &self.endpoint.identity, principals.clone());
        self.counted.secured.store(Some(target.clone()));
        target
    }

    /// Requests that this endpoint is working on now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight.load(Ordering::Relaxed)
    }

    /// Attempts ever sent to this address.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.load.attempts.load(Ordering::Relaxed)
    }

    /// Attempts that ended without an answer.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.load.failures.load(Ordering::Relaxed)
    }

    /// What outlier detection knows of this address.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.load.record
    }

    /// Counts one attempt until the guard is dropped; what becomes of it goes to the cluster's outlier detection.
    #[must_use = "the attempt is counted only while the guard lives"]
    pub fn begin(&self, cluster: &Arc<Cluster>) -> InFlight {
        self.load.in_flight.fetch_add(1, Ordering::Relaxed);
        self.load.attempts.fetch_add(1, Ordering::Relaxed);
        InFlight { load: self.load.clone(), watched: cluster.spec.outlier.is_some().then(|| cluster.clone()) }
    }
}

/// Why an attempt ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The connection could not be made, or broke.
    Connection,
    /// Nothing came in time.
    Timeout,
    /// It was not the endpoint's doing: a limit of ours, or the client left.
    Ours,
}

/// One attempt under way; its drop ends the count.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<EndpointLoad>,
    /// The cluster, where it does outlier detection.
    watched: Option<Arc<Cluster>>,
}

impl InFlight {
    /// Notes that the attempt ended without an answer.
    pub fn failed(&self, why: NoAnswer) {
        if why == NoAnswer::Ours {
            return;
        }
        self.load.failures.fetch_add(1, Ordering::Relaxed);
        if let Some(cluster) = &self.watched {
            cluster.observe_failure(&self.load, why);
        }
    }

    /// Notes the status that the endpoint answered; a gRPC status counts as the HTTP status it stands for.
    pub fn answered(&self, status: u16) {
        if let Some(cluster) = &self.watched {
            cluster.observe_status(&self.load, status);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All endpoints of a cluster at one moment, in a fixed order.
#[derive(Debug)]
pub struct EndpointView {
    /// Every endpoint, unhealthy ones included.
    pub all: Box<[Arc<EndpointState>]>,
    pickable: EndpointSet,
}

impl LoadView for EndpointView {
    fn active(&self, index: usize) -> u32 {
        self.all.get(index).map_or(0, |endpoint| endpoint.in_flight())
    }
}

impl Default for EndpointView {
    fn default() -> Self {
        Self { all: Box::default(), pickable: EndpointSet::new(&[]) }
    }
}

impl EndpointView {
    /// A view of `endpoints` of the cluster `spec` that keeps what is remembered of addresses that were in `previous`.
    #[must_use]
    pub(super) fn succeed(
        spec: &ClusterSpec,
        previous: &Self,
        endpoints: Vec<Endpoint>,
        prepare: impl FnOnce(&[Endpoint], &[Arc<EndpointState>]) -> EndpointSet,
    ) -> Self {
        let known: HashMap<&Address, &Arc<EndpointLoad>> =
            previous.all.iter().map(|e| (&e.endpoint.address, &e.load)).collect();
        let counted: HashMap<&Arc<Workload>, &Counted> = previous
            .all
            .iter()
            .filter(|e| e.counted.is_of(spec))
            .map(|e| (&e.endpoint.identity, &e.counted))
            .collect();
        let all: Box<[_]> = endpoints
            .iter()
            .map(|endpoint| {
                let load = known.get(&endpoint.address).map(|l| Arc::clone(l)).unwrap_or_default();
                let counted =
                    counted.get(&endpoint.identity).map(|counted| counted.again()).unwrap_or_default();
                Arc::new(EndpointState { endpoint: endpoint.clone(), load, counted })
            })
            .collect();
        let pickable = prepare(&endpoints, &all);
        Self { all, pickable }
    }

    /// The same endpoints, prepared anew.
    pub(super) fn again(
        &self,
        prepare: impl FnOnce(&[Endpoint], &[Arc<EndpointState>]) -> EndpointSet,
    ) -> Self {
        let endpoints: Vec<Endpoint> = self.all.iter().map(|state| state.endpoint.clone()).collect();
        Self { all: self.all.clone(), pickable: prepare(&endpoints, &self.all) }
    }

    /// Those that may be picked, by index in `all`.
    #[must_use]
    pub fn pickable(&self) -> &EndpointSet {
        &self.pickable
    }

    /// How many may be picked.
    #[must_use]
    pub fn healthy(&self) -> usize {
        self.pickable.fit()
    }
}

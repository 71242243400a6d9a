//! One cluster at run time: its specification, its endpoints now, and what is prepared once for all its requests.
//!
//! Invariant: the specification never changes; a new one is a new cluster, which takes over the counters of addresses
//! that stay. A pick takes no lock and allocates nothing. Trust that cannot be loaded refuses every connection: it never
//! weakens.

use super::{
    connections::Connections,
    dns,
    dynamic::DynamicNames,
    endpoint::{EndpointState, EndpointView},
    limits::{Admission, Admitted, Counted, Counters, Limit},
    trust::{Loaded, Refusal},
};
use crate::{
    telemetry::istio::{IstioMetrics, Target},
    tls::{Sources, Trust},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::fast::FixedState;
use futures::FutureExt as _;
use routing::{
    balance::{self, EndpointSet, Fitness, Turn, configured},
    cluster::{Address, ClusterSpec, Discovery, Endpoint, LbPolicy, Pool, RetryLimit, UpstreamProtocol},
    host::without_port,
};
use std::{
    collections::HashMap,
    hash::BuildHasher,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::{sync::Notify, time::Instant};

/// Picks that a retry makes to find an endpoint it has not tried (Istio: `hostSelectionRetryMaxAttempts`).
const HOST_SELECTION_ATTEMPTS: u32 = 5;

/// A cluster that requests are sent to.
#[derive(Debug)]
pub struct Cluster {
    /// What it is; comparing it tells whether a reload changed it.
    pub spec: Arc<ClusterSpec>,
    pub(super) trust: Option<ArcSwap<Loaded>>,
    pool_key: u64,
    /// What is under way, for its limits.
    pub counters: Arc<Counters>,
    /// Its connections, where something limits them.
    pub connections: Arc<Connections>,
    pub(super) refusal: ArcSwapOption<Refusal>,
    /// The names that requests asked for, where any name of a domain may be.
    dynamic: OnceLock<Arc<DynamicNames>>,
    /// Where the last redirected connection was going.
    original: ArcSwapOption<EndpointState>,
    limited: bool,
    declared: ArcSwap<Declared>,
    view: ArcSwap<EndpointView>,
    changing: Mutex<()>,
    cursor: AtomicU64,
    changed: Arc<Notify>,
    settled: AtomicBool,
    settling: Notify,
    /// Where requests are counted that get to no endpoint.
    counted: OnceLock<Arc<Target>>,
}

/// Proof that nobody else changes the view.
pub(super) struct Changing<'c>(#[expect(dead_code, reason = "held, not read")] MutexGuard<'c, ()>);

#[derive(Debug)]
struct Declared(Arc<[Endpoint]>);

impl Cluster {
    /// A cluster with the endpoints that need no resolution in place; `previous` lends the counters of its addresses.
    #[must_use]
    pub fn new(
        spec: Arc<ClusterSpec>,
        declared: Arc<[Endpoint]>,
        previous: Option<&Self>,
        sources: &Sources<'_>,
    ) -> Self {
        let trust = Loaded::first(&spec, sources);
        let pool_key = FixedState::with_seed(0).hash_one((&spec.name, spec.protocol, &spec.tls));
        let empty = EndpointView::default();
        let before = previous.map(Self::endpoints);
        let counted = previous.and_then(|p| p.counted.get()).filter(|target| target.is_of(&spec)).cloned();
        let mut endpoints = dns::expand(spec.discovery, &declared, &HashMap::new());
        let settled = !dns::needs_resolution(spec.discovery, &declared);
        if !settled
            && endpoints.is_empty()
            && let Some(before) = &before
            && previous.is_some_and(|p| p.spec.host == spec.host && p.spec.port == spec.port)
        {
            // Until the first answer, what the same names resolved to a moment ago is the best that is known.
            endpoints = before.all.iter().map(|e| Endpoint::clone(&e.endpoint)).collect();
        }
        let view = EndpointView::succeed(
            &spec,
            before.as_deref().unwrap_or(&empty),
            endpoints,
            |endpoints, states| prepare(&spec, endpoints, states),
        );
        let pool = &spec.pool;
        let limited = pool.max_connections.is_some()
            || pool.max_requests.is_some()
            || matches!(pool.retries, RetryLimit::Budget { .. });
        Self {
            limited,
            counted: counted.map_or_else(OnceLock::new, OnceLock::from),
            connections: previous.map(|p| p.connections.clone()).unwrap_or_default(),
            refusal: ArcSwapOption::empty(),
            original: ArcSwapOption::empty(),
            dynamic: previous
                .and_then(|p| p.dynamic.get().cloned())
                .map_or_else(OnceLock::new, OnceLock::from),
            counters: previous.map(|p| p.counters.clone()).unwrap_or_default(),
            spec,
            trust,
            pool_key,
            declared: ArcSwap::from_pointee(Declared(declared)),
            view: ArcSwap::from_pointee(view),
            changing: Mutex::new(()),
            cursor: AtomicU64::new(0),
            changed: Arc::new(Notify::new()),
            settled: AtomicBool::new(settled),
            settling: Notify::new(),
        }
    }

    /// Identity for the connection pool: connections are never shared between clusters, or certificates, that differ
    /// in it.
    #[must_use]
    pub fn pool_key(&self, trust: Option<&Trust>) -> u64 {
        let own = self.pool_key ^ self.connections.epoch().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        match trust {
            Some(Trust::Usable(material)) => own ^ material.digest.rotate_left(17),
            Some(Trust::Unavailable(_)) | None => own,
        }
    }

    /// Where requests are counted that get to no endpoint of it.
    pub fn target(&self, metrics: &IstioMetrics) -> &Arc<Target> {
        self.counted.get_or_init(|| metrics.cluster(&self.spec))
    }

    /// The endpoints now.
    #[must_use]
    pub fn endpoints(&self) -> Arc<EndpointView> {
        self.view.load_full()
    }

    /// An endpoint by the cluster's policy; `None` when none may be picked.
    ///
    /// `hash` is that of the request's key, where the policy hashes. `tried` lists addresses of earlier attempts: another
    /// one is preferred (Istio: retries avoid previous hosts).
    #[must_use]
    pub fn pick(
        &self,
        mut entropy: impl FnMut() -> u64,
        hash: Option<u64>,
        tried: &[Address],
    ) -> Option<Arc<EndpointState>> {
        let view = self.view.load();
        let mut picked = None;
        for attempt in 0..HOST_SELECTION_ATTEMPTS {
            let cursor = match self.spec.lb {
                LbPolicy::RoundRobin => self.cursor.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
            let turn = Turn { cursor, hash, attempt };
            let index = balance::pick(self.spec.lb, view.pickable(), &**view, &mut entropy, turn)?;
            picked = view.all.get(index);
            if tried.is_empty() || picked.is_none_or(|e| !tried.contains(&e.endpoint.address)) {
                break;
            }
        }
        picked.cloned()
    }

    /// Lets requests name their endpoints, where the cluster is one for a whole domain.
    pub(super) fn resolve_with(&self, names: impl FnOnce() -> DynamicNames) {
        if self.spec.discovery == Discovery::DynamicDns {
            self.dynamic.get_or_init(|| Arc::new(names()));
        }
    }

    /// The endpoint that a request names; `None` where the name is not one of the cluster's domain, or unknown.
    pub async fn named(&self, authority: &str) -> Option<Arc<EndpointState>> {
        let declared = self.declared();
        let Address::Name(pattern, port) = &declared.first()?.address else { return None };
        let (host, domain) = (without_port(authority), pattern.strip_prefix('*')?);
        let below = host.len() > domain.len()
            && host.get(host.len() - domain.len()..).is_some_and(|end| end.eq_ignore_ascii_case(domain));
        let asked = || authority.get(host.len() + 1..).and_then(|port| port.parse().ok());
        let usual = if self.spec.tls.is_some() { 443 } else { 80 };
        let port = if *port == 0 { asked().unwrap_or(usual) } else { *port };
        match self.dynamic.get().filter(|_| below) {
            Some(names) => names.endpoint(host, port).await,
            None => None,
        }
    }

    /// The endpoint where a connection was going before it was redirected to a sidecar. The last is remembered, as of the workload beside
    /// it there is but one; what is counted of others is counted of all in one place.
    #[must_use]
    pub fn original(&self, mut destination: SocketAddr) -> Option<Arc<EndpointState>> {
        let Discovery::OriginalDestination { port } = self.spec.discovery else { return None };
        if let Some(port) = port {
            destination.set_port(port);
        }
        let address = Address::Ip(destination);
        let last = self.original.load();
        if let Some(last) = last.as_ref().filter(|last| last.endpoint.address == address) {
            return Some(Arc::clone(last));
        }
        let endpoint = Endpoint::at(address);
        let state = Arc::new(match &*last {
            Some(last) => last.elsewhere(endpoint),
            None => EndpointState::alone(endpoint),
        });
        self.original.store(Some(Arc::clone(&state)));
        Some(state)
    }

    /// Whether requests have to be admitted.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// Admits one request by the cluster's limits, and waits for a connection where all that are allowed are in use.
    /// `None`: there is nothing to limit.
    pub async fn admit(&self, protocol: UpstreamProtocol) -> Admission<Option<Admitted>> {
        if !self.limited {
            return Admission::Granted(None);
        }
        match self.counters.admit(&self.spec.pool, protocol != UpstreamProtocol::Http2).await {
            Admission::Granted(admitted) => Admission::Granted(Some(admitted)),
            Admission::Overflow => Admission::Overflow,
        }
    }

    /// Admits one connection that is not HTTP; nothing waits for one (Envoy: `tcp_proxy` refuses what its pool would
    /// queue).
    pub fn admit_connection(&self) -> Admission<Option<Admitted>> {
        if self.spec.pool.max_connections.is_none() {
            return Admission::Granted(None);
        }
        match self.admit(UpstreamProtocol::Http1).now_or_never() {
            Some(Admission::Granted(admitted)) => Admission::Granted(admitted),
            Some(Admission::Overflow) | None => self.counters.overflow(Limit::Connections),
        }
    }

    /// Whether each of its connections is counted, aged, or has its requests counted.
    #[must_use]
    pub fn tracks_connections(&self) -> bool {
        let pool = &self.spec.pool;
        pool.max_connections.is_some()
            || pool.max_requests_per_connection.is_some_and(|most| most > 1)
            || pool.max_connection_duration.is_some()
    }

    /// Makes room for one more connection; `None` where there can be none. Over HTTP/1 each request that is admitted may
    /// have one, and one that is idle at another endpoint goes; over HTTP/2 requests share what there is.
    #[must_use]
    pub fn room_for_connection(&self, protocol: UpstreamProtocol) -> Option<()> {
        let Some(most) = self.spec.pool.max_connections else { return Some(()) };
        if self.counters.now(Limit::Connections) < most || self.connections.evict_idle().is_some() {
            return Some(());
        }
        if protocol != UpstreamProtocol::Http2 {
            return Some(());
        }
        match self.counters.overflow::<()>(Limit::Connections) {
            Admission::Granted(()) => Some(()),
            Admission::Overflow => None,
        }
    }

    /// Admits one retry by `maxRetries` or the retry budget; keep the guard until the retry has ended.
    pub fn admit_retry(&self) -> Admission<Option<Counted>> {
        self.counters.retry(&self.spec.pool)
    }

    /// The limits that are in force.
    #[must_use]
    pub fn limits(&self) -> &Pool {
        &self.spec.pool
    }

    /// Whether such a limit is set.
    #[must_use]
    pub fn has_limit(&self, limit: Limit) -> bool {
        let pool = &self.spec.pool;
        match limit {
            Limit::Connections => pool.max_connections.is_some(),
            Limit::Pending => pool.max_pending.is_some(),
            Limit::Requests => pool.max_requests.is_some(),
            Limit::Retries => pool.retries != RetryLimit::Unlimited,
        }
    }

    /// Whether something has to look after its endpoints from time to time.
    pub(super) fn needs_care(&self) -> bool {
        self.spec.outlier.is_some() || self.spec.warmup.is_some()
    }

    /// Whether an endpoint is still on its way to full weight.
    pub(super) fn is_warming(&self, now: Instant) -> bool {
        let Some(warmup) = &self.spec.warmup else { return false };
        // One step more than needed, so that the last one reaches the full weight.
        let full = warmup.duration.saturating_mul(11) / 10;
        self.view.load().all.iter().any(|e| now.saturating_duration_since(e.load.since) <= full)
    }

    pub(super) fn changing(&self) -> Changing<'_> {
        Changing(self.changing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Prepares the endpoints anew, after one was ejected, returned or grew older.
    pub(super) fn refresh(&self, _alone: &Changing<'_>) {
        let view = self.view.load().again(|endpoints, states| prepare(&self.spec, endpoints, states));
        self.view.store(Arc::new(view));
    }

    /// Endpoints as the configuration names them.
    #[must_use]
    pub fn declared(&self) -> Arc<[Endpoint]> {
        self.declared.load().0.clone()
    }

    /// Whether every name was asked for once, answered or not.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Resolves when every name was asked for once, answered or not.
    pub async fn settled(&self) {
        loop {
            // Told before it is looked at: what settles in between is not missed.
            let told = self.settling.notified();
            if self.is_settled() {
                return;
            }
            told.await;
        }
    }

    fn settle(&self) {
        self.settled.store(true, Ordering::Release);
        self.settling.notify_waiters();
    }

    /// Replaces the declared endpoints; names are asked for again.
    pub(super) fn declare(&self, declared: Arc<[Endpoint]>) {
        let current = self.declared();
        if current == declared {
            return;
        }
        if dns::needs_resolution(self.spec.discovery, &declared) {
            self.settled.store(false, Ordering::Release);
            self.declared.store(Arc::new(Declared(declared)));
        } else {
            let endpoints = dns::expand(self.spec.discovery, &declared, &HashMap::new());
            self.declared.store(Arc::new(Declared(declared)));
            self.replace(endpoints);
        }
        self.changed.notify_one();
    }

    pub(super) fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// Takes the answers to the names in `declared`; answers to an older list only settle nothing.
    pub(super) fn resolved(&self, declared: &Arc<[Endpoint]>, known: &HashMap<Arc<str>, Vec<IpAddr>>) {
        if !Arc::ptr_eq(declared, &self.declared()) {
            self.changed.notify_one();
            return;
        }
        let endpoints = dns::expand(self.spec.discovery, declared, known);
        // No answer at all keeps what a predecessor resolved.
        if !endpoints.is_empty() || !known.is_empty() {
            self.replace(endpoints);
        }
        self.settle();
    }

    fn replace(&self, endpoints: Vec<Endpoint>) {
        let _alone = self.changing();
        let current = self.view.load();
        if current.all.iter().map(|e| &e.endpoint).eq(endpoints.iter()) {
            return;
        }
        let view = EndpointView::succeed(&self.spec, &current, endpoints, |endpoints, states| {
            prepare(&self.spec, endpoints, states)
        });
        self.view.store(Arc::new(view));
    }
}

/// Endpoints as they may be picked now: not those that are ejected, and new ones with less weight while they warm up.
fn prepare(spec: &ClusterSpec, endpoints: &[Endpoint], states: &[Arc<EndpointState>]) -> EndpointSet {
    let now = Instant::now();
    let age = |state: &EndpointState| now.saturating_duration_since(state.load.since);
    let warming = spec.warmup.filter(|warmup| states.iter().any(|state| age(state) < warmup.duration));
    EndpointSet::build(spec.lb, spec.panic_percent, endpoints, |index, endpoint| {
        let state = states.get(index);
        if spec.outlier.is_some() && state.is_some_and(|state| state.record().is_ejected()) {
            return Fitness::Unfit;
        }
        match (configured(endpoint), warming, state) {
            (Fitness::Fit(weight), Some(warmup), Some(state)) => {
                Fitness::Fit(weight.max(1) * u64::from(warmup.thousandths(age(state))))
            }
            (fitness, _, _) => fitness,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{
        outlier::care,
        testing::{cluster, ip, spec},
    };
    use routing::cluster::Warmup;
    use std::time::Duration;

    #[tokio::test]
    async fn load_follows_the_address_into_the_next_view() {
        let cluster = cluster(spec(), vec![ip([10, 0, 0, 1])]);
        let guard = cluster.endpoints().all[0].begin(&cluster);
        cluster.replace(vec![ip([10, 0, 0, 2]), ip([10, 0, 0, 1])]);
        let view = cluster.endpoints();
        assert_eq!((view.all[0].in_flight(), view.all[1].in_flight()), (0, 1));
        drop(guard);
        assert_eq!((view.all[1].in_flight(), view.all[1].attempts()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_endpoint_warms_up_beside_the_others() {
        let warmup = Warmup {
            duration: Duration::from_secs(100),
            minimum_thousandths: 100,
            aggression_thousandths: 1000,
        };
        let spec = ClusterSpec { lb: LbPolicy::Random, warmup: Some(warmup), ..spec() };
        let cluster = cluster(spec, vec![ip([10, 0, 0, 1])]);
        tokio::spawn(care(Arc::downgrade(&cluster)));
        let seconds = async |n: u64| {
            for _ in 0..n {
                tokio::time::advance(Duration::from_secs(1)).await;
                tokio::task::yield_now().await;
            }
        };
        seconds(200).await;
        cluster.replace(vec![ip([10, 0, 0, 1]), ip([10, 0, 0, 2])]);
        let share_of_new = || {
            let mut draw = fastrand::Rng::with_seed(7);
            let pick = |_| cluster.pick(|| draw.u64(..), None, &[]).unwrap();
            let new = (0..11_000).map(pick).filter(|e| e.endpoint == ip([10, 0, 0, 2])).count();
            new * 100 / 11_000
        };
        assert!((7..=11).contains(&share_of_new()), "a tenth of the other's: {}", share_of_new());
        seconds(50).await;
        assert!((30..=36).contains(&share_of_new()), "half of the other's: {}", share_of_new());
        seconds(60).await;
        assert!((48..=52).contains(&share_of_new()), "as much: {}", share_of_new());
    }
}

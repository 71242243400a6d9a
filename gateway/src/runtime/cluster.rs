//! One cluster at run time: its specification, its endpoints now, and what is prepared once for all its requests.
//!
//! Invariant: the specification never changes; a new one is a new cluster, which takes over the counters of addresses
//! that stay. Trust that cannot be loaded refuses every connection: it never weakens.

use super::{
    dns,
    endpoint::{EndpointState, EndpointView},
};
use crate::tls::Trust;
use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use routing::{
    balance,
    cluster::{Address, ClusterSpec, Endpoint},
};
use std::{
    collections::HashMap,
    hash::BuildHasher,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, watch};

/// Picks that a retry makes to find an endpoint it has not tried (Istio: `hostSelectionRetryMaxAttempts`).
const HOST_SELECTION_ATTEMPTS: usize = 5;

/// A cluster that requests are sent to.
#[derive(Debug)]
pub struct Cluster {
    /// What it is; comparing it tells whether a reload changed it.
    pub spec: Arc<ClusterSpec>,
    /// What its TLS is verified against; meaningless without TLS.
    pub trust: Trust,
    /// Identity for the connection pool: connections are never shared between clusters that differ in it.
    pub pool_key: u64,
    declared: ArcSwap<Declared>,
    view: ArcSwap<EndpointView>,
    cursor: AtomicU64,
    changed: Arc<Notify>,
    settled: watch::Sender<bool>,
}

#[derive(Debug)]
struct Declared(Arc<[Endpoint]>);

impl Cluster {
    /// A cluster with the endpoints that need no resolution in place; `previous` lends the counters of its addresses.
    #[must_use]
    pub fn new(spec: Arc<ClusterSpec>, declared: Arc<[Endpoint]>, previous: Option<&Self>) -> Self {
        let trust = spec.tls.as_ref().map_or(Trust::System, Trust::load);
        let pool_key = FixedState::with_seed(0).hash_one((&spec.name, spec.protocol, &spec.tls));
        let empty = EndpointView::default();
        let before = previous.map(Self::endpoints);
        let mut endpoints = dns::expand(spec.discovery, &declared, &HashMap::new());
        let settled = !dns::needs_resolution(&declared);
        if !settled
            && endpoints.is_empty()
            && let Some(before) = &before
            && previous.is_some_and(|p| p.spec.host == spec.host && p.spec.port == spec.port)
        {
            // Until the first answer, what the same names resolved to a moment ago is the best that is known.
            endpoints = before.all.iter().map(|e| Endpoint::clone(&e.endpoint)).collect();
        }
        let view = EndpointView::succeed(before.as_deref().unwrap_or(&empty), endpoints);
        Self {
            spec,
            trust,
            pool_key,
            declared: ArcSwap::from_pointee(Declared(declared)),
            view: ArcSwap::from_pointee(view),
            cursor: AtomicU64::new(0),
            changed: Arc::new(Notify::new()),
            settled: watch::Sender::new(settled),
        }
    }

    /// The endpoints now.
    #[must_use]
    pub fn endpoints(&self) -> Arc<EndpointView> {
        self.view.load_full()
    }

    /// An endpoint by the cluster's policy; `None` when none is healthy.
    ///
    /// `tried` lists addresses of earlier attempts: another one is preferred (Istio: retries avoid previous hosts).
    #[must_use]
    pub fn pick(&self, mut entropy: impl FnMut() -> u64, tried: &[Address]) -> Option<EndpointState> {
        let view = self.view.load();
        let mut picked = None;
        for _ in 0..HOST_SELECTION_ATTEMPTS {
            let turn = self.cursor.fetch_add(1, Ordering::Relaxed);
            let index = balance::pick(self.spec.lb, view.pickable(), &**view, &mut entropy, turn)?;
            picked = view.all.get(index);
            if picked.is_none_or(|e| !tried.contains(&e.endpoint.address)) {
                break;
            }
        }
        picked.cloned()
    }

    /// Endpoints as the configuration names them.
    #[must_use]
    pub fn declared(&self) -> Arc<[Endpoint]> {
        self.declared.load().0.clone()
    }

    /// Resolves when every name was asked for once, answered or not.
    pub async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        // The sender lives in self, so this ends only with the value.
        let _ = settled.wait_for(|done| *done).await;
    }

    /// Replaces the declared endpoints; names are asked for again.
    pub(super) fn declare(&self, declared: Arc<[Endpoint]>) {
        let current = self.declared();
        if current == declared {
            return;
        }
        if dns::needs_resolution(&declared) {
            self.settled.send_replace(false);
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
        self.settled.send_replace(true);
    }

    fn replace(&self, endpoints: Vec<Endpoint>) {
        let current = self.view.load();
        if current.all.iter().map(|e| &*e.endpoint).eq(endpoints.iter()) {
            return;
        }
        self.view.store(Arc::new(EndpointView::succeed(&current, endpoints)));
    }
}

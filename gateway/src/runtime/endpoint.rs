//! Endpoints as they can be dialled, and how busy each is.
//!
//! Invariant: a counter goes up once per attempt and down once, by the drop of its guard; it follows the address over
//! reloads. A view is immutable: a change makes a new one.

use routing::{
    balance::{EndpointSet, LoadView},
    cluster::{Address, Endpoint},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

/// Counters of one address in one cluster; outlives every view that lists it.
#[derive(Debug, Default)]
pub struct EndpointLoad {
    in_flight: AtomicU32,
    attempts: AtomicU64,
    failures: AtomicU64,
}

/// One endpoint that can be dialled: its address is never a name.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// As compiled, with the address resolved.
    pub endpoint: Arc<Endpoint>,
    load: Arc<EndpointLoad>,
}

impl EndpointState {
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

    /// Counts one attempt until the guard is dropped.
    #[must_use = "the attempt is counted only while the guard lives"]
    pub fn begin(&self) -> InFlight {
        self.load.in_flight.fetch_add(1, Ordering::Relaxed);
        self.load.attempts.fetch_add(1, Ordering::Relaxed);
        InFlight(self.load.clone())
    }
}

/// One attempt under way; its drop ends the count.
#[derive(Debug)]
pub struct InFlight(Arc<EndpointLoad>);

impl InFlight {
    /// Notes that the attempt ended without an answer.
    pub fn failed(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All endpoints of a cluster at one moment, in a fixed order.
#[derive(Debug)]
pub struct EndpointView {
    /// Every endpoint, unhealthy ones included.
    pub all: Box<[EndpointState]>,
    pickable: EndpointSet,
}

impl LoadView for EndpointView {
    fn active(&self, index: usize) -> u32 {
        self.all.get(index).map_or(0, EndpointState::in_flight)
    }
}

impl Default for EndpointView {
    fn default() -> Self {
        Self { all: Box::default(), pickable: EndpointSet::new(&[]) }
    }
}

impl EndpointView {
    /// A view of `endpoints` that keeps the counters of addresses that were in `previous`.
    #[must_use]
    pub fn succeed(previous: &Self, endpoints: Vec<Endpoint>) -> Self {
        let known: HashMap<&Address, &Arc<EndpointLoad>> =
            previous.all.iter().map(|e| (&e.endpoint.address, &e.load)).collect();
        let pickable = EndpointSet::new(&endpoints);
        let all = endpoints
            .into_iter()
            .map(|endpoint| {
                let load = known.get(&endpoint.address).map(|l| Arc::clone(l)).unwrap_or_default();
                EndpointState { endpoint: Arc::new(endpoint), load }
            })
            .collect();
        Self { all, pickable }
    }

    /// Those that may be picked, by index in `all`.
    #[must_use]
    pub fn pickable(&self) -> &EndpointSet {
        &self.pickable
    }

    /// How many may be picked.
    #[must_use]
    pub fn healthy(&self) -> usize {
        self.pickable.healthy().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use routing::cluster::Health;
    use std::collections::BTreeMap;

    fn endpoint(address: &str) -> Endpoint {
        Endpoint {
            address: Address::Ip(address.parse().unwrap()),
            weight: 1,
            health: Health::Healthy,
            labels: BTreeMap::new(),
            workload: None,
        }
    }

    #[test]
    fn load_follows_the_address_into_the_next_view() {
        let first = EndpointView::succeed(&EndpointView::default(), vec![endpoint("10.0.0.1:80")]);
        let guard = first.all[0].begin();
        let second = EndpointView::succeed(&first, vec![endpoint("10.0.0.2:80"), endpoint("10.0.0.1:80")]);
        assert_eq!(second.all[0].in_flight(), 0);
        assert_eq!(second.all[1].in_flight(), 1);
        drop(guard);
        assert_eq!(second.all[1].in_flight(), 0);
        assert_eq!(second.all[1].attempts(), 1);
    }
}

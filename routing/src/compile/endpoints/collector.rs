//! Gathers the endpoints of one port.
//!
//! Invariant: of one address the first stays. Endpoints of one workload share what is known of it. Each endpoint carries the labels that say where it is, as Istio gives them to
//! it, whatever its own say.

use super::{super::locality, Resolved};
use crate::cluster::{Address, Discovery, Endpoint, Health, Place, Workload};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

/// What was found of one endpoint.
pub(super) struct Found {
    pub(super) address: Address,
    pub(super) weight: u32,
    pub(super) health: Health,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) workload: Option<Arc<str>>,
    /// Who is behind it; `None`: nobody that is known.
    pub(super) identity: Option<Workload>,
    pub(super) locality: Arc<str>,
    /// The node it runs on, or empty.
    pub(super) node: String,
    /// The network that it is in, or empty.
    pub(super) network: String,
}

impl Found {
    /// An endpoint with nothing said about it.
    pub(super) fn default_at(port: u16) -> Self {
        Self {
            address: Address::Name("".into(), port),
            weight: 1,
            health: Health::Healthy,
            labels: BTreeMap::new(),
            workload: None,
            identity: None,
            locality: "".into(),
            node: String::new(),
            network: String::new(),
        }
    }
}

/// Gathers endpoints; of one address the first stays.
#[derive(Default)]
pub(super) struct Collector {
    pub(super) endpoints: Vec<Endpoint>,
    seen: HashSet<Address>,
    identities: HashSet<Arc<Workload>>,
    accounts: BTreeSet<String>,
}

impl Collector {
    pub(super) fn push(&mut self, found: Found) {
        if found.address.is_nowhere() || self.seen.insert(found.address.clone()) {
            let Found { address, weight, health, mut labels, workload, identity, locality, node, network } =
                found;
            locality::describe(&mut labels, &locality, &node, &network);
            let place = Place { locality, ..Place::default() };
            let identity = identity.map_or_else(Workload::unknown, |identity| self.shared(identity));
            let known = Endpoint::at(address);
            self.endpoints.push(Endpoint { weight, health, labels, workload, identity, place, ..known });
        }
    }

    fn shared(&mut self, identity: Workload) -> Arc<Workload> {
        if let Some(known) = self.identities.get(&identity) {
            return Arc::clone(known);
        }
        let identity = Arc::new(identity);
        self.identities.insert(Arc::clone(&identity));
        identity
    }

    pub(super) fn account(&mut self, namespace: &str, name: &str) {
        if !name.is_empty() {
            self.accounts.insert(format!("{namespace}/{name}"));
        }
    }

    pub(super) fn resolved(self, discovery: Discovery) -> Resolved {
        Resolved { discovery, endpoints: self.endpoints, accounts: self.accounts }
    }
}

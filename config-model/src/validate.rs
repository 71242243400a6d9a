//! Raw resources to [`Validated`]: what Istio's admission and analysis would say, before anything is served.
//!
//! Invariant: [`Validated`] is made only here. A resource with a finding that rejects it is left out, and nothing else is
//! affected. Findings between resources are made on all of them, and never reject.

mod attachment;
mod authorization_policy;
mod check;
mod deployment;
mod destination_rule;
mod gateway;
mod lint;
mod mesh;
mod names;
mod peer_authentication;
mod references;
mod regex;
mod request_authentication;
mod server_tls;
mod service_entry;
mod sidecar;
mod telemetry;
mod validator;
mod virtual_service;
mod workload_entry;
mod workload_group;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use deployment::Deployment;
pub use references::{resolve_gateway_name, resolve_short_name};
pub use regex::check_regex;
pub use validator::Validator;

use crate::{
    diagnostic::Diagnostics,
    istio, kubernetes,
    mesh::MeshConfig,
    meta::{Kind, Resource, ResourceKey},
    scalar::labels,
    set::{ResourceSet, Resources, differences},
};

/// The resources of a kind, oldest first.
type Aged<T> = Arc<Vec<Arc<Resource<T>>>>;

/// Resources that admission would accept, with the mesh configuration that holds for them. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Validated {
    set: ResourceSet,
    mesh: Arc<MeshConfig>,
    rejected: Arc<BTreeSet<ResourceKey>>,
    gateways: Aged<istio::Gateway>,
    virtual_services: Aged<istio::VirtualService>,
    destination_rules: Aged<istio::DestinationRule>,
    service_entries: Aged<istio::ServiceEntry>,
    workload_entries: Aged<istio::WorkloadEntry>,
    sidecars: Aged<istio::Sidecar>,
    telemetries: Aged<istio::Telemetry>,
    request_authentications: Aged<istio::RequestAuthentication>,
    authorization_policies: Aged<istio::AuthorizationPolicy>,
}

/// Checks for Istio's own ingress gateway, and judges no certificate by its dates; see [`validate_for`].
pub fn validate(set: ResourceSet) -> (Validated, Diagnostics) {
    validate_for(set, &Deployment::default())
}

/// Checks every resource by itself, and then what is between those that are accepted, for the gateway that is to serve them.
pub fn validate_for(set: ResourceSet, deployment: &Deployment) -> (Validated, Diagnostics) {
    Validator::default().validate(set, deployment)
}

impl Validated {
    /// The same with another set, of which what is shared with this one's is in order already.
    fn next(
        &self,
        set: ResourceSet,
        mesh: &Arc<MeshConfig>,
        rejected: &Arc<BTreeSet<ResourceKey>>,
    ) -> Validated {
        macro_rules! oldest_first {
            ($list:ident, $kind:ident) => {
                if set.shares(&self.set, Kind::$kind) {
                    Arc::clone(&self.$list)
                } else {
                    oldest_first(&self.$list, self.set.$list(), set.$list())
                }
            };
        }
        Validated {
            gateways: oldest_first!(gateways, Gateway),
            virtual_services: oldest_first!(virtual_services, VirtualService),
            destination_rules: oldest_first!(destination_rules, DestinationRule),
            service_entries: oldest_first!(service_entries, ServiceEntry),
            workload_entries: oldest_first!(workload_entries, WorkloadEntry),
            sidecars: oldest_first!(sidecars, Sidecar),
            telemetries: oldest_first!(telemetries, Telemetry),
            request_authentications: oldest_first!(request_authentications, RequestAuthentication),
            authorization_policies: oldest_first!(authorization_policies, AuthorizationPolicy),
            mesh: Arc::clone(mesh),
            rejected: Arc::clone(rejected),
            set,
        }
    }

    /// Whether a resource was left out.
    pub(crate) fn is_rejected(&self, key: &ResourceKey) -> bool {
        self.rejected.contains(key)
    }

    /// Gateways, oldest first.
    pub fn gateways(&self) -> &[Arc<Resource<istio::Gateway>>] {
        &self.gateways
    }

    /// VirtualServices, oldest first.
    pub fn virtual_services(&self) -> &[Arc<Resource<istio::VirtualService>>] {
        &self.virtual_services
    }

    /// DestinationRules, oldest first.
    pub fn destination_rules(&self) -> &[Arc<Resource<istio::DestinationRule>>] {
        &self.destination_rules
    }

    /// ServiceEntries, oldest first.
    pub fn service_entries(&self) -> &[Arc<Resource<istio::ServiceEntry>>] {
        &self.service_entries
    }

    /// WorkloadEntries, oldest first.
    pub fn workload_entries(&self) -> &[Arc<Resource<istio::WorkloadEntry>>] {
        &self.workload_entries
    }

    /// Sidecars, oldest first. They have no effect on a gateway.
    pub fn sidecars(&self) -> &[Arc<Resource<istio::Sidecar>>] {
        &self.sidecars
    }

    /// Telemetries, oldest first.
    pub fn telemetries(&self) -> &[Arc<Resource<istio::Telemetry>>] {
        &self.telemetries
    }

    /// The Telemetries that hold for a pod, widest first, so that each goes on top of those before: the root namespace's, the pod's
    /// namespace's, and those that select the pod (Istio: applicableTelemetries). Of several for one whole namespace the oldest
    /// holds. Those for pods are looked for in the pod's own namespace alone.
    pub fn telemetries_for<'v>(
        &'v self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Vec<&'v Resource<istio::Telemetry>> {
        let root = self.mesh.root_namespace.as_str();
        let of = |wanted: &str| {
            let mut all = self.telemetries.iter().map(Arc::as_ref);
            all.find(|resource| resource.key.namespace == wanted && resource.spec.is_for_all())
        };
        let wide = of(root).into_iter().chain(of(namespace).filter(|_| namespace != root));
        let selecting = self.telemetries.iter().map(Arc::as_ref).filter(|resource| {
            let selector = resource.spec.selector.as_ref();
            resource.key.namespace == namespace
                && resource.spec.is_for_pods()
                && selector.is_some_and(|s| !s.labels.is_empty() && labels::is_subset_of(&s.labels, labels))
        });
        wide.chain(selecting).collect()
    }

    /// RequestAuthentications, oldest first.
    pub fn request_authentications(&self) -> &[Arc<Resource<istio::RequestAuthentication>>] {
        &self.request_authentications
    }

    /// AuthorizationPolicies, oldest first.
    pub fn authorization_policies(&self) -> &[Arc<Resource<istio::AuthorizationPolicy>>] {
        &self.authorization_policies
    }

    /// Services by key.
    pub fn services(&self) -> &Resources<kubernetes::Service> {
        self.set.services()
    }

    /// EndpointSlices by key.
    pub fn endpoint_slices(&self) -> &Resources<kubernetes::EndpointSlice> {
        self.set.endpoint_slices()
    }

    /// Endpoints by key.
    pub fn endpoints(&self) -> &Resources<kubernetes::Endpoints> {
        self.set.endpoints()
    }

    /// Secrets by key.
    pub fn secrets(&self) -> &Resources<kubernetes::Secret> {
        self.set.secrets()
    }

    /// ConfigMaps by key.
    pub fn config_maps(&self) -> &Resources<kubernetes::ConfigMap> {
        self.set.config_maps()
    }

    /// Pods by key.
    pub fn pods(&self) -> &Resources<kubernetes::Pod> {
        self.set.pods()
    }

    /// Namespaces by key.
    pub fn namespaces(&self) -> &Resources<kubernetes::Namespace> {
        self.set.namespaces()
    }

    /// The mesh configuration: from the ConfigMap `istio`, or Istio's defaults.
    pub fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }

    /// Everything that was accepted, in the order of keys.
    pub fn set(&self) -> &ResourceSet {
        &self.set
    }

    /// The resources that were left out, in the order of keys: a caller that has an earlier version of one may go on with it.
    pub fn rejected(&self) -> impl Iterator<Item = &ResourceKey> {
        self.rejected.iter()
    }
}

/// The list of what `new` has, made of the list of what `old` has.
fn oldest_first<T>(list: &Aged<T>, old: &Resources<T>, new: &Resources<T>) -> Aged<T> {
    let changes = differences(old, new);
    if changes.len() > new.len() / 8 {
        let mut list: Vec<_> = new.values().cloned().collect();
        list.sort_by(|a, b| a.age().cmp(&b.age()));
        return Arc::new(list);
    }
    let mut list = Vec::clone(list);
    for (before, after) in changes {
        if let Some(before) = before {
            let from = list.partition_point(|other| other.age() < before.age());
            let at = list.iter().skip(from).position(|other| Arc::ptr_eq(other, &before));
            if let Some(at) = at {
                list.remove(from + at);
            }
        }
        if let Some(after) = after {
            let at = list.partition_point(|other| other.age() < after.age());
            list.insert(at, after);
        }
    }
    Arc::new(list)
}

#[cfg(test)]
mod tests;

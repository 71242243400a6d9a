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
mod names;
mod peer_authentication;
mod references;
mod regex;
mod request_authentication;
mod server_tls;
mod service_entry;
mod sidecar;
mod telemetry;
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

use crate::{
    diagnostic::{Diagnostic, Diagnostics, Effect},
    istio, kubernetes,
    mesh::MeshConfig,
    meta::{Kind, Resource, ResourceKey},
    parse,
    scalar::labels,
    set::{AnyResource, ResourceSet, Resources},
};

/// Resources that admission would accept, with the mesh configuration that holds for them.
#[derive(Debug, Clone, Default)]
pub struct Validated {
    set: ResourceSet,
    mesh: MeshConfig,
    rejected: BTreeSet<ResourceKey>,
    gateways: Vec<Arc<Resource<istio::Gateway>>>,
    virtual_services: Vec<Arc<Resource<istio::VirtualService>>>,
    destination_rules: Vec<Arc<Resource<istio::DestinationRule>>>,
    service_entries: Vec<Arc<Resource<istio::ServiceEntry>>>,
    workload_entries: Vec<Arc<Resource<istio::WorkloadEntry>>>,
    sidecars: Vec<Arc<Resource<istio::Sidecar>>>,
    telemetries: Vec<Arc<Resource<istio::Telemetry>>>,
    request_authentications: Vec<Arc<Resource<istio::RequestAuthentication>>>,
    authorization_policies: Vec<Arc<Resource<istio::AuthorizationPolicy>>>,
}

/// Checks for Istio's own ingress gateway, and judges no certificate by its dates; see [`validate_for`].
pub fn validate(set: ResourceSet) -> (Validated, Diagnostics) {
    validate_for(set, &Deployment::default())
}

/// Checks every resource by itself, and then what is between those that are accepted, for the gateway that is to serve them.
pub fn validate_for(mut set: ResourceSet, deployment: &Deployment) -> (Validated, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    for resource in set.iter() {
        check_one(&resource, &mut diagnostics);
    }
    let rejected: BTreeSet<ResourceKey> = diagnostics
        .iter()
        .filter(|finding| finding.effect == Effect::Rejected)
        .filter_map(|finding| finding.resource.clone())
        .collect();
    let mesh = mesh(&set, &mut diagnostics);
    // What is between resources is judged with the refused ones too: one mistake should neither hide nor make another.
    let all = Validated::of(set.clone(), mesh.clone(), rejected.clone());
    let mut between = Diagnostics::new();
    lint::check(&all, &mut between);
    references::check(&all, deployment, &mut between);
    let said = Said::by(&diagnostics);
    diagnostics.extend(between.into_iter().filter(|finding| !said.covers(finding)));
    let validated = if rejected.is_empty() {
        all
    } else {
        for key in &rejected {
            set.remove(key);
        }
        Validated::of(set, mesh, rejected)
    };
    parse::locate::place(&mut diagnostics);
    diagnostics.sort();
    (validated, diagnostics)
}

impl Validated {
    fn of(set: ResourceSet, mesh: MeshConfig, rejected: BTreeSet<ResourceKey>) -> Validated {
        Validated {
            gateways: oldest_first(set.gateways()),
            virtual_services: oldest_first(set.virtual_services()),
            destination_rules: oldest_first(set.destination_rules()),
            service_entries: oldest_first(set.service_entries()),
            workload_entries: oldest_first(set.workload_entries()),
            sidecars: oldest_first(set.sidecars()),
            telemetries: oldest_first(set.telemetries()),
            request_authentications: oldest_first(set.request_authentications()),
            authorization_policies: oldest_first(set.authorization_policies()),
            set,
            mesh,
            rejected,
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

/// The fields that resources were refused for: what else is found there comes of the same mistake.
struct Said(BTreeMap<ResourceKey, Vec<String>>);

impl Said {
    fn by(diagnostics: &Diagnostics) -> Said {
        let mut fields: BTreeMap<ResourceKey, Vec<String>> = BTreeMap::new();
        for finding in diagnostics.iter().filter(|finding| finding.effect == Effect::Rejected) {
            if let Some(key) = &finding.resource {
                fields.entry(key.clone()).or_default().push(finding.path.clone());
            }
        }
        Said(fields)
    }

    /// Whether a finding is at such a field, below it, or above it. A member of a list that was refused as a whole, for the sum of its
    /// weights say, is another matter.
    fn covers(&self, finding: &Diagnostic) -> bool {
        let fields = finding.resource.as_ref().and_then(|key| self.0.get(key));
        let rest = |a: &str, b: &str| b.strip_prefix(a).map(|rest| rest.chars().next());
        let same_or_below = |field: &str| matches!(rest(field, &finding.path), Some(None | Some('.')));
        let above = |field: &str| matches!(rest(&finding.path, field), Some(None | Some('.' | '[')));
        // Above all of them is the resource as a whole, which the other fields have no part in.
        fields.into_iter().flatten().any(|field| field != "spec" && (same_or_below(field) || above(field)))
    }
}

/// The rules of one resource by itself. Kubernetes' own kinds are validated by Kubernetes; their types suffice here.
fn check_one(resource: &AnyResource, diagnostics: &mut Diagnostics) {
    match resource {
        AnyResource::Gateway(resource) => gateway::check(resource, diagnostics),
        AnyResource::VirtualService(resource) => virtual_service::check(resource, diagnostics),
        AnyResource::DestinationRule(resource) => destination_rule::check(resource, diagnostics),
        AnyResource::ServiceEntry(resource) => service_entry::check(resource, diagnostics),
        AnyResource::WorkloadEntry(resource) => workload_entry::check(resource, diagnostics),
        AnyResource::Sidecar(resource) => sidecar::check(resource, diagnostics),
        AnyResource::WorkloadGroup(resource) => workload_group::check(resource, diagnostics),
        AnyResource::Telemetry(resource) => telemetry::check(resource, diagnostics),
        AnyResource::RequestAuthentication(resource) => request_authentication::check(resource, diagnostics),
        AnyResource::AuthorizationPolicy(resource) => authorization_policy::check(resource, diagnostics),
        AnyResource::PeerAuthentication(resource) => peer_authentication::check(resource, diagnostics),
        AnyResource::Service(_)
        | AnyResource::EndpointSlice(_)
        | AnyResource::Endpoints(_)
        | AnyResource::Secret(_)
        | AnyResource::ConfigMap(_)
        | AnyResource::Namespace(_)
        | AnyResource::Pod(_) => {}
    }
}

fn oldest_first<T>(resources: &Resources<T>) -> Vec<Arc<Resource<T>>> {
    let mut list: Vec<_> = resources.values().cloned().collect();
    list.sort_by(|a, b| a.age().cmp(&b.age()));
    list
}

/// The ConfigMap is looked for in the default root namespace, as istiod does before it knows of another.
fn mesh(set: &ResourceSet, diagnostics: &mut Diagnostics) -> MeshConfig {
    let default = MeshConfig::default();
    let key = ResourceKey::new(Kind::ConfigMap, default.root_namespace.as_str(), MeshConfig::CONFIG_MAP);
    let Some(config_map) = set.config_maps().get(&key) else { return default };
    match parse::mesh_config(config_map) {
        Ok(mesh) => mesh,
        Err(finding) => {
            diagnostics.push(*finding);
            default
        }
    }
}

#[cfg(test)]
mod tests;

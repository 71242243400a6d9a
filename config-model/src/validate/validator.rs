//! Checks one configuration after the other, and does again only what a change can have changed.
//!
//! Invariant: what is found depends on the latest resources and the deployment alone, never on what was checked before: a validator that
//! has followed any number of changes says what a new one would say. What a finding is made of is known to be the same by identity, so
//! nothing is remembered that is not held.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Deployment, Validated, authorization_policy, destination_rule, gateway, lint, peer_authentication,
    references::{self, Seen},
    request_authentication, service_entry, sidecar, telemetry, virtual_service, workload_entry,
    workload_group,
};
use crate::{
    derived::Derived,
    diagnostic::{Diagnostic, Diagnostics, Effect},
    istio,
    kubernetes::ConfigMap,
    mesh::MeshConfig,
    meta::{Kind, Resource, ResourceKey},
    parse::{self, locate},
    set::{Overlay, ResourceSet, Resources},
};

/// Checks one configuration after the other.
#[derive(Debug, Default)]
pub struct Validator {
    before: Option<(ResourceSet, Deployment)>,
    own: Own,
    mesh: Mesh,
    /// With the refused ones.
    all: Validated,
    accepted: Validated,
    without_refused: Overlay,
    between: references::Checks,
}

impl Validator {
    /// Checks every resource by itself, and then what is between those that are accepted, for the gateway that is to serve them.
    pub fn validate(&mut self, set: ResourceSet, deployment: &Deployment) -> (Validated, Diagnostics) {
        if self.before.as_ref().is_some_and(|(_, before)| !before.is_like(deployment)) {
            *self = Validator::default();
        }
        let mut changed = match &self.before {
            Some((before, _)) => Seen::differing(&set, before),
            None => Seen::EVERYTHING,
        };
        self.own.follow(&set, changed);
        if self.mesh.follow(&set) {
            changed = changed.and_mesh();
        }
        let mut diagnostics = Diagnostics::new();
        self.own.say(&mut diagnostics);
        let rejected = rejected(&diagnostics);
        let rejected =
            if *self.all.rejected == rejected { Arc::clone(&self.all.rejected) } else { Arc::new(rejected) };
        diagnostics.share(&self.mesh.findings);
        // What is between resources is judged with the refused ones too: one mistake should neither hide nor make another.
        self.all = self.all.next(set.clone(), &self.mesh.config, &rejected);
        let mut between = self.own.lint();
        self.between.follow(&self.all, deployment, changed, &mut between);
        let said = Said::by(&diagnostics);
        diagnostics.extend(between.into_iter().filter(|finding| !said.covers(finding)));
        diagnostics.sort();
        let edits = rejected.iter().map(|key| (key.clone(), None)).collect();
        let accepted = self.without_refused.follow(&set, edits).clone();
        self.accepted = self.accepted.next(accepted, &self.mesh.config, &rejected);
        self.before = Some((set, deployment.clone()));
        (self.accepted.clone(), diagnostics)
    }
}

fn rejected(diagnostics: &Diagnostics) -> BTreeSet<ResourceKey> {
    let refusing = diagnostics.iter().filter(|finding| finding.effect == Effect::Rejected);
    refusing.filter_map(|finding| finding.resource.clone()).collect()
}

/// What is to be said of each resource by itself.
#[derive(Debug, Default)]
struct Own {
    gateways: Kept<istio::Gateway>,
    virtual_services: Kept<istio::VirtualService>,
    destination_rules: Kept<istio::DestinationRule>,
    service_entries: Kept<istio::ServiceEntry>,
    workload_entries: Kept<istio::WorkloadEntry>,
    sidecars: Kept<istio::Sidecar>,
    workload_groups: Kept<istio::WorkloadGroup>,
    telemetries: Kept<istio::Telemetry>,
    request_authentications: Kept<istio::RequestAuthentication>,
    authorization_policies: Kept<istio::AuthorizationPolicy>,
    peer_authentications: Kept<istio::PeerAuthentication>,
}

/// The findings of the rules, and of what is allowed and seldom meant.
type Kept<T> = Derived<Resource<T>, (Diagnostics, Diagnostics)>;

type Rules<T> = fn(&Resource<T>, &mut Diagnostics);

impl Own {
    /// The rules of one resource by itself. Kubernetes' own kinds are validated by Kubernetes; their types suffice here.
    fn follow(&mut self, set: &ResourceSet, changed: Seen) {
        fn none<T>(_: &Resource<T>, _: &mut Diagnostics) {}
        macro_rules! follow {
            ($($kind:ident $list:ident $rules:path, $lint:expr;)*) => {
                $(if changed.has(Kind::$kind) {
                    follow(&mut self.$list, set.$list(), $rules, $lint);
                })*
            };
        }
        follow! {
            Gateway gateways gateway::check, lint::gateway;
            VirtualService virtual_services virtual_service::check, lint::virtual_service;
            DestinationRule destination_rules destination_rule::check, lint::destination_rule;
            ServiceEntry service_entries service_entry::check, none;
            WorkloadEntry workload_entries workload_entry::check, none;
            Sidecar sidecars sidecar::check, none;
            WorkloadGroup workload_groups workload_group::check, none;
            Telemetry telemetries telemetry::check, none;
            RequestAuthentication request_authentications request_authentication::check, none;
            AuthorizationPolicy authorization_policies authorization_policy::check, none;
            PeerAuthentication peer_authentications peer_authentication::check, none;
        }
    }

    /// What the rules found.
    fn say(&self, out: &mut Diagnostics) {
        fn add<T>(kept: &Kept<T>, out: &mut Diagnostics) {
            kept.values().iter().for_each(|(rules, _)| out.share(rules));
        }
        add(&self.gateways, out);
        add(&self.virtual_services, out);
        add(&self.destination_rules, out);
        add(&self.service_entries, out);
        add(&self.workload_entries, out);
        add(&self.sidecars, out);
        add(&self.workload_groups, out);
        add(&self.telemetries, out);
        add(&self.request_authentications, out);
        add(&self.authorization_policies, out);
        add(&self.peer_authentications, out);
    }

    /// What is allowed and seldom meant.
    fn lint(&self) -> Diagnostics {
        let mut out = Diagnostics::new();
        self.virtual_services.values().iter().for_each(|(_, lint)| out.share(lint));
        self.gateways.values().iter().for_each(|(_, lint)| out.share(lint));
        self.destination_rules.values().iter().for_each(|(_, lint)| out.share(lint));
        out
    }
}

fn follow<T>(kept: &mut Kept<T>, resources: &Resources<T>, rules: Rules<T>, lint: Rules<T>) {
    let found = |resource: &Resource<T>, check: Rules<T>| {
        let mut found = Diagnostics::new();
        check(resource, &mut found);
        locate::place(&mut found);
        found
    };
    kept.follow(resources.values(), |_, resource| (found(resource, rules), found(resource, lint)));
}

/// The mesh configuration, and where it was read.
#[derive(Debug, Default)]
struct Mesh {
    from: Option<Arc<Resource<ConfigMap>>>,
    config: Arc<MeshConfig>,
    findings: Diagnostics,
}

impl Mesh {
    /// Reads it again where it is another, and says whether it says something else. The ConfigMap is looked for in the default root
    /// namespace, as istiod does before it knows of another.
    fn follow(&mut self, set: &ResourceSet) -> bool {
        let default = MeshConfig::default();
        let key = ResourceKey::new(Kind::ConfigMap, default.root_namespace.as_str(), MeshConfig::CONFIG_MAP);
        let from = set.config_maps().get(&key);
        if from.map(Arc::as_ptr) == self.from.as_ref().map(Arc::as_ptr) {
            return false;
        }
        let (config, finding) = match from.map(|from| parse::mesh_config(from)) {
            None => (default, None),
            Some(Ok(config)) => (config, None),
            Some(Err(finding)) => (default, Some(*finding)),
        };
        self.from = from.cloned();
        self.findings = finding.into_iter().collect();
        if let Some(from) = from {
            super::mesh::check(&config, from, &mut self.findings);
        }
        locate::place(&mut self.findings);
        if *self.config == config {
            return false;
        }
        self.config = Arc::new(config);
        true
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

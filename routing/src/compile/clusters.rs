//! Clusters: one for each service port, and one for each of its subsets.
//!
//! Invariant: the clusters of a service are made anew only when one of the resources that they are made of is another; and what did
//! not change even then is the same `Arc`. A cluster that cannot be reached as its DestinationRule demands is left out, which answers
//! 503 NC, rather than reached with less than was demanded.

use super::{
    Clusters, Identity, Input,
    endpoints::{EndpointSources, Ingredients, Resolved, Workloads},
    locality::{self, Origin, Placing, Replicas},
    networks::Networks,
    registry::{Port, Registry, Service, Source},
    rules::{NamedSubset, Rule, Rules},
    traffic, upstream_tls,
};
use crate::cluster::{Cluster, ClusterName, ClusterSpec, Discovery, Endpoint, LbPolicy};
use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::{DestinationRule, destination_rule::SimpleLb, service_entry::Location},
    kubernetes::Namespace,
    mesh::MeshConfig,
    meta::{Kind, Resource, ResourceKey},
    parse::locate,
    scalar::labels::is_subset_of,
    set::Resources,
};
use foldhash::fast::FixedState;
use std::{collections::HashMap, sync::Arc};

/// Makes clusters, one configuration after the other.
#[derive(Debug, Default)]
pub(super) struct Maker {
    workloads: Workloads,
    networks: Option<Arc<Networks>>,
    /// What is to be said of these.
    of_networks: Diagnostics,
    services: HashMap<Arc<str>, Made, FixedState>,
}

/// The clusters of a service.
#[derive(Debug)]
struct Made {
    of: Ground,
    clusters: Vec<Arc<Cluster>>,
    findings: Diagnostics,
}

/// All that the clusters of a service are made of, but for what the whole mesh says and who the gateway is.
#[derive(Debug)]
struct Ground {
    source: Source,
    ingredients: Ingredients,
    namespace: Option<Arc<Resource<Namespace>>>,
    /// The DestinationRules that are merged into the one in force.
    rule: Vec<Arc<Resource<DestinationRule>>>,
    /// Whether TLS for the service's host is passed on by server name.
    passed: bool,
    /// Where the gateway's own replicas are.
    replicas: Arc<Replicas>,
}

impl PartialEq for Ground {
    /// The very same resources, not only equal ones.
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
            && self.ingredients == other.ingredients
            && self.namespace.as_ref().map(Arc::as_ptr) == other.namespace.as_ref().map(Arc::as_ptr)
            && self.rule.len() == other.rule.len()
            && self.rule.iter().zip(&other.rule).all(|(a, b)| Arc::ptr_eq(a, b))
            && self.passed == other.passed
            && self.replicas == other.replicas
    }
}

impl Maker {
    /// The kinds that clusters are made of.
    pub(super) const KINDS: [Kind; 8] = [
        Kind::Service,
        Kind::ServiceEntry,
        Kind::DestinationRule,
        Kind::EndpointSlice,
        Kind::Endpoints,
        Kind::Namespace,
        Workloads::KINDS[0],
        Workloads::KINDS[1],
    ];

    /// Makes all clusters, and a second one for TLS that is `passed` on where the service is of the mesh.
    pub(super) fn follow(
        &mut self,
        input: &Input<'_>,
        registry: &Registry,
        passed: &dyn Fn(&str) -> bool,
        findings: &mut Diagnostics,
    ) -> Clusters {
        let (now, identity) = (input.now, input.identity);
        if !input.shares(&Workloads::KINDS) {
            self.workloads.follow(now);
        }
        let (networks, same_networks) = self.networks(input);
        findings.share(&self.of_networks);
        let sources = EndpointSources::new(now, identity, &self.workloads);
        let rules = Rules::new(now, identity);
        let builder =
            Builder { mesh: now.mesh(), identity, origin: Origin::of(identity), networks: &networks };
        let own = own_endpoints(identity, registry, &sources);
        let replicas = Arc::new(Replicas::of(&own, builder.origin.locality(), &identity.labels));
        let mut before = std::mem::take(&mut self.services);
        self.services.reserve(before.len());
        let mut clusters = Clusters::with_capacity_and_hasher(before.len() * 2, FixedState::default());
        for service in registry.primary() {
            let rule = rules.find(&service.host, service.namespace());
            let of = Ground {
                source: service.source.clone(),
                ingredients: sources.ingredients(service),
                namespace: namespace_of(service, now.namespaces()),
                rule: rule.map(|rule| rule.made_of().cloned().collect()).unwrap_or_default(),
                passed: passed(&service.host),
                replicas: Arc::clone(&replicas),
            };
            let made = match before.remove(&service.host) {
                Some(made) if same_networks && made.of == of && input.is_of_the_same_mesh() => made,
                old => builder.make(service, of, &sources, rule, old),
            };
            clusters.extend(made.clusters.iter().map(|made| (made.spec.name.clone(), Arc::clone(made))));
            findings.share(&made.findings);
            self.services.insert(Arc::clone(&service.host), made);
        }
        clusters
    }

    /// The networks as they are now, and whether they are what they were.
    fn networks(&mut self, input: &Input<'_>) -> (Arc<Networks>, bool) {
        let known = self.networks.take();
        let (networks, same) = match known {
            Some(known) if input.shares(&Networks::KINDS) => (known, true),
            known => {
                let (made, found) = Networks::new(input.now, input.identity);
                self.of_networks = found.into_iter().collect();
                locate::place(&mut self.of_networks);
                let same = known.as_deref() == Some(&made);
                (Arc::new(made), same)
            }
        };
        self.networks = Some(Arc::clone(&networks));
        (networks, same)
    }
}

/// The namespace of a Kubernetes Service, where it is known.
fn namespace_of(service: &Service, known: &Resources<Namespace>) -> Option<Arc<Resource<Namespace>>> {
    match &service.source {
        Source::Kubernetes(resource) if !known.is_empty() => {
            known.get(&ResourceKey::new(Kind::Namespace, "", resource.key.namespace.as_str())).cloned()
        }
        Source::Kubernetes(_) | Source::Entries(_) => None,
    }
}

struct Builder<'b> {
    mesh: &'b MeshConfig,
    identity: &'b Identity,
    origin: Origin<'b>,
    networks: &'b Networks,
}

impl Builder<'_> {
    fn make(
        &self,
        service: &Service,
        of: Ground,
        sources: &EndpointSources<'_>,
        rule: Option<&Rule<'_>>,
        before: Option<Made>,
    ) -> Made {
        let mut making =
            Making { builder: self, service, rule, of: &of, made: Vec::new(), findings: Vec::new() };
        making.report_unknown_node();
        for port in &service.ports {
            if let Some(resolved) = sources.of(service, port) {
                making.port(port, resolved);
            }
        }
        let Making { made, findings, .. } = making;
        let mut findings: Diagnostics = findings.into_iter().collect();
        locate::place(&mut findings);
        let known = before.map(|before| before.clusters).unwrap_or_default();
        let share = |(spec, endpoints): (ClusterSpec, Vec<Endpoint>)| {
            share(known.iter().find(|known| known.spec.name == spec.name), spec, endpoints)
        };
        // Not collected, which would keep the far larger room of what it is made of.
        let mut clusters = Vec::with_capacity(made.len());
        clusters.extend(made.into_iter().map(share));
        Made { of, clusters, findings }
    }
}

/// The clusters of one service in the making.
struct Making<'m> {
    builder: &'m Builder<'m>,
    service: &'m Service,
    rule: Option<&'m Rule<'m>>,
    of: &'m Ground,
    made: Vec<(ClusterSpec, Vec<Endpoint>)>,
    findings: Vec<Diagnostic>,
}

impl Making<'_> {
    fn port(&mut self, port: &Port, resolved: Resolved) {
        for named in self.rule.into_iter().flat_map(|rule| &rule.subsets) {
            let labels = &named.subset.labels;
            let picked: Vec<Endpoint> =
                resolved.endpoints.iter().filter(|e| is_subset_of(labels, &e.labels)).cloned().collect();
            let dns = matches!(resolved.discovery, Discovery::StrictDns | Discovery::LogicalDns);
            if picked.is_empty() && !resolved.endpoints.is_empty() {
                self.report_empty(named);
                // Istio: cluster_builder.go makes no DNS cluster without an endpoint to resolve.
                if dns && matches!(self.service.source, Source::Entries(_)) {
                    continue;
                }
            }
            let of_subset = Resolved {
                discovery: resolved.discovery,
                endpoints: picked,
                accounts: resolved.accounts.clone(),
            };
            self.cluster(port, Some(named), of_subset);
        }
        self.cluster(port, None, resolved);
    }

    fn cluster(&mut self, port: &Port, named: Option<&NamedSubset<'_>>, resolved: Resolved) {
        let (service, rule) = (self.service, self.rule);
        let Builder { mesh, identity, origin, networks } = self.builder;
        let Resolved { mut discovery, mut endpoints, accounts } = resolved;
        if self.is_original() {
            discovery = Discovery::OriginalDestination { port: None };
            endpoints.clear();
        }
        networks.cross(&mut endpoints);
        let subset = named.map(|named| named.subset);
        let subset_name = subset.map_or("", |subset| subset.name.as_str());
        let policy = rule.map(|rule| rule.policy(subset, port.number)).unwrap_or_default();
        let name = ClusterName::outbound(port.number, subset_name, &service.host);
        let of_entry = match &service.source {
            Source::Kubernetes(_) => None,
            Source::Entries(entries) => entries.first().map(|entry| entry.spec.subject_alt_names.as_slice()),
        };
        let wanted = upstream_tls::Wanted {
            settings: policy.tls,
            rule_namespace: rule.map_or("", |rule| rule.resource.key.namespace.as_str()),
            gateway_namespace: &identity.namespace,
            trust_domain: &mesh.trust_domain,
            entry_names: of_entry.unwrap_or_default(),
            accounts: &accounts,
            default_sni: &format!("outbound_.{}_.{subset_name}_.{}", port.number, service.host),
        };
        let tls = match upstream_tls::compile(&wanted) {
            Ok(tls) => tls,
            Err(what) => {
                if let Some(rule) = rule {
                    let message =
                        format!("{what}: port {} of {} is not reached at all", port.number, service.host);
                    let finding = Diagnostic::new(Code::NOT_YET_HONOURED, message)
                        .about(&rule.resource.key, &rule.resource.origin)
                        .at("spec.trafficPolicy");
                    self.findings.push(finding);
                }
                return;
            }
        };
        let of_mesh = match &service.source {
            Source::Kubernetes(_) => true,
            Source::Entries(entries) => {
                entries.first().is_some_and(|entry| entry.spec.location == Location::MeshInternal)
            }
        };
        let automatic = policy.tls.is_none()
            && mesh.enable_auto_mtls
            && of_mesh
            && endpoints.iter().any(Endpoint::is_of_mesh);
        let auto_mtls = automatic.then(|| upstream_tls::automatic(&wanted));
        let balancer = policy.load_balancer;
        if balancer.and_then(|lb| lb.simple) == Some(SimpleLb::Passthrough) {
            discovery = Discovery::OriginalDestination { port: None };
            endpoints.clear();
        }
        let defaults = mesh.default_traffic_policy.as_ref();
        let pool = policy.connection_pool.or(defaults.and_then(|p| p.connection_pool.as_ref()));
        let outlier = policy.outlier.or(defaults.and_then(|p| p.outlier_detection.as_ref()));
        let own = match &service.source {
            Source::Kubernetes(resource) => Some((&**resource, self.of.namespace.as_deref())),
            Source::Entries(_) => None,
        };
        let lb = traffic::lb_policy(balancer);
        if let Some(placing) = Placing::of(balancer, own, mesh) {
            // Envoy: a hash falls on all zones alike.
            let by_hash = matches!(lb, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. });
            let replicas = (placing.asks_for_replicas() && !by_hash).then_some(&*self.of.replicas);
            locality::place(&mut endpoints, &placing, origin, outlier.is_some(), replicas);
        }
        let spec = ClusterSpec {
            name,
            host: Arc::clone(&service.host),
            service: service.name().into(),
            namespace: service.namespace().into(),
            port: port.number,
            subset: subset_name.into(),
            discovery,
            lb,
            hash_key: traffic::hash_key(balancer),
            warmup: traffic::warmup(balancer)
                .filter(|_| matches!(lb, LbPolicy::RoundRobin | LbPolicy::LeastRequest)),
            panic_percent: outlier.map_or(0, |o| u32::try_from(o.min_health_percent).unwrap_or(0)),
            protocol: traffic::protocol(port.protocol, pool, mesh.h2_upgrade_policy),
            tls,
            auto_mtls,
            connect_timeout: traffic::connect_timeout(pool, mesh),
            idle_timeout: traffic::idle_timeout(pool),
            pool: traffic::pool(pool, policy.retry_budget, mesh.tcp_keepalive.as_ref()),
            outlier: outlier.map(traffic::outlier),
            proxy_protocol: policy.proxy_protocol.map(traffic::proxy_version),
            tunnel: rule.and_then(|rule| rule.tunnel(subset)).map(traffic::tunnel),
            destination_rule: rule
                .map(|r| format!("{}/{}", r.resource.key.namespace, r.resource.key.name).into()),
        };
        if of_mesh && self.of.passed {
            self.pass_on(&spec, &endpoints);
        }
        self.made.push((spec, endpoints));
    }

    /// Whether a sidecar sends on to where the workload was connecting: of a headless Service it had chosen a pod (Istio: cluster.go
    /// `convertResolution`).
    fn is_original(&self) -> bool {
        self.builder.identity.role.workload().is_some()
            && matches!(&self.service.source, Source::Kubernetes(resource) if resource.spec.is_headless())
    }

    /// The mesh's own endpoints of a cluster, who end the TLS that the client began (Istio: `buildOutboundSniDnatClusters`).
    fn pass_on(&mut self, spec: &ClusterSpec, endpoints: &[Endpoint]) {
        let name = ClusterName::passed_on(spec.port, &spec.subset, &spec.host);
        let spec = ClusterSpec { name, tls: None, auto_mtls: None, ..spec.clone() };
        let of_mesh = endpoints.iter().filter(|endpoint| endpoint.is_of_mesh()).cloned().collect();
        self.made.push((spec, of_mesh));
    }

    fn report_unknown_node(&mut self) {
        let Source::Kubernetes(resource) = &self.service.source else { return };
        if !resource.spec.is_local() || self.builder.identity.labels.contains_key(locality::NODE) {
            return;
        }
        let message = format!(
            "internalTrafficPolicy Local has no effect: which node the gateway runs on is not known, so that {} is served from all",
            self.service.host
        );
        let finding = Diagnostic::new(Code::NOT_YET_HONOURED, message)
            .about(&resource.key, &resource.origin)
            .at("spec.internalTrafficPolicy")
            .hint(format!("give the gateway the label {} of its node (--labels)", locality::NODE));
        self.findings.push(finding);
    }

    fn report_empty(&mut self, named: &NamedSubset<'_>) {
        let message =
            format!("Subset {:?} selects none of the endpoints of {}", named.subset.name, self.service.host);
        let finding = Diagnostic::new(Code::SUBSET_SELECTS_NOTHING, message)
            .about(&named.resource.key, &named.resource.origin)
            .at(format!("spec.subsets[{}].labels", named.index))
            .hint("correct the labels, or start pods that carry them");
        self.findings.push(finding);
    }
}

/// The endpoints of the oldest Service that selects the gateway (Istio: context.go `SetServiceTargets`).
fn own_endpoints(identity: &Identity, registry: &Registry, sources: &EndpointSources<'_>) -> Vec<Endpoint> {
    let own = registry.primary().filter(|service| service.namespace() == identity.namespace).filter_map(
        |service| {
            let Source::Kubernetes(resource) = &service.source else { return None };
            let selector = &resource.spec.selector;
            (!selector.is_empty() && is_subset_of(selector, &identity.labels))
                .then_some((resource.age(), service))
        },
    );
    let oldest = own.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, service)| service);
    let resolved = oldest.and_then(|service| sources.of(service, service.ports.first()?));
    resolved.map(|resolved| resolved.endpoints).unwrap_or_default()
}

/// The previous cluster, or as much of it as is still so.
fn share(previous: Option<&Arc<Cluster>>, spec: ClusterSpec, endpoints: Vec<Endpoint>) -> Arc<Cluster> {
    let Some(old) = previous else {
        return Arc::new(Cluster { spec: Arc::new(spec), endpoints: endpoints.into() });
    };
    let (same_spec, same_endpoints) = (*old.spec == spec, *old.endpoints == *endpoints);
    if same_spec && same_endpoints {
        return Arc::clone(old);
    }
    Arc::new(Cluster {
        spec: if same_spec { Arc::clone(&old.spec) } else { Arc::new(spec) },
        endpoints: if same_endpoints { Arc::clone(&old.endpoints) } else { endpoints.into() },
    })
}

#[cfg(test)]
mod tests;

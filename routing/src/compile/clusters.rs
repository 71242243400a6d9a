//! Clusters: one for each service port, and one for each of its subsets.
//!
//! Invariant: what did not change since the previous compilation is the same `Arc`. A cluster that cannot be reached as
//! its DestinationRule demands is left out, which answers 503 NC, rather than reached with less than was demanded.

use super::{
    Clusters, Identity,
    endpoints::{EndpointSources, Resolved},
    locality::{self, Origin, Placing},
    registry::{Port, Registry, Service, Source},
    rules::{NamedSubset, Rule, Rules},
    traffic, upstream_tls,
};
use crate::cluster::{Cluster, ClusterName, ClusterSpec, Discovery, Endpoint, LbPolicy};
use config_model::{
    diagnostic::{Code, Diagnostic},
    istio::{destination_rule::SimpleLb, service_entry::Location},
    kubernetes,
    mesh::MeshConfig,
    meta::{Kind, ResourceKey},
    scalar::labels::is_subset_of,
    set::Resources,
    validate::Validated,
};
use std::sync::Arc;

/// Makes all clusters, and a second one for TLS that is `passed` on where the service is of the mesh; those that are equal to a previous one share it.
pub(super) fn build(
    input: &Validated,
    identity: &Identity,
    registry: &Registry<'_>,
    previous: Option<&Clusters>,
    passed: &dyn Fn(&str) -> bool,
    findings: &mut Vec<Diagnostic>,
) -> Clusters {
    let sources = EndpointSources::new(input, identity);
    let rules = Rules::new(input, identity);
    let mut builder = Builder {
        mesh: input.mesh(),
        namespaces: input.namespaces(),
        identity,
        origin: Origin::of(identity),
        previous,
        passed,
        findings,
        clusters: Clusters::default(),
    };
    for service in registry.primary() {
        let rule = rules.find(&service.host, service.namespace);
        builder.report_unknown_node(service);
        for port in &service.ports {
            if let Some(resolved) = sources.of(service, port) {
                builder.port(service, port, rule, resolved);
            }
        }
    }
    builder.clusters
}

struct Builder<'b> {
    mesh: &'b MeshConfig,
    namespaces: &'b Resources<kubernetes::Namespace>,
    identity: &'b Identity,
    origin: Origin<'b>,
    previous: Option<&'b Clusters>,
    /// Whether TLS for a service's host is passed on by server name.
    passed: &'b dyn Fn(&str) -> bool,
    findings: &'b mut Vec<Diagnostic>,
    clusters: Clusters,
}

impl Builder<'_> {
    fn port(&mut self, service: &Service<'_>, port: &Port<'_>, rule: Option<&Rule<'_>>, resolved: Resolved) {
        for named in rule.into_iter().flat_map(|rule| &rule.subsets) {
            let labels = &named.subset.labels;
            let picked: Vec<Endpoint> =
                resolved.endpoints.iter().filter(|e| is_subset_of(labels, &e.labels)).cloned().collect();
            let dns = matches!(resolved.discovery, Discovery::StrictDns | Discovery::LogicalDns);
            if picked.is_empty() && !resolved.endpoints.is_empty() {
                self.report_empty(service, named);
                // Istio: cluster_builder.go makes no DNS cluster without an endpoint to resolve.
                if dns && matches!(service.source, Source::Entries(_)) {
                    continue;
                }
            }
            let of_subset = Resolved {
                discovery: resolved.discovery,
                endpoints: picked,
                accounts: resolved.accounts.clone(),
            };
            self.cluster(service, port, rule, Some(named), of_subset);
        }
        self.cluster(service, port, rule, None, resolved);
    }

    fn cluster(
        &mut self,
        service: &Service<'_>,
        port: &Port<'_>,
        rule: Option<&Rule<'_>>,
        named: Option<&NamedSubset<'_>>,
        resolved: Resolved,
    ) {
        let Resolved { mut discovery, mut endpoints, accounts } = resolved;
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
            gateway_namespace: &self.identity.namespace,
            trust_domain: &self.mesh.trust_domain,
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
            && self.mesh.enable_auto_mtls
            && of_mesh
            && endpoints.iter().any(Endpoint::is_of_mesh);
        let auto_mtls = automatic.then(|| upstream_tls::automatic(&wanted));
        let balancer = policy.load_balancer;
        if balancer.and_then(|lb| lb.simple) == Some(SimpleLb::Passthrough) {
            discovery = Discovery::OriginalDestination;
            endpoints.clear();
        }
        let defaults = self.mesh.default_traffic_policy.as_ref();
        let pool = policy.connection_pool.or(defaults.and_then(|p| p.connection_pool.as_ref()));
        let outlier = policy.outlier.or(defaults.and_then(|p| p.outlier_detection.as_ref()));
        let own = match &service.source {
            Source::Kubernetes(resource) => {
                let namespace = ResourceKey::new(Kind::Namespace, "", resource.key.namespace.as_str());
                Some((*resource, self.namespaces.get(&namespace).map(|found| &**found)))
            }
            Source::Entries(_) => None,
        };
        if let Some(placing) = Placing::of(balancer, own, &self.mesh.locality_lb_setting) {
            locality::place(&mut endpoints, &placing, &self.origin, outlier.is_some());
        }
        let lb = traffic::lb_policy(balancer);
        let spec = ClusterSpec {
            name,
            host: Arc::clone(&service.host),
            port: port.number,
            subset: subset_name.into(),
            discovery,
            lb,
            hash_key: traffic::hash_key(balancer),
            warmup: traffic::warmup(balancer)
                .filter(|_| matches!(lb, LbPolicy::RoundRobin | LbPolicy::LeastRequest)),
            panic_percent: outlier.map_or(0, |o| u32::try_from(o.min_health_percent).unwrap_or(0)),
            protocol: traffic::protocol(port.protocol, pool, self.mesh.h2_upgrade_policy),
            tls,
            auto_mtls,
            connect_timeout: traffic::connect_timeout(pool, self.mesh),
            idle_timeout: traffic::idle_timeout(pool),
            pool: traffic::pool(pool, policy.retry_budget, self.mesh.tcp_keepalive.as_ref()),
            outlier: outlier.map(traffic::outlier),
            proxy_protocol: policy.proxy_protocol.map(traffic::proxy_version),
            tunnel: rule.and_then(|rule| rule.tunnel(subset)).map(traffic::tunnel),
            destination_rule: rule
                .map(|r| format!("{}/{}", r.resource.key.namespace, r.resource.key.name).into()),
        };
        if of_mesh && (self.passed)(&service.host) {
            self.pass_on(&spec, &endpoints);
        }
        self.put(spec, endpoints);
    }

    /// The mesh's own endpoints of a cluster, who end the TLS that the client began (Istio: `buildOutboundSniDnatClusters`).
    fn pass_on(&mut self, spec: &ClusterSpec, endpoints: &[Endpoint]) {
        let name = ClusterName::passed_on(spec.port, &spec.subset, &spec.host);
        let spec = ClusterSpec { name, tls: None, auto_mtls: None, ..spec.clone() };
        self.put(spec, endpoints.iter().filter(|endpoint| endpoint.is_of_mesh()).cloned().collect());
    }

    fn put(&mut self, spec: ClusterSpec, endpoints: Vec<Endpoint>) {
        let name = spec.name.clone();
        let cluster = share(self.previous.and_then(|p| p.get(&name)), spec, endpoints);
        self.clusters.insert(name, cluster);
    }

    fn report_unknown_node(&mut self, service: &Service<'_>) {
        let Source::Kubernetes(resource) = &service.source else { return };
        if !resource.spec.is_local() || self.identity.labels.contains_key(locality::NODE) {
            return;
        }
        let message = format!(
            "internalTrafficPolicy Local has no effect: which node the gateway runs on is not known, so that {} is served from all",
            service.host
        );
        let finding = Diagnostic::new(Code::NOT_YET_HONOURED, message)
            .about(&resource.key, &resource.origin)
            .at("spec.internalTrafficPolicy")
            .hint(format!("give the gateway the label {} of its node (--labels)", locality::NODE));
        self.findings.push(finding);
    }

    fn report_empty(&mut self, service: &Service<'_>, named: &NamedSubset<'_>) {
        let message =
            format!("Subset {:?} selects none of the endpoints of {}", named.subset.name, service.host);
        let finding = Diagnostic::new(Code::SUBSET_SELECTS_NOTHING, message)
            .about(&named.resource.key, &named.resource.origin)
            .at(format!("spec.subsets[{}].labels", named.index))
            .hint("correct the labels, or start pods that carry them");
        self.findings.push(finding);
    }
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
mod tests {
    use super::*;
    use crate::{
        cluster::{ClientIdentity, Roots, UpstreamProtocol},
        compile::testing::{compiled, find_cluster},
    };
    use std::time::Duration;

    const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: grpc, port: 81}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r, namespace: shop}
spec:
  host: a
";

    fn cluster(rest: &str, name: &str) -> Option<Arc<Cluster>> {
        let (compiled, _) = compiled(&format!("{SERVICE}{rest}"));
        find_cluster(&compiled, name)
    }

    #[test]
    fn defaults_are_istios() {
        let plain = cluster("", "outbound|80||a.shop.svc.cluster.local").unwrap();
        assert_eq!(plain.spec.connect_timeout, Duration::from_secs(10));
        assert_eq!(plain.spec.idle_timeout, Some(Duration::from_secs(3600)));
        assert_eq!(plain.spec.lb, LbPolicy::LeastRequest);
        assert_eq!(plain.spec.protocol, UpstreamProtocol::Http1);
        assert_eq!(plain.spec.tls, None);
        assert_eq!(plain.spec.destination_rule.as_deref(), Some("shop/r"));
        let grpc = cluster("", "outbound|81||a.shop.svc.cluster.local").unwrap();
        assert_eq!(grpc.spec.protocol, UpstreamProtocol::Http2);
    }

    #[test]
    fn a_traffic_policy_is_honoured() {
        let policy = "  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, tls: {mode: SIMPLE, sni: x.com, caCertificates: /ca.pem}, \
                      connectionPool: {tcp: {connectTimeout: 2s, idleTimeout: 5s}, http: {h2UpgradePolicy: UPGRADE}}}";
        let spec = &cluster(policy, "outbound|80||a.shop.svc.cluster.local").unwrap().spec;
        assert_eq!((spec.lb, spec.protocol), (LbPolicy::RoundRobin, UpstreamProtocol::Http2));
        assert_eq!(spec.connect_timeout, Duration::from_secs(2));
        assert_eq!(spec.idle_timeout, Some(Duration::from_secs(5)));
        let tls = spec.tls.as_ref().unwrap();
        assert_eq!((tls.sni.as_deref(), &tls.roots), (Some("x.com"), &Roots::File("/ca.pem".into())));
    }

    #[test]
    fn a_workloads_own_certificate_is_shown_where_the_mesh_is_meant() {
        let rest = "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}";
        let spec = &cluster(rest, "outbound|80||a.shop.svc.cluster.local").unwrap().spec;
        let tls = spec.tls.as_ref().unwrap();
        assert_eq!((&tls.roots, &tls.identity), (&Roots::Workload, &ClientIdentity::Workload));
        assert_eq!(tls.sni.as_deref(), Some("outbound_.80_._.a.shop.svc.cluster.local"));
    }

    #[test]
    fn endpoints_of_the_mesh_are_spoken_to_in_its_way_unless_a_rule_says_otherwise() {
        let entry = |location: &str, rule: &str| {
            let yaml = format!(
                "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e, namespace: shop}}
spec:
  hosts: [vm.shop]
  location: {location}
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 10.0.0.1, serviceAccount: vm}}, {{address: 10.0.0.2}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: r, namespace: shop}}
spec: {{host: vm.shop, trafficPolicy: {{{rule}}}}}
"
            );
            find_cluster(&compiled(&yaml).0, "outbound|80||vm.shop").unwrap()
        };
        let cluster = entry("MESH_INTERNAL", "loadBalancer: {simple: RANDOM}");
        let tls = cluster.spec.auto_mtls.as_ref().unwrap();
        assert_eq!(tls.subject_alt_names, ["spiffe://cluster.local/ns/shop/sa/vm".into()]);
        assert_eq!(tls.identity, ClientIdentity::Workload);
        let of_mesh: Vec<_> = cluster.endpoints.iter().map(Endpoint::is_of_mesh).collect();
        assert_eq!(of_mesh, [true, false]);
        assert_eq!(entry("MESH_EXTERNAL", "loadBalancer: {simple: RANDOM}").spec.auto_mtls, None);
        assert_eq!(entry("MESH_INTERNAL", "tls: {mode: DISABLE}").spec.auto_mtls, None);
    }

    #[test]
    fn an_endpoint_change_rebuilds_one_cluster_and_keeps_its_specification() {
        let yaml = SERVICE.to_owned()
            + "---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: shop}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
";
        let (old, _) = compiled(&yaml);
        let input = crate::compile::testing::validated(&yaml.replace("10.0.0.2", "10.0.0.3"));
        let (new, _) = crate::compile::compile(&input, &crate::compile::testing::identity(), Some(&old));
        let pair = |name| (find_cluster(&old, name).unwrap(), find_cluster(&new, name).unwrap());
        let (a, same) = pair("outbound|80||a.shop.svc.cluster.local");
        assert!(Arc::ptr_eq(&a, &same));
        let (b, changed) = pair("outbound|80||b.shop.svc.cluster.local");
        assert!(!Arc::ptr_eq(&b, &changed) && Arc::ptr_eq(&b.spec, &changed.spec));
    }
}

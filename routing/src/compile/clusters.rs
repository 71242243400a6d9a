//! Clusters: one for each service port, and one for each of its subsets.
//!
//! Invariant: what did not change since the previous compilation is the same `Arc`. A cluster that cannot be reached as
//! its DestinationRule demands is left out, which answers 503 NC, rather than reached with less than was demanded.

use super::{
    Clusters, Identity,
    endpoints::{EndpointSources, Resolved},
    registry::{Port, Registry, Service, Source},
    rules::{NamedSubset, Policy, Rule, Rules},
};
use crate::cluster::{
    Cluster, ClusterName, ClusterSpec, Discovery, Endpoint, LbPolicy, UpstreamProtocol, UpstreamTls,
};
use config_model::{
    diagnostic::{Code, Diagnostic},
    istio::destination_rule::{
        ClientTlsMode, ConnectionPoolSettings, H2UpgradePolicy, LoadBalancerSettings, SimpleLb,
    },
    mesh::MeshConfig,
    scalar::{Protocol, labels::is_subset_of},
    validate::Validated,
};
use std::{sync::Arc, time::Duration};

/// How long an idle upstream connection is kept unless something else is said (Envoy: one hour).
const IDLE: Duration = Duration::from_secs(3600);

/// Makes all clusters; those that are equal to a previous one share it.
pub(super) fn build(
    input: &Validated,
    identity: &Identity,
    registry: &Registry<'_>,
    previous: Option<&Clusters>,
    findings: &mut Vec<Diagnostic>,
) -> Clusters {
    let sources = EndpointSources::new(input);
    let rules = Rules::new(input, identity);
    let mut builder = Builder { mesh: input.mesh(), previous, findings, clusters: Clusters::default() };
    for service in registry.primary() {
        let rule = rules.find(&service.host, service.namespace);
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
    previous: Option<&'b Clusters>,
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
            self.cluster(service, port, rule, Some(named), resolved.discovery, picked);
        }
        self.cluster(service, port, rule, None, resolved.discovery, resolved.endpoints);
    }

    fn cluster(
        &mut self,
        service: &Service<'_>,
        port: &Port<'_>,
        rule: Option<&Rule<'_>>,
        named: Option<&NamedSubset<'_>>,
        mut discovery: Discovery,
        mut endpoints: Vec<Endpoint>,
    ) {
        let subset = named.map(|named| named.subset);
        let policy = rule.map(|rule| rule.policy(subset, port.number)).unwrap_or_default();
        let tls = match tls(&policy, service) {
            Ok(tls) => tls,
            Err(what) => {
                if let Some(rule) = rule {
                    let message = format!(
                        "{what} is not yet honoured: port {} of {} is not reached at all",
                        port.number, service.host
                    );
                    let finding = Diagnostic::new(Code::NOT_YET_HONOURED, message)
                        .about(&rule.resource.key, &rule.resource.origin)
                        .at("spec.trafficPolicy");
                    self.findings.push(finding);
                }
                return;
            }
        };
        let simple = policy.load_balancer.and_then(|lb| lb.simple);
        if simple == Some(SimpleLb::Passthrough) {
            discovery = Discovery::OriginalDestination;
            endpoints.clear();
        }
        let default_pool = self.mesh.default_traffic_policy.as_ref().and_then(|p| p.connection_pool.as_ref());
        let pool = policy.connection_pool.or(default_pool);
        let subset_name = subset.map_or("", |subset| subset.name.as_str());
        let name = ClusterName::outbound(port.number, subset_name, &service.host);
        let spec = ClusterSpec {
            name: name.clone(),
            host: Arc::clone(&service.host),
            port: port.number,
            subset: subset_name.into(),
            discovery,
            lb: lb_policy(policy.load_balancer),
            protocol: protocol(port.protocol, pool, self.mesh.h2_upgrade_policy),
            tls,
            connect_timeout: connect_timeout(pool, self.mesh),
            idle_timeout: idle_timeout(pool),
            destination_rule: rule
                .map(|r| format!("{}/{}", r.resource.key.namespace, r.resource.key.name).into()),
        };
        let cluster = share(self.previous.and_then(|p| p.get(&name)), spec, endpoints);
        self.clusters.insert(name, cluster);
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

fn lb_policy(settings: Option<&LoadBalancerSettings>) -> LbPolicy {
    match settings.and_then(|settings| settings.simple) {
        Some(SimpleLb::RoundRobin) => LbPolicy::RoundRobin,
        Some(SimpleLb::Random) => LbPolicy::Random,
        Some(
            SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::Passthrough,
        )
        | None => LbPolicy::LeastRequest,
    }
}

/// Istio: cluster_builder.go `setH2Options`, `shouldH2Upgrade`.
fn protocol(
    port: Option<Protocol>,
    pool: Option<&ConnectionPoolSettings>,
    mesh: H2UpgradePolicy,
) -> UpstreamProtocol {
    if port.is_some_and(Protocol::is_http2) {
        return UpstreamProtocol::Http2;
    }
    let http = pool.and_then(|pool| pool.http.as_ref());
    if http.is_some_and(|http| http.use_client_protocol) {
        return UpstreamProtocol::Http1;
    }
    let upgrades = match http.map(|http| http.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Default => mesh == H2UpgradePolicy::Upgrade && port == Some(Protocol::Http),
    };
    if upgrades { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 }
}

fn connect_timeout(pool: Option<&ConnectionPoolSettings>, mesh: &MeshConfig) -> Duration {
    let written = pool.and_then(|pool| pool.tcp.as_ref()).and_then(|tcp| tcp.connect_timeout);
    written.filter(|timeout| !timeout.is_zero()).unwrap_or(mesh.connect_timeout).as_std()
}

/// HTTP's own beats TCP's; zero is no limit (Istio: cluster_traffic_policy.go `applyConnectionPool`).
fn idle_timeout(pool: Option<&ConnectionPoolSettings>) -> Option<Duration> {
    let http = pool.and_then(|pool| pool.http.as_ref()).and_then(|http| http.idle_timeout);
    let tcp = pool.and_then(|pool| pool.tcp.as_ref()).and_then(|tcp| tcp.idle_timeout);
    match http.or(tcp) {
        None => Some(IDLE),
        Some(timeout) if timeout.is_zero() => None,
        Some(timeout) => Some(timeout.as_std()),
    }
}

/// TLS as demanded, or what of it cannot be done: then nothing is sent, least of all plain text.
fn tls(policy: &Policy<'_>, service: &Service<'_>) -> Result<Option<UpstreamTls>, &'static str> {
    let Some(tls) = policy.tls else { return Ok(None) };
    match tls.mode {
        ClientTlsMode::Disable => return Ok(None),
        ClientTlsMode::Simple => {}
        ClientTlsMode::Mutual => return Err("tls.mode MUTUAL"),
        ClientTlsMode::IstioMutual => return Err("tls.mode ISTIO_MUTUAL"),
    }
    if !tls.credential_name.is_empty() {
        return Err("tls.credentialName");
    }
    if !tls.ca_crl.is_empty() {
        return Err("tls.caCrl");
    }
    let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    let of_entry = match &service.source {
        Source::Kubernetes(_) => None,
        Source::Entries(entries) => entries.first().map(|entry| entry.spec.subject_alt_names.as_slice()),
    };
    let names =
        if tls.subject_alt_names.is_empty() { of_entry.unwrap_or_default() } else { &tls.subject_alt_names };
    Ok(Some(UpstreamTls {
        sni: text(&tls.sni),
        ca_file: text(&tls.ca_certificates).filter(|path: &Arc<str>| &**path != "system"),
        subject_alt_names: names.iter().map(|name| Arc::from(name.as_str())).collect(),
        insecure_skip_verify: tls.insecure_skip_verify.unwrap_or(false),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::{compiled, find_cluster};

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
        assert_eq!(plain.spec.idle_timeout, Some(IDLE));
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
        assert_eq!((tls.sni.as_deref(), tls.ca_file.as_deref()), (Some("x.com"), Some("/ca.pem")));
    }

    #[test]
    fn tls_that_cannot_be_done_leaves_no_cluster() {
        let rest = "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}";
        assert!(cluster(rest, "outbound|80||a.shop.svc.cluster.local").is_none());
        let (_, findings) = compiled(&format!("{SERVICE}{rest}"));
        assert!(findings.iter().any(|f| f.code == Code::NOT_YET_HONOURED));
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

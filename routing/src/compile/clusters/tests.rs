//! Clusters of services, subsets and ports.

use super::*;
use crate::{
    cluster::{ClientIdentity, Roots, Share, UpstreamProtocol, Zone},
    compile::{
        Compiler,
        testing::{compiled, find_cluster, identity, validated},
    },
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
fn zones_share_as_the_gateways_own_replicas_are_spread() {
    let yaml = |policy: &str| {
        let slice = |service: &str, namespace: &str, zones: &[&str]| {
            let endpoints: String = (1..)
                .zip(zones)
                .map(|(at, zone)| format!("- {{addresses: [10.{}.0.{at}], zone: {zone}}}\n", service.len()))
                .collect();
            format!(
                "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints:
{endpoints}"
            )
        };
        format!(
            "{SERVICE}{policy}
---
apiVersion: v1
kind: Service
metadata: {{name: gateway, namespace: istio-system}}
spec: {{selector: {{istio: ingressgateway}}, ports: [{{name: http, port: 80}}]}}
{}{}",
            slice("gateway", "istio-system", &["z1", "z1", "z1", "z2"]),
            slice("a", "shop", &["z1", "z2", "z3"]),
        )
    };
    let shares = |policy: &str| -> Vec<Share> {
        let mut identity = crate::compile::testing::identity();
        identity.labels.insert("istio-locality".to_owned(), "r.z1".to_owned());
        let input = crate::compile::testing::validated(&yaml(policy));
        let (compiled, _) = crate::compile::compile(&input, &identity);
        let cluster = find_cluster(&compiled, "outbound|80||a.shop.svc.cluster.local").unwrap();
        cluster.endpoints.iter().map(|endpoint| endpoint.place.share).collect()
    };
    let zone = |own, replicas| Share::Zone(Zone { own, replicas, least: 2 });
    let zones = "zoneAwareLbSetting: {minClusterSize: 2}";
    assert_eq!(
        shares(&format!("  trafficPolicy: {{loadBalancer: {{{zones}}}}}")),
        [zone(true, 7_500), zone(false, 2_500), zone(false, 0)]
    );
    let hashed =
        format!("  trafficPolicy: {{loadBalancer: {{{zones}, consistentHash: {{useSourceIp: true}}}}}}");
    assert_eq!(shares(&hashed), [Share::ByWeight; 3], "a hash falls where it falls");
    assert_eq!(shares(""), [Share::ByWeight; 3]);
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
    let mut compiler = Compiler::new(identity());
    let (old, _) = compiler.compile(&validated(&yaml));
    let (new, _) = compiler.compile(&validated(&yaml.replace("10.0.0.2", "10.0.0.3")));
    let pair = |name| (find_cluster(&old, name).unwrap(), find_cluster(&new, name).unwrap());
    let (a, same) = pair("outbound|80||a.shop.svc.cluster.local");
    assert!(Arc::ptr_eq(&a, &same));
    let (b, changed) = pair("outbound|80||b.shop.svc.cluster.local");
    assert!(!Arc::ptr_eq(&b, &changed) && Arc::ptr_eq(&b.spec, &changed.spec));
}

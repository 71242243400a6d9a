//! What a sidecar is given as a whole; single behaviours are case files.

use crate::{
    compile::{Compiled, Compiler, Identity, Role, Workload, compile, testing::validated},
    listener::{Chains, Direction, Reached},
};
use std::{fmt::Write as _, sync::Arc};

fn beside(namespace: &str) -> Identity {
    Identity {
        namespace: namespace.to_owned(),
        labels: [("app".to_owned(), "a".to_owned())].into(),
        role: Role::Sidecar(Box::new(Workload::at(vec![[10, 1, 0, 9].into()]))),
        ..Identity::default()
    }
}

/// So many services, in namespaces of ten.
fn services(number: usize) -> String {
    (0..number).fold(String::new(), |mut yaml, n| {
        let (namespace, ip) = (n / 10, format!("10.{}.{}.{}", 16 + n / 62500, n / 250 % 250, n % 250 + 1));
        write!(
            yaml,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: n{namespace}}}\nspec: {{clusterIP: {ip}, selector: {{app: s{n}}}, ports: [{{name: http, port: 80}}, {{name: tcp, port: 7000}}]}}\n"
        )
        .unwrap();
        yaml
    })
}

const BOUND: &str = "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: n0}
spec: {egress: [{hosts: ['./*', 'istio-system/*']}]}
";

fn sizes(compiled: &Compiled) -> (usize, usize) {
    let of_services = compiled.clusters.keys().filter(|name| name.as_str().starts_with("outbound|")).count();
    (of_services, compiled.listeners.len())
}

#[test]
fn a_sidecar_bounds_clusters_and_listeners() {
    let all = compile(&validated(&services(50)), &beside("n0")).0;
    // Any address's port 80, each address's port 7000, and the two that connections are redirected to.
    assert_eq!(sizes(&all), (100, 50 + 3));
    let bounded = compile(&validated(&(services(50) + BOUND)), &beside("n0")).0;
    assert_eq!(sizes(&bounded), (20, 10 + 3));
    let elsewhere = compile(&validated(&(services(50) + BOUND)), &beside("n1")).0;
    assert_eq!(sizes(&elsewhere), sizes(&all));
}

#[test]
fn a_gateway_is_not_bounded() {
    let gateway = Identity { namespace: "n0".to_owned(), ..Identity::default() };
    let compiled = compile(&validated(&(services(50) + BOUND)), &gateway).0;
    assert_eq!(sizes(&compiled), (100, 0));
}

#[test]
fn two_sockets_are_open_and_the_rest_is_handed_over() {
    let compiled = compile(&validated(&services(2)), &beside("n0")).0;
    let mut shown: Vec<_> = compiled
        .listeners
        .values()
        .map(|listener| (listener.name(), listener.direction, listener.reached))
        .collect();
    shown.sort_by(|a, b| a.0.cmp(&b.0));
    let (outbound, handed) = (Direction::Outbound, Reached::HandedOver);
    assert_eq!(
        shown,
        [
            ("0.0.0.0_80".to_owned(), outbound, handed),
            ("10.16.0.1_7000".to_owned(), outbound, handed),
            ("10.16.0.2_7000".to_owned(), outbound, handed),
            ("virtualInbound".to_owned(), Direction::Inbound, Reached::Redirected),
            ("virtualOutbound".to_owned(), outbound, Reached::Redirected),
        ]
    );
}

#[test]
fn what_comes_out_equal_is_the_same() {
    let mut compiler = Compiler::new(beside("n0"));
    let (first, _) = compiler.compile(&validated(&services(3)));
    let (second, _) = compiler.compile(&validated(&(services(3) + BOUND)));
    assert_eq!(first.clusters.len(), second.clusters.len());
    for (name, cluster) in &*first.clusters {
        assert!(second.cluster(name).is_some_and(|other| Arc::ptr_eq(cluster, other)), "{name}");
    }
    let tls = |compiled: &Compiled| {
        let listeners = compiled.listeners.values();
        let all =
            listeners.flat_map(|listener| listener.chains.each().filter_map(|(_, chain)| chain.tls.clone()));
        all.collect::<Vec<_>>()
    };
    let (before, after) = (tls(&first), tls(&second));
    assert!(!before.is_empty() && before.iter().zip(&after).all(|(a, b)| Arc::ptr_eq(a, b)));
}

#[test]
fn servers_that_speak_first_are_not_kept_waiting() {
    let yaml = services(1)
        + "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: v1
kind: Service
metadata: {name: own, namespace: n0}
spec: {clusterIP: 10.9.9.9, selector: {app: a}, ports: [{name: tcp, port: 3306}]}
";
    let compiled = compile(&validated(&yaml), &beside("n0")).0;
    for (listener, to) in [("10.16.0.1_7000", "10.16.0.1:7000"), ("virtualInbound", "10.1.0.9:3306")] {
        let found = compiled.listeners.values().find(|known| known.name() == listener).unwrap();
        let Chains::Matched(chains) = &found.chains else { panic!("a sidecar's") };
        assert_eq!(chains.wants(to.parse().unwrap()), Default::default(), "{listener}");
    }
}

#[test]
fn tls_towards_any_name_that_cannot_be_had_is_said_and_nothing_goes_out_without_it() {
    let mesh = "apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS, tls: {mode: MUTUAL}}'}
";
    let (compiled, findings) = compile(&validated(mesh), &beside("n0"));
    assert!(!compiled.clusters.keys().any(|name| name.as_str() == "AllowAnyDynamicDNSCluster"));
    let said: Vec<_> = findings.iter().map(ToString::to_string).collect();
    let wanted = "outboundTrafficPolicy.tls.mode MUTUAL without a client certificate";
    assert!(
        said.iter().any(|finding| finding.contains(wanted) && finding.contains("istio-system/istio")),
        "{said:?}"
    );
}

//! What the commands that look say of a sidecar.

use super::{Exit, Ran, folder, limen};
use std::path::Path;

const CONFIG: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: bookinfo}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ['./*', 'istio-system/*']}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: bookinfo}
spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports: [{name: http, port: 9080}, {name: web, port: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: bookinfo}
spec: {clusterIP: 10.0.0.2, ports: [{name: tcp, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - match: [{sourceLabels: {app: other}}]
    directResponse: {status: 418}
  - match: [{uri: {prefix: /v2}}]
    rewrite: {uri: /}
    route: [{destination: {host: reviews, port: {number: 9080}}}]
  - route: [{destination: {host: reviews, port: {number: 9080}}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookinfo}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: get-only, namespace: bookinfo}
spec: {action: DENY, rules: [{to: [{operation: {methods: [POST], ports: ['9080']}}]}]}
";

fn explain(folder: &Path, arguments: &[&str]) -> Ran {
    let config = folder.to_string_lossy();
    let mut all = vec!["explain", "--role", "sidecar", "--namespace", "bookinfo", "--labels", "app=reviews"];
    all.extend(["--config", &config, "--output", "json"]);
    all.extend(arguments);
    limen(&all)
}

#[test]
fn explain_says_where_a_call_of_the_workload_goes() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let ran = explain(config.path(), &["http://reviews:9080/v2/x"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["verdict"]), (Exit::Ok, &"forward".into()), "{}{}", ran.out, ran.err);
    assert_eq!(json["listener"]["name"], "0.0.0.0_9080");
    assert_eq!(json["listener"]["gateway"], "bookinfo/default");
    assert_eq!(json["virtual_host"]["name"], "reviews.bookinfo.svc.cluster.local:9080");
    assert_eq!(json["route"]["index"], 1);
    assert_eq!(json["clusters"][0]["name"], "outbound|9080||reviews.bookinfo.svc.cluster.local");

    // A policy of the workload's is not for what it calls.
    assert_eq!(explain(config.path(), &["-X", "POST", "http://reviews:9080/"]).exit, Exit::Ok);

    let ran = explain(config.path(), &["http://cart.shop:9080/"]);
    assert_eq!((ran.exit, &ran.json()["response"]["status"]), (Exit::Ok, &502.into()), "{}", ran.out);
    assert_eq!(ran.json()["virtual_host"]["name"], "block_all");
}

#[test]
fn explain_finds_the_address_that_a_name_stands_for() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let ran = explain(config.path(), &["tcp://db:5432"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["verdict"]), (Exit::Ok, &"passthrough".into()), "{}{}", ran.out, ran.err);
    assert_eq!(json["listener"]["name"], "10.0.0.2_5432");
    assert_eq!(json["clusters"][0]["name"], "outbound|5432||db.bookinfo.svc.cluster.local");
    // Nobody says what this port speaks.
    let ran = explain(config.path(), &["http://reviews.bookinfo:8000/"]);
    assert_eq!(ran.json()["listener"]["name"], "10.0.0.1_8000", "{}", ran.out);

    let ran = explain(config.path(), &["--destination", "10.9.9.9", "tcp://db:5432"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["verdict"]), (Exit::NoRoute, &"refused".into()));
    assert_eq!(json["listener"]["name"], "virtualOutbound");
    assert_eq!(json["clusters"][0]["name"], "BlackHoleCluster");
}

#[test]
fn explain_says_what_comes_in() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let ran = explain(config.path(), &["--direction", "inbound", "http://reviews:9080/"]);
    assert_eq!((ran.exit, &ran.json()["verdict"]), (Exit::NoRoute, &"refused".into()), "{}", ran.out);
    let mutual = ["--direction", "inbound", "--alpn", "istio-http/1.1", "https://reviews:9080/"];
    let ran = explain(config.path(), &mutual);
    let json = ran.json();
    assert_eq!((ran.exit, &json["listener"]["name"]), (Exit::Ok, &"virtualInbound".into()), "{}", ran.out);
    assert_eq!(json["listener"]["tls_mode"], "ISTIO_MUTUAL");
    assert_eq!(json["clusters"][0]["name"], "inbound|9080||");
    let mut post = vec!["-X", "POST"];
    post.extend(mutual);
    assert_eq!(explain(config.path(), &post).exit, Exit::Denied);
}

#[test]
fn explain_sees_no_more_of_a_connection_than_the_sidecar_does() {
    let open = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: bookinfo}
spec: {clusterIP: 10.0.0.2, selector: {app: reviews}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookinfo}
spec: {mtls: {mode: DISABLE}}
";
    let config = folder(&[("a.yaml", open)]);
    // TLS is the workload's own business where none of the mesh's is ended.
    let ran = explain(config.path(), &["--direction", "inbound", "https://db:5432/"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["verdict"]), (Exit::Ok, &"passthrough".into()), "{}{}", ran.out, ran.err);
    assert_eq!(json["clusters"][0]["name"], "inbound|5432||");
}

#[test]
fn explain_knows_who_is_of_the_mesh() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let from = |name: &str| {
        let named = format!("--client-cert={name}");
        let url = "https://reviews:9080/";
        explain(config.path(), &["--direction", "inbound", "--alpn", "istio-http/1.1", &named, url])
    };
    assert_eq!(from("").exit, Exit::Ok, "one of which nothing is said");
    assert_eq!(from("spiffe://cluster.local/ns/a/sa/b").exit, Exit::Ok);
    let stranger = from("spiffe://other.example/ns/a/sa/b");
    assert_eq!(
        (stranger.exit, &stranger.json()["verdict"]),
        (Exit::NoRoute, &"refused".into()),
        "{}",
        stranger.out
    );
    assert!(stranger.out.contains("trust domains cluster.local"), "{}", stranger.out);
}

#[test]
fn a_gateway_has_no_original_destination() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let path = config.path().to_string_lossy();
    for way in [["--destination", "10.0.0.1"], ["--direction", "inbound"]] {
        let mut all = vec!["explain", "--config", &path, "http://a.example/"];
        all.extend(way);
        assert_eq!(limen(&all).exit, Exit::Usage);
    }
}

#[test]
fn check_knows_what_is_for_sidecars() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let path = config.path().to_string_lossy();
    let told = |arguments: &[&str]| {
        let mut all = vec!["check", &*path, "--output", "json"];
        all.extend(arguments);
        let ran = limen(&all);
        assert_eq!(ran.exit, Exit::Ok, "{}{}", ran.out, ran.err);
        ran.out.matches("has no effect on a gateway").count()
    };
    assert!(told(&[]) > 0);
    assert_eq!(told(&["--role", "sidecar", "--namespace", "bookinfo", "--labels", "app=reviews"]), 0);
}

//! `limen check --kubernetes` and its like, as a process, on a cluster.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    double::{ALL, Double, Type, istio},
    source::GATEWAY,
};

const fn foreign(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Type {
    Type { group, version, kind, plural, namespaced: true }
}

/// Kinds of Istio and of others that a gateway does not read; the first is in no version in which the others of its group are.
const UNREAD: [Type; 4] = [
    istio("v1alpha3", "EnvoyFilter", "envoyfilters"),
    foreign("extensions.istio.io", "v1alpha1", "WasmPlugin", "wasmplugins"),
    foreign("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    foreign("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
];

fn object(of: Type, namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{}/{}", of.group, of.version), "kind": of.kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

const ROUTE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: istio-system}
spec: {hosts: [shop.example], gateways: [door], http: [{route: [{destination: {host: shop}}]}]}
";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: istio-system}
spec: {ports: [{name: http, port: 80}], selector: {app: shop}}
";

fn limen(double: &Double, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = double.kubeconfig(folder.path(), "{}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_limen"));
    command.env("KUBECONFIG", kubeconfig).args(arguments);
    block_in_place(|| command.output().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_judged_as_files_are_and_what_is_not_read_is_listed() {
    let double = Double::start(ALL.into_iter().chain(UNREAD)).await;
    double.apply(GATEWAY);
    double.apply(ROUTE);
    let [filter, plugin, route, policy] = UNREAD;
    double.put(object(filter, "istio-system", "everywhere", json!({"configPatches": []})));
    double.put(object(filter, "shop", "elsewhere", json!({})));
    let selector = |app: &str| json!({"selector": {"matchLabels": {"app": app}}});
    double.put(object(plugin, "istio-system", "ours", selector("istio-ingressgateway")));
    double.put(object(plugin, "istio-system", "theirs", selector("istio-egressgateway")));
    double.put(object(route, "shop", "a", json!({})));
    double.put(object(route, "shop", "b", json!({})));
    double.put(object(policy, "shop", "c", json!({})));

    let done = limen(&double, &["check", "--kubernetes"]);
    let (out, told) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(1), "{out}{told}");
    let line = |begin: &str| {
        out.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin} in:\n{out}"))
    };
    let lost = line("Error [IST0101] (VirtualService istio-system/shop uid-VirtualService-shop/");
    assert!(lost.contains("shop"), "{lost}");
    for (name, uid) in [
        ("EnvoyFilter istio-system/everywhere", "EnvoyFilter-everywhere"),
        ("WasmPlugin istio-system/ours", "WasmPlugin-ours"),
    ] {
        let said = line(&format!("Warning [LIM0006] (uid-{uid}/"));
        assert!(said.contains(name), "{said}");
    }
    for counted in ["1 EnvoyFilter (networking.istio.io/v1alpha3)", "1 WasmPlugin (", "2 HTTPRoute ("] {
        line(&format!("Info [LIM0006] {counted}"));
    }
    assert!(!out.contains("NetworkPolicy"), "{out}");

    let json: Value =
        serde_json::from_slice(&limen(&double, &["check", "--kubernetes", "--output", "json"]).stdout)
            .unwrap();
    let found = json["findings"].as_array().unwrap().iter().find(|one| one["code"] == "IST0101").unwrap();
    assert_eq!(found["resource"], "VirtualService istio-system/shop");
    assert!(
        found["file"].as_str().unwrap().starts_with("uid-VirtualService-shop/") && found["line"].is_null()
    );
    assert_eq!(json["resources"], 2);
    let sarif: Value =
        serde_json::from_slice(&limen(&double, &["check", "--kubernetes", "--output", "sarif"]).stdout)
            .unwrap();
    assert_eq!(
        sarif["runs"][0]["results"].as_array().unwrap().len(),
        json["findings"].as_array().unwrap().len()
    );

    double.apply(SERVICE);
    let done = limen(&double, &["check", "--kubernetes"]);
    assert_eq!(done.status.code(), Some(0), "warnings fail nothing: {}", text(&done.stdout));
    assert_eq!(double.writes(), [], "nothing is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_answers_what_would_happen_to_a_request() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.apply(ROUTE);
    double.apply(SERVICE);
    let done = limen(&double, &["explain", "--kubernetes", "--output", "json", "http://shop.example/"]);
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (done.status.code(), &answer["verdict"]),
        (Some(0), &json!("forward")),
        "{}",
        text(&done.stderr)
    );
    assert_eq!(answer["clusters"][0]["name"], "outbound|80||shop.istio-system.svc.cluster.local");
    let done = limen(&double, &["get", "hosts", "--kubernetes"]);
    assert!(text(&done.stdout).contains("shop.example"), "{}", text(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_cannot_be_read_is_no_clean_cluster() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.forbid("list", "virtualservices");
    let done = limen(&double, &["check", "--kubernetes"]);
    let told = text(&done.stderr);
    assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(1), ""), "{told}");
    assert!(told.contains("every VirtualService: ") && told.contains("forbidden"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    double.allow_all();
    // A Secret that may not be read is judged as missing, and that is told.
    double.apply(&GATEWAY.replace(
        "port: {number: 80, name: http, protocol: HTTP}",
        "port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: named}",
    ));
    double.forbid("list", "secrets");
    let done = limen(&double, &["check", "--kubernetes"]);
    let told = text(&done.stderr);
    assert!(told.contains("judged as if it were not there: Secret istio-system/named: "), "{told}");
    assert!(text(&done.stdout).contains("IST0101"));
}

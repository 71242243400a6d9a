//! Which kinds and objects the source reads, and how much of each.

use std::time::Duration;

use config_model::{
    meta::Kind,
    set::{AnyResource, ResourceSet},
    validate::validate,
};
use gateway::source::Source as _;
use tokio::time::timeout;

use crate::{
    double::{ALL, Double, Type, istio},
    source::{GATEWAY, Loaded, has, names, next, service, source, until},
};

#[tokio::test]
async fn a_kind_that_is_not_installed_is_an_empty_list_until_it_is() {
    let double = Double::start(ALL.into_iter().filter(|of| of.group != "networking.istio.io")).await;
    let mut source = source(&double);
    assert_eq!(next(&mut source).await.resources.len(), 0);
    double.install(istio("v1beta1", "Gateway", "gateways"));
    double.apply(&GATEWAY.replace("istio.io/v1", "istio.io/v1beta1"));
    let _found = until(&mut source, |_| true, |loaded| has(loaded, "Gateway istio-system/door")).await;
}

#[tokio::test]
async fn every_kind_of_istio_is_read_in_each_version_that_is_served() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.group().ends_with(".istio.io")) {
        for version in kind.versions() {
            let plural = match kind.as_str().to_lowercase() {
                name if name.ends_with("ry") || name.ends_with("cy") => {
                    format!("{}ies", &name[..name.len() - 1])
                }
                name => format!("{name}s"),
            };
            let served = Type { group: kind.group(), ..istio(version, kind.as_str(), plural.leak()) };
            let others = ALL.into_iter().filter(|of| of.kind != kind.as_str());
            let double = Double::start(others.chain([served])).await;
            double.apply(&format!(
                "apiVersion: {}/{version}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\nspec: {{host: a, hosts: [a], address: 192.0.2.1, template: {{}}}}\n",
                kind.group()
            ));
            let loaded = next(&mut source(&double)).await;
            assert!(
                has(&loaded, &format!("{kind} shop/a")),
                "{kind} {version}: {:?}, {:?}",
                names(&loaded),
                loaded.diagnostics
            );
        }
    }
}

#[tokio::test]
async fn a_kind_that_is_removed_is_an_empty_list_again() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.apply(&service("a", 80));
    let mut source = source(&double);
    assert!(has(&next(&mut source).await, "Gateway istio-system/door"));
    double.uninstall("Gateway");
    let always = |loaded: &Loaded| has(loaded, "Service shop/a");
    let _gone = until(&mut source, always, |loaded| !has(loaded, "Gateway istio-system/door")).await;
}

#[tokio::test]
async fn a_kind_that_may_not_be_listed_holds_the_start_up_and_is_asked_for_seldom() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.forbid("list", "services");
    let mut source = source(&double);
    assert!(timeout(Duration::from_millis(500), source.next()).await.is_err(), "half a cluster was told");
    let troubles = source.troubles().join("; ");
    assert!(troubles.contains("every Service") && troubles.contains("cannot list resource"), "{troubles}");
    let asked = double.requests().iter().filter(|asked| asked.contains("/services?")).count();
    assert!((1..=2).contains(&asked), "{asked} requests in half a second");
    double.allow_all();
    assert!(has(&next(&mut source).await, "Gateway istio-system/door"));
}

#[tokio::test]
async fn of_pods_and_namespaces_only_metadata_is_asked_for() {
    let double = Double::start(ALL).await;
    double.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {app: x}}\nspec: {nodeName: n}\n");
    double.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: edge}}\n");
    double.apply(&service("a", 80));
    let mut source = source(&double);
    let labels = |loaded: &Loaded, of: Kind| {
        let found = loaded.resources.iter().find(|resource| resource.key().kind == of);
        found.map(|resource| resource.meta().labels.clone()).unwrap_or_default()
    };
    let first = next(&mut source).await;
    assert_eq!(labels(&first, Kind::Pod).get("app").map(String::as_str), Some("x"));
    assert_eq!(labels(&first, Kind::Namespace).get("team").map(String::as_str), Some("edge"));
    double.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: core}}\n");
    let moved =
        |loaded: &Loaded| labels(loaded, Kind::Namespace).get("team").map(String::as_str) == Some("core");
    let _followed = until(&mut source, |_| true, moved).await;
    let whole = double.read_whole();
    assert!(
        whole.contains("services") && !whole.contains("pods") && !whole.contains("namespaces"),
        "{whole:?}"
    );
}

#[tokio::test]
async fn a_secret_is_read_once_it_is_named_and_no_other_is() {
    let double = Double::start(ALL).await;
    let secret = |name: &str, namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{tls.key: aHVudGVyMg==}}\n"
        )
    };
    double.apply(GATEWAY);
    double.apply(&secret("named", "istio-system"));
    double.apply(&secret("other", "istio-system"));
    double.apply(&secret("named", "shop"));
    let mut source = source(&double);
    let first = next(&mut source).await;
    assert!(!first.resources.iter().any(|resource| resource.key().kind == Kind::Secret));
    double.apply(&GATEWAY.replace(
        "port: {number: 80, name: http, protocol: HTTP}",
        "port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: named}",
    ));
    // The Gateway that names it and the Secret go live together.
    let https = |loaded: &Loaded| {
        loaded.resources.iter().any(|resource| matches!(resource, AnyResource::Gateway(gateway) if gateway.spec.servers[0].tls.is_some()))
    };
    let second = until(&mut source, |_| true, https).await;
    let secrets: Vec<String> = names(&second).into_iter().filter(|name| name.starts_with("Secret")).collect();
    assert_eq!(secrets, ["Secret istio-system/named"]);
    let asked: Vec<String> =
        double.requests().into_iter().filter(|asked| asked.contains("/secrets")).collect();
    assert!(
        asked.iter().all(|asked| {
            asked.starts_with("/api/v1/namespaces/istio-system/secrets?")
                && asked.contains("fieldSelector=metadata.name%3Dnamed")
        }),
        "{asked:?}"
    );
    double.apply(GATEWAY);
    let gone = |loaded: &Loaded| !loaded.resources.iter().any(|resource| resource.key().kind == Kind::Secret);
    let _left = until(&mut source, |_| true, gone).await;
}

#[tokio::test]
async fn of_config_maps_those_are_read_that_are_named() {
    let double = Double::start(ALL).await;
    let config_map = |name: &str, namespace: &str, data: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{{data}}}\n"
        )
    };
    double.apply(GATEWAY);
    double.apply(&config_map("istio", "istio-system", "mesh: 'trustDomain: example.org'"));
    double.apply(&config_map("roots", "istio-system", "ca.crt: pem"));
    double.apply(&config_map("istio", "shop", "mesh: ''"));
    double.apply(&config_map("other", "istio-system", "a: b"));
    let mut source = source(&double);
    let config_maps = |loaded: &Loaded| -> Vec<String> {
        names(loaded).into_iter().filter(|name| name.starts_with("ConfigMap")).collect()
    };
    let first = next(&mut source).await;
    assert_eq!(config_maps(&first), ["ConfigMap istio-system/istio"], "MeshConfig is there from the start");
    let trust_domain = |loaded: &Loaded| {
        let mut set = ResourceSet::new();
        set.extend(loaded.resources.iter().cloned());
        validate(set).0.mesh().trust_domain.clone()
    };
    assert_eq!(trust_domain(&first), "example.org");
    double.apply(&config_map("istio", "istio-system", "mesh: 'trustDomain: example.com'"));
    let _followed = until(&mut source, |_| true, |loaded| trust_domain(loaded) == "example.com").await;
    double.apply(&GATEWAY.replace(
        "port: {number: 80, name: http, protocol: HTTP}",
        "port: {number: 443, name: https, protocol: HTTPS}, \
         tls: {mode: MUTUAL, credentialName: named, caCertCredentialName: 'configmap://istio-system/roots'}",
    ));
    let both = ["ConfigMap istio-system/istio", "ConfigMap istio-system/roots"];
    let _named = until(&mut source, |_| true, |loaded| config_maps(loaded) == both).await;
    let asked = double.requests().into_iter().filter(|asked| asked.contains("/configmaps"));
    assert!(
        asked.clone().count() > 0
            && asked.into_iter().all(|asked| {
                asked.starts_with("/api/v1/namespaces/istio-system/configmaps?")
                    && (asked.contains("metadata.name%3Distio&") || asked.contains("metadata.name%3Droots&"))
            }),
        "{:?}",
        double.requests()
    );
}

//! What the source tells, and when.

use std::time::Duration;

use config_model::{
    meta::Kind,
    set::{AnyResource, ResourceSet},
    validate::validate,
};
use gateway::source::{
    Health, Loaded, Source as _,
    kubernetes::{Cluster, Home, Kubernetes, Timing},
};
use tokio::{runtime::Handle, time::timeout};

use crate::double::{ALL, Double, Gone, istio};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
";

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}, name: http}}]}}\n"
    )
}

pub(crate) fn home() -> Home {
    Home {
        namespace: "istio-system".into(),
        labels: [("istio".to_owned(), "ingressgateway".to_owned())].into(),
        root_namespace: "istio-system".into(),
    }
}

/// Quick, but for what a test wants to outlast.
pub(crate) fn timing() -> Timing {
    Timing {
        quiet: Duration::from_millis(20),
        discover: Duration::from_millis(50),
        patience: Duration::from_millis(50),
        keep: Duration::from_millis(10),
        ..Timing::default()
    }
}

fn source(double: &Double) -> Kubernetes {
    let cluster = Cluster::at(double.url().parse().unwrap()).unwrap();
    Kubernetes::with_timing(cluster, home(), None, Handle::current(), timing())
}

async fn next(source: &mut Kubernetes) -> Loaded {
    timeout(PATIENCE, source.next()).await.expect("a state in time").expect("a source that goes on")
}

/// States until one is as wanted; each on the way must hold, too.
async fn until(
    source: &mut Kubernetes,
    always: impl Fn(&Loaded) -> bool,
    wanted: impl Fn(&Loaded) -> bool,
) -> Loaded {
    loop {
        let loaded = next(source).await;
        assert!(always(&loaded), "a state that must not be told: {:?}", names(&loaded));
        if wanted(&loaded) {
            return loaded;
        }
    }
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.resources.iter().map(|resource| resource.key().to_string()).collect()
}

fn has(loaded: &Loaded, name: &str) -> bool {
    names(loaded).iter().any(|known| known == name)
}

fn port(loaded: &Loaded, name: &str) -> Option<u16> {
    loaded.resources.iter().find_map(|resource| match resource {
        AnyResource::Service(service) if service.key.name == name => Some(service.spec.ports[0].port.get()),
        _ => None,
    })
}

#[tokio::test]
async fn nothing_is_told_before_everything_was_listed() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.hold_lists(true);
    let mut source = source(&double);
    assert!(timeout(Duration::from_millis(200), source.next()).await.is_err());
    double.hold_lists(false);
    let loaded = next(&mut source).await;
    assert!(has(&loaded, "Gateway istio-system/door"));
    assert_eq!(loaded.health, Health::Synchronized);
    assert_eq!(loaded.resources[0].origin().to_string(), "uid-Gateway-door/101");
}

#[tokio::test]
async fn a_list_of_many_pages_is_one_state() {
    let double = Double::start(ALL).await;
    for index in 0..1201 {
        double.apply(&service(&format!("s{index}"), 80));
    }
    assert_eq!(next(&mut source(&double)).await.resources.len(), 1201);
    let pages = double
        .requests()
        .iter()
        .filter(|asked| asked.contains("/services?") && asked.contains("continue="))
        .count();
    assert_eq!(pages, 2, "1201 objects in pages of 500");
}

#[tokio::test]
async fn a_change_and_a_delete_are_followed_and_what_did_not_change_is_the_same() {
    let double = Double::start(ALL).await;
    double.apply(&service("a", 80));
    double.apply(&service("b", 80));
    let mut source = source(&double);
    let first = next(&mut source).await;
    double.apply(&service("a", 81));
    double.be_slow();
    let second = until(&mut source, |_| true, |loaded| port(loaded, "a") == Some(81)).await;
    let of = |loaded: &Loaded| match &loaded.resources[1] {
        AnyResource::Service(service) => std::sync::Arc::as_ptr(service),
        other => panic!("{:?}", other.key()),
    };
    assert_eq!(of(&first), of(&second), "b did not change");
    double.delete("services", "shop", "a");
    let third = until(&mut source, |_| true, |loaded| port(loaded, "a").is_none()).await;
    assert_eq!(names(&third), ["Service shop/b"]);
}

#[tokio::test]
async fn a_version_that_is_gone_is_listed_again_without_an_empty_state_between() {
    for gone in [Gone::Event, Gone::Status] {
        let double = Double::start(ALL).await;
        double.apply(&service("a", 80));
        double.apply(&service("b", 80));
        let mut source = source(&double);
        let _first = next(&mut source).await;
        double.compact(gone);
        double.disconnect();
        double.apply(&service("a", 81));
        double.delete("services", "shop", "b");
        double.compact(gone);
        let always = |loaded: &Loaded| port(loaded, "a").is_some();
        let wanted = |loaded: &Loaded| port(loaded, "a") == Some(81) && port(loaded, "b").is_none();
        let _followed = until(&mut source, always, wanted).await;
    }
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_from_the_last_bookmark() {
    let double = Double::start(ALL).await;
    double.apply(&service("a", 80));
    let mut source = source(&double);
    let _first = next(&mut source).await;
    double.bookmark();
    double.apply(&service("a", 81));
    let _second = until(&mut source, |_| true, |loaded| port(loaded, "a") == Some(81)).await;
    let lists = |double: &Double| {
        double
            .requests()
            .iter()
            .filter(|asked| asked.contains("/services?") && !asked.contains("watch="))
            .count()
    };
    let before = lists(&double);
    double.disconnect();
    double.apply(&service("a", 82));
    let _third = until(&mut source, |_| true, |loaded| port(loaded, "a") == Some(82)).await;
    assert_eq!(lists(&double), before, "nothing was listed again");
}

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

#[tokio::test]
async fn while_the_server_is_away_the_state_stays_and_is_called_stale() {
    let mut double = Double::start(ALL).await;
    double.apply(&service("a", 80));
    let mut source = source(&double);
    let _first = next(&mut source).await;
    double.stop().await;
    let always = |loaded: &Loaded| port(loaded, "a").is_some();
    let _stale = until(&mut source, always, |loaded| loaded.health == Health::Stale).await;
    double.apply(&service("a", 81));
    double.resume().await;
    let current = |loaded: &Loaded| loaded.health == Health::Synchronized && port(loaded, "a") == Some(81);
    let _back = until(&mut source, always, current).await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_keeps_its_last_version() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    let mut source = source(&double);
    let _first = next(&mut source).await;
    double.apply(&GATEWAY.replace(
        "servers:\n  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}",
        "servers: 7",
    ));
    let broken = until(&mut source, |_| true, |loaded| loaded.unparsable == 1).await;
    assert_eq!(broken.kept[0].key().to_string(), "Gateway istio-system/door");
}

#[tokio::test]
async fn what_was_kept_on_disk_is_told_when_the_server_is_away_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.apply(&service("a", 80));
    let with_cache = |double: &Double| {
        let cluster = Cluster::at(double.url().parse().unwrap()).unwrap();
        Kubernetes::with_timing(cluster, home(), Some(folder.path().to_owned()), Handle::current(), timing())
    };
    let mut first = with_cache(&double);
    let whole = next(&mut first).await;
    let file = folder.path().join("snapshot.jsonl");
    timeout(PATIENCE, async {
        while !file.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    drop(first);
    double.stop().await;
    let mut second = with_cache(&double);
    let kept = next(&mut second).await;
    assert_eq!((names(&kept), kept.health), (names(&whole), Health::Stale));
    double.apply(&service("a", 81));
    double.resume().await;
    let current = |loaded: &Loaded| loaded.health == Health::Synchronized && port(loaded, "a") == Some(81);
    let _back = until(&mut second, |loaded| port(loaded, "a").is_some(), current).await;
}

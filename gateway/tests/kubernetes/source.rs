//! What the source tells, and when.

use std::time::Duration;

use config_model::set::AnyResource;
pub(crate) use gateway::source::Loaded;
use gateway::source::{
    Health, Source as _,
    kubernetes::{Cluster, Home, Kubernetes, Timing},
};
use tokio::{runtime::Handle, time::timeout};

use crate::double::{ALL, Double, Gone};

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

pub(crate) fn service(name: &str, port: u16) -> String {
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

pub(crate) fn source(double: &Double) -> Kubernetes {
    let cluster = Cluster::at(double.url().parse().unwrap()).unwrap();
    Kubernetes::with_timing(cluster, home(), None, Handle::current(), timing())
}

pub(crate) async fn next(source: &mut Kubernetes) -> Loaded {
    timeout(PATIENCE, source.next()).await.expect("a state in time").expect("a source that goes on")
}

/// States until one is as wanted; each on the way must hold, too.
pub(crate) async fn until(
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

pub(crate) fn names(loaded: &Loaded) -> Vec<String> {
    loaded.resources.iter().map(|resource| resource.key().to_string()).collect()
}

pub(crate) fn has(loaded: &Loaded, name: &str) -> bool {
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
async fn a_list_whose_pages_expire_while_it_is_read_is_read_again() {
    let double = Double::start(ALL).await;
    for index in 0..501 {
        double.apply(&service(&format!("s{index}"), 80));
    }
    double.expire_pages(1);
    assert_eq!(next(&mut source(&double)).await.resources.len(), 501, "whole, and nothing twice");
    let begun = |asked: &&String| {
        asked.contains("/services?") && !asked.contains("=token") && !asked.contains("watch=")
    };
    assert_eq!(double.requests().iter().filter(begun).count(), 2);
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
async fn a_server_that_is_overloaded_is_asked_again_and_nothing_is_lost_meanwhile() {
    const REFUSALS: [u16; 12] = [429, 503, 500, 429, 504, 502, 429, 500, 503, 429, 500, 503];
    let double = Double::start(ALL).await;
    double.apply(&service("a", 80));
    double.be_overloaded(&REFUSALS);
    let mut source = source(&double);
    // Nothing is told of what was only half read.
    let first = next(&mut source).await;
    assert!(has(&first, "Service shop/a"), "{:?}", names(&first));
    // And again once everything was there: all watches end, and what they are asked for anew is refused.
    double.be_overloaded(&REFUSALS);
    double.apply(&service("a", 81));
    double.disconnect();
    let always = |loaded: &Loaded| port(loaded, "a").is_some();
    let current = |loaded: &Loaded| loaded.health == Health::Synchronized && port(loaded, "a") == Some(81);
    let _back = until(&mut source, always, current).await;
    double.apply(&service("a", 82));
    let _followed = until(&mut source, always, |loaded| port(loaded, "a") == Some(82)).await;
    let left = timeout(PATIENCE, async {
        while double.overload_left() > 0 {
            double.disconnect();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    left.await.expect("every refusal was met");
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_any_more_stays_in_use() {
    let double = Double::start(ALL).await;
    let secret = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: named, namespace: istio-system}}\ndata: {{tls.key: {value}}}\n"
        )
    };
    double.apply(&GATEWAY.replace(
        "port: {number: 80, name: http, protocol: HTTP}",
        "port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: named}",
    ));
    double.apply(&secret("b25l"));
    double.apply(&service("a", 80));
    let mut source = source(&double);
    let there = |loaded: &Loaded| has(loaded, "Secret istio-system/named");
    let _first = until(&mut source, |_| true, there).await;
    for verb in ["get", "list", "watch"] {
        double.forbid(verb, "secrets");
    }
    double.disconnect();
    // Others are followed as before, and the Secret stays.
    double.apply(&service("a", 81));
    let _followed = until(&mut source, there, |loaded| port(loaded, "a") == Some(81)).await;
    double.apply(&secret("dHdv"));
    double.allow_all();
    let value = |loaded: &Loaded| {
        loaded.resources.iter().find_map(|resource| match resource {
            AnyResource::Secret(secret) => secret.spec.get("tls.key").map(<[u8]>::to_vec),
            _ => None,
        })
    };
    let _back = until(&mut source, there, |loaded| value(loaded).as_deref() == Some(b"two")).await;
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

//! What is written into the cluster: by whom, what, how often; and that it may fail.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use config_model::diagnostic::Diagnostics;
use gateway::{
    pipeline::{self, Builder, Built, Pipeline, Publisher, Status},
    settings::Settings,
    source::kubernetes::{Cluster, Kubernetes},
    status::{Metrics, Term, Timing, Writer},
    telemetry,
};
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    double::{ALL, Double},
    source::{GATEWAY, home, timing},
};

/// Nothing is served.
struct Nowhere;

#[async_trait]
impl Publisher for Nowhere {
    async fn publish(&mut self, _built: &Arc<Built>) -> Diagnostics {
        Diagnostics::new()
    }
}

/// A gateway without traffic: it reads, judges and writes.
struct Gateway {
    following: JoinHandle<()>,
    writing: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    metrics: telemetry::Metrics,
}

impl Gateway {
    fn start(double: &Double, process: &str, pace: Timing) -> Gateway {
        let cluster = Cluster::at(double.url().parse().unwrap()).unwrap();
        let metrics = telemetry::Metrics::new(Default::default(), "test").unwrap();
        let status = Arc::new(Status::default());
        let source = Kubernetes::with_timing(cluster.clone(), home(), None, Handle::current(), timing());
        let mut pipeline = Pipeline::new(
            Box::new(source),
            Builder::new(Settings::default().identity()),
            Box::new(Nowhere),
            Arc::clone(&status),
            pipeline::Metrics::register(&metrics).unwrap(),
        );
        let following = tokio::spawn(async move {
            loop {
                let _step = pipeline.step().await;
            }
        });
        let counted = Metrics::register(&metrics).unwrap();
        let writer = Writer::new(&cluster, &home(), process, status, Box::new(Vec::new), counted, pace);
        let (stop, stopped) = oneshot::channel::<()>();
        let writing = tokio::spawn(writer.run(async move {
            let _told = stopped.await;
        }));
        Gateway { following, writing, stop: Some(stop), metrics }
    }

    /// Ends as a process does that is told to.
    async fn leave(mut self) {
        drop(self.stop.take());
        timeout(Duration::from_secs(10), &mut self.writing).await.unwrap().unwrap();
    }

    fn metric(&self, series: &str) -> Option<String> {
        let text = String::from_utf8(self.metrics.encode().to_vec()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)).map(|value| value.trim().to_owned())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.following.abort();
        self.writing.abort();
    }
}

fn quick() -> Timing {
    let short = Duration::from_millis(20);
    Timing {
        term: Term {
            lasts: Duration::from_secs(1),
            renew: short,
            give_up: Duration::from_millis(800),
            refused: short,
        },
        quiet: Duration::from_millis(5),
        recheck: short,
        writes: (Duration::from_micros(10), 1000),
        events: (Duration::from_micros(10), 1000),
        retry: short,
        refused: Duration::from_millis(300),
    }
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{what} has not come");
        sleep(Duration::from_millis(5)).await;
    }
}

fn virtual_service(name: &str, code: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: istio-system}}\n\
         spec: {{hosts: ['{name}.example'], gateways: [door], http: [{{redirect: {{uri: /x, redirectCode: {code}}}}}]}}\n"
    )
}

const LOST: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost, namespace: istio-system}
spec: {hosts: [lost.example], gateways: [door], http: [{route: [{destination: {host: nobody}}]}]}
";

/// The condition of a resource, when it says this of this generation.
fn condition(
    double: &Double,
    plural: &str,
    name: &str,
    kind: &str,
    status: &str,
    generation: i64,
) -> Option<Value> {
    let object = double.object(plural, "istio-system", name)?;
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|one| one["type"] == kind && one["status"] == status && one["observedGeneration"] == generation)
        .cloned()
}

fn patches(double: &Double, name: &str) -> usize {
    double
        .writes()
        .iter()
        .filter(|(method, what, _)| method == "PATCH" && what.ends_with(&format!("/{name}")))
        .count()
}

#[tokio::test]
async fn what_is_found_is_written_on_the_resources_and_told_once() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.apply(&virtual_service("good", 301));
    double.apply(LOST);
    let _gateway = Gateway::start(&double, "one", quick());
    for (plural, name) in [("gateways", "door"), ("virtualservices", "good")] {
        for kind in ["Accepted", "ResolvedRefs", "Programmed"] {
            eventually(kind, || condition(&double, plural, name, kind, "True", 1)).await;
        }
    }
    let unresolved = eventually("ResolvedRefs", || {
        condition(&double, "virtualservices", "lost", "ResolvedRefs", "False", 1)
    })
    .await;
    assert_eq!(unresolved["reason"], "ReferencedResourceNotFound");
    let since = unresolved["lastTransitionTime"].as_str().unwrap();
    assert!(since.ends_with('Z') && since.len() == "2026-01-02T03:04:05Z".len(), "{since}");
    let lost = double.object("virtualservices", "istio-system", "lost").unwrap();
    assert_eq!(lost["status"]["validationMessages"][0]["type"]["code"], "IST0101");
    let event = eventually("an Event", || double.objects("events").into_iter().next()).await;
    assert_eq!(event["regarding"]["uid"], lost["metadata"]["uid"]);
    assert_eq!(event["regarding"]["apiVersion"], "networking.istio.io/v1");
    assert_eq!((&event["reason"], &event["type"]), (&json!("ReferencedResourceNotFound"), &json!("Warning")));
    assert!(event["note"].as_str().unwrap().contains("nobody"));
    assert_eq!(double.objects("events").len(), 1, "what is right is no Event");
}

#[tokio::test]
async fn only_what_changed_is_written() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.apply(&virtual_service("good", 301));
    let _gateway = Gateway::start(&double, "one", quick());
    eventually("a status", || condition(&double, "virtualservices", "good", "Programmed", "True", 1)).await;
    eventually("a status", || condition(&double, "gateways", "door", "Programmed", "True", 1)).await;
    for round in 0..3 {
        // When the new one is written, what was there has been looked at again.
        let name = format!("new-{round}");
        double.apply(&virtual_service(&name, 302));
        eventually("a status", || condition(&double, "virtualservices", &name, "Programmed", "True", 1))
            .await;
    }
    assert_eq!((patches(&double, "good"), patches(&double, "door")), (1, 1));
    // A new generation is written, and what did not change keeps its time.
    let before = condition(&double, "virtualservices", "good", "Accepted", "True", 1).unwrap();
    double.apply(&virtual_service("good", 303));
    let after =
        eventually("a status", || condition(&double, "virtualservices", "good", "Accepted", "True", 2)).await;
    assert_eq!(after["lastTransitionTime"], before["lastTransitionTime"]);
    assert_eq!((patches(&double, "good"), patches(&double, "door")), (2, 1));
}

#[tokio::test]
async fn a_broken_change_is_told_with_its_generation_and_counted_when_it_comes_back() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.apply(&virtual_service("a", 301));
    let _gateway = Gateway::start(&double, "one", quick());
    eventually("a status", || condition(&double, "virtualservices", "a", "Programmed", "True", 1)).await;
    double.apply(&virtual_service("a", 999));
    let programmed =
        eventually("a refusal", || condition(&double, "virtualservices", "a", "Programmed", "False", 2))
            .await;
    assert_eq!(programmed["message"], "the version accepted last is served");
    eventually("a refusal", || condition(&double, "virtualservices", "a", "Accepted", "False", 2)).await;
    eventually("an Event", || double.objects("events").into_iter().next()).await;
    double.apply(&virtual_service("a", 301));
    eventually("a status", || condition(&double, "virtualservices", "a", "Programmed", "True", 3)).await;
    let object = double.object("virtualservices", "istio-system", "a").unwrap();
    assert!(object["status"]["validationMessages"].is_null());
    double.apply(&virtual_service("a", 999));
    eventually("a series", || {
        double.objects("events").into_iter().find(|event| event["series"]["count"] == 2)
    })
    .await;
    assert_eq!(double.objects("events").len(), 1);
}

#[tokio::test]
async fn what_others_write_stays_though_they_were_faster() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.meddle(json!({"type": "Reconciled", "status": "True"}));
    double.meddle(json!({"type": "PassedValidation", "status": "False"}));
    let gateway = Gateway::start(&double, "one", quick());
    eventually("a status", || condition(&double, "gateways", "door", "Programmed", "True", 1)).await;
    let object = double.object("gateways", "istio-system", "door").unwrap();
    let kinds: Vec<&str> = object["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["PassedValidation", "Reconciled", "Accepted", "ResolvedRefs", "Programmed"]);
    assert_eq!(gateway.metric("limen_status_writes_total{result=\"conflict\"}").as_deref(), Some("2"));
}

#[tokio::test]
async fn of_two_gateways_one_writes_and_the_other_when_it_has_left() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    let one = Gateway::start(&double, "one", quick());
    eventually("a status", || condition(&double, "gateways", "door", "Programmed", "True", 1)).await;
    let two = Gateway::start(&double, "two", quick());
    let holder = || {
        let lease = double.object("leases", "istio-system", "limen-status-ingressgateway")?;
        Some(lease["spec"]["holderIdentity"].as_str()?.to_owned())
    };
    eventually("it was refused", || two.metric("limen_status_lease_requests_total{result=\"conflict\"}"))
        .await;
    double.apply(LOST);
    let event = eventually("an Event", || double.objects("events").into_iter().next()).await;
    assert_eq!(event["reportingInstance"], "one");
    assert!(holder().unwrap().starts_with("one_"));
    assert_eq!(two.metric("limen_status_leader").as_deref(), Some("0"));
    eventually("a status", || condition(&double, "virtualservices", "lost", "Accepted", "True", 1)).await;
    assert_eq!((patches(&double, "door"), patches(&double, "lost")), (1, 1), "written by one only");
    one.leave().await;
    eventually("the other", || holder().filter(|holder| holder.starts_with("two_"))).await;
    double.apply(&virtual_service("b", 301));
    eventually("a status", || condition(&double, "virtualservices", "b", "Accepted", "True", 1)).await;
    assert_eq!(
        (patches(&double, "door"), patches(&double, "lost")),
        (1, 1),
        "what is said already is not written"
    );
    assert_eq!(double.objects("events").len(), 1);
    assert_eq!(two.metric("limen_status_leader").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_gateway_that_died_is_followed_when_its_lease_has_expired() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    let one = Gateway::start(&double, "one", quick());
    eventually("a status", || condition(&double, "gateways", "door", "Programmed", "True", 1)).await;
    let begin = Instant::now();
    drop(one);
    let _two = Gateway::start(&double, "two", quick());
    double.apply(&virtual_service("b", 301));
    eventually("a status", || condition(&double, "virtualservices", "b", "Accepted", "True", 1)).await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "the lease lasts a second");
}

#[tokio::test]
async fn what_may_not_be_written_is_left_alone_and_the_rest_is_written() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.apply(LOST);
    double.forbid("patch", "gateways/status");
    double.forbid("create", "events");
    let gateway = Gateway::start(&double, "one", quick());
    eventually("a status", || condition(&double, "virtualservices", "lost", "Accepted", "True", 1)).await;
    eventually("refused", || gateway.metric("limen_status_writes_total{result=\"refused\"}")).await;
    eventually("refused", || gateway.metric("limen_status_events_total{result=\"refused\"}")).await;
    assert!(double.object("gateways", "istio-system", "door").unwrap()["status"].is_null());
    double.allow_all();
    eventually("a status", || condition(&double, "gateways", "door", "Programmed", "True", 1)).await;
    eventually("an Event", || double.objects("events").into_iter().next()).await;
}

#[tokio::test]
async fn without_the_lease_nothing_is_written() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.forbid("get", "leases");
    let gateway = Gateway::start(&double, "one", quick());
    let refused = "limen_status_lease_requests_total{result=\"refused\"}";
    eventually("refused", || gateway.metric(refused).filter(|count| count.parse::<u64>().unwrap() > 3)).await;
    assert_eq!(double.writes(), []);
    assert_eq!(gateway.metric("limen_config_generation").as_deref(), Some("1"), "it is served all the same");
    double.allow_all();
    eventually("a status", || condition(&double, "gateways", "door", "Programmed", "True", 1)).await;
}

#[tokio::test]
async fn many_are_read_by_their_list_and_written_no_faster_than_is_set() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    for n in 0..30 {
        double.apply(&virtual_service(&format!("v{n}"), 301));
    }
    let begin = Instant::now();
    let slow = Timing { writes: (Duration::from_millis(50), 5), ..quick() };
    let _gateway = Gateway::start(&double, "one", slow);
    for n in 0..30 {
        let name = format!("v{n}");
        eventually("a status", || condition(&double, "virtualservices", &name, "Programmed", "True", 1))
            .await;
    }
    // 31 writes, a list and a look at the Gateway: 5 at once, the others one by one.
    let least = Duration::from_millis(50) * 25;
    assert!(begin.elapsed() >= least, "{:?}", begin.elapsed());
    let looks = double
        .requests()
        .into_iter()
        .filter(|asked| asked.contains("/virtualservices/v") && !asked.contains("/status"))
        .count();
    assert_eq!(looks, 0, "none is asked for by itself");
}

#[tokio::test]
async fn a_resource_that_is_no_business_of_this_gateway_any_more_is_cleared() {
    let double = Double::start(ALL).await;
    let second = GATEWAY.replace("door", "second").replace("'*'", "b.example");
    double.apply(GATEWAY);
    double.apply(&second);
    double.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: istio-system, labels: {istio: other}}\n",
    );
    let _gateway = Gateway::start(&double, "one", quick());
    eventually("a status", || condition(&double, "gateways", "second", "Programmed", "True", 1)).await;
    double.apply(&second.replace("istio: ingressgateway", "istio: other"));
    eventually("nothing", || {
        let object = double.object("gateways", "istio-system", "second")?;
        object["status"]["conditions"].as_array()?.is_empty().then_some(())
    })
    .await;
    double.delete("gateways", "istio-system", "door");
    double.apply(&virtual_service("b", 301));
    eventually("a refusal", || condition(&double, "virtualservices", "b", "ResolvedRefs", "False", 1)).await;
}

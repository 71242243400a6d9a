//! The double itself, by plain HTTP: what the API's documentation says of lists and watches.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::double::{ALL, Double, Gone};

async fn request(
    double: &Double,
    method: Method,
    path: &str,
    header: (&str, &str),
    body: &Value,
) -> http::Response<Incoming> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request =
        Request::builder().method(method).uri(format!("{}{path}", double.url())).header(header.0, header.1);
    client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
}

async fn ask(double: &Double, path: &str, accept: &str) -> http::Response<Incoming> {
    request(double, Method::GET, path, ("accept", accept), &Value::Null).await
}

/// Status, and the reason of a refusal.
async fn write(double: &Double, method: Method, path: &str, body: Value) -> (u16, String) {
    let content = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let answer = request(double, method, path, ("content-type", content), &body).await;
    let status = answer.status().as_u16();
    let body: Value =
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    (status, body["reason"].as_str().unwrap_or("").to_owned())
}

async fn get(double: &Double, path: &str) -> (u16, Value) {
    let answer = ask(double, path, "application/json").await;
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

/// The lines of a watch.
struct Lines(Incoming, Vec<u8>);

impl Lines {
    async fn of(double: &Double, path: &str) -> Lines {
        Lines(ask(double, path, "application/json").await.into_body(), Vec::new())
    }

    /// The next event; `None` when the stream has ended or was cut.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.1.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.1.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = timeout(Duration::from_secs(10), self.0.frame()).await.expect("an event")?.ok()?;
            self.1.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: '{value}'}}\n")
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_moment() {
    let double = Double::start(ALL).await;
    for name in ["a", "b", "c"] {
        double.apply(&config_map(name, "1"));
    }
    let (_, first) = get(&double, "/api/v1/configmaps?limit=2").await;
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    assert!(first["items"][0]["kind"].is_null(), "members of a list of built-in kinds have no kind");
    double.apply(&config_map("c", "2"));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = get(&double, &format!("/api/v1/configmaps?limit=2&continue={token}")).await;
    assert_eq!(second["items"][0]["data"]["key"], "1", "the moment of the first page");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"]["continue"].is_null());
    let (status, refused) = get(&double, "/api/v1/configmaps?limit=2&continue=old").await;
    assert_eq!((status, refused["reason"].as_str()), (410, Some("Expired")));
    let (_, anew) = get(&double, "/api/v1/configmaps?limit=2").await;
    assert_ne!(
        anew["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"],
        "a list begun anew is of now"
    );
    double.expire_pages(1);
    let token = anew["metadata"]["continue"].as_str().unwrap();
    let path = format!("/api/v1/configmaps?limit=2&continue={token}");
    assert_eq!(get(&double, &path).await.0, 410);
    assert_eq!(get(&double, &path).await.1["items"][0]["data"]["key"], "2");
}

#[tokio::test]
async fn a_change_of_another_type_changes_no_list_and_what_came_since_is_watched() {
    let double = Double::start(ALL).await;
    double.apply(&config_map("a", "1"));
    let (_, first) = get(&double, "/api/v1/configmaps").await;
    double.apply(GATEWAY);
    let (_, second) = get(&double, "/api/v1/configmaps").await;
    assert_eq!(first, second);
    let version = second["metadata"]["resourceVersion"].as_str().unwrap();
    double.apply(&config_map("a", "2"));
    let mut watch =
        Lines::of(&double, &format!("/api/v1/configmaps?watch=true&resourceVersion={version}")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["data"]["key"], "2");
    // A version that is forgotten is in no list any more, or a watch from it would never begin.
    double.compact(Gone::Status);
    let (_, third) = get(&double, "/api/v1/configmaps").await;
    let version = third["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch =
        Lines::of(&double, &format!("/api/v1/configmaps?watch=true&resourceVersion={version}")).await;
    double.apply(&config_map("a", "3"));
    assert_eq!(watch.next().await.unwrap()["object"]["data"]["key"], "3");
}

#[tokio::test]
async fn a_token_that_is_asked_for_must_be_borne() {
    let double = Double::start(ALL).await;
    double.require_token("one");
    for (header, wanted) in [("Bearer one", 200), ("Bearer two", 401), ("", 401)] {
        let answer =
            request(&double, Method::GET, "/api/v1/pods", ("authorization", header), &Value::Null).await;
        assert_eq!(answer.status().as_u16(), wanted, "{header:?}");
    }
    assert_eq!(double.unauthorized(), 2);
}

#[tokio::test]
async fn a_watch_goes_on_from_a_version_and_tells_each_change() {
    let double = Double::start(ALL).await;
    double.apply(&config_map("a", "1"));
    let (_, list) = get(&double, "/api/v1/configmaps").await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/configmaps?watch=true&allowWatchBookmarks=true&resourceVersion={version}");
    let mut watch = Lines::of(&double, &path).await;
    double.be_slow();
    double.apply(&config_map("b", "1"));
    double.apply(&config_map("a", "2"));
    double.delete("configmaps", "default", "a");
    for (kind, name) in [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")] {
        let event = watch.next().await.unwrap();
        assert_eq!(
            (event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap()),
            (kind, name)
        );
    }
    double.bookmark();
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert!(bookmark["object"]["metadata"]["name"].is_null());
    double.disconnect();
    assert!(watch.next().await.is_none(), "a stream that is cut ends");
}

#[tokio::test]
async fn a_version_that_is_too_old_is_gone_by_event_or_by_status() {
    let double = Double::start(ALL).await;
    double.compact(Gone::Event);
    let path = "/api/v1/configmaps?watch=true&resourceVersion=1";
    let mut watch = Lines::of(&double, path).await;
    let event = watch.next().await.unwrap();
    assert_eq!((event["type"].as_str(), event["object"]["code"].as_u64()), (Some("ERROR"), Some(410)));
    assert!(watch.next().await.is_none());
    double.compact(Gone::Status);
    assert_eq!(get(&double, path).await.0, 410);
}

#[tokio::test]
async fn metadata_is_all_that_is_given_when_that_is_asked() {
    let double = Double::start(ALL).await;
    double.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: x}}\nspec: {nodeName: n}\n");
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let body = ask(&double, "/api/v1/pods", accept).await.into_body().collect().await.unwrap().to_bytes();
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["labels"]["app"], "x");
    assert!(list["items"][0]["spec"].is_null());
}

#[tokio::test]
async fn only_what_is_installed_is_discovered() {
    let double = Double::start(ALL.into_iter().filter(|of| of.kind != "Sidecar")).await;
    let (_, groups) = get(&double, "/apis").await;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "networking.istio.io"));
    let (_, listed) = get(&double, "/apis/networking.istio.io/v1").await;
    let names: Vec<&str> =
        listed["resources"].as_array().unwrap().iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"gateways") && !names.contains(&"sidecars"));
    assert_eq!(get(&double, "/apis/networking.istio.io/v1/sidecars").await.0, 404);
    double.apply(GATEWAY);
    double.uninstall("Gateway");
    assert_eq!(get(&double, "/apis/networking.istio.io/v1/gateways").await.0, 404);
    double.install(crate::double::istio("v1", "Gateway", "gateways"));
    let (_, listed) = get(&double, "/apis/networking.istio.io/v1/gateways").await;
    assert_eq!(listed["items"], json!([]), "a definition takes its objects with it");
}

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec: {servers: []}
";

#[tokio::test]
async fn the_status_has_a_way_of_its_own() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    let path = "/apis/networking.istio.io/v1/namespaces/default/gateways/door";
    let patch = json!({"status": {"conditions": [{"type": "A"}]}, "spec": {"servers": [1]}, "metadata": {"labels": {"a": "b"}}});
    assert_eq!(write(&double, Method::PATCH, &format!("{path}/status"), patch).await.0, 200);
    let (_, object) = get(&double, path).await;
    assert_eq!(
        (&object["status"]["conditions"][0]["type"], &object["spec"]["servers"]),
        (&json!("A"), &json!([]))
    );
    assert!(object["metadata"]["labels"].is_null());
    assert_eq!(object["metadata"]["generation"], 1, "a status is no new generation");
    // Whoever applies the resource leaves the status.
    double.apply(&GATEWAY.replace("[]", "[{}]"));
    let (_, object) = get(&double, path).await;
    assert_eq!(
        (&object["metadata"]["generation"], &object["status"]["conditions"][0]["type"]),
        (&json!(2), &json!("A"))
    );
    let remove = json!({"status": {"conditions": null}});
    assert_eq!(write(&double, Method::PATCH, &format!("{path}/status"), remove).await.0, 200);
    assert_eq!(get(&double, path).await.1["status"], json!({}));
    assert_eq!(
        write(&double, Method::PATCH, &format!("{path}x/status"), json!({})).await,
        (404, "NotFound".into())
    );
}

#[tokio::test]
async fn a_write_of_an_old_version_is_a_conflict() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    let path = "/apis/networking.istio.io/v1/namespaces/default/gateways/door";
    let version = get(&double, path).await.1["metadata"]["resourceVersion"].clone();
    let patch = |version: &Value| json!({"metadata": {"resourceVersion": version}, "status": {"x": version}});
    assert_eq!(write(&double, Method::PATCH, &format!("{path}/status"), patch(&version)).await.0, 200);
    let refused = write(&double, Method::PATCH, &format!("{path}/status"), patch(&version)).await;
    assert_eq!(refused, (409, "Conflict".into()));

    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let mut lease =
        json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15}});
    assert_eq!(write(&double, Method::POST, leases, lease.clone()).await.0, 201);
    assert_eq!(write(&double, Method::POST, leases, lease.clone()).await, (409, "AlreadyExists".into()));
    let path = format!("{leases}/a");
    let first = get(&double, &path).await.1;
    lease["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"].clone();
    lease["spec"]["holderIdentity"] = json!("two");
    assert_eq!(write(&double, Method::PUT, &path, lease.clone()).await.0, 200);
    assert_eq!(write(&double, Method::PUT, &path, lease.clone()).await, (409, "Conflict".into()));
    lease["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    lease["spec"]["leaseDurationSeconds"] = json!(0);
    assert_eq!(write(&double, Method::PUT, &path, lease).await, (422, "Invalid".into()));
}

#[tokio::test]
async fn an_event_is_whole_and_changes_in_its_series_only() {
    let double = Double::start(ALL).await;
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let mut event = json!({"metadata": {"name": "a", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "action": "A", "reason": "R", "type": "Warning", "note": "n", "regarding": {"namespace": "default"},
        "reportingController": "c", "reportingInstance": ""});
    assert_eq!(write(&double, Method::POST, events, event.clone()).await, (422, "Invalid".into()));
    event["reportingInstance"] = json!("i");
    assert_eq!(write(&double, Method::POST, events, event).await.0, 201);
    let path = format!("{events}/a");
    let series =
        |count: u32| json!({"series": {"count": count, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    assert_eq!(write(&double, Method::PATCH, &path, series(1)).await, (422, "Invalid".into()));
    assert_eq!(write(&double, Method::PATCH, &path, series(2)).await.0, 200);
    assert_eq!(write(&double, Method::PATCH, &path, json!({"note": "other"})).await, (422, "Invalid".into()));
}

#[tokio::test]
async fn what_is_forbidden_is_refused_with_verb_and_resource() {
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.forbid("patch", "gateways/status");
    double.forbid("list", "gateways");
    let path = "/apis/networking.istio.io/v1/namespaces/default/gateways/door";
    assert_eq!(
        write(&double, Method::PATCH, &format!("{path}/status"), json!({})).await,
        (403, "Forbidden".into())
    );
    let (status, refused) = get(&double, "/apis/networking.istio.io/v1/gateways").await;
    assert!(
        status == 403 && refused["message"].as_str().unwrap().contains("cannot list resource \"gateways\"")
    );
    assert_eq!(get(&double, path).await.0, 200);
}

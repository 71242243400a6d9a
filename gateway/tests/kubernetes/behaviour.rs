//! The double itself, by plain HTTP: what the API's documentation says of lists and watches.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::time::timeout;

use crate::double::{ALL, Double, Gone};

async fn ask(double: &Double, path: &str, accept: &str) -> http::Response<Incoming> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let request =
        Request::get(format!("{}{path}", double.url())).header("accept", accept).body(Empty::new()).unwrap();
    client.request(request).await.unwrap()
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
}

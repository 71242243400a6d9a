//! A Kubernetes API server for tests: discovery, lists in pages, watches, writes; over plain HTTP, as the real one answers.
//!
//! What it does is what the API's documentation says ("Kubernetes API Concepts": efficient detection of changes, watch bookmarks,
//! retrieving large results in chunks, 410 Gone responses), and `behaviour.rs` holds it to that.

mod change;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use change::Target;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A resource type that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Type {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
}

const fn core(kind: &'static str, plural: &'static str) -> Type {
    Type { group: "", version: "v1", kind, plural, namespaced: true }
}

/// A kind of Istio's networking API in a version.
pub(crate) const fn istio(version: &'static str, kind: &'static str, plural: &'static str) -> Type {
    Type { group: "networking.istio.io", version, kind, plural, namespaced: true }
}

/// What a cluster with Istio's CRDs serves.
pub(crate) const ALL: [Type; 14] = [
    core("Service", "services"),
    core("Secret", "secrets"),
    core("ConfigMap", "configmaps"),
    core("Pod", "pods"),
    Type { namespaced: false, ..core("Namespace", "namespaces") },
    Type { group: "discovery.k8s.io", ..core("EndpointSlice", "endpointslices") },
    Type { group: "coordination.k8s.io", ..core("Lease", "leases") },
    Type { group: "events.k8s.io", ..core("Event", "events") },
    istio("v1", "Gateway", "gateways"),
    istio("v1", "VirtualService", "virtualservices"),
    istio("v1", "DestinationRule", "destinationrules"),
    istio("v1", "ServiceEntry", "serviceentries"),
    istio("v1", "WorkloadEntry", "workloadentries"),
    istio("v1", "Sidecar", "sidecars"),
];

/// How a watch whose version is too old is told so. Servers do both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Gone {
    /// By an ERROR event in a stream that began well.
    #[default]
    Event,
    /// By the status of the answer.
    Status,
}

#[derive(Default)]
struct State {
    types: BTreeSet<Type>,
    objects: BTreeMap<(String, String, String), Value>,
    version: u64,
    events: Vec<Event>,
    /// Events up to this version are forgotten.
    compacted: u64,
    gone: Gone,
    /// Watches end when this changes.
    epoch: u64,
    /// Bookmarks are due when this changes.
    bookmarks: u64,
    /// Streams deliver events in two pieces.
    slow: bool,
    /// Answers to lists wait for this to be false.
    held: bool,
    /// What was asked for: path and query.
    requests: Vec<String>,
    /// What was written: method, resource and name, body.
    writes: Vec<(String, String, Value)>,
    /// What nobody may do: verb and resource.
    forbidden: BTreeSet<(String, String)>,
    /// Conditions that somebody else writes just before the next writes of a status.
    meddling: Vec<Value>,
    /// Rests of lists that were begun.
    rests: BTreeMap<String, (u64, Vec<Value>)>,
    /// Answers to lists as of a version, by what was asked for: a large list is written once.
    written: (u64, BTreeMap<(String, bool), Bytes>),
}

#[derive(Clone)]
struct Event {
    version: u64,
    plural: String,
    kind: &'static str,
    object: Value,
}

/// The server. Its state outlives its being stopped.
pub(crate) struct Double {
    state: Arc<Mutex<State>>,
    tick: watch::Sender<u64>,
    address: SocketAddr,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Double {
    /// A server of these types.
    pub(crate) async fn start(types: impl IntoIterator<Item = Type>) -> Double {
        let state = State { types: types.into_iter().collect(), version: 100, ..State::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut double = Double {
            state: Arc::new(Mutex::new(state)),
            tick: watch::Sender::new(0),
            address,
            serving: None,
        };
        double.serve(listener);
        double
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig of this server, as a file in a folder.
    pub(crate) fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let (path, url) = (folder.join("kubeconfig"), self.url());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: double\nclusters: [{{name: double, cluster: {{server: '{url}'}}}}]\n\
             users: [{{name: nobody, user: {{}}}}]\ncontexts: [{{name: double, context: {{cluster: double, user: nobody}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn serve(&mut self, listener: TcpListener) {
        let (state, tick) = (Arc::clone(&self.state), self.tick.clone());
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tick) = (Arc::clone(&state), tick.clone());
                connections.spawn(async move {
                    let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let (state, tick) = (Arc::clone(&state), tick.clone());
                        async move { Ok::<_, Infallible>(answer(state, tick, request).await) }
                    });
                    let _closed = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        }));
    }

    /// Cuts every connection and takes no more.
    pub(crate) async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _cut = serving.await;
        }
    }

    /// Serves again at the same address.
    pub(crate) async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state());
        self.tick.send_modify(|tick| *tick += 1);
        done
    }

    /// Creates or replaces the objects of a YAML text, as `kubectl apply` does.
    pub(crate) fn apply(&self, yaml: &str) {
        use serde::Deserialize as _;
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let object = Value::deserialize(document).unwrap();
            if !object.is_null() {
                self.put(object);
            }
        }
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, mut object: Value) {
        let kind = object["kind"].as_str().unwrap().to_owned();
        self.change(|state| {
            let of = *state
                .types
                .iter()
                .find(|of| of.kind == kind)
                .unwrap_or_else(|| panic!("{kind} is not served"));
            let metadata = &object["metadata"];
            let namespace = match metadata["namespace"].as_str() {
                _ if !of.namespaced => String::new(),
                Some(namespace) => namespace.to_owned(),
                None => "default".to_owned(),
            };
            let name = metadata["name"].as_str().unwrap().to_owned();
            let key = (of.plural.to_owned(), namespace, name);
            // Where the status has a way of its own, this one does not change it.
            let status = state.objects.get(&key).and_then(|old| old.get("status")).cloned();
            if let Some(status) = status.filter(|_| of.group.ends_with("istio.io")) {
                object["status"] = status;
            }
            change::put(state, of, key, object);
        });
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.change(|state| {
            let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
            let mut object = state.objects.remove(&key).unwrap();
            state.version += 1;
            let version = state.version;
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            state.events.push(Event { version, plural: plural.to_owned(), kind: "DELETED", object });
        });
    }

    /// Serves one more type.
    pub(crate) fn install(&self, of: Type) {
        self.change(|state| state.types.insert(of));
    }

    /// Forgets what happened so far: watches that would have to begin before are gone.
    pub(crate) fn compact(&self, gone: Gone) {
        self.change(|state| {
            state.version += 1;
            state.compacted = state.version;
            state.gone = gone;
            state.events.clear();
            state.rests.clear();
        });
    }

    /// Ends every watch in the middle of its stream.
    pub(crate) fn disconnect(&self) {
        self.change(|state| state.epoch += 1);
    }

    /// Sends a bookmark to every watch that allows it.
    pub(crate) fn bookmark(&self) {
        self.change(|state| {
            state.version += 1;
            state.bookmarks += 1;
        });
    }

    /// Delivers events in pieces.
    pub(crate) fn be_slow(&self) {
        self.change(|state| state.slow = true);
    }

    /// Lets lists wait, or go on.
    pub(crate) fn hold_lists(&self, held: bool) {
        self.change(|state| state.held = held);
    }

    /// Takes a right away from everybody.
    pub(crate) fn forbid(&self, verb: &str, resource: &str) {
        self.change(|state| state.forbidden.insert((verb.to_owned(), resource.to_owned())));
    }

    /// Gives all rights back.
    pub(crate) fn allow_all(&self) {
        self.change(|state| state.forbidden.clear());
    }

    /// Lets somebody else write a condition just before the next write of a status.
    pub(crate) fn meddle(&self, condition: Value) {
        self.change(|state| state.meddling.push(condition));
    }

    /// An object as it is.
    pub(crate) fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state().objects.get(&key).cloned()
    }

    /// All objects of a type.
    pub(crate) fn objects(&self, plural: &str) -> Vec<Value> {
        let state = self.state();
        let of = state.objects.iter().filter(|((known, ..), _)| known == plural);
        of.map(|(_, object)| object.clone()).collect()
    }

    /// What was written over HTTP so far: method, resource and name, body.
    pub(crate) fn writes(&self) -> Vec<(String, String, Value)> {
        self.state().writes.clone()
    }

    /// What was asked for so far: path and query.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    answered(status, Bytes::from(value.to_string()))
}

fn answered(status: StatusCode, body: Bytes) -> Response<Body> {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code})
}

fn refusal(code: u16, reason: &str, message: &str) -> Response<Body> {
    whole(StatusCode::from_u16(code).unwrap(), &status(code, reason, message))
}

/// What a request is about.
struct Ask {
    of: Type,
    namespace: Option<String>,
    name: Option<String>,
    query: BTreeMap<String, String>,
    metadata_only: bool,
}

impl Ask {
    fn wants(&self, object: &Value) -> bool {
        let field = |field: &str| object["metadata"][field].as_str().unwrap_or("");
        self.namespace.as_deref().is_none_or(|namespace| namespace == field("namespace"))
            && self.name.as_deref().is_none_or(|name| name == field("name"))
    }

    /// Objects of a list have no kind of their own when they are Kubernetes' own.
    fn shown(&self, object: &Value, in_list: bool) -> Value {
        if self.metadata_only {
            return json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
        }
        let mut object = object.clone();
        if in_list && !self.of.group.ends_with("istio.io") {
            let fields = object.as_object_mut().unwrap();
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        object
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.query.get(name).and_then(|value| value.parse().ok())
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    tick: watch::Sender<u64>,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut changes = tick.subscribe();
    let (head, body) = request.into_parts();
    let types: Vec<Type> = {
        let mut state = state.lock().unwrap();
        state.requests.push(head.uri.to_string());
        state.types.iter().copied().collect()
    };
    let path: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
    let (group, version, rest) = match path.as_slice() {
        ["apis"] => return whole(StatusCode::OK, &groups(&types)),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        ["api", version, rest @ ..] => ("", *version, rest),
        _ => return nowhere(),
    };
    let served: Vec<Type> =
        types.into_iter().filter(|of| of.group == group && of.version == version).collect();
    if rest.is_empty() && !served.is_empty() {
        return whole(StatusCode::OK, &resources(group, version, &served));
    }
    let (namespace, plural, name, status) = match rest {
        ["namespaces", namespace, plural] => (Some(*namespace), *plural, None, false),
        ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name), false),
        ["namespaces", namespace, plural, name, "status"] => (Some(*namespace), *plural, Some(*name), true),
        [plural] => (None, *plural, None, false),
        _ => return nowhere(),
    };
    let Some(of) = served.into_iter().find(|of| of.plural == plural) else { return nowhere() };
    let query: BTreeMap<String, String> =
        head.uri.query().unwrap_or("").split('&').filter_map(pair).collect();
    let watch = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
    let target = Target { of, namespace: namespace.unwrap_or(""), name, status };
    let verb = change::verb(&head.method, name.is_some(), watch);
    if let Some(refused) = change::forbidden(&state.lock().unwrap(), verb, &target) {
        return refused;
    }
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    if head.method != Method::GET {
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap();
        let written =
            change::write(&mut state.lock().unwrap(), &target, &head.method, &header("content-type"), &body);
        tick.send_modify(|tick| *tick += 1);
        return written;
    }
    if name.is_some() {
        return change::get(&state.lock().unwrap(), &target);
    }
    let name =
        query.get("fieldSelector").and_then(|text| text.strip_prefix("metadata.name=")).map(str::to_owned);
    let metadata_only = header("accept").contains("as=PartialObjectMetadata");
    let ask = Ask { of, namespace: namespace.map(str::to_owned), name, query, metadata_only };
    if watch {
        return watching::stream(state, changes, ask);
    }
    while state.lock().unwrap().held {
        if changes.changed().await.is_err() {
            break;
        }
    }
    list(&mut state.lock().unwrap(), &ask, head.uri.to_string())
}

fn nowhere() -> Response<Body> {
    refusal(404, "NotFound", "the server could not find the requested resource")
}

/// A parameter; what clients send of these has no escape but that of an equals sign.
fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_owned(), value.replace("%3D", "=")))
}

fn groups(types: &[Type]) -> Value {
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for of in types.iter().filter(|of| !of.group.is_empty()) {
        groups.entry(of.group).or_default().insert(of.version);
    }
    let groups: Vec<Value> = groups
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
                .collect();
            json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(group: &str, version: &str, types: &[Type]) -> Value {
    let resources: Vec<Value> = types
        .iter()
        .flat_map(|of| {
            let verbs = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
            [
                json!({"name": format!("{}/status", of.plural), "singularName": "", "namespaced": of.namespaced,
                    "kind": of.kind, "verbs": ["get", "patch", "update"]}),
                json!({"name": of.plural, "singularName": "", "namespaced": of.namespaced, "kind": of.kind, "verbs": verbs}),
            ]
        })
        .collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

/// What was asked for and its answer, once for each version of the state.
fn list(state: &mut State, ask: &Ask, uri: String) -> Response<Body> {
    if state.written.0 != state.version {
        state.written = (state.version, BTreeMap::new());
    }
    let asked = (uri, ask.metadata_only);
    if let Some(written) = state.written.1.get(&asked) {
        return answered(StatusCode::OK, written.clone());
    }
    let (status, value) = list_anew(state, ask);
    let body = Bytes::from(value.to_string());
    if status == StatusCode::OK {
        state.written.1.insert(asked, body.clone());
    }
    answered(status, body)
}

fn list_anew(state: &mut State, ask: &Ask) -> (StatusCode, Value) {
    let (version, mut items) = match ask.query.get("continue") {
        Some(token) => match state.rests.remove(token) {
            Some(rest) => rest,
            None => {
                let message = "The provided continue parameter is too old";
                return (StatusCode::GONE, status(410, "Expired", message));
            }
        },
        None => {
            let objects = state.objects.iter().filter(|((plural, ..), _)| plural == ask.of.plural);
            let wanted = objects.map(|(_, object)| object).filter(|object| ask.wants(object));
            (state.version, wanted.map(|object| ask.shown(object, true)).collect())
        }
    };
    let limit = ask.number("limit").map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if items.len() > limit && limit > 0 {
        let rest = items.split_off(limit);
        let token = format!("token-{version}-{}-{}", ask.of.plural, rest.len());
        metadata["continue"] = json!(token);
        metadata["remainingItemCount"] = json!(rest.len());
        state.rests.insert(token, (version, rest));
    }
    let (kind, api_version) = if ask.metadata_only {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
    } else {
        let group = if ask.of.group.is_empty() { String::new() } else { format!("{}/", ask.of.group) };
        (format!("{}List", ask.of.kind), format!("{group}{}", ask.of.version))
    };
    let list = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items});
    (StatusCode::OK, list)
}

//! A Kubernetes API server for tests: discovery, lists in pages, watches, writes; over plain HTTP, as the real one answers.
//!
//! What it does is what the API's documentation says ("Kubernetes API Concepts": efficient detection of changes, watch bookmarks,
//! retrieving large results in chunks, 410 Gone responses), and `behaviour.rs` holds it to that.

mod answer;
mod change;
mod list;
mod types;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use answer::answer;
pub(crate) use types::{ALL, Type, istio};

type Body = UnsyncBoxBody<bytes::Bytes, std::io::Error>;

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
    objects: BTreeMap<(String, String, String), Arc<Value>>,
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
    /// Pages of lists that are refused as too old, from now on.
    expiring: usize,
    /// The token that requests must bear.
    token: Option<String>,
    /// What was asked for: path and query.
    requests: Vec<String>,
    /// Requests with another token, or none.
    unauthorized: usize,
    /// Types whose objects were asked for as a whole, not as metadata.
    read_whole: BTreeSet<&'static str>,
    /// What was written: method, resource and name, body.
    writes: Vec<(String, String, Value)>,
    /// With what the next requests are refused, whatever they are.
    overloaded: std::collections::VecDeque<u16>,
    /// What nobody may do: verb and resource.
    forbidden: BTreeSet<(String, String)>,
    /// Conditions that somebody else writes just before the next writes of a status.
    meddling: Vec<Value>,
    /// Rests of lists that were begun.
    rests: BTreeMap<String, (u64, Vec<Arc<Value>>)>,
    /// The version of the last change of each type.
    changed: BTreeMap<String, u64>,
    /// Answers to lists, by what was asked for and whether as metadata: a large list is written once.
    written: BTreeMap<(String, bool), list::Written>,
}

impl State {
    /// Keeps an event for those who watch.
    fn tell(&mut self, event: Event) {
        self.changed.insert(event.plural.clone(), event.version);
        self.events.push(event);
    }
}

#[derive(Clone)]
struct Event {
    version: u64,
    plural: String,
    kind: &'static str,
    object: Arc<Value>,
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

    /// A kubeconfig of this server, as a file in a folder; the user is a YAML object with credentials.
    pub(crate) fn kubeconfig(&self, folder: &Path, user: &str) -> PathBuf {
        let (path, url) = (folder.join("kubeconfig"), self.url());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: double\nclusters: [{{name: double, cluster: {{server: '{url}'}}}}]\n\
             users: [{{name: nobody, user: {user}}}]\ncontexts: [{{name: double, context: {{cluster: double, user: nobody}}}}]\n"
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
            let mut object = Arc::unwrap_or_clone(state.objects.remove(&key).unwrap());
            state.version += 1;
            let version = state.version;
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            state.tell(Event {
                version,
                plural: plural.to_owned(),
                kind: "DELETED",
                object: Arc::new(object),
            });
        });
    }

    /// Serves one more type.
    pub(crate) fn install(&self, of: Type) {
        self.change(|state| state.types.insert(of));
    }

    /// Serves a type no more. Its objects are gone, and its watches end.
    pub(crate) fn uninstall(&self, kind: &str) {
        self.change(|state| {
            let (gone, kept) = std::mem::take(&mut state.types).into_iter().partition(|of| of.kind == kind);
            let gone: BTreeSet<Type> = gone;
            state.types = kept;
            state.objects.retain(|(plural, ..), _| gone.iter().all(|of| of.plural != plural));
            state.written.clear();
            state.epoch += 1;
        });
    }

    /// Takes only requests that bear this token.
    pub(crate) fn require_token(&self, token: &str) {
        self.change(|state| state.token = Some(token.to_owned()));
    }

    /// Forgets what happened so far: watches that would have to begin before are gone.
    pub(crate) fn compact(&self, gone: Gone) {
        self.change(|state| {
            state.version += 1;
            state.compacted = state.version;
            state.gone = gone;
            state.events.clear();
            state.rests.clear();
            state.written.clear();
        });
    }

    /// Refuses the next pages of lists as too old, as a server does that forgets while a client reads.
    pub(crate) fn expire_pages(&self, pages: usize) {
        self.change(|state| state.expiring = pages);
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

    /// The next requests are refused with these statuses, whatever they are.
    pub(crate) fn be_overloaded(&self, statuses: &[u16]) {
        self.change(|state| state.overloaded.extend(statuses));
    }

    /// How many of these are still to come.
    pub(crate) fn overload_left(&self) -> usize {
        self.state.lock().unwrap().overloaded.len()
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
        self.state().objects.get(&key).map(|object| Value::clone(object))
    }

    /// All objects of a type.
    pub(crate) fn objects(&self, plural: &str) -> Vec<Value> {
        let state = self.state();
        let of = state.objects.iter().filter(|((known, ..), _)| known == plural);
        of.map(|(_, object)| Value::clone(object)).collect()
    }

    /// What was written over HTTP so far: method, resource and name, body.
    pub(crate) fn writes(&self) -> Vec<(String, String, Value)> {
        self.state().writes.clone()
    }

    /// What was asked for so far: path and query.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// How many requests were refused for their token so far.
    pub(crate) fn unauthorized(&self) -> usize {
        self.state().unauthorized
    }

    /// Types (in the plural) whose objects were listed or watched as a whole so far.
    pub(crate) fn read_whole(&self) -> BTreeSet<&'static str> {
        self.state().read_whole.clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

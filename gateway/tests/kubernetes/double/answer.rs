//! From a request to what it is about, and the forms that answers have.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Body, State,
    change::{self, Target},
    list,
    types::{Type, groups, resources},
    watching,
};

pub(super) fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    answered(status, Bytes::from(value.to_string()))
}

pub(super) fn answered(status: StatusCode, body: Bytes) -> Response<Body> {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code})
}

pub(super) fn refusal(code: u16, reason: &str, message: &str) -> Response<Body> {
    whole(StatusCode::from_u16(code).unwrap(), &status(code, reason, message))
}

/// What a request is about.
pub(super) struct Ask {
    pub(super) of: Type,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) metadata_only: bool,
}

impl Ask {
    pub(super) fn wants(&self, object: &Value) -> bool {
        let field = |field: &str| object["metadata"][field].as_str().unwrap_or("");
        self.namespace.as_deref().is_none_or(|namespace| namespace == field("namespace"))
            && self.name.as_deref().is_none_or(|name| name == field("name"))
    }

    /// Objects of a list have no kind of their own when they are Kubernetes' own.
    pub(super) fn shown(&self, object: &Value, in_list: bool) -> Value {
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

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.query.get(name).and_then(|value| value.parse().ok())
    }
}

/// Answers a request.
pub(super) async fn answer(
    state: Arc<Mutex<State>>,
    tick: watch::Sender<u64>,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut changes = tick.subscribe();
    let (head, body) = request.into_parts();
    let types: Vec<Type> = {
        let mut state = state.lock().unwrap();
        state.requests.push(head.uri.to_string());
        let borne = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        if state.token.as_ref().is_some_and(|token| borne != Some(&*format!("Bearer {token}"))) {
            state.unauthorized += 1;
            return refusal(401, "Unauthorized", "Unauthorized");
        }
        if let Some(code) = state.overloaded.pop_front() {
            return refusal(code, "TooManyRequests", "come back later");
        }
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
    if !metadata_only {
        state.lock().unwrap().read_whole.insert(of.plural);
    }
    let ask = Ask { of, namespace: namespace.map(str::to_owned), name, query, metadata_only };
    if watch {
        return watching::stream(state, changes, ask);
    }
    while state.lock().unwrap().held {
        if changes.changed().await.is_err() {
            break;
        }
    }
    list::list(&mut state.lock().unwrap(), &ask, head.uri.to_string())
}

fn nowhere() -> Response<Body> {
    refusal(404, "NotFound", "the server could not find the requested resource")
}

/// A parameter; what clients send of these has no escape but that of an equals sign.
fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_owned(), value.replace("%3D", "=")))
}

//! Single objects, and what changes them: create, replace, merge patch, the status subresource, and who may do so.
//!
//! As documented: a write that names a version other than the present one is refused (409 Conflict), as is a name that is taken (409
//! AlreadyExists); the status subresource changes the status and nothing else; an Event changes in its series only.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    Body, Event, State, Type,
    answer::{refusal, whole},
};

/// What a request names.
pub(super) struct Target<'a> {
    pub(super) of: Type,
    pub(super) namespace: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) status: bool,
}

impl Target<'_> {
    fn key(&self, name: &str) -> (String, String, String) {
        (self.of.plural.to_owned(), self.namespace.to_owned(), name.to_owned())
    }

    /// As roles name it.
    fn resource(&self) -> String {
        format!("{}{}", self.of.plural, if self.status { "/status" } else { "" })
    }
}

/// The verb of a request, as roles name it.
pub(super) fn verb(method: &Method, named: bool, watch: bool) -> &'static str {
    match (method.as_str(), named) {
        ("GET", true) => "get",
        ("GET", false) if watch => "watch",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        _ => "delete",
    }
}

/// The answer where the right is missing.
pub(super) fn forbidden(state: &State, verb: &str, target: &Target<'_>) -> Option<http::Response<Body>> {
    let (resource, group) = (target.resource(), target.of.group);
    let is = |(v, r): &(String, String)| *v == verb && *r == resource;
    state.forbidden.iter().any(is).then(|| {
        let message = format!("{resource} is forbidden: User \"nobody\" cannot {verb} resource \"{resource}\" in API group \"{group}\"");
        refusal(403, "Forbidden", &message)
    })
}

pub(super) fn get(state: &State, target: &Target<'_>) -> http::Response<Body> {
    let name = target.name.unwrap();
    match state.objects.get(&target.key(name)) {
        Some(object) => whole(StatusCode::OK, object),
        None => not_found(target, name),
    }
}

fn not_found(target: &Target<'_>, name: &str) -> http::Response<Body> {
    refusal(404, "NotFound", &format!("{} \"{name}\" not found", target.of.plural))
}

/// Carries out a write.
pub(super) fn write(
    state: &mut State,
    target: &Target<'_>,
    method: &Method,
    content: &str,
    body: &Value,
) -> http::Response<Body> {
    state.writes.push((
        method.to_string(),
        format!("{}/{}", target.resource(), target.name.unwrap_or("")),
        body.clone(),
    ));
    let name = target.name.or(body["metadata"]["name"].as_str()).unwrap().to_owned();
    let key = target.key(&name);
    if target.status
        && let Some(condition) = state.meddling.pop()
    {
        // Somebody else's write comes first.
        let mut object = Value::clone(&state.objects[&key]);
        let theirs = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        object["status"]["conditions"] = theirs.into_iter().chain([condition]).collect();
        put(state, target.of, key.clone(), object);
    }
    let found = state.objects.get(&key).map(|object| Value::clone(object));
    let object = match (method.as_str(), found) {
        ("POST", Some(_)) => return refusal(409, "AlreadyExists", &format!("{name:?} already exists")),
        ("POST", None) => body.clone(),
        (_, None) => return not_found(target, &name),
        ("PUT" | "PATCH", Some(found)) => {
            let version = &body["metadata"]["resourceVersion"];
            if !version.is_null() && *version != found["metadata"]["resourceVersion"] {
                let message = "the object has been modified; please apply your changes to the latest version and try again";
                return refusal(409, "Conflict", message);
            }
            let mut object = body.clone();
            if method == Method::PATCH {
                if content != "application/merge-patch+json" {
                    return refusal(415, "UnsupportedMediaType", content);
                }
                object = found.clone();
                merge(&mut object, body);
            }
            if target.status {
                let status = object["status"].clone();
                object = found;
                object["status"] = status;
            } else if target.of.kind == "Event" {
                let mut same = object.clone();
                same["series"] = found["series"].clone();
                if same["note"] != found["note"] || same["reason"] != found["reason"] {
                    return refusal(422, "Invalid", "field is immutable");
                }
            }
            object
        }
        _ => return refusal(405, "MethodNotAllowed", ""),
    };
    if let Some(wrong) = wrong(target.of.kind, &object) {
        return refusal(422, "Invalid", wrong);
    }
    let kept = put(state, target.of, key, object);
    whole(if method == Method::POST { StatusCode::CREATED } else { StatusCode::OK }, &kept)
}

/// What validation of Kubernetes' own kinds says, as far as it matters here.
fn wrong(kind: &str, object: &Value) -> Option<&'static str> {
    let text = |field: &str, longest| {
        object[field].as_str().is_some_and(|text| !text.is_empty() && text.len() <= longest)
    };
    match kind {
        "Lease" if object["spec"]["leaseDurationSeconds"].as_i64().is_some_and(|s| s <= 0) => {
            Some("spec.leaseDurationSeconds: must be greater than 0")
        }
        "Event" => {
            let whole =
                ["action", "reason", "reportingController", "reportingInstance"].iter().all(|f| text(f, 128))
                    && text("note", 1024)
                    && object["eventTime"].is_string()
                    && ["Normal", "Warning"].iter().any(|known| object["type"] == *known)
                    && object["regarding"]["namespace"] == object["metadata"]["namespace"];
            let series = object["series"].is_null() || object["series"]["count"].as_i64() >= Some(2);
            (!whole || !series).then_some("the event is not whole")
        }
        _ => None,
    }
}

/// Keeps an object under a new version, and tells those who watch.
pub(super) fn put(
    state: &mut State,
    of: Type,
    key: (String, String, String),
    mut object: Value,
) -> Arc<Value> {
    state.version += 1;
    let version = state.version;
    let old = state.objects.get(&key);
    let metadata = object["metadata"].as_object_mut().unwrap();
    if of.namespaced {
        metadata.insert("namespace".into(), json!(key.1));
    }
    metadata.insert("uid".into(), json!(format!("uid-{}-{}", of.kind, key.2)));
    metadata.insert("resourceVersion".into(), json!(version.to_string()));
    metadata.insert("managedFields".into(), json!([{"manager": "kubectl", "operation": "Apply"}]));
    if of.group.ends_with("istio.io") {
        let before = old.map_or(0, |old| old["metadata"]["generation"].as_i64().unwrap());
        let same = old.is_some_and(|old| old["spec"] == object["spec"]);
        object["metadata"]["generation"] = json!(if same { before } else { before + 1 });
    }
    let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
    let object = Arc::new(object);
    state.objects.insert(key, Arc::clone(&object));
    state.tell(Event { version, plural: of.plural.to_owned(), kind, object: Arc::clone(&object) });
    object
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

//! One object as the Kubernetes API gives it: already a tree of values, with an identity and a version in place of a file.
//!
//! Invariant: it is read by the code that reads documents, so a resource means the same from a folder and from the API. What the
//! API server keeps in an object for itself does not count as a change of it.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

use super::{Parsed, document};
use crate::meta::{Kind, Origin};

/// Metadata that changes without the object: who wrote which field, versions, and what tools and controllers note down.
const BOOKKEEPING: [&str; 4] = ["managedFields", "resourceVersion", "generation", "selfLink"];
const NOTES: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

/// The one condition that says something of what is routed to; the others are about how the resource is served, ours among them.
const HEALTHY: &str = "Healthy";

/// An object of the API, not read yet. Its `Debug` shows who it is and nothing of its content: it may be a Secret.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Object(Value);

impl Object {
    /// Says of which kind it is: the members of a list leave that out.
    #[must_use]
    pub fn of_kind(mut self, api_version: &str, kind: &str) -> Object {
        if let Value::Mapping(fields) = &mut self.0 {
            fields.insert("apiVersion".into(), api_version.into());
            fields.insert("kind".into(), kind.into());
        }
        self
    }

    /// Drops what is long and of no use to a reader: managed fields, and the copy that `kubectl apply` keeps.
    #[must_use]
    pub fn trimmed(mut self) -> Object {
        if let Some(Value::Mapping(metadata)) = self.0.get_mut("metadata") {
            metadata.remove("managedFields");
            if let Some(Value::Mapping(annotations)) = metadata.get_mut("annotations") {
                for note in NOTES {
                    annotations.remove(note);
                }
            }
        }
        self
    }

    /// A text of its metadata, such as `name`; empty when there is none.
    #[must_use]
    pub fn metadata(&self, field: &str) -> &str {
        self.0.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str).unwrap_or("")
    }

    /// Where it comes from: its identity, its version and its generation.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let generation = self.0.get("metadata").and_then(|metadata| metadata.get("generation"));
        let generation = generation.and_then(Value::as_i64).unwrap_or(0);
        Origin::of_object(self.metadata("uid"), self.metadata("resourceVersion"), generation)
    }

    /// Reads it, as [`super::parse`] reads a document.
    #[must_use]
    pub fn read(self) -> Parsed {
        let mut parsed = Parsed::default();
        let (origin, hash) = (self.origin(), self.content_hash());
        document::object(self.0, &origin, hash, &mut parsed);
        parsed
    }

    fn content_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Value::Mapping(fields) = &self.0 else {
            self.0.hash(&mut hasher);
            return hasher.finish();
        };
        let kind = self.0.get("kind").and_then(Value::as_str).and_then(Kind::from_name);
        // Istio's kinds have a status for people; what is read of it is counted below.
        let status_is_for_people = kind.is_some_and(|kind| kind.group().ends_with("istio.io"));
        for (name, value) in fields {
            match (name.as_str(), value) {
                (Some("metadata"), Value::Mapping(metadata)) => hash_metadata(metadata, &mut hasher),
                // A status that says nothing of that is as none: else the first that is written on an object would change it.
                (Some("status"), status) if status_is_for_people => {
                    if kind == Some(Kind::WorkloadEntry)
                        && let Some(healthy) = document::conditions(&self.0).get(HEALTHY)
                    {
                        (HEALTHY, healthy).hash(&mut hasher);
                    }
                    if let Some(addresses) = status.get("addresses") {
                        ("addresses", addresses).hash(&mut hasher);
                    }
                }
                _ => (name, value).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

fn hash_metadata(metadata: &Mapping, hasher: &mut DefaultHasher) {
    for (name, value) in metadata {
        match (name.as_str(), value) {
            (Some(field), _) if BOOKKEEPING.contains(&field) => {}
            (Some("annotations"), Value::Mapping(annotations)) => {
                let kept: BTreeMap<&str, &Value> = annotations
                    .iter()
                    .filter_map(|(key, value)| Some((key.as_str()?, value)))
                    .filter(|(key, _)| !NOTES.contains(key))
                    .collect();
                kept.hash(hasher);
            }
            _ => (name, value).hash(hasher),
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.get("kind").and_then(Value::as_str).unwrap_or("object");
        write!(f, "Object({kind} {}/{})", self.metadata("namespace"), self.metadata("name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::AnyResource;

    fn object(json: &str) -> Object {
        serde_json::from_str(json).unwrap()
    }

    fn hash(json: &str) -> u64 {
        object(json).read().resources[0].content_hash()
    }

    #[test]
    fn a_member_of_a_list_is_read_with_the_kind_it_is_told() {
        let item = object(
            r#"{"metadata":{"name":"a","namespace":"shop","uid":"u-1","resourceVersion":"7","generation":2},
                "spec":{"ports":[{"port":80}]}}"#,
        );
        let parsed = item.of_kind("v1", "Service").read();
        let resource = &parsed.resources[0];
        assert_eq!(resource.key().to_string(), "Service shop/a");
        assert_eq!(
            (resource.origin().to_string(), resource.origin().generation()),
            ("u-1/7".into(), Some(2))
        );
        assert_eq!(resource.meta().resource_version, "7");
        assert!(matches!(resource, AnyResource::Service(service) if service.spec.ports.len() == 1));
    }

    #[test]
    fn what_is_wrong_is_said_with_identity_and_version() {
        let parsed = object(
            r#"{"apiVersion":"networking.istio.io/v1","kind":"VirtualService",
                "metadata":{"name":"a","namespace":"shop","uid":"u-1","resourceVersion":"7"},"spec":{"hosts":7}}"#,
        )
        .read();
        assert_eq!(parsed.failed.len(), 1);
        let line = parsed.diagnostics.iter().next().unwrap().to_string();
        assert!(line.contains("(VirtualService shop/a u-1/7)"), "{line}");
    }

    #[test]
    fn a_version_or_a_status_for_people_is_no_change_and_a_label_is() {
        let before = r#"{"apiVersion":"networking.istio.io/v1","kind":"Gateway","metadata":{"name":"a","resourceVersion":"7",
            "managedFields":[{"manager":"kubectl"}]},"spec":{"servers":[]}}"#;
        let status = r#"{"apiVersion":"networking.istio.io/v1","kind":"Gateway","metadata":{"name":"a","resourceVersion":"8",
            "generation":2,"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"}},"spec":{"servers":[]}}"#;
        let label = r#"{"apiVersion":"networking.istio.io/v1","kind":"Gateway","metadata":{"name":"a","resourceVersion":"9",
            "labels":{"x":"y"}},"spec":{"servers":[]}}"#;
        assert_ne!(hash(before), hash(label));
        let annotated =
            |json: &str| hash(&json.replace(r#""managedFields""#, r#""annotations":{},"managedFields""#));
        assert_eq!(annotated(before), hash(status));
    }

    #[test]
    fn a_condition_of_how_it_is_served_is_no_change_and_the_health_of_a_workload_is() {
        let with = |kind: &str, condition: &str| {
            hash(&format!(
                r#"{{"apiVersion":"networking.istio.io/v1","kind":"{kind}","metadata":{{"name":"a"}},"spec":{{}},
                "status":{{"conditions":[{{"type":"{condition}","status":"False"}}]}}}}"#
            ))
        };
        assert_eq!(with("Gateway", "Accepted"), with("Gateway", "Programmed"));
        assert_eq!(with("Gateway", "Accepted"), with("Gateway", "Healthy"));
        assert_ne!(with("WorkloadEntry", "Accepted"), with("WorkloadEntry", "Healthy"));
        for kind in ["Gateway", "WorkloadEntry", "VirtualService"] {
            let none = format!(
                r#"{{"apiVersion":"networking.istio.io/v1","kind":"{kind}","metadata":{{"name":"a"}},"spec":{{}}}}"#
            );
            assert_eq!(hash(&none), with(kind, "Accepted"), "the first status of a {kind} is no change");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = object(r#"{"kind":"Secret","metadata":{"name":"a"},"data":{"tls.key":"aHVudGVyMg=="}}"#);
        assert_eq!(format!("{secret:?}"), "Object(Secret /a)");
    }
}

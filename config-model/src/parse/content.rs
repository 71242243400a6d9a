//! The content of one object: its typed form, and what is said about fields on the way.
//!
//! Invariant: the object becomes a resource or a failed document with a finding, never both. What is wrong with a Secret is said
//! without its values.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

use super::{FailedDocument, Parsed, suggest};
use crate::{
    diagnostic::{Code, Diagnostic},
    meta::{Kind, Metadata, Origin, Resource, ResourceKey},
    set::AnyResource,
    support,
};

/// Most unknown fields that are reported for one object.
const MAX_UNKNOWN: usize = 50;

/// An object whose identity is known and whose content is being read.
pub(super) struct Item<'a> {
    pub(super) key: ResourceKey,
    pub(super) meta: Metadata,
    pub(super) origin: Origin,
    pub(super) hash: u64,
    pub(super) value: &'a Value,
    pub(super) parsed: &'a mut Parsed,
}

impl Item<'_> {
    /// Kinds that have a `spec`. Absent counts as empty, so that the required fields are what is reported.
    pub(super) fn spec<T: DeserializeOwned>(&mut self)
    where
        AnyResource: From<Resource<T>>,
    {
        let empty = Value::Mapping(Mapping::new());
        let spec = self.value.get("spec").unwrap_or(&empty);
        self.content::<T>(spec, "spec");
    }

    /// Kinds whose fields stand beside `metadata`.
    pub(super) fn whole<T: DeserializeOwned>(&mut self)
    where
        AnyResource: From<Resource<T>>,
    {
        self.content::<T>(self.value, "");
    }

    fn content<T: DeserializeOwned>(&mut self, value: &Value, prefix: &str)
    where
        AnyResource: From<Resource<T>>,
    {
        // Only Istio's kinds are mirrored whole, so only there is a field that we do not know unknown.
        let strict = self.key.kind.group().ends_with("istio.io");
        let mut unknown: Vec<(String, String)> = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let read = serde_ignored::deserialize::<_, _, T>(
            serde_path_to_error::Deserializer::new(value, &mut track),
            |path: serde_ignored::Path<'_>| {
                if strict && unknown.len() <= MAX_UNKNOWN {
                    unknown.push(unknown_field(&path));
                }
            },
        );
        match read {
            Ok(spec) => {
                let resource = Resource {
                    key: self.key.clone(),
                    meta: self.meta.clone(),
                    origin: self.origin_for_kind(),
                    content_hash: self.hash,
                    spec,
                };
                self.unknown_fields(unknown, prefix);
                if let Some(node) = support::tree(self.key.kind).field(prefix) {
                    let mut found = Vec::new();
                    support_findings(node, value, prefix, prefix, &mut found);
                    let (key, origin) = (&self.key, &self.origin);
                    self.parsed
                        .diagnostics
                        .extend(found.into_iter().map(|finding| finding.about(key, origin)));
                }
                self.parsed.resources.push(resource.into());
            }
            Err(error) => {
                // What is wrong with a Secret may quote its value.
                let message = match self.key.kind {
                    Kind::Secret => "a value has the wrong type or is not base64".to_owned(),
                    _ => error.to_string(),
                };
                let finding = Diagnostic::new(Code::SCHEMA, message)
                    .about(&self.key, &self.origin)
                    .at(joined(prefix, &deepest_path(&track.path())))
                    .rejected();
                self.parsed.diagnostics.push(finding);
                self.parsed
                    .failed
                    .push(FailedDocument { key: Some(self.key.clone()), origin: self.origin.clone() });
            }
        }
    }

    /// A Secret's text is not kept: an excerpt could show it.
    fn origin_for_kind(&self) -> Origin {
        match self.key.kind {
            Kind::Secret => Origin::new(Arc::clone(&self.origin.file), self.origin.line, self.origin.column),
            _ => self.origin.clone(),
        }
    }

    fn unknown_fields(&mut self, unknown: Vec<(String, String)>, prefix: &str) {
        for (path, name) in unknown {
            let path = joined(prefix, &path);
            let parent = support::pattern_of(path.strip_suffix(&name).unwrap_or(&path).trim_end_matches('.'));
            let mut finding =
                Diagnostic::new(Code::UNKNOWN_FIELD, format!("unknown field {name:?} has no effect"))
                    .about(&self.key, &self.origin)
                    .at(path);
            if let Some(known) = suggest::nearest(&name, support::fields_below(self.key.kind, &parent)) {
                finding = finding.hint(format!("did you mean {known:?}?"));
            }
            self.parsed.diagnostics.push(finding);
        }
    }
}

/// What the support table says about the fields that are used. The topmost field that is not honoured speaks for all below it.
fn support_findings(
    node: &support::Node,
    value: &Value,
    name: &str,
    path: &str,
    found: &mut Vec<Diagnostic>,
) {
    if found.len() > MAX_UNKNOWN {
        return;
    }
    if let Some(finding) = node.finding(name, value.as_str()) {
        found.push(finding.at(path));
        return;
    }
    match value {
        Value::Mapping(fields) => {
            for (key, value) in fields {
                let Some(key) = key.as_str() else { continue };
                if let Some(below) = node.field(key) {
                    support_findings(below, value, key, &joined(path, key), found);
                }
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                support_findings(node, item, name, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

pub(super) fn joined(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, path) if path.starts_with('[') => format!("{prefix}{path}"),
        (prefix, path) => format!("{prefix}.{path}"),
    }
}

/// The path that serde had come to; `.` is how it writes the root.
pub(super) fn deepest_path(path: &serde_path_to_error::Path) -> String {
    let text = path.to_string();
    if text == "." { String::new() } else { text.trim_end_matches(".?").to_owned() }
}

/// The path of an unknown field in the form `http[0].match[1].foo`, and its last name.
fn unknown_field(path: &serde_ignored::Path<'_>) -> (String, String) {
    use serde_ignored::Path;
    match path {
        Path::Root => (String::new(), String::new()),
        Path::Seq { parent, index } => {
            let (parent, _) = unknown_field(parent);
            (format!("{parent}[{index}]"), format!("[{index}]"))
        }
        Path::Map { parent, key } => {
            let (parent, _) = unknown_field(parent);
            (joined(&parent, key), key.clone())
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            unknown_field(parent)
        }
    }
}

//! One document: what kind it is, and its typed content.
//!
//! Invariant: either resources come out or a failed document with a finding; never both for one object. A `List` is its items.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::ControlFlow,
    sync::Arc,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_yaml::{Mapping, Value};

use super::{
    FailedDocument, IgnoredDocument, MAX_DOCUMENT_BYTES, MAX_OBJECTS, Parsed, fail, guard, split::Piece,
    suggest,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    istio, kubernetes,
    meta::{Kind, Metadata, Origin, Resource, ResourceKey, Source},
    set::AnyResource,
    support,
};

/// Most unknown fields that are reported for one object.
const MAX_UNKNOWN: usize = 50;

/// Reads one document of the file into `parsed`; breaks when the file has no room for more.
pub(super) fn read(file: &Arc<str>, text: &Arc<str>, piece: &Piece, parsed: &mut Parsed) -> ControlFlow<()> {
    let origin = Origin::new(Arc::clone(file), piece.first_line, 1);
    has_room(parsed, &origin)?;
    read_piece(file, text, piece, parsed);
    ControlFlow::Continue(())
}

/// Says once that the file holds too many objects.
fn has_room(parsed: &mut Parsed, origin: &Origin) -> ControlFlow<()> {
    match (parsed.resources.len() + parsed.failed.len() + parsed.ignored.len()).cmp(&MAX_OBJECTS) {
        Ordering::Less => ControlFlow::Continue(()),
        Ordering::Equal => {
            let message = format!("the file holds more than {MAX_OBJECTS} objects; the rest is not read");
            fail(parsed, Code::LIMIT, origin.clone(), None, message);
            ControlFlow::Break(())
        }
        Ordering::Greater => ControlFlow::Break(()),
    }
}

fn read_piece(file: &Arc<str>, text: &Arc<str>, piece: &Piece, parsed: &mut Parsed) {
    let document = text.get(piece.range.clone()).unwrap_or_default();
    let first_line = content_line(document, piece.first_line);
    let source = Source {
        text: Arc::clone(text),
        range: piece.range.clone(),
        first_line: piece.first_line,
        prefix: "".into(),
    };
    let origin = Origin::new(Arc::clone(file), first_line, 1);
    if document.len() > MAX_DOCUMENT_BYTES {
        let message = format!("the document has {} bytes; the limit is {MAX_DOCUMENT_BYTES}", document.len());
        fail(parsed, Code::LIMIT, origin, recover_key(document), message);
        return;
    }
    if let Some(reason) = guard::refusal(document) {
        fail(parsed, Code::LIMIT, origin, recover_key(document), reason);
        return;
    }
    let mut value = match serde_yaml::from_str::<Value>(document) {
        Ok(value) => value,
        Err(error) => {
            let (message, place) = syntax_error(&error, piece.first_line, &origin);
            fail(parsed, Code::SYNTAX, place, recover_key(document), message);
            return;
        }
    };
    if document.contains("<<")
        && let Err(error) = value.apply_merge()
    {
        fail(parsed, Code::SYNTAX, origin, recover_key(document), error.to_string());
        return;
    }
    if value.is_null() {
        return;
    }
    let mut hasher = DefaultHasher::new();
    document.hash(&mut hasher);
    let origin = Origin::with_source(Arc::clone(file), first_line, 1, source);
    object(value, &origin, hasher.finish(), parsed);
}

/// The header that every object has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

fn object(mut value: Value, origin: &Origin, hash: u64, parsed: &mut Parsed) {
    strip_nulls(&mut value);
    let failed = |parsed: &mut Parsed, path: &str, message: &str| {
        parsed.failed.push(FailedDocument { key: None, origin: origin.clone() });
        let finding = Diagnostic::new(Code::SCHEMA, message).from_origin(origin.clone()).at(path).rejected();
        parsed.diagnostics.push(finding);
    };
    if !value.is_mapping() {
        failed(parsed, "", "the document is not an object with apiVersion, kind and metadata");
        return;
    }
    let header = match Header::deserialize(&value) {
        Ok(header) => header,
        Err(error) => {
            failed(parsed, "", &format!("apiVersion and kind: {error}"));
            return;
        }
    };
    if header.kind.is_empty() || header.api_version.is_empty() {
        failed(parsed, "", "the document has no apiVersion or no kind");
        return;
    }
    if header.kind == "List" && header.api_version == "v1" {
        list(value, origin, parsed);
        return;
    }
    let (group, version) = header.api_version.rsplit_once('/').unwrap_or(("", &header.api_version));
    let Some(kind) = Kind::from_name(&header.kind) else {
        ignore(parsed, &header, origin);
        return;
    };
    if group != kind.group() {
        // Knative's Service and the Gateway API's Gateway are other kinds that share a name. A slip in the group is more
        // likely when it is nearly ours.
        if suggest::nearest(group, std::iter::once(kind.group())).is_none() || kind.group().is_empty() {
            ignore(parsed, &header, origin);
            return;
        }
        unsupported_version(parsed, &header, kind, &value, origin);
        return;
    }
    if !kind.versions().contains(&version) {
        unsupported_version(parsed, &header, kind, &value, origin);
        return;
    }
    typed(kind, &value, origin, hash, parsed);
}

fn list(mut value: Value, origin: &Origin, parsed: &mut Parsed) {
    let Some(Value::Sequence(items)) = value.get_mut("items").map(std::mem::take) else { return };
    for (index, item) in items.into_iter().enumerate() {
        if has_room(parsed, origin).is_break() {
            return;
        }
        let mut hasher = DefaultHasher::new();
        item.hash(&mut hasher);
        let mut origin = origin.clone();
        if let Some(source) = origin.source() {
            let prefix = match &*source.prefix {
                "" => format!("items[{index}]"),
                outer => format!("{outer}.items[{index}]"),
            };
            let source = Source { prefix: prefix.into(), ..source.clone() };
            origin = Origin::with_source(Arc::clone(&origin.file), origin.line, origin.column, source);
        }
        object(item, &origin, hasher.finish(), parsed);
    }
}

fn ignore(parsed: &mut Parsed, header: &Header, origin: &Origin) {
    let kind = format!("{} {}", header.api_version, header.kind);
    parsed.ignored.push(IgnoredDocument { kind, origin: origin.clone() });
}

fn unsupported_version(parsed: &mut Parsed, header: &Header, kind: Kind, value: &Value, origin: &Origin) {
    let versions: Vec<String> = kind
        .versions()
        .iter()
        .map(|version| {
            if kind.group().is_empty() {
                (*version).to_owned()
            } else {
                format!("{}/{version}", kind.group())
            }
        })
        .collect();
    let key = metadata(kind, value).ok().map(|meta| ResourceKey::new(kind, meta.namespace, meta.name));
    let mut finding =
        Diagnostic::new(Code::API_VERSION, format!("{} is not served as {:?}", kind, header.api_version))
            .from_origin(origin.clone())
            .at("apiVersion")
            .hint(format!("use {}", versions.join(" or ")))
            .rejected();
    finding.resource = key.clone();
    parsed.diagnostics.push(finding);
    parsed.failed.push(FailedDocument { key, origin: origin.clone() });
}

fn typed(kind: Kind, value: &Value, origin: &Origin, hash: u64, parsed: &mut Parsed) {
    let meta = match metadata(kind, value) {
        Ok(meta) => meta,
        Err((path, message)) => {
            let finding =
                Diagnostic::new(Code::SCHEMA, message).from_origin(origin.clone()).at(path).rejected();
            parsed.diagnostics.push(finding);
            parsed.failed.push(FailedDocument { key: None, origin: origin.clone() });
            return;
        }
    };
    let key = ResourceKey::new(kind, meta.namespace.clone(), meta.name.clone());
    let mut item = Item { key, meta, origin: origin.clone(), hash, value, parsed };
    match kind {
        Kind::Gateway => item.spec::<istio::Gateway>(),
        Kind::VirtualService => item.spec::<istio::VirtualService>(),
        Kind::DestinationRule => item.spec::<istio::DestinationRule>(),
        Kind::ServiceEntry => item.spec::<istio::ServiceEntry>(),
        Kind::WorkloadEntry => item.spec::<istio::WorkloadEntry>(),
        Kind::Sidecar => item.spec::<istio::Sidecar>(),
        Kind::Service => item.spec::<kubernetes::Service>(),
        Kind::EndpointSlice => item.whole::<kubernetes::EndpointSlice>(),
        Kind::Endpoints => item.whole::<kubernetes::Endpoints>(),
        Kind::Secret => item.whole::<kubernetes::Secret>(),
        Kind::ConfigMap => item.whole::<kubernetes::ConfigMap>(),
        Kind::Namespace => item.whole::<kubernetes::Namespace>(),
        Kind::Pod => item.whole::<kubernetes::Pod>(),
    }
}

/// The metadata with its namespace filled in, or the path and reason why not.
fn metadata(kind: Kind, value: &Value) -> Result<Metadata, (String, String)> {
    let empty = Value::Mapping(Mapping::new());
    let raw = value.get("metadata").unwrap_or(&empty);
    let mut track = serde_path_to_error::Track::new();
    let mut meta = Metadata::deserialize(serde_path_to_error::Deserializer::new(raw, &mut track))
        .map_err(|error| (joined("metadata", &deepest_path(&track.path())), error.to_string()))?;
    if meta.name.is_empty() {
        return Err(("metadata".to_owned(), "metadata.name is missing".to_owned()));
    }
    if !kind.is_namespaced() {
        meta.namespace.clear();
    } else if meta.namespace.is_empty() {
        meta.namespace.push_str("default");
    }
    meta.conditions = conditions(value);
    Ok(meta)
}

/// `status.conditions`, as far as they have the usual form; a status is written by machines and never a reason to refuse.
fn conditions(value: &Value) -> BTreeMap<String, String> {
    let list = value.get("status").and_then(|status| status.get("conditions")).and_then(Value::as_sequence);
    let pairs = list.into_iter().flatten().filter_map(|condition| {
        let kind = condition.get("type")?.as_str()?;
        Some((kind.to_owned(), condition.get("status")?.as_str()?.to_owned()))
    });
    pairs.collect()
}

/// An object whose identity is known and whose content is being read.
struct Item<'a> {
    key: ResourceKey,
    meta: Metadata,
    origin: Origin,
    hash: u64,
    value: &'a Value,
    parsed: &'a mut Parsed,
}

impl Item<'_> {
    /// Kinds that have a `spec`. Absent counts as empty, so that the required fields are what is reported.
    fn spec<T: DeserializeOwned>(&mut self)
    where
        AnyResource: From<Resource<T>>,
    {
        let empty = Value::Mapping(Mapping::new());
        let spec = self.value.get("spec").unwrap_or(&empty);
        self.content::<T>(spec, "spec");
    }

    /// Kinds whose fields stand beside `metadata`.
    fn whole<T: DeserializeOwned>(&mut self)
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
        let strict = self.key.kind.group() == "networking.istio.io";
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

/// Removes entries whose value is null: for the API they are absent. Matches keep theirs, because admission refuses them there.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Mapping(mapping) => {
            mapping.retain(|_, value| !value.is_null());
            for (key, value) in mapping.iter_mut() {
                let keeps = matches!(key.as_str(), Some("headers" | "withoutHeaders" | "queryParams"));
                if let (true, Value::Mapping(conditions)) = (keeps, &mut *value) {
                    conditions.iter_mut().for_each(|(_, condition)| strip_nulls(condition));
                } else {
                    strip_nulls(value);
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn joined(prefix: &str, path: &str) -> String {
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

/// The first line that is not blank, a comment or a marker.
fn content_line(document: &str, first_line: u32) -> u32 {
    let blank = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    first_line.saturating_add(u32::try_from(document.lines().take_while(blank).count()).unwrap_or(0))
}

/// The message with its lines counted from the file (serde_yaml counts from the document), and the position in the file.
fn syntax_error(error: &serde_yaml::Error, first_line: u32, origin: &Origin) -> (String, Origin) {
    let in_file = |line: usize| first_line.saturating_add(u32::try_from(line).unwrap_or(1)).saturating_sub(1);
    let text = error.to_string();
    let mut parts = text.split(" at line ");
    let mut message = parts.next().unwrap_or_default().to_owned();
    for (index, part) in parts.enumerate() {
        let line: String = part.chars().take_while(char::is_ascii_digit).collect();
        // The first position is the finding's own; what follows it says where the broken construct began.
        if let (true, Ok(line)) = (index > 0, line.parse()) {
            message.push_str(&format!(" on line {}", in_file(line)));
        }
        message.push_str(part.find(',').and_then(|comma| part.get(comma..)).unwrap_or_default());
    }
    let Some(location) = error.location() else { return (message, origin.clone()) };
    (message, origin.at(in_file(location.line()), u32::try_from(location.column()).unwrap_or(1)))
}

/// The identity of a document that is not YAML, from the lines where it is usually written.
fn recover_key(document: &str) -> Option<ResourceKey> {
    let scalar = |line: &str, field: &str| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?.split(" #").next()?.trim();
        let value = value.trim_matches(|c| c == '"' || c == '\'');
        let plain = !value.is_empty()
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        plain.then(|| value.to_owned())
    };
    let (mut kind, mut name, mut namespace) = (None, None, None);
    let mut in_metadata = false;
    let mut indent: Option<usize> = None;
    // Identity stands at the top; a long broken document need not be walked to its end.
    for line in document.lines().take(200) {
        let depth = line.len() - line.trim_start().len();
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if depth == 0 {
            in_metadata = line.trim_end() == "metadata:";
            kind = kind.or_else(|| scalar(line, "kind"));
            continue;
        }
        if in_metadata && depth == *indent.get_or_insert(depth) {
            name = name.or_else(|| scalar(content, "name"));
            namespace = namespace.or_else(|| scalar(content, "namespace"));
        }
    }
    let kind = Kind::from_name(&kind?)?;
    let namespace =
        if kind.is_namespaced() { namespace.unwrap_or_else(|| "default".to_owned()) } else { String::new() };
    Some(ResourceKey::new(kind, namespace, name?))
}

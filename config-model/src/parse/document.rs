//! One document: what kind it is, and its typed content.
//!
//! Invariant: either resources come out or a failed document with a finding; never both for one object. A `List` is its items.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    ops::ControlFlow,
    sync::Arc,
};

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::{
    FailedDocument, IgnoredDocument, MAX_DOCUMENT_BYTES, MAX_OBJECTS, Parsed,
    broken::{content_line, recover_key, syntax_error},
    content::{Item, deepest_path, joined},
    fail, guard, locate, strict, suggest,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    istio, kubernetes,
    meta::{Kind, Metadata, Origin, ResourceKey, Source},
};

/// One document of a file. Read by itself it gives what it gives there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    pub(super) file: Arc<str>,
    pub(super) text: Arc<str>,
    pub(super) first_line: u32,
}

impl Document {
    /// Line in the file of its first line, from 1.
    pub fn first_line(&self) -> u32 {
        self.first_line
    }

    /// Reads it.
    pub fn read(&self) -> Parsed {
        let mut parsed = Parsed::default();
        self.read_into(&mut parsed);
        locate::place(&mut parsed.diagnostics);
        parsed.resources.shrink_to_fit();
        parsed
    }

    /// What is to be said in its place when the file holds more than [`MAX_OBJECTS`] with it.
    pub fn beyond_limit(&self) -> Parsed {
        let mut parsed = Parsed::default();
        fail_for_room(&mut parsed, &Origin::new(Arc::clone(&self.file), self.first_line, 1));
        parsed
    }

    /// Reads it to what was read of the file before; breaks when there is no room for more.
    pub(super) fn add_to(&self, parsed: &mut Parsed) -> ControlFlow<()> {
        has_room(parsed, &Origin::new(Arc::clone(&self.file), self.first_line, 1))?;
        self.read_into(parsed);
        ControlFlow::Continue(())
    }
}

/// Says once that the file holds too many objects.
fn has_room(parsed: &mut Parsed, origin: &Origin) -> ControlFlow<()> {
    match parsed.objects().cmp(&MAX_OBJECTS) {
        Ordering::Less => ControlFlow::Continue(()),
        Ordering::Equal => {
            fail_for_room(parsed, origin);
            ControlFlow::Break(())
        }
        Ordering::Greater => ControlFlow::Break(()),
    }
}

fn fail_for_room(parsed: &mut Parsed, origin: &Origin) {
    let message = format!("the file holds more than {MAX_OBJECTS} objects; the rest is not read");
    fail(parsed, Code::LIMIT, origin.clone(), None, message);
}

impl Document {
    fn read_into(&self, parsed: &mut Parsed) {
        let Document { file, text, first_line } = self;
        read_text(file, text, *first_line, parsed);
    }
}

fn read_text(file: &Arc<str>, text: &Arc<str>, begin: u32, parsed: &mut Parsed) {
    let document = &**text;
    let first_line = content_line(document, begin);
    let source = Source { text: Arc::clone(text), first_line: begin, prefix: Arc::default() };
    let plain = Origin::new(Arc::clone(file), first_line, 1);
    if document.len() > MAX_DOCUMENT_BYTES {
        let message = format!("the document has {} bytes; the limit is {MAX_DOCUMENT_BYTES}", document.len());
        fail(parsed, Code::LIMIT, plain, recover_key(document), message);
        return;
    }
    if let Some(reason) = guard::refusal(document) {
        fail(parsed, Code::LIMIT, plain, recover_key(document), reason);
        return;
    }
    let origin = Origin::with_source(Arc::clone(file), first_line, 1, source);
    let mut hasher = DefaultHasher::new();
    document.hash(&mut hasher);
    let hash = hasher.finish();
    if let Some(resource) = strict::read(document, &origin, hash) {
        parsed.resources.push(resource);
        return;
    }
    by_value(document, begin, &origin, hash, parsed);
}

/// Reads a document by way of a tree of values, and says whatever there is to be said of it.
pub(super) fn by_value(document: &str, begin: u32, origin: &Origin, hash: u64, parsed: &mut Parsed) {
    let mut value = match serde_yaml::from_str::<Value>(document) {
        Ok(value) => value,
        Err(error) => {
            let (message, place) = syntax_error(&error, document, begin, origin);
            fail(parsed, Code::SYNTAX, place, recover_key(document), message);
            return;
        }
    };
    if document.contains("<<")
        && let Err(error) = value.apply_merge()
    {
        fail(parsed, Code::SYNTAX, origin.clone(), recover_key(document), error.to_string());
        return;
    }
    if value.is_null() {
        return;
    }
    object(value, origin, hash, parsed);
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

pub(super) fn object(mut value: Value, origin: &Origin, hash: u64, parsed: &mut Parsed) {
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
        Kind::WorkloadGroup => item.spec::<istio::WorkloadGroup>(),
        Kind::Service => item.spec::<kubernetes::Service>(),
        Kind::EndpointSlice => item.whole::<kubernetes::EndpointSlice>(),
        Kind::Endpoints => item.whole::<kubernetes::Endpoints>(),
        Kind::Secret => item.whole::<kubernetes::Secret>(),
        Kind::ConfigMap => item.whole::<kubernetes::ConfigMap>(),
        Kind::Namespace => item.whole::<kubernetes::Namespace>(),
        Kind::Pod => item.whole::<kubernetes::Pod>(),
        Kind::RequestAuthentication => item.spec::<istio::RequestAuthentication>(),
        Kind::Telemetry => item.spec::<istio::Telemetry>(),
        Kind::AuthorizationPolicy => item.spec::<istio::AuthorizationPolicy>(),
        Kind::PeerAuthentication => item.spec::<istio::PeerAuthentication>(),
    }
}

/// The metadata with its namespace filled in, or the path and reason why not.
fn metadata(kind: Kind, value: &Value) -> Result<Metadata, (String, String)> {
    let empty = Value::Mapping(Mapping::new());
    let raw = value.get("metadata").unwrap_or(&empty);
    let mut track = serde_path_to_error::Track::new();
    let meta = Metadata::deserialize(serde_path_to_error::Deserializer::new(raw, &mut track))
        .map_err(|error| (joined("metadata", &deepest_path(&track.path())), error.to_string()))?;
    let mut meta = settled(kind, meta)?;
    meta.conditions = conditions(value);
    if kind == Kind::ServiceEntry {
        meta.allocated_addresses = allocated_addresses(value);
    }
    if kind == Kind::Service {
        meta.load_balancers = load_balancers(value);
    }
    Ok(meta)
}

/// Metadata as written, with its namespace filled in; it must have a name.
pub(super) fn settled(kind: Kind, mut meta: Metadata) -> Result<Metadata, (String, String)> {
    if meta.name.is_empty() {
        return Err(("metadata".to_owned(), "metadata.name is missing".to_owned()));
    }
    if !kind.is_namespaced() {
        meta.namespace.clear();
    } else if meta.namespace.is_empty() {
        meta.namespace.push_str("default");
    }
    Ok(meta)
}

/// `status.addresses`, as far as it has the usual form.
fn allocated_addresses(value: &Value) -> BTreeMap<String, Vec<IpAddr>> {
    let list = value.get("status").and_then(|status| status.get("addresses")).and_then(Value::as_sequence);
    let mut by_host: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for entry in list.into_iter().flatten() {
        let said = |field: &str| entry.get(field).and_then(Value::as_str);
        if let (Some(ip), Some(host)) = (said("value").and_then(|ip| ip.parse().ok()), said("host")) {
            by_host.entry(host.to_ascii_lowercase()).or_default().push(ip);
        }
    }
    by_host
}

/// `status.loadBalancer.ingress`, as far as it has the usual form.
fn load_balancers(value: &Value) -> Vec<String> {
    let status = value.get("status").and_then(|status| status.get("loadBalancer"));
    let list = status.and_then(|status| status.get("ingress")).and_then(Value::as_sequence);
    let places = list.into_iter().flatten().filter_map(|entry| {
        let mut said = ["ip", "hostname"].into_iter().filter_map(|field| entry.get(field)?.as_str());
        said.find(|place| !place.is_empty()).map(str::to_owned)
    });
    places.collect()
}

/// `status.conditions`, as far as they have the usual form; a status is written by machines and never a reason to refuse.
pub(super) fn conditions(value: &Value) -> BTreeMap<String, String> {
    let list = value.get("status").and_then(|status| status.get("conditions")).and_then(Value::as_sequence);
    let pairs = list.into_iter().flatten().filter_map(|condition| {
        let kind = condition.get("type")?.as_str()?;
        Some((kind.to_owned(), condition.get("status")?.as_str()?.to_owned()))
    });
    pairs.collect()
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

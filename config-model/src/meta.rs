//! Who a resource is and where it was written: keys, the metadata that matters, and origins.
//!
//! Invariant: a [`ResourceKey`] orders and compares by kind, namespace, name only, so every output that walks keys is
//! deterministic. This module must not know how a document is parsed or what a kind's fields mean.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::Deserialize;

use crate::scalar::Timestamp;

/// The kinds that a configuration folder or the Kubernetes API may hold for us. Displays as the API's kind name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each arm is the API's own kind name")]
pub enum Kind {
    Gateway,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    WorkloadEntry,
    Sidecar,
    WorkloadGroup,
    Service,
    EndpointSlice,
    Endpoints,
    Secret,
    ConfigMap,
    Namespace,
    Pod,
    RequestAuthentication,
    Telemetry,
    AuthorizationPolicy,
    PeerAuthentication,
}

impl Kind {
    /// Every kind that is read, in the order of their keys.
    pub const ALL: [Kind; 18] = [
        Kind::Gateway,
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::ServiceEntry,
        Kind::WorkloadEntry,
        Kind::Sidecar,
        Kind::WorkloadGroup,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Endpoints,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::Namespace,
        Kind::Pod,
        Kind::RequestAuthentication,
        Kind::Telemetry,
        Kind::AuthorizationPolicy,
        Kind::PeerAuthentication,
    ];

    /// The API's kind name, e.g. `VirtualService`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gateway => "Gateway",
            Kind::VirtualService => "VirtualService",
            Kind::DestinationRule => "DestinationRule",
            Kind::ServiceEntry => "ServiceEntry",
            Kind::WorkloadEntry => "WorkloadEntry",
            Kind::Sidecar => "Sidecar",
            Kind::WorkloadGroup => "WorkloadGroup",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Endpoints => "Endpoints",
            Kind::Secret => "Secret",
            Kind::ConfigMap => "ConfigMap",
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::RequestAuthentication => "RequestAuthentication",
            Kind::Telemetry => "Telemetry",
            Kind::AuthorizationPolicy => "AuthorizationPolicy",
            Kind::PeerAuthentication => "PeerAuthentication",
        }
    }

    /// The kind with this API name (case matters, as in Kubernetes), or `None` for a kind that is not read.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The API group of the kind: `networking.istio.io`, `security.istio.io`, `telemetry.istio.io`, `discovery.k8s.io`, or empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Kind::Gateway
            | Kind::VirtualService
            | Kind::DestinationRule
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::Sidecar
            | Kind::WorkloadGroup => "networking.istio.io",
            Kind::RequestAuthentication | Kind::AuthorizationPolicy | Kind::PeerAuthentication => {
                "security.istio.io"
            }
            Kind::Telemetry => "telemetry.istio.io",
            Kind::EndpointSlice => "discovery.k8s.io",
            Kind::Service
            | Kind::Endpoints
            | Kind::Secret
            | Kind::ConfigMap
            | Kind::Namespace
            | Kind::Pod => "",
        }
    }

    /// The versions of the group that are read; all have one schema.
    pub fn versions(self) -> &'static [&'static str] {
        match self.group() {
            "networking.istio.io" => &["v1", "v1beta1", "v1alpha3"],
            "security.istio.io" => &["v1", "v1beta1"],
            "telemetry.istio.io" => &["v1", "v1alpha1"],
            "discovery.k8s.io" => &["v1", "v1beta1"],
            _ => &["v1"],
        }
    }

    /// Namespace objects belong to no namespace; everything else does.
    pub fn is_namespaced(self) -> bool {
        self != Kind::Namespace
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The identity of a resource. Displays as `VirtualService default/reviews`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// The API kind.
    pub kind: Kind,
    /// The namespace; empty for kinds that have none.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl ResourceKey {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> ResourceKey {
        ResourceKey { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{} {}", self.kind, self.name);
        }
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The part of an object's metadata (and the conditions of its status) that has a meaning here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// Object name.
    pub name: String,
    /// What the API server made the name from; empty where the name was given.
    pub generate_name: String,
    /// Namespace; the parser fills in `default` where a document gives none.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When the object was created; absent in hand-written files. Orders conflicting resources, oldest first.
    pub creation_timestamp: Option<Timestamp>,
    /// The API server's identity of this object.
    pub uid: String,
    /// The API server's version of this object.
    pub resource_version: String,
    /// The objects that own this one.
    pub owner_references: Vec<OwnerReference>,
    /// `status.conditions` as type → status (`True`, `False`, `Unknown`).
    #[serde(skip)]
    pub conditions: BTreeMap<String, String>,
    /// `status.addresses` of a ServiceEntry by host, where istiod writes what it allocated.
    #[serde(skip)]
    pub allocated_addresses: BTreeMap<String, Vec<IpAddr>>,
    /// `status.loadBalancer.ingress` of a Service: the address of each entry, else its name.
    #[serde(skip)]
    pub load_balancers: Vec<String>,
}

/// The object that owns another, as far as naming it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// Kind of the owner, any kind.
    pub kind: String,
    /// Name of the owner, in the same namespace.
    pub name: String,
    /// Whether it is the one that manages the object.
    pub controller: bool,
}

/// Where a document was written. Displays as `file:line`, or as `uid/resourceVersion` for an object of an API server.
///
/// Comparing two origins compares file, line and column; the text they may carry is only a means to find the position of
/// a field when a finding needs it (see `parse::locate`).
#[derive(Clone)]
pub struct Origin {
    /// Path of the file as the caller named it, or `uid/resourceVersion`.
    pub file: Arc<str>,
    /// Line on which the document (or the field) begins, from 1; 0 where there are no lines.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// Just behind the last character of the field, once the field was looked up.
    end: Option<(u32, u32)>,
    source: Option<Source>,
    /// Of an object of an API server: the generation of its spec, 0 where the server counts none.
    object: Option<i64>,
}

/// The text behind an origin: that of its document, and the path of the object inside the document.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) text: Arc<str>,
    /// Line of the first line of the text, from 1.
    pub(crate) first_line: u32,
    /// Where the object sits inside the document: empty, or `items[3]` for a member of a `List`.
    pub(crate) prefix: Arc<str>,
}

impl Source {
    pub(crate) fn document(&self) -> &str {
        &self.text
    }
}

impl Origin {
    /// An origin without text: positions inside the document cannot be looked up from it.
    pub fn new(file: impl Into<Arc<str>>, line: u32, column: u32) -> Origin {
        Origin { file: file.into(), line, column, end: None, source: None, object: None }
    }

    /// The origin of an object that an API server holds: who it is, which version of it, and how often its spec had changed by then
    /// (0 where the server does not count). It has no lines: `line` is 0.
    pub fn of_object(uid: &str, resource_version: &str, generation: i64) -> Origin {
        Origin { object: Some(generation), ..Origin::new(format!("{uid}/{resource_version}"), 0, 1) }
    }

    pub(crate) fn with_source(file: Arc<str>, line: u32, column: u32, source: Source) -> Origin {
        Origin { source: Some(source), ..Origin::new(file, line, column) }
    }

    /// Identity and version of the object of an API server; `None` for what was written in a file.
    pub fn object(&self) -> Option<(&str, &str)> {
        self.object.and_then(|_| self.file.split_once('/'))
    }

    /// The generation of the object's spec, where an API server counts it.
    pub fn generation(&self) -> Option<i64> {
        self.object.filter(|generation| *generation > 0)
    }

    pub(crate) fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// The same file at another position.
    pub fn at(&self, line: u32, column: u32) -> Origin {
        let (source, object) = (self.source.clone(), self.object);
        Origin { file: Arc::clone(&self.file), line, column, end: None, source, object }
    }

    /// The same file, at a field that was looked up.
    pub(crate) fn at_field(&self, (line, column): (u32, u32), end: (u32, u32)) -> Origin {
        Origin { end: Some(end), ..self.at(line, column) }
    }

    /// Line and column just behind the field, both from 1; `None` when this is the place of a whole document.
    pub fn end(&self) -> Option<(u32, u32)> {
        self.end
    }

    /// The text of the document that this origin points into, when it is known.
    pub fn document(&self) -> Option<&str> {
        self.source.as_ref().map(Source::document)
    }

    /// The whole text line the origin points at, for an excerpt; `None` when the text is not known, and for documents that
    /// hold or name a Secret: no excerpt may show one.
    pub fn line_text(&self) -> Option<&str> {
        let source = self.source.as_ref()?;
        let document = source.document();
        if document.contains("Secret") {
            return None;
        }
        let index = self.line.checked_sub(source.first_line)?;
        document.lines().nth(usize::try_from(index).ok()?)
    }
}

impl fmt::Debug for Origin {
    /// Leaves the text out: it may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({}:{}:{})", self.file, self.line, self.column)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Origin) -> bool {
        self.position() == other.position()
    }
}

impl Eq for Origin {}

impl PartialOrd for Origin {
    fn partial_cmp(&self, other: &Origin) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Origin {
    fn cmp(&self, other: &Origin) -> std::cmp::Ordering {
        self.position().cmp(&other.position())
    }
}

impl Origin {
    fn position(&self) -> (&str, u32, u32) {
        (&self.file, self.line, self.column)
    }
}

/// One object: who it is, where it comes from, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<T> {
    /// Its identity.
    pub key: ResourceKey,
    /// Its metadata.
    pub meta: Metadata,
    /// Where it was written.
    pub origin: Origin,
    /// A hash of what was written: equal content has an equal hash within one process.
    pub content_hash: u64,
    /// The mirror of the API's `spec` (or of the fields we read, for kinds that have no spec).
    pub spec: T,
}

impl<T> Resource<T> {
    /// The sort key for "oldest first": creation time, then name, then namespace (Istio: config_compare.go). An object
    /// without a time stamp counts as older than any that has one.
    pub fn age(&self) -> (Option<Timestamp>, &str, &str) {
        (self.meta.creation_timestamp, &self.key.name, &self.key.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_display_as_the_api_names_them() {
        assert_eq!(
            ResourceKey::new(Kind::VirtualService, "default", "reviews").to_string(),
            "VirtualService default/reviews"
        );
        assert_eq!(ResourceKey::new(Kind::Namespace, "", "shop").to_string(), "Namespace shop");
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::from_name("virtualservice"), None);
    }

    #[test]
    fn origins_compare_by_position() {
        let plain = Origin::new("a.yaml", 3, 1);
        assert_eq!(plain.to_string(), "a.yaml:3");
        assert!(plain < plain.at(4, 1));
    }

    #[test]
    fn an_object_of_a_server_is_told_from_a_file() {
        let object = Origin::of_object("u-1", "7", 3);
        assert_eq!((object.object(), object.generation()), (Some(("u-1", "7")), Some(3)));
        assert_eq!(Origin::of_object("u-1", "7", 0).generation(), None);
        assert_eq!(Origin::new("shop/a.yaml", 0, 1).object(), None);
    }
}

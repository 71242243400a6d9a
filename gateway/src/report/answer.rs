//! The shape of an explanation.
//!
//! Invariant: an interface that programs read: a field is added, never renamed, and a part that does not apply is null or empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What would happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each arm is its own name in the JSON")]
pub enum Verdict {
    Forward,
    Redirect,
    DirectResponse,
    NotFound,
    Misdirected,
    Refused,
    Passthrough,
    Denied,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What would happen.
    pub verdict: Verdict,
    /// Listener and server; absent when nothing listens on the port.
    pub listener: Option<ListenerPart>,
    /// Virtual host that takes the request.
    pub virtual_host: Option<VirtualHostPart>,
    /// Rule that takes it.
    pub route: Option<RoutePart>,
    /// Where it may go.
    pub clusters: Vec<ClusterPart>,
    /// What is done to it on the way.
    pub actions: Actions,
    /// The reply that the gateway makes itself.
    pub response: Option<ResponsePart>,
    /// Every rule of the virtual host, in the order in which they are tried.
    pub candidates: Vec<CandidatePart>,
    /// Rules that match too and come too late.
    pub shadowed: Vec<CandidatePart>,
    /// One sentence for people, where the rest does not say why.
    pub reason: Option<String>,
}

/// A listener, and the server of it that took the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerPart {
    /// Istio's name, `0.0.0.0_80`.
    pub name: String,
    /// Bound port.
    pub port: u16,
    /// `namespace/name`; absent when no server takes the connection.
    pub gateway: Option<String>,
    /// Name of the server.
    pub server: Option<String>,
    /// TLS mode; absent on plain text.
    pub tls_mode: Option<String>,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualHostPart {
    /// `domain:port`.
    pub name: String,
    /// Domain that the authority matched.
    pub domain: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePart {
    /// `namespace/name`.
    pub virtual_service: String,
    /// Name of the rule.
    pub name: Option<String>,
    /// Index in `spec.http`.
    pub index: u32,
    /// Index in the rule's `match`.
    pub match_index: u32,
    /// The delegate's rule that it was merged with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<DelegatePart>,
}

/// A rule that a delegate lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegatePart {
    /// `namespace/name`.
    pub virtual_service: String,
    /// Index in its `spec.http`.
    pub index: u32,
    /// Index in that rule's `match`.
    pub match_index: u32,
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPart {
    /// Istio's name, `outbound|80|v1|host`.
    pub name: String,
    /// Share.
    pub weight: u32,
    /// Endpoints that may be picked; names that DNS has yet to resolve count as one each.
    pub endpoints: usize,
}

/// What is done to a request on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions {
    /// Path and query as sent upstream.
    pub path: Option<String>,
    /// Authority as sent upstream.
    pub authority: Option<String>,
    /// Time limit; absent is none.
    pub timeout_ms: Option<u64>,
    /// Retries.
    pub retries: Option<serde_json::Value>,
    /// Changes to request headers.
    pub request_headers: HeaderChanges,
    /// Changes to response headers.
    pub response_headers: HeaderChanges,
    /// Destinations that get a copy.
    pub mirror: Vec<serde_json::Value>,
    /// Injected faults.
    pub fault: Option<serde_json::Value>,
    /// The cross-origin policy, and what it makes of the request.
    #[serde(default)]
    pub cors: Option<serde_json::Value>,
    /// Policies that annotations ask for, by the annotation's name without `limen.dev/`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, PolicyPart>,
}

/// A policy of an annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPart {
    /// Whose annotation counts: `VirtualService default/shop`.
    pub of: String,
    /// What it asks for.
    pub asks: String,
}

/// Header operations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderChanges {
    /// Removed first.
    pub remove: Vec<String>,
    /// Then set.
    pub set: BTreeMap<String, String>,
    /// Then added.
    pub add: BTreeMap<String, String>,
}

/// A reply of the gateway's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponsePart {
    /// Status.
    pub status: u16,
    /// Headers that the configuration gives it.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: String,
    /// Response flags, as in the access log; `-` when there is none.
    pub flags: String,
}

/// A rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidatePart {
    /// `namespace/name`.
    pub virtual_service: String,
    /// Index in `spec.http`.
    pub index: u32,
    /// Index in the rule's `match`.
    pub match_index: u32,
    /// The delegate's rule that it was merged with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<DelegatePart>,
    /// Whether all its conditions hold.
    pub matched: bool,
    /// Why it was taken or not.
    pub reason: String,
}

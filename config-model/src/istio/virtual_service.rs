//! `VirtualService`: what happens to a request or connection for a host.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::scalar::{
    Duration, HeaderName, HostPattern, Percent, PortNumber, StringMatch, Weight, lenient, list,
};

/// A VirtualService's spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VirtualService {
    /// Hosts; empty makes it a delegate. A short name stands for the Service in the VirtualService's namespace.
    #[serde(deserialize_with = "list::exact")]
    pub hosts: Vec<HostPattern>,
    /// Gateways (`name`, `ns/name`, `mesh`); empty is `mesh` alone, which no gateway serves.
    #[serde(deserialize_with = "list::exact")]
    pub gateways: Vec<String>,
    /// Ordered HTTP rules.
    #[serde(deserialize_with = "list::exact")]
    pub http: Vec<HttpRoute>,
    /// Ordered rules for passed-through TLS.
    #[serde(deserialize_with = "list::exact")]
    pub tls: Vec<TlsRoute>,
    /// Ordered rules for opaque TCP.
    #[serde(deserialize_with = "list::exact")]
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that may see this: `*`, `.`, or names.
    #[serde(deserialize_with = "list::exact")]
    pub export_to: Vec<String>,
}

/// One HTTP rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRoute {
    /// Name for logs.
    pub name: String,
    /// Alternatives; empty matches every request.
    #[serde(rename = "match", deserialize_with = "list::exact")]
    pub matches: Vec<HttpMatchRequest>,
    /// Weighted destinations.
    #[serde(deserialize_with = "list::exact")]
    pub route: Vec<HttpRouteDestination>,
    /// Answer with a redirect.
    pub redirect: Option<Box<HttpRedirect>>,
    /// Answer with a fixed reply.
    pub direct_response: Option<Box<HttpDirectResponse>>,
    /// Take the rules of another VirtualService here.
    pub delegate: Option<Box<Delegate>>,
    /// Change path and authority before forwarding.
    pub rewrite: Option<Box<HttpRewrite>>,
    /// Time for the whole response; absent or zero is none.
    pub timeout: Option<Duration>,
    /// Retry policy; absent is Istio's default of two.
    pub retries: Option<Box<HttpRetry>>,
    /// Injected delays and aborts.
    pub fault: Option<Box<HttpFaultInjection>>,
    /// A destination that gets a copy.
    pub mirror: Option<Box<Destination>>,
    /// Deprecated integer percentage of the mirror.
    #[serde(alias = "mirror_percent", deserialize_with = "lenient::option_int")]
    pub mirror_percent: Option<u32>,
    /// Share of requests that are mirrored; beats `mirror_percent`.
    pub mirror_percentage: Option<Percent>,
    /// Several mirrors; not together with `mirror`.
    #[serde(deserialize_with = "list::exact")]
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Cross-origin policy.
    pub cors_policy: Option<Box<CorsPolicy>>,
    /// Header operations of the rule.
    pub headers: Option<Box<Headers>>,
}

/// Conditions that all must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpMatchRequest {
    /// Name, appended to the rule's.
    pub name: String,
    /// The path without query.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The method, case-sensitive.
    pub method: Option<StringMatch>,
    /// Host header as sent, with its port.
    pub authority: Option<StringMatch>,
    /// Header conditions; a null value is kept as `None` (admission refuses it). Keys may be `@request.auth.claims…`.
    pub headers: BTreeMap<String, Option<StringMatch>>,
    /// The Gateway server's port number.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Labels of the gateway pod itself.
    pub source_labels: BTreeMap<String, String>,
    /// Restricts to some of the VirtualService's gateways.
    #[serde(deserialize_with = "list::exact")]
    pub gateways: Vec<String>,
    /// Query parameter conditions.
    pub query_params: BTreeMap<String, Option<StringMatch>>,
    /// Compare `uri` without regard to case; not for regexes.
    pub ignore_uri_case: bool,
    /// Negated header conditions.
    pub without_headers: BTreeMap<String, Option<StringMatch>>,
    /// Namespace of the gateway pod itself.
    pub source_namespace: String,
    /// Prefix for statistics.
    pub stat_prefix: String,
}

/// A weighted destination of an HTTP rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteDestination {
    /// Where to.
    #[serde(default)]
    pub destination: Destination,
    /// Share; ignored when there is only one destination.
    #[serde(default)]
    pub weight: Weight,
    /// Header operations of the destination.
    #[serde(default)]
    pub headers: Option<Box<Headers>>,
}

/// A weighted destination of a TCP or TLS rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteDestination {
    /// Where to.
    #[serde(default)]
    pub destination: Destination,
    /// Share; ignored when there is only one destination.
    #[serde(default)]
    pub weight: Weight,
}

/// A service, optionally one subset and port of it.
///
/// The API requires it and its host. One that is missing is read as unset, so that validation refuses it and the rules beside it
/// are judged all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Destination {
    /// Host in the registry; a name without a dot is in the rule's namespace.
    pub host: HostPattern,
    /// Subset of the DestinationRule; empty for all endpoints.
    pub subset: String,
    /// Service port.
    pub port: Option<PortSelector>,
}

impl Destination {
    /// The service port, when given and not 0.
    pub fn port_number(&self) -> Option<PortNumber> {
        self.port.as_ref().and_then(|port| port.number)
    }
}

/// A port by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortSelector {
    /// The number; `None` is 0.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub number: Option<PortNumber>,
}

/// Another VirtualService whose rules are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; empty is the root's own.
    pub namespace: String,
}

/// Header operations for both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Headers {
    /// On the request.
    pub request: Option<HeaderOperations>,
    /// On the response.
    pub response: Option<HeaderOperations>,
}

/// Header operations; effect is remove, then set, then add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeaderOperations {
    /// Replaces.
    pub set: BTreeMap<HeaderName, String>,
    /// Appends.
    pub add: BTreeMap<HeaderName, String>,
    /// Removes.
    #[serde(deserialize_with = "list::exact")]
    pub remove: Vec<HeaderName>,
}

/// A redirect reply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRedirect {
    /// Replaces the whole path.
    pub uri: String,
    /// Replaces the matched prefix.
    pub prefix_rewrite: String,
    /// Replaces host and port.
    pub authority: String,
    /// Port of the target.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Where the port comes from when not given.
    pub derive_port: Option<RedirectPortSelection>,
    /// `http` or `https`.
    pub scheme: String,
    /// Status; 0 is 301.
    #[serde(deserialize_with = "lenient::int")]
    pub redirect_code: u32,
}

/// Where a redirect takes its port from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum RedirectPortSelection {
    FromProtocolDefault,
    FromRequestPort,
}

/// A fixed reply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpDirectResponse {
    /// HTTP status.
    #[serde(deserialize_with = "lenient::int")]
    pub status: u32,
    /// The body; absent is empty.
    pub body: Option<HttpBody>,
}

/// The body of a fixed reply: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpBody {
    /// Text.
    pub string: Option<String>,
    /// Base64.
    pub bytes: Option<String>,
}

impl HttpBody {
    /// The bytes to send; `None` when `bytes` is not base64.
    pub fn decode(&self) -> Option<Vec<u8>> {
        use base64::Engine as _;
        match (&self.string, &self.bytes) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(encoded)) => base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok(),
            (None, None) => Some(Vec::new()),
        }
    }
}

/// Changes to path and authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRewrite {
    /// Replaces the matched prefix, or the whole path for exact and regex matches.
    pub uri: String,
    /// Replaces Host.
    pub authority: String,
    /// Replaces every match of a regex in the path.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// Find and replace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegexRewrite {
    /// RE2 syntax, not anchored.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Replacement with `\0` to `\9`.
    pub rewrite: String,
}

/// Retry policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRetry {
    /// Number of retries; 0 switches them off.
    #[serde(deserialize_with = "lenient::int")]
    pub attempts: i32,
    /// Time for each try.
    pub per_try_timeout: Option<Duration>,
    /// Comma list of conditions and status codes; empty is the default list.
    pub retry_on: String,
    /// Try other localities.
    pub retry_remote_localities: Option<bool>,
    /// Avoid hosts already tried.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Base of the exponential back-off.
    pub backoff: Option<Duration>,
}

/// Injected faults.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpFaultInjection {
    /// Wait before forwarding.
    pub delay: Option<FaultDelay>,
    /// Answer with an error.
    pub abort: Option<FaultAbort>,
}

/// A delay.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FaultDelay {
    /// Deprecated integer percentage.
    #[serde(deserialize_with = "lenient::int")]
    pub percent: i32,
    /// How long.
    pub fixed_delay: Option<Duration>,
    /// Not supported by Istio.
    pub exponential_delay: Option<Duration>,
    /// Share of requests; absent with `percent` 0 is none.
    pub percentage: Option<Percent>,
}

/// An abort.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FaultAbort {
    /// HTTP status.
    #[serde(deserialize_with = "lenient::option_int")]
    pub http_status: Option<i32>,
    /// Name of a gRPC status.
    pub grpc_status: Option<String>,
    /// Not supported by Istio.
    pub http2_error: Option<String>,
    /// Share of requests; absent is none.
    pub percentage: Option<Percent>,
}

/// Names of the gRPC status codes, each at its code.
pub const GRPC_STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Cross-origin policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Deprecated list of exact origins.
    #[serde(deserialize_with = "list::exact")]
    pub allow_origin: Vec<String>,
    /// Origins that are allowed.
    #[serde(deserialize_with = "list::exact")]
    pub allow_origins: Vec<StringMatch>,
    /// Methods told to preflights.
    #[serde(deserialize_with = "list::exact")]
    pub allow_methods: Vec<String>,
    /// Headers told to preflights.
    #[serde(deserialize_with = "list::exact")]
    pub allow_headers: Vec<String>,
    /// Headers that scripts may read.
    #[serde(deserialize_with = "list::exact")]
    pub expose_headers: Vec<String>,
    /// How long a preflight may be cached.
    pub max_age: Option<Duration>,
    /// Whether credentials are allowed.
    pub allow_credentials: Option<bool>,
    /// What happens to preflights of other origins.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What happens to preflights of origins that are not allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum UnmatchedPreflights {
    #[default]
    Unspecified,
    Forward,
    Ignore,
}

/// One of several mirrors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpMirrorPolicy {
    /// Where the copy goes.
    #[serde(default)]
    pub destination: Destination,
    /// Share of requests; absent is all.
    #[serde(default)]
    pub percentage: Option<Percent>,
}

/// A rule for passed-through TLS.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsRoute {
    /// Alternatives; at least one.
    #[serde(rename = "match", deserialize_with = "list::exact")]
    pub matches: Vec<TlsMatchAttributes>,
    /// Weighted destinations.
    #[serde(deserialize_with = "list::exact")]
    pub route: Vec<RouteDestination>,
}

/// Conditions on a TLS connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsMatchAttributes {
    /// Server names of the ClientHello.
    #[serde(deserialize_with = "list::exact")]
    pub sni_hosts: Vec<HostPattern>,
    /// Evaluated on sidecars only.
    #[serde(deserialize_with = "list::exact")]
    pub destination_subnets: Vec<String>,
    /// The Gateway server's port number.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Evaluated on sidecars only.
    pub source_labels: BTreeMap<String, String>,
    /// Restricts to some of the VirtualService's gateways.
    #[serde(deserialize_with = "list::exact")]
    pub gateways: Vec<String>,
    /// Evaluated on sidecars only.
    pub source_namespace: String,
}

/// A rule for opaque TCP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpRoute {
    /// Alternatives; empty matches every connection.
    #[serde(rename = "match", deserialize_with = "list::exact")]
    pub matches: Vec<L4MatchAttributes>,
    /// Weighted destinations.
    #[serde(deserialize_with = "list::exact")]
    pub route: Vec<RouteDestination>,
}

/// Conditions on a TCP connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct L4MatchAttributes {
    /// Evaluated on sidecars only.
    #[serde(deserialize_with = "list::exact")]
    pub destination_subnets: Vec<String>,
    /// The Gateway server's port number.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Not evaluated anywhere.
    pub source_subnet: String,
    /// Evaluated on sidecars only.
    pub source_labels: BTreeMap<String, String>,
    /// Restricts to some of the VirtualService's gateways.
    #[serde(deserialize_with = "list::exact")]
    pub gateways: Vec<String>,
    /// Evaluated on sidecars only.
    pub source_namespace: String,
}

//! Providers of authorization: services that policies of the action CUSTOM name.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::scalar::{Duration, lenient};

/// A service that is asked over HTTP: what it answers with 200 is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtAuthzHttp {
    /// Its host, `[NAMESPACE/]HOST`.
    pub service: String,
    /// Its port; 1 to 65535.
    #[serde(deserialize_with = "lenient::int")]
    pub port: u32,
    /// Time for an answer; absent is 600 s.
    pub timeout: Option<Duration>,
    /// Stands in front of the path that it is asked with.
    pub path_prefix: String,
    /// Let in what it gives no answer for.
    pub fail_open: bool,
    /// Route anew after it has changed headers. Istio reads it and does nothing with it.
    pub clear_route_cache: bool,
    /// Status where it gives no answer; empty is 403.
    pub status_on_error: String,
    /// The old name of `include_request_headers_in_check`.
    pub include_headers_in_check: Vec<String>,
    /// Headers of the request that it gets to see.
    pub include_request_headers_in_check: Vec<String>,
    /// Headers that it gets besides.
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// How much of the body it gets to see.
    pub include_request_body_in_check: Option<ExtAuthzBody>,
    /// Headers of its answer that go upstream with what is let in.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of its answer that the client gets with a refusal.
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Headers of its answer that the client gets with the response to what is let in.
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// A service that is asked over gRPC (`envoy.service.auth.v3.Authorization`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtAuthzGrpc {
    /// Its host, `[NAMESPACE/]HOST`.
    pub service: String,
    /// Its port; 1 to 65535.
    #[serde(deserialize_with = "lenient::int")]
    pub port: u32,
    /// Time for an answer; absent is 600 s.
    pub timeout: Option<Duration>,
    /// Let in what it gives no answer for.
    pub fail_open: bool,
    /// Route anew after it has changed headers. Istio reads it and does nothing with it.
    pub clear_route_cache: bool,
    /// Status where it gives no answer; empty is 403.
    pub status_on_error: String,
    /// How much of the body it gets to see.
    pub include_request_body_in_check: Option<ExtAuthzBody>,
}

/// How much of a request's body a provider gets to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtAuthzBody {
    /// Most bytes that are held.
    #[serde(deserialize_with = "lenient::int")]
    pub max_request_bytes: u32,
    /// What is longer is cut; otherwise it is answered with 413.
    pub allow_partial_message: bool,
    /// Bytes rather than text; over gRPC only.
    pub pack_as_bytes: bool,
}

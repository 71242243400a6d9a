//! What the gateway says of itself in heads (Istio: `proxyHeaders` of the proxies' configuration).
//!
//! Invariant: judged once a configuration; a request compares nothing but what is asked here. Read as Istio reads it for gateways:
//! `forwardedClientCert` and its companion are for sidecars.

use config_model::mesh::ProxyHeaders;
use http::HeaderValue;

/// The name that Istio's gateways go by.
const ISTIO: HeaderValue = HeaderValue::from_static("istio-envoy");

/// What the gateway says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPolicy {
    /// `server` of every response; `None`: the upstream's stays, and ours have none.
    pub server: Option<HeaderValue>,
    /// Whether requests get an `x-request-id` of ours; otherwise the client's stays.
    pub request_id: bool,
    /// `x-envoy-attempt-count` to upstreams.
    pub attempt_count: bool,
    /// What Envoy's router adds: `x-envoy-upstream-service-time`, `-expected-rq-timeout-ms`, `-original-path`, `-original-host`,
    /// `-overloaded`.
    pub debug: bool,
    /// The host that was asked for, in `x-forwarded-host`, where a rule gives another.
    pub forwarded_host: bool,
    /// The port that was asked on, in `x-forwarded-port`, unless a trusted proxy said one.
    pub forwarded_port: bool,
}

impl HeaderPolicy {
    pub(super) fn new(written: &ProxyHeaders) -> HeaderPolicy {
        let named = Some(written.server.value.as_str()).filter(|name| !name.is_empty());
        // What no header takes is named by a finding.
        let name = named.and_then(|name| HeaderValue::from_str(name).ok()).unwrap_or(ISTIO);
        HeaderPolicy {
            server: Some(name).filter(|_| written.server.disabled != Some(true)),
            request_id: written.request_id.is_on(),
            attempt_count: written.attempt_count.is_on(),
            debug: written.envoy_debug_headers.is_on(),
            forwarded_host: written.x_forwarded_host.is_on(),
            forwarded_port: written.x_forwarded_port.is_on(),
        }
    }
}

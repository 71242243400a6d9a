//! The callbacks of the engine that the gateway has, for those who wrap it.
//!
//! Invariant: the list is what `impl ProxyHttp for GatewayProxy` has, which a test reads, and it is enough: another test serves by a
//! wrapper that hands on these and no others.

use super::GatewayProxy;

impl GatewayProxy {
    /// The callbacks of [`ProxyHttp`](pingora_proxy::ProxyHttp) that the gateway has. A release that changes this list says so in the changelog.
    pub const CALLBACKS: &[&str] = &[
        "new_ctx",
        "init_downstream_modules",
        "early_request_filter",
        "request_filter",
        "upstream_peer",
        "connected_to_upstream",
        "upstream_request_filter",
        "request_body_filter",
        "upstream_response_filter",
        "response_filter",
        "response_body_filter",
        "response_trailer_filter",
        "fail_to_connect",
        "error_while_proxy",
        "fail_to_proxy",
        "logging",
        "suppress_error_log",
        "suppress_proxy_warn_log",
    ];
}

//! Headers that stand in one line, however often they are sent or added.
//!
//! Invariant: the lists are Envoy's inline headers, found by asking Envoy 1.40: a second line of one of these is joined
//! to the first by `,`. Of every other header each line is a value of its own.

use http::HeaderName;

/// Of requests.
const REQUEST: [&str; 33] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "referer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// Of responses.
const RESPONSE: [&str; 26] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "last-modified",
    "location",
    "proxy-status",
    "server",
    "transfer-encoding",
    "vary",
    "via",
    "x-envoy-upstream-service-time",
    "x-request-id",
];

/// Whether a request has at most one line of it.
#[must_use]
pub fn is_single_in_requests(name: &HeaderName) -> bool {
    REQUEST.binary_search(&name.as_str()).is_ok()
}

/// Whether a response has at most one line of it.
#[must_use]
pub fn is_single_in_responses(name: &HeaderName) -> bool {
    RESPONSE.binary_search(&name.as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted() {
        assert!(REQUEST.is_sorted() && RESPONSE.is_sorted());
        assert!(is_single_in_requests(&http::header::USER_AGENT));
        assert!(!is_single_in_requests(&http::header::COOKIE));
        assert!(is_single_in_responses(&http::header::VARY));
        assert!(!is_single_in_responses(&http::header::SET_COOKIE));
    }
}

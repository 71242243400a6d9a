//! Heads of responses on their way to the client.
//!
//! Invariant: what a hop says to its neighbour stays between them (RFC 9110 §7.6.1); framing and upgrades are the
//! engine's.

use super::ctx::Ctx;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use routing::action::headers::HeaderEdit;

/// Name that Istio's gateways go by.
const SERVER: HeaderValue = HeaderValue::from_static("istio-envoy");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fits an upstream's response head for the client.
pub(super) fn upstream(head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    let switching = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
    if head.status.is_informational() && !switching {
        return Ok(());
    }
    if !switching {
        strip_hop_by_hop(head);
    }
    if let Some(started) = ctx.attempt_started {
        head.insert_header(SERVICE_TIME, started.elapsed().as_millis().to_string())?;
    }
    ctx.details = "via_upstream".into();
    if ctx.grpc {
        ctx.grpc_status = grpc_status(&head.headers).or(ctx.grpc_status);
    }
    finish(head, ctx);
    Ok(())
}

/// What every response gets last, ours and the upstream's.
pub(super) fn finish(head: &mut ResponseHeader, ctx: &Ctx) {
    if let Some(ops) = ctx.response_ops() {
        ops.apply(&mut ResponseEdit(head));
    }
    // The name and value are constants that any header map takes.
    let _ = head.insert_header(header::SERVER, SERVER);
}

/// `grpc-status` of a trailers-only head, or of trailers.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn strip_hop_by_hop(head: &mut ResponseHeader) {
    let nominated: Vec<HeaderName> = head
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .filter(|name| {
            // Framing is not the upstream's to withdraw.
            !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONTENT_TYPE)
        })
        .collect();
    for name in &nominated {
        head.remove_header(name);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::PROXY_AUTHENTICATE, header::CONNECTION] {
        head.remove_header(&name);
    }
}

/// Edits that keep the engine's map of header cases in step.
pub(super) struct ResponseEdit<'h>(pub(super) &'h mut ResponseHeader);

impl HeaderEdit for ResponseEdit<'_> {
    fn remove(&mut self, name: &HeaderName) {
        self.0.remove_header(name);
    }

    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        // A compiled name and value always fit.
        let _ = self.0.insert_header(name.clone(), value.clone());
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        let _ = self.0.append_header(name.clone(), value.clone());
    }
}

/// The same for requests.
pub(super) struct RequestEdit<'h>(pub(super) &'h mut RequestHeader);

impl HeaderEdit for RequestEdit<'_> {
    fn remove(&mut self, name: &HeaderName) {
        self.0.remove_header(name);
    }

    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        // A compiled name and value always fit.
        let _ = self.0.insert_header(name.clone(), value.clone());
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        let _ = self.0.append_header(name.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_nominates_stays_on_the_hop() {
        let mut head = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("content-length", "3"),
            ("x-kept", "1"),
        ] {
            head.insert_header(name, value).unwrap();
        }
        strip_hop_by_hop(&mut head);
        let mut left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-kept"]);
    }
}

//! Heads of responses on their way to the client.
//!
//! Invariant: what a hop says to its neighbour stays between them (RFC 9110 §7.6.1); framing and upgrades are the
//! engine's.

use super::{
    ctx::Ctx,
    facts::{Exchange, Stage},
    heads::{edit_response, number},
};
use http::{HeaderMap, HeaderName, header};
use pingora_http::ResponseHeader;
use routing::action::headers::Direction;

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fits an upstream's response head for the client.
pub(super) fn upstream(head: &mut ResponseHeader, ctx: &mut Ctx) {
    let switching = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
    if head.status.is_informational() && !switching {
        return;
    }
    if switching && let Some(connection) = &ctx.connection {
        connection.protocol_switched();
    }
    ctx.details = "via_upstream".into();
    if ctx.grpc {
        ctx.grpc_status = grpc_status(&head.headers).or(ctx.grpc_status);
    }
    let service = ctx.attempt_started.map(|started| (started, started.elapsed()));
    ctx.until_response = service.map(|(started, took)| started.duration_since(ctx.started) + took);
    edit_response(head, |parts| {
        if !switching {
            strip_hop_by_hop(&mut parts.headers);
        }
        if parts.status == http::StatusCode::NO_CONTENT {
            // RFC 9110 §8.6 and RFC 9112 §6.1: it has no body, and may not speak of one.
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.remove(header::TRANSFER_ENCODING);
        }
        if let Some((_, took)) = service.filter(|_| ctx.heads().debug) {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            parts.headers.insert(SERVICE_TIME, number(millis));
        }
        for cookie in ctx.upstream.set_cookies() {
            parts.headers.append(header::SET_COOKIE, cookie.clone());
        }
        finish(&mut parts.headers, ctx, Stage::Response(parts.status.as_u16()));
    });
}

/// What every response gets last, ours and the upstream's.
pub(super) fn finish(headers: &mut HeaderMap, ctx: &Ctx, stage: Stage) {
    if let Some(ops) = ctx.response_ops() {
        ops.apply(headers, Direction::Response, &Exchange::responding(ctx, stage));
    }
    if let Some(origin) = &ctx.cors_origin
        && let Some(cors) = ctx.filters().and_then(|filters| filters.cors.as_ref())
    {
        cors.actual(origin, headers);
    }
    sign(headers, ctx);
}

/// Says who answered, unless the upstream's word is to stay.
pub(super) fn sign(headers: &mut HeaderMap, ctx: &Ctx) {
    if let Some(name) = &ctx.heads().server {
        headers.insert(header::SERVER, name.clone());
    }
}

/// `grpc-status` of a trailers-only head, or of trailers.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const HOP: [HeaderName; 5] =
        [KEEP_ALIVE, PROXY_CONNECTION, header::PROXY_AUTHENTICATE, header::CONNECTION, header::UPGRADE];
    // Most responses bear none of these: one look at each name, and no hash of any.
    if !headers.keys().any(|name| HOP.contains(name)) {
        return;
    }
    let nominated: Vec<HeaderName> = headers
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
    for name in nominated.iter().chain(&HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_connection_nominates_stays_on_the_hop() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("x-kept", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-kept"]);
    }
}

//! What the edge says about the client, in place of what the client says.
//!
//! Invariant: of a client's own words only those of trusted proxies are believed (Istio: none by default).

use super::super::{ctx::Ctx, forwarded_for};
use crate::{
    edge::Topology,
    telemetry::trace::{Active, Reason},
};
use config_model::mesh::ForwardClientCertDetails;
use http::{HeaderMap, HeaderName, HeaderValue, header::Entry};
use std::net::IpAddr;

/// Envoy's control headers, which an edge takes from no client (Envoy: `cleanInternalHeaders`), and what only we may
/// say about the client.
const STRIPPED: [HeaderName; 19] = [
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-external-address"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-internal"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-host"),
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-envoy-attempt-count"),
    HeaderName::from_static("x-forwarded-client-cert"),
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
/// Place of the version in a UUID's text.
const VERSION: usize = 14;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// What trusted proxies in front say about the client (Envoy: `xff_num_trusted_hops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Forwarded {
    /// The client, where they name it.
    pub(in crate::proxy) client: Option<IpAddr>,
    /// Whether it spoke TLS to the first of them, where they say so.
    pub(in crate::proxy) https: Option<bool>,
}

pub(super) fn forwarded(headers: &HeaderMap, topology: &Topology) -> Option<Forwarded> {
    let hops = topology.trusted_proxies.checked_sub(1)?;
    let client =
        forwarded_for::client(headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes), hops);
    let https = headers.get(FORWARDED_PROTO).and_then(|proto| match proto.as_bytes() {
        proto if proto.eq_ignore_ascii_case(b"https") => Some(true),
        proto if proto.eq_ignore_ascii_case(b"http") => Some(false),
        _ => None,
    });
    Some(Forwarded { client, https })
}

/// What upstreams are told of the client's certificate (Envoy: `mutateXfccRequestHeader`); Istio's gateways replace what
/// clients say of it.
fn client_certificate(headers: &HeaderMap, ctx: &Ctx) -> Option<HeaderValue> {
    use ForwardClientCertDetails as Details;
    let details = ctx.snapshot.edge.topology.client_certificate;
    let own = ctx.connection.as_ref().and_then(|connection| connection.client.as_ref());
    let said = || {
        let values: Vec<&[u8]> =
            headers.get_all(CLIENT_CERTIFICATE).iter().map(HeaderValue::as_bytes).collect();
        HeaderValue::from_bytes(&values.join(&b","[..])).ok().filter(|value| !value.is_empty())
    };
    match (details, own) {
        (Details::AlwaysForwardOnly, _) | (Details::ForwardOnly, Some(_)) => said(),
        (Details::Undefined | Details::SanitizeSet, Some(own)) => Some(own.forwarded.clone()),
        (Details::AppendForward, Some(own)) => match said() {
            Some(said) => {
                HeaderValue::from_bytes(&[said.as_bytes(), b",", own.forwarded.as_bytes()].concat()).ok()
            }
            None => Some(own.forwarded.clone()),
        },
        (Details::Sanitize, _) | (_, None) => None,
    }
}

/// What the edge says about the client, in place of what the client says; and the request's id and trace.
pub(super) fn mark(headers: &mut HeaderMap, ctx: &Ctx) -> Option<Box<Active>> {
    let certificate = client_certificate(headers, ctx);
    // One look at each name: most requests bear none of these, which all begin so.
    let begins = |name: &str| name.starts_with("x-envoy-") || name.starts_with("x-forwarded-client-");
    let forbidden = |name: &&HeaderName| begins(name.as_str()) && STRIPPED.contains(name);
    while let Some(name) = headers.keys().find(forbidden).cloned() {
        headers.remove(name);
    }
    if let Some(certificate) = certificate {
        headers.insert(CLIENT_CERTIFICATE, certificate);
    }
    let trace = identify(headers, ctx);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(super::scheme(ctx).as_str()));
    let Some(connection) = &ctx.connection else { return trace };
    let edge = &ctx.snapshot.edge;
    if edge.headers.forwarded_port
        && (edge.topology.trusted_proxies == 0 || !headers.contains_key(FORWARDED_PORT))
    {
        headers.insert(FORWARDED_PORT, HeaderValue::from(connection.local.port()));
    }
    let peer = connection.peer_header();
    match headers.entry(FORWARDED_FOR) {
        Entry::Vacant(none) => {
            none.insert(peer.clone());
        }
        Entry::Occupied(mut before) => {
            let chain: Vec<&[u8]> =
                before.iter().map(HeaderValue::as_bytes).chain([peer.as_bytes()]).collect();
            let chain = HeaderValue::from_bytes(&chain.join(&b","[..])).unwrap_or_else(|_| peer.clone());
            before.insert(chain);
        }
    }
    let client = ctx.forwarded.and_then(|forwarded| forwarded.client);
    let client = client.and_then(|client| HeaderValue::try_from(client.to_string()).ok());
    headers.insert(EXTERNAL_ADDRESS, client.unwrap_or_else(|| peer.clone()));
    trace
}

/// Gives a request its id, which decides whether it is traced where nobody else did.
fn identify(headers: &mut HeaderMap, ctx: &Ctx) -> Option<Box<Active>> {
    let tracing = &ctx.snapshot.telemetry.tracing;
    let id = fastrand::u128(..).to_be_bytes();
    let [a, b, c, d, ..] = id;
    let reason = tracing.decide(headers, u32::from_be_bytes([a, b, c, d]));
    if ctx.snapshot.edge.headers.request_id {
        headers.insert(REQUEST_ID, uuid(id, reason));
    }
    tracing.begin(reason, headers)
}

/// A random UUID (RFC 9562 §5.4).
pub(in crate::proxy) fn request_id() -> HeaderValue {
    uuid(fastrand::u128(..).to_be_bytes(), Reason::None)
}

/// A UUID of random bytes; its version digit is also where Envoy keeps the trace decision, and 4 is "not traced".
fn uuid(random: [u8; 16], reason: Reason) -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    if let Some(version) = text.get_mut(VERSION) {
        *version = reason.digit();
    }
    // Hexadecimal digits and hyphens are what any header takes.
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_heard_about_the_client() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_static("6.6.6.6, 192.0.2.1"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("10.0.0.9"));
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
        let heard =
            |trusted_proxies| forwarded(&headers, &Topology { trusted_proxies, ..Topology::default() });
        assert_eq!(heard(0), None);
        for (trusted, client) in
            [(1, Some("10.0.0.9")), (2, Some("192.0.2.1")), (3, Some("6.6.6.6")), (4, None)]
        {
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(heard(trusted), Some(Forwarded { client, https: Some(true) }));
        }
    }
}

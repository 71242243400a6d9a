//! What the edge says about the client, in place of what the client says.
//!
//! Invariant: of a client's own words only those of trusted proxies are believed (Istio: none by default). A sidecar is within the mesh:
//! what was said before it stays, but for how requests are to be treated, which none of the mesh says to another (Envoy: `internal_request`).

use super::super::{ctx::Ctx, forwarded_for};
use crate::{
    edge::{Hop, Topology},
    telemetry::trace::{Active, Reason},
};
use config_model::mesh::ForwardClientCertDetails;
use http::{HeaderMap, HeaderName, HeaderValue, header::Entry};
use std::net::IpAddr;

/// Envoy's control headers, which an edge takes from no client (Envoy: `cleanInternalHeaders`), and what only we may
/// say about the client.
const STRIPPED: [HeaderName; 17] = [
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-internal"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-host"),
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-forwarded-client-cert"),
];
/// Those that an edge alone takes away (Envoy: `edge_request`).
const STRIPPED_AT_EDGE: [HeaderName; 5] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-external-address"),
    HeaderName::from_static("x-envoy-attempt-count"),
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

pub(super) fn forwarded(headers: &HeaderMap, hop: Hop, topology: &Topology) -> Option<Forwarded> {
    let hops = match hop {
        Hop::Edge => topology.trusted_proxies.checked_sub(1)?,
        // Envoy: `getLastAddressFromXFF`.
        Hop::Mesh => 0,
    };
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
/// clients say of it, and its sidecars add to it what they saw.
fn client_certificate(headers: &HeaderMap, ctx: &Ctx) -> Option<HeaderValue> {
    use ForwardClientCertDetails as Details;
    let details = ctx.heads().client_certificate;
    let own = ctx.connection.as_ref().and_then(|connection| connection.client.as_ref());
    let said = || {
        let values: Vec<&[u8]> =
            headers.get_all(CLIENT_CERTIFICATE).iter().map(HeaderValue::as_bytes).collect();
        HeaderValue::from_bytes(&values.join(&b","[..])).ok().filter(|value| !value.is_empty())
    };
    match (details, own) {
        (Details::AlwaysForwardOnly, _) | (Details::ForwardOnly, Some(_)) => said(),
        (Details::Undefined | Details::SanitizeSet, Some(own)) => Some(own.told.clone()),
        (Details::AppendForward, Some(own)) => match said() {
            Some(said) => {
                HeaderValue::from_bytes(&[said.as_bytes(), b",", own.told.as_bytes()].concat()).ok()
            }
            None => Some(own.told.clone()),
        },
        (Details::Sanitize, _) | (_, None) => None,
    }
}

/// What the edge says about the client, in place of what the client says; and the request's id and trace.
pub(super) fn mark(headers: &mut HeaderMap, ctx: &Ctx) -> Option<Box<Active>> {
    let certificate = client_certificate(headers, ctx);
    let policy = ctx.heads();
    let at_edge = policy.hop == Hop::Edge;
    // One look at each name: most requests bear none of these, which all begin so.
    let begins = |name: &str| name.starts_with("x-envoy-") || name.starts_with("x-forwarded-client-");
    let forbidden = |name: &&HeaderName| {
        begins(name.as_str()) && (STRIPPED.contains(name) || (at_edge && STRIPPED_AT_EDGE.contains(name)))
    };
    while let Some(name) = headers.keys().find(forbidden).cloned() {
        headers.remove(name);
    }
    if let Some(certificate) = certificate {
        headers.insert(CLIENT_CERTIFICATE, certificate);
    }
    let trace = identify(headers, ctx);
    if at_edge || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(super::scheme(ctx).as_str()));
    }
    let Some(connection) = ctx.connection.as_ref().filter(|_| at_edge) else { return trace };
    let trusted = ctx.snapshot.edge.topology.trusted_proxies;
    if policy.forwarded_port && (trusted == 0 || !headers.contains_key(FORWARDED_PORT)) {
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

/// Gives a request its id, which decides whether it is traced where nobody else did. Within the mesh it keeps the one that it has.
fn identify(headers: &mut HeaderMap, ctx: &Ctx) -> Option<Box<Active>> {
    let tracing = ctx.snapshot.telemetry.tracing(ctx.side());
    if ctx.heads().hop == Hop::Mesh
        && let Some(known) = headers.get(REQUEST_ID)
    {
        let (reason, marked) = decided(known, |draw| tracing.decide(headers, draw));
        if let Some(marked) = marked {
            headers.insert(REQUEST_ID, marked);
        }
        return tracing.begin(reason, headers);
    }
    let id = fastrand::u128(..).to_be_bytes();
    let [a, b, c, d, ..] = id;
    let reason = tracing.decide(headers, u32::from_be_bytes([a, b, c, d]));
    if ctx.heads().request_id {
        headers.insert(REQUEST_ID, uuid(id, reason));
    }
    tracing.begin(reason, headers)
}

/// Why a request with this id is traced, and its id with that said in it where it was not (Envoy: `UUIDRequestIDExtension`). An id that is no
/// UUID decides nothing.
fn decided(id: &HeaderValue, decide: impl FnOnce(u32) -> Reason) -> (Reason, Option<HeaderValue>) {
    let text = id.as_bytes();
    let begin = text.get(..8).filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH);
    let draw = begin.and_then(|begin| u32::from_str_radix(std::str::from_utf8(begin).ok()?, 16).ok());
    let Some(draw) = draw else { return (Reason::None, None) };
    if let Some(reason) = text.get(VERSION).and_then(|digit| Reason::of_digit(*digit)) {
        return (reason, None);
    }
    let reason = decide(draw);
    let mut marked = text.to_vec();
    if let Some(version) = marked.get_mut(VERSION) {
        *version = reason.digit();
    }
    (reason, HeaderValue::from_bytes(&marked).ok().filter(|_| reason != Reason::None))
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
        let heard = |trusted_proxies| {
            forwarded(&headers, Hop::Edge, &Topology { trusted_proxies, ..Topology::default() })
        };
        assert_eq!(heard(0), None);
        let in_mesh = forwarded(&headers, Hop::Mesh, &Topology { trusted_proxies: 3, ..Topology::default() });
        assert_eq!(in_mesh, heard(1));
        for (trusted, client) in
            [(1, Some("10.0.0.9")), (2, Some("192.0.2.1")), (3, Some("6.6.6.6")), (4, None)]
        {
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(heard(trusted), Some(Forwarded { client, https: Some(true) }));
        }
    }

    #[test]
    fn an_id_that_came_along_decides_as_it_did_before() {
        let id = |text: &'static str| HeaderValue::from_static(text);
        let never = |_| panic!("it is decided");
        assert_eq!(decided(&id("not-a-uuid"), never), (Reason::None, None));
        assert_eq!(decided(&id("00000001-0000-9000-8000-000000000000"), never), (Reason::Sampled, None));
        assert_eq!(decided(&id("00000001-0000-b000-8000-000000000000"), never), (Reason::Client, None));
        let open = id("0000000a-0000-4000-8000-000000000000");
        assert_eq!(
            decided(&open, |draw| if draw == 10 { Reason::None } else { Reason::Sampled }),
            (Reason::None, None)
        );
        let marked = id("0000000a-0000-9000-8000-000000000000");
        assert_eq!(decided(&open, |_| Reason::Sampled), (Reason::Sampled, Some(marked)));
    }
}

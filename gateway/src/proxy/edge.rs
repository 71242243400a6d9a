//! Heads of requests: what is let in, what is stripped and added at the edge, what goes upstream.
//!
//! Invariant: after [`admit`] a head is in one form, whatever the version of HTTP: origin-form target with a
//! normalised path, and a `Host` that is the authority. A client's words about how it was reached, or how to treat
//! it, are never believed (Istio: no trusted proxies by default).

use super::{
    ctx::Ctx,
    facts::{Exchange, SentRequest, Stage},
    heads::{edit_client, edit_request, number},
    normalize::{self, Normal},
    reply::LocalReply,
};
use crate::{
    edge::{Misdirected, Topology},
    listener::{Flaw, Leniency, Underscores, is_authority},
    snapshot::Snapshot,
    telemetry::Flag,
};
use config_model::mesh::ForwardClientCertDetails;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request::Parts, uri::PathAndQuery,
};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use routing::{
    action::{
        headers::{Direction, HeaderOps},
        rewrite::path_and_query,
        timeout,
    },
    decision::{Decision, NotFound},
    host::without_port,
    listener::{Chains, FilterChain},
    request::{RequestHead, Scheme},
    route::Action,
};
use std::{net::IpAddr, sync::Arc};

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
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Brings a head into its one form, or notes in `ctx` why it is refused.
pub(super) fn admit(session: &mut Session, ctx: &mut Ctx) {
    if let Some(flaw) = ctx.connection.as_ref().and_then(|c| c.refusal()) {
        // The engine has a head that stands in for the one that was refused as it came.
        ctx.refusal = Some(refusal(flaw));
        return;
    }
    let request = session.req_header_mut();
    ctx.version = request.version;
    ctx.grpc = is_grpc(&request.headers);
    ctx.upgrade = request.headers.contains_key(header::UPGRADE);
    ctx.refusal = target(request, ctx).err();
    ctx.forwarded = forwarded(&request.headers, &ctx.snapshot.edge.topology);
    edit_client(request, |parts| mark(&mut parts.headers, ctx));
}

/// The answer to a request that was not read as HTTP (Envoy: `sendProtocolError`).
pub(super) fn refusal(flaw: Flaw) -> LocalReply {
    let reply = LocalReply::text(flaw.status(), flaw.body().to_owned(), flaw.details()).close();
    match flaw {
        Flaw::Connect => reply.flag(Flag::NoRouteFound),
        flaw if flaw.is_codecs() => reply.flag(Flag::DownstreamProtocolError),
        _ => reply,
    }
}

/// The head as rules see it.
pub(super) fn head<'h>(request: &'h RequestHeader, ctx: &'h Ctx) -> RequestHead<'h> {
    RequestHead {
        method: request.method.as_str(),
        scheme: scheme(ctx),
        authority: &ctx.authority,
        path: request.uri.path(),
        query: request.uri.query(),
        headers: &request.headers,
        claims: None,
    }
}

/// The chain that a request belongs to: that of its connection, unless the request is for another server of the port and
/// `--misdirected` says to look there. `None`: the client is to open another connection (RFC 9110 §15.5.20).
pub(super) fn directed<'s>(
    own: &'s Arc<FilterChain>,
    request: &RequestHeader,
    ctx: &Ctx,
    snapshot: &'s Snapshot,
) -> Option<&'s Arc<FilterChain>> {
    let connection = ctx.connection.as_ref().filter(|connection| connection.tls);
    let (Some(connection), Misdirected::Refuse | Misdirected::Route) =
        (connection, snapshot.edge.misdirected)
    else {
        return Some(own);
    };
    let Some(Chains::Tls(by_name)) =
        snapshot.listeners.get(&connection.listener).map(|listener| &listener.chains)
    else {
        return Some(own);
    };
    if !matches!(own.table.lookup(&head(request, ctx)), Decision::NotFound(NotFound::Host)) {
        return Some(own);
    }
    let name = without_port(&ctx.authority).to_ascii_lowercase();
    match by_name.lookup_sni(Some(&name)) {
        None => Some(own),
        Some(other) if Arc::ptr_eq(other, own) => Some(own),
        // What a client proved to one server it has not proved to another that asks for more.
        Some(other)
            if snapshot.edge.misdirected == Misdirected::Route
                && other.tls == own.tls
                && other.tcp.is_none() =>
        {
            Some(other)
        }
        Some(_) => None,
    }
}

/// Whether the client waits for a word before it sends the body (RFC 9110 §10.1.1).
pub(super) fn expects_continue(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_11
        && request
            .headers
            .get(header::EXPECT)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Does what the rule says to the head of one attempt.
///
/// # Errors
/// When a rewrite gives a target that no request line can have.
pub(super) fn forward(client: &RequestHeader, upstream: &mut RequestHeader, ctx: &mut Ctx) -> Result<()> {
    edit_request(upstream, |parts| plan(client, parts, ctx))
}

fn plan(client: &RequestHeader, upstream: &mut Parts, ctx: &mut Ctx) -> Result<()> {
    let headers = &mut upstream.headers;
    // We answered it ourselves.
    headers.remove(header::EXPECT);
    // A gRPC server may insist on it, and it is the one value that may cross hops (RFC 9110 §10.1.4).
    if upstream.version == Version::HTTP_2 && wants_trailers(&client.headers) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let route = ctx.route.clone();
    let Some(Action::Forward(forward)) = route.as_deref().map(|r| &r.action) else { return Ok(()) };
    // Before the rule's operations, which may change it; what a rewrite tells of comes after them (Envoy: router.cc).
    headers.insert(ATTEMPT_COUNT, number(ctx.attempt.into()));
    let clocks = ctx.clock.as_ref().zip(ctx.attempt_started);
    if let Some(expected) = clocks.and_then(|(clock, attempt)| clock.expected(attempt)) {
        let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        headers.insert(EXPECTED_TIMEOUT, number(millis));
        if ctx.grpc {
            headers.insert(timeout::GRPC_TIMEOUT, timeout::to_grpc(expected));
        }
    }
    if let Some(destination) = ctx.destination() {
        let facts = Exchange {
            ctx,
            stage: Stage::Request,
            scheme: scheme(ctx).as_str(),
            method: client.method.as_str(),
            path: client.uri.path_and_query().map_or("", PathAndQuery::as_str),
            authority: &ctx.authority,
            headers: None,
        };
        destination.headers.request.apply(headers, Direction::Request, &facts);
    }
    if let Some(rewrite) = &forward.rewrite {
        let path = client.uri.path();
        let rewritten = rewrite.apply(path);
        if rewritten != path {
            let not_a_path = || "the rewritten path is not a path";
            let target = path_and_query(&rewritten, client.uri.query());
            upstream.uri = PathAndQuery::try_from(target.as_str())
                .map(Uri::from)
                .or_err_with(ErrorType::InternalError, not_a_path)?;
            if let Some(original) = client.uri.path_and_query() {
                let original = HeaderValue::from_str(original.as_str())
                    .or_err_with(ErrorType::InternalError, not_a_path)?;
                headers.insert(ORIGINAL_PATH, original);
            }
            ctx.upstream_path = Some(target);
        }
    }
    // One of several destinations gives its authority before the rule does, and leaves no word of the one before
    // (Envoy: only a route's own rewrite does).
    let passing = ctx.destination().and_then(|d| d.headers.passing.clone());
    let of_rule =
        forward.authority.clone().or_else(|| ctx.destination().and_then(|d| d.headers.authority.clone()));
    let before = of_rule.is_some().then(|| passing.as_deref().unwrap_or(&ctx.authority).to_owned());
    if let Some(authority) = of_rule.or(passing) {
        let host = HeaderValue::from_str(&authority)
            .or_err_with(ErrorType::InternalError, || "the rewritten authority is not a host")?;
        headers.insert(header::HOST, host);
        if let Some(Ok(original)) = before.as_deref().map(HeaderValue::from_str) {
            headers.insert(ORIGINAL_HOST, original);
        }
        ctx.upstream_authority = Some(authority);
    }
    keep_for_response(client, headers, ctx);
    Ok(())
}

/// Keeps the request, as it is now, for a response whose values read it.
pub(super) fn keep_for_response(client: &RequestHeader, headers: &HeaderMap, ctx: &mut Ctx) {
    if ctx.response_ops().is_some_and(HeaderOps::reads_request) {
        let path = || client.uri.path_and_query().map_or("", PathAndQuery::as_str).to_owned();
        ctx.sent = Some(Box::new(SentRequest {
            method: client.method.to_string(),
            path: ctx.upstream_path.clone().unwrap_or_else(path),
            authority: ctx.upstream_authority.as_deref().unwrap_or(&ctx.authority).to_owned(),
            headers: headers.clone(),
        }));
    }
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|t| t.trim().eq_ignore_ascii_case("trailers"))
}

/// The scheme that the client spoke.
pub(super) fn scheme(ctx: &Ctx) -> Scheme {
    let tls = || ctx.connection.as_ref().is_some_and(|c| c.tls);
    let https = ctx.forwarded.and_then(|forwarded| forwarded.https).unwrap_or_else(tls);
    if https { Scheme::Https } else { Scheme::Http }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| {
        // `application/grpc`, or with a suffix after `+` (Envoy: `hasGrpcContentType`); grpc-web is not it.
        let v = v.as_bytes();
        v.strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// Authority and target, checked and in one form. HTTP/1 heads were read strictly before they came here; HTTP/2 has no such
/// text, and is looked at here only.
fn target(request: &mut RequestHeader, ctx: &mut Ctx) -> std::result::Result<(), LocalReply> {
    let refuse = |details| {
        let reply = LocalReply::text(400, "Bad Request".to_owned(), details);
        reply.flag(Flag::DownstreamProtocolError).close()
    };
    match request.method {
        Method::CONNECT => return Err(refusal(Flaw::Connect)),
        _ if request.version == Version::HTTP_2 => http2(request, ctx).map_err(refusal)?,
        _ => {}
    }
    // The target's authority wins over Host (RFC 9112 §3.2.2); HTTP/2 has it there only.
    let authority = match request.uri.authority() {
        Some(a) => a.as_str().to_owned(),
        None => match request.headers.get(header::HOST).map(HeaderValue::to_str) {
            Some(Ok(host)) => host.to_owned(),
            Some(Err(_)) => return Err(refusal(Flaw::Authority)),
            None => return Err(refusal(Flaw::MissingHost)),
        },
    };
    if !is_authority(authority.as_bytes()) {
        return Err(refusal(Flaw::Authority));
    }
    ctx.authority = authority;
    let path = request.uri.path();
    let normal = match normalize::normalize(path, &ctx.snapshot.edge.path) {
        Ok(Normal::Path(path)) => path,
        Ok(Normal::Redirect(path)) => {
            return Err(LocalReply::redirect(307, &path_and_query(&path, request.uri.query())));
        }
        // `OPTIONS *` is about the server as a whole, and no rule can be about that.
        Err(normalize::BadPath::Relative) if request.method == Method::OPTIONS && path == "*" => {
            return Err(LocalReply::empty(404, "absolute_path_rejected"));
        }
        Err(_) => return Err(refuse("path_normalization_failed")),
    };
    if !is_target(request.raw_path()) {
        return Err(refusal(Flaw::Target));
    }
    // The engine keeps an absolute-form target beside the path that it read from it, and would send that on.
    let as_read = request.uri.path_and_query().is_some_and(|t| t.as_str().as_bytes() == request.raw_path());
    if request.uri.authority().is_some() || !as_read || normal != path {
        let target = path_and_query(&normal, request.uri.query());
        match PathAndQuery::try_from(target) {
            Ok(target) => request.set_uri(Uri::from(target)),
            Err(_) => return Err(refuse("path_normalization_failed")),
        }
    }
    if request.headers.get(header::HOST).is_none_or(|host| host.as_bytes() != ctx.authority.as_bytes()) {
        let host = HeaderValue::from_str(&ctx.authority).map_err(|_| refusal(Flaw::Authority))?;
        request.insert_header(header::HOST, host).map_err(|_| refusal(Flaw::Authority))?;
    }
    Ok(())
}

/// What is judged on the text of an HTTP/1 head.
fn http2(request: &mut RequestHeader, ctx: &Ctx) -> std::result::Result<(), Flaw> {
    let policy = &ctx.snapshot.edge.limits.head;
    if request.method == Method::TRACE && policy.trace == Leniency::Refuse {
        return Err(Flaw::Trace);
    }
    if request.headers.len() > policy.max_fields {
        return Err(Flaw::TooMany);
    }
    // A proxy in front may have taken TLS off; that somebody put it on is not possible.
    let tls = ctx.connection.as_ref().is_some_and(|connection| connection.tls);
    match request.uri.scheme_str() {
        None | Some("https") => {}
        Some("http") if !tls => {}
        Some(_) => return Err(Flaw::Target),
    }
    if policy.underscores != Underscores::Allow {
        let bears = |name: &&HeaderName| name.as_str().contains('_');
        while let Some(name) = request.headers.keys().find(bears).cloned() {
            if policy.underscores == Underscores::Refuse {
                return Err(Flaw::Underscore);
            }
            request.remove_header(&name);
        }
    }
    Ok(())
}

/// Origin form, or absolute form of the web (RFC 9112 §3.2). The engine escapes what it cannot parse and reads again, so
/// that a second space before the target arrives here as a target that begins with `%20`.
fn is_target(raw: &[u8]) -> bool {
    let scheme = |s: &[u8]| raw.get(..s.len()).is_some_and(|start| start.eq_ignore_ascii_case(s));
    raw.starts_with(b"/") || scheme(b"http://") || scheme(b"https://")
}

/// What trusted proxies in front say about the client (Envoy: `xff_num_trusted_hops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// The client, where they name it.
    pub(super) client: Option<IpAddr>,
    /// Whether it spoke TLS to the first of them, where they say so.
    pub(super) https: Option<bool>,
}

fn forwarded(headers: &HeaderMap, topology: &Topology) -> Option<Forwarded> {
    let hops = topology.trusted_proxies.checked_sub(1)?;
    let values: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
    // The last trusted proxy appended who it heard from; each one before it, one entry further to the left.
    let client = values.iter().flat_map(|v| v.split(',')).rev().nth(hops).and_then(|v| v.trim().parse().ok());
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

/// What the edge says about the client, in place of what the client says.
fn mark(headers: &mut HeaderMap, ctx: &Ctx) {
    let certificate = client_certificate(headers, ctx);
    // One look at each name: most requests bear none of these.
    let forbidden = |name: &&HeaderName| name.as_str().starts_with("x-") && STRIPPED.contains(name);
    while let Some(name) = headers.keys().find(forbidden).cloned() {
        headers.remove(name);
    }
    if let Some(certificate) = certificate {
        headers.insert(CLIENT_CERTIFICATE, certificate);
    }
    headers.insert(REQUEST_ID, request_id());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme(ctx).as_str()));
    let Some(connection) = &ctx.connection else { return };
    let peer = connection.peer_header();
    let chain = match headers.contains_key(FORWARDED_FOR) {
        false => peer.clone(),
        true => {
            let before = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
            let chain: Vec<&[u8]> = before.chain([peer.as_bytes()]).collect();
            HeaderValue::from_bytes(&chain.join(&b","[..])).unwrap_or_else(|_| peer.clone())
        }
    };
    headers.insert(FORWARDED_FOR, chain);
    let client = ctx.forwarded.and_then(|forwarded| forwarded.client);
    let client = client.and_then(|client| HeaderValue::try_from(client.to_string()).ok());
    headers.insert(EXTERNAL_ADDRESS, client.unwrap_or_else(|| peer.clone()));
}

/// A random UUID (RFC 9562 §5.4); its version digit is also where Envoy keeps the trace decision, and 4 is "not traced".
pub(super) fn request_id() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    // Hexadecimal digits and hyphens are what any header takes.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(target: &str, headers: &[(&'static str, &str)]) -> (RequestHeader, Ctx, Option<u16>) {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        let mut ctx = Ctx::new(Arc::new(Snapshot::default()));
        let refused = super::target(&mut request, &mut ctx).err().map(|r| r.status());
        edit_request(&mut request, |parts| mark(&mut parts.headers, &ctx));
        (request, ctx, refused)
    }

    #[test]
    fn only_an_authority_that_everyone_reads_alike_is_let_in() {
        for good in ["a.example", "a.example:80", "10.0.0.1:8080", "[::1]:80", "[::1]", "a_b", "A.Example"] {
            assert_eq!(admitted("/", &[("host", good)]).2, None, "{good}");
        }
        for bad in
            ["", "a b", "a/b", "a,b", "u@a", "a:b", "a:80:80", "[::1", "::1", "a:+80", "a:99999", "a%20b"]
        {
            assert_eq!(admitted("/", &[("host", bad)]).2, Some(400), "{bad}");
        }
        assert_eq!(admitted("/", &[]).2, Some(400));
    }

    #[test]
    fn the_head_is_in_origin_form_with_a_normal_path() {
        let (request, ctx, refused) = admitted("http://a.example/x/../%61?q=%2e", &[("host", "a.example")]);
        assert_eq!(refused, None);
        assert_eq!(request.uri.to_string(), "/a?q=%2e");
        assert_eq!(ctx.authority, "a.example");
        for bad in ["/%zz", "%20/", "ftp://a/", "a/b"] {
            assert_eq!(admitted(bad, &[("host", "a")]).2, Some(400), "{bad}");
        }
    }

    #[test]
    fn a_client_cannot_steer_the_proxy() {
        let (request, ..) = admitted(
            "/",
            &[
                ("host", "a"),
                ("x-envoy-retry-on", "5xx"),
                ("x-forwarded-client-cert", "x"),
                ("x-request-id", "mine"),
            ],
        );
        assert!(!request.headers.contains_key("x-envoy-retry-on"));
        assert!(!request.headers.contains_key("x-forwarded-client-cert"));
        let id = request.headers["x-request-id"].to_str().unwrap();
        assert_eq!((id.len(), id.as_bytes()[14], id.matches('-').count()), (36, b'4', 4));
        assert_eq!(request.headers["x-forwarded-proto"], "http");
    }

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

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, wants) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_grpc(&headers), wants, "{kind}");
        }
    }
}

//! Heads of requests: what is let in, and as what.
//!
//! Invariant: after [`admit`] a head is in one form, whatever the version of HTTP: origin-form target with a
//! normalised path, and a `Host` that is the authority. A client's words about how it was reached, or how to treat
//! it, are never believed (Istio: no trusted proxies by default).

mod client;
mod forward;

use super::{
    ctx::Ctx,
    heads::edit_client,
    normalize::{self, Normal},
    reply::LocalReply,
};
use crate::{
    edge::Misdirected,
    listener::{Flaw, Leniency, Underscores, is_authority},
    snapshot::Snapshot,
    telemetry::Flag,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, uri::PathAndQuery};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use routing::{
    action::rewrite::path_and_query,
    decision::{Decision, NotFound},
    host::without_port,
    listener::{Chains, FilterChain},
    request::{RequestHead, Scheme},
};
use std::sync::Arc;

pub(super) use client::{Forwarded, request_id};
pub(super) use forward::{expects_continue, forward, keep_for_response};

/// Brings a head into its one form, or notes in `ctx` why it is refused.
pub(super) fn admit(session: &mut Session, ctx: &mut Ctx) {
    if let Some(flaw) = ctx.connection.as_ref().and_then(|c| c.refusal()) {
        // The engine has a head that stands in for the one that was refused as it came.
        ctx.refusal = Some(refusal(flaw));
        return;
    }
    let request = session.req_header_mut();
    ctx.version = request.version;
    let said = Said::of(&request.headers);
    ctx.grpc = said.content_type.is_some_and(is_grpc);
    ctx.upgrade = said.upgrade;
    ctx.expects = said.expects;
    let host = said.host.map(|host| host.to_str().map(str::to_owned).map_err(|_| Flaw::Authority));
    ctx.refusal = target(request, host, ctx).err();
    ctx.forwarded = client::forwarded(&request.headers, ctx.heads().hop, &ctx.snapshot.edge.topology);
    ctx.trace = edit_client(request, |parts| client::mark(&mut parts.headers, ctx));
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
        claims: ctx.policies.as_deref().and_then(|policies| policies.shared.claims.as_ref()),
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
    let Some(Chains::Tls(by_name)) = snapshot.listener(&connection.listener).map(|listener| &listener.chains)
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

/// The scheme that the client spoke.
pub(super) fn scheme(ctx: &Ctx) -> Scheme {
    let tls = || ctx.connection.as_ref().is_some_and(|c| c.tls);
    let https = ctx.forwarded.and_then(|forwarded| forwarded.https).unwrap_or_else(tls);
    if https { Scheme::Https } else { Scheme::Http }
}

/// What the edge asks every head: one look at each name in place of a look-up of each.
#[derive(Default)]
struct Said<'h> {
    host: Option<&'h HeaderValue>,
    content_type: Option<&'h HeaderValue>,
    upgrade: bool,
    expects: bool,
}

impl<'h> Said<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let mut said = Said::default();
        for (name, value) in headers {
            // Of several the first counts.
            match *name {
                header::HOST => said.host = said.host.or(Some(value)),
                header::CONTENT_TYPE => said.content_type = said.content_type.or(Some(value)),
                header::UPGRADE => said.upgrade = true,
                header::EXPECT => said.expects = true,
                _ => {}
            }
        }
        said
    }
}

/// `application/grpc`, or with a suffix after `+` (Envoy: `hasGrpcContentType`); grpc-web is not it.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Authority and target, checked and in one form; `host` is the first `Host` there is. HTTP/1 heads were read strictly before they came here; HTTP/2 has no such
/// text, and is looked at here only.
fn target(
    request: &mut RequestHeader,
    host: Option<std::result::Result<String, Flaw>>,
    ctx: &mut Ctx,
) -> std::result::Result<(), LocalReply> {
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
    let (authority, from_target) = match request.uri.authority() {
        Some(a) => (a.as_str().to_owned(), true),
        None => (host.unwrap_or(Err(Flaw::MissingHost)).map_err(refusal)?, false),
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
    if from_target {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(target: &str, headers: &[(&'static str, &str)]) -> (RequestHeader, Ctx, Option<u16>) {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        let mut ctx = Ctx::new(Arc::new(Snapshot::default()));
        let host = Said::of(&request.headers).host;
        let host = host.map(|host| host.to_str().map(str::to_owned).map_err(|_| Flaw::Authority));
        let refused = super::target(&mut request, host, &mut ctx).err().map(|r| r.status());
        edit_client(&mut request, |parts| client::mark(&mut parts.headers, &ctx));
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
    fn grpc_is_told_by_its_content_type() {
        for (kind, wants) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&HeaderValue::from_static(kind)), wants, "{kind}");
        }
    }
}

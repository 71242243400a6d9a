//! The head of one attempt: what the rule says about it, and what an upstream is told.
//!
//! Invariant: begins from the client's head as it was let in, at every attempt anew.

use super::super::{
    ctx::Ctx,
    facts::{Exchange, SentRequest, Stage},
    heads::{edit_request, number},
    trace,
};
use crate::edge::HeaderPolicy;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header, request::Parts, uri::PathAndQuery};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use routing::{
    action::{
        headers::{Direction, HeaderOps},
        timeout,
    },
    route::Action,
};

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Whether the client waits for a word before it sends the body (RFC 9110 §10.1.1).
pub(in crate::proxy) fn expects_continue(request: &RequestHeader) -> bool {
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
pub(in crate::proxy) fn forward(
    client: &RequestHeader,
    upstream: &mut RequestHeader,
    ctx: &mut Ctx,
) -> Result<()> {
    edit_request(upstream, |parts| plan(client, parts, ctx))
}

fn plan(client: &RequestHeader, upstream: &mut Parts, ctx: &mut Ctx) -> Result<()> {
    let headers = &mut upstream.headers;
    if ctx.may_expect() {
        // We answered it ourselves.
        headers.remove(header::EXPECT);
    }
    // A gRPC server may insist on it, and it is the one value that may cross hops (RFC 9110 §10.1.4).
    if upstream.version == Version::HTTP_2 && wants_trailers(&client.headers) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let route = ctx.route.clone();
    let Some(Action::Forward(forward)) = route.as_deref().map(|r| &r.action) else { return Ok(()) };
    // Before the rule's operations, which may change it; what a rewrite tells of comes after them (Envoy: router.cc).
    let HeaderPolicy { attempt_count, debug, forwarded_host, .. } = *ctx.heads();
    if attempt_count {
        headers.insert(ATTEMPT_COUNT, number(ctx.attempt.into()));
    }
    let clocks = ctx.clock.as_ref().zip(ctx.attempt_started);
    if let Some(expected) = clocks.and_then(|(clock, attempt)| clock.expected(attempt)) {
        let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        if debug {
            headers.insert(EXPECTED_TIMEOUT, number(millis));
        }
        if ctx.grpc {
            headers.insert(timeout::GRPC_TIMEOUT, timeout::to_grpc(expected));
        }
    }
    if let Some(destination) = ctx.destination() {
        let facts = Exchange {
            ctx,
            stage: Stage::Request,
            scheme: super::scheme(ctx).as_str(),
            method: client.method.as_str(),
            path: client.uri.path_and_query().map_or("", PathAndQuery::as_str),
            authority: &ctx.authority,
            headers: None,
        };
        destination.headers.request.apply(headers, Direction::Request, &facts);
    }
    if let Some(rewrite) = &forward.rewrite
        && let Some(target) = rewrite.target(client.uri.path(), client.uri.query())
    {
        let not_a_path = || "the rewritten path is not a path";
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target))
            .or_err_with(ErrorType::InternalError, not_a_path)?;
        upstream.uri = Uri::from(target.clone());
        if let Some(original) = client.uri.path_and_query().filter(|_| debug) {
            let original =
                HeaderValue::from_str(original.as_str()).or_err_with(ErrorType::InternalError, not_a_path)?;
            headers.insert(ORIGINAL_PATH, original);
        }
        ctx.upstream_path = Some(target);
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
            if forwarded_host {
                append_forwarded_host(headers, &original);
            }
            if debug {
                headers.insert(ORIGINAL_HOST, original);
            }
        }
        ctx.upstream_authority = Some(authority);
    }
    keep_for_response(client, headers, ctx);
    trace::inject(ctx, headers);
    Ok(())
}

/// Adds the host that was asked for behind those that others have rewritten (Envoy: `append_x_forwarded_host`).
fn append_forwarded_host(headers: &mut HeaderMap, original: &HeaderValue) {
    let mut all: Vec<&[u8]> = headers.get_all(FORWARDED_HOST).iter().map(HeaderValue::as_bytes).collect();
    let last = all.last().and_then(|line| line.rsplit(|byte| *byte == b',').next());
    if last.is_some_and(|last| last.trim_ascii() == original.as_bytes()) {
        return;
    }
    all.push(original.as_bytes());
    // Values of headers, and commas, are what any header takes.
    if let Ok(chain) = HeaderValue::from_bytes(&all.join(&b","[..])) {
        headers.insert(FORWARDED_HOST, chain);
    }
}

/// Keeps the request, as it is now, for a response whose values read it.
pub(in crate::proxy) fn keep_for_response(client: &RequestHeader, headers: &HeaderMap, ctx: &mut Ctx) {
    if ctx.response_ops().is_some_and(HeaderOps::reads_request) {
        let path = || client.uri.path_and_query().map_or("", PathAndQuery::as_str).to_owned();
        ctx.sent = Some(Box::new(SentRequest {
            method: client.method.to_string(),
            path: ctx.upstream_path.as_ref().map_or_else(path, |path| path.as_str().to_owned()),
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

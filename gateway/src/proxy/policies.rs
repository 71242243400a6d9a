//! Where policies have their say: from the engine's heads to the views that policies have of them, and back.
//!
//! Invariant: without policies each of these is one comparison with null. A head that policies have looked at is in one form
//! again, with the `Host` and the framing that the edge has let in.

use super::{
    ctx::Ctx,
    edge,
    failure::Cause,
    heads::{TakenRequest, edit_request, edit_response},
    reply::LocalReply,
};
use crate::{
    listener::ConnectionInfo,
    policy::{
        Arrival, Body, Chain, Client, CompleteView, Exchange, Hooks, Origin, Outcome, RequestView,
        ResponseView, RouteView, Run, UpstreamView, Verdict, Way,
    },
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version, header, uri::Scheme};
use pingora_error::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use routing::{cluster::Address, listener::FilterChain, request};
use std::sync::Arc;

/// Before the request is routed. A reply ends it.
pub(super) async fn on_request(
    session: &mut Session,
    ctx: &mut Ctx,
    chain: &Arc<FilterChain>,
) -> Option<LocalReply> {
    let connection = ctx.connection.clone()?;
    let mut run = Box::new(Run::new(&ctx.snapshot.policies, chain.clone()));
    let (scheme, client) = (scheme(ctx), client(&connection, ctx));
    let mut head = TakenRequest::from(session.req_header_mut());
    let exchange = Exchange { scheme, client, shared: &mut run.shared };
    let arrival = Arrival { parts: &mut head.parts, authority: &mut ctx.authority, exchange };
    let verdict = run.way.on_request(&mut RequestView::new(arrival)).await;
    head.put_back(session.req_header_mut());
    ctx.policies = Some(run);
    reply_of(verdict)
}

/// Whether policies have something to say before the request is routed. Those that annotations ask for have not: they cost nothing
/// where there are none.
pub(super) fn begin_before_route(policies: &Chain) -> bool {
    !policies.is_empty() && !policies.is_annotated()
}

/// Whether policies have something to say about a request whose rule is known.
pub(super) fn have_say(ctx: &Ctx, chain: &FilterChain) -> bool {
    let annotated = || {
        let rule = ctx.route.as_ref().is_some_and(|route| route.origin.metadata.policies.is_some());
        rule || chain.policies.is_some()
    };
    ctx.policies.is_some() || (ctx.snapshot.policies.is_annotated() && annotated())
}

/// When its rule is known, or that there is none. A reply ends it.
pub(super) async fn on_route(
    session: &mut Session,
    ctx: &mut Ctx,
    chain: &Arc<FilterChain>,
) -> Option<LocalReply> {
    let connection = ctx.connection.clone()?;
    let run = ctx.policies.take();
    let mut run = run.unwrap_or_else(|| Box::new(Run::routed(&ctx.snapshot.policies, chain.clone())));
    if !run.way.has(Hooks::ROUTE) {
        ctx.policies = Some(run);
        return None;
    }
    let (scheme, client) = (scheme(ctx), client(&connection, ctx));
    let mut head = TakenRequest::from(session.req_header_mut());
    let exchange = Exchange { scheme, client, shared: &mut run.shared };
    let arrival = Arrival { parts: &mut head.parts, authority: &mut ctx.authority, exchange };
    let verdict = run.way.on_route(&mut RouteView::new(arrival, ctx.route.as_deref())).await;
    head.put_back(session.req_header_mut());
    ctx.policies = Some(run);
    reply_of(verdict)
}

/// Before an attempt is sent. A reply ends the request.
pub(super) fn on_upstream(
    session: &mut Session,
    head: &mut RequestHeader,
    ctx: &mut Ctx,
) -> Option<LocalReply> {
    ctx.policies.as_ref()?;
    let has_body = !ctx.upgrade && !session.as_downstream_mut().is_body_empty();
    with(ctx, Hooks::UPSTREAM, |ctx, way, exchange| {
        edit_request(head, |parts| {
            let verdict = way.on_upstream(&mut UpstreamView {
                parts,
                exchange,
                route: ctx.route.as_deref(),
                cluster: ctx.cluster.as_deref().map_or("", |cluster| cluster.spec.name.as_str()),
                endpoint: match &ctx.upstream_host {
                    Some(Address::Ip(address)) => Some(*address),
                    _ => None,
                },
                attempt: ctx.attempt,
                has_body,
            });
            if way.request.changes() {
                // The engine frames what has no length, as the upstream's version has it.
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            verdict
        })
    })
}

/// Before a response is sent. A reply takes its place.
pub(super) fn on_response(
    request: &RequestHeader,
    head: &mut ResponseHeader,
    ctx: &mut Ctx,
    origin: Origin,
) -> Option<LocalReply> {
    ctx.policies.as_ref()?;
    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let has_body = request.method != Method::HEAD
        && !ctx.grpc
        && !matches!(head.status.as_u16(), 100..=199 | 204 | 304)
        && head.headers.get(header::CONTENT_LENGTH).is_none_or(|length| length != "0");
    with(ctx, Hooks::RESPONSE, |ctx, way, exchange| {
        edit_response(head, |parts| {
            let verdict = way.on_response(&mut ResponseView {
                parts,
                request,
                exchange,
                route: ctx.route.as_deref(),
                origin,
                has_body,
            });
            if way.response.changes() && origin == Origin::Upstream {
                parts.headers.remove(header::CONTENT_LENGTH);
                // As the engine does with every response that has no length; HTTP/2 does without.
                parts.version = Version::HTTP_11;
                parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            verdict
        })
    })
}

/// A piece of a body, either way, before it goes on.
///
/// # Errors
/// [`Cause::Policy`] when a policy has ended the exchange.
pub(super) fn body(which: Body, body: &mut Option<Bytes>, last: bool, ctx: &mut Ctx) -> Result<()> {
    let Some(run) = &mut ctx.policies else { return Ok(()) };
    let passage = match which {
        Body::Request => &run.way.request,
        Body::Response => &run.way.response,
    };
    if passage.is_empty() {
        return Ok(());
    }
    match run.way.piece(which, body.take().unwrap_or_default(), last) {
        // To the engine nothing at all is the end.
        Ok(piece) => *body = Some(piece).filter(|piece| !last || !piece.is_empty()),
        Err(reply) => {
            let mut ended = answered(ctx, LocalReply::policy(*reply));
            // The engine takes any other error of a body on its way to an HTTP/2 upstream for the upstream's, and waits for a
            // response to half a request.
            ended.as_down();
            return Err(ended);
        }
    }
    Ok(())
}

/// Lets policies see a reply of our own as they see any response. Another reply takes its place, and is to be seen in turn.
pub(super) fn finish(
    request: &RequestHeader,
    head: &mut ResponseHeader,
    body: &mut Bytes,
    ctx: &mut Ctx,
) -> Option<LocalReply> {
    if let Some(other) = on_response(request, head, ctx, Origin::Gateway) {
        return Some(other);
    }
    let way = &mut ctx.policies.as_mut()?.way;
    if way.response.is_empty() {
        return None;
    }
    match way.piece(Body::Response, std::mem::take(body), true) {
        Ok(filtered) => *body = filtered,
        Err(other) => return Some(LocalReply::policy(*other)),
    }
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        edit_response(head, |parts| {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()))
        });
    }
    None
}

/// When the exchange is over.
pub(super) fn on_complete(session: &Session, ctx: &mut Ctx) {
    let _nothing_to_answer = with(ctx, Hooks::COMPLETE, |ctx, way, exchange| {
        let response = session.response_written();
        let outcome = Outcome {
            status: response.map(|response| response.status),
            headers: response.map(|response| &response.headers),
            flags: ctx.flags,
            details: &ctx.details,
            cluster: ctx.cluster.as_deref().map_or("", |cluster| cluster.spec.name.as_str()),
            attempts: ctx.attempt,
            duration: ctx.started.elapsed(),
            received: session.body_bytes_read() as u64,
            sent: session.body_bytes_sent() as u64,
        };
        let request = session.req_header();
        way.on_complete(&CompleteView { request, exchange, route: ctx.route.as_deref(), outcome });
        Verdict::Continue
    });
}

/// The error by which the engine gives up an exchange that a policy has answered.
pub(super) fn answered(ctx: &mut Ctx, reply: LocalReply) -> Box<Error> {
    ctx.refusal = Some(reply);
    Cause::Policy.error()
}

/// What a policy has answered an exchange with that the engine gave up for it.
pub(super) fn reply(ctx: &mut Ctx) -> Option<LocalReply> {
    ctx.policies.as_ref()?;
    ctx.refusal.take()
}

/// Lets the policies that have a hook look at what it is about.
fn with(
    ctx: &mut Ctx,
    hook: Hooks,
    look: impl FnOnce(&Ctx, &mut Way, Exchange<'_>) -> Verdict,
) -> Option<LocalReply> {
    let mut run = ctx.policies.take()?;
    let verdict = match ctx.connection.as_deref().filter(|_| run.way.has(hook)) {
        Some(connection) => {
            let Run { way, shared } = &mut *run;
            let (scheme, client) = (scheme(ctx), client(connection, ctx));
            look(ctx, way, Exchange { scheme, client, shared })
        }
        None => Verdict::Continue,
    };
    ctx.policies = Some(run);
    reply_of(verdict)
}

fn scheme(ctx: &Ctx) -> Scheme {
    match edge::scheme(ctx) {
        request::Scheme::Http => Scheme::HTTP,
        request::Scheme::Https => Scheme::HTTPS,
    }
}

fn client<'c>(connection: &'c ConnectionInfo, ctx: &Ctx) -> Client<'c> {
    Client::new(connection, ctx.forwarded.and_then(|forwarded| forwarded.client))
}

fn reply_of(verdict: Verdict) -> Option<LocalReply> {
    match verdict {
        Verdict::Continue => None,
        Verdict::Respond(reply) => Some(LocalReply::policy(reply)),
    }
}

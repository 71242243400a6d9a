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
        Arrival, Client, CompleteView, Exchange, Hooks, Origin, Outcome, RequestView, ResponseView,
        RouteView, Run, UpstreamView, Verdict, Way,
    },
};
use http::{StatusCode, uri::Scheme};
use pingora_error::Error;
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

/// When its rule is known, or that there is none. A reply ends it.
pub(super) async fn on_route(session: &mut Session, ctx: &mut Ctx) -> Option<LocalReply> {
    let connection = ctx.connection.clone()?;
    let mut run = ctx.policies.take()?;
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
pub(super) fn on_upstream(head: &mut RequestHeader, ctx: &mut Ctx) -> Option<LocalReply> {
    with(ctx, Hooks::UPSTREAM, |ctx, way, exchange| {
        edit_request(head, |parts| {
            way.on_upstream(&mut UpstreamView {
                parts,
                exchange,
                route: ctx.route.as_deref(),
                cluster: ctx.cluster.as_deref().map_or("", |cluster| cluster.spec.name.as_str()),
                endpoint: match &ctx.upstream_host {
                    Some(Address::Ip(address)) => Some(*address),
                    _ => None,
                },
                attempt: ctx.attempt,
            })
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
    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    with(ctx, Hooks::RESPONSE, |ctx, way, exchange| {
        edit_response(head, |parts| {
            way.on_response(&mut ResponseView {
                parts,
                request,
                exchange,
                route: ctx.route.as_deref(),
                origin,
            })
        })
    })
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

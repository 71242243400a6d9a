//! The trace of a request, from hook to hook.
//!
//! Invariant: a request that is not traced costs one look at an `Option` in each hook.

use super::{ctx::Ctx, edge, failure, failure::Cause};
use crate::telemetry::{
    Flags,
    access_log::Entry,
    trace::{Active, Attempt, Exchange, Outcome},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_error::Error;
use pingora_http::ResponseHeader;
use std::time::SystemTime;

const OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// Begins an attempt, whose endpoint is chosen.
pub(super) fn attempt(ctx: &mut Ctx) {
    let Some(active) = &mut ctx.trace else { return };
    if let (Some(address), Some(cluster)) = (&ctx.upstream_host, &ctx.cluster) {
        active.attempt(Attempt {
            start: SystemTime::now(),
            address: address.clone(),
            cluster: cluster.spec.name.clone(),
            outcome: None,
            version: None,
            status: None,
        });
    }
}

/// Says the trace on to the endpoint, after everything that the rule does to the headers (Envoy: the router injects last).
pub(super) fn inject(ctx: &Ctx, headers: &mut HeaderMap) {
    if ctx.snapshot.telemetry.tracing(ctx.side()).tracer.is_none() {
        return;
    }
    // What the next proxy calls its own span (Envoy, for requests that go out).
    if let Some(operation) = operation(ctx) {
        headers.insert(OPERATION, operation);
    }
    if let Some(active) = &ctx.trace {
        active.inject(headers);
    }
}

/// Notes what the endpoint answered.
pub(super) fn answered(ctx: &mut Ctx, head: &ResponseHeader) {
    let Some(attempt) = ctx.trace.as_mut().and_then(|active| active.current()) else { return };
    if !head.status.is_informational() {
        (attempt.status, attempt.version) = (Some(head.status.as_u16()), Some(head.version));
    }
    // Of several addresses the one that could be reached.
    if let Some(address) = &ctx.upstream_host {
        attempt.address = address.clone();
    }
}

/// Notes that an attempt came to nothing.
pub(super) fn failed(ctx: &mut Ctx, e: &Error) {
    let Some(attempt) = ctx.trace.as_mut().and_then(|active| active.current()) else { return };
    let mut flags = Flags::default();
    let mut reason = String::new();
    // A response that is tried again for is no failure of the attempt.
    if Cause::of(e) != Some(Cause::RetriedResponse) {
        let failure = failure::classify(e, None);
        failure.flag.into_iter().for_each(|flag| flags.insert(flag));
        reason = failure.reason().to_owned();
    }
    attempt.outcome = Some(Outcome { end: SystemTime::now(), flags, reason });
}

/// Hands the spans of a request that is over to its collector.
pub(super) fn finish(active: Active, entry: &Entry<'_>, ctx: &Ctx) {
    active.finish(&Exchange {
        entry,
        scheme: edge::scheme(ctx).as_str(),
        peer: ctx.connection.as_deref().map(|connection| connection.peer),
        operation: operation(ctx),
        route: ctx.route.as_deref().map(|route| route.matcher.path.named().0),
        grpc: ctx.grpc,
        grpc_status: ctx.grpc_status,
    });
}

/// The name of what the request's rule does, where there is one.
fn operation(ctx: &Ctx) -> Option<HeaderValue> {
    ctx.route.as_deref()?.operation(|| server_port(ctx))
}

/// The port that the Gateway gives the server.
fn server_port(ctx: &Ctx) -> Option<u16> {
    let connection = ctx.connection.as_ref()?;
    Some(ctx.snapshot.chain(connection)?.server_port)
}

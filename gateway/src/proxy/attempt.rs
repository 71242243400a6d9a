//! One request, several attempts: when another is made, and how long it may take.
//!
//! Invariant: no attempt follows once a byte of a response has gone to the client, once the route's time is up, or when
//! the request cannot be sent again whole. The rule's policy decides about everything else, whatever the method (Istio);
//! what the engine thinks of an error counts only where it knows that the upstream never saw the request.

use super::{clock::Clock, ctx::Ctx, failure, failure::Cause, trace, upstream};
use crate::{runtime::Cluster, telemetry::Flag};
use pingora_error::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use routing::{
    action::retry::{Localities, PreviousHosts, Verdict},
    cluster::Address,
};
use std::time::{Duration, Instant};

/// How long an upstream may take nothing of what it is sent, at least: a backstop for when the client, whose session has
/// the clock, is not listened to.
pub(super) const STALLED_WRITE: Duration = Duration::from_secs(15);

/// Where an attempt's connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// Made for it.
    New,
    /// Kept from an earlier request: that it is dead shows only when it is used.
    Pooled,
}

/// Waits as long as is due before an attempt, and says how long it may take to get a connection.
///
/// # Errors
/// When the route's time is up.
pub(super) async fn begin(session: &mut Session, ctx: &mut Ctx) -> Result<Option<Duration>> {
    let Some(clock) = ctx.clock.clone() else {
        if let Some(pause) = ctx.pause.take() {
            tokio::time::sleep(pause).await;
        }
        return Ok(None);
    };
    let mut now = Instant::now();
    clock.note(session, now);
    if let Some(pause) = ctx.pause.take() {
        let left = clock.left_of_route()?;
        tokio::time::sleep(left.map_or(pause, |left| pause.min(left))).await;
        clock.left_of_route()?;
        now = Instant::now();
    }
    clock.left(now)
}

/// Addresses that an attempt should not go to while there are others.
pub(super) fn avoided<'c>(ctx: &'c Ctx, cluster: &Cluster) -> &'c [Address] {
    match ctx.retry().map(|policy| policy.previous_hosts) {
        Some(PreviousHosts::Allow) => &[],
        Some(PreviousHosts::AvoidUnlessHashed) if cluster.spec.hash_key.is_some() => &[],
        Some(PreviousHosts::Avoid | PreviousHosts::AvoidUnlessHashed) | None => &ctx.tried,
    }
}

/// Attempts after which retries leave the priorities of those before, where they are to (Istio: `retryRemoteLocalities`
/// with an update frequency of 2).
const BEFORE_LEAVING: usize = 2;

/// Addresses whose priorities an attempt should leave; `None`: it may stay.
pub(super) fn left_behind(ctx: &Ctx) -> Option<&[Address]> {
    let full = ctx.tried.len() / BEFORE_LEAVING * BEFORE_LEAVING;
    // The first attempt, which every request makes, needs no look at the policy.
    let tried = ctx.tried.get(..full).filter(|tried| !tried.is_empty())?;
    (ctx.retry()?.localities == Localities::Remote).then_some(tried)
}

/// Judges a response by its head.
///
/// # Errors
/// [`Cause::RetriedResponse`] when it is not to reach the client, and another attempt follows.
pub(super) fn answered(session: &mut Session, ctx: &mut Ctx, head: &ResponseHeader) -> Result<()> {
    if head.status.is_informational() {
        return Ok(());
    }
    let Some(Verdict::Retry) = ctx.retry().map(|policy| policy.on_response(head.status, &head.headers))
    else {
        return Ok(());
    };
    match again(session, ctx) {
        Next::Attempt => Err(Cause::RetriedResponse.error()),
        Next::Nothing => Ok(()),
    }
}

/// Judges an attempt that failed, and marks its error for another where one follows.
pub(super) fn failed(session: &mut Session, ctx: &mut Ctx, e: Box<Error>, from: Connection) -> Box<Error> {
    trace::failed(ctx, &e);
    let mut e = e;
    e.retry.decide_reuse(from == Connection::Pooled);
    let next = next(session, ctx, &e, from);
    e.set_retry(next == Next::Attempt);
    e
}

fn next(session: &mut Session, ctx: &mut Ctx, e: &Error, from: Connection) -> Next {
    let Some(policy) = ctx.retry() else { return Next::Nothing };
    if Cause::of(e) == Some(Cause::RetriedResponse) {
        return Next::Attempt;
    }
    let Some(reset) = failure::reset(e, ctx.head_sent) else { return Next::Nothing };
    match policy.on_reset(reset) {
        Verdict::Retry => again(session, ctx),
        // A pooled connection that the upstream closed meanwhile says nothing about the request. Once, whoever may be
        // asked twice is asked on another.
        Verdict::Keep if from == Connection::Pooled && e.retry() && !ctx.redialled => {
            ctx.redialled = true;
            if replayable(session) && session.req_header().method.is_idempotent() {
                Next::Attempt
            } else {
                Next::Nothing
            }
        }
        Verdict::Keep => Next::Nothing,
    }
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
enum Next {
    Attempt,
    Nothing,
}

/// Whether there may be another attempt that the policy wants, and after which pause.
fn again(session: &mut Session, ctx: &mut Ctx) -> Next {
    let Some(policy) = ctx.retry() else { return Next::Nothing };
    if !replayable(session) || ctx.clock.as_ref().is_some_and(|clock| clock.is_over()) {
        return Next::Nothing;
    }
    let retry = ctx.retries + 1;
    if retry > policy.retries {
        ctx.flags.insert(Flag::UpstreamRetryLimitExceeded);
        return Next::Nothing;
    }
    let pause = policy.backoff(retry, fastrand::u64(..));
    if upstream::retry(ctx) == upstream::Retry::Overflow {
        return Next::Nothing;
    }
    ctx.pause = Some(pause);
    ctx.retries = retry;
    Next::Attempt
}

/// Whether the request can be sent again, whole, and nothing of a response has gone to the client.
fn replayable(session: &Session) -> bool {
    !session.as_downstream().retry_buffer_truncated() && session.response_written().is_none()
}

/// The clock's word about an attempt that failed for want of time, as a failure upstream: the engine took it for one of
/// the client, whose session has the clock.
pub(super) fn in_time(ctx: &Ctx, e: Box<Error>) -> Box<Error> {
    if let Some(cause @ (Cause::RouteTimeout | Cause::PerTryTimeout)) = Cause::of(&e) {
        return cause.error();
    }
    // The client's stream ends an exchange with an error of its own, on the client's side.
    let is_timeout = failure::is_timeout(&e) || ctx.connection.as_ref().is_some_and(|c| c.is_exchange_over());
    let up = |clock: &std::sync::Arc<Clock>| clock.up(ctx.attempt_started?, Instant::now());
    match ctx.clock.as_ref().filter(|_| is_timeout).and_then(up) {
        Some(cause) => cause.error(),
        None => e,
    }
}

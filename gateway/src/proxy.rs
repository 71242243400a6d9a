//! The request path: Pingora's hooks, in the order in which Envoy's filters would run.
//!
//! Invariant: a request works on the one snapshot that it pinned. No reply is written but by `reply`, and no error
//! becomes a status but by `failure`. It must not know where configuration comes from.

mod ctx;
mod edge;
mod failure;
mod heads;
mod http;
pub mod normalize;
mod peer;
mod record;
mod reply;
mod response;
#[cfg(test)]
mod tests;
mod timeout;

pub use ctx::Ctx;
pub use http::HttpHandler;

use crate::{
    listener::connection_info,
    snapshot::SnapshotCell,
    telemetry::{AccessLog, Flag, Metrics},
};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use failure::Cause;
use pingora_core::{
    modules::http::HttpModules,
    protocols::{Digest, http::ServerSession as HttpSession},
    upstreams::peer::HttpPeer,
};
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use reply::LocalReply;
use routing::{
    action::redirect::https_redirect_location, decision::Decision, listener::Chains, route::Action,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Retries where a rule says nothing (Istio: retry.go `DefaultPolicy`).
const DEFAULT_RETRIES: u32 = 2;
/// Base of the exponential pause between attempts (Istio's default).
const BACKOFF: Duration = Duration::from_millis(25);

/// The proxy: routes by the snapshot in force and reports what happened.
///
/// Usable by itself as a [`ProxyHttp`]; sessions must come through [`crate::listener`], which says what connection
/// they belong to. A session from elsewhere is answered as one that no listener accepted.
pub struct GatewayProxy {
    snapshots: Arc<SnapshotCell>,
    metrics: Arc<Metrics>,
    access_log: ArcSwapOption<AccessLog>,
}

impl GatewayProxy {
    /// A proxy that follows `snapshots`.
    #[must_use]
    pub fn new(
        snapshots: Arc<SnapshotCell>,
        metrics: Arc<Metrics>,
        access_log: Option<Arc<AccessLog>>,
    ) -> Self {
        Self { snapshots, metrics, access_log: ArcSwapOption::new(access_log) }
    }

    /// Routes, and writes the reply where the decision is not to forward. `true`: a reply was written.
    async fn decide(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        if let Some(refusal) = ctx.refusal.take() {
            return reply::write(session, ctx, refusal).await.map(|()| true);
        }
        let snapshot = ctx.snapshot.clone();
        let chain =
            ctx.connection.as_ref().and_then(|c| match &snapshot.listeners.get(&c.listener)?.chains {
                Chains::Http(chain) => Some(chain),
                Chains::Tls(by_name) => by_name.lookup_sni(c.sni.as_deref()),
            });
        let Some(chain) = chain else {
            return self.not_found(session, ctx).await;
        };
        let (route, outcome) = {
            let head = edge::head(session.req_header(), ctx);
            match chain.table.lookup(&head) {
                Decision::Forward { route, forward, .. } => (Some(route.clone()), Err(forward.timeout)),
                Decision::Redirect { route, redirect, .. } => {
                    (Some(route.clone()), Ok(LocalReply::redirect(redirect.code, &redirect.location(&head))))
                }
                Decision::Reply { route, reply, .. } => (Some(route.clone()), Ok(LocalReply::direct(reply))),
                Decision::RequireTls { .. } => {
                    (None, Ok(LocalReply::redirect(301, &https_redirect_location(&head))))
                }
                Decision::NotFound(_) => {
                    (None, Ok(LocalReply::empty(404, "route_not_found").flag(Flag::NoRouteFound)))
                }
            }
        };
        ctx.route = route;
        match outcome {
            Ok(reply) => reply::write(session, ctx, reply).await.map(|()| true),
            Err(limit) => {
                ctx.deadline = timeout::effective(limit, session.req_header(), ctx.grpc)
                    .and_then(|limit| ctx.started.checked_add(limit).map(|at| (at, limit)));
                Ok(false)
            }
        }
    }

    async fn not_found(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let reply = LocalReply::empty(404, "route_not_found").flag(Flag::NoRouteFound);
        reply::write(session, ctx, reply).await.map(|()| true)
    }

    /// Marks an error for another attempt where Istio's default policy would make one.
    fn retry(&self, ctx: &mut Ctx, e: &mut Error, wanted: bool) {
        let out_of_time = ctx.deadline.is_some_and(|(at, _)| Instant::now() >= at);
        let again = wanted && !out_of_time && ctx.attempt <= DEFAULT_RETRIES;
        if wanted && !again && !out_of_time {
            ctx.flags.insert(Flag::UpstreamRetryLimitExceeded);
        }
        e.set_retry(again);
    }
}

#[async_trait]
impl ProxyHttp for GatewayProxy {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(self.snapshots.load())
    }

    /// None: compression and the like are policies of ours, not of the engine.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        ctx.connection = connection_info(session).cloned();
        if ctx.connection.as_ref().is_some_and(|connection| connection.draining()) {
            session.set_keepalive(None);
        }
        session.set_pipelining_enabled(true);
        session.set_ignore_info_resp(true);
        edge::admit(session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        if self.decide(session, ctx).await? {
            return Ok(true);
        }
        if session.is_upgrade_req() {
            ctx.upgrade = true;
            // A tunnel may be silent for as long as both ends like (Istio: no stream idle timeout).
            session.set_read_timeout(None);
        }
        if edge::expects_continue(session.req_header()) {
            session.write_continue_response().await?;
        }
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        ctx.attempt += 1;
        if ctx.attempt > 1 {
            // Full jitter in [0, base·2ⁿ), as Envoy's.
            let most = BACKOFF * 2_u32.saturating_pow(ctx.attempt - 1);
            tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
        }
        let route = ctx.route.clone();
        let Some(Action::Forward(forward)) = route.as_deref().map(|r| &r.action) else {
            return Err(Cause::NoCluster.error());
        };
        if ctx.cluster.is_none() {
            // Chosen once: retries stay on the destination (Envoy: the weighted cluster is part of the route).
            let destination = forward.pick(fastrand::u64(..)).ok_or_else(|| Cause::NoCluster.error())?;
            ctx.destination = forward.destinations.iter().position(|d| std::ptr::eq(d, destination));
            ctx.cluster = ctx.snapshot.clusters.get(&destination.cluster).cloned();
        }
        let cluster = ctx.cluster.clone().ok_or_else(|| Cause::NoCluster.error())?;
        let endpoint =
            cluster.pick(|| fastrand::u64(..), &ctx.tried).ok_or_else(|| Cause::NoHealthyUpstream.error())?;
        let authority = forward
            .authority
            .as_deref()
            .or_else(|| ctx.destination().and_then(|d| d.headers.authority.as_deref()))
            .unwrap_or(&ctx.authority);
        let mut peer = peer::build(&cluster, &endpoint.endpoint, authority)?;
        if let Some((at, limit)) = ctx.deadline {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Cause::RouteTimeout.error());
            }
            peer.options.connection_timeout = Some(cluster.spec.connect_timeout.min(left));
            peer.options.total_connection_timeout = peer.options.connection_timeout;
            // Once upgraded, a stream is not the route's timeout's business any more; the limit stands on the whole
            // exchange otherwise, and a silent upstream is noticed by it.
            peer.options.read_timeout = (!session.is_upgrade_req()).then_some(left.min(limit));
        }
        ctx.tried.push(endpoint.endpoint.address.clone());
        ctx.in_flight = Some(endpoint.begin());
        ctx.upstream_host = Some(endpoint.endpoint.address.clone());
        ctx.attempt_started = Some(Instant::now());
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.upstream_local = digest.and_then(|d| d.socket_digest.as_ref()?.local_addr()?.as_inet().copied());
        if peer.is_tls() {
            let cluster = ctx.cluster.as_ref().map(|c| &*c.spec);
            peer::verify_names(cluster.and_then(|c| c.tls.as_ref()), digest)?;
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        edge::forward(session.req_header(), upstream, ctx)
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if !end && !ctx.upgrade && ctx.deadline.is_some_and(|(at, _)| Instant::now() >= at) {
            return Err(Cause::RouteTimeout.error());
        }
        Ok(None)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        response::upstream(head, ctx);
        Ok(())
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut ::http::HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        ctx.grpc_status = response::grpc_status(trailers).or(ctx.grpc_status);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        e: Box<Error>,
    ) -> Box<Error> {
        let mut e = e;
        if let Some(guard) = ctx.in_flight.take() {
            guard.failed();
        }
        self.retry(ctx, &mut e, true);
        e
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        let mut e = e;
        if let Some(guard) = ctx.in_flight.take().filter(|_| e.esource() == &ErrorSource::Upstream) {
            guard.failed();
        }
        // A pooled connection that the upstream closed meanwhile says nothing about the request: whoever may be asked
        // twice is. Everything else about established connections is for the retry policy.
        let replayable =
            session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        e.retry.decide_reuse(client_reused);
        let wanted = e.retry() && replayable && session.response_written().is_none();
        self.retry(ctx, &mut e, wanted);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        let started = session.response_written().is_some_and(|r| !r.status.is_informational());
        let flaw = ctx.connection.as_ref().and_then(|c| c.refusal());
        let failure = failure::classify(e, ctx.deadline.is_some_and(|(at, _)| Instant::now() >= at), flaw);
        let mut error_code = 0;
        if let Some(flag) = failure.flag {
            ctx.flags.insert(flag);
        }
        ctx.transport_failure = failure.transport.clone();
        match failure.reply() {
            Some(reply) if !started => {
                error_code = reply.status();
                if let Err(e) = reply::write(session, ctx, reply).await {
                    tracing::debug!(error = %e, "the client left before its error reply");
                    ctx.flags.insert(Flag::DownstreamConnectionTermination);
                }
            }
            _ => ctx.details = failure.details.into(),
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Ctx) {
        ctx.in_flight = None;
        if e.is_some_and(|e| {
            e.esource() == &ErrorSource::Downstream && *e.etype() != ErrorType::InvalidHTTPHeader
        }) {
            ctx.flags.insert(Flag::DownstreamConnectionTermination);
        }
        record::finish(&self.metrics, self.access_log.load().as_ref(), session, ctx);
        if let Some(connection) = &ctx.connection {
            connection.request_finished();
        }
        if let (Some(_), HttpSession::H1(client)) = (e, session.as_downstream_mut()) {
            // What the client is still sending must not cost it the answer.
            client.shutdown().await;
        }
    }

    /// The access log has it, with its flag; the process log is for what an operator must act on.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, e: &Error) -> bool {
        matches!(e.esource(), ErrorSource::Upstream | ErrorSource::Downstream) || Cause::of(e).is_some()
    }

    fn suppress_proxy_warn_log(&self, _s: &Session, _c: &Ctx, _e: &Error, _w: ProxyWarnLogContext) -> bool {
        true
    }
}

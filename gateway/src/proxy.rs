//! The request path: Pingora's hooks, in the order in which Envoy's filters would run.
//!
//! Invariant: a request works on the one snapshot that it pinned. No reply is written but by `reply`, and no error
//! becomes a status but by `failure`. It must not know where configuration comes from.

pub mod ask;
mod attempt;
mod call;
mod callbacks;
mod clock;
mod connect;
mod ctx;
mod diagnose;
mod edge;
mod facts;
mod failure;
mod filters;
pub(crate) mod forwarded_for;
mod grpc;
mod heads;
mod http;
mod mesh;
mod mirror;
pub mod normalize;
mod peer;
mod policies;
mod race;
mod record;
mod reply;
mod response;
mod secure;
mod splice;
mod tcp;
#[cfg(test)]
mod tests;
mod trace;
mod tunnel;
mod upstream;
mod upstream_head;
mod watch;

pub use call::Caller;
pub use ctx::Ctx;
pub use http::HttpHandler;

use crate::{
    listener::connection_info,
    policy::{Body, Origin},
    pressure::Level,
    snapshot::SnapshotCell,
    telemetry::{AccessLog, Flag, Metrics},
};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use attempt::Connection;
use bytes::Bytes;
use clock::Clock;
use failure::Cause;
use filters::Passage;
use mirror::Mirrors;
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
    action::{redirect::https_redirect_location, timeout},
    decision::Decision,
    route::Action,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The proxy: routes by the snapshot in force and reports what happened.
///
/// A [`ProxyHttp`] that another one may wrap: [`GatewayBuilder::wrap`](crate::GatewayBuilder::wrap). Sessions must come through
/// [`crate::listener`], which says what connection they belong to; one from elsewhere is answered as one that no listener accepted.
///
/// # What a wrapper must do
/// Hand on each of [`CALLBACKS`](Self::CALLBACKS) once, with the context and, where there is one, the answer; all other callbacks have the
/// engine's own bodies here, and a wrapper may have any. Its `CTX` holds the gateway's beside its own.
pub struct GatewayProxy {
    snapshots: Arc<SnapshotCell>,
    metrics: Arc<Metrics>,
    access_log: ArcSwapOption<AccessLog>,
    mirrors: Arc<Mirrors>,
}

impl GatewayProxy {
    /// A proxy that follows `snapshots`.
    #[must_use]
    pub fn new(
        snapshots: Arc<SnapshotCell>,
        metrics: Arc<Metrics>,
        access_log: Option<Arc<AccessLog>>,
    ) -> Self {
        let mirrors = Mirrors::new(metrics.mirror_dropped.clone());
        Self { snapshots, metrics, access_log: ArcSwapOption::new(access_log), mirrors }
    }

    /// Routes, and writes the reply where the decision is not to forward. `true`: a reply was written.
    async fn decide(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        if let Some(refusal) = ctx.refusal.take() {
            return reply::write(session, ctx, refusal).await.map(|()| true);
        }
        let snapshot = ctx.snapshot.clone();
        let chain = ctx.connection.as_ref().and_then(|connection| snapshot.chain(connection));
        let Some(chain) = chain else {
            return self.not_found(session, ctx).await;
        };
        let Some(chain) = edge::directed(chain, session.req_header(), ctx, &snapshot) else {
            let reply = LocalReply::empty(421, "misdirected_request").close();
            return reply::write(session, ctx, reply).await.map(|()| true);
        };
        let comes_in = ctx.connection.as_ref().is_none_or(|connection| !connection.is_outbound());
        let refused = if comes_in && policies::begin_before_route(&snapshot.policies) {
            // Boxed, so that requests without policies have no room for it.
            Box::pin(policies::on_request(session, ctx, chain)).await
        } else {
            None
        };
        let (route, outcome, clock) = {
            let head = edge::head(session.req_header(), ctx);
            match chain.table.lookup(&head) {
                Decision::Forward { route, forward, .. } => {
                    let limit = timeout::limit(forward.timeout, head.headers, ctx.protocol());
                    let per_try = forward.retry.as_ref().and_then(|retry| retry.per_try_timeout);
                    (Some(route.clone()), None, Clock::new(limit, per_try))
                }
                Decision::Redirect { route, redirect, .. } => {
                    let reply = LocalReply::redirect(redirect.code, &redirect.location(&head));
                    (Some(route.clone()), Some(reply), None)
                }
                Decision::Reply { route, reply, .. } => {
                    (Some(route.clone()), Some(LocalReply::direct(reply)), None)
                }
                Decision::RequireTls { .. } => {
                    (None, Some(LocalReply::redirect(301, &https_redirect_location(&head))), None)
                }
                Decision::NotFound(_) => {
                    let reply = LocalReply::empty(404, "route_not_found").flag(Flag::NoRouteFound);
                    (None, Some(reply), None)
                }
            }
        };
        ctx.clock = clock;
        ctx.route = route;
        let outcome = match refused {
            // Its response has the operations of the rule all the same (Envoy: the route is known to every filter).
            Some(reply) => Some(reply),
            None if comes_in && policies::have_say(ctx, chain) => {
                Box::pin(policies::on_route(session, ctx, chain)).await.or(outcome)
            }
            None => outcome,
        };
        let answer = match outcome {
            Some(reply) => Some(reply),
            None if ctx.filters().is_none() => None,
            None => match ctx.route.clone() {
                Some(route) => match filters::pass(&route, session, ctx).await {
                    Passage::Proceed => None,
                    Passage::Answer(reply) => Some(reply),
                },
                None => None,
            },
        };
        match answer {
            Some(reply) => reply::write(session, ctx, reply).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn not_found(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let reply = LocalReply::empty(404, "route_not_found").flag(Flag::NoRouteFound);
        reply::write(session, ctx, reply).await.map(|()| true)
    }
}

#[async_trait]
impl ProxyHttp for GatewayProxy {
    /// Boxed: the engine keeps and moves it by value in the state of each of its phases.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        Box::new(Ctx::new(self.snapshots.load()))
    }

    /// None: compression and the like are policies of ours, not of the engine.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<()> {
        ctx.connection = connection_info(session).cloned();
        ctx.tls = session.digest().and_then(|digest| digest.ssl_digest.clone());
        if ctx.connection.as_ref().is_some_and(|connection| connection.draining()) {
            session.set_keepalive(None);
        }
        if let Some(connection) = &ctx.connection {
            connection.request_begun();
            session.set_read_timeout(connection.edge.limits.stream_idle);
            session.set_write_timeout(connection.edge.limits.stream_idle);
        }
        session.set_pipelining_enabled(true);
        session.set_ignore_info_resp(true);
        edge::admit(session, ctx);
        if ctx.connection.as_ref().is_some_and(|connection| connection.pressure() >= Level::Shedding) {
            ctx.refusal.get_or_insert_with(reply::overloaded);
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        if self.decide(session, ctx).await? {
            return Ok(true);
        }
        if session.is_upgrade_req() {
            ctx.upgrade = true;
            // A tunnel may be silent for as long as both ends like (Istio: no stream idle timeout).
            session.set_read_timeout(None);
            ctx.clock.get_or_insert_with(Clock::endless);
        }
        if ctx.may_expect() && edge::expects_continue(session.req_header()) {
            // The engine takes a response without a length for the last of its connection, this one too.
            let keepalive = session.get_keepalive();
            session.write_continue_response().await?;
            session.set_keepalive(keepalive);
        }
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<Box<HttpPeer>> {
        ctx.attempt += 1;
        ctx.head_sent = false;
        let left = attempt::begin(session, ctx).await?;
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
        let endpoint = upstream::endpoint(&cluster, session, ctx).await?;
        let authority = forward
            .authority
            .as_deref()
            .or_else(|| ctx.destination().and_then(|d| d.headers.authority()).map(|authority| &**authority))
            .unwrap_or(&ctx.authority);
        let protocol = upstream::protocol(&cluster, session);
        let mut peer =
            peer::build(&cluster, &endpoint.endpoint, protocol, authority, ctx.connection.as_deref())?;
        if let Some(left) = left {
            peer.options.connection_timeout = Some(cluster.spec.connect_timeout.min(left));
            peer.options.total_connection_timeout = peer.options.connection_timeout;
            peer.options.write_timeout = Some(attempt::STALLED_WRITE.max(left));
        }
        ctx.tried.push(endpoint.endpoint.address.clone());
        ctx.in_flight = Some(endpoint.begin(&cluster));
        ctx.upstream_host = Some(endpoint.endpoint.address.clone());
        ctx.attempt_started = Some(Instant::now());
        ctx.endpoint = Some(endpoint);
        ctx.principals = None;
        trace::attempt(ctx);
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        if let Some(cluster) = ctx.cluster.as_ref().filter(|_| !reused) {
            cluster.counters.connected();
        }
        upstream::connected(ctx, digest);
        if peer.is_tls() {
            peer::verify(ctx.cluster.as_ref().and_then(|cluster| cluster.tls()), digest)?;
        }
        ctx.principals = upstream::principals(digest).or_else(|| upstream::caller(ctx.connection.as_deref()));
        watch::watch(session, ctx);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        edge::forward(session.req_header(), head, ctx)?;
        if let Some(reply) = policies::on_upstream(session, head, ctx) {
            return Err(policies::answered(ctx, reply));
        }
        match &mut ctx.copies {
            Some(copies) => copies.rewind(),
            None if !ctx.mirrored => self.mirrors.start(session, head, ctx),
            None => {}
        }
        upstream::end_connection(ctx, head)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        // The engine begins with the body when the head is out.
        ctx.head_sent = true;
        let last = end || body.is_none();
        if last {
            watch::request_arrived(session, ctx);
        }
        if let (true, Some(bytes)) = (ctx.grpc, &body) {
            grpc::request(&self.metrics.istio, ctx, bytes);
        }
        policies::body(Body::Request, body, last, ctx)?;
        if let Some(copies) = &mut ctx.copies {
            copies.pass(body.as_ref(), last);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        ctx.upstream_version = Some(head.version);
        upstream::answered(ctx, head);
        trace::answered(ctx, head);
        attempt::answered(session, ctx, head)?;
        if !head.status.is_informational() {
            watch::response_begun(session, ctx);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        upstream_head::check(session.req_header(), head, ctx)?;
        ctx.received = session.body_bytes_read() as u64;
        response::upstream(head, ctx);
        match policies::on_response(session.req_header(), head, ctx, Origin::Upstream) {
            Some(reply) => Err(policies::answered(ctx, reply)),
            None => Ok(()),
        }
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<Duration>> {
        policies::body(Body::Response, body, end, ctx)?;
        if let (true, Some(bytes)) = (ctx.grpc, &body) {
            grpc::response(&self.metrics.istio, ctx, bytes);
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut ::http::HeaderMap,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<Bytes>> {
        upstream::ended(ctx, trailers);
        ctx.grpc_status = response::grpc_status(trailers).or(ctx.grpc_status);
        // What a filter has held back goes in the place of the trailers: the engine sends one or the other.
        let mut rest = None;
        policies::body(Body::Response, &mut rest, true, ctx)?;
        Ok(rest)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Box<Ctx>,
        e: Box<Error>,
    ) -> Box<Error> {
        let e = attempt::in_time(ctx, e);
        if let Some(guard) = ctx.in_flight.take() {
            guard.failed(failure::no_answer(&e));
        }
        attempt::failed(session, ctx, e, Connection::New)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        ctx: &mut Box<Ctx>,
        client_reused: bool,
    ) -> Box<Error> {
        let e = attempt::in_time(ctx, e);
        watch::unwatch(session, ctx);
        if let Some(guard) = ctx.in_flight.take().filter(|_| e.esource() == &ErrorSource::Upstream) {
            guard.failed(failure::no_answer(&e));
        }
        let connection = if client_reused { Connection::Pooled } else { Connection::New };
        attempt::failed(session, ctx, e, connection)
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Box<Ctx>) -> FailToProxy {
        let started = session.response_written().is_some_and(reply::begins);
        let mut failure = failure::classify(e, ctx.connection.as_ref().and_then(|c| c.refusal()));
        if started {
            failure = failure.after_start(ctx.upstream_version);
        }
        let mut error_code = 0;
        if let Some(flag) = failure.flag {
            ctx.flags.insert(flag);
        }
        ctx.transport_failure = failure.transport.clone();
        if let Some(reason) = upstream::refusal(ctx, e).await {
            ctx.transport_failure.get_or_insert_default().push_str(&format!(": {reason}"));
        }
        match policies::reply(ctx).or_else(|| failure.reply(ctx.attempt)) {
            Some(reply) if !started => {
                error_code = reply.status();
                // What the client has sent is read to its end, and was all right.
                let keep = e.esource() != &ErrorSource::Downstream
                    && !ctx.upgrade
                    && session.as_http1().is_some()
                    && session.get_keepalive().is_some()
                    && session.as_downstream_mut().is_body_done();
                ctx.keep = keep;
                let reply = if keep { reply } else { reply.close() };
                if let Err(e) = reply::write(session, ctx, reply).await {
                    ctx.keep = false;
                    tracing::debug!(error = %e, "the client left before its error reply");
                    ctx.flags.insert(Flag::DownstreamConnectionTermination);
                }
            }
            _ => ctx.details = failure.details_after_start().into(),
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Box<Ctx>) {
        watch::unwatch(session, ctx);
        ctx.in_flight = None;
        ctx.upstream = upstream::Upstream::default();
        if e.is_some_and(|e| {
            e.esource() == &ErrorSource::Downstream
                && *e.etype() != ErrorType::InvalidHTTPHeader
                && Cause::of(e) != Some(Cause::Policy)
        }) {
            ctx.flags.insert(Flag::DownstreamConnectionTermination);
        }
        record::finish(&self.metrics, self.access_log.load().as_ref(), session, ctx);
        policies::on_complete(session, ctx);
        if let Some(connection) = &ctx.connection {
            connection.request_finished();
        }
        if ctx.keep {
            http::keep(session).await;
        } else if let (Some(_), HttpSession::H1(client)) = (e, session.as_downstream_mut()) {
            // What the client is still sending must not cost it the answer.
            client.shutdown().await;
        }
    }

    /// The access log has it, with its flag; the process log is for what an operator must act on.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Ctx>, e: &Error) -> bool {
        matches!(e.esource(), ErrorSource::Upstream | ErrorSource::Downstream) || Cause::of(e).is_some()
    }

    fn suppress_proxy_warn_log(
        &self,
        _s: &Session,
        _c: &Box<Ctx>,
        _e: &Error,
        _w: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

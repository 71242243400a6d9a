//! What one request gathers on its way from hook to hook.
//!
//! Invariant: the snapshot is pinned at the beginning and never replaced.

use crate::{
    edge::HeaderPolicy,
    listener::ConnectionInfo,
    policy::Run,
    proxy::{
        clock::Clock, edge::Forwarded, facts::SentRequest, grpc::Messages, mirror::Copies, reply::LocalReply,
        upstream::Upstream,
    },
    runtime::{Cluster, EndpointState, InFlight},
    snapshot::Snapshot,
    telemetry::{Flags, Side, istio::Principals, trace::Active},
};
use http::{HeaderValue, Version, uri::PathAndQuery};
use pingora_core::protocols::tls::SslDigest;
use routing::{
    action::{headers::HeaderOps, retry::RetryPolicy, timeout::Protocol},
    cluster::Address,
    listener::Direction,
    route::{Destination, Forward, Route, RouteFilters},
};
use smallvec::SmallVec;
use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// State of one request.
pub struct Ctx {
    /// Configuration that the whole request works on.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) started: Instant,
    pub(super) start_time: SystemTime,
    pub(super) connection: Option<Arc<ConnectionInfo>>,
    /// Authority as the client sent it.
    pub(super) authority: String,
    /// What trusted proxies say about the client.
    pub(super) forwarded: Option<Forwarded>,
    /// Informational responses so far.
    pub(super) informational: u8,
    /// Why the head must not be routed.
    pub(super) refusal: Option<LocalReply>,
    pub(super) grpc: bool,
    /// Version of HTTP that the client speaks.
    pub(super) version: Version,
    /// A protocol upgrade was asked for.
    pub(super) upgrade: bool,
    /// The head came with `Expect`.
    pub(super) expects: bool,
    /// The way through the policies, where there are any.
    pub(super) policies: Option<Box<Run>>,
    pub(super) route: Option<Arc<Route>>,
    /// Index of the chosen destination in the route.
    pub(super) destination: Option<usize>,
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Of the attempt under way, or the last one.
    pub(super) endpoint: Option<Arc<EndpointState>>,
    /// Names in the certificates of the connection of that attempt.
    pub(super) principals: Option<Arc<Principals>>,
    /// Number of the attempt under way, from 1.
    pub(super) attempt: u32,
    /// Addresses of the attempts so far.
    pub(super) tried: SmallVec<[Address; 1]>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) attempt_started: Option<Instant>,
    /// Of a route or an attempt with a limit.
    pub(super) clock: Option<Arc<Clock>>,
    /// Retries that a policy asked for.
    pub(super) retries: u32,
    /// Wait this long before the next attempt.
    pub(super) pause: Option<Duration>,
    /// The connection of an attempt turned out to be dead, and another was dialled for it.
    pub(super) redialled: bool,
    /// The head of the attempt under way has gone out.
    pub(super) head_sent: bool,
    /// Origin that the response is to be marked for.
    pub(super) cors_origin: Option<HeaderValue>,
    /// The client's connection goes on after the error that was answered.
    pub(super) keep: bool,
    /// Mirrors have been given their copies.
    pub(super) mirrored: bool,
    /// Copies for mirrors that wait for the body.
    pub(super) copies: Option<Box<Copies>>,
    pub(super) upstream_host: Option<Address>,
    pub(super) upstream_local: Option<SocketAddr>,
    /// What the client's handshake agreed on.
    pub(super) tls: Option<Arc<SslDigest>>,
    /// What the handshake with the upstream agreed on, where it was the engine's.
    pub(super) upstream_tls: Option<Arc<SslDigest>>,
    /// Bytes of the request's body when the response began.
    pub(super) received: u64,
    /// Version of HTTP that the upstream answered in.
    pub(super) upstream_version: Option<Version>,
    /// Path and query as sent upstream, where a rule rewrote it.
    pub(super) upstream_path: Option<PathAndQuery>,
    /// Authority as sent upstream, where a rule rewrote it.
    pub(super) upstream_authority: Option<Arc<str>>,
    /// The request as it went upstream, where a value of the response reads it.
    pub(super) sent: Option<Box<SentRequest>>,
    pub(super) flags: Flags,
    /// Envoy's word for where the response came from.
    pub(super) details: Cow<'static, str>,
    pub(super) transport_failure: Option<String>,
    pub(super) grpc_status: Option<u8>,
    /// Messages of a gRPC call.
    pub(super) messages: Option<Box<Messages>>,
    pub(super) upstream: Upstream,
    /// From the request's beginning to that of the response.
    pub(super) until_response: Option<Duration>,
    /// Of a request that is traced.
    pub(super) trace: Option<Box<Active>>,
}

impl Ctx {
    fn direction(&self) -> Direction {
        self.connection.as_ref().map_or(Direction::Gateway, |connection| connection.direction())
    }

    /// What the heads of its connection say of the proxy and of who is in front.
    pub(super) fn heads(&self) -> &HeaderPolicy {
        self.snapshot.edge.headers.of(self.direction())
    }

    /// Who the proxy is for it.
    pub(super) fn side(&self) -> Side {
        Side::of(self.direction())
    }

    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            started: Instant::now(),
            start_time: SystemTime::now(),
            connection: None,
            authority: String::new(),
            forwarded: None,
            informational: 0,
            refusal: None,
            grpc: false,
            version: Version::HTTP_11,
            upgrade: false,
            expects: false,
            policies: None,
            route: None,
            destination: None,
            cluster: None,
            endpoint: None,
            principals: None,
            attempt: 0,
            tried: SmallVec::new(),
            in_flight: None,
            attempt_started: None,
            clock: None,
            retries: 0,
            pause: None,
            redialled: false,
            head_sent: false,
            cors_origin: None,
            keep: false,
            mirrored: false,
            copies: None,
            upstream_host: None,
            upstream_local: None,
            tls: None,
            upstream_tls: None,
            received: 0,
            upstream_version: None,
            upstream_path: None,
            upstream_authority: None,
            sent: None,
            flags: Flags::default(),
            details: Cow::Borrowed(""),
            transport_failure: None,
            grpc_status: None,
            messages: None,
            upstream: Upstream::default(),
            until_response: None,
            trace: None,
        }
    }

    /// Whether the client's head may bear `Expect`: it came so, or policies may have put it there.
    pub(super) fn may_expect(&self) -> bool {
        self.expects || self.policies.is_some()
    }

    /// What the rule says about forwarding.
    pub(super) fn forward(&self) -> Option<&Forward> {
        self.route.as_deref()?.forward()
    }

    /// Fault, CORS and mirrors of the rule.
    pub(super) fn filters(&self) -> Option<&RouteFilters> {
        self.forward()?.filters.as_deref()
    }

    /// The rule's retry policy; `None`: retries are off.
    pub(super) fn retry(&self) -> Option<&RetryPolicy> {
        self.forward()?.retry.as_deref()
    }

    /// The chosen destination.
    pub(super) fn destination(&self) -> Option<&Destination> {
        self.forward()?.destinations.get(self.destination?)
    }

    /// What the client speaks.
    pub(super) fn protocol(&self) -> Protocol {
        if self.grpc { Protocol::Grpc } else { Protocol::Other }
    }

    /// What the rule does to response headers: to the upstream's, and to local replies alike.
    pub(super) fn response_ops(&self) -> Option<&HeaderOps> {
        match self.destination() {
            Some(destination) => Some(&destination.headers.response),
            None => self.route.as_deref().map(|r| &*r.response_headers),
        }
    }
}

//! What one request gathers on its way from hook to hook.
//!
//! Invariant: the snapshot is pinned at the beginning and never replaced.

use crate::{
    listener::ConnectionInfo,
    proxy::reply::LocalReply,
    runtime::{Cluster, InFlight},
    snapshot::Snapshot,
    telemetry::Flags,
};
use routing::{
    action::headers::HeaderOps,
    cluster::Address,
    route::{Action, Destination, Route},
};
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
    /// Why the head must not be routed.
    pub(super) refusal: Option<LocalReply>,
    pub(super) grpc: bool,
    /// A protocol upgrade was asked for.
    pub(super) upgrade: bool,
    pub(super) route: Option<Arc<Route>>,
    /// Index of the chosen destination in the route.
    pub(super) destination: Option<usize>,
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Number of the attempt under way, from 1.
    pub(super) attempt: u32,
    /// Addresses of the attempts so far.
    pub(super) tried: Vec<Address>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) attempt_started: Option<Instant>,
    /// When the route's time is up, and how long that is in all.
    pub(super) deadline: Option<(Instant, Duration)>,
    pub(super) upstream_host: Option<Address>,
    pub(super) upstream_local: Option<SocketAddr>,
    /// Path and query as sent upstream, where a rule rewrote it.
    pub(super) upstream_path: Option<String>,
    /// Authority as sent upstream, where a rule rewrote it.
    pub(super) upstream_authority: Option<Arc<str>>,
    pub(super) flags: Flags,
    /// Envoy's word for where the response came from.
    pub(super) details: Cow<'static, str>,
    pub(super) transport_failure: Option<String>,
    pub(super) grpc_status: Option<u8>,
}

impl Ctx {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            started: Instant::now(),
            start_time: SystemTime::now(),
            connection: None,
            authority: String::new(),
            refusal: None,
            grpc: false,
            upgrade: false,
            route: None,
            destination: None,
            cluster: None,
            attempt: 0,
            tried: Vec::new(),
            in_flight: None,
            attempt_started: None,
            deadline: None,
            upstream_host: None,
            upstream_local: None,
            upstream_path: None,
            upstream_authority: None,
            flags: Flags::default(),
            details: Cow::Borrowed(""),
            transport_failure: None,
            grpc_status: None,
        }
    }

    /// The chosen destination.
    pub(super) fn destination(&self) -> Option<&Destination> {
        match &self.route.as_deref()?.action {
            Action::Forward(forward) => forward.destinations.get(self.destination?),
            Action::Redirect(_) | Action::Reply(_) => None,
        }
    }

    /// What the rule does to response headers: to the upstream's, and to local replies alike.
    pub(super) fn response_ops(&self) -> Option<&HeaderOps> {
        match self.destination() {
            Some(destination) => Some(&destination.headers.response),
            None => self.route.as_deref().map(|r| &r.response_headers),
        }
    }
}

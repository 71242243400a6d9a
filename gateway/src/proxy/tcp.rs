//! Connections that are not HTTP: to an endpoint and back, byte for byte.
//!
//! Invariant: what one end has sent before it is done reaches the other (half-close); a connection on which nothing moves for
//! the cluster's idle time is ended; every connection leaves one line in the access log, with Envoy's flags.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use pingora_core::{connectors::TransportConnector, protocols::Stream};
use pingora_error::{Error, ErrorType, Result};
use routing::{cluster::Address, listener::TcpRoute};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{GatewayProxy, connect, peer, tunnel};
use crate::{
    listener::ConnectionInfo,
    runtime::{Admission, Cluster, EndpointState, endpoint::NoAnswer},
    snapshot::SnapshotCell,
    telemetry::{AccessLog, Flag, Flags, Metrics, access_log::Entry},
};

/// Bytes that are carried at a time, each way.
const BUFFER: usize = 16 * 1024;

/// Makes the upstream's side of connections.
pub(super) struct Tunnels {
    connector: TransportConnector,
    snapshots: Arc<SnapshotCell>,
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
}

/// What came of one connection.
#[derive(Default)]
struct Outcome {
    flags: Flags,
    cluster: Option<Arc<Cluster>>,
    upstream_host: Option<Address>,
    upstream_local: Option<std::net::SocketAddr>,
    transport_failure: String,
    received: u64,
    sent: u64,
}

impl Tunnels {
    /// For the configuration and with the log of `proxy`.
    pub(super) fn new(proxy: &GatewayProxy) -> Tunnels {
        Tunnels {
            connector: TransportConnector::new(None),
            snapshots: proxy.snapshots.clone(),
            metrics: proxy.metrics.clone(),
            access_log: proxy.access_log.load_full(),
        }
    }

    /// Carries a connection until it ends.
    pub(super) async fn carry(&self, client: Stream, info: &ConnectionInfo, route: &TcpRoute) {
        let (started, start) = (Instant::now(), SystemTime::now());
        let outcome = self.run(client, info, route).await;
        let cluster = outcome.cluster.as_ref().map(|cluster| &*cluster.spec);
        self.metrics.tcp_closed(cluster, outcome.flags, outcome.received, outcome.sent);
        let Some(log) = &self.access_log else { return };
        let none = HeaderMap::new();
        log.log(&Entry {
            start,
            duration: started.elapsed(),
            flags: outcome.flags,
            transport_failure: &outcome.transport_failure,
            bytes_received: outcome.received,
            bytes_sent: outcome.sent,
            upstream_host: outcome.upstream_host.as_ref(),
            upstream_cluster: cluster.map_or("", |cluster| cluster.name.as_str()),
            upstream_local: outcome.upstream_local,
            downstream_local: Some(info.local),
            downstream_remote: Some(info.peer),
            server_name: info.sni.as_deref().unwrap_or_default(),
            ..Entry::empty(&none)
        });
    }

    async fn run(&self, mut client: Stream, info: &ConnectionInfo, route: &TcpRoute) -> Outcome {
        let mut outcome = Outcome::default();
        let snapshot = self.snapshots.load();
        let name = route.pick(fastrand::u64(..));
        let cluster = name.and_then(|name| snapshot.clusters.get(name)).cloned();
        self.metrics.tcp_opened(cluster.as_ref().map(|cluster| &*cluster.spec));
        let Some(cluster) = cluster else {
            outcome.flags.insert(Flag::NoClusterFound);
            return outcome;
        };
        drop(snapshot);
        outcome.cluster = Some(cluster.clone());
        let Some(endpoint) = cluster.pick(|| fastrand::u64(..), None, &[]) else {
            outcome.flags.insert(Flag::NoHealthyUpstream);
            return outcome;
        };
        outcome.upstream_host = Some(endpoint.endpoint.address.clone());
        let Admission::Granted(_place) = cluster.admit_connection() else {
            outcome.flags.insert(Flag::UpstreamOverflow);
            return outcome;
        };
        let attempt = endpoint.begin(&cluster);
        let (mut upstream, early) = match self.connect(&cluster, &endpoint, info).await {
            Ok(connected) => connected,
            Err(error) => {
                attempt.failed(NoAnswer::Connection);
                outcome.flags.insert(Flag::UpstreamConnectionFailure);
                outcome.transport_failure = error.to_string();
                return outcome;
            }
        };
        outcome.upstream_local =
            upstream.get_socket_digest().and_then(|digest| digest.local_addr()?.as_inet().copied());
        if let Some((local, remote)) = connect::ends(upstream.get_proxy_digest().as_deref()) {
            outcome.upstream_local = Some(local);
            outcome.upstream_host = Some(Address::Ip(remote));
        }
        if !early.is_empty() && client.write_all(&early).await.is_err() {
            return outcome;
        }
        let idle = cluster.spec.idle_timeout;
        let life = cluster.spec.pool.max_connection_duration;
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        let over = both_ways(&mut client, &mut upstream, (&received, &sent));
        tokio::select! {
            () = over => {}
            () = idle_for(idle.unwrap_or_default(), || received.load(Ordering::Relaxed) + sent.load(Ordering::Relaxed)), if idle.is_some() => {
                outcome.flags.insert(Flag::StreamIdleTimeout);
            }
            // Envoy: `max_downstream_connection_duration`; Istio sets it from the DestinationRule.
            () = tokio::time::sleep(life.unwrap_or_default()), if life.is_some() => {
                outcome.flags.insert(Flag::DurationTimeout);
            }
        }
        (outcome.received, outcome.sent) = (received.into_inner(), sent.into_inner() + early.len() as u64);
        outcome
    }

    /// A connection for a client, through the cluster's tunnel where it has one; and what came through that already.
    async fn connect(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &EndpointState,
        info: &ConnectionInfo,
    ) -> Result<(Stream, Vec<u8>)> {
        let mut upstream = peer::connect(&self.connector, cluster, &endpoint.endpoint, info).await?;
        let Some(way) = &cluster.spec.tunnel else { return Ok((upstream, Vec::new())) };
        let limit = cluster.spec.connect_timeout;
        match tokio::time::timeout(limit, tunnel::open(&mut upstream, way)).await {
            Ok(early) => Ok((upstream, early?)),
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, format!("no tunnel in {limit:?}")),
        }
    }
}

/// Each way until its end; the end of one way is told to the other side, and what comes back still comes.
async fn both_ways(client: &mut Stream, upstream: &mut Stream, (received, sent): (&AtomicU64, &AtomicU64)) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let there = pump(&mut from_client, &mut to_upstream, received);
    let back = pump(&mut from_upstream, &mut to_client, sent);
    // A side that breaks, and not only ends, takes the other with it.
    let _broken = tokio::try_join!(there, back);
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        to.flush().await?;
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// Returns when `moved` has stood still for `limit`, or up to a quarter longer.
async fn idle_for(limit: Duration, moved: impl Fn() -> u64) {
    const LOOKS: u32 = 4;
    let (mut before, mut quiet) = (moved(), 0);
    while quiet < LOOKS {
        tokio::time::sleep(limit / LOOKS).await;
        let now = moved();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
}

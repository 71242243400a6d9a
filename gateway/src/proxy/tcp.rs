//! Connections that are not HTTP: to an endpoint and back, byte for byte.
//!
//! Invariant: what one end has sent before it is done reaches the other (half-close); a connection on which nothing moves for
//! the cluster's idle time is ended; every connection leaves one line in the access log, with Envoy's flags.

mod report;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use pingora_core::protocols::{Stream, l4::ext::set_tcp_keepalive, raw_connect::ProxyDigest};
use pingora_error::{Error, ErrorType, Result};
use routing::{
    cluster::Address,
    listener::{Direction, ListenerKey, TcpRoute},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    GatewayProxy,
    connect::{self, Dial},
    peer::{self, Duplex},
    record,
    splice::{self, Pipes},
    tunnel::{self, Opened, Posted},
    upstream,
};
use routing::cluster::Discovery;

use crate::{
    listener::{Client, ConnectionInfo},
    policy::Subject,
    runtime::{Admission, Cluster, EndpointState, endpoint::NoAnswer},
    snapshot::SnapshotCell,
    telemetry::{
        AccessLog, Flag, Flags, Metrics, Side,
        access_log::{Entry, More},
        istio::Principals,
    },
};
use report::Report;

/// Bytes that are carried at a time, each way.
const BUFFER: usize = 16 * 1024;

/// Makes the upstream's side of connections.
pub(super) struct Tunnels {
    snapshots: Arc<SnapshotCell>,
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
    pipes: Pipes,
}

/// Both ends of a connection.
enum Ends {
    /// Bare sockets, with what was read of the client for a look: the kernel carries the rest. The last is kept as long as
    /// they are.
    Bare(
        TcpStream,
        Vec<u8>,
        TcpStream,
        #[expect(dead_code, reason = "counts the connection")] Option<ProxyDigest>,
    ),
    /// At least one has TLS, is no TCP, or is by way of a proxy.
    Streams(Stream, Box<dyn Duplex>),
}

/// What came of one connection.
#[derive(Default)]
struct Outcome {
    flags: Flags,
    cluster: Option<Arc<Cluster>>,
    endpoint: Option<Arc<EndpointState>>,
    principals: Option<Arc<Principals>>,
    upstream_host: Option<Address>,
    upstream_local: Option<SocketAddr>,
    transport_failure: String,
    /// Why a policy refused it.
    details: String,
    received: u64,
    sent: u64,
}

impl Tunnels {
    /// For the configuration and with the log of `proxy`.
    pub(super) fn new(proxy: &GatewayProxy) -> Tunnels {
        Tunnels {
            snapshots: proxy.snapshots.clone(),
            metrics: proxy.metrics.clone(),
            access_log: proxy.access_log.load_full(),
            pipes: Pipes::default(),
        }
    }

    /// Carries a connection until it ends.
    pub(super) async fn carry(&self, client: Client, info: &ConnectionInfo, route: &TcpRoute) {
        let (started, start) = (Instant::now(), SystemTime::now());
        let none = HeaderMap::new();
        let labels = self.snapshots.load().telemetry.labels.clone();
        let made =
            |outcome: &Outcome| Some(labels.as_ref()?.of(&Entry { start, ..entry(outcome, info, &none) }));
        let mut report = Report::new(&self.metrics.istio, &made);
        let outcome = self.run(client, info, route, &mut report).await;
        report.end(&outcome);
        let logs = self.snapshots.load().telemetry.clone();
        let side = Side::of(info.direction());
        if self.access_log.is_none() && !logs.logs.are_for(info.listener.port, side) {
            return;
        }
        let entry = Entry { start, duration: started.elapsed(), ..entry(&outcome, info, &none) };
        record::log(self.access_log.as_deref(), &logs.logs, (info.listener.port, side), &entry);
    }

    /// Logs a connection that no server is for (Istio: the listener's own access log, of connections with flag NR).
    pub(super) fn unmatched(
        &self,
        listener: &ListenerKey,
        peer: SocketAddr,
        local: SocketAddr,
        sni: Option<&str>,
    ) {
        let snapshot = self.snapshots.load();
        let direction = snapshot.listener(listener).map_or(Direction::Gateway, |known| known.direction);
        let (logs, side) = (snapshot.telemetry.clone(), Side::of(direction));
        drop(snapshot);
        if self.access_log.is_none() && !logs.logs.are_for_connections(listener.port, side) {
            return;
        }
        let none = HeaderMap::new();
        let mut flags = Flags::default();
        flags.insert(Flag::NoRouteFound);
        let entry = Entry {
            start: SystemTime::now(),
            flags,
            details: "filter_chain_not_found",
            downstream_local: Some(local),
            downstream_remote: Some(peer),
            server_name: sni.unwrap_or_default(),
            ..Entry::empty(&none)
        };
        record::log(self.access_log.as_deref(), &logs.logs, (listener.port, side), &entry);
    }

    async fn run(
        &self,
        client: Client,
        info: &ConnectionInfo,
        route: &TcpRoute,
        report: &mut Report<'_>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let snapshot = self.snapshots.load();
        let name = route.pick(fastrand::u64(..));
        let cluster = name.and_then(|name| snapshot.clusters.get(name)).cloned();
        let Some(cluster) = cluster else {
            outcome.flags.insert(Flag::NoClusterFound);
            return outcome;
        };
        let gate = snapshot.gate.clone().filter(|_| !info.is_outbound());
        drop(snapshot);
        outcome.cluster = Some(cluster.clone());
        if let Some(gate) = gate
            && let Err(why) = gate.admit(&Subject::of(info, None)).await
        {
            outcome.details = why;
            outcome.principals = upstream::caller(Some(info));
            return outcome;
        }
        let endpoint = match cluster.spec.discovery {
            // Envoy: the SNI form of its dynamic forward proxy.
            Discovery::DynamicDns => cluster.named(info.sni.as_deref().unwrap_or_default()).await,
            Discovery::OriginalDestination { .. } => upstream::original(&cluster, Some(info)),
            _ => cluster.pick(|| fastrand::u64(..), None, &[]),
        };
        let Some(endpoint) = endpoint else {
            outcome.flags.insert(Flag::NoHealthyUpstream);
            return outcome;
        };
        outcome.upstream_host = Some(endpoint.endpoint.address.clone());
        outcome.endpoint = Some(endpoint.clone());
        let Admission::Granted(_place) = cluster.admit_connection() else {
            outcome.flags.insert(Flag::UpstreamOverflow);
            return outcome;
        };
        let attempt = endpoint.begin(&cluster);
        let (mut ends, early) = match self.ends(client, info, &cluster, &endpoint, &mut outcome).await {
            Ok(connected) => connected,
            Err(error) => {
                attempt.failed(NoAnswer::Connection);
                outcome.flags.insert(Flag::UpstreamConnectionFailure);
                outcome.transport_failure = error.to_string();
                return outcome;
            }
        };
        if let Ends::Streams(client, _) = &mut ends
            && !early.is_empty()
            && client.write_all(&early).await.is_err()
        {
            return outcome;
        }
        let idle = cluster.spec.idle_timeout;
        let life = cluster.spec.pool.max_connection_duration;
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(early.len() as u64));
        let moved = || (received.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
        let over = self.both_ways(&mut ends, (&received, &sent));
        let silent = idle_for(idle.unwrap_or_default(), || moved().0 + moved().1);
        // Envoy: `max_downstream_connection_duration`; Istio sets it from the DestinationRule.
        let aged = tokio::time::sleep(life.unwrap_or_default());
        let period = self.metrics.istio.reporting_interval();
        let mut updates = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        tokio::pin!(over, silent, aged);
        loop {
            tokio::select! {
                () = &mut over => break,
                () = &mut silent, if idle.is_some() => {
                    outcome.flags.insert(Flag::StreamIdleTimeout);
                    break;
                }
                () = &mut aged, if life.is_some() => {
                    outcome.flags.insert(Flag::DurationTimeout);
                    break;
                }
                _ = updates.tick() => report.update(&outcome, moved()),
            }
        }
        (outcome.received, outcome.sent) = moved();
        outcome
    }

    /// Both ends, and what came from the upstream's already.
    async fn ends(
        &self,
        client: Client,
        info: &ConnectionInfo,
        cluster: &Arc<Cluster>,
        endpoint: &EndpointState,
        outcome: &mut Outcome,
    ) -> Result<(Ends, Vec<u8>)> {
        let bare = cluster.spec.tunnel.is_none() && cluster.tls_to(&endpoint.endpoint).is_none();
        let client = match (client, &endpoint.endpoint.address) {
            (Client::Bare(client, begun), Address::Ip(address)) if bare => {
                let dial = Dial::alone(cluster, &endpoint.endpoint, Some(info), None);
                let limit = cluster.spec.connect_timeout;
                let Ok(connected) = tokio::time::timeout(limit, dial.open(*address)).await else {
                    let why = format!("not connected in {limit:?}");
                    return Error::e_explain(ErrorType::ConnectTimedout, why);
                };
                let (upstream, kept) = connected?;
                // Options are for speed; a connection without them is one all the same.
                let _nodelay = upstream.set_nodelay(true);
                if let Some(asked) = &cluster.spec.pool.keepalive {
                    let _probed = set_tcp_keepalive(&upstream, &peer::keepalive(asked));
                }
                outcome.upstream_local = upstream.local_addr().ok();
                note_ends(outcome, connect::ends(kept.as_ref()));
                return Ok((Ends::Bare(client, begun, upstream, kept), Vec::new()));
            }
            (client, _) => client.into_stream(),
        };
        let mut made = peer::connect(cluster, &endpoint.endpoint, info).await?;
        note_ends(outcome, made.ends);
        outcome.principals = made.principals.take().or_else(|| upstream::caller(Some(info)));
        let Some(way) = &cluster.spec.tunnel else {
            return Ok((Ends::Streams(client, made.stream), Vec::new()));
        };
        let limit = cluster.spec.connect_timeout;
        let Ok(opened) = tokio::time::timeout(limit, tunnel::open(&mut made.stream, way)).await else {
            return Error::e_explain(ErrorType::ConnectTimedout, format!("no tunnel in {limit:?}"));
        };
        Ok(match opened? {
            Opened::Straight(early) => (Ends::Streams(client, made.stream), early),
            Opened::Within(body, early) => {
                let posted = Posted::new(made.stream, body, early);
                (Ends::Streams(client, Box::new(posted)), Vec::new())
            }
        })
    }

    async fn both_ways(&self, ends: &mut Ends, counts: (&AtomicU64, &AtomicU64)) {
        match ends {
            Ends::Streams(client, upstream) => both_ways(client, upstream, counts).await,
            Ends::Bare(client, begun, upstream, _) => {
                let begun = std::mem::take(begun);
                if splice::write_all(upstream, &begun).await.is_ok() {
                    counts.0.fetch_add(begun.len() as u64, Ordering::Relaxed);
                    drop(begun);
                    // A side that breaks ends the connection, which is all that there is to do about it.
                    let _broken = splice::both_ways(&self.pipes, client, upstream, counts).await;
                }
            }
        }
    }
}

/// A connection as logs and labels tell of it.
fn entry<'e>(outcome: &'e Outcome, info: &'e ConnectionInfo, none: &'e HeaderMap) -> Entry<'e> {
    Entry {
        flags: outcome.flags,
        transport_failure: &outcome.transport_failure,
        termination: &outcome.details,
        bytes_received: outcome.received,
        bytes_sent: outcome.sent,
        upstream_host: outcome.upstream_host.as_ref(),
        upstream_cluster: outcome.cluster.as_ref().map_or("", |cluster| cluster.spec.name.as_str()),
        upstream_local: outcome.upstream_local,
        downstream_local: Some(info.local),
        downstream_remote: Some(info.peer),
        server_name: info.sni.as_deref().unwrap_or_default(),
        more: More { mtls: info.client.is_some(), ..More::default() },
        ..Entry::empty(none)
    }
}

/// The ends of a connection whose address was one of several.
fn note_ends(outcome: &mut Outcome, ends: Option<(SocketAddr, SocketAddr)>) {
    if let Some((local, remote)) = ends {
        outcome.upstream_local = Some(local);
        outcome.upstream_host = Some(Address::Ip(remote));
    }
}

/// Each way until its end; the end of one way is told to the other side, and what comes back still comes.
async fn both_ways(
    client: &mut Stream,
    upstream: &mut Box<dyn Duplex>,
    (received, sent): (&AtomicU64, &AtomicU64),
) {
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

//! What a request holds of its upstream: a place in the cluster's limits, and the hash that keeps it at one endpoint.
//!
//! Invariant: a cluster that limits nothing and hashes nothing costs a request an `Option` check each.

use super::{attempt, connect, ctx::Ctx, diagnose, failure::Cause, peer, response};
use crate::{
    listener::ConnectionInfo,
    runtime::{
        Admission, Cluster, EndpointState,
        connections::{Connection, InUse},
        limits::{Admitted, Counted},
        remote,
    },
    telemetry::{Flag, istio::Principals},
};
use http::{HeaderMap, HeaderValue, Version, header};
use pingora_core::protocols::Digest;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use routing::{
    cluster::{Address, Discovery, HashCookie, HashKey, UpstreamProtocol, combined_hash},
    host::without_port,
};
use std::sync::Arc;

/// What one request holds of its upstream.
#[derive(Default)]
pub(super) struct Upstream {
    /// Its place in the cluster's limits, from the first attempt to the end.
    admitted: Option<Admitted>,
    /// The retry under way, where retries are limited.
    retry: Option<Counted>,
    /// The connection of the attempt under way, where connections are counted.
    connection: Option<InUse>,
    hash: Option<u64>,
    /// The cookies that were made for it.
    set_cookies: Vec<HeaderValue>,
}

impl Upstream {
    /// The cookies that the response sets.
    pub(super) fn set_cookies(&self) -> &[HeaderValue] {
        &self.set_cookies
    }
}

/// Whether the cluster's limits let one more retry through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Retry {
    Allowed,
    Overflow,
}

/// Asks the cluster's limits for one more retry, and notes it where they refuse.
pub(super) fn retry(ctx: &mut Ctx) -> Retry {
    ctx.upstream.retry = None;
    let Some(cluster) = &ctx.cluster else { return Retry::Allowed };
    match cluster.admit_retry() {
        Admission::Granted(retry) => {
            ctx.upstream.retry = retry;
            Retry::Allowed
        }
        Admission::Overflow => {
            ctx.flags.insert(Flag::UpstreamOverflow);
            Retry::Overflow
        }
    }
}

/// Notes the connection that an attempt got.
pub(super) fn connected(ctx: &mut Ctx, digest: Option<&Digest>) {
    ctx.upstream.connection = connect::tracked(digest).map(Connection::begin);
    ctx.upstream_tls = digest.and_then(|digest| digest.ssl_digest.clone());
    let ends = connect::ends(digest.and_then(|digest| digest.proxy_digest.as_deref()));
    let own = || digest.and_then(|d| d.socket_digest.as_ref()?.local_addr()?.as_inet().copied());
    ctx.upstream_local = ends.map(|(local, _)| local).or_else(own);
    if let Some((_, remote)) = ends {
        ctx.upstream_host = Some(Address::Ip(remote));
    }
}

/// The names in the certificates of the connection that an attempt got, where it has any.
pub(super) fn principals(digest: Option<&Digest>) -> Option<Arc<Principals>> {
    let digest = digest?;
    peer::principals(digest.ssl_digest.as_deref())
        .or_else(|| connect::principals(digest.proxy_digest.as_deref()).cloned())
}

/// Asks the upstream to close the connection after the last request that it may carry.
pub(super) fn end_connection(ctx: &Ctx, request: &mut RequestHeader) -> Result<()> {
    let (Some(connection), Some(cluster)) = (&ctx.upstream.connection, &ctx.cluster) else { return Ok(()) };
    let most = cluster.limits().max_requests_per_connection;
    if most.is_some_and(|most| connection.requests() >= most) {
        connection.retire();
        if request.version < Version::HTTP_2 {
            request.insert_header(header::CONNECTION, "close")?;
        }
    }
    Ok(())
}

/// Why the upstream's certificate was refused, where that is what went wrong.
pub(super) async fn refusal(ctx: &Ctx, e: &Error) -> Option<Arc<str>> {
    if e.root_etype() != &ErrorType::InvalidCert {
        return None;
    }
    let cluster = ctx.cluster.as_ref()?;
    let own = cluster.tls()?.sni.as_deref();
    let authority = ctx.upstream_authority.as_deref().unwrap_or(&ctx.authority);
    let name = own.unwrap_or_else(|| without_port(authority));
    diagnose::reason(cluster, ctx.upstream_host.as_ref()?, name).await
}

/// Notes what an attempt's endpoint answered, for outlier detection.
pub(super) fn answered(ctx: &Ctx, head: &ResponseHeader) {
    let Some(attempt) = ctx.in_flight.as_ref().filter(|_| !head.status.is_informational()) else { return };
    match ctx.grpc.then(|| response::grpc_status(&head.headers)).flatten() {
        Some(status) => attempt.answered(http_status_of_grpc(status)),
        // How a call went stands in its trailers.
        None if ctx.grpc && head.status.is_success() => {}
        None => attempt.answered(head.status.as_u16()),
    }
}

/// The same, of a gRPC call that ends with trailers.
pub(super) fn ended(ctx: &Ctx, trailers: &HeaderMap) {
    if let (Some(attempt), true, Some(status)) = (&ctx.in_flight, ctx.grpc, response::grpc_status(trailers)) {
        attempt.answered(http_status_of_grpc(status));
    }
}

/// HTTP version of the connection to the upstream.
pub(super) fn protocol(cluster: &Cluster, session: &Session) -> UpstreamProtocol {
    match cluster.spec.protocol {
        UpstreamProtocol::Client if session.is_http2() => UpstreamProtocol::Http2,
        UpstreamProtocol::Client => UpstreamProtocol::Http1,
        fixed => fixed,
    }
}

/// The endpoint of the next attempt. Waits where every connection that the cluster may have is in use.
///
/// # Errors
/// [`Cause::Overflow`] where a limit is reached, [`Cause::NoHealthyUpstream`] or [`Cause::NameNotResolved`] where there is nobody to ask,
/// [`Cause::RouteTimeout`] where the wait took all the time there was.
pub(super) async fn endpoint(
    cluster: &Arc<Cluster>,
    session: &Session,
    ctx: &mut Ctx,
) -> Result<Arc<EndpointState>> {
    if ctx.tried.is_empty() {
        hash(cluster, session, ctx);
        admit(cluster, protocol(cluster, session), ctx).await?;
    }
    if let Discovery::OriginalDestination { .. } = cluster.spec.discovery {
        let connection = ctx.connection.as_deref();
        return original(cluster, connection).ok_or_else(|| Cause::NoHealthyUpstream.error());
    }
    if cluster.spec.discovery == Discovery::DynamicDns {
        let authority = ctx
            .forward()
            .and_then(|forward| forward.authority.as_deref())
            .or_else(|| ctx.destination().and_then(|d| d.headers.authority()).map(|authority| &**authority))
            .unwrap_or(&ctx.authority);
        return cluster.named(authority).await.ok_or_else(|| Cause::NameNotResolved.error());
    }
    let elsewhere =
        attempt::left_behind(ctx).and_then(|tried| remote::pick(cluster, || fastrand::u64(..), tried));
    elsewhere
        .or_else(|| cluster.pick(|| fastrand::u64(..), ctx.upstream.hash, attempt::avoided(ctx, cluster)))
        .ok_or_else(|| Cause::NoHealthyUpstream.error())
}

/// Where a connection was going before it was redirected to a sidecar; `None`: here.
pub(super) fn original(cluster: &Cluster, connection: Option<&ConnectionInfo>) -> Option<Arc<EndpointState>> {
    cluster.original(connection?.original_destination()?)
}

/// Who called the workload beside a sidecar, as far as a certificate says so.
pub(super) fn caller(connection: Option<&ConnectionInfo>) -> Option<Arc<Principals>> {
    let connection = connection.filter(|connection| connection.is_inbound())?;
    let source = connection.client.as_ref()?.uris.first()?.as_str().into();
    Some(Arc::new(Principals { source: Some(source), destination: None }))
}

async fn admit(cluster: &Arc<Cluster>, protocol: UpstreamProtocol, ctx: &mut Ctx) -> Result<()> {
    if !cluster.is_limited() {
        return Ok(());
    }
    let left = match &ctx.clock {
        None => None,
        Some(clock) => clock.left_of_route()?,
    };
    let admission = match left {
        None => cluster.admit(protocol).await,
        Some(left) => match tokio::time::timeout(left, cluster.admit(protocol)).await {
            Ok(admission) => admission,
            Err(_) => return Err(Cause::RouteTimeout.error()),
        },
    };
    match admission {
        Admission::Granted(admitted) => {
            ctx.upstream.admitted = admitted;
            Ok(())
        }
        Admission::Overflow => Err(Cause::Overflow.error()),
    }
}

/// The number by which the endpoint is chosen: of the key of the cluster, or of those of all destinations of the rule, one
/// after the other (Istio: route.go `processWeightedDestination` gives the route each destination's key).
fn hash(cluster: &Cluster, session: &Session, ctx: &mut Ctx) {
    let Some(own) = &cluster.spec.hash_key else { return };
    let request = session.req_header();
    // Behind trusted proxies the peer is always one of them.
    let told = ctx.forwarded.and_then(|forwarded| forwarded.client);
    let source = told.or_else(|| ctx.connection.as_ref().map(|c| c.peer.ip()));
    let key_of = |key: &HashKey, cookies: &mut Vec<HeaderValue>| {
        let found = key.hash(&request.headers, request.uri.query(), source);
        match (found, key) {
            (None, HashKey::Cookie(cookie)) if cookie.ttl.is_some() => made(cookie, ctx, cookies),
            (found, _) => found,
        }
    };
    let mut cookies = Vec::new();
    let destinations = ctx.forward().map(|forward| &*forward.destinations).unwrap_or_default();
    let hash = match destinations {
        [_, _, ..] => {
            let clusters = destinations.iter().filter_map(|d| ctx.snapshot.clusters.get(&d.cluster));
            let numbers = clusters.filter_map(|other| key_of(other.spec.hash_key.as_ref()?, &mut cookies));
            combined_hash(numbers)
        }
        _ => key_of(own, &mut cookies),
    };
    ctx.upstream.hash = hash;
    ctx.upstream.set_cookies = cookies;
}

/// A cookie for a client that brought none, and its number: this request and the next go to the same endpoint.
fn made(cookie: &HashCookie, ctx: &Ctx, cookies: &mut Vec<HeaderValue>) -> Option<u64> {
    let ends = ctx.connection.as_ref().map(|c| format!("{}{}", c.peer, c.local)).unwrap_or_default();
    let value = HashCookie::value_for(&ends);
    // Only attributes that no header can hold fail here; the choice is then random.
    let set = HeaderValue::from_str(&cookie.set_cookie(&value)).ok()?;
    let mut sent = HeaderMap::new();
    sent.insert(header::COOKIE, HeaderValue::from_str(&format!("{}={value}", cookie.name)).ok()?);
    // Destinations of one rule often have one key.
    if !cookies.contains(&set) {
        cookies.push(set);
    }
    HashKey::Cookie(cookie.clone()).hash(&sent, None, None)
}

/// The HTTP status that a gRPC status stands for when endpoints are judged (Envoy: `grpcToHttpStatus`).
fn http_status_of_grpc(status: u8) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

//! The end of a request: one sample for the metrics, one line for the access log.
//!
//! Invariant: called once a request, also for those that failed before they were routed.

use super::{
    ctx::Ctx,
    edge,
    facts::{Exchange, Stage},
    trace, upstream,
};
use crate::{
    runtime::{Cluster, EndpointState},
    telemetry::{
        AccessLog, IstioMetrics, Logs, Metrics, Side,
        access_log::{Entry, More},
        istio::{Principals, RequestProtocol, Sample, Target},
    },
};
use http::{HeaderMap, Version, uri::PathAndQuery};
use pingora_proxy::Session;
use routing::cluster::Workload;
use std::{net::SocketAddr, sync::Arc};

/// Counts and logs a finished request.
pub(super) fn finish(metrics: &Metrics, log: Option<&Arc<AccessLog>>, session: &Session, ctx: &mut Ctx) {
    let traced = ctx.trace.take();
    if ctx.cluster.is_none() {
        // Who was refused has a name all the same.
        ctx.principals = upstream::caller(ctx.connection.as_deref());
    }
    let duration = ctx.started.elapsed();
    let request = session.req_header();
    let response = session.response_written();
    let code = response.map_or(0, |r| r.status.as_u16());
    let received = session.body_bytes_read() as u64;
    let sent = session.body_bytes_sent() as u64;
    let cluster = ctx.cluster.as_deref().map(|c| &*c.spec);
    let connection = ctx.connection.as_deref();
    let (request_bytes, response_bytes) = match connection {
        Some(connection) if request.version != Version::HTTP_2 => connection.bytes_exchanged(),
        // The engine does not tell what a stream's frames came to: as if it had been HTTP/1.
        _ => (
            received + size(&request.headers) + request.raw_path().len() as u64,
            sent + response.map_or(0, |r| size(&r.headers)),
        ),
    };
    let sample = Sample {
        protocol: if ctx.grpc { RequestProtocol::Grpc } else { RequestProtocol::Http },
        code,
        grpc_status: ctx.grpc_status,
        flags: ctx.flags,
        duration,
        request_bytes,
        response_bytes,
    };
    let target = target(&metrics.istio, Way::of(ctx));
    let labels = ctx.snapshot.telemetry.labels.as_deref();
    if labels.is_none() {
        metrics.istio.record(&target, &sample);
    }
    if let Some(route) = &ctx.route {
        route.taken.count(code, metrics.istio.duration_bucket(duration));
    }
    if ctx.grpc {
        target.grpc_called();
    }
    let logs = &ctx.snapshot.telemetry.logs;
    let port = connection.map_or(0, |connection| connection.listener.port);
    if log.is_none() && traced.is_none() && labels.is_none() && !logs.are_for(port, ctx.side()) {
        return;
    }
    // A head that was not read as HTTP has no method and no path to show.
    let unread = request.method.as_str() == "-";
    let path = request.uri.path_and_query().filter(|_| !unread).map_or("", |p| p.as_str());
    let method = if unread { "" } else { request.method.as_str() };
    let facts = Exchange {
        ctx,
        stage: Stage::Response(code),
        scheme: edge::scheme(ctx).as_str(),
        method,
        path,
        authority: &ctx.authority,
        headers: Some(&request.headers),
    };
    let entry = Entry {
        start: ctx.start_time,
        duration,
        method,
        path,
        upstream_path: ctx.upstream_path.as_ref().map_or(path, PathAndQuery::as_str),
        authority: ctx.upstream_authority.as_deref().unwrap_or(&ctx.authority),
        protocol: match request.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        response_code: code,
        flags: ctx.flags,
        details: &ctx.details,
        termination: "",
        transport_failure: ctx.transport_failure.as_deref().unwrap_or_default(),
        bytes_received: received,
        bytes_sent: sent,
        request: &request.headers,
        response: response.map(|r| &r.headers),
        upstream_host: ctx.upstream_host.as_ref(),
        upstream_cluster: cluster.map_or("", |c| c.name.as_str()),
        upstream_local: ctx.upstream_local,
        downstream_local: connection.map(|c| c.local),
        // Envoy shows the client that trusted proxies name, with no port.
        downstream_remote: match ctx.forwarded.and_then(|forwarded| forwarded.client) {
            Some(client) => Some(SocketAddr::new(client, 0)),
            None => connection.map(|c| c.peer),
        },
        server_name: connection.and_then(|c| c.sni.as_deref()).unwrap_or_default(),
        route_name: ctx.route.as_deref().and_then(|r| r.origin.name.as_deref()).unwrap_or_default(),
        more: More {
            facts: Some(&facts),
            scheme: facts.scheme,
            mtls: connection.is_some_and(|c| c.client.is_some()),
            grpc_status: ctx.grpc_status,
            until_response: ctx.until_response,
        },
    };
    if let Some(labels) = labels {
        metrics.istio.record_with(&target, &sample, labels.of(&entry));
    }
    self::log(log.map(|log| &**log), logs, (port, ctx.side()), &entry);
    if let Some(active) = traced {
        trace::finish(*active, &entry, ctx);
    }
}

/// Writes one line: where the process was told to, and else where the configuration says.
pub(super) fn log(own: Option<&AccessLog>, logs: &Logs, (port, side): (u16, Side), entry: &Entry<'_>) {
    match own {
        Some(own) => own.log(entry),
        None if logs.are_for(port, side) => logs.log(side, entry),
        None => {}
    }
}

/// The way that a request or a connection took, as far as it came.
#[derive(Clone, Copy, Default)]
pub(super) struct Way<'w> {
    pub(super) cluster: Option<&'w Arc<Cluster>>,
    /// Tried last.
    pub(super) endpoint: Option<&'w Arc<EndpointState>>,
    /// Names in the certificates of both ends.
    pub(super) principals: Option<&'w Arc<Principals>>,
}

impl<'w> Way<'w> {
    pub(super) fn of(ctx: &'w Ctx) -> Self {
        let (cluster, endpoint) = (ctx.cluster.as_ref().or_else(|| meant(ctx)), ctx.endpoint.as_ref());
        Self { cluster, endpoint, principals: ctx.principals.as_ref() }
    }
}

/// The port of the workload that a request is for which got nowhere, as one that was refused. (Istio knows of a rule's cluster as soon as it
/// knows of the rule; which one of several has to be drawn.)
fn meant(ctx: &Ctx) -> Option<&Arc<Cluster>> {
    let forward = ctx.forward().filter(|_| ctx.side() == Side::Server)?;
    ctx.snapshot.clusters.get(&forward.destinations.first()?.cluster)
}

/// Where it is counted.
pub(super) fn target(metrics: &IstioMetrics, way: Way<'_>) -> Arc<Target> {
    match (way.cluster, way.endpoint, way.principals) {
        (Some(cluster), Some(endpoint), Some(names)) => {
            endpoint.secured_target(&cluster.spec, names, metrics)
        }
        (Some(cluster), Some(endpoint), None) => endpoint.target(&cluster.spec, metrics).clone(),
        (Some(cluster), None, Some(names)) => {
            metrics.workload(&cluster.spec, &Workload::unknown(), (**names).clone())
        }
        (Some(cluster), None, None) => cluster.target(metrics).clone(),
        (None, ..) => metrics.nowhere().clone(),
    }
}

/// Bytes of a header block as HTTP/1 writes it.
fn size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(n, v)| (n.as_str().len() + v.len() + 4) as u64).sum()
}

//! The spans of a request that is over: one of the gateway as a server, and one for each attempt as a client.
//!
//! Invariant: attributes are those that Istio's Envoy gives (`Tracing::HttpTracerUtility`), under its names and as texts, and
//! OpenTelemetry's for HTTP beside them. What a client sends is bounded.

use super::{
    Active, CLIENT_TRACE_ID, Tracer,
    context::{Format, SpanId, TRACESTATE},
    span::{Attributes, Kind, Span, cut},
};
use crate::telemetry::{access_log::Entry, flags::Flags};
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use routing::cluster::{Address, ClusterName};
use std::{net::SocketAddr, time::SystemTime};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A request that is over.
pub struct Exchange<'a> {
    /// What the access log knows of it.
    pub entry: &'a Entry<'a>,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Whoever sent it, also where others are named as the client.
    pub peer: Option<SocketAddr>,
    /// Istio's name for what the rule does (`host:port/path`), where there is one.
    pub operation: Option<HeaderValue>,
    /// What the rule asks of the path, where it does.
    pub route: Option<&'a str>,
    /// The call is gRPC's.
    pub grpc: bool,
    /// Its status, where known.
    pub grpc_status: Option<u8>,
}

/// One attempt to have a request answered.
pub struct Attempt {
    /// When it began.
    pub start: SystemTime,
    /// Who was asked.
    pub address: Address,
    /// Of which cluster.
    pub cluster: ClusterName,
    /// What came of it; `None`: it went on to the end of the request.
    pub outcome: Option<Outcome>,
    /// Version of HTTP that was answered in.
    pub version: Option<Version>,
    /// Status of the answer.
    pub status: Option<u16>,
}

/// How an attempt ended before the request did.
pub struct Outcome {
    /// When.
    pub end: SystemTime,
    /// Response flags of this attempt.
    pub flags: Flags,
    /// Envoy's word for why.
    pub reason: String,
}

/// All spans, the server's last.
pub(super) fn spans(active: Active, exchange: &Exchange<'_>) -> Vec<Span> {
    let Active { tracer, trace, parent, span: id, attempts, .. } = active;
    let end = exchange.entry.start + exchange.entry.duration;
    let state = text_of(exchange.entry.request, &TRACESTATE);
    let of =
        |id: SpanId, parent, kind, name, (start, end): (SystemTime, SystemTime), attributes, failed| Span {
            trace,
            id,
            parent,
            remote_parent: kind == Kind::Server && parent.is_some(),
            state: cut(&state, 512).to_owned(),
            name,
            kind,
            start,
            end,
            attributes,
            failed,
        };
    let mut spans = Vec::with_capacity(attempts.len() + 1);
    for (retries, (own, attempt)) in attempts.into_iter().enumerate() {
        let until = attempt.outcome.as_ref().map_or(end, |outcome| outcome.end);
        let failed = attempt.status.is_none_or(|status| status >= 500);
        let name = format!("router {} egress", attempt.cluster);
        let mut attributes = client(&attempt, exchange, retries, failed);
        tracer.tags.apply(&mut attributes, exchange.entry.request, exchange.entry);
        spans.push(of(own, Some(id), Kind::Client, name, (attempt.start, until), attributes, failed));
    }
    let failed = exchange.entry.response_code == 0 || exchange.entry.response_code >= 500;
    let name = match &exchange.operation {
        // Envoy, where no rule gives a name; what goes through a gateway goes out.
        Some(operation) => String::from_utf8_lossy(operation.as_bytes()).into_owned(),
        None if tracer.format == Format::W3c => format!("egress {}", exchange.entry.authority),
        None => exchange.entry.authority.to_owned(),
    };
    let mut attributes = server(&tracer, exchange, failed);
    tracer.tags.apply(&mut attributes, exchange.entry.request, exchange.entry);
    spans.push(of(id, parent, Kind::Server, name, (exchange.entry.start, end), attributes, failed));
    spans
}

fn server(tracer: &Tracer, exchange: &Exchange<'_>, failed: bool) -> Attributes {
    let (entry, mut a) = (exchange.entry, Attributes::new());
    let path = cut(entry.path, tracer.max_path);
    let agent = text_of(entry.request, &header::USER_AGENT);
    a.text("node_id", &tracer.node);
    a.text("guid:x-request-id", text_of(entry.request, &REQUEST_ID));
    a.text("guid:x-client-trace-id", text_of(entry.request, &CLIENT_TRACE_ID));
    a.text("http.url", format!("{}://{}{path}", exchange.scheme, entry.authority));
    a.text("http.method", entry.method);
    a.text("downstream_cluster", "-");
    a.text_or_dash("user_agent", &agent);
    a.text("http.protocol", entry.protocol);
    a.text("peer.address", exchange.peer.map(|peer| peer.ip().to_string()).unwrap_or_default());
    if exchange.grpc {
        a.text("grpc.path", path);
        a.text("grpc.authority", entry.authority);
        a.text("grpc.content_type", text_of(entry.request, &header::CONTENT_TYPE));
        a.text("grpc.timeout", text_of(entry.request, &GRPC_TIMEOUT));
        a.text("grpc.status_code", exchange.grpc_status.map(|status| status.to_string()).unwrap_or_default());
        a.text("grpc.message", entry.response.map(|r| text_of(r, &GRPC_MESSAGE)).unwrap_or_default());
    }
    a.text("request_size", entry.bytes_received.to_string());
    a.text("response_size", entry.bytes_sent.to_string());
    a.text("component", "proxy");
    a.text("upstream_cluster", entry.upstream_cluster);
    a.text("upstream_cluster.name", entry.upstream_cluster);
    a.text("http.status_code", entry.response_code.to_string());
    a.text("response_flags", entry.flags.to_string());
    if failed {
        a.text("error", "true");
    }
    // OpenTelemetry's semantic conventions for HTTP servers.
    let (target, query) = path.split_once('?').map_or((path, ""), |(target, query)| (target, query));
    a.text("http.request.method", entry.method);
    a.text("url.scheme", exchange.scheme);
    a.text("url.path", target);
    a.text("url.query", query);
    authority(&mut a, entry.authority);
    a.text("network.protocol.version", entry.protocol.strip_prefix("HTTP/").unwrap_or_default());
    if let Some(peer) = exchange.peer {
        a.text("network.peer.address", peer.ip().to_string());
        a.number("network.peer.port", peer.port());
    }
    a.text("client.address", entry.downstream_remote.map(|c| c.ip().to_string()).unwrap_or_default());
    a.text("user_agent.original", agent);
    a.text("http.route", exchange.route.unwrap_or_default());
    status(&mut a, Some(entry.response_code).filter(|code| *code > 0), failed);
    a
}

fn client(attempt: &Attempt, exchange: &Exchange<'_>, retries: usize, failed: bool) -> Attributes {
    let (entry, mut a) = (exchange.entry, Attributes::new());
    let address = attempt.address.to_string();
    let protocol = match attempt.version {
        None => "-",
        Some(Version::HTTP_2) => "HTTP/2",
        Some(Version::HTTP_10) => "HTTP/1.0",
        Some(_) => "HTTP/1.1",
    };
    let flags = attempt.outcome.as_ref().map_or(entry.flags, |outcome| outcome.flags);
    a.text("http.protocol", protocol);
    a.text("upstream_address", &address);
    a.text("peer.address", &address);
    a.text("component", "proxy");
    a.text("upstream_cluster", attempt.cluster.as_str());
    a.text("upstream_cluster.name", attempt.cluster.as_str());
    a.text("http.status_code", attempt.status.unwrap_or(0).to_string());
    a.text("response_flags", flags.to_string());
    if retries > 0 {
        a.text("retry.count", retries.to_string());
        a.number("http.request.resend_count", retries);
    }
    if failed {
        a.text("error", "true");
        let reason = attempt.outcome.as_ref().map(|outcome| outcome.reason.as_str());
        a.text("error.reason", reason.unwrap_or_default());
    }
    // OpenTelemetry's semantic conventions for HTTP clients.
    a.text("http.request.method", entry.method);
    authority(&mut a, entry.authority);
    if let Address::Ip(peer) = attempt.address {
        a.text("network.peer.address", peer.ip().to_string());
        a.number("network.peer.port", peer.port());
    }
    a.text("network.protocol.version", protocol.strip_prefix("HTTP/").unwrap_or_default());
    status(&mut a, attempt.status, failed);
    a
}

fn status(a: &mut Attributes, status: Option<u16>, failed: bool) {
    if let Some(status) = status {
        a.number("http.response.status_code", status);
    }
    if failed {
        a.text("error.type", status.map_or_else(|| "_OTHER".to_owned(), |status| status.to_string()));
    }
}

fn authority(a: &mut Attributes, authority: &str) {
    let host = routing::host::without_port(authority);
    a.text("server.address", host);
    let port = authority.get(host.len()..).and_then(|rest| rest.strip_prefix(':'));
    if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
        a.number("server.port", port);
    }
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

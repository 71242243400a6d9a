//! The names of operators, as Envoy 1.40 takes them in header values, and what each stands for here.
//!
//! Invariant: a name that Envoy does not take, or that stands for something this gateway does not know, is refused and
//! never guessed at. What only a filter could know, and no filter is there, is nothing: Envoy makes no header of it either.

use super::{Fact, Field, GrpcForm, Operator, PathPart};
use http::HeaderName;

/// What a command stands for.
pub(super) enum Meaning {
    /// Something to ask for.
    Operator(Operator),
    /// The same for every exchange: what Envoy counts has not begun when heads are made.
    Always(&'static str),
    /// Nothing, ever.
    Nothing,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What may have a length behind it (Envoy: the others "do not take any parameters or length").
const CUT: [&str; 9] = [
    "REQ",
    "RESP",
    "TRAILER",
    "DYNAMIC_METADATA",
    "FILTER_STATE",
    "UPSTREAM_FILTER_STATE",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "PATH",
];

/// The meaning of `NAME(ARGUMENT)`, where `cut` says that a length follows.
pub(super) fn meaning(name: &str, argument: Option<&str>, cut: bool) -> Option<Meaning> {
    if cut && !CUT.contains(&name) {
        return None;
    }
    match argument {
        Some(argument) => with_argument(name, argument),
        None => alone(name),
    }
}

fn with_argument(name: &str, argument: &str) -> Option<Meaning> {
    let operator = match name {
        "REQ" => {
            let (first, second) = alternatives(argument, field)?;
            Operator::Request(first, second)
        }
        "RESP" => {
            let (first, second) = alternatives(argument, response_field)?;
            Operator::Response(first, second)
        }
        "QUERY_PARAM" if !argument.is_empty() => Operator::Query(Some(argument.into())),
        "PATH" => path(argument)?,
        "START_TIME" | "START_TIME_LOCAL" if argument.is_empty() => return alone(name),
        "START_TIME" | "START_TIME_LOCAL" => Operator::Fact(Fact::StartTime(Some(argument.into()))),
        "EMIT_TIME" | "EMIT_TIME_LOCAL" if argument.is_empty() => return alone(name),
        "EMIT_TIME" | "EMIT_TIME_LOCAL" => Operator::Fact(Fact::EmitTime(Some(argument.into()))),
        "GRPC_STATUS" => Operator::Fact(Fact::GrpcStatus(match argument {
            "CAMEL_STRING" => GrpcForm::Camel,
            "SNAKE_STRING" => GrpcForm::Snake,
            "NUMBER" => GrpcForm::Number,
            _ => return None,
        })),
        // Nothing has come when heads are made.
        "TRAILER" => {
            alternatives(argument, header)?;
            return Some(Meaning::Nothing);
        }
        "DYNAMIC_METADATA" | "FILTER_STATE" | "UPSTREAM_FILTER_STATE" | "PER_REQUEST_STATE"
            if !argument.is_empty() =>
        {
            return Some(Meaning::Nothing);
        }
        // Istio says things of clusters and routes under its own name, which are not known here.
        "CLUSTER_METADATA" | "UPSTREAM_METADATA" | "METADATA"
            if !argument.is_empty() && !argument.contains("istio") =>
        {
            return Some(Meaning::Nothing);
        }
        _ => return None,
    };
    Some(Meaning::Operator(operator))
}

fn alone(name: &str) -> Option<Meaning> {
    // What is local is in UTC, the zone of every container that does not say otherwise.
    const LOCAL: &str = "%Y-%m-%dT%H:%M:%S.%3f+0000";
    let fact = match name {
        "START_TIME" => Fact::StartTime(None),
        "START_TIME_LOCAL" => Fact::StartTime(Some(LOCAL.into())),
        "EMIT_TIME" => Fact::EmitTime(None),
        "EMIT_TIME_LOCAL" => Fact::EmitTime(Some(LOCAL.into())),
        "PROTOCOL" => Fact::Protocol,
        "UPSTREAM_PROTOCOL" => Fact::UpstreamProtocol,
        "RESPONSE_CODE" => Fact::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Fact::ResponseCodeDetails,
        "RESPONSE_FLAGS" => Fact::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Fact::ResponseFlagsLong,
        "GRPC_STATUS" => Fact::GrpcStatus(GrpcForm::Camel),
        "GRPC_STATUS_NUMBER" => Fact::GrpcStatus(GrpcForm::Number),
        "BYTES_RECEIVED" => Fact::BytesReceived,
        "ROUTE_NAME" => Fact::RouteName,
        "REQUESTED_SERVER_NAME" => Fact::RequestedServerName,
        "HOSTNAME" => Fact::Hostname,
        "UNIQUE_ID" => Fact::UniqueId,
        "DOWNSTREAM_REMOTE_ADDRESS" => Fact::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Fact::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_REMOTE_PORT" => Fact::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Fact::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Fact::DownstreamDirectRemoteAddressWithoutPort,
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Fact::DownstreamDirectRemotePort,
        "DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => Fact::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Fact::DownstreamLocalAddressWithoutPort
        }
        "DOWNSTREAM_LOCAL_PORT" | "DOWNSTREAM_DIRECT_LOCAL_PORT" => Fact::DownstreamLocalPort,
        "DOWNSTREAM_TLS_VERSION" => Fact::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Fact::DownstreamTlsCipher,
        "DOWNSTREAM_PEER_SUBJECT" => Fact::DownstreamPeerSubject,
        "DOWNSTREAM_PEER_ISSUER" => Fact::DownstreamPeerIssuer,
        "DOWNSTREAM_PEER_SERIAL" => Fact::DownstreamPeerSerial,
        "DOWNSTREAM_PEER_FINGERPRINT_256" => Fact::DownstreamPeerFingerprint256,
        "DOWNSTREAM_PEER_CERT" => Fact::DownstreamPeerCert,
        "DOWNSTREAM_PEER_URI_SAN" => Fact::DownstreamPeerUriSan,
        "DOWNSTREAM_PEER_DNS_SAN" => Fact::DownstreamPeerDnsSan,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Fact::UpstreamHost,
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Fact::UpstreamHostWithoutPort,
        "UPSTREAM_REMOTE_PORT" => Fact::UpstreamPort,
        "UPSTREAM_LOCAL_ADDRESS" => Fact::UpstreamLocalAddress,
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Fact::UpstreamLocalAddressWithoutPort,
        "UPSTREAM_LOCAL_PORT" => Fact::UpstreamLocalPort,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Fact::UpstreamCluster,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Fact::UpstreamRequestAttemptCount,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Fact::UpstreamTransportFailureReason,
        "UPSTREAM_HOSTS_ATTEMPTED" => Fact::UpstreamHostsAttempted,
        "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => Fact::UpstreamHostsAttemptedWithoutPort,
        "UPSTREAM_TLS_VERSION" => Fact::UpstreamTlsVersion,
        "UPSTREAM_TLS_CIPHER" => Fact::UpstreamTlsCipher,
        "CONNECTION_ID" => Fact::ConnectionId,
        "DURATION" => Fact::Duration,
        "RESPONSE_DURATION" => Fact::ResponseDuration,
        "QUERY_PARAMS" => return Some(Meaning::Operator(Operator::Query(None))),
        "PATH" => return path("WQ").map(Meaning::Operator),
        // Envoy: that of its request id.
        "STREAM_ID" => return Some(Meaning::Operator(Operator::Request(Field::Header(REQUEST_ID), None))),
        "BYTES_SENT"
        | "DOWNSTREAM_WIRE_BYTES_SENT"
        | "DOWNSTREAM_HEADER_BYTES_SENT"
        | "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT"
        | "RESPONSE_TRAILERS_BYTES" => return Some(Meaning::Always("0")),
        "ACCESS_LOG_TYPE" => return Some(Meaning::Always("NotSet")),
        "DOWNSTREAM_DETECTED_CLOSE_TYPE" => return Some(Meaning::Always("Normal")),
        // Of an end that has not come yet, and of filters, traces and protocols that are not there.
        "CONNECTION_TERMINATION_DETAILS"
        | "RESPONSE_TX_DURATION"
        | "ROUNDTRIP_DURATION"
        | "DOWNSTREAM_TRANSPORT_FAILURE_REASON"
        | "DOWNSTREAM_LOCAL_CLOSE_REASON"
        | "UPSTREAM_LOCAL_CLOSE_REASON"
        | "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID"
        | "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID"
        | "VIRTUAL_CLUSTER_NAME"
        | "LOCAL_REPLY_BODY"
        | "CUSTOM_FLAGS"
        | "TRACE_ID"
        | "SPAN_ID"
        | "TLS_JA3_FINGERPRINT"
        | "TLS_JA4_FINGERPRINT" => return Some(Meaning::Nothing),
        _ => return None,
    };
    Some(Meaning::Operator(Operator::Fact(fact)))
}

/// `a?b`; no third, and an empty second is none.
fn alternatives<T>(argument: &str, one: impl Fn(&str) -> Option<T>) -> Option<(T, Option<T>)> {
    match argument.split_once('?') {
        None => Some((one(argument)?, None)),
        Some((first, "")) => Some((one(first)?, None)),
        Some((first, second)) => Some((one(first)?, Some(one(second)?))),
    }
}

fn header(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}

fn field(name: &str) -> Option<Field> {
    Some(match name.to_ascii_lowercase().as_str() {
        ":method" => Field::Method,
        ":scheme" => Field::Scheme,
        ":authority" | "host" => Field::Authority,
        ":path" => Field::Path,
        _ => Field::Header(header(name)?),
    })
}

/// `None`: the status.
fn response_field(name: &str) -> Option<Option<HeaderName>> {
    if name.eq_ignore_ascii_case(":status") { Some(None) } else { header(name).map(Some) }
}

/// `PATH(WQ|NQ[:ORIG|PATH|ORIG_OR_PATH])`: with or without query, and whose.
fn path(argument: &str) -> Option<Operator> {
    let (query, whose) = argument.split_once(':').unwrap_or((argument, "ORIG_OR_PATH"));
    let with_query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        _ => return None,
    };
    let part = match whose {
        "ORIG" => PathPart::Original,
        "PATH" => PathPart::Current,
        "ORIG_OR_PATH" => PathPart::OriginalOrCurrent,
        _ => return None,
    };
    Some(Operator::Path(part, with_query))
}

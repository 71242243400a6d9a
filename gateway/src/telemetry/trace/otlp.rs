//! Spans as OTLP's protobuf (opentelemetry-proto: `ExportTraceServiceRequest`).
//!
//! Invariant: one resource, the gateway, and one scope a message. What a collector says of spans that it did not take is read.

use super::span::{Kind, Span, Value};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceResponse,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Proto, Status, span::SpanKind, status::StatusCode},
};
use prost::Message;
use std::time::{SystemTime, UNIX_EPOCH};

/// Path of the service in gRPC.
pub(super) const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Keys of fields (opentelemetry-proto): their numbers, and that a length is before them.
const REQUEST_RESOURCE_SPANS: u8 = 1 << 3 | 2;
const RESOURCE_SPANS_SCOPE_SPANS: u8 = 2 << 3 | 2;
const SCOPE_SPANS_SPANS: u8 = 2 << 3 | 2;
/// Flags of a span (opentelemetry-proto: `SpanFlags`): sampled; the parent's place is known; it is another process.
const SAMPLED: u32 = 1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// One message for a batch of requests' spans.
///
/// A message is written into the one around it when it is done: measured in one go, each of its parts is measured again at every level.
pub(super) fn encode(resource: &[(String, String)], spans: Vec<Span>) -> Bytes {
    let attributes =
        resource.iter().map(|(key, value)| attribute(key.clone(), text(value.clone()))).collect();
    let scope = InstrumentationScope {
        name: "limen".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let mut scope_spans = ScopeSpans { scope: Some(scope), ..ScopeSpans::default() }.encode_to_vec();
    for span in spans {
        append(SCOPE_SPANS_SPANS, &proto(span).encode_to_vec(), &mut scope_spans);
    }
    let resource = Resource { attributes, ..Resource::default() };
    let mut resource_spans =
        ResourceSpans { resource: Some(resource), ..ResourceSpans::default() }.encode_to_vec();
    append(RESOURCE_SPANS_SCOPE_SPANS, &scope_spans, &mut resource_spans);
    let mut request = Vec::with_capacity(resource_spans.len() + 8);
    append(REQUEST_RESOURCE_SPANS, &resource_spans, &mut request);
    request.into()
}

/// Adds a field to the end of a message, where protobuf takes fields in any order.
fn append(key: u8, field: &[u8], message: &mut Vec<u8>) {
    message.push(key);
    // A list of bytes takes all that comes.
    let written = prost::encode_length_delimiter(field.len(), message);
    debug_assert!(written.is_ok());
    message.extend_from_slice(field);
}

/// How many spans of a batch a collector did not take.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let said = ExportTraceServiceResponse::decode(answer).ok().and_then(|said| said.partial_success);
    said.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or(0)
}

fn proto(span: Span) -> Proto {
    let remote = if span.remote_parent { IS_REMOTE } else { 0 };
    Proto {
        trace_id: span.trace.to_bytes().to_vec(),
        span_id: span.id.to_bytes().to_vec(),
        trace_state: span.state,
        parent_span_id: span.parent.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
        name: span.name,
        kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, any(value))).collect(),
        status: span.failed.then(|| Status { code: StatusCode::Error.into(), ..Status::default() }),
        ..Proto::default()
    }
}

/// Nanoseconds since 1970.
pub(crate) fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

pub(crate) fn attribute(key: impl Into<String>, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

pub(crate) fn text(value: String) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value)) }
}

fn any(value: Value) -> AnyValue {
    match value {
        Value::Text(value) => text(value),
        Value::Number(number) => AnyValue { value: Some(any_value::Value::IntValue(number)) },
    }
}

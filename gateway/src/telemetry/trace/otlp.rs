//! Spans as OTLP's protobuf (opentelemetry-proto: `ExportTraceServiceRequest`).
//!
//! Invariant: one resource, the gateway, and one scope a message. What a collector says of spans that it did not take is read.

use super::span::{Kind, Span, Value};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Proto, Status, span::SpanKind, status::StatusCode},
};
use prost::Message;
use std::time::{SystemTime, UNIX_EPOCH};

/// Path of the service in gRPC.
pub(super) const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Flags of a span (opentelemetry-proto: `SpanFlags`): sampled; the parent's place is known; it is another process.
const SAMPLED: u32 = 1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// One message for a batch of requests' spans.
pub(super) fn encode<'s>(resource: &[(String, String)], spans: impl Iterator<Item = &'s Span>) -> Bytes {
    let attributes = resource.iter().map(|(key, value)| attribute(key, text(value))).collect();
    let scope = InstrumentationScope {
        name: "limen".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = spans.map(proto).collect();
    let scope_spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    let resource = Resource { attributes, ..Resource::default() };
    let resource_spans = vec![ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// How many spans of a batch a collector did not take.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let said = ExportTraceServiceResponse::decode(answer).ok().and_then(|said| said.partial_success);
    said.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or(0)
}

fn proto(span: &Span) -> Proto {
    let remote = if span.remote_parent { IS_REMOTE } else { 0 };
    Proto {
        trace_id: span.trace.to_bytes().to_vec(),
        span_id: span.id.to_bytes().to_vec(),
        trace_state: span.state.clone(),
        parent_span_id: span.parent.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
        name: span.name.clone(),
        kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span.attributes.iter().map(|(key, value)| attribute(key, any(value))).collect(),
        status: span.failed.then(|| Status { code: StatusCode::Error.into(), ..Status::default() }),
        ..Proto::default()
    }
}

/// Nanoseconds since 1970.
pub(crate) fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

pub(crate) fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

pub(crate) fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }
}

fn any(value: &Value) -> AnyValue {
    match value {
        Value::Text(value) => text(value),
        Value::Number(number) => AnyValue { value: Some(any_value::Value::IntValue(*number)) },
    }
}

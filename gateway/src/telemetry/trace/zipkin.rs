//! Spans as Zipkin's JSON, version 2 (zipkin-api: `zipkin2-api.yaml`).
//!
//! Invariant: times are whole microseconds, and a span takes at least one; every tag is a text.

use super::span::{Kind, Span, Value};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Where spans come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) service_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<IpAddr>,
}

impl Endpoint {
    pub(super) fn new(service_name: String, ip: Option<IpAddr>) -> Self {
        Self { service_name, ipv4: ip.filter(IpAddr::is_ipv4), ipv6: ip.filter(IpAddr::is_ipv6) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'s> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    kind: &'static str,
    name: &'s str,
    timestamp: u128,
    duration: u128,
    local_endpoint: &'s Endpoint,
    tags: Tags<'s>,
}

struct Tags<'s>(&'s Span);

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tags = serializer.serialize_map(None)?;
        for (name, value) in self.0.attributes.iter() {
            match value {
                Value::Text(text) => tags.serialize_entry(name, text)?,
                Value::Number(number) => tags.serialize_entry(name, &number.to_string())?,
            }
        }
        tags.end()
    }
}

/// One list for a batch of requests' spans.
pub(super) fn encode(from: &Endpoint, spans: &[Span]) -> Bytes {
    let micros = |d: Duration| d.as_micros();
    let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let list: Vec<Json<'_>> = spans
        .iter()
        .map(|span| Json {
            trace_id: span.trace.text(),
            id: span.id.text(),
            parent_id: span.parent.map(super::context::SpanId::text),
            kind: match span.kind {
                Kind::Server => "SERVER",
                Kind::Client => "CLIENT",
            },
            name: &span.name,
            timestamp: micros(since(span.start)),
            duration: micros(span.end.duration_since(span.start).unwrap_or_default()).max(1),
            local_endpoint: from,
            tags: Tags(span),
        })
        .collect();
    // Texts and numbers: there is nothing in them that JSON could not hold.
    serde_json::to_vec(&list).unwrap_or_default().into()
}

//! Operators that few formats have.
//!
//! Invariant: a name that Envoy does not take, or that stands for something this gateway does not know, is no operator: formats that have
//! it are refused. Values are made anew for each line.

use super::format::Entry;
use http::{HeaderMap, HeaderName};
use routing::action::headers::format::{Fact, GrpcForm, Operator as Known, PathPart};
use std::time::Duration;

/// One of them.
#[derive(Clone, Debug)]
pub(super) enum Rare {
    /// Of those that header values have.
    Fact(Fact),
    /// The first value of a parameter; without a name, the query as a whole.
    Query(Option<Box<str>>),
    /// The path, with its query or without.
    Path(PathPart, bool),
    /// Id of the trace.
    Trace,
    /// Id of the span.
    Span,
    /// Bytes of a head as HTTP/1 writes it.
    Headers(Head),
    /// Bytes of a head and its body.
    Message(Head),
    UntilResponse,
    AfterResponse,
    /// The same on every line.
    Fixed(String),
}

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    Request,
    Response,
}

/// The operator that is written `NAME(ARGUMENT)`.
pub(super) fn rare(name: &str, argument: Option<&str>) -> Option<Rare> {
    let rare = match (name, argument) {
        ("TRACE_ID", None) => Rare::Trace,
        ("SPAN_ID", None) => Rare::Span,
        ("REQUEST_HEADERS_BYTES" | "DOWNSTREAM_HEADER_BYTES_RECEIVED", None) => Rare::Headers(Head::Request),
        ("RESPONSE_HEADERS_BYTES" | "DOWNSTREAM_HEADER_BYTES_SENT", None) => Rare::Headers(Head::Response),
        ("DOWNSTREAM_WIRE_BYTES_RECEIVED", None) => Rare::Message(Head::Request),
        ("DOWNSTREAM_WIRE_BYTES_SENT", None) => Rare::Message(Head::Response),
        ("RESPONSE_DURATION", None) => Rare::UntilResponse,
        ("RESPONSE_TX_DURATION", None) => Rare::AfterResponse,
        ("ENVIRONMENT", Some(variable)) => {
            let (name, limit) = match variable.split_once(':') {
                Some((name, limit)) => (name, limit.parse().ok()?),
                None => (variable, usize::MAX),
            };
            let value = std::env::var(name).unwrap_or_default();
            Rare::Fixed(value.chars().take(limit).collect())
        }
        // Istio's filters that are not there; what they would say is not known.
        ("CLUSTER_METADATA" | "UPSTREAM_METADATA" | "METADATA" | "UPSTREAM_FILTER_STATE", Some(_)) => {
            Rare::Fixed(String::new())
        }
        ("VIRTUAL_CLUSTER_NAME" | "CUSTOM_FLAGS", None) => Rare::Fixed(String::new()),
        ("ACCESS_LOG_TYPE", None) => Rare::Fixed("DownstreamEnd".to_owned()),
        // Without an argument Envoy writes a name where a header value would.
        ("GRPC_STATUS", None) => Rare::Fact(Fact::GrpcStatus(GrpcForm::Camel)),
        _ => match Known::of(name, argument)? {
            Known::Fact(fact) => Rare::Fact(fact),
            Known::Query(name) => Rare::Query(name),
            Known::Path(part, query) => Rare::Path(part, query),
            Known::Request(..) | Known::Response(..) => return None,
        },
    };
    Some(rare)
}

impl Rare {
    /// The value; `None`: it is not known.
    pub(super) fn value(&self, e: &Entry<'_>) -> Option<String> {
        let value = match self {
            Rare::Fact(fact) => {
                let mut out = Vec::new();
                e.more.facts?.fact(fact, &mut out);
                String::from_utf8_lossy(&out).into_owned()
            }
            Rare::Query(name) => {
                let (_, query) = e.path.split_once('?')?;
                match name {
                    None => query.to_owned(),
                    Some(name) => parameter(query, name)?.to_owned(),
                }
            }
            Rare::Path(part, with_query) => {
                let rewritten = !e.upstream_path.is_empty() && e.upstream_path != e.path;
                let path = match part {
                    PathPart::Original if !rewritten => return None,
                    PathPart::Current if rewritten => e.upstream_path,
                    PathPart::Original | PathPart::Current | PathPart::OriginalOrCurrent => e.path,
                };
                if *with_query { path } else { path.split('?').next().unwrap_or_default() }.to_owned()
            }
            Rare::Trace => context(e.request)?.0,
            Rare::Span => context(e.request)?.1,
            Rare::Headers(head) => headers(e, *head).to_string(),
            Rare::Message(head) => {
                let body = match head {
                    Head::Request => e.bytes_received,
                    Head::Response => e.bytes_sent,
                };
                (headers(e, *head) + body).to_string()
            }
            Rare::UntilResponse => millis(e.more.until_response?),
            Rare::AfterResponse => millis(e.duration.saturating_sub(e.more.until_response?)),
            Rare::Fixed(text) => text.clone(),
        };
        (!value.is_empty()).then_some(value)
    }
}

fn millis(d: Duration) -> String {
    d.as_millis().to_string()
}

/// The value of a parameter, as it is written.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// Ids of the trace and the span that the request carries on: the gateway's own.
fn context(headers: &HeaderMap) -> Option<(String, String)> {
    const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
    const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
    const B3: HeaderName = HeaderName::from_static("b3");
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let owned = |trace: &str, span: &str| Some((trace.to_owned(), span.to_owned()));
    if let Some(value) = text(&TRACEPARENT) {
        let mut parts = value.split('-').skip(1);
        return owned(parts.next()?, parts.next()?);
    }
    if let Some(value) = text(&B3) {
        let mut parts = value.split('-');
        return owned(parts.next()?, parts.next()?);
    }
    owned(text(&B3_TRACE)?, text(&B3_SPAN)?)
}

fn headers(e: &Entry<'_>, head: Head) -> u64 {
    let map = match head {
        Head::Request => Some(e.request),
        Head::Response => e.response,
    };
    let size = |map: &HeaderMap| map.iter().map(|(n, v)| (n.as_str().len() + v.len() + 4) as u64).sum();
    map.map_or(0, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access_log::{Format, format::More};

    #[test]
    fn rare_operators_are_known_too() {
        let request: HeaderMap =
            [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("a", "bc")]
                .into_iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
                .collect();
        let more = More { until_response: Some(Duration::from_millis(3)), ..More::default() };
        let entry = Entry {
            path: "/a?b=c&d=",
            upstream_path: "/x?b=c&d=",
            bytes_received: 10,
            duration: Duration::from_millis(5),
            more,
            ..Entry::empty(&request)
        };
        for (format, want) in [
            ("%TRACE_ID% %SPAN_ID%", "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331"),
            ("%QUERY_PARAM(b)% %QUERY_PARAM(no)% %QUERY_PARAMS%", "c - b=c&d="),
            ("%PATH(NQ:PATH)% %PATH(WQ:ORIG)% %PATH(NQ)%", "/x /a?b=c&d= /a"),
            ("%RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "3 2"),
            ("%REQUEST_HEADERS_BYTES% %DOWNSTREAM_WIRE_BYTES_RECEIVED%", "77 87"),
            ("%UPSTREAM_PROTOCOL% %ENVIRONMENT(NOT_THERE)%", "- -"),
            ("%DYNAMIC_METADATA(a:b)% %METADATA(ROUTE:a)%", "- -"),
        ] {
            let mut line = Vec::new();
            Format::value(format).unwrap().write(&entry, &mut line);
            assert_eq!(String::from_utf8(line).unwrap(), want, "{format}");
        }
        assert!(Format::value("%REQUEST_DURATION%").is_err(), "what is not known is refused");
    }
}

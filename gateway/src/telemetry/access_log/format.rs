//! Formats of a line: Envoy's command operators, compiled once.
//!
//! Invariant: a line is one line: control characters of a request are escaped, so that no client writes log lines of
//! its own. What is not known is `-`.

use super::{
    json::{Empty, Json},
    operator::{Operator, is_plain, operator_of, push},
};
use crate::telemetry::flags::Flags;
use config_model::mesh::provider::LogValue;
use http::HeaderMap;
use routing::{action::headers::format::Facts, cluster::Address};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

/// Istio's default text format.
pub(crate) const ISTIO_TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%",
);

/// Istio's JSON keys and what stands under each.
const ISTIO_JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// Everything a line may tell about one request.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// When the request began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Method.
    pub method: &'a str,
    /// Path and query as normalised, before any rewrite.
    pub path: &'a str,
    /// Path and query as sent upstream.
    pub upstream_path: &'a str,
    /// Authority as sent upstream, or as received.
    pub authority: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// Status sent; 0 when none was.
    pub response_code: u16,
    /// Response flags.
    pub flags: Flags,
    /// Envoy's word for where the response came from.
    pub details: &'a str,
    /// Why the client's connection was closed, where we did that.
    pub termination: &'a str,
    /// Why the connection to the upstream failed.
    pub transport_failure: &'a str,
    /// Bytes of the request body.
    pub bytes_received: u64,
    /// Bytes of the response body.
    pub bytes_sent: u64,
    /// Headers of the request, as the upstream gets them before rules change them.
    pub request: &'a HeaderMap,
    /// Headers of the response, as sent.
    pub response: Option<&'a HeaderMap>,
    /// Address of the endpoint.
    pub upstream_host: Option<&'a Address>,
    /// Name of the cluster.
    pub upstream_cluster: &'a str,
    /// Our end of the connection to the upstream.
    pub upstream_local: Option<SocketAddr>,
    /// Our end of the client's connection.
    pub downstream_local: Option<SocketAddr>,
    /// The client's end, as trusted.
    pub downstream_remote: Option<SocketAddr>,
    /// Name the client asked for in TLS.
    pub server_name: &'a str,
    /// Name of the route.
    pub route_name: &'a str,
    /// What few lines tell.
    pub more: More<'a>,
}

/// What few lines tell, and conditions ask for.
#[derive(Clone, Copy, Default)]
pub struct More<'a> {
    /// Everything that operators in header values stand for.
    pub facts: Option<&'a dyn Facts>,
    /// `http` or `https`; empty where it is neither.
    pub scheme: &'a str,
    /// Whether the client showed a certificate.
    pub mtls: bool,
    /// Status of a gRPC call, where known.
    pub grpc_status: Option<u8>,
    /// From the beginning of the request to that of the response.
    pub until_response: Option<Duration>,
}

impl std::fmt::Debug for More<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("More").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl<'a> Entry<'a> {
    /// An entry that knows nothing; for lines about connections, and to be filled in.
    #[must_use]
    pub fn empty(request: &'a HeaderMap) -> Self {
        Self {
            start: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            method: "",
            path: "",
            upstream_path: "",
            authority: "",
            protocol: "",
            response_code: 0,
            flags: Flags::default(),
            details: "",
            termination: "",
            transport_failure: "",
            bytes_received: 0,
            bytes_sent: 0,
            request,
            response: None,
            upstream_host: None,
            upstream_cluster: "",
            upstream_local: None,
            downstream_local: None,
            downstream_remote: None,
            server_name: "",
            route_name: "",
            more: More::default(),
        }
    }
}

/// Why a format cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` that opens nothing, or is never closed; `%%` is a literal one.
    #[error("`%` at byte {0} is not closed")]
    Unclosed(usize),
    /// An operator that is not known.
    #[error("unknown operator `%{0}%`")]
    Unknown(String),
    /// A header operator whose argument is not a header name.
    #[error("`{0}` is not a header name")]
    Header(String),
}

/// A compiled format.
#[derive(Clone, Debug)]
pub struct Format(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Text(Vec<Segment>, Quotes),
    Omitting(Vec<Segment>),
    Object(Json, Empty),
    Json(Vec<(&'static str, Operator)>),
}

/// How many quotes a line has of its own, the rest of which is plain; `None`: not so.
type Quotes = Option<usize>;

#[derive(Clone, Debug)]
pub(super) enum Segment {
    Literal(String),
    Operator(Operator),
}

impl Format {
    /// Istio's default.
    ///
    /// # Errors
    /// Never in practice: the text is a constant, and a test compiles it.
    pub fn istio_text() -> Result<Self, FormatError> {
        Self::parse(ISTIO_TEXT)
    }

    /// Istio's JSON: one object a line.
    ///
    /// # Errors
    /// Never in practice: the operators are constants, and a test compiles them.
    pub fn istio_json() -> Result<Self, FormatError> {
        let mut fields = Vec::with_capacity(ISTIO_JSON.len());
        for (key, text) in ISTIO_JSON {
            let operator = text.trim_matches('%');
            fields.push((key, operator_of(operator)?));
        }
        Ok(Self(Kind::Json(fields)))
    }

    /// A format of the user's; a line break is added where it has none at its end.
    ///
    /// # Errors
    /// [`FormatError`] where an operator is not known.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        Self::of(&format!("{text}\n"))
    }

    /// The same without the end of a line: for a value of its own.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn value(text: &str) -> Result<Self, FormatError> {
        Self::of(text)
    }

    /// A line in which what is not known is empty, and not `-`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn without_dashes(text: &str) -> Result<Self, FormatError> {
        Self::parse(text).map(|format| match format.0 {
            Kind::Text(segments, _) => Self(Kind::Omitting(segments)),
            other => Self(other),
        })
    }

    /// An object of the user's, one a line; `omit`: without what is not known.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn object(fields: &BTreeMap<String, LogValue>, omit: bool) -> Result<Self, FormatError> {
        let empty = if omit { Empty::Omit } else { Empty::Keep };
        Json::object(fields).map(|json| Self(Kind::Object(json, empty)))
    }

    /// A value of the user's as JSON, for a value of its own.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn json_value(value: &LogValue) -> Result<Self, FormatError> {
        Json::compile(value).map(|json| Self(Kind::Object(json, Empty::Keep)))
    }

    fn of(text: &str) -> Result<Self, FormatError> {
        let segments = segments(text)?;
        let quotes = quotes(&segments);
        Ok(Self(Kind::Text(segments, quotes)))
    }

    /// Appends the line of one request, line break included.
    pub fn write(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Text(segments, quotes) => {
                let from = out.len();
                // Nearly every line is plain, which one look at the whole of it tells; the others are written again.
                if let Some(quotes) = quotes {
                    text(segments, out, |operator, out| operator.plain(entry, out));
                    let line = out.get(from..).unwrap_or_default();
                    if is_plain(line.strip_suffix(b"\n").unwrap_or(line), *quotes) {
                        return;
                    }
                    out.truncate(from);
                }
                text(segments, out, |operator, out| operator.text(entry, out));
            }
            Kind::Omitting(segments) => {
                for segment in segments {
                    match segment {
                        Segment::Literal(text) => out.extend_from_slice(text.as_bytes()),
                        Segment::Operator(operator) if operator.is_missing(entry) => {}
                        Segment::Operator(operator) => operator.text(entry, out),
                    }
                }
            }
            Kind::Object(json, empty) => {
                json.write(entry, *empty, out);
                out.push(b'\n');
            }
            Kind::Json(fields) => {
                out.push(b'{');
                for (i, (key, operator)) in fields.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    push(out, format_args!("\"{key}\":"));
                    operator.json(entry, out);
                }
                out.extend_from_slice(b"}\n");
            }
        }
    }
}

fn text(segments: &[Segment], out: &mut Vec<u8>, write: impl Fn(&Operator, &mut Vec<u8>)) {
    for segment in segments {
        match segment {
            Segment::Literal(text) => match *text.as_bytes() {
                [byte] => out.push(byte),
                ref bytes => out.extend_from_slice(bytes),
            },
            Segment::Operator(operator) => write(operator, out),
        }
    }
}

/// The quotes of the literals, where these are plain but for the end of the line.
fn quotes(segments: &[Segment]) -> Quotes {
    let mut all = 0;
    for (place, segment) in segments.iter().enumerate() {
        let Segment::Literal(text) = segment else { continue };
        let last = place + 1 == segments.len();
        let text = text.strip_suffix('\n').filter(|_| last).unwrap_or(text);
        let quotes = text.matches('"').count();
        if !is_plain(text.as_bytes(), quotes) {
            return None;
        }
        all += quotes;
    }
    Some(all)
}

/// Text and operators in turn.
///
/// # Errors
/// [`FormatError`] where an operator is not known.
pub(super) fn segments(text: &str) -> Result<Vec<Segment>, FormatError> {
    let mut segments = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let position = text.len() - rest.len() + at;
        let (before, from) = rest.split_at(at);
        literal.push_str(before);
        let after = from.get(1..).unwrap_or_default();
        if let Some(tail) = after.strip_prefix('%') {
            literal.push('%');
            rest = tail;
            continue;
        }
        // The argument in brackets may itself hold a percent sign: START_TIME(%Y).
        let end = closing(after).ok_or(FormatError::Unclosed(position))?;
        let (operator, tail) = after.split_at(end);
        if !literal.is_empty() {
            segments.push(Segment::Literal(std::mem::take(&mut literal)));
        }
        segments.push(Segment::Operator(operator_of(operator)?));
        rest = tail.get(1..).unwrap_or_default();
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        segments.push(Segment::Literal(literal));
    }
    Ok(segments)
}

fn closing(after: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (i, b) in after.bytes().enumerate() {
        match b {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'%' if depth == 0 => return Some(i),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::flags::Flag;
    use http::HeaderValue;

    fn line(format: &Format, entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        format.write(entry, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn istios_text_line_is_istios() {
        let mut request = HeaderMap::new();
        request.insert("user-agent", HeaderValue::from_static("curl/8"));
        request.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.9"));
        request.insert("x-request-id", HeaderValue::from_static("id-1"));
        let mut response = HeaderMap::new();
        response.insert("x-envoy-upstream-service-time", HeaderValue::from_static("2"));
        let upstream = Address::Ip(([10, 1, 0, 1], 9080).into());
        let entry = Entry {
            method: "GET",
            path: "/productpage",
            upstream_path: "/p",
            authority: "shop.example.com",
            protocol: "HTTP/1.1",
            response_code: 200,
            details: "via_upstream",
            bytes_sent: 5183,
            duration: Duration::from_millis(14),
            response: Some(&response),
            upstream_host: Some(&upstream),
            upstream_cluster: "outbound|9080||productpage.default.svc.cluster.local",
            upstream_local: Some("10.1.0.7:40000".parse().unwrap()),
            downstream_local: Some("10.1.0.7:8080".parse().unwrap()),
            downstream_remote: Some("10.0.0.9:5000".parse().unwrap()),
            ..Entry::empty(&request)
        };
        assert_eq!(
            line(&Format::istio_text().unwrap(), &entry),
            "[1970-01-01T00:00:00.000Z] \"GET /productpage HTTP/1.1\" 200 - via_upstream - \"-\" 0 5183 14 2 \
             \"10.0.0.9\" \"curl/8\" \"id-1\" \"shop.example.com\" \"10.1.0.1:9080\" \
             outbound|9080||productpage.default.svc.cluster.local 10.1.0.7:40000 10.1.0.7:8080 10.0.0.9:5000 - -\n"
        );
    }

    #[test]
    fn json_has_every_key_and_null_for_what_is_not_known() {
        let request = HeaderMap::new();
        let mut flags = Flags::default();
        flags.insert(Flag::NoRouteFound);
        let entry = Entry { response_code: 404, flags, path: "/\"x", ..Entry::empty(&request) };
        let json: serde_json::Value =
            serde_json::from_str(&line(&Format::istio_json().unwrap(), &entry)).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 24);
        assert_eq!(json["response_code"], 404);
        assert_eq!(json["response_flags"], "NR");
        assert_eq!(json["path"], "/\"x");
        assert!(json["upstream_host"].is_null());
    }

    #[test]
    fn a_format_of_the_users_is_followed() {
        let request = HeaderMap::new();
        let entry = Entry { path: "/a?b=c", method: "POST", ..Entry::empty(&request) };
        let format = Format::parse(
            "100%% %REQ(:METHOD):2% %REQ_WITHOUT_QUERY(:PATH)% %START_TIME(%Y/%m)% %RESP(x)%\n",
        );
        assert_eq!(line(&format.unwrap(), &entry), "100% PO /a 1970/01 -\n");
        assert_eq!(Format::parse("%NONSENSE%").unwrap_err(), FormatError::Unknown("NONSENSE".into()));
        assert_eq!(Format::parse("a %DURATION").unwrap_err(), FormatError::Unclosed(2));
    }

    #[test]
    fn a_client_cannot_write_lines_of_its_own() {
        let mut request = HeaderMap::new();
        request.insert("user-agent", HeaderValue::from_bytes(b"a\" \xff\tb").unwrap());
        let entry = Entry::empty(&request);
        assert_eq!(line(&Format::parse("%REQ(USER-AGENT)%").unwrap(), &entry), "a\\\" \\xff\\x09b\n");
        // A line is escaped whatever stands around the value, and nothing else of it is.
        let (long, mut request) = ("x".repeat(600), HeaderMap::new());
        for (value, escaped) in
            [("a\"b", "a\\\"b"), ("\"", "\\\""), ("a\\", "a\\\\"), ("a\tb", "a\\x09b"), (&*long, &*long)]
        {
            request.insert("user-agent", HeaderValue::from_str(value).unwrap());
            let entry = Entry::empty(&request);
            for (before, behind) in [("", ""), ("\"", "\" \"-\""), ("\\ ", "\t"), ("\n", "\u{e9}")] {
                let format = Format::parse(&format!("{before}%REQ(USER-AGENT)%{behind}")).unwrap();
                assert_eq!(line(&format, &entry), format!("{before}{escaped}{behind}\n"));
            }
        }
        // What is cut off does not count; an escape is cut in two.
        request.insert("user-agent", HeaderValue::from_static("ab\"c"));
        let cut = |format| line(&Format::parse(format).unwrap(), &Entry::empty(&request));
        assert_eq!(cut("%REQ(USER-AGENT):2%"), "ab\n");
        assert_eq!(cut("%REQ(USER-AGENT):3%"), "ab\\\n");
    }
}

//! Values of headers that are made for each exchange: text with Envoy's command operators, such as `%REQ(x-user)%`.
//!
//! Invariant: a format is read once. What an operator stands for is asked of [`Facts`]; what is not known is nothing, and
//! a value that comes out empty makes no header (asked of Envoy 1.40).

mod operators;
mod parse;
mod query;

use super::{Direction, ProblemKind};
use http::{HeaderMap, HeaderName, HeaderValue};
use parse::pieces;
use query::{parameter, split_query};
use std::fmt;

/// A value as it will be: known, or made for each exchange.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// Always the same.
    Literal(HeaderValue),
    /// Made for each exchange.
    Format(Box<Format>),
}

/// Text and operators in turn.
#[derive(Clone, PartialEq, Eq)]
pub struct Format {
    written: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Operator {
        operator: Operator,
        /// Longest value in bytes.
        limit: Option<usize>,
    },
}

/// What stands between two percent signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `REQ(a?b)`: a field of the request, or else another.
    Request(Field, Option<Field>),
    /// `RESP(a?b)`: a header of the response, or else another; `None` is the status.
    Response(Option<HeaderName>, Option<Option<HeaderName>>),
    /// `QUERY_PARAM(a)`: the first value of that name, decoded; without a name the whole query, as it is.
    Query(Option<Box<str>>),
    /// `PATH(NQ)`: the path, and whether its query is a part.
    Path(PathPart, bool),
    /// Something that no header says.
    Fact(Fact),
}

impl Operator {
    /// The operator that is written `NAME(ARGUMENT)`; `None` for one that is not known, or is the same for every exchange.
    #[must_use]
    pub fn of(name: &str, argument: Option<&str>) -> Option<Self> {
        match operators::meaning(name, argument, false)? {
            operators::Meaning::Operator(operator) => Some(operator),
            operators::Meaning::Always(_) | operators::Meaning::Nothing => None,
        }
    }
}

/// Whose path it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathPart {
    /// As it was before a rule rewrote it; nothing where none did.
    Original,
    /// As it is now.
    Current,
    /// The first of these that there is.
    OriginalOrCurrent,
}

/// How a gRPC status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum GrpcForm {
    /// `DeadlineExceeded`.
    Camel,
    /// `DEADLINE_EXCEEDED`.
    Snake,
    Number,
}

/// A field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority`, or `host`.
    Authority,
    /// `:path`: path and query.
    Path,
    /// The first line of a header.
    Header(HeaderName),
}

/// What is known about an exchange beside its headers. Each is nothing until it is known: a request has no response
/// code yet, and no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each arm is the name of Envoy's operator; what differs is said")]
pub enum Fact {
    /// With its pattern; without one, to the millisecond in UTC.
    StartTime(Option<Box<str>>),
    /// The time at which the value is made.
    EmitTime(Option<Box<str>>),
    Protocol,
    UpstreamProtocol,
    /// 0 for a reply of the gateway's own.
    ResponseCode,
    /// Of the head, whoever made it.
    Status,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    GrpcStatus(GrpcForm),
    /// Of the request's body, so far.
    BytesReceived,
    RouteName,
    RequestedServerName,
    Hostname,
    /// Another for each value.
    UniqueId,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamDirectRemotePort,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    /// Of the client's certificate, where it was found good.
    DownstreamPeerSubject,
    DownstreamPeerUriSan,
    DownstreamPeerDnsSan,
    DownstreamPeerIssuer,
    DownstreamPeerSerial,
    DownstreamPeerFingerprint256,
    /// PEM, URL-encoded.
    DownstreamPeerCert,
    /// Also `UPSTREAM_REMOTE_ADDRESS`.
    UpstreamHost,
    UpstreamHostWithoutPort,
    UpstreamPort,
    UpstreamLocalAddress,
    UpstreamLocalAddressWithoutPort,
    UpstreamLocalPort,
    /// Also `UPSTREAM_CLUSTER_RAW`.
    UpstreamCluster,
    UpstreamRequestAttemptCount,
    /// Of all attempts, one after the other.
    UpstreamHostsAttempted,
    UpstreamHostsAttemptedWithoutPort,
    UpstreamTlsVersion,
    UpstreamTlsCipher,
    /// Counts the client connections of this process.
    ConnectionId,
    UpstreamTransportFailureReason,
    Duration,
    /// Until the upstream's head came.
    ResponseDuration,
}

/// Where values come from.
pub trait Facts {
    /// A field of the request as it is sent on; for a block on the request's own headers, only those that are no header.
    fn request(&self, field: &Field) -> Option<&[u8]>;
    /// Appends a fact; appends nothing where it is not known.
    fn fact(&self, fact: &Fact, out: &mut Vec<u8>);
}

/// Nothing is known: every operator is empty. For explanations without an exchange.
#[derive(Clone, Copy, Debug)]
pub struct NoFacts;

impl Facts for NoFacts {
    fn request(&self, _field: &Field) -> Option<&[u8]> {
        None
    }

    fn fact(&self, _fact: &Fact, _out: &mut Vec<u8>) {}
}

impl HeaderText {
    /// Reads a value; `None` for an empty one, which asks for nothing. Fails on operators that are not honoured, and on
    /// bytes that no header may have.
    pub fn parse(text: &str) -> Result<Option<Self>, ProblemKind> {
        let pieces = pieces(text)?;
        match pieces.as_slice() {
            [] => Ok(None),
            [Piece::Text(only)] => HeaderValue::from_str(only)
                .map(|value| Some(Self::Literal(value)))
                .map_err(|_| ProblemKind::InvalidValue),
            _ => {
                let valid = |piece: &Piece| match piece {
                    Piece::Text(text) => HeaderValue::from_str(text).is_ok(),
                    Piece::Operator { .. } => true,
                };
                if !pieces.iter().all(valid) {
                    return Err(ProblemKind::InvalidValue);
                }
                Ok(Some(Self::Format(Box::new(Format { written: text.into(), pieces: pieces.into() }))))
            }
        }
    }

    /// The value for one exchange; `None` when it comes out empty, or as what no header can carry.
    pub(super) fn value(
        &self,
        headers: &HeaderMap,
        direction: Direction,
        facts: &dyn Facts,
    ) -> Option<HeaderValue> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Format(format) => format.value(headers, direction, facts),
        }
    }

    /// Whether it reads the request, which a response may have to keep for it.
    pub(super) fn reads_request(&self) -> bool {
        let reads = |piece: &Piece| match piece {
            Piece::Operator { operator, .. } => {
                matches!(operator, Operator::Request(..) | Operator::Query(_) | Operator::Path(..))
            }
            Piece::Text(_) => false,
        };
        matches!(self, Self::Format(format) if format.pieces.iter().any(reads))
    }

    /// Whether it reads headers, which operations before it change. These never change method, path and authority.
    pub(super) fn reads_headers(&self) -> bool {
        let header = |field: &Field| matches!(field, Field::Header(_));
        let reads = |piece: &Piece| match piece {
            Piece::Operator { operator: Operator::Request(first, second), .. } => {
                header(first) || second.as_ref().is_some_and(header)
            }
            Piece::Operator { operator, .. } => matches!(operator, Operator::Response(..)),
            Piece::Text(_) => false,
        };
        matches!(self, Self::Format(format) if format.pieces.iter().any(reads))
    }

    /// The literal value.
    #[must_use]
    pub fn literal(&self) -> Option<&HeaderValue> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Format(_) => None,
        }
    }
}

impl fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(value) => value.fmt(f),
            Self::Format(format) => write!(f, "Format({:?})", format.written),
        }
    }
}

impl fmt::Display for HeaderText {
    /// As written, but for `%%` in a literal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(value) => f.write_str(&String::from_utf8_lossy(value.as_bytes())),
            Self::Format(format) => f.write_str(&format.written),
        }
    }
}

impl Format {
    fn value(&self, headers: &HeaderMap, direction: Direction, facts: &dyn Facts) -> Option<HeaderValue> {
        let mut out: Vec<u8> = Vec::with_capacity(self.written.len());
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Operator { operator, limit } => {
                    let before = out.len();
                    operator.push(headers, direction, facts, &mut out);
                    if let Some(limit) = limit {
                        out.truncate(before.saturating_add(*limit));
                    }
                }
            }
        }
        if out.is_empty() { None } else { HeaderValue::try_from(out).ok() }
    }
}

impl Operator {
    fn push(&self, headers: &HeaderMap, direction: Direction, facts: &dyn Facts, out: &mut Vec<u8>) {
        let request = |field: &Field| {
            match (field, direction) {
                (Field::Header(name), Direction::Request) => headers.get(name).map(HeaderValue::as_bytes),
                (field, _) => facts.request(field),
            }
            // An empty value is none, and the other is tried.
            .filter(|value| !value.is_empty())
        };
        match self {
            Self::Request(first, second) => {
                let found = request(first).or_else(|| request(second.as_ref()?));
                out.extend_from_slice(found.unwrap_or_default());
            }
            Self::Response(..) if direction == Direction::Request => {}
            Self::Response(first, second) => {
                let mut push = |field: &Option<HeaderName>| match field {
                    None => {
                        facts.fact(&Fact::Status, out);
                        true
                    }
                    Some(name) => match headers.get(name) {
                        Some(value) => {
                            out.extend_from_slice(value.as_bytes());
                            true
                        }
                        None => false,
                    },
                };
                let _found = push(first) || second.as_ref().is_some_and(push);
            }
            Self::Query(name) => {
                let Some((_, query)) = request(&Field::Path).and_then(|path| split_query(path)) else {
                    return;
                };
                match name {
                    None => out.extend_from_slice(query),
                    Some(name) => {
                        out.extend_from_slice(&parameter(query, name.as_bytes()).unwrap_or_default())
                    }
                }
            }
            Self::Path(part, with_query) => {
                let original = || request(&Field::Header(ORIGINAL_PATH));
                let current = || request(&Field::Path);
                let path = match part {
                    PathPart::Original => original(),
                    PathPart::Current => current(),
                    PathPart::OriginalOrCurrent => original().or_else(current),
                };
                let path = path.unwrap_or_default();
                let shown = split_query(path).filter(|_| !with_query).map_or(path, |(path, _)| path);
                out.extend_from_slice(shown);
            }
            Self::Fact(fact) => facts.fact(fact, out),
        }
    }
}

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

#[cfg(test)]
mod tests {
    use super::*;

    struct Known;

    impl Facts for Known {
        fn request(&self, field: &Field) -> Option<&[u8]> {
            match field {
                Field::Path => Some(b"/p?q"),
                Field::Header(name) if name == "x-sent" => Some(b"sent"),
                _ => None,
            }
        }

        fn fact(&self, fact: &Fact, out: &mut Vec<u8>) {
            match fact {
                Fact::Protocol => out.extend_from_slice(b"HTTP/2"),
                Fact::StartTime(Some(pattern)) => out.extend_from_slice(pattern.as_bytes()),
                _ => {}
            }
        }
    }

    fn made(text: &str, direction: Direction) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("one"));
        headers.append("x-a", HeaderValue::from_static("two"));
        headers.append("x-empty", HeaderValue::from_static(""));
        let value = HeaderText::parse(text).unwrap()?.value(&headers, direction, &Known)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn operators_are_replaced() {
        for (text, want) in [
            ("plain", "plain"),
            ("100%%", "100%"),
            ("%REQ(X-A)%", "one"),
            ("<%REQ(x-a):2%>", "<on>"),
            ("%REQ(nope?x-a)%", "one"),
            ("%REQ(x-empty?x-a)%", "one"),
            ("%REQ(:path)%", "/p?q"),
            ("a=%REQ(nope)%;", "a=;"),
            ("%PROTOCOL%", "HTTP/2"),
            ("%START_TIME(%Y(%m)/%d)%", "%Y(%m)/%d"),
            ("%REQ(x-a)%%PROTOCOL%", "oneHTTP/2"),
            ("%REQ(x-a)%%%", "one%"),
            ("%REQ(x-a?)%", "one"),
            ("<%QUERY_PARAMS%>", "<q>"),
            ("<%QUERY_PARAM(q)%>", "<>"),
            ("%PATH%", "/p?q"),
            ("%PATH(NQ)%", "/p"),
            ("<%PATH(WQ:ORIG)%>", "<>"),
            ("%BYTES_SENT%", "0"),
            ("a%DYNAMIC_METADATA(a:b)%b%FILTER_STATE(x:PLAIN):3%", "ab"),
        ] {
            assert_eq!(made(text, Direction::Request).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn what_comes_out_empty_is_no_header() {
        for text in [
            "",
            "%REQ(nope)%",
            "%RESP(x-a)%",
            "%RESPONSE_CODE%",
            "%DYNAMIC_METADATA([\"a\", \"b\"])%",
            "%FILTER_STATE(x)%%TRAILER(x?y):3%",
            "%CONNECTION_TERMINATION_DETAILS%",
        ] {
            assert_eq!(made(text, Direction::Request), None, "{text}");
        }
    }

    #[test]
    fn a_response_reads_both_heads() {
        assert_eq!(made("%RESP(x-a)%", Direction::Response).as_deref(), Some("one"));
        assert_eq!(made("%RESP(nope?x-a)%", Direction::Response).as_deref(), Some("one"));
        assert_eq!(made("%REQ(x-sent)%", Direction::Response).as_deref(), Some("sent"));
        assert_eq!(made("%REQ(x-a)%", Direction::Response), None);
        assert!(HeaderText::parse("%REQ(x)%").unwrap().unwrap().reads_request());
        assert!(!HeaderText::parse("%RESP(x)%").unwrap().unwrap().reads_request());
        for (text, reads) in [
            ("%REQ(x)%", true),
            ("%REQ(:path?x)%", true),
            ("a %RESP(x)%", true),
            ("%REQ(:path)%%PATH%%QUERY_PARAM(a)%%DURATION%", false),
        ] {
            assert_eq!(HeaderText::parse(text).unwrap().unwrap().reads_headers(), reads, "{text}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        let query = b"a=1%202&a=3&b=&c&d=%41%4&%65=x";
        for (name, want) in [
            ("a", Some("1 2")),
            ("b", Some("")),
            ("c", Some("")),
            ("d", Some("A%4")),
            ("e", Some("x")),
            ("B", None),
        ] {
            assert_eq!(parameter(query, name.as_bytes()).as_deref(), want.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "%",
            "5%",
            "%%%",
            "a%%b%c",
            "%NOPE%",
            "%REQ()%",
            "%REQ(a b)%",
            "%req(a)%",
            "%REQ(a):x%",
            "%REQ(a)",
            "%REQ%",
            "%PROTOCOL(x)%",
            "%PROTOCOL:3%",
            "%REQ(a?b?c)%",
            "%PATH(X)%",
            "%ENVIRONMENT(HOME)%",
        ] {
            assert_eq!(HeaderText::parse(text), Err(ProblemKind::Formatter), "{text}");
        }
        assert_eq!(HeaderText::parse("a\nb%PROTOCOL%"), Err(ProblemKind::InvalidValue));
    }
}

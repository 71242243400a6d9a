//! Values of headers that are made for each exchange: text with Envoy's command operators, such as `%REQ(x-user)%`.
//!
//! Invariant: a format is read once. What an operator stands for is asked of [`Facts`]; what is not known is nothing, and
//! a value that comes out empty makes no header (asked of Envoy 1.40).

use super::{Direction, ProblemKind};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
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
    /// `RESP(a?b)`: a header of the response, or else another.
    Response(HeaderName, Option<HeaderName>),
    /// Something that no header says.
    Fact(Fact),
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
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    RouteName,
    RequestedServerName,
    Hostname,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamDirectRemotePort,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    /// Of the client's certificate, where it was found good.
    DownstreamPeerSubject,
    DownstreamPeerUriSan,
    DownstreamPeerDnsSan,
    /// Also `UPSTREAM_REMOTE_ADDRESS`.
    UpstreamHost,
    UpstreamLocalAddress,
    /// Also `UPSTREAM_CLUSTER_RAW`.
    UpstreamCluster,
    UpstreamRequestAttemptCount,
    Duration,
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
        let reads = |piece: &Piece| matches!(piece, Piece::Operator { operator: Operator::Request(..), .. });
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
        if out.is_empty() { None } else { HeaderValue::from_bytes(&out).ok() }
    }
}

impl Operator {
    fn push(&self, headers: &HeaderMap, direction: Direction, facts: &dyn Facts, out: &mut Vec<u8>) {
        let first_line = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
        let found = match (self, direction) {
            (Self::Request(first, second), Direction::Request) => {
                let of = |field: &Field| match field {
                    Field::Header(name) => first_line(name),
                    pseudo => facts.request(pseudo),
                };
                // An empty value is none, and the other is tried.
                of(first)
                    .filter(|v| !v.is_empty())
                    .map(<[u8]>::to_vec)
                    .or_else(|| second.as_ref().and_then(of).map(<[u8]>::to_vec))
            }
            (Self::Request(first, second), Direction::Response) => {
                let other = || second.as_ref().and_then(|field| facts.request(field));
                facts.request(first).filter(|v| !v.is_empty()).or_else(other).map(<[u8]>::to_vec)
            }
            (Self::Response(first, second), Direction::Response) => {
                let other = || second.as_ref().and_then(first_line);
                first_line(first).or_else(other).map(<[u8]>::to_vec)
            }
            (Self::Response(..), Direction::Request) => None,
            (Self::Fact(fact), _) => return facts.fact(fact, out),
        };
        out.extend_from_slice(found.as_deref().unwrap_or_default());
    }
}

/// Splits a value into text and operators (Envoy: substitution_format_utility.h `CommandParser`).
fn pieces(text: &str) -> Result<Vec<Piece>, ProblemKind> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(tail) = after.strip_prefix('%') {
            plain.push('%');
            rest = tail;
            continue;
        }
        let (command, tail) = command(after).ok_or(ProblemKind::Formatter)?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
        }
        let operator = operator(command.name, command.argument).ok_or(ProblemKind::Formatter)?;
        pieces.push(Piece::Operator { operator, limit: command.limit });
        rest = tail;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.into()));
    }
    Ok(pieces)
}

/// One command as it is written: `NAME`, `NAME(ARGUMENT)`, and either with `:LIMIT`.
struct Command<'t> {
    name: &'t str,
    argument: Option<&'t str>,
    limit: Option<usize>,
}

/// Reads a command that ends with a percent sign, and gives what follows it.
fn command(text: &str) -> Option<(Command<'_>, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let (name, rest) = text.split_at(end);
    let Some(inside) = rest.strip_prefix('(') else {
        let (limit, tail) = ending(rest)?;
        return Some((Command { name, argument: None, limit }, tail));
    };
    // The argument may itself hold brackets and percent signs: it ends where a command can.
    inside.match_indices(')').find_map(|(at, _)| {
        let (argument, after) = inside.split_at(at);
        let (limit, tail) = ending(after.get(1..)?)?;
        Some((Command { name, argument: Some(argument), limit }, tail))
    })
}

fn ending(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(tail) = text.strip_prefix('%') {
        return Some((None, tail));
    }
    let (limit, tail) = text.strip_prefix(':')?.split_once('%')?;
    let digits = !limit.is_empty() && limit.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| limit.parse().ok()).flatten().map(|limit| (Some(limit), tail))
}

fn operator(name: &str, argument: Option<&str>) -> Option<Operator> {
    if let Some(argument) = argument {
        let mut names: SmallVec<[&str; 2]> = argument.splitn(2, '?').collect();
        let second = if names.len() > 1 { names.pop() } else { None };
        let first = names.pop()?;
        let header = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
        return Some(match name {
            "REQ" => {
                Operator::Request(field(first)?, second.map_or(Some(None), |name| field(name).map(Some))?)
            }
            "RESP" => {
                Operator::Response(header(first)?, second.map_or(Some(None), |name| header(name).map(Some))?)
            }
            "START_TIME" => Operator::Fact(Fact::StartTime(Some(argument.into()))),
            _ => return None,
        });
    }
    Some(Operator::Fact(match name {
        "START_TIME" => Fact::StartTime(None),
        "PROTOCOL" => Fact::Protocol,
        "RESPONSE_CODE" => Fact::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Fact::ResponseCodeDetails,
        "RESPONSE_FLAGS" => Fact::ResponseFlags,
        "ROUTE_NAME" => Fact::RouteName,
        "REQUESTED_SERVER_NAME" => Fact::RequestedServerName,
        "HOSTNAME" => Fact::Hostname,
        "DOWNSTREAM_REMOTE_ADDRESS" => Fact::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Fact::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_REMOTE_PORT" => Fact::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Fact::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Fact::DownstreamDirectRemoteAddressWithoutPort,
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Fact::DownstreamDirectRemotePort,
        "DOWNSTREAM_LOCAL_ADDRESS" => Fact::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Fact::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => Fact::DownstreamLocalPort,
        "DOWNSTREAM_PEER_SUBJECT" => Fact::DownstreamPeerSubject,
        "DOWNSTREAM_PEER_URI_SAN" => Fact::DownstreamPeerUriSan,
        "DOWNSTREAM_PEER_DNS_SAN" => Fact::DownstreamPeerDnsSan,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Fact::UpstreamHost,
        "UPSTREAM_LOCAL_ADDRESS" => Fact::UpstreamLocalAddress,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Fact::UpstreamCluster,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Fact::UpstreamRequestAttemptCount,
        "DURATION" => Fact::Duration,
        _ => return None,
    }))
}

fn field(name: &str) -> Option<Field> {
    Some(match name.to_ascii_lowercase().as_str() {
        ":method" => Field::Method,
        ":scheme" => Field::Scheme,
        ":authority" | "host" => Field::Authority,
        ":path" => Field::Path,
        _ => Field::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
    })
}

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
        ] {
            assert_eq!(made(text, Direction::Request).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn what_comes_out_empty_is_no_header() {
        for text in ["", "%REQ(nope)%", "%RESP(x-a)%", "%RESPONSE_CODE%"] {
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
        ] {
            assert_eq!(HeaderText::parse(text), Err(ProblemKind::Formatter), "{text}");
        }
        assert_eq!(HeaderText::parse("a\nb%PROTOCOL%"), Err(ProblemKind::InvalidValue));
    }
}

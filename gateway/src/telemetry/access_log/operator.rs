//! Envoy's command operators: what stands between two percent signs, and its value for one request.
//!
//! Invariant: a value never breaks its line: what is not printable ASCII is escaped in text, and quoted in JSON.

use super::{
    format::{Entry, FormatError},
    rare::{Rare, rare},
    time,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use routing::cluster::Address;
use std::{io::Write, net::SocketAddr, time::SystemTime};

#[derive(Clone, Debug)]
pub(super) struct Operator {
    what: What,
    /// Longest output in bytes.
    limit: Option<usize>,
}

#[derive(Clone, Debug)]
enum What {
    StartTime(Option<String>),
    Request(Field, Option<Field>),
    RequestWithoutQuery(Field, Option<Field>),
    Response(HeaderName, Option<HeaderName>),
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    TransportFailure,
    BytesReceived,
    BytesSent,
    Duration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocal,
    DownstreamLocal,
    DownstreamLocalPort,
    DownstreamRemote,
    DownstreamRemoteHost,
    ServerName,
    RouteName,
    /// Operators whose value this gateway never has.
    Never,
    /// Operators that few formats have.
    Rare(Box<Rare>),
}

#[derive(Clone, Debug)]
enum Field {
    Method,
    Path,
    OriginalPath,
    Authority,
    Header(HeaderName),
}

/// Writing to memory cannot fail.
pub(super) fn push(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(args);
    debug_assert!(written.is_ok());
}

/// Compiles the text between two percent signs.
///
/// # Errors
/// [`FormatError`] where no operator is written so.
pub(super) fn operator_of(text: &str) -> Result<Operator, FormatError> {
    let (text, limit) = match text.rsplit_once(':') {
        Some((head, n)) if !head.is_empty() && !n.ends_with(')') => match n.parse() {
            Ok(limit) => (head, Some(limit)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    };
    let (name, argument) = match text.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')').unwrap_or(rest))),
        None => (text, None),
    };
    let what = match (name, argument) {
        ("START_TIME", pattern) => What::StartTime(pattern.map(str::to_owned)),
        ("REQ", Some(names)) => {
            let (first, second) = fields(names)?;
            What::Request(first, second)
        }
        ("REQ_WITHOUT_QUERY", Some(names)) => {
            let (first, second) = fields(names)?;
            What::RequestWithoutQuery(first, second)
        }
        ("RESP", Some(names)) => {
            let (first, second) = alternatives(names);
            What::Response(header(first)?, second.map(header).transpose()?)
        }
        ("PROTOCOL", None) => What::Protocol,
        ("RESPONSE_CODE", None) => What::ResponseCode,
        ("RESPONSE_FLAGS", None) => What::ResponseFlags,
        ("RESPONSE_CODE_DETAILS", _) => What::ResponseCodeDetails,
        ("CONNECTION_TERMINATION_DETAILS", None) => What::ConnectionTerminationDetails,
        ("UPSTREAM_TRANSPORT_FAILURE_REASON", None) => What::TransportFailure,
        ("BYTES_RECEIVED", None) => What::BytesReceived,
        ("BYTES_SENT", None) => What::BytesSent,
        ("DURATION", None) => What::Duration,
        ("UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS", None) => What::UpstreamHost,
        ("UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW", None) => What::UpstreamCluster,
        ("UPSTREAM_LOCAL_ADDRESS", None) => What::UpstreamLocal,
        ("DOWNSTREAM_LOCAL_ADDRESS", None) => What::DownstreamLocal,
        ("DOWNSTREAM_LOCAL_PORT", None) => What::DownstreamLocalPort,
        ("DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", None) => What::DownstreamRemote,
        (
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
            None,
        ) => What::DownstreamRemoteHost,
        ("REQUESTED_SERVER_NAME", None) => What::ServerName,
        ("ROUTE_NAME", None) => What::RouteName,
        ("TRAILER" | "DYNAMIC_METADATA" | "FILTER_STATE", Some(_)) => What::Never,
        _ => match rare(name, argument) {
            Some(rare) => What::Rare(Box::new(rare)),
            None => return Err(FormatError::Unknown(text.to_owned())),
        },
    };
    Ok(Operator { what, limit })
}

fn alternatives(names: &str) -> (&str, Option<&str>) {
    names.split_once('?').map_or((names, None), |(a, b)| (a, Some(b)))
}

fn fields(names: &str) -> Result<(Field, Option<Field>), FormatError> {
    let (first, second) = alternatives(names);
    Ok((field(first)?, second.map(field).transpose()?))
}

fn field(name: &str) -> Result<Field, FormatError> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => Field::Method,
        ":path" => Field::Path,
        ":authority" | "host" => Field::Authority,
        "x-envoy-original-path" => Field::OriginalPath,
        _ => Field::Header(header(name)?),
    })
}

fn header(name: &str) -> Result<HeaderName, FormatError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| FormatError::Header(name.to_owned()))
}

/// A value on its way into a line.
enum Value<'v> {
    /// Our own words and configuration's names: printable by themselves.
    Plain(&'v str),
    Text(&'v str),
    Bytes(&'v [u8]),
    Number(u64),
    Address(SocketAddr),
    Time(SystemTime),
    Owned(String),
    Missing,
}

impl Operator {
    /// Inlined where it is used, so that a value goes straight from the entry into the line.
    #[inline(always)]
    fn value<'v>(&'v self, e: &'v Entry<'_>) -> Value<'v> {
        let text = |s: &'v str| if s.is_empty() { Value::Missing } else { Value::Text(s) };
        let plain = |s: &'v str| if s.is_empty() { Value::Missing } else { Value::Plain(s) };
        let address = |a: Option<SocketAddr>| a.map_or(Value::Missing, Value::Address);
        match &self.what {
            What::StartTime(None) => Value::Time(e.start),
            What::StartTime(Some(pattern)) => {
                let mut out = String::new();
                time::strftime(e.start, pattern, &mut out);
                Value::Owned(out)
            }
            What::Request(first, second) => request(e, first, second.as_ref()),
            What::RequestWithoutQuery(first, second) => match request(e, first, second.as_ref()) {
                Value::Text(t) => Value::Text(t.split('?').next().unwrap_or_default()),
                Value::Bytes(b) => Value::Bytes(b.split(|c| *c == b'?').next().unwrap_or_default()),
                other => other,
            },
            What::Response(first, second) => e
                .response
                .and_then(|h| header_of(h, first).or_else(|| second.as_ref().and_then(|s| header_of(h, s))))
                .map_or(Value::Missing, |v| Value::Bytes(v.as_bytes())),
            What::Protocol => plain(e.protocol),
            What::ResponseCode => Value::Number(e.response_code.into()),
            What::ResponseFlags if e.flags.is_empty() => Value::Missing,
            What::ResponseFlags => Value::Owned(e.flags.to_string()),
            What::ResponseCodeDetails => text(e.details),
            What::ConnectionTerminationDetails => text(e.termination),
            What::TransportFailure => text(e.transport_failure),
            What::BytesReceived => Value::Number(e.bytes_received),
            What::BytesSent => Value::Number(e.bytes_sent),
            What::Duration => Value::Number(u64::try_from(e.duration.as_millis()).unwrap_or(u64::MAX)),
            What::UpstreamHost => match e.upstream_host {
                None => Value::Missing,
                Some(Address::Ip(address)) => Value::Address(*address),
                Some(other) => Value::Owned(other.to_string()),
            },
            What::UpstreamCluster => plain(e.upstream_cluster),
            What::UpstreamLocal => address(e.upstream_local),
            What::DownstreamLocal => address(e.downstream_local),
            What::DownstreamLocalPort => {
                e.downstream_local.map_or(Value::Missing, |a| Value::Number(a.port().into()))
            }
            What::DownstreamRemote => address(e.downstream_remote),
            What::DownstreamRemoteHost => {
                e.downstream_remote.map_or(Value::Missing, |a| Value::Owned(a.ip().to_string()))
            }
            What::ServerName => text(e.server_name),
            What::RouteName => text(e.route_name),
            What::Never => Value::Missing,
            What::Rare(rare) => rare.value(e).map_or(Value::Missing, Value::Owned),
        }
    }

    /// Appends the value as it stands in a text line; `-` for none.
    pub(super) fn text(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let from = out.len();
        match self.value(entry) {
            Value::Missing => out.push(b'-'),
            Value::Number(n) => number(n, out),
            Value::Address(a) => socket(a, out),
            Value::Time(at) => out.extend_from_slice(time::iso8601(at).as_bytes()),
            Value::Plain(t) => out.extend_from_slice(t.as_bytes()),
            Value::Text(t) => escape(t.as_bytes(), out),
            Value::Owned(t) => escape(t.as_bytes(), out),
            Value::Bytes(b) => escape(b, out),
        }
        self.cut(from, out);
    }

    /// Appends the value as JSON; `null` for none.
    pub(super) fn json(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let quote = |text: &str, out: &mut Vec<u8>| match self.limit {
            Some(limit) => push(out, format_args!("{}", serde_json::Value::from(prefix(text, limit)))),
            None => push(out, format_args!("{}", serde_json::Value::from(text))),
        };
        match self.value(entry) {
            Value::Missing => out.extend_from_slice(b"null"),
            Value::Number(n) => number(n, out),
            Value::Address(a) => quote(&a.to_string(), out),
            Value::Time(at) => quote(time::iso8601(at).as_str(), out),
            Value::Plain(t) | Value::Text(t) => quote(t, out),
            Value::Owned(t) => quote(&t, out),
            Value::Bytes(b) => quote(&String::from_utf8_lossy(b), out),
        }
    }

    /// Whether there is no value.
    pub(super) fn is_missing(&self, entry: &Entry<'_>) -> bool {
        matches!(self.value(entry), Value::Missing)
    }

    /// Appends the value as it is, for text that is escaped as a whole; `-` for none.
    pub(super) fn plain(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let from = out.len();
        match self.value(entry) {
            Value::Missing => out.push(b'-'),
            Value::Number(n) => number(n, out),
            Value::Address(a) => socket(a, out),
            Value::Time(at) => out.extend_from_slice(time::iso8601(at).as_bytes()),
            Value::Plain(t) | Value::Text(t) => out.extend_from_slice(t.as_bytes()),
            Value::Owned(t) => out.extend_from_slice(t.as_bytes()),
            Value::Bytes(b) => out.extend_from_slice(b),
        }
        self.cut(from, out);
    }

    /// What was written in a text line is ASCII: it may be cut anywhere.
    fn cut(&self, from: usize, out: &mut Vec<u8>) {
        if let Some(limit) = self.limit {
            out.truncate(from.saturating_add(limit));
        }
    }
}

#[inline(always)]
fn request<'v>(e: &'v Entry<'_>, first: &Field, second: Option<&Field>) -> Value<'v> {
    match (one(e, first), second) {
        (Value::Missing, Some(second)) => one(e, second),
        (found, _) => found,
    }
}

#[inline(always)]
fn one<'v>(e: &'v Entry<'_>, field: &Field) -> Value<'v> {
    let text = |s: &'v str| if s.is_empty() { Value::Missing } else { Value::Text(s) };
    match field {
        Field::Method => text(e.method),
        Field::Path if e.upstream_path.is_empty() => text(e.path),
        Field::Path => text(e.upstream_path),
        // The header is there only where a rule rewrote the path.
        Field::OriginalPath if e.upstream_path.is_empty() || e.upstream_path == e.path => Value::Missing,
        Field::OriginalPath => text(e.path),
        Field::Authority => text(e.authority),
        Field::Header(name) => {
            header_of(e.request, name).map_or(Value::Missing, |v| Value::Bytes(v.as_bytes()))
        }
    }
}

/// The first value of a name. In a head of a few fields, as most are, looking through them costs less than hashing the name.
fn header_of<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    const FEW: usize = 12;
    if headers.keys_len() > FEW {
        return headers.get(name);
    }
    headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn prefix(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Whether nothing in `bytes` need be escaped but as many quotes.
pub(super) fn is_plain(bytes: &[u8], quotes: usize) -> bool {
    let (blocks, rest) = bytes.as_chunks();
    let blocks = blocks.iter().fold(true, |all, block| all & is_good(block));
    // The last block overlaps the one before.
    let rest = match bytes.last_chunk() {
        Some(last) => is_good(last),
        None => rest.iter().all(|b| is_good_byte(*b)),
    };
    blocks && rest && memchr::memchr_iter(b'"', bytes).count() == quotes
}

/// Of one size and without a branch a byte, so that many are looked at with one instruction. (Inlined into a loop it is unrolled
/// byte by byte.)
#[inline(never)]
fn is_good(block: &[u8; 32]) -> bool {
    block.iter().fold(true, |all, b| all & is_good_byte(*b))
}

fn is_good_byte(b: u8) -> bool {
    (0x20..=0x7e).contains(&b) & (b != b'\\')
}

/// Quotes, backslashes and everything that is not printable ASCII are escaped.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let plain = |b: u8| (0x20..=0x7e).contains(&b) & (b != b'"') & (b != b'\\');
    // Without a branch a byte, so that many are looked at with one instruction; nearly every value is plain.
    if bytes.iter().fold(true, |all, b| all & plain(*b)) {
        out.extend_from_slice(bytes);
        return;
    }
    for &b in bytes {
        match b {
            b if plain(b) => out.push(b),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            _ => push(out, format_args!("\\x{b:02x}")),
        }
    }
}

/// An address and its port. Every line has four, and nearly all are of version 4.
pub(crate) fn socket(address: SocketAddr, out: &mut Vec<u8>) {
    /// Each octet's digits with a point behind them.
    const OCTETS: [[u8; 4]; 256] = {
        let mut octets = [[b'.'; 4]; 256];
        let mut n = 0;
        while n < 256 {
            let (hundreds, tens, ones) =
                (b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8);
            #[expect(clippy::indexing_slicing, reason = "n is below 256")]
            {
                octets[n] = match n {
                    100.. => [hundreds, tens, ones, b'.'],
                    10.. => [tens, ones, b'.', 0],
                    _ => [ones, b'.', 0, 0],
                };
            }
            n += 1;
        }
        octets
    };
    let SocketAddr::V4(v4) = address else { return push(out, format_args!("{address}")) };
    let mut text = [0; 16];
    let mut len = 0;
    for octet in v4.ip().octets() {
        #[expect(clippy::indexing_slicing, reason = "the table has an entry for every octet")]
        let digits = OCTETS[usize::from(octet)];
        if let Some(place) = text.get_mut(len..len + 4) {
            place.copy_from_slice(&digits);
        }
        len += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
    }
    // Without the last point.
    out.extend_from_slice(text.get(..len - 1).unwrap_or_default());
    out.push(b':');
    number(v4.port().into(), out);
}

/// Decimal digits, without the detour over a formatter.
pub(crate) fn number(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

//! A request head, judged line by line.
//!
//! Invariant: a head is good only when every reader finds the same end, the same target and the same length of body.
//! One pass, nothing allocated for a head in origin form.

use super::{Flaw, HeadPolicy, Leniency, Underscores, authority::is_authority};

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing, or so many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A good head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes, the empty line included.
    pub(super) len: usize,
    pub(super) body: Body,
    /// Another protocol was asked for.
    pub(super) upgrade: bool,
    /// The same head in origin form, where it was in absolute form (RFC 9112 §3.2.2: `Host` is ignored then).
    pub(super) rewritten: Option<Vec<u8>>,
}

/// A bad head: why, and its request line where that was a good one, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad<'h> {
    pub(super) flaw: Flaw,
    pub(super) line: Option<RequestLine<'h>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'h> {
    pub(super) method: &'h [u8],
    pub(super) target: &'h [u8],
    absolute: Option<Absolute<'h>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Absolute<'h> {
    authority: &'h [u8],
    /// From the path on; may be empty.
    rest: &'h [u8],
}

/// What is known of the fields that decide about framing and routing.
#[derive(Default)]
struct Fields {
    count: usize,
    hosts: usize,
    lengths: usize,
    length: u64,
    codings: usize,
    coding: Coding,
    upgrade: bool,
    /// A field is to be left out.
    dropped: bool,
}

#[derive(Clone, Copy, Default)]
enum Coding {
    #[default]
    None,
    Chunked,
    /// Something under `chunked`.
    Unknown,
    Bad,
}

/// Empty lines before a request line; each that comes by itself has the head looked at again.
const EMPTY_LINES: usize = 8;

/// Reads the head at the beginning of `bytes`; `None`: it is not complete, and not bad so far.
pub(super) fn scan<'h>(bytes: &'h [u8], policy: &HeadPolicy) -> Result<Option<Head>, Bad<'h>> {
    let bad = |flaw| Bad { flaw, line: None };
    // RFC 9112 §2.2: empty lines before a request line are a habit of old clients.
    let mut at = 0;
    while bytes.get(at..at + 2) == Some(b"\r\n") {
        at += 2;
        if at > 2 * EMPTY_LINES {
            return Err(bad(Flaw::RequestLine));
        }
    }
    let start = at;
    let too_long = |at: usize| at - start > policy.max_bytes;
    let Some((first, mut at)) = line(bytes, at, policy).map_err(bad)? else {
        let rest = bytes.get(start..).unwrap_or_default();
        if rest.iter().any(|b| is_control(*b) && *b != b'\r') {
            // Not HTTP at all: a TLS record, say. Told at once, not after the deadline.
            return Err(bad(Flaw::Characters));
        }
        return if too_long(bytes.len()) { Err(bad(Flaw::TooLong)) } else { Ok(None) };
    };
    let (request, version) = request_line(first, policy).map_err(bad)?;
    let semantic = |flaw: Flaw| Bad { flaw, line: (!flaw.is_codecs()).then_some(request) };
    let mut fields = Fields::default();
    loop {
        if too_long(at) {
            return Err(bad(Flaw::TooLong));
        }
        let Some((text, next)) = line(bytes, at, policy).map_err(bad)? else {
            return if too_long(bytes.len()) { Err(bad(Flaw::TooLong)) } else { Ok(None) };
        };
        at = next;
        if text.is_empty() {
            break;
        }
        fields.count += 1;
        if fields.count > policy.max_fields {
            return Err(bad(Flaw::TooMany));
        }
        fields.read(text, policy).map_err(semantic)?;
    }
    if too_long(at) {
        return Err(bad(Flaw::TooLong));
    }
    let body = fields.body(version).map_err(bad)?;
    if fields.hosts == 0 && request.absolute.is_none() {
        return Err(semantic(Flaw::MissingHost));
    }
    let rewritten = (request.absolute.is_some() || fields.dropped)
        .then(|| rewrite(&request, version, bytes.get(start..at).unwrap_or_default(), fields.dropped));
    Ok(Some(Head { len: at, body, upgrade: fields.upgrade && version == Version::Http11, rewritten }))
}

/// The line that begins at `at`, without its end, and where the next begins.
fn line<'h>(bytes: &'h [u8], at: usize, policy: &HeadPolicy) -> Result<Option<(&'h [u8], usize)>, Flaw> {
    let rest = bytes.get(at..).unwrap_or_default();
    // Nearly every line is a good one, and is looked at once.
    let end = before_control(rest);
    if let (Some(text), Some(b"\r\n")) = (rest.get(..end), rest.get(end..end + 2)) {
        return Ok(Some((text, at + end + 2)));
    }
    let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(None) };
    let text = rest.get(..end).unwrap_or_default();
    let text = match (text.strip_suffix(b"\r"), policy.bare_lf) {
        (Some(text), _) => text,
        (None, Leniency::Serve) => text,
        (None, Leniency::Refuse) => return Err(Flaw::LineEnd),
    };
    // No early exit, so that the compiler may look at many bytes at once.
    if text.iter().fold(false, |found, b| found | is_control(*b)) {
        return Err(if text.contains(&b'\r') { Flaw::LineEnd } else { Flaw::Characters });
    }
    Ok(Some((text, at + end + 1)))
}

/// How many bytes come before the first control character but TAB.
fn before_control(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let mut at = 0;
    // Eight bytes at a time: the lowest mark is exact, those above it may be carried over from it.
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*eight);
        let delete = word ^ (0x7f * ONES);
        let below = word.wrapping_sub(0x20 * ONES) & !word;
        let marks = (below | (delete.wrapping_sub(ONES) & !delete)) & (0x80 * ONES);
        if marks == 0 {
            at += 8;
            continue;
        }
        at += marks.trailing_zeros() as usize / 8;
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| is_control(*b)).unwrap_or(rest.len())
}

/// Control characters but TAB.
pub(super) fn is_control(b: u8) -> bool {
    (b < 0x20 && b != b'\t') | (b == 0x7f)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn request_line<'h>(line: &'h [u8], policy: &HeadPolicy) -> Result<(RequestLine<'h>, Version), Flaw> {
    // Methods are short.
    let end = line.iter().position(|b| *b == b' ').ok_or(Flaw::RequestLine)?;
    let (method, rest) = line.split_at(end);
    let rest = rest.get(1..).unwrap_or_default();
    let end = memchr::memchr(b' ', rest).ok_or(Flaw::RequestLine)?;
    let (target, version) = rest.split_at(end);
    let version = match version {
        b" HTTP/1.1" => Version::Http11,
        b" HTTP/1.0" if policy.http10 == Leniency::Serve => Version::Http10,
        // Old versions are told so first: what else is wrong with them may only be their age.
        [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Flaw::Version);
        }
        _ => return Err(Flaw::RequestLine),
    };
    // RFC 3986: the rest is escaped by whoever needs it.
    if target.is_empty() || target.iter().fold(false, |found, b| found | !b.is_ascii_graphic()) {
        return Err(Flaw::Target);
    }
    match method {
        b"GET" | b"POST" | b"PUT" | b"DELETE" | b"HEAD" | b"OPTIONS" | b"PATCH" => {}
        b"CONNECT" => return Err(Flaw::Connect),
        b"TRACE" if policy.trace == Leniency::Refuse => return Err(Flaw::Trace),
        _ if is_known_method(method) => {}
        _ => return Err(Flaw::Method),
    }
    let absolute = match target.first() {
        Some(b'/') => None,
        Some(b'*') if target == b"*" && method == b"OPTIONS" => None,
        _ => Some(absolute(target)?),
    };
    Ok((RequestLine { method, target, absolute }, version))
}

/// What Envoy's HTTP/1 codec knows beyond the common ones.
fn is_known_method(method: &[u8]) -> bool {
    const KNOWN: [&[u8]; 27] = [
        b"ACL",
        b"BIND",
        b"CHECKOUT",
        b"COPY",
        b"LINK",
        b"LOCK",
        b"M-SEARCH",
        b"MERGE",
        b"MKACTIVITY",
        b"MKCALENDAR",
        b"MKCOL",
        b"MOVE",
        b"NOTIFY",
        b"PROPFIND",
        b"PROPPATCH",
        b"PURGE",
        b"REBIND",
        b"REPORT",
        b"SEARCH",
        b"SOURCE",
        b"SUBSCRIBE",
        b"TRACE",
        b"UNBIND",
        b"UNLINK",
        b"UNLOCK",
        b"UNSUBSCRIBE",
        b"QUERY",
    ];
    KNOWN.contains(&method)
}

/// RFC 9112 §3.2.2.
fn absolute(target: &[u8]) -> Result<Absolute<'_>, Flaw> {
    let scheme = |s: &[u8]| {
        target
            .get(..s.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(s))
            .then(|| target.get(s.len()..))?
    };
    let rest = scheme(b"http://").or_else(|| scheme(b"https://")).ok_or(Flaw::Target)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#' | b'\\')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if rest.first() == Some(&b'\\') {
        // Some readers would go on with the authority behind it.
        return Err(Flaw::Target);
    }
    if is_authority(authority) { Ok(Absolute { authority, rest }) } else { Err(Flaw::Authority) }
}

impl Fields {
    fn read(&mut self, line: &[u8], policy: &HeadPolicy) -> Result<(), Flaw> {
        let end = line.iter().position(|b| !is_token(*b)).ok_or(Flaw::Field)?;
        let (name, value) = line.split_at(end);
        // Also refuses a folded line, whose first byte is a space.
        if name.is_empty() || value.first() != Some(&b':') {
            return Err(Flaw::Field);
        }
        match policy.underscores {
            Underscores::Allow => {}
            _ if !name.contains(&b'_') => {}
            Underscores::Refuse => return Err(Flaw::Underscore),
            Underscores::Drop => self.dropped = true,
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let value = || value.get(1..).unwrap_or_default().trim_ascii();
        match name.len() {
            4 if is(b"host") => {
                self.hosts += 1;
                if self.hosts > 1 {
                    return Err(Flaw::RepeatedHost);
                }
                if !is_authority(value()) {
                    return Err(Flaw::Authority);
                }
            }
            7 if is(b"upgrade") => self.upgrade = true,
            10 if is(b"connection") => return nominations(value()),
            14 if is(b"content-length") => {
                self.lengths += 1;
                self.length = length(value())?;
            }
            17 if is(b"transfer-encoding") => {
                self.codings += 1;
                self.coding = coding(value());
            }
            _ => {}
        }
        Ok(())
    }

    fn body(&self, version: Version) -> Result<Body, Flaw> {
        match (self.lengths, self.codings) {
            (0 | 1, 0) => Ok(Body::Length(self.length)),
            (2.., 0) => Err(Flaw::BadLength),
            (1.., 1..) => Err(Flaw::LengthAndCoding),
            (0, 2..) => Err(Flaw::BadCoding),
            (0, 1) => match self.coding {
                // RFC 9112 §6.1: 1.0 knows no codings, so somebody before us changed the version.
                _ if version == Version::Http10 => Err(Flaw::BadCoding),
                Coding::Chunked => Ok(Body::Chunked),
                Coding::Unknown => Err(Flaw::UnknownCoding),
                Coding::None | Coding::Bad => Err(Flaw::BadCoding),
            },
        }
    }
}

fn length(value: &[u8]) -> Result<u64, Flaw> {
    // 18 digits: far beyond what anybody sends, and below where any reader's number overflows.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Flaw::BadLength);
    }
    Ok(value.iter().fold(0, |n, b| n * 10 + u64::from(b - b'0')))
}

fn coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let mut codings = value.rsplit(|b| *b == b',').map(<[u8]>::trim_ascii);
    let last_is_chunked = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let real = |coding: &[u8]| {
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked") && coding.iter().all(|b| is_token(*b))
    };
    if last_is_chunked && codings.all(real) { Coding::Unknown } else { Coding::Bad }
}

/// RFC 9110 §7.6.1: `Connection` may not nominate what is meant for everybody on the way.
fn nominations(value: &[u8]) -> Result<(), Flaw> {
    const COMMON: [&[u8]; 3] = [b"keep-alive", b"close", b"upgrade"];
    const ENDS: [&[u8]; 8] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-request-id",
        b"forwarded",
    ];
    if COMMON.iter().any(|common| value.eq_ignore_ascii_case(common)) {
        return Ok(());
    }
    for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
        let envoys = token.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"x-envoy-"));
        if envoys || token.first() == Some(&b':') || ENDS.iter().any(|end| token.eq_ignore_ascii_case(end)) {
            return Err(Flaw::Nomination);
        }
    }
    Ok(())
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(b: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0;
        while b < 128 {
            let c = b as u8;
            #[expect(clippy::indexing_slicing, reason = "b is below 128")]
            {
                table[b] = c.is_ascii_alphanumeric()
                    || matches!(
                        c,
                        b'!' | b'#'
                            | b'$'
                            | b'%'
                            | b'&'
                            | b'\''
                            | b'*'
                            | b'+'
                            | b'-'
                            | b'.'
                            | b'^'
                            | b'_'
                            | b'`'
                            | b'|'
                            | b'~'
                    );
            }
            b += 1;
        }
        table
    };
    #[expect(clippy::indexing_slicing, reason = "the table has an entry for every byte")]
    TOKEN[usize::from(b)]
}

/// The head in origin form, with the target's authority for `Host` where it has one, and without what is left out.
fn rewrite(request: &RequestLine<'_>, version: Version, bytes: &[u8], dropped: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(bytes.len() + 64);
    head.extend_from_slice(request.method);
    head.push(b' ');
    match request.absolute.map(|absolute| absolute.rest) {
        None => head.extend_from_slice(request.target),
        Some(rest) => {
            match rest.first() {
                Some(b'/') => {}
                // RFC 9112 §3.2.4: no path and OPTIONS is about the server as a whole.
                None if request.method == b"OPTIONS" => head.push(b'*'),
                _ => head.push(b'/'),
            }
            head.extend_from_slice(rest);
        }
    }
    head.extend_from_slice(match version {
        Version::Http11 => b" HTTP/1.1\r\n",
        Version::Http10 => b" HTTP/1.0\r\n",
    });
    if let Some(absolute) = request.absolute {
        head.extend_from_slice(b"host: ");
        head.extend_from_slice(absolute.authority);
        head.extend_from_slice(b"\r\n");
    }
    for line in bytes.split_inclusive(|b| *b == b'\n').skip(1) {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        let replaced = request.absolute.is_some() && name.eq_ignore_ascii_case(b"host");
        let left_out = dropped && name.contains(&b'_') && name.len() < line.len();
        if !(replaced || left_out) {
            head.extend_from_slice(line);
        }
    }
    head
}

#[cfg(test)]
mod tests;

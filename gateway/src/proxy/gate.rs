//! A strict look at an HTTP/1 head as it came, before anyone believes what the parser made of it.
//!
//! Invariant: a head that two readers could read differently, in where it ends, what it asks for or how long its body
//! is, is never routed (RFC 9112 §§2.2, 3, 6.3). The parser is lenient, and has already dropped a contradicting
//! length when we see its result; so this reads the bytes.

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A line that ends with LF alone, or holds a bare CR.
    LineEnd,
    /// Not exactly method, target and version with one space between, all of visible characters.
    RequestLine,
    /// Two lengths, or a length and a coding.
    Length,
    /// The coding is given twice.
    RepeatedCoding,
    /// A coding other than `chunked`, which nobody here can undo.
    Coding,
}

impl Flaw {
    /// Status to answer with.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Coding => 501,
            Self::LineEnd | Self::RequestLine | Self::Length | Self::RepeatedCoding => 400,
        }
    }

    /// Envoy's style of detail for the log.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::LineEnd => "http1.invalid_line_end",
            Self::RequestLine => "http1.invalid_request_line",
            Self::Length => "http1.content_length_and_chunked_not_allowed",
            Self::RepeatedCoding => "http1.repeated_transfer_encoding",
            Self::Coding => "http1.unsupported_transfer_encoding",
        }
    }
}

/// Looks at a head, from the request line to the empty line.
///
/// # Errors
/// The first [`Flaw`] found.
pub(super) fn check(head: &[u8]) -> Result<(), Flaw> {
    let mut head = head;
    // RFC 9112 §2.2: empty lines before a request line are a habit of old clients.
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    let mut lines = head.split_inclusive(|b| *b == b'\n').map(line);
    request_line(lines.next().ok_or(Flaw::RequestLine)??)?;
    let (mut lengths, mut codings, mut chunked) = (0, 0, false);
    for field in lines {
        let field = field?;
        let Some(colon) = field.iter().position(|b| *b == b':') else { continue };
        let (name, value) = field.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            // Equal values in a list are still two messages to someone who takes the last one only.
            lengths += 1 + usize::from(value.contains(&b','));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings += 1;
            chunked = value.eq_ignore_ascii_case(b"chunked");
        }
    }
    match (lengths, codings) {
        (0 | 1, 0) => Ok(()),
        (0, 1) if chunked => Ok(()),
        (0, 1) => Err(Flaw::Coding),
        (0, _) => Err(Flaw::RepeatedCoding),
        _ => Err(Flaw::Length),
    }
}

/// A line without its end.
fn line(with_end: &[u8]) -> Result<&[u8], Flaw> {
    let line = match with_end.strip_suffix(b"\n") {
        Some(rest) => rest.strip_suffix(b"\r").ok_or(Flaw::LineEnd)?,
        None => with_end,
    };
    if line.contains(&b'\r') { Err(Flaw::LineEnd) } else { Ok(line) }
}

fn request_line(line: &[u8]) -> Result<(), Flaw> {
    let mut parts = line.split(|b| *b == b' ');
    let well_formed = |part: Option<&[u8]>| {
        // Bytes above ASCII are the parser's to judge.
        part.is_some_and(|p| !p.is_empty() && p.iter().all(|b| *b > b' ' && *b != 0x7f))
    };
    let three = (0..3).all(|_| well_formed(parts.next()));
    if three && parts.next().is_none() { Ok(()) } else { Err(Flaw::RequestLine) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_head_passes() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:  Chunked \r\n\r\n",
        ] {
            assert_eq!(check(head.as_bytes()), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_does_not() {
        for (head, flaw) in [
            ("GET / HTTP/1.1\nHost: a\n\n", Flaw::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Flaw::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Flaw::LineEnd),
            ("GET  / HTTP/1.1\r\n\r\n", Flaw::RequestLine),
            ("GET /a b HTTP/1.1\r\n\r\n", Flaw::RequestLine),
            ("GET /a\tb HTTP/1.1\r\n\r\n", Flaw::RequestLine),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Flaw::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Flaw::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Flaw::Length),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Flaw::Coding),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Flaw::RepeatedCoding,
            ),
        ] {
            assert_eq!(check(head.as_bytes()), Err(flaw), "{head:?}");
        }
    }
}

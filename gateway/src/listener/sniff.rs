//! What the first bytes of a sidecar's connection show: TLS and what its ClientHello says, HTTP in the clear, or neither.
//!
//! Invariant: decided at the first byte that differs, and only what a chain asks for is waited for; every byte that was read is given
//! back. What is not known when the wait is over counts as neither (Envoy: `continue_on_listener_filters_timeout`).

use std::io;

use routing::listener::{Sniffed, Transport, Wants};
use tokio::io::AsyncReadExt;

use super::{preface::PREFACE, socket::Socket};
use crate::tls::client_hello::{ClientHello, HelloError, parse};

/// Room for what most clients send first.
const FIRST_READ: usize = 2048;
/// A request line of more is taken for no HTTP (Envoy: `MAX_INSPECT_SIZE`).
const LONGEST_LINE: usize = 64 * 1024;
/// Characters of a method; there is none of so many.
const LONGEST_METHOD: usize = 32;

/// What a connection showed, and its ClientHello where it has one.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) sniffed: Sniffed,
    pub(super) hello: Option<ClientHello>,
}

/// Reads behind `read` as much as it takes. May be dropped at any time: what was read is in `read`.
///
/// # Errors
/// What the socket reports; `UnexpectedEof` when it ends before a byte, as of who only looks whether a port is open.
pub(super) async fn sniff(socket: &mut Socket, read: &mut Vec<u8>, wants: Wants) -> io::Result<Shown> {
    loop {
        if let Some(shown) = look(read, wants) {
            return Ok(shown);
        }
        socket.readable().await;
        read.reserve(FIRST_READ);
        if socket.read_buf(read).await? == 0 {
            if read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(raw(None));
        }
    }
}

/// What these bytes show; `None`: more are needed.
fn look(bytes: &[u8], wants: Wants) -> Option<Shown> {
    if bytes.is_empty() {
        return None;
    }
    if wants.tls {
        match parse(bytes) {
            Ok(hello) => return Some(of_tls(hello)),
            Err(HelloError::Incomplete) => return None,
            Err(_) => {}
        }
    }
    if !wants.http {
        return Some(raw(None));
    }
    match http(bytes) {
        Http::Undecided => None,
        Http::Is(protocol) => Some(raw(Some(protocol))),
        Http::Not => Some(raw(None)),
    }
}

fn of_tls(hello: ClientHello) -> Shown {
    let sniffed = Sniffed {
        transport: Some(Transport::Tls),
        server_name: hello.server_name.as_deref().map(Into::into),
        protocols: hello.protocols().map(Into::into).collect(),
    };
    Shown { sniffed, hello: Some(hello) }
}

/// One in the clear, of this protocol where it is HTTP.
pub(super) fn raw(protocol: Option<&'static str>) -> Shown {
    let protocols = protocol.into_iter().map(|name| name.as_bytes().into()).collect();
    Shown { sniffed: Sniffed { transport: Some(Transport::Raw), server_name: None, protocols }, hello: None }
}

/// Whether a connection is HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http {
    Undecided,
    Not,
    /// One of [`PLAIN_HTTP`](routing::listener::PLAIN_HTTP).
    Is(&'static str),
}

/// Judges the preface of HTTP/2 (RFC 9113 §3.4) and the request line of HTTP/1 (RFC 9112 §3).
fn http(bytes: &[u8]) -> Http {
    let begin = bytes.get(..PREFACE.len()).unwrap_or(bytes);
    if begin == PREFACE {
        return Http::Is("h2c");
    }
    // One space of both is where they part.
    if PREFACE.starts_with(begin) {
        return Http::Undecided;
    }
    let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes, |end| bytes.split_at(end).0);
    let ended = line.len() < bytes.len();
    let more = if ended || line.len() > LONGEST_LINE { Http::Not } else { Http::Undecided };
    let mut words = line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b' ');
    let (method, target, version, rest) = (words.next(), words.next(), words.next(), words.next());
    let method = method.unwrap_or_default();
    if method.is_empty() || method.len() > LONGEST_METHOD || !method.iter().copied().all(is_of_token) {
        return Http::Not;
    }
    let Some(target) = target else { return more };
    if target.iter().any(u8::is_ascii_control) || (target.is_empty() && version.is_some()) {
        return Http::Not;
    }
    match (version, rest) {
        (None, _) => more,
        (Some(b"HTTP/1.1"), None) if ended => Http::Is("http/1.1"),
        (Some(b"HTTP/1.0"), None) if ended => Http::Is("http/1.0"),
        (Some(version), None) if b"HTTP/1.0".starts_with(version) || b"HTTP/1.1".starts_with(version) => more,
        (Some(_), _) => Http::Not,
    }
}

/// RFC 9110 §5.6.2.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_by_its_first_line_and_anything_else_at_once() {
        for (bytes, wanted) in [
            (&b"GET / HTTP/1.1\r\n"[..], Http::Is("http/1.1")),
            (b"GET / HTTP/1.0\nHost: a\n", Http::Is("http/1.0")),
            (b"M-SEARCH * HTTP/1.1\r\nx", Http::Is("http/1.1")),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http::Is("h2c")),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", Http::Is("h2c")),
            (b"P", Http::Undecided),
            (b"PRI * HT", Http::Undecided),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Http::Not),
            (b"GET", Http::Undecided),
            (b"GET /a?b", Http::Undecided),
            (b"GET / ", Http::Undecided),
            (b"GET / HTTP/1", Http::Undecided),
            (b"GET / HTTP/1.1", Http::Undecided),
            (b"GET / HTTP/1.1\r", Http::Undecided),
            (b"GET / HTTP/1.2\r\n", Http::Not),
            (b"GET / HTTP/2", Http::Not),
            (b"GET /\r\n", Http::Not),
            (b"GET  / HTTP/1.1\r\n", Http::Not),
            (b"GET / HTTP/1.1 x\r\n", Http::Not),
            (b"\0\0\0\x17", Http::Not),
            (b"\x16\x03\x01", Http::Not),
            (b"*1\r\n$4\r\nPING\r\n", Http::Not),
            (b"EHLO\r\n", Http::Not),
        ] {
            assert_eq!(http(bytes), wanted, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(http(&[b'A'; LONGEST_METHOD + 1]), Http::Not);
        let long = [b"GET /".to_vec(), vec![b'a'; LONGEST_LINE]].concat();
        assert_eq!(http(&long), Http::Not);
    }

    #[test]
    fn only_what_is_asked_for_is_waited_for() {
        let (tls, http) = (Wants { tls: true, http: false }, Wants { tls: false, http: true });
        let both = Wants { tls: true, http: true };
        assert!(look(b"", both).is_none());
        // Half a ClientHello, and half a request line.
        assert!(look(b"\x16\x03\x01\x01", tls).is_none());
        assert!(look(b"\x16\x03\x01\x01", both).is_none());
        assert!(look(b"GET", both).is_none());
        let protocols = |bytes: &[u8], wants| {
            let shown = look(bytes, wants).unwrap();
            assert_eq!(shown.sniffed.transport, Some(Transport::Raw));
            shown.sniffed.protocols.len()
        };
        assert_eq!(protocols(b"GET", tls), 0);
        assert_eq!(protocols(b"\x16\x03\x01\x01", http), 0);
        assert_eq!(protocols(b"GET / HTTP/1.1\r\n", both), 1);
        assert_eq!(protocols(b"\0\0", both), 0);
    }
}

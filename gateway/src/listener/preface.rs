//! HTTP/2 with prior knowledge in the clear: is the first thing a client sends the connection preface?
//!
//! Invariant: decided at the first byte that differs, so a short HTTP/1 request is never held back; what was read is given back.

use std::io;

use pingora_core::protocols::l4::stream::Stream;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::{EdgeTimeouts, stream::Protocol};

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads as much as it takes to tell HTTP/1 from HTTP/2 and puts it back.
///
/// # Errors
/// `TimedOut` when the peer is silent for `first_byte` or stops within the preface for `request_head`; `UnexpectedEof` when
/// it closes before a byte; whatever the socket reports.
pub(super) async fn detect(stream: &mut Stream, timeouts: EdgeTimeouts) -> io::Result<Protocol> {
    let mut read: Vec<u8> = Vec::new();
    let mut deadline = Instant::now() + timeouts.first_byte;
    let protocol = loop {
        let missing = PREFACE.len().saturating_sub(read.len()) as u64;
        let count = timeout_at(deadline, (&mut *stream).take(missing).read_buf(&mut read)).await??;
        match (count, read.is_empty()) {
            (0, true) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Half a preface and the end: the HTTP/1 parser says what is wrong with it.
            (0, false) => break Protocol::Http1,
            _ if !PREFACE.starts_with(&read) => break Protocol::Http1,
            _ if read.len() == PREFACE.len() => break Protocol::Http2,
            _ if read.len() == count => deadline = Instant::now() + timeouts.request_head,
            _ => {}
        }
    };
    stream.rewind(&read);
    Ok(protocol)
}

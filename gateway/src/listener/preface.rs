//! HTTP/2 with prior knowledge in the clear: is the first thing a client sends the connection preface?
//!
//! Invariant: decided at the first byte that differs, so a short HTTP/1 request is never held back; what was read is given back.
//! A client that says nothing costs no buffer.

use std::io;

use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::{EdgeLimits, socket::Socket, stream::Protocol};

/// RFC 9113 §3.4.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for what most clients send first.
const FIRST_READ: usize = 2048;

/// Reads as much, behind what was read already, as it takes to tell HTTP/1 from HTTP/2, and gives back what was read.
///
/// # Errors
/// `TimedOut` when the peer is silent for `first_byte` or stops within the preface for `request_head`; `UnexpectedEof` when
/// it closes before a byte; whatever the socket reports.
pub(super) async fn detect(
    socket: &mut Socket,
    mut read: Vec<u8>,
    limits: EdgeLimits,
) -> io::Result<(Protocol, Vec<u8>)> {
    let mut deadline = Instant::now() + limits.first_byte;
    let mut known = !read.is_empty();
    let protocol = loop {
        // What came behind a PROXY header is looked at before more is waited for.
        let count = if std::mem::take(&mut known) {
            read.len()
        } else {
            timeout_at(deadline, socket.readable()).await?;
            read.reserve(FIRST_READ);
            timeout_at(deadline, socket.read_buf(&mut read)).await??
        };
        let begin = read.get(..PREFACE.len()).unwrap_or(&read);
        match (count, read.is_empty()) {
            (0, true) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Half a preface and the end: the HTTP/1 reader says what is wrong with it.
            (0, false) => break Protocol::Http1,
            _ if !PREFACE.starts_with(begin) => break Protocol::Http1,
            _ if begin.len() == PREFACE.len() => break Protocol::Http2,
            _ if read.len() == count => deadline = Instant::now() + limits.request_head,
            _ => {}
        }
    };
    Ok((protocol, read))
}

//! A connection through a proxy: asked for with CONNECT (RFC 9110 §9.3.6), or carried in a POST, before anything of the client's
//! is sent.
//!
//! Invariant: what the proxy sends after its answer belongs to the client; an answer other than 2xx carries nothing.

mod post;

pub(super) use post::{Body, Posted};

use pingora_error::{Error, ErrorType, OrErr as _, Result};
use routing::cluster::{Tunnel, TunnelMethod};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest head of an answer.
const LONGEST: usize = 16 * 1024;

/// What a proxy answered that let the connection through.
pub(super) enum Opened {
    /// What follows is the connection's own, and so are these bytes.
    Straight(Vec<u8>),
    /// What follows is the body of an answer, which begins with these bytes.
    Within(Body, Vec<u8>),
}

/// Opens the tunnel on a connection to the proxy.
///
/// # Errors
/// Where the proxy refuses, or says what is no answer.
pub(super) async fn open(
    proxy: &mut (impl AsyncRead + AsyncWrite + Unpin),
    tunnel: &Tunnel,
) -> Result<Opened> {
    let target = &tunnel.target;
    let ask = match tunnel.method {
        TunnelMethod::Connect => format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"),
        // Envoy: `use_post`, whose path is the root.
        TunnelMethod::Post => {
            format!("POST / HTTP/1.1\r\nHost: {target}\r\nTransfer-Encoding: chunked\r\n\r\n")
        }
    };
    proxy.write_all(ask.as_bytes()).await.or_err(ErrorType::ConnectProxyFailure, "asking for a tunnel")?;
    proxy.flush().await.or_err(ErrorType::ConnectProxyFailure, "asking for a tunnel")?;
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let after = answer.split_off(end + 4);
            match (status(&answer), tunnel.method) {
                // An answer before the answer (RFC 9110 §15.2).
                (Some(100 | 102..=199), _) => answer = after,
                (Some(200..=299), TunnelMethod::Connect) => return Ok(Opened::Straight(after)),
                (Some(status @ 200..=299), TunnelMethod::Post) => {
                    return match Body::of(&answer, status) {
                        Some(body) => Ok(Opened::Within(body, after)),
                        None => refused("the proxy's answer has no clear end".to_owned()),
                    };
                }
                (Some(status), _) => return refused(format!("the proxy answered {status}")),
                (None, _) => return refused("the proxy's answer is not HTTP".to_owned()),
            }
            continue;
        }
        if answer.len() > LONGEST {
            return refused("the proxy's answer has no end".to_owned());
        }
        let read = proxy.read_buf(&mut answer).await.or_err(ErrorType::ConnectProxyFailure, "its answer")?;
        if read == 0 {
            return refused("the proxy closed the connection".to_owned());
        }
    }
}

fn refused(why: String) -> Result<Opened> {
    Error::e_explain(ErrorType::ConnectProxyFailure, why)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_from_a_status_line_only() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 no\r\n\r\n"), Some(407));
        assert_eq!(status(b"HTTP/2 200\r\n\r\n"), None);
        assert_eq!(status(b"SSH-2.0 200 \r\n\r\n"), None);
        assert_eq!(status(b"\r\n\r\n"), None);
    }
}

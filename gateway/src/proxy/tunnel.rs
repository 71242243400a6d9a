//! A connection through a proxy: asked for with CONNECT (RFC 9110 §9.3.6) before anything of the client's is sent.
//!
//! Invariant: what the proxy sends after its answer belongs to the client; an answer other than 2xx carries nothing.

use pingora_core::protocols::Stream;
use pingora_error::{Error, ErrorType, OrErr as _, Result};
use routing::cluster::{Tunnel, TunnelMethod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest head of an answer.
const LONGEST: usize = 16 * 1024;

/// Opens the tunnel on a connection to the proxy; returns what came through it already.
///
/// # Errors
/// Where the proxy refuses, says what is no answer, or cannot be asked in the way that is wanted.
pub(super) async fn open(proxy: &mut Stream, tunnel: &Tunnel) -> Result<Vec<u8>> {
    if tunnel.method == TunnelMethod::Post {
        return refused("tunnels by POST are not spoken".to_owned());
    }
    let target = &tunnel.target;
    let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    proxy.write_all(ask.as_bytes()).await.or_err(ErrorType::ConnectProxyFailure, "asking for a tunnel")?;
    proxy.flush().await.or_err(ErrorType::ConnectProxyFailure, "asking for a tunnel")?;
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let after = answer.split_off(end + 4);
            return match status(&answer) {
                Some(200..=299) => Ok(after),
                Some(status) => refused(format!("the proxy answered {status}")),
                None => refused("the proxy's answer is not HTTP".to_owned()),
            };
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

fn refused(why: String) -> Result<Vec<u8>> {
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

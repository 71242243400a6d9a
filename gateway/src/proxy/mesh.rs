//! TLS as Istio's mesh speaks it: with protocol names that tell its own connections from others.
//!
//! Invariant: a sidecar that takes plain text too (`PERMISSIVE`, Istio's default) refuses TLS that does not offer one of
//! them, and the engine can offer none: so these handshakes are ours. The engine's pool knows connections by their file
//! descriptors, which TLS of ours has not; so it is given one end of a pair of sockets, and [`relay`] carries what goes
//! through. That costs each byte one more copy, and no connection outside the mesh goes this way.

use super::secure::Secured;
use pingora_error::{ErrorType, OrErr as _, Result};
use routing::cluster::UpstreamProtocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// Bytes that are carried at a time, each way: a TLS record.
const BUFFER: usize = 16 * 1024;

/// What a connection carries: Istio's `istio.alpn` filter names it so to sidecars, and TCP clusters `istio` alone. (Istio's
/// name before that one, `istio-peer-exchange`, promises metadata in front of the data.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Http1,
    Http2,
    Tcp,
}

impl Carries {
    /// Protocol names, as ALPN has them on the wire (RFC 7301 §3.1).
    pub(super) const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"\x0eistio-http/1.1\x05istio\x08http/1.1",
            Self::Http2 => b"\x08istio-h2\x05istio\x02h2",
            Self::Tcp => b"\x05istio",
        }
    }

    /// What an HTTP connection carries.
    pub(super) const fn http(protocol: UpstreamProtocol) -> Self {
        match protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::Client => Self::Http1,
            UpstreamProtocol::Http2 => Self::Http2,
        }
    }
}

/// Gives the other end of what a task carries to and from `upstream`, until either is at its end.
///
/// # Errors
/// When the process has no file descriptors left.
pub(super) fn relay(upstream: Secured) -> Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair().or_err(ErrorType::ConnectError, "no file descriptor is left")?;
    tokio::spawn(carry(upstream, theirs));
    Ok(ours)
}

/// The engine ends a connection whole, never half of it: with the end of one way there is nobody for the other.
async fn carry(upstream: Secured, mut engine: UnixStream) {
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let (mut from_engine, mut to_engine) = engine.split();
    let there = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = from_engine.read(&mut buffer).await {
            let part = buffer.get(..read).unwrap_or_default();
            if to_upstream.write_all(part).await.is_err() || to_upstream.flush().await.is_err() {
                return;
            }
        }
        // That the other side is gone already is as good.
        let _closed = to_upstream.shutdown().await;
    };
    let back = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = from_upstream.read(&mut buffer).await {
            if to_engine.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_length_prefixed_and_none_promises_metadata() {
        for carries in [Carries::Http1, Carries::Http2, Carries::Tcp] {
            let (mut rest, mut names) = (carries.alpn(), Vec::new());
            while let [length, after @ ..] = rest {
                let (name, left) = after.split_at(usize::from(*length));
                names.push(std::str::from_utf8(name).unwrap());
                rest = left;
            }
            assert!(names.contains(&"istio"), "{names:?}");
            assert!(!names.contains(&"istio-peer-exchange"), "{names:?}");
        }
    }
}

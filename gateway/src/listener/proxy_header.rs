//! The PROXY protocol, versions 1 and 2, at the beginning of a connection: who the client is, from a balancer that is
//! trusted to say so.
//!
//! Invariant: read only from networks that are configured, bounded in time and in bytes, and total on any bytes. A connection that
//! must begin with a header and does not is closed: what it carries could be anybody's.

pub(crate) mod parse;

use std::{io, net::IpAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::edge::ProxyProtocol;
use parse::{Malformed, Said, parse};

/// Whether this peer's connections begin with a header.
pub(super) fn expected(from: &ProxyProtocol, peer: IpAddr) -> bool {
    match from {
        ProxyProtocol::Off => false,
        ProxyProtocol::From(networks) => {
            networks.is_empty() || networks.iter().any(|network| network.contains(peer))
        }
    }
}

/// Reads the header; what came behind it is in `bytes`.
///
/// # Errors
/// `InvalidData` for anything but a header; `UnexpectedEof` when it ends early; whatever the socket reports.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<Said> {
    loop {
        bytes.reserve(256);
        if stream.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(bytes) {
            Ok(Some((said, used))) => {
                bytes.drain(..used);
                return Ok(said);
            }
            Ok(None) => {}
            Err(Malformed) => return Err(io::Error::new(io::ErrorKind::InvalidData, "no PROXY header")),
        }
    }
}

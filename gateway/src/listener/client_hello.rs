//! The ClientHello of a connection, read and given back.
//!
//! Invariant: the handshake gets every byte that was read here, and a peer that has not shown a ClientHello costs [`LIMIT`] bytes
//! at most.

use std::io;

use pingora_core::protocols::l4::stream::Stream;
use tokio::io::AsyncReadExt;

use crate::tls::client_hello::{ClientHello, HelloError, LIMIT, parse};

/// Reads a ClientHello and puts it back. The caller sets the deadline.
///
/// # Errors
/// See [`HelloError`]; the connection is then good for nothing.
pub(super) async fn peek(stream: &mut Stream) -> Result<ClientHello, HelloError> {
    let mut read = Vec::with_capacity(1024);
    loop {
        if read.len() >= LIMIT {
            return Err(HelloError::TooLong);
        }
        if stream.read_buf(&mut read).await.map_err(HelloError::Io)? == 0 {
            return Err(HelloError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        match parse(&read) {
            Err(HelloError::Incomplete) => {}
            Err(error) => return Err(error),
            Ok(hello) => {
                stream.rewind(&read);
                return Ok(hello);
            }
        }
    }
}

//! The ClientHello of a connection, read and kept.
//!
//! Invariant: every byte that was read here is given back to the caller, and a peer that has not shown a ClientHello costs
//! [`LIMIT`] bytes at most.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::tls::client_hello::{ClientHello, HelloError, LIMIT, parse};

/// Room for what most clients send first.
const FIRST_READ: usize = 2048;

/// Reads a ClientHello, of which `read` may be the beginning, and gives back all that was read. The caller sets the deadline.
///
/// # Errors
/// See [`HelloError`]; the connection is then good for nothing.
pub(super) async fn peek(
    stream: &mut (impl AsyncRead + Unpin),
    mut read: Vec<u8>,
) -> Result<(ClientHello, Vec<u8>), HelloError> {
    loop {
        match parse(&read) {
            Err(HelloError::Incomplete) => {}
            Err(error) => return Err(error),
            Ok(hello) => return Ok((hello, read)),
        }
        if read.len() >= LIMIT {
            return Err(HelloError::TooLong);
        }
        read.reserve(FIRST_READ);
        if stream.read_buf(&mut read).await.map_err(HelloError::Io)? == 0 {
            return Err(HelloError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

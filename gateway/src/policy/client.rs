//! Who a request is from.

use super::Subject;
use crate::{listener::ConnectionInfo, tls::ClientCertificate};
use std::net::{IpAddr, SocketAddr};

/// The other end of a request: what is known of it, not what it says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    connection: &'a ConnectionInfo,
    named: Option<IpAddr>,
}

impl<'a> Client<'a> {
    /// `named`: as trusted proxies name it.
    pub(crate) fn new(connection: &'a ConnectionInfo, named: Option<IpAddr>) -> Client<'a> {
        Client { connection, named }
    }

    /// The client's address: as the trusted proxies in front name it, otherwise that of the connection.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.named.unwrap_or_else(|| self.peer().ip())
    }

    /// The other end of the connection, which may be a proxy in front; `0.0.0.0:0` on a unix socket.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.connection.peer
    }

    /// The address that the client connected to; its port is the bound one.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.connection.local
    }

    /// The port of the listener, before the process's port map.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.connection.listener.port
    }

    /// All that the security policies know of the connection.
    pub(crate) fn subject(&self) -> Subject<'a> {
        Subject::of(self.connection, self.named)
    }

    /// Whether TLS was terminated here.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.connection.tls
    }

    /// The server name of the TLS handshake, in lower case.
    #[must_use]
    pub fn server_name(&self) -> Option<&'a str> {
        self.connection.sni.as_deref()
    }

    /// The certificate that the client showed in the handshake, and that was found good.
    #[must_use]
    pub fn certificate(&self) -> Option<&'a ClientCertificate> {
        self.connection.client.as_ref()
    }
}

//! A request as the rules of policies see it.

use super::super::RequestHead;
use crate::{listener::ConnectionInfo, tls::ClientCertificate};
use routing::{
    authz::{Connection, Facts, Peer},
    request::{self, Scheme},
};
use std::net::{IpAddr, SocketAddr};

/// The connection as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its other end.
    pub peer: SocketAddr,
    /// The client, as trusted proxies name it, or its other end.
    pub client: IpAddr,
    /// This end.
    pub local: SocketAddr,
    /// The listener's port, before any port map.
    pub port: u16,
    /// Server name of the handshake.
    pub sni: Option<&'a str>,
    /// What the client showed in it.
    pub certificate: Option<&'a ClientCertificate>,
}

impl<'a> Subject<'a> {
    /// Of a connection, whose client is its other end unless it is named.
    pub(crate) fn of(info: &'a ConnectionInfo, named: Option<IpAddr>) -> Subject<'a> {
        Subject {
            peer: info.physical,
            client: named.unwrap_or_else(|| info.peer.ip()),
            local: info.local,
            port: info.port(),
            sni: info.sni.as_deref(),
            certificate: info.client.as_ref(),
        }
    }

    /// As rules compare it.
    #[must_use]
    pub fn connection(&self) -> Connection<'a> {
        Connection {
            peer: self.certificate.map(|shown| Peer {
                uris: &shown.uris,
                dns: &shown.dns,
                subject: &shown.subject,
            }),
            source: known(self.peer).map(|peer| peer.ip()),
            remote: known(self.peer).map(|_| self.client),
            destination: known(self.local).map(|local| local.ip()),
            port: self.port,
            sni: self.sni,
        }
    }
}

/// A unix socket has no addresses.
fn known(address: SocketAddr) -> Option<SocketAddr> {
    (address.port() != 0 || !address.ip().is_unspecified()).then_some(address)
}

/// What rules say of a request.
pub(super) fn with<R>(view: &RequestHead<'_>, ask: impl FnOnce(&Facts<'_>) -> R) -> R {
    let connection = view.client().subject().connection();
    let head = head(view);
    ask(&Facts { connection: &connection, request: Some(&head) })
}

/// The head as rules compare it.
pub(super) fn head<'v>(view: &'v RequestHead<'_>) -> request::RequestHead<'v> {
    request::RequestHead {
        method: view.method().as_str(),
        scheme: if *view.scheme() == http::uri::Scheme::HTTPS { Scheme::Https } else { Scheme::Http },
        authority: view.authority(),
        path: view.path(),
        query: view.query(),
        headers: view.headers(),
        claims: view.claims(),
    }
}

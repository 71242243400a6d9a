//! What policies may ask of a request and of the connection it came on.
//!
//! Invariant: borrowed from wherever it is known; a connection that is not looked into has no request.

use crate::request::RequestHead;
use std::net::IpAddr;

/// Who the other end proved to be, by its certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// Names of the kind URI.
    pub uris: &'a [String],
    /// Names of the kind DNS.
    pub dns: &'a [String],
    /// Subject.
    pub subject: &'a str,
}

impl Peer<'_> {
    /// Whether one of its names fits: Envoy compares all URIs, all DNS names, and then the subject.
    pub(crate) fn any(&self, fits: impl Fn(&[u8]) -> bool) -> bool {
        let names = self.uris.iter().chain(self.dns);
        names.map(String::as_bytes).any(&fits) || fits(self.subject.as_bytes())
    }
}

/// The connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection<'a> {
    /// Who the other end proved to be; `None`: it showed no certificate, or there is no TLS.
    pub peer: Option<Peer<'a>>,
    /// Its other end, whoever that is.
    pub source: Option<IpAddr>,
    /// The client: what trusted proxies or the PROXY protocol say, else the other end.
    pub remote: Option<IpAddr>,
    /// This end.
    pub destination: Option<IpAddr>,
    /// The listener's port, before any port map of the process.
    pub port: u16,
    /// Server name that the client asked for.
    pub sni: Option<&'a str>,
}

/// All that is known.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The connection.
    pub connection: &'a Connection<'a>,
    /// The request; `None` where the connection is not looked into.
    pub request: Option<&'a RequestHead<'a>>,
}

//! What is known about a connection before its first request, and the handle by which the proxy tells the stream when a head
//! has been read.
//!
//! Invariant: one [`ConnectionInfo`] per connection, shared by the stream and by every request on it.

use std::{
    any::Any,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use http::{HeaderValue, StatusCode};
use pingora_core::protocols::{Digest, raw_connect::ProxyDigest};
use pingora_http::ResponseHeader;
use routing::listener::ListenerKey;
use tokio::sync::watch;

/// A downstream connection.
///
/// The proxy calls [`head_read`](Self::head_read) when a request's head has been parsed (first thing in its first hook) and
/// [`request_finished`](Self::request_finished) when the exchange is over; between the two no deadline of the edge applies.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Listener that accepted it.
    pub listener: ListenerKey,
    /// Port of the socket that accepted it: the key's port after the port map; 0 on a unix socket.
    pub bound_port: u16,
    /// The client, IPv4 in its own form also on a dual-stack socket; `0.0.0.0:0` on a unix socket.
    pub peer: SocketAddr,
    /// The address the client connected to; `0.0.0.0:0` on a unix socket.
    pub local: SocketAddr,
    /// Server name of the ClientHello, lower case.
    pub sni: Option<Arc<str>>,
    /// Whether TLS was terminated here.
    pub tls: bool,
    phase: AtomicU8,
    received: AtomicU64,
    sent: AtomicU64,
    peer_header: HeaderValue,
    draining: watch::Receiver<bool>,
}

/// Where a connection is between two requests. HTTP/2 ends in `Exempt`: its heads are bounded by the frame limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No byte of the next request has come.
    Waiting = 0,
    /// A head is being read.
    Reading = 1,
    /// A request is being served.
    Serving = 2,
    /// No head deadline on this connection.
    Exempt = 3,
}

/// The addresses and names that a connection begins with.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    pub(super) listener: ListenerKey,
    pub(super) bound_port: u16,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

impl ConnectionInfo {
    pub(super) fn new(
        endpoints: Endpoints,
        sni: Option<Arc<str>>,
        tls: bool,
        draining: watch::Receiver<bool>,
    ) -> ConnectionInfo {
        let Endpoints { listener, bound_port, peer, local } = endpoints;
        ConnectionInfo {
            listener,
            bound_port,
            peer,
            local,
            sni,
            tls,
            phase: AtomicU8::new(Phase::Waiting as u8),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            // An address is made of characters that any header takes.
            peer_header: HeaderValue::try_from(peer.ip().to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            draining,
        }
    }

    /// The head of a request is complete: its deadline no longer runs. No effect on HTTP/2.
    pub fn head_read(&self) {
        self.advance(Phase::Reading, Phase::Serving);
        self.advance(Phase::Waiting, Phase::Serving);
    }

    /// The exchange is over: the next byte begins a new head. No effect on HTTP/2.
    pub fn request_finished(&self) {
        self.advance(Phase::Serving, Phase::Waiting);
    }

    /// Whether responses should ask the client to go (`Connection: close`).
    pub fn draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// The client's address without port, as `x-forwarded-for` names it: made once a connection.
    pub fn peer_header(&self) -> &HeaderValue {
        &self.peer_header
    }

    /// Bytes read from the client so far, after TLS.
    pub fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes written to the client so far, before TLS.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Waiting,
            1 => Phase::Reading,
            2 => Phase::Serving,
            _ => Phase::Exempt,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn advance(&self, from: Phase, to: Phase) {
        let _ = self.phase.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The connection of a request; `None` only when the session did not come through our own listeners.
///
/// Pingora's digests are the one thing that it hands from a stream to each session on HTTP/1 and on HTTP/2. Of these only the
/// proxy digest takes data of ours, and nothing else uses it on the downstream side.
pub fn connection_info(session: &pingora_proxy::Session) -> Option<&Arc<ConnectionInfo>> {
    of_digest(session.digest()?)
}

pub(super) fn of_digest(digest: &Digest) -> Option<&Arc<ConnectionInfo>> {
    digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
}

/// The digest that [`connection_info`] reads.
pub(super) fn digest(info: &Arc<ConnectionInfo>) -> Option<Arc<ProxyDigest>> {
    let head = ResponseHeader::build(StatusCode::OK, Some(0)).ok()?;
    let data: Box<dyn Any + Send + Sync> = Box::new(info.clone());
    Some(Arc::new(ProxyDigest::new(Box::new(head), Some(data))))
}

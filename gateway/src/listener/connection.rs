//! What is known about a connection before its first request, and the handle by which the proxy tells the stream when a head
//! has been read.
//!
//! Invariant: one [`ConnectionInfo`] per connection, shared by the stream and by every request on it.

use std::{
    any::Any,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode};
use pingora_core::protocols::{Digest, raw_connect::ProxyDigest};
use pingora_http::ResponseHeader;
use routing::listener::{Direction, ListenerKey, Sniffed};
use tokio::sync::watch;

use super::http1::Flaw;
use crate::{
    edge::EdgeConfig,
    pressure::{Level, Pressure},
    tls::ClientCertificate,
};

/// The end of an exchange that takes as long as it likes.
const NEVER: u64 = u64::MAX;

/// A downstream connection.
///
/// The proxy calls [`request_finished`](Self::request_finished) when an exchange is over, and
/// [`protocol_switched`](Self::protocol_switched) before it sends a 101: by these the stream knows when a client is idle, and
/// when what it sends is no longer HTTP.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Which of the connections of this process it is, from 0 on.
    pub id: u64,
    /// Listener that accepted it.
    pub listener: ListenerKey,
    /// Port of the socket that accepted it: the key's port after the port map; 0 on a unix socket.
    pub bound_port: u16,
    /// The client, IPv4 in its own form also on a dual-stack socket; `0.0.0.0:0` on a unix socket.
    pub peer: SocketAddr,
    /// The connection's other end, which a PROXY header may say is not the client.
    pub physical: SocketAddr,
    /// The address the client connected to; `0.0.0.0:0` on a unix socket.
    pub local: SocketAddr,
    /// Server name of the ClientHello, lower case.
    pub sni: Option<Arc<str>>,
    /// Whether TLS was terminated here.
    pub tls: bool,
    /// What the client showed of itself in the handshake, and was found good.
    pub client: Option<ClientCertificate>,
    /// Of a sidecar's connection, where it was going and what it showed; `None` on a gateway.
    pub course: Option<Box<Course>>,
    /// What clients might do when it was accepted.
    pub edge: Arc<EdgeConfig>,
    begun: AtomicU64,
    finished: AtomicU64,
    switched: AtomicBool,
    refusal: OnceLock<(u64, Flaw)>,
    received: AtomicU64,
    sent: AtomicU64,
    /// Of both what belongs to exchanges that are over.
    told: [AtomicU64; 2],
    opened: Instant,
    /// Nanoseconds from `opened` to the end of the exchange, and whether that has come.
    exchange_end: AtomicU64,
    exchange_over: AtomicBool,
    peer_header: HeaderValue,
    draining: watch::Receiver<bool>,
    /// Turned on when this connection alone is to go.
    leaving: watch::Sender<bool>,
    pressure: Arc<Pressure>,
}

/// The addresses and names that a connection begins with.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    pub(super) listener: ListenerKey,
    pub(super) bound_port: u16,
    pub(super) peer: SocketAddr,
    pub(super) physical: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) course: Option<Box<Course>>,
}

impl Endpoints {
    pub(super) fn direction(&self) -> Direction {
        self.course.as_ref().map_or(Direction::Gateway, |course| course.direction)
    }
}

/// What the chain of a sidecar's connection is found by, and what is done with it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// Whose connection it is.
    pub direction: Direction,
    /// Where it was going.
    pub destination: SocketAddr,
    /// Whether it was redirected here, so that this is somewhere else.
    pub redirected: bool,
    /// What its first bytes showed.
    pub sniffed: Sniffed,
}

impl ConnectionInfo {
    pub(super) fn new(
        endpoints: Endpoints,
        sni: Option<Arc<str>>,
        (tls, client): (bool, Option<ClientCertificate>),
        edge: Arc<EdgeConfig>,
        draining: watch::Receiver<bool>,
        pressure: Arc<Pressure>,
    ) -> ConnectionInfo {
        let Endpoints { listener, bound_port, peer, physical, local, course } = endpoints;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ConnectionInfo {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            listener,
            bound_port,
            peer,
            physical,
            local,
            sni,
            tls,
            client,
            course,
            edge,
            begun: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            switched: AtomicBool::new(false),
            refusal: OnceLock::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            told: [AtomicU64::new(0), AtomicU64::new(0)],
            opened: Instant::now(),
            exchange_end: AtomicU64::new(NEVER),
            exchange_over: AtomicBool::new(false),
            // An address is made of characters that any header takes.
            peer_header: HeaderValue::try_from(peer.ip().to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            draining,
            leaving: watch::Sender::new(false),
            pressure,
        }
    }

    /// One that nobody made, from this client to `127.0.0.1:80`.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn imagined(peer: SocketAddr) -> ConnectionInfo {
        let local = SocketAddr::from(([127, 0, 0, 1], 80));
        let listener = ListenerKey { bind: routing::listener::Bind::Any, port: 80 };
        let endpoints = Endpoints { listener, bound_port: 80, peer, physical: peer, local, course: None };
        let (_never, draining) = watch::channel(false);
        ConnectionInfo::new(endpoints, None, (false, None), Arc::default(), draining, crate::pressure::calm())
    }

    /// Where it was going before it was redirected here.
    pub(crate) fn original_destination(&self) -> Option<SocketAddr> {
        self.course.as_ref().filter(|course| course.redirected).map(|course| course.destination)
    }

    /// The port that security policies know it by: that of the listener, before the process's port map, and beside a workload the
    /// one that the client meant.
    pub(crate) fn port(&self) -> u16 {
        match &self.course {
            Some(course) if course.direction == Direction::Inbound => course.destination.port(),
            Some(_) | None => self.listener.port,
        }
    }

    /// Which way it goes.
    pub(crate) fn direction(&self) -> Direction {
        self.course.as_ref().map_or(Direction::Gateway, |course| course.direction)
    }

    /// Whether it is the workload's own, on its way out. Policies say who may come to a workload, and nothing of these.
    pub(crate) fn is_outbound(&self) -> bool {
        self.direction() == Direction::Outbound
    }

    /// Whether it is for the workload beside a sidecar.
    pub(crate) fn is_inbound(&self) -> bool {
        self.direction() == Direction::Inbound
    }

    /// A request is being served; its end is [`request_finished`](Self::request_finished).
    pub fn request_begun(&self) {
        self.begun.fetch_add(1, Ordering::Release);
    }

    /// The exchange is over: what comes next begins a new head, and the connection may be idle.
    pub fn request_finished(&self) {
        self.finished.fetch_add(1, Ordering::Release);
    }

    /// The client gets what it asked for, another protocol; what it sends from here on is not looked at.
    pub fn protocol_switched(&self) {
        self.switched.store(true, Ordering::Release);
    }

    /// Why the HTTP/1 request that is being served must be refused; `None`: nothing is wrong with it so far.
    pub(crate) fn refusal(&self) -> Option<Flaw> {
        let (head, flaw) = self.refusal.get()?;
        (*head == self.finished() + 1).then_some(*flaw)
    }

    /// Whether responses should ask the client to go (`Connection: close`).
    pub fn draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// The client is told to go: it has been idle for too long.
    pub(super) fn ask_to_go(&self) {
        self.leaving.send_replace(true);
    }

    /// Turns true when the client is to be told to go.
    pub(super) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// What the process asks of clients for want of memory or file descriptors.
    pub fn pressure(&self) -> Level {
        self.pressure.level()
    }

    /// The client's address without port, as `x-forwarded-for` names it: made once a connection.
    pub fn peer_header(&self) -> &HeaderValue {
        &self.peer_header
    }

    /// When it was accepted, or its handshake was over.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// Bytes read from the client so far, after TLS.
    pub fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes written to the client so far, before TLS.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Says when the exchange on an HTTP/1 connection must be over; `None`: it takes as long as it likes. Reads and writes
    /// that wait end then, with an error.
    pub(crate) fn end_exchange_at(&self, end: Option<Instant>) {
        let nanos = |end: Instant| u64::try_from(end.saturating_duration_since(self.opened).as_nanos());
        // One task reads, writes and sets.
        self.exchange_end.store(end.and_then(|end| nanos(end).ok()).unwrap_or(NEVER), Ordering::Relaxed);
        self.exchange_over.store(false, Ordering::Relaxed);
    }

    /// Whether the exchange was ended because its time was up.
    pub(crate) fn is_exchange_over(&self) -> bool {
        self.exchange_over.load(Ordering::Relaxed)
    }

    pub(super) fn exchange_end(&self) -> Option<Instant> {
        match self.exchange_end.load(Ordering::Relaxed) {
            NEVER => None,
            nanos => self.opened.checked_add(Duration::from_nanos(nanos)),
        }
    }

    pub(super) fn exchange_is_over(&self) {
        self.exchange_over.store(true, Ordering::Relaxed);
    }

    /// Exchanges that are over.
    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    /// Whether a request is being served.
    pub(super) fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Acquire) > self.finished()
    }

    /// Whether another protocol was switched to.
    pub(super) fn switched(&self) -> bool {
        self.switched.load(Ordering::Acquire)
    }

    /// Refuses the request whose head is the `head`th of the connection.
    pub(super) fn refuse(&self, head: u64, flaw: Flaw) {
        // Nothing is read behind the first refusal.
        let _ = self.refusal.set((head, flaw));
    }

    /// Bytes that came and went since this was asked last: on HTTP/1, where one exchange follows another, those of the one that is
    /// over. What a client sends ahead of its turn counts for the exchange before.
    pub fn bytes_exchanged(&self) -> (u64, u64) {
        let since = |now: u64, told: &AtomicU64| now.saturating_sub(told.swap(now, Ordering::Relaxed));
        let [received, sent] = &self.told;
        (since(self.bytes_received(), received), since(self.bytes_sent(), sent))
    }

    pub(super) fn count_received(&self, bytes: usize) {
        // The stream is the only writer.
        self.received.store(self.bytes_received() + bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.store(self.bytes_sent() + bytes as u64, Ordering::Relaxed);
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

//! Copies of requests, to the mirrors of a rule.
//!
//! Invariant: a mirror never slows or fails the request it copies. What is sent on to it waits in a bounded buffer, and
//! a copy that falls behind, or comes when too many are under way, is dropped. A copy of a request that does not end is
//! never made to look as if it had. Its response is read and forgotten.

use super::{ctx::Ctx, heads::edit_request, peer, upstream};
use crate::runtime::{Admission, Cluster, InFlight, limits::Admitted};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Uri, Version, header};
use pingora_core::{
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::client::HttpSession,
    upstreams::peer::{HttpPeer, Peer},
};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use prometheus::IntCounter;
use routing::{action::mirror, cluster::UpstreamProtocol};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Copies under way at a time.
const MOST_COPIES: usize = 1024;
/// Bytes of a body that may wait for one mirror (Envoy: the buffer limit of a shadowed request, 1 MiB).
const MOST_HELD: usize = 1 << 20;
/// The same for all mirrors together: slow ones may hold memory that nobody else gets.
const MOST_HELD_IN_ALL: usize = 64 << 20;
/// How long a copy may take where the rule gives no time.
const LONGEST: Duration = Duration::from_secs(60);
/// Idle connections to mirrors that are kept.
const POOL: usize = 128;

/// What belongs to one hop (RFC 9110 §7.6.1), and the framing, which each connection makes for itself.
const OF_THE_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Makes copies and sees them through.
pub(super) struct Mirrors {
    connector: OnceLock<Connector>,
    room: Arc<Semaphore>,
    held: Arc<AtomicUsize>,
    dropped: IntCounter,
}

/// Bytes of a body that wait for one mirror; a part of those that wait for all.
#[derive(Default)]
struct Held {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
enum Hold {
    Held,
    TooMuch,
}

impl Held {
    fn hold(&self, bytes: usize) -> Hold {
        let own = self.own.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if own > MOST_HELD || all > MOST_HELD_IN_ALL { Hold::TooMuch } else { Hold::Held }
    }

    fn release(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held {
    /// What was never sent on goes with the copy.
    fn drop(&mut self) {
        self.all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

/// The copies of one request while its body arrives.
pub(super) struct Copies {
    copies: Vec<Copy>,
    /// Bytes of the body that the copies have.
    sent: u64,
    /// Bytes of the body that the attempt under way has.
    seen: u64,
    dropped: IntCounter,
}

struct Copy {
    body: mpsc::UnboundedSender<Part>,
    held: Arc<Held>,
}

enum Part {
    Data(Bytes),
    /// The body is whole. A body that ends without it was cut off.
    End,
}

/// One copy on its way.
struct Delivery {
    peer: HttpPeer,
    head: RequestHeader,
    body: Option<(mpsc::UnboundedReceiver<Part>, Arc<Held>)>,
    cluster: Arc<Cluster>,
    _load: InFlight,
    _place: Option<Admitted>,
    _room: OwnedSemaphorePermit,
}

impl Mirrors {
    /// `dropped` counts the copies that were not made, or given up for want of room.
    pub(super) fn new(dropped: IntCounter) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(MOST_COPIES));
        Arc::new(Self { connector: OnceLock::new(), room, held: Arc::default(), dropped })
    }

    /// Begins the copies of a request whose `head` is ready to go upstream for the first time.
    pub(super) fn start(self: &Arc<Self>, session: &mut Session, head: &RequestHeader, ctx: &mut Ctx) {
        ctx.mirrored = true;
        let Some(filters) = ctx.filters().filter(|filters| !filters.mirrors.is_empty()) else { return };
        if session.is_upgrade_req() {
            return;
        }
        let has_body = !session.as_downstream_mut().is_body_empty();
        let time = ctx.forward().and_then(|forward| forward.timeout).unwrap_or(LONGEST);
        let mut copies = Vec::new();
        for mirror in mirror::chosen(&filters.mirrors, || fastrand::u64(..)) {
            let Some(cluster) = ctx.snapshot.clusters.get(&mirror.cluster) else { continue };
            let Some((delivery, copy)) =
                self.prepare(cluster, head, upstream::protocol(cluster, session), has_body)
            else {
                self.dropped.inc();
                continue;
            };
            copies.extend(copy);
            let mirrors = self.clone();
            tokio::spawn(async move {
                match tokio::time::timeout(time, mirrors.deliver(delivery)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => tracing::debug!(error = %e, "a mirror did not take its copy"),
                    Err(_) => tracing::debug!("a mirror took too long over its copy"),
                }
            });
        }
        if !copies.is_empty() {
            ctx.copies = Some(Box::new(Copies { copies, sent: 0, seen: 0, dropped: self.dropped.clone() }));
        }
    }

    fn prepare(
        &self,
        cluster: &Arc<Cluster>,
        head: &RequestHeader,
        protocol: UpstreamProtocol,
        has_body: bool,
    ) -> Option<(Delivery, Option<Copy>)> {
        let room = self.room.clone().try_acquire_owned().ok()?;
        // A copy waits for no place in the cluster's limits.
        let Some(Admission::Granted(place)) = cluster.admit(protocol).now_or_never() else { return None };
        let authority = head.headers.get(header::HOST)?.to_str().ok()?;
        let endpoint = cluster.pick(|| fastrand::u64(..), None, &[])?;
        let peer = peer::build(cluster, &endpoint.endpoint, protocol, authority, None).ok()?;
        let head = copy_of(head, protocol, authority, has_body).ok()?;
        let (copy, body) = has_body
            .then(|| {
                let (sender, receiver) = mpsc::unbounded_channel();
                let held = Arc::new(Held { own: AtomicUsize::new(0), all: self.held.clone() });
                (Copy { body: sender, held: held.clone() }, (receiver, held))
            })
            .unzip();
        let _load = endpoint.begin(cluster);
        let cluster = cluster.clone();
        Some((Delivery { peer, head, body, cluster, _load, _place: place, _room: room }, copy))
    }

    async fn deliver(&self, delivery: Delivery) -> Result<()> {
        let Delivery { peer, head, body, cluster, _load, _place, _room } = delivery;
        let connector = self.connector.get_or_init(|| Connector::new(Some(ConnectorOptions::new(POOL))));
        let (mut session, _) = connector.get_http_session(&peer).await?;
        if peer.is_tls() {
            peer::verify(cluster.tls(), session.digest())?;
        }
        session.write_request_header(Box::new(head)).await?;
        if let Some((mut parts, held)) = body {
            loop {
                match parts.recv().await {
                    Some(Part::Data(data)) => {
                        held.release(data.len());
                        session.write_request_body(data, false).await?;
                    }
                    Some(Part::End) => break,
                    None => {
                        session.shutdown().await;
                        return Error::e_explain(ErrorType::ReadError, "the request was cut off");
                    }
                }
            }
        }
        session.finish_request_body().await?;
        forget_response(&mut session).await?;
        connector.release_http_session(session, &peer, peer.idle_timeout()).await;
        Ok(())
    }
}

async fn forget_response(upstream: &mut HttpSession) -> Result<()> {
    loop {
        upstream.read_response_header().await?;
        if upstream.response_header().is_none_or(|head| !head.status.is_informational()) {
            break;
        }
    }
    while upstream.read_response_body().await?.is_some() {}
    Ok(())
}

/// The head of a copy, for a connection that speaks `protocol`.
pub(super) fn copy_of(
    head: &RequestHeader,
    protocol: UpstreamProtocol,
    authority: &str,
    has_body: bool,
) -> Result<RequestHeader> {
    let mut copy = head.clone();
    let host = HeaderValue::from_str(authority).or_err(ErrorType::InternalError, "authority of a copy")?;
    let target = head.uri.path_and_query().cloned();
    edit_request(&mut copy, |parts| -> Result<()> {
        for name in &OF_THE_HOP {
            parts.headers.remove(name);
        }
        if protocol == UpstreamProtocol::Http1 {
            parts.version = Version::HTTP_11;
            parts.headers.insert(header::HOST, host);
            if has_body && !parts.headers.contains_key(header::CONTENT_LENGTH) {
                parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            return Ok(());
        }
        parts.version = Version::HTTP_2;
        parts.headers.remove(header::HOST);
        if head.headers.get(header::TE).is_some_and(|te| te == "trailers") {
            parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let uri = Uri::builder().scheme("http").authority(authority);
        let uri = target.into_iter().fold(uri, |uri, target| uri.path_and_query(target));
        parts.uri = uri.build().or_err(ErrorType::InternalError, "target of a copy")?;
        Ok(())
    })?;
    Ok(copy)
}

impl Copies {
    /// Notes that the body begins anew, for another attempt.
    pub(super) fn rewind(&mut self) {
        self.seen = 0;
    }

    /// Sends on what of `data` the copies do not have, and that the body has ended.
    pub(super) fn pass(&mut self, data: Option<&Bytes>, end: bool) {
        if let Some(data) = data {
            let had = usize::try_from(self.sent - self.seen.min(self.sent)).unwrap_or(usize::MAX);
            self.seen += data.len() as u64;
            self.sent = self.sent.max(self.seen);
            if had < data.len() {
                self.send(&data.slice(had..));
            }
        }
        if end {
            for copy in self.copies.drain(..) {
                // A copy that has ended already needs no end.
                let _ended = copy.body.send(Part::End);
            }
        }
    }

    fn send(&mut self, data: &Bytes) {
        self.copies.retain(|copy| {
            if copy.held.hold(data.len()) == Hold::TooMuch {
                self.dropped.inc();
                return false;
            }
            copy.body.send(Part::Data(data.clone())).is_ok()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies() -> (Copies, mpsc::UnboundedReceiver<Part>) {
        let (body, parts) = mpsc::unbounded_channel();
        let copy = Copy { body, held: Arc::default() };
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        (Copies { copies: vec![copy], sent: 0, seen: 0, dropped }, parts)
    }

    /// What arrived, and whether it ended.
    fn arrived(parts: &mut mpsc::UnboundedReceiver<Part>) -> (String, bool) {
        let mut text = String::new();
        while let Ok(part) = parts.try_recv() {
            match part {
                Part::Data(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                Part::End => return (text, true),
            }
        }
        (text, false)
    }

    #[test]
    fn a_body_that_is_sent_again_is_copied_once() {
        let (mut copies, mut parts) = copies();
        copies.pass(Some(&Bytes::from_static(b"abc")), false);
        copies.rewind();
        copies.pass(Some(&Bytes::from_static(b"abcd")), false);
        copies.rewind();
        copies.pass(Some(&Bytes::from_static(b"ab")), false);
        copies.pass(Some(&Bytes::from_static(b"cdef")), true);
        copies.rewind();
        copies.pass(Some(&Bytes::from_static(b"abcdef")), true);
        assert_eq!(arrived(&mut parts), ("abcdef".to_owned(), true));
    }

    #[test]
    fn a_copy_that_falls_behind_is_dropped_without_an_end() {
        let (mut copies, mut parts) = copies();
        let chunk = Bytes::from(vec![b'x'; MOST_HELD / 2]);
        for _ in 0..3 {
            copies.pass(Some(&chunk), false);
        }
        copies.pass(None, true);
        let (text, ended) = arrived(&mut parts);
        assert_eq!((text.len(), ended), (MOST_HELD, false));
        assert_eq!(copies.dropped.get(), 1);
    }

    #[test]
    fn all_mirrors_together_hold_no_more_than_there_is_for_them() {
        let all = Arc::new(AtomicUsize::new(MOST_HELD_IN_ALL - 10));
        let held = |bytes| {
            let held = Held { own: AtomicUsize::new(0), all: all.clone() };
            (held.hold(bytes), held)
        };
        let (first, kept) = held(10);
        assert_eq!(first, Hold::Held);
        assert_eq!(held(1).0, Hold::TooMuch, "and gives back what it asked for");
        kept.release(4);
        assert_eq!(held(4).0, Hold::Held);
        drop(kept);
        assert_eq!(all.load(Ordering::Relaxed), MOST_HELD_IN_ALL - 10);
    }

    #[test]
    fn a_copy_speaks_the_mirrors_protocol() {
        let mut head = RequestHeader::build("POST", b"/a?b", None).unwrap();
        for (name, value) in [
            ("host", "a.example"),
            ("transfer-encoding", "chunked"),
            ("connection", "keep-alive"),
            ("x-a", "1"),
        ] {
            head.insert_header(name, value).unwrap();
        }
        let one = copy_of(&head, UpstreamProtocol::Http1, "a.example", true).unwrap();
        assert_eq!(one.headers["transfer-encoding"], "chunked");
        assert_eq!((one.headers["host"].to_str().unwrap(), one.raw_path()), ("a.example", &b"/a?b"[..]));
        assert!(!one.headers.contains_key("connection"));
        let two = copy_of(&head, UpstreamProtocol::Http2, "a.example", true).unwrap();
        assert_eq!(two.uri.to_string(), "http://a.example/a?b");
        assert_eq!((two.version, two.headers.len()), (Version::HTTP_2, 1));
        let bodiless = copy_of(&head, UpstreamProtocol::Http1, "a.example", false).unwrap();
        assert!(!bodiless.headers.contains_key("transfer-encoding"));
    }
}

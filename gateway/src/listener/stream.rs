//! The stream that the engine reads: lets through what was read strictly, counts bytes, joins small writes, and ends
//! what takes too long.
//!
//! Invariant: a request that arrives in one piece is looked at once, where it lies: no copy, no allocation, no clock, no
//! timer. Only what is not complete is put aside until it is.

mod head_out;
mod http1_side;
mod http2_side;
mod timer;

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt;
use pingora_core::{
    protocols::{
        ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
        TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
    },
    tls::ssl::SslRef,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf},
    sync::watch,
    time::{Instant, timeout},
};

use http1_side::Http1Side;
use http2_side::Http2Side;
use timer::Timer;

use super::{
    EdgeLimits,
    connection::{self, ConnectionInfo},
    http1::Flaw,
    http2, idle,
    socket::Readable,
};

/// A response head and a small body fit, so that they leave in one packet (and in one TLS record).
const WRITE_BUFFER: usize = 4096;

/// Room below which a head is not read in place.
const SMALL_READ: usize = 64;

/// What is put aside of a client that sends before its request for another protocol is answered.
const MAX_UNDECIDED: usize = 64 * 1024;

/// How long, and for how many bytes, a client is listened to after a refusal, so that the answer is not lost in the reset
/// that unread bytes cause (RFC 9112 §9.6; Envoy: `delayed_close_timeout`).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2, by ALPN or by its preface.
    Http2,
}

/// A downstream connection as the engine sees it.
pub struct EdgeStream<S: AsyncRead + AsyncWrite + Unpin> {
    io: BufWriter<S>,
    info: Arc<ConnectionInfo>,
    digest: Option<Arc<ProxyDigest>>,
    side: Side,
    limits: EdgeLimits,
    timer: Timer,
    /// For the end of an exchange.
    exchange: Timer,
    close_idle: watch::Receiver<bool>,
    idle_closed: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    idle_waker: Option<Waker>,
    /// Something was written since the last flush.
    unflushed: bool,
}

/// What is known of the client's side.
enum Side {
    Http1(Http1Side),
    Http2(Http2Side),
}

impl<S: IO> EdgeStream<S> {
    /// Wraps a stream whose protocol is known, and of which `begun` has been read. `close_idle` turning true ends the connection as
    /// soon as no request is on it.
    pub(super) fn new(
        io: S,
        info: Arc<ConnectionInfo>,
        (protocol, begun): (Protocol, Vec<u8>),
        limits: EdgeLimits,
        close_idle: watch::Receiver<bool>,
    ) -> EdgeStream<S> {
        info.count_received(begun.len());
        let side = match protocol {
            Protocol::Http1 => Side::Http1(Http1Side::new(limits.head, begun)),
            Protocol::Http2 => {
                let deadline = Instant::now() + limits.request_head;
                Side::Http2(Http2Side::new(deadline, begun))
            }
        };
        EdgeStream {
            io: BufWriter::with_capacity(WRITE_BUFFER, io),
            digest: connection::digest(&info),
            info,
            side,
            limits,
            timer: Timer::default(),
            exchange: Timer::default(),
            close_idle,
            idle_closed: None,
            idle_waker: None,
            unflushed: false,
        }
    }

    fn poll_read_http1(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let Side::Http1(side) = &mut self.side else { return Poll::Ready(Ok(())) };
            if !side.ready.is_empty() {
                side.ready.take(buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(flaw) = side.body_flaw {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, flaw.details())));
            }
            if side.reader.is_refused() {
                // Not the end yet while earlier requests are being served.
                let over = self.info.finished() >= side.reader.heads();
                return if over { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            if side.reader.asked() && !side.held.is_empty() {
                side.decide(&self.info);
                if !side.reader.asked() {
                    side.unseen = true;
                } else if side.held.len() > MAX_UNDECIDED {
                    // The engine asks again once it has the answer.
                    return Poll::Pending;
                }
            }
            // What comes behind a request stays here until that is answered: the engine listens meanwhile, which is how it
            // hears that the client goes, or that time is up.
            let waits = side.awaits_answer(&self.info);
            if side.unseen && !waits {
                side.look(&self.info, &self.limits);
                continue;
            }
            let before = buf.filled().len();
            let aside = buf.remaining() < SMALL_READ && side.reader.between_messages();
            let read = if waits && side.held.len() > MAX_UNDECIDED {
                Poll::Pending
            } else if aside {
                side.poll_aside(&mut self.io, cx)
            } else {
                let io = Pin::new(&mut self.io);
                io.poll_read(cx, buf).map_ok(|()| buf.filled().len().saturating_sub(before))
            };
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(count)) => {
                    self.info.count_received(count);
                    if aside {
                        continue;
                    }
                    side.came(buf, before, &self.info, &self.limits);
                    if buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if let Poll::Ready(over) = poll_exchange(&self.info, &mut self.exchange, cx) {
                        return Poll::Ready(Err(over));
                    }
                    if self.info.switched() {
                        // A tunnel is one stream: silent both ways for too long it ends.
                        let Some(limit) = self.limits.stream_idle else { return Poll::Pending };
                        let moved = self.info.bytes_received().wrapping_add(self.info.bytes_sent());
                        ready!(self.timer.poll_idle(limit, moved, cx));
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    } else if let Some(deadline) = side.deadline {
                        ready!(self.timer.poll_deadline(deadline, cx));
                        side.held = Vec::new();
                        let stop = side.reader.refuse(Flaw::HeadTimeout);
                        side.stopped(stop, Vec::new(), &self.info, &self.limits);
                    } else if side.is_idle(&self.info) {
                        side.body_deadline = None;
                        let heads = side.reader.heads();
                        let limit = if heads == 0 { self.limits.first_byte } else { self.limits.idle };
                        if self.timer.poll_idle(limit, heads, cx).is_ready() {
                            return Poll::Ready(Ok(()));
                        }
                        return self.poll_idle_closed(cx).map(Ok);
                    } else if let (Some(limit), true) = (self.limits.request, side.reader.in_body()) {
                        let deadline = side.body_deadline.get_or_insert_with(|| Instant::now() + limit);
                        ready!(self.timer.poll_deadline(*deadline, cx));
                        self.info.refuse(side.reader.heads(), Flaw::RequestTimeout);
                        side.body_flaw = Some(Flaw::RequestTimeout);
                    } else {
                        side.body_deadline = None;
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn poll_read_http2(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Side::Http2(side) = &mut self.side else { return Poll::Ready(Ok(())) };
        if !side.ready.is_empty() {
            side.ready.take(buf);
            return Poll::Ready(Ok(()));
        }
        if side.flood {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "flood of control frames")));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let new = buf.filled().get(before..).unwrap_or_default();
                self.info.count_received(new.len());
                if let Err((good, _)) = side.frames.read(new) {
                    side.flood = true;
                    buf.set_filled(before + good);
                    side.ready.add(http2::last_straw());
                    if good == 0 {
                        side.ready.take(buf);
                    }
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if side.frames.preface_left() > 0 => {
                ready!(self.timer.poll_deadline(side.deadline, cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => side.poll_quiet(&self.info, &self.limits, &mut self.timer, cx).map(Err),
        }
    }

    fn poll_idle_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let EdgeStream { idle_closed, idle_waker, close_idle, info, limits, .. } = self;
        // Who waits already is woken.
        if idle_waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
            && !close_idle.has_changed().unwrap_or(false)
        {
            return Poll::Pending;
        }
        let waiting = idle_closed.get_or_insert_with(|| {
            let fair = Instant::from_std(info.opened()) + limits.newcomer;
            Box::pin(idle::closed(close_idle.clone(), fair))
        });
        let polled = waiting.as_mut().poll(cx);
        *idle_waker = Some(cx.waker().clone());
        polled
    }

    /// Reads what nobody wants to know, so that what was said last arrives.
    async fn linger(&mut self) {
        let mut sink = [0; 8192];
        let mut left = LINGER_BYTES;
        while let Ok(count @ 1..) = self.io.read(&mut sink).await {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    }
}

/// Ready when the time of the exchange is up.
fn poll_exchange(info: &ConnectionInfo, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<io::Error> {
    let Some(end) = info.exchange_end() else { return Poll::Pending };
    ready!(timer.poll_by(end.into(), cx));
    info.exchange_is_over();
    Poll::Ready(io::ErrorKind::TimedOut.into())
}

impl<S: IO> AsyncRead for EdgeStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.side {
            Side::Http1(_) => {
                let read = this.poll_read_http1(cx, buf);
                // The engine flushes a body of known length at its end only. Who listens to the client has nothing more to write for now.
                if read.is_pending()
                    && this.unflushed
                    && let Poll::Ready(flushed) = Pin::new(&mut *this).poll_flush(cx)
                {
                    flushed?;
                }
                read
            }
            Side::Http2(_) => this.poll_read_http2(cx, buf),
        }
    }
}

impl<S: IO> AsyncWrite for EdgeStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unflushed = true;
        if let Side::Http1(side) = &mut this.side
            && let Some(piece) = side.head_out.piece(buf, this.info.finished(), &mut side.out)
        {
            // The buffer has room for the whole of it, or is not ready.
            let Poll::Ready(count) = Pin::new(&mut this.io).poll_write(cx, &side.out)? else {
                return poll_exchange(&this.info, &mut this.exchange, cx).map(Err);
            };
            debug_assert_eq!(count, side.out.len(), "a piece is shorter than the buffer");
            this.info.count_sent(count);
            side.head_out.wrote(&piece);
            return Poll::Ready(Ok(piece.taken));
        }
        match Pin::new(&mut this.io).poll_write(cx, buf)? {
            Poll::Ready(count) => {
                this.info.count_sent(count);
                Poll::Ready(Ok(count))
            }
            Poll::Pending => poll_exchange(&this.info, &mut this.exchange, cx).map(Err),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unflushed = true;
        match Pin::new(&mut this.io).poll_write_vectored(cx, bufs)? {
            Poll::Ready(count) => {
                this.info.count_sent(count);
                Poll::Ready(Ok(count))
            }
            Poll::Pending => poll_exchange(&this.info, &mut this.exchange, cx).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The engine flushes several times a response.
        if !this.unflushed {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut this.io).poll_flush(cx) {
            Poll::Pending => poll_exchange(&this.info, &mut this.exchange, cx).map(Err),
            flushed => {
                this.unflushed = false;
                flushed
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drop for EdgeStream<S> {
    /// The engine relies on the bottom stream to write out what it has buffered when it is dropped; ours must too.
    fn drop(&mut self) {
        if !self.io.buffer().is_empty() {
            let _ = self.io.flush().now_or_never();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> fmt::Debug for EdgeStream<S> {
    /// Without the buffer: it holds what users send.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeStream").field("info", &self.info).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: IO> Shutdown for EdgeStream<S> {
    async fn shutdown(&mut self) {
        // A peer that has gone already is no news.
        let _ = AsyncWriteExt::shutdown(&mut self.io).await;
        if matches!(&self.side, Side::Http1(side) if side.reader.unread()) {
            let _ = timeout(LINGER, self.linger()).await;
        }
    }
}

impl<S: IO> UniqueID for EdgeStream<S> {
    fn id(&self) -> UniqueIDType {
        self.io.get_ref().id()
    }
}

impl<S: IO> Ssl for EdgeStream<S> {
    fn get_ssl(&self) -> Option<&SslRef> {
        self.io.get_ref().get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.io.get_ref().get_ssl_digest()
    }

    /// HTTP/2 also for prior knowledge in the clear: the engine then does not peek, which it would do without a deadline.
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match self.side {
            Side::Http2(_) => Some(ALPN::H2),
            Side::Http1(_) => Some(ALPN::H1),
        }
    }
}

impl<S: IO> GetTimingDigest for EdgeStream<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.io.get_ref().get_timing_digest()
    }
}

impl<S: IO> GetProxyDigest for EdgeStream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone()
    }
}

impl<S: IO> GetSocketDigest for EdgeStream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.io.get_ref().get_socket_digest()
    }
}

#[async_trait]
impl<S: IO + Readable> Peek for EdgeStream<S> {
    /// Waits for the client without a session and its buffers, which is most of what an idle connection would cost; reads nothing.
    async fn try_peek(&mut self, _: &mut [u8]) -> io::Result<bool> {
        std::future::poll_fn(|cx| self.poll_client(cx, S::poll_readable)).await?;
        Ok(true)
    }
}

impl<S: IO> EdgeStream<S> {
    /// Ready when the engine may read; an error when there is nothing more to come.
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        poll_readable: impl Fn(&S, &mut Context<'_>) -> Poll<()>,
    ) -> Poll<io::Result<()>> {
        let Side::Http1(side) = &mut self.side else { return Poll::Ready(Ok(())) };
        let nothing_read = side.ready.is_empty() && side.held.is_empty() && !side.unseen;
        let between = side.reader.between_messages() && !side.reader.asked() && side.is_idle(&self.info);
        if !(nothing_read && between && self.io.buffer().is_empty()) {
            return Poll::Ready(Ok(()));
        }
        if poll_readable(self.io.get_ref(), cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        side.body_deadline = None;
        let heads = side.reader.heads();
        let limit = if heads == 0 { self.limits.first_byte } else { self.limits.idle };
        if self.timer.poll_idle(limit, heads, cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.poll_idle_closed(cx).map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

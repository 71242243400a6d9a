//! The stream that the engine reads: counts bytes, joins small writes, and ends heads that take too long.
//!
//! Invariant: time is looked at only when the socket has nothing to read, so a request that arrives at once costs no timer.
//! It must not look at what the bytes say; that was settled before ([`Protocol`]).

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
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
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf},
    sync::watch,
    time::{Instant, Sleep},
};

use super::{
    EdgeTimeouts,
    connection::{self, ConnectionInfo, Phase},
};

/// A response head and a small body fit, so that they leave in one packet (and in one TLS record).
const WRITE_BUFFER: usize = 4096;

/// Length of the HTTP/2 connection preface (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;

/// Sent when a head is not complete in time (RFC 9110 §15.5.9); the connection is closed behind it.
const HEAD_TIMEOUT_REPLY: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 22\r\ncontent-type: text/plain\r\n\
server: istio-envoy\r\nconnection: close\r\n\r\nrequest header timeout";

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
    protocol: Protocol,
    preface_left: usize,
    timeouts: EdgeTimeouts,
    /// Until when the first byte must come; `None` after it has.
    first_byte: Option<Instant>,
    /// Until when the head that is being read must end.
    head: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    close_idle: watch::Receiver<bool>,
    idle_closed: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    expired: bool,
}

impl<S: IO> EdgeStream<S> {
    /// Wraps a stream whose protocol is known. `close_idle` turning true ends the connection as soon as no request is on it.
    pub(super) fn new(
        io: S,
        info: Arc<ConnectionInfo>,
        protocol: Protocol,
        timeouts: EdgeTimeouts,
        close_idle: watch::Receiver<bool>,
    ) -> EdgeStream<S> {
        let now = Instant::now();
        if protocol == Protocol::Http2 {
            info.set_phase(Phase::Reading);
        }
        EdgeStream {
            io: BufWriter::with_capacity(WRITE_BUFFER, io),
            digest: connection::digest(&info),
            info,
            protocol,
            preface_left: PREFACE_BYTES,
            timeouts,
            first_byte: Some(now + timeouts.first_byte),
            head: now + timeouts.request_head,
            timer: None,
            close_idle,
            idle_closed: None,
            expired: false,
        }
    }

    fn bytes_came(&mut self, count: usize) {
        self.info.count_received(count);
        self.first_byte = None;
        match self.info.phase() {
            Phase::Waiting => {
                self.head = Instant::now() + self.timeouts.request_head;
                self.info.set_phase(Phase::Reading);
            }
            Phase::Reading if self.protocol == Protocol::Http2 => {
                self.preface_left = self.preface_left.saturating_sub(count);
                if self.preface_left == 0 {
                    self.info.set_phase(Phase::Exempt);
                }
            }
            Phase::Reading | Phase::Serving | Phase::Exempt => {}
        }
    }

    /// Nothing to read: has the peer's time run out?
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.info.phase() {
            Phase::Waiting => {
                if let Some(first_byte) = self.first_byte
                    && self.poll_deadline(first_byte, cx).is_ready()
                {
                    return Poll::Ready(Ok(()));
                }
                self.poll_idle_closed(cx).map(Ok)
            }
            Phase::Reading => {
                ready!(self.poll_deadline(self.head, cx));
                self.expired = true;
                if self.protocol == Protocol::Http1 {
                    // The peer may be gone or may not read; then it does not get the reply, and is closed all the same.
                    let _ = Pin::new(&mut self.io).poll_write(cx, HEAD_TIMEOUT_REPLY);
                    let _ = Pin::new(&mut self.io).poll_flush(cx);
                }
                Poll::Ready(Err(head_timed_out()))
            }
            Phase::Serving | Phase::Exempt => Poll::Pending,
        }
    }

    fn poll_deadline(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }

    fn poll_idle_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let EdgeStream { idle_closed, close_idle, .. } = self;
        let waiting = idle_closed.get_or_insert_with(|| {
            let mut close_idle = close_idle.clone();
            Box::pin(async move {
                // A dropped sender means that the listener's owner is gone: then nobody will ask, and nothing closes.
                if close_idle.wait_for(|close| *close).await.is_err() {
                    std::future::pending::<()>().await;
                }
            })
        });
        waiting.as_mut().poll(cx)
    }
}

fn head_timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "request head not complete in time")
}

impl<S: IO> AsyncRead for EdgeStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.expired {
            return Poll::Ready(Err(head_timed_out()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let count = buf.filled().len().saturating_sub(before);
                if count > 0 {
                    this.bytes_came(count);
                }
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_limits(cx),
        }
    }
}

impl<S: IO> AsyncWrite for EdgeStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.info.count_sent(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        this.info.count_sent(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
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
        f.debug_struct("EdgeStream")
            .field("info", &self.info)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: IO> Shutdown for EdgeStream<S> {
    async fn shutdown(&mut self) {
        // A peer that has gone already is no news.
        let _ = AsyncWriteExt::shutdown(&mut self.io).await;
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
        match self.protocol {
            Protocol::Http2 => Some(ALPN::H2),
            Protocol::Http1 => Some(ALPN::H1),
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

impl<S: IO> Peek for EdgeStream<S> {}

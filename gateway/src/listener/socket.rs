//! An accepted socket before anything of it is the engine's.
//!
//! Invariant: nothing is buffered in it: what was read for a look is beside it, in the order in which it came. So a connection that
//! is carried and not read stays a bare socket, which the kernel can carry by itself.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use super::bind::BoundSocket;
use async_trait::async_trait;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream as EngineStream, TimingDigest, UniqueID, UniqueIDType,
    l4::{socket::SocketAddr as EngineAddr, stream::Stream},
    raw_connect::ProxyDigest,
    tls::SslStream,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

/// A listening socket in the runtime.
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Acceptor::Tcp(listener) => listener.as_fd(),
            Acceptor::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Acceptor {
    /// Has the runtime that calls wait for its connections.
    pub(super) fn of(socket: BoundSocket) -> io::Result<Acceptor> {
        match socket {
            BoundSocket::Tcp(listener) => TcpListener::from_std(listener).map(Acceptor::Tcp),
            BoundSocket::Unix(listener) => UnixListener::from_std(listener).map(Acceptor::Unix),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Socket> {
        const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        match self {
            Acceptor::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                let (peer, local) = (canonical(peer), canonical(socket.local_addr()?));
                socket.set_nodelay(true)?;
                Ok(Socket::new(Kind::Tcp(socket), peer, local))
            }
            Acceptor::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok(Socket::new(Kind::Unix(socket), NOWHERE, NOWHERE))
            }
        }
    }
}

/// A dual-stack socket shows IPv4 peers as `::ffff:a.b.c.d`; address rules are written for `a.b.c.d`.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A stream that says when there is something to read, without being read.
pub(super) trait Readable {
    /// Ready when a read would not wait; it may yet bring nothing.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// An accepted connection.
pub(super) struct Socket {
    kind: Kind,
    /// The other end, as the kernel knows it; `0.0.0.0:0` on a unix socket.
    pub(super) peer: SocketAddr,
    /// Our end.
    pub(super) local: SocketAddr,
    /// Read already, and to be read again.
    begun: Vec<u8>,
    digest: Option<Arc<SocketDigest>>,
    accepted: SystemTime,
}

enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn new(kind: Kind, peer: SocketAddr, local: SocketAddr) -> Socket {
        Socket { kind, peer, local, begun: Vec::new(), digest: None, accepted: SystemTime::now() }
    }

    /// Where the connection was going before a rule of the kernel redirected it here; our end where none did, or nothing is known
    /// of that.
    pub(super) fn original_destination(&self) -> SocketAddr {
        let Kind::Tcp(socket) = &self.kind else { return self.local };
        let socket = SockRef::from(socket);
        // By the family that the connection has, whichever the socket has: `local` is canonical.
        let found = if self.local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
        found.ok().and_then(|address| address.as_socket()).map_or(self.local, canonical)
    }

    /// Returns once there is something to read, so that nobody need keep room for what may never come.
    pub(super) async fn readable(&self) {
        std::future::poll_fn(|cx| self.poll_readable(cx)).await;
    }

    /// As the engine's own streams are: with what was read of it in front, and with its addresses.
    pub(super) fn behind(mut self, begun: Vec<u8>) -> Socket {
        let digest = SocketDigest::from_raw_fd(self.id());
        if matches!(self.kind, Kind::Tcp(_)) {
            let _ = digest.peer_addr.set(Some(EngineAddr::Inet(self.peer)));
            let _ = digest.local_addr.set(Some(EngineAddr::Inet(self.local)));
        }
        self.digest = Some(Arc::new(digest));
        self.begun = begun;
        self
    }
}

impl Readable for Socket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.begun.is_empty() {
            return Poll::Ready(());
        }
        // What is wrong with the socket is said by the read.
        match &self.kind {
            Kind::Tcp(socket) => socket.poll_read_ready(cx).map(|_| ()),
            Kind::Unix(socket) => socket.poll_read_ready(cx).map(|_| ()),
        }
    }
}

impl Readable for SslStream<Socket> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ssl().pending() > 0 { Poll::Ready(()) } else { self.get_ref().poll_readable(cx) }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.begun.is_empty() {
            let count = this.begun.len().min(buf.remaining());
            buf.put_slice(this.begun.get(..count).unwrap_or_default());
            if count == this.begun.len() {
                this.begun = Vec::new();
            } else {
                this.begun.drain(..count);
            }
            return Poll::Ready(Ok(()));
        }
        match &mut this.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Kind::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Kind::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Kind::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets of the kernel have nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Kind::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        // A peer that has gone already is no news.
        let _gone = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        match &self.kind {
            Kind::Tcp(socket) => socket.as_raw_fd(),
            Kind::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl Ssl for Socket {}

impl Peek for Socket {}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.accepted, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.digest.clone()
    }
}

impl fmt::Debug for Socket {
    /// Without the bytes: they are what users send.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("peer", &self.peer).field("local", &self.local).finish_non_exhaustive()
    }
}

/// The client's side of a connection whose bytes are carried and not read.
pub enum Client {
    /// A bare socket, and what was read of it for a look.
    Bare(TcpStream, Vec<u8>),
    /// Whatever else: TLS that ended here, a unix socket.
    Stream(EngineStream),
}

impl Client {
    pub(super) fn of(socket: Socket, begun: Vec<u8>) -> Client {
        match socket.kind {
            Kind::Tcp(stream) => Client::Bare(stream, begun),
            Kind::Unix(_) => Client::Stream(Box::new(socket.behind(begun))),
        }
    }

    /// As a stream, whatever it is.
    #[must_use]
    pub fn into_stream(self) -> EngineStream {
        match self {
            Client::Bare(socket, begun) => {
                let mut stream = Stream::from(socket);
                stream.rewind(&begun);
                Box::new(stream)
            }
            Client::Stream(stream) => stream,
        }
    }
}

impl fmt::Debug for Client {
    /// Without the bytes: they are what users send.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Client::Bare(..) => "Client::Bare",
            Client::Stream(_) => "Client::Stream",
        })
    }
}

//! A proxy before an upstream that breaks what passes, as it is told, and heals when it is told so.
//!
//! Invariant: what it is told holds for connections that are made from then on and for those that are open, with no byte counted before.

use super::upstream::reset;
use bytes::Bytes;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

/// What a [`FaultProxy`] does to what passes. Bytes are those of the upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing.
    None,
    /// Nobody listens, and what was open is closed.
    Refuse,
    /// The host is gone: whoever connects gets no answer, and what is open carries nothing, and does not end.
    Gone,
    /// What the upstream says comes so much later.
    Delay(Duration),
    /// The upstream says no more than so many bytes a second.
    Rate(usize),
    /// Ends the connection after so many bytes.
    CutAfter(usize),
    /// Resets the connection after so many bytes.
    ResetAfter(usize),
    /// Carries nothing more after so many bytes, and stays open.
    StallAfter(usize),
    /// Says this in place of the upstream, once it was spoken to, and ends the connection.
    Say(Bytes),
    /// Says this in place of the upstream, again and again, until nobody listens.
    Repeat(Bytes),
}

/// A proxy on loopback, which lives for as long as the runtime that it was started on.
///
/// # Examples
/// ```
/// use gateway::testing::{FORWARD, Fault, FaultProxy, TestGateway, Upstream, config};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let upstream = Upstream::echo().await;
/// let proxy = FaultProxy::before(upstream.address()).await;
/// let gateway = TestGateway::start(&config(FORWARD, &[proxy.address()], "HTTP")).await;
/// assert_eq!(gateway.get("http://a.example/").await.status, 200);
/// proxy.set(Fault::CutAfter(0));
/// assert_eq!(gateway.get("http://a.example/").await.status, 503);
/// proxy.set(Fault::None);
/// assert_eq!(gateway.get("http://a.example/").await.status, 200);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl FaultProxy {
    /// One that leads to `upstream`, with no fault yet.
    ///
    /// # Panics
    /// When loopback gives it no port.
    pub async fn before(upstream: SocketAddr) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy {
            address: listener.local_addr().unwrap(),
            fault: watch::Sender::new(Fault::None),
            counts: Arc::default(),
        };
        let (fault, counts) = (proxy.fault.subscribe(), proxy.counts.clone());
        tokio::spawn(accept(listener, upstream, fault, counts));
        proxy
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from now on. Whether somebody listens follows a moment later.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many connections it accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }
}

async fn accept(
    mut listener: TcpListener,
    upstream: SocketAddr,
    mut fault: watch::Receiver<Fault>,
    counts: Arc<Counts>,
) {
    let address = listener.local_addr().unwrap();
    loop {
        let now = fault.borrow_and_update().clone();
        if matches!(now, Fault::Refuse | Fault::Gone) {
            drop(listener);
            let silence = if now == Fault::Gone { Some(Silence::on(address).await) } else { None };
            if fault.changed().await.is_err() {
                return;
            }
            drop(silence);
            listener = again(address).await;
            continue;
        }
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                counts.open.fetch_add(1, Ordering::SeqCst);
                let (fault, counts) = (fault.clone(), counts.clone());
                tokio::spawn(async move {
                    // Whichever side ends it.
                    let _ended = Passage { client, passed: 0, fault }.carry(upstream).await;
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            told = fault.changed() => if told.is_err() { return },
        }
    }
}

/// The port once more, as soon as it can be had.
async fn again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// A port whose queue is full, so that the kernel drops whoever else would connect.
struct Silence {
    _listener: socket2::Socket,
    _queued: Vec<TcpStream>,
}

impl Silence {
    async fn on(address: SocketAddr) -> Silence {
        let listener = loop {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            if socket.bind(&address.into()).and_then(|()| socket.listen(0)).is_ok() {
                break socket;
            }
            sleep(Duration::from_millis(5)).await;
        };
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(stream);
        }
        Silence { _listener: listener, _queued: queued }
    }
}

/// One connection.
struct Passage {
    client: TcpStream,
    passed: usize,
    fault: watch::Receiver<Fault>,
}

/// What becomes of a connection after a look at its fault.
enum Next {
    /// So many bytes of the upstream's may pass, so much later.
    Pass(usize, Duration),
    End,
}

/// Pieces that are held to a rate.
const TICK: Duration = Duration::from_millis(20);

impl Passage {
    async fn carry(mut self, upstream: SocketAddr) -> io::Result<()> {
        self.client.set_nodelay(true)?;
        let mut server = TcpStream::connect(upstream).await?;
        server.set_nodelay(true)?;
        let (mut asked, mut said) = (vec![0; 16_384], vec![0; 16_384]);
        loop {
            tokio::select! {
                read = self.client.read(&mut asked) => {
                    let count = read?;
                    if count == 0 {
                        return Ok(());
                    }
                    if let Next::End = self.next().await? {
                        return Ok(());
                    }
                    server.write_all(&asked[..count]).await?;
                }
                read = server.read(&mut said) => {
                    let count = read?;
                    if count == 0 {
                        return Ok(());
                    }
                    let mut rest = &said[..count];
                    while !rest.is_empty() {
                        let Next::Pass(most, later) = self.next().await? else { return Ok(()) };
                        let (piece, after) = rest.split_at(most.min(rest.len()));
                        sleep(later).await;
                        self.client.write_all(piece).await?;
                        self.passed += piece.len();
                        rest = after;
                    }
                }
                told = self.fault.changed() => {
                    self.passed = 0;
                    if told.is_err() || *self.fault.borrow() == Fault::Refuse {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Looks at the fault, and does what it says by itself.
    async fn next(&mut self) -> io::Result<Next> {
        loop {
            if self.fault.has_changed().unwrap_or(false) {
                self.passed = 0;
            }
            let now = self.fault.borrow_and_update().clone();
            let left = |after: usize| after.saturating_sub(self.passed);
            match now {
                Fault::None => return Ok(Next::Pass(usize::MAX, Duration::ZERO)),
                Fault::Refuse => return Ok(Next::End),
                Fault::Delay(later) => return Ok(Next::Pass(usize::MAX, later)),
                Fault::Rate(rate) => return Ok(Next::Pass((rate / 50).max(1), TICK)),
                Fault::CutAfter(after) if left(after) == 0 => {
                    self.client.shutdown().await?;
                    return Ok(Next::End);
                }
                Fault::ResetAfter(after) if left(after) == 0 => {
                    reset(&self.client);
                    return Ok(Next::End);
                }
                Fault::StallAfter(after) if left(after) == 0 => self.told().await?,
                Fault::Gone => self.told().await?,
                Fault::CutAfter(after) | Fault::ResetAfter(after) | Fault::StallAfter(after) => {
                    return Ok(Next::Pass(left(after), Duration::ZERO));
                }
                Fault::Say(bytes) => {
                    self.client.write_all(&bytes).await?;
                    self.client.shutdown().await?;
                    return Ok(Next::End);
                }
                Fault::Repeat(bytes) => loop {
                    self.client.write_all(&bytes).await?;
                },
            }
        }
    }

    /// Waits for another fault.
    async fn told(&mut self) -> io::Result<()> {
        self.fault.changed().await.map_err(io::Error::other)?;
        self.passed = 0;
        Ok(())
    }
}

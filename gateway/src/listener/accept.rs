//! From an accepted socket to a stream that speaks HTTP.
//!
//! Invariant: a connection gets its listener, chain and certificate from one snapshot. A peer's fault ends its own connection,
//! with a line at debug level at most.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use pingora_core::protocols::{ALPN, IO, Ssl, tls};
use routing::listener::{Chains, Direction, FilterChain, Fit, TcpRoute};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    Client, ConnectionHandler, ConnectionInfo, EdgeStream, ListenerSource, LiveListener, client_hello,
    connection::Endpoints,
    counting::{Handshake, Refusal, Serving},
    idle, matched, preface, proxy_header,
    socket::{Acceptor, Readable, Socket},
    stream::Protocol,
};
use crate::{
    edge::EdgeConfig,
    pressure::Pressure,
    tls::{Certificates, ClientCertificate, client_hello::Signs},
};

/// Pauses after an accept that failed for want of something (descriptors, memory), so that the loop does not spin.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a client whose connection has lived its time may be idle (Envoy: `drain_timeout`).
const AFTER_LIFE: Duration = Duration::from_secs(5);

/// What every connection needs.
pub(super) struct Edge {
    pub(super) source: Arc<dyn ListenerSource>,
    pub(super) handler: Arc<dyn ConnectionHandler>,
    pub(super) pressure: Arc<Pressure>,
}

/// Accepts until the task is aborted.
pub(super) async fn accept_loop(acceptor: Arc<Acceptor>, serving: Arc<Serving>, edge: Arc<Edge>) {
    let mut pause = FIRST_PAUSE;
    loop {
        // Who waits in the kernel's queue costs this process nothing.
        edge.pressure.room().await;
        match acceptor.accept().await {
            Ok(socket) => {
                pause = FIRST_PAUSE;
                // There was room when the wait for this one began. Where there is none now, it waits like those in the queue:
                // the step that made it so closes who is idle, and this one had no chance to ask for anything.
                edge.pressure.room().await;
                // Counted here and not in the task, so that a drain never sees a moment with an accepted, uncounted connection.
                let counted = serving.count_connection();
                let (serving, edge) = (serving.clone(), edge.clone());
                tokio::spawn(async move {
                    let _counted = counted;
                    admit(socket, &serving, &edge).await;
                });
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                tracing::warn!(listener = %serving.key, %error, "cannot accept a connection");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Errors of one connection that was gone before it was accepted (accept(2)); the next may be tried at once.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NotConnected)
}

/// Closes at once what is one too many, and serves the rest.
async fn admit(mut socket: Socket, serving: &Arc<Serving>, edge: &Edge) {
    let Some(live) = edge.source.listener(&serving.key) else { return };
    if let Some(refusal) = serving.over(&live.edge.connections) {
        return serving.refused(refusal);
    }
    let (mut peer, mut local) = (socket.peer, socket.local);
    let _counted = match live.edge.connections.per_client.filter(|_| local.port() != 0) {
        None => None,
        Some(most) => match serving.count_client(peer.ip(), most) {
            Some(counted) => Some(counted),
            None => return serving.refused(Refusal::Client),
        },
    };
    let mut begun = Vec::new();
    // What stands in front of gateways does not stand in front of workloads.
    let in_front = live.listener.direction == Direction::Gateway;
    if in_front && proxy_header::expected(&live.edge.topology.proxy_protocol, peer.ip()) {
        match timeout(live.edge.limits.handshake, proxy_header::read(&mut socket, &mut begun)).await {
            Ok(Ok(Some(said))) => (peer, local) = said,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                return tracing::debug!(listener = %serving.key, %peer, %error, "closed for its PROXY header");
            }
            Err(_) => return tracing::debug!(listener = %serving.key, %peer, "no PROXY header in time"),
        }
    }
    serve((socket, begun), peer, local, live, serving, edge).await;
}

async fn serve(
    (mut socket, begun): (Socket, Vec<u8>),
    peer: SocketAddr,
    local: SocketAddr,
    live: LiveListener,
    serving: &Arc<Serving>,
    edge: &Edge,
) {
    let LiveListener { listener, certificates, edge: config } = live;
    let limits = config.limits;
    let (listener_key, physical) = (serving.key.clone(), socket.peer);
    let bound_port = serving.port();
    let endpoints = Endpoints { listener: listener_key, bound_port, peer, physical, local, course: None };
    let accepted = Accepted { endpoints, config, serving, edge };
    match &listener.chains {
        Chains::Http(chain) => {
            if let Some(route) = &chain.tcp {
                return accepted.tunnel(Client::of(socket, begun), None, (false, None), route).await;
            }
            let fair = Instant::now() + limits.newcomer;
            let detected = tokio::select! {
                // First, so that who has asked for something already is heard.
                biased;
                detected = preface::detect(&mut socket, begun, limits) => detected,
                () = idle::closed(serving.close_idle.clone(), fair) => return,
            };
            match detected {
                Ok(begun) => accepted.requests(socket.behind(Vec::new()), begun, None, (false, None)).await,
                Err(error) => {
                    tracing::debug!(listener = %serving.key, %peer, %error, "closed before a request");
                }
            }
        }
        Chains::Matched(_) => {
            let live =
                LiveListener { listener: listener.clone(), certificates, edge: accepted.config.clone() };
            // Boxed, so that a gateway's connections have no room for it.
            Box::pin(matched::serve((socket, begun), live, accepted)).await;
        }
        Chains::Tls(chains) => {
            let most = accepted.config.connections.handshakes;
            // Boxed, so that it takes no room once it is over.
            let shaken = Box::pin(async {
                let (hello, begun) =
                    client_hello::peek(&mut socket, begun).await.map_err(|error| error.to_string())?;
                let name = hello.server_name.as_deref();
                let Some(chain): Option<&Arc<FilterChain>> = chains.lookup_sni(name) else {
                    edge.handler.unmatched(&serving.key, peer, local, name);
                    return Err(format!("no server for name {name:?}"));
                };
                if chain.fit(hello.protocols()) == Fit::NotOfMesh {
                    return Err(format!("{:?} is for the mesh's own proxies only", hello.server_name));
                }
                if chain.tls.is_none() {
                    return Ok((Shaken::Passed(Client::of(socket, begun)), chain, hello));
                }
                let (signs, socket) = (hello.signs, (socket, begun));
                let stream = terminate(&certificates, chain, signs, socket, serving, most).await?;
                Ok::<_, String>((Shaken::Terminated(stream), chain, hello))
            });
            let (stream, chain, hello) = match timeout(limits.handshake, shaken).await {
                Ok(Ok(shaken)) => shaken,
                Ok(Err(reason)) => {
                    serving.all.shaken(Handshake::Failed);
                    return tracing::debug!(listener = %serving.key, %peer, reason, "TLS refused");
                }
                Err(_) => {
                    serving.all.shaken(Handshake::TimedOut);
                    return tracing::debug!(listener = %serving.key, %peer, "TLS handshake not complete in time");
                }
            };
            if matches!(stream, Shaken::Terminated(_)) {
                serving.all.shaken(Handshake::Complete);
            }
            let sni = hello.server_name.map(Arc::from);
            match (stream, &chain.tcp) {
                (Shaken::Passed(client), Some(route)) => {
                    accepted.tunnel(client, sni, (false, None), route).await;
                }
                // Without TLS of ours and without a route there is nothing that could be done.
                (Shaken::Passed(_), None) => {}
                (Shaken::Terminated(stream), _) => accepted.terminated(stream, chain, sni).await,
            }
        }
    }
}

/// Ends the TLS of a connection whose ClientHello was read, within `most` handshakes at one time.
pub(super) async fn terminate(
    certificates: &Certificates,
    chain: &FilterChain,
    signs: Signs,
    (socket, begun): (Socket, Vec<u8>),
    serving: &Arc<Serving>,
    most: usize,
) -> Result<tls::SslStream<Socket>, String> {
    let acceptor = certificates
        .acceptor(chain, signs)
        .ok_or_else(|| format!("server {} of {} has no certificate", chain.server, chain.gateway))?;
    // Counted from here: until a whole ClientHello came, a client costs its bytes and nothing else.
    let Some(_shaking) = serving.begin_handshake(most) else {
        serving.refused(Refusal::Handshakes);
        return Err("too many handshakes at one time".to_owned());
    };
    tls::server::handshake(acceptor, socket.behind(begun)).await.map_err(|error| error.to_string())
}

/// A connection whose ClientHello was read.
enum Shaken {
    /// TLS ended here.
    Terminated(tls::SslStream<Socket>),
    /// It goes on as it is.
    Passed(Client),
}

/// A connection about to be handed over.
pub(super) struct Accepted<'s> {
    pub(super) endpoints: Endpoints,
    pub(super) config: Arc<EdgeConfig>,
    pub(super) serving: &'s Arc<Serving>,
    pub(super) edge: &'s Edge,
}

impl Accepted<'_> {
    /// Goes on after TLS that ended here.
    pub(super) async fn terminated(
        self,
        stream: tls::SslStream<Socket>,
        chain: &FilterChain,
        sni: Option<Arc<str>>,
    ) {
        let parts = self.config.headers.of(self.endpoints.direction()).certificate_parts;
        let certificate = stream.get_ssl().and_then(|ssl| ClientCertificate::of(ssl, parts));
        if let Some(route) = &chain.tcp {
            let client = Client::Stream(Box::new(stream));
            return self.tunnel(client, sni, (true, certificate), route).await;
        }
        let protocol = match stream.selected_alpn_proto() {
            Some(ALPN::H2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        self.requests(stream, (protocol, Vec::new()), sni, (true, certificate)).await;
    }

    pub(super) async fn requests<S: IO + Readable + 'static>(
        self,
        stream: S,
        begun: (Protocol, Vec<u8>),
        sni: Option<Arc<str>>,
        tls: (bool, Option<ClientCertificate>),
    ) {
        let limits = self.config.limits;
        match limits.life {
            None => {
                let signals = (self.serving.draining.clone(), self.serving.close_idle.clone());
                self.served(stream, begun, sni, tls, signals).await;
            }
            Some(life) => {
                let (mut draining, mut close_idle) =
                    (self.serving.draining.clone(), self.serving.close_idle.clone());
                let (leave, leaving) = watch::channel(false);
                let (close, closing) = watch::channel(false);
                // Envoy: a connection whose time is up drains; what is idle after the drain time is closed.
                let ending = async move {
                    tokio::select! {
                        () = tokio::time::sleep(life) => {}
                        _ = draining.wait_for(|draining| *draining) => {}
                    }
                    leave.send_replace(true);
                    tokio::select! {
                        () = tokio::time::sleep(AFTER_LIFE) => {}
                        _ = close_idle.wait_for(|close| *close) => {}
                    }
                    close.send_replace(true);
                    // The senders live as long as the connection.
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = self.served(stream, begun, sni, tls, (leaving, closing)) => {}
                    () = ending => {}
                }
            }
        }
    }

    async fn served<S: IO + Readable + 'static>(
        self,
        stream: S,
        begun: (Protocol, Vec<u8>),
        sni: Option<Arc<str>>,
        tls: (bool, Option<ClientCertificate>),
        (draining, close_idle): (watch::Receiver<bool>, watch::Receiver<bool>),
    ) {
        let Accepted { endpoints, config, edge, .. } = self;
        let protocol = begun.0;
        let mut shutdown = shutdown_for(protocol, draining.clone(), close_idle.clone());
        let limits = config.limits;
        let pressure = edge.pressure.clone();
        let info = Arc::new(ConnectionInfo::new(endpoints, sni, tls, config, draining, pressure));
        let stream = EdgeStream::new(stream, info.clone(), begun, limits, close_idle);
        if protocol == Protocol::Http1 {
            return edge.handler.serve(Box::new(stream), info, shutdown).await;
        }
        // Only one signal makes the engine tell a client of HTTP/2 to go.
        let mut leaving = info.leaving();
        let (tell, told) = watch::channel(*shutdown.borrow());
        let either = async {
            tokio::select! {
                _ = shutdown.wait_for(|told| *told) => {}
                _ = leaving.wait_for(|told| *told) => {}
            }
            tell.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = edge.handler.serve(Box::new(stream), info, told) => {}
            () = either => {}
        }
    }

    pub(super) async fn tunnel(
        self,
        client: Client,
        sni: Option<Arc<str>>,
        tls: (bool, Option<ClientCertificate>),
        route: &Arc<TcpRoute>,
    ) {
        let Accepted { endpoints, config, serving, edge } = self;
        let (draining, pressure) = (serving.draining.clone(), edge.pressure.clone());
        let info = Arc::new(ConnectionInfo::new(endpoints, sni, tls, config, draining, pressure));
        edge.handler.tunnel(client, info, route.clone()).await;
    }
}

/// An HTTP/2 client that comes while draining would be told to go before its first request; it is served until idle
/// connections are closed. On HTTP/1 the first response says so.
fn shutdown_for(
    protocol: Protocol,
    draining: watch::Receiver<bool>,
    close_idle: watch::Receiver<bool>,
) -> watch::Receiver<bool> {
    let already = *draining.borrow();
    match protocol {
        Protocol::Http2 if already => close_idle,
        Protocol::Http2 | Protocol::Http1 => draining,
    }
}

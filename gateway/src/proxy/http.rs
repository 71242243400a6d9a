//! Connections to sessions: the engine's HTTP server on top of our listeners.
//!
//! Invariant: limits here are those of Istio's EDGE profile, whichever version of HTTP a client speaks.

use super::{GatewayProxy, tcp, watch::nobody};
use crate::{
    edge::Http2Limits,
    listener::{Client, ConnectionHandler, ConnectionInfo},
};
use async_trait::async_trait;
use pingora_core::{
    apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::{
        ALPN, Stream,
        http::{
            ServerSession,
            v2::server::{H2Options, default_h2_options},
        },
    },
    server::{ShutdownWatch, configuration::ServerConf},
};
use pingora_proxy::{HttpProxy, ProxyHttp, Session};
use prometheus::IntGauge;
use routing::listener::{ListenerKey, TcpRoute};
use std::{cell::RefCell, net::SocketAddr, sync::Arc, time::Duration};

/// How long an HTTP/2 connection without streams is kept.
const H2_IDLE: Duration = Duration::from_secs(3600);
/// Serves HTTP/1 and HTTP/2 on the connections that listeners hand over.
pub struct HttpHandler<P = GatewayProxy> {
    http: Arc<HttpProxy<P>>,
    tcp: tcp::Tunnels,
    active: IntGauge,
}

tokio::task_local! {
    /// A connection that the engine gives up after an error, and we do not.
    static KEPT: RefCell<Option<ReusedHttpStream>>;
}

fn kept() -> Option<ReusedHttpStream> {
    KEPT.try_with(RefCell::take).ok().flatten()
}

/// Keeps the connection of a client whose request failed upstream, and was answered: it is none of its fault (Envoy
/// keeps it). Leaves the engine a session that nobody asks for anything.
pub(super) async fn keep(session: &mut Session) {
    let settings = HttpPersistentSettings::for_session(session.as_downstream());
    let client = std::mem::replace(session.as_downstream_mut(), nobody());
    if let Ok(Some(stream)) = client.finish().await {
        let reused = ReusedHttpStream::from_reusable_stream(stream, settings);
        // In an engine that somebody else drives nobody takes it, and it closes.
        let _kept = KEPT.try_with(|kept| kept.replace(Some(reused)));
    }
}

/// Counts a connection while it lives, also when its task is cancelled.
struct Active<'g>(&'g IntGauge);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl HttpHandler {
    /// Serves by a proxy. `threads` sizes the engine's pools: the number of threads that serve.
    #[must_use]
    pub fn new(proxy: GatewayProxy, threads: usize) -> Self {
        HttpHandler::wrapping(proxy, threads, |proxy| proxy)
    }
}

impl<P> HttpHandler<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    /// Serves by what `wrap` makes of a proxy.
    #[must_use]
    pub fn wrapping(proxy: GatewayProxy, threads: usize, wrap: impl FnOnce(GatewayProxy) -> P) -> Self {
        let active = proxy.metrics.active_connections.clone();
        let tcp = tcp::Tunnels::new(&proxy);
        // Rules bound the attempts, not the engine.
        let conf = ServerConf { threads, max_retries: usize::MAX, ..ServerConf::default() };
        let mut http = HttpProxy::new(wrap(proxy), Arc::new(conf));
        let mut options = HttpServerOptions::default();
        // Listeners tell prior knowledge from the first bytes and report it as ALPN would.
        options.h2c = false;
        // Not to serve it: to answer it in our own shape.
        options.allow_connect_method_proxying = true;
        options.h2_idle_timeout = Some(H2_IDLE);
        http.server_options = Some(options);
        http.handle_init_modules();
        Self { http: Arc::new(http), tcp, active }
    }
}

/// The engine asks for the limits of each HTTP/2 connection; these are what held when it was accepted.
struct Http2Connection<P> {
    http: Arc<HttpProxy<P>>,
    limits: Http2Limits,
}

#[async_trait]
impl<P> HttpServerApp for Http2Connection<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.http.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options
            .initial_window_size(self.limits.stream_window)
            .initial_connection_window_size(self.limits.connection_window)
            .max_concurrent_streams(self.limits.max_streams)
            .max_header_list_size(self.limits.max_header_list);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.http.server_options.as_ref()
    }
}

#[async_trait]
impl<P> ConnectionHandler for HttpHandler<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn serve(&self, stream: Stream, info: Arc<ConnectionInfo>, shutdown: ShutdownWatch) {
        self.active.inc();
        let _counted = Active(&self.active);
        if stream.selected_alpn_proto() == Some(ALPN::H2) {
            let connection = Http2Connection { http: self.http.clone(), limits: info.edge.http2 };
            Arc::new(connection).process_new(stream, &shutdown).await;
            return;
        }
        let requests = async {
            let (mut next, mut first) = (Some((stream, None)), true);
            while let Some((mut stream, settings)) = next {
                // A session and its buffers are there while there is a request.
                if stream.try_peek(&mut []).await.is_err() {
                    return;
                }
                let mut session = ServerSession::new_http1(stream);
                if std::mem::take(&mut first) {
                    // How long a client may be idle is the stream's business; the engine would take a timer for each read.
                    session.set_keepalive((!*shutdown.borrow()).then_some(0));
                }
                if let Some(settings) = settings {
                    HttpPersistentSettings::apply_to_session(settings, &mut session);
                }
                let reused = self.http.process_new_http(session, &shutdown).await.or_else(kept);
                next = reused.map(ReusedHttpStream::consume);
            }
        };
        KEPT.scope(RefCell::default(), requests).await;
    }

    async fn tunnel(&self, client: Client, info: Arc<ConnectionInfo>, route: Arc<TcpRoute>) {
        self.active.inc();
        let _counted = Active(&self.active);
        self.tcp.carry(client, &info, &route).await;
    }

    fn unmatched(&self, listener: &ListenerKey, peer: SocketAddr, local: SocketAddr, sni: Option<&str>) {
        self.tcp.unmatched(listener, peer, local, sni);
    }
}

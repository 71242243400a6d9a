//! Connections to sessions: the engine's HTTP server on top of our listeners.
//!
//! Invariant: limits here are those of Istio's EDGE profile, whichever version of HTTP a client speaks.

use super::GatewayProxy;
use crate::listener::{ConnectionHandler, ConnectionInfo};
use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::{
        ALPN, Stream,
        http::{ServerSession, v2::server::default_h2_options},
    },
    server::{ShutdownWatch, configuration::ServerConf},
};
use pingora_proxy::HttpProxy;
use prometheus::IntGauge;
use std::{sync::Arc, time::Duration};

/// How long an HTTP/2 connection without streams is kept.
const H2_IDLE: Duration = Duration::from_secs(3600);
/// Flow-control window of one stream, in bytes.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of a connection, in bytes.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Largest decoded header list, in bytes (Envoy: `max_request_headers_kb`).
const MAX_HEADER_LIST: u32 = 60 * 1024;

/// Serves HTTP/1 and HTTP/2 on the connections that listeners hand over.
pub struct HttpHandler {
    http: Arc<HttpProxy<GatewayProxy>>,
    active: IntGauge,
}

/// Counts a connection while it lives, also when its task is cancelled.
struct Active<'g>(&'g IntGauge);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl HttpHandler {
    /// Wraps a proxy. `threads` sizes the engine's pools: the number of threads that serve.
    #[must_use]
    pub fn new(proxy: GatewayProxy, threads: usize) -> Self {
        let active = proxy.metrics.active_connections.clone();
        // Rules bound the attempts, not the engine.
        let conf = ServerConf { threads, max_retries: usize::MAX, ..ServerConf::default() };
        let mut http = HttpProxy::new(proxy, Arc::new(conf));
        let mut options = HttpServerOptions::default();
        // Listeners tell prior knowledge from the first bytes and report it as ALPN would.
        options.h2c = false;
        // Not to serve it: to answer it in our own shape.
        options.allow_connect_method_proxying = true;
        options.h2_idle_timeout = Some(H2_IDLE);
        http.server_options = Some(options);
        let mut h2 = default_h2_options();
        h2.initial_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST);
        http.h2_options = Some(h2);
        http.handle_init_modules();
        Self { http: Arc::new(http), active }
    }
}

#[async_trait]
impl ConnectionHandler for HttpHandler {
    async fn serve(&self, stream: Stream, _info: Arc<ConnectionInfo>, shutdown: ShutdownWatch) {
        self.active.inc();
        let _counted = Active(&self.active);
        if stream.selected_alpn_proto() == Some(ALPN::H2) {
            self.http.process_new(stream, &shutdown).await;
            return;
        }
        let mut session = ServerSession::new_http1(stream);
        // How long a client may be idle is the stream's business; the engine would take a timer for each read.
        session.set_keepalive((!*shutdown.borrow()).then_some(0));
        let mut next = self.http.process_new_http(session, &shutdown).await;
        while let Some((stream, settings)) = next.map(ReusedHttpStream::consume) {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            next = self.http.process_new_http(session, &shutdown).await;
        }
    }
}

//! The edge: sockets that come and go with the configuration, and the connections accepted on them.
//!
//! Invariant: a change of configuration closes no connection. Whatever a peer sends before a request exists (nothing, half a
//! ClientHello, half a request head) is bounded by a deadline of [`EdgeLimits`].
//! It must not know routes: what a connection says is the [`ConnectionHandler`]'s business.

mod accept;
mod bind;
mod client_hello;
mod connection;
mod counting;
pub(crate) mod http1;
mod http2;
mod idle;
mod inherit;
mod manager;
mod matched;
mod preface;
pub(crate) mod proxy_header;
mod sniff;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora_core::{protocols::Stream, server::ShutdownWatch};
use routing::listener::{Listener, ListenerKey, Listeners, TcpRoute, of_original_destination};
use tokio::sync::watch;

use crate::{edge::EdgeConfig, tls::Certificates};

pub use bind::{BindFailure, BindOptions, BoundAddress};
pub use connection::{ConnectionInfo, Course, connection_info};
pub use counting::Handshake;
pub(crate) use http1::{Flaw, is_authority};
pub use http1::{HeadPolicy, Leniency, Underscores};
pub use inherit::Inherited;
pub use manager::ListenerManager;
pub use socket::Client;
pub use stream::EdgeStream;

/// What is done with a connection once it is known what it is, in the clear or after its TLS handshake.
#[async_trait]
pub trait ConnectionHandler: Send + Sync {
    /// Serves the connection until it ends. `shutdown` turns true when the connection should finish what it has begun:
    /// `Connection: close` on HTTP/1, GOAWAY on HTTP/2.
    async fn serve(&self, stream: Stream, info: Arc<ConnectionInfo>, shutdown: ShutdownWatch);

    /// Carries the bytes of a connection that is not HTTP, until either end has had enough.
    async fn tunnel(&self, client: Client, info: Arc<ConnectionInfo>, route: Arc<TcpRoute>);

    /// Is told of a connection, from `peer` to `local`, that no server of the listener is for.
    fn unmatched(&self, listener: &ListenerKey, peer: SocketAddr, local: SocketAddr, sni: Option<&str>) {
        let _ = (listener, peer, local, sni);
    }
}

/// Where the edge reads the configuration that is live.
pub trait ListenerSource: Send + Sync {
    /// All listeners of the live snapshot.
    fn listeners(&self) -> Listeners;
    /// One listener with what else its connections need, all of one snapshot; `None` once it is gone.
    fn listener(&self, key: &ListenerKey) -> Option<LiveListener>;
    /// The listener that serves a connection which the one of `key` has taken in by a redirect, and which was going to
    /// `destination`; with what else it needs, all of one snapshot.
    fn handed_over(&self, key: &ListenerKey, destination: SocketAddr) -> Option<LiveListener> {
        let live = self.listener(key)?;
        let listener = of_original_destination(&self.listeners(), &live.listener, destination).clone();
        Some(LiveListener { listener, ..live })
    }
    /// Changes with every published snapshot.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A listener of the live snapshot.
#[derive(Clone, Debug)]
pub struct LiveListener {
    /// Its chains.
    pub listener: Arc<Listener>,
    /// What TLS is terminated with.
    pub certificates: Arc<Certificates>,
    /// What clients may do.
    pub edge: Arc<EdgeConfig>,
}

/// What a client may take, in time and in bytes, before there is a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From accept (or from the handshake) to the first byte of a request.
    pub first_byte: Duration,
    /// For the bytes that tell what a sidecar's connection carries; after that it counts as none that they would tell of. `None`: no
    /// limit.
    pub detection: Option<Duration>,
    /// From the first byte of a request to the end of its head; then 408 and close.
    pub request_head: Duration,
    /// Without a request, after one; then close.
    pub idle: Duration,
    /// From the first wait for a body to its end, on HTTP/1; then 408. `None`: no limit.
    pub request: Option<Duration>,
    /// Without progress of a request, on HTTP/2; then the connection is closed. `None`: no limit.
    pub stream_idle: Option<Duration>,
    /// From accept until the client is asked to go. `None`: no limit.
    pub life: Option<Duration>,
    /// From accept (or from the handshake) on nobody is taken for idle so long, whatever is asked of those who are: what was let in
    /// gets its turn.
    pub newcomer: Duration,
    /// HTTP/1 heads.
    pub head: HeadPolicy,
}

impl Default for EdgeLimits {
    /// 10 s, 60 s, 60 s (Istio's EDGE profile) and an hour (Envoy); a second for who just came.
    fn default() -> Self {
        EdgeLimits {
            handshake: Duration::from_secs(10),
            first_byte: Duration::from_secs(60),
            detection: None,
            request_head: Duration::from_secs(60),
            idle: Duration::from_secs(3600),
            request: None,
            stream_idle: None,
            life: None,
            newcomer: Duration::from_secs(1),
            head: HeadPolicy::default(),
        }
    }
}

//! A gateway as one service among others in a server of Pingora's.
//!
//! Invariant: the server's word to shut down begins the gateway's own drain, in its order and within its times; the service ends when
//! that is over. What the server passes of inherited sockets is not for it: it has its own hand-over.

use async_trait::async_trait;
use pingora_core::{
    server::{ListenFds, ShutdownWatch},
    services::Service,
};
use tokio::task;

use super::Gateway;

/// A [`Service`] that serves a gateway.
///
/// The server's `grace_period_seconds` must not be shorter than the gateway's `drain_time`, or it cuts the drain short; and the server must not
/// daemonize, which would leave the gateway's threads behind. So many threads serve as the gateway's settings say. After a server without
/// `work_stealing` has ended, nothing else may use the engine in the same process: its handles of runtimes outlive these (pingora-runtime
/// 0.9.1, `CURRENT_HANDLE`).
///
/// # Examples
/// ```no_run
/// use gateway::Gateway;
/// use pingora_core::server::{Server, configuration::ServerConf};
///
/// let gateway = Gateway::builder().folder("/etc/limen").build()?;
/// let conf = ServerConf { grace_period_seconds: Some(30), ..ServerConf::default() };
/// let mut server = Server::new_with_opt_and_conf(None, conf);
/// server.bootstrap();
/// server.add_service(gateway.into_service());
/// server.run_forever();
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct GatewayService {
    gateway: Option<Gateway>,
    threads: usize,
}

impl GatewayService {
    pub(super) fn new(gateway: Gateway) -> GatewayService {
        GatewayService { threads: gateway.loops(), gateway: Some(gateway) }
    }
}

#[async_trait]
impl Service for GatewayService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        mut shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let Some(mut gateway) = self.gateway.take() else { return };
        let drain = gateway.base().drain.clone();
        let told = async {
            // A dropped sender is the server going down without a word; both mean the same here.
            let _ = shutdown.wait_for(|down| *down).await;
            drain.start();
            std::future::pending().await
        };
        let exit = tokio::select! {
            exit = gateway.drained(self.threads) => exit,
            never = told => never,
        };
        tracing::info!(?exit, "the gateway has ended");
        if task::spawn_blocking(move || gateway.finish()).await.is_err() {
            tracing::error!("a panic at the end");
        }
    }

    fn name(&self) -> &str {
        "limen"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

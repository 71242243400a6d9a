//! A gateway that was started: all runs but the data plane, which runs where the program wants it.
//!
//! Invariant: however it ends (a drain, a word of the program's, or a drop) the threads and sockets that are its own end with it, and
//! what was said about requests is written out. Nothing here blocks a runtime.

use std::{fmt, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, thread::JoinHandle, time::Duration};

use config_model::diagnostic::Diagnostics;
use tokio::{
    runtime::Runtime,
    sync::watch,
    task,
    time::{sleep, timeout},
};

use super::{GatewayBuilder, GatewayService, Signals, UNWIND, serve, telemetry};
use crate::{
    admin::{Admin, Readiness, Surface},
    drain::{DrainController, DrainState},
    handover::{Estate, Offer},
    listener::{BoundAddress, ListenerManager},
    pipeline::Status,
    settings::Settings,
    shutdown::{self, DrainTimes, Exit},
    snapshot::{Snapshot, SnapshotCell},
    source::kubernetes::{Cluster, Home},
    status,
    telemetry::{
        Metrics,
        collectors::{Files, Tasks},
    },
};

/// How long collectors may take over what is left for them at the end.
const LAST_EXPORTS: Duration = Duration::from_secs(2);
/// How often readiness is asked for by whoever waits for it.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// What everybody who has to do with a gateway shares.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) listeners: ListenerManager,
    pub(super) drain: Arc<DrainController>,
    pub(super) status: Arc<Status>,
    pub(super) snapshots: Arc<SnapshotCell>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) admin: Arc<Admin>,
    pub(super) surfaces: Vec<(Surface, SocketAddr)>,
}

/// What runs beside the data plane.
pub(super) struct Threads {
    pub(super) background: Runtime,
    pub(super) stop: watch::Sender<bool>,
    pub(super) hide: Arc<watch::Sender<bool>>,
    pub(super) following: JoinHandle<()>,
    pub(super) showing: Option<JoinHandle<()>>,
    pub(super) exports: Tasks,
    pub(super) files: Files,
}

/// A gateway whose first configuration is in force and whose ports are bound; connections wait until it serves.
///
/// It serves by itself ([`run`](Self::run)), on a runtime of the program's ([`serve`](Self::serve)), or as a service in a server of
/// Pingora's ([`into_service`](Self::into_service)). Dropped, it closes its ports and ends its threads.
///
/// # Examples
/// A gateway that greets, asked over its socket:
/// ```
/// use gateway::{Gateway, Signals};
/// use std::{io::{Read, Write}, net::TcpStream};
///
/// let gateway = Gateway::builder()
///     .yaml(r#"
/// apiVersion: networking.istio.io/v1
/// kind: Gateway
/// metadata: {name: door, namespace: istio-system}
/// spec:
///   selector: {istio: ingressgateway}
///   servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
/// ---
/// apiVersion: networking.istio.io/v1
/// kind: VirtualService
/// metadata: {name: hello, namespace: istio-system}
/// spec:
///   hosts: ["*"]
///   gateways: [door]
///   http: [{directResponse: {status: 200, body: {string: hello}}}]
/// "#)
///     .bind([127, 0, 0, 1])
///     .any_ports()
///     .signals(Signals::Ignore)
///     .with(|settings| settings.min_drain_time = std::time::Duration::ZERO)
///     .build()?;
/// let handle = gateway.handle();
/// let serving = std::thread::spawn(move || gateway.run());
///
/// let mut client = TcpStream::connect(handle.address(80).expect("a listener on port 80"))?;
/// client.write_all(b"GET / HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
///
/// handle.drain();
/// let _exit = serving.join().expect("no panic")?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a gateway that is dropped serves nobody"]
pub struct Gateway {
    base: Base,
    times: DrainTimes,
    signals: Signals,
    loops: usize,
    threads: Option<Threads>,
    writing: Option<task::JoinHandle<()>>,
}

impl Gateway {
    /// Says what a gateway is to be.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::default()
    }

    pub(super) fn new(base: Base, settings: &Settings, signals: Signals, threads: Threads) -> Gateway {
        let times = DrainTimes { min: settings.min_drain_time, max: settings.drain_time };
        let loops = settings.threads.max(1);
        Gateway { base, times, signals, loops, threads: Some(threads), writing: None }
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    pub(super) fn loops(&self) -> usize {
        self.loops
    }

    /// Has this thread among those that end with the gateway.
    pub(super) fn show(&mut self, showing: JoinHandle<()>) {
        if let Some(threads) = &mut self.threads {
            threads.showing = Some(showing);
        }
    }

    /// Offers the sockets to a process that comes after this one.
    pub(super) fn offer(&self, offer: Offer, surfaces: Vec<OwnedFd>) {
        let Some(Threads { background, hide, .. }) = &self.threads else { return };
        let hide = Arc::clone(hide);
        let stop_surfaces = Box::new(move || {
            hide.send_replace(true);
        });
        let (listeners, drain) = (self.base.listeners.clone(), Arc::clone(&self.base.drain));
        background.spawn(offer.serve(Estate { listeners, surfaces, drain, stop_surfaces }));
    }

    /// Writes what is found into the cluster, under the name of the pod.
    pub(super) fn write(&mut self, cluster: &Cluster, home: &Home, metrics: status::Metrics) {
        let Some(Threads { background, .. }) = &self.threads else { return };
        let name = hostname::get().ok().and_then(|name| name.into_string().ok());
        let name = name.unwrap_or_else(|| "limen".to_owned());
        let listeners = self.base.listeners.clone();
        let failures = Box::new(move || listeners.failures());
        let (status, timing) = (Arc::clone(&self.base.status), status::Timing::default());
        let writer = status::Writer::new(cluster, home, &name, status, failures, metrics, timing);
        let leaving = Arc::clone(&self.base.drain);
        // Whoever leaves lets another write: a drain may take long.
        let left = async move { leaving.reached(DrainState::Draining).await };
        self.writing = Some(background.spawn(writer.run(left)));
    }

    /// A handle, by which it is looked at and ended while it serves.
    #[must_use]
    pub fn handle(&self) -> GatewayHandle {
        GatewayHandle { base: self.base.clone() }
    }

    /// Serves on threads of its own until it is drained, by a signal or by its handle. Blocks the calling thread; on a runtime call
    /// [`serve`](Self::serve).
    ///
    /// # Errors
    /// When the runtime or the signal handlers cannot be had.
    pub fn run(mut self) -> io::Result<Exit> {
        if let (Signals::Follow, Some(threads)) = (self.signals, &self.threads) {
            threads.background.spawn(telemetry::reopen_on_hangup(threads.files.clone()));
        }
        let Base { listeners, drain, .. } = &self.base;
        let exit = serve(self.loops, listeners, drain, self.times, self.signals);
        self.finish();
        exit
    }

    /// Serves on the runtime that polls this, until it is drained by its handle; signals are the program's business. A future that is
    /// dropped cuts what is open.
    pub async fn serve(mut self) -> Exit {
        let loops = self.loops;
        let exit = self.drained(loops).await;
        // What is left to be written is waited for, which a runtime must not.
        if task::spawn_blocking(move || self.finish()).await.is_err() {
            tracing::error!("a panic at the end");
        }
        exit
    }

    /// A service for a [`Server`](pingora_core::server::Server) of the program's; see [`GatewayService`].
    #[must_use]
    pub fn into_service(self) -> GatewayService {
        GatewayService::new(self)
    }

    /// Serves with so many accept loops a socket, and drains in order once its drain has begun.
    pub(super) async fn drained(&self, loops: usize) -> Exit {
        let Base { listeners, drain, .. } = &self.base;
        tokio::select! {
            biased;
            exit = shutdown::drained(drain, listeners, self.times) => exit,
            // Ends only once accepting was stopped.
            never = async { listeners.run(loops).await; std::future::pending().await } => never,
        }
    }

    /// Ends what runs beside the data plane, which serves nobody any more. Blocks.
    pub(super) fn finish(&mut self) {
        let Some(threads) = self.threads.take() else { return };
        let Threads { background, stop, hide, following, showing, exports, .. } = threads;
        let _thread_gone = stop.send(true);
        hide.send_replace(true);
        for (name, thread) in [("configuration", Some(following)), ("admin", showing)] {
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the {name} thread had ended early");
            }
        }
        if let Some(writing) = self.writing.take() {
            self.base.drain.quit();
            let _given_back = background.block_on(async { timeout(UNWIND, writing).await });
        }
        // Nothing more is handed over; the collectors' services are still there to be asked.
        let snapshots = &self.base.snapshots;
        snapshots.publish(Snapshot { telemetry: Arc::default(), ..Snapshot::clone(&snapshots.load()) });
        exports.finish(background.handle(), LAST_EXPORTS);
        // A runtime that is dropped waits for threads that block, and one may wait minutes for a successor's word.
        background.shutdown_timeout(UNWIND);
    }
}

impl Drop for Gateway {
    /// Whoever drops it may be on a runtime, and waits for nothing.
    fn drop(&mut self) {
        let Some(threads) = self.threads.take() else { return };
        self.base.listeners.stop_accepting();
        self.base.drain.quit();
        let _thread_gone = threads.stop.send(true);
        threads.hide.send_replace(true);
        threads.background.shutdown_background();
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("listeners", &self.base.listeners).finish_non_exhaustive()
    }
}

/// By which a gateway is looked at and ended. Clones are handles to the same one, and none of them keeps it alive.
#[derive(Clone)]
pub struct GatewayHandle {
    base: Base,
}

impl GatewayHandle {
    /// Begins to drain: not ready, then no new connections, then an end once the last request is done, all within the times that
    /// settings give.
    pub fn drain(&self) {
        self.base.drain.start();
    }

    /// Ends it at once, whatever is open.
    pub fn quit(&self) {
        self.base.drain.quit();
    }

    /// Whether traffic should come to it.
    pub fn readiness(&self) -> Readiness {
        self.base.admin.readiness()
    }

    /// Returns once traffic should come: every listener accepts. It has to be served meanwhile, somewhere.
    pub async fn ready(&self) {
        while self.readiness() != Readiness::Ready {
            sleep(ASK_AGAIN).await;
        }
    }

    /// Where connections for the port `port` of Gateways are accepted; `None`: nowhere, or only on a unix socket.
    #[must_use]
    pub fn address(&self, port: u16) -> Option<SocketAddr> {
        self.base.listeners.opened().into_iter().find_map(|(key, address)| match address {
            BoundAddress::Tcp(address) if key.port == port => Some(address),
            _ => None,
        })
    }

    /// Where it serves this, with the port that the system chose; `None`: nowhere.
    #[must_use]
    pub fn surface(&self, surface: Surface) -> Option<SocketAddr> {
        let mut all = self.base.surfaces.iter();
        all.find(|(what, _)| *what == surface).map(|(_, address)| *address)
    }

    /// Generation of the configuration in force, from 1 on.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.base.snapshots.load().generation
    }

    /// Everything that is wrong with the configuration.
    #[must_use]
    pub fn findings(&self) -> Arc<Diagnostics> {
        self.base.status.findings()
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        String::from_utf8_lossy(&self.base.metrics.encode()).into_owned()
    }
}

impl fmt::Debug for GatewayHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayHandle").field("listeners", &self.base.listeners).finish_non_exhaustive()
    }
}

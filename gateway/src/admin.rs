//! The endpoints for operators: readiness, metrics, and a view of everything that is in force.
//!
//! Invariant: runs on its own thread and runtime, so no scrape delays a request; and a data plane that is overloaded can still be
//! looked at. Shows no secret. What changes something takes POST, and not from another site's page; an address that others can
//! reach takes a token.

mod access;
mod answer;
mod dashboard;
mod envoy;
mod graph;
mod history;
mod live;
mod serve;

pub use access::Access;
pub(crate) use envoy::seconds_of;
pub use history::History;

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, thread, time::Instant};

use tokio::sync::watch;

use crate::{
    cli::LevelHandle,
    drain::{DrainController, DrainState},
    listener::ListenerManager,
    pipeline::Status,
    snapshot::SnapshotCell,
    telemetry::Metrics,
};

/// What the endpoints show and turn.
pub struct Admin {
    /// What the pipeline has come to.
    pub status: Arc<Status>,
    /// What is in force.
    pub snapshots: Arc<SnapshotCell>,
    /// The sockets.
    pub listeners: ListenerManager,
    /// The switch for going away.
    pub drain: Arc<DrainController>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Changes what is logged.
    pub level: LevelHandle,
    /// Who may ask.
    pub access: Access,
    /// The latest configurations and what each changed.
    pub history: History,
    /// Bound port by gateway port.
    pub port_map: BTreeMap<u16, u16>,
    /// When the process started.
    pub started: Instant,
    /// Whether it was ready once. Like Istio's agent, a gateway that has been ready stays so until it drains: a later port that
    /// cannot be bound must not take the others out of service.
    pub was_ready: std::sync::atomic::AtomicBool,
}

/// What is served at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// Everything.
    Admin,
    /// `/healthz/ready`.
    Status,
    /// `/stats/prometheus`.
    Metrics,
}

/// A bound address.
#[derive(Debug)]
pub struct Bound {
    socket: std::net::TcpListener,
    surface: Surface,
}

impl Bound {
    /// Binds, so that a port that is taken is found before anything is served.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn new(address: SocketAddr, surface: Surface) -> io::Result<Bound> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Bound { socket, surface })
    }

    /// A socket that is bound already.
    #[must_use]
    pub fn of(socket: std::net::TcpListener, surface: Surface) -> Bound {
        Bound { socket, surface }
    }

    /// What is served there.
    #[must_use]
    pub fn surface(&self) -> Surface {
        self.surface
    }

    /// A handle to the socket.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn socket(&self) -> io::Result<std::os::fd::OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }

    /// The address, with the port that was given for port 0.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Whether traffic should come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Readiness {
    /// It should.
    Ready,
    /// Not yet.
    Starting(&'static str),
    /// Not any more: something that serving needs is gone.
    Broken(&'static str),
    /// Not any more.
    Draining,
}

impl Admin {
    /// Whether traffic should come here: the first configuration is in force, its ports are bound, and nothing drains.
    pub fn readiness(&self) -> Readiness {
        use std::sync::atomic::Ordering;
        if self.drain.state() != DrainState::Live {
            return Readiness::Draining;
        }
        if let Some(why) = self.listeners.broken() {
            return Readiness::Broken(why);
        }
        if self.was_ready.load(Ordering::Relaxed) {
            return Readiness::Ready;
        }
        if self.status.built().is_none() {
            return Readiness::Starting("no configuration in force yet");
        }
        if !self.listeners.all_bound() {
            return Readiness::Starting("not every listener is bound");
        }
        self.was_ready.store(true, Ordering::Relaxed);
        Readiness::Ready
    }
}

/// Serves all addresses on a thread of its own, until `stop` turns true.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn(
    admin: Arc<Admin>,
    addresses: Vec<Bound>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("limen-admin".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = serve::all(admin, addresses) => {}
                // The sender gone means the same as its word.
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    })
}

#[cfg(test)]
mod tests;

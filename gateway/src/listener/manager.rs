//! Which sockets are open: follows the live snapshot, binds what is new, retires what is gone.
//!
//! Invariant: new sockets are bound before old ones are retired, and a retired listener's connections end by drain. A port that
//! cannot be had is a [`BindFailure`] that is tried again, never the end of the process.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora_core::{
    server::{ListenFds, ShutdownWatch},
    services::Service,
};
use routing::listener::{ListenerKey, Listeners};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::Instant,
};

use crate::pressure::{self, Level, Pressure};

use super::{
    BindFailure, BindOptions, BoundAddress, ConnectionHandler, ListenerSource,
    accept::{Edge, accept_loop},
    bind::{self, BoundSocket},
    counting::{Connections, Handshake, Serving},
    socket::Acceptor,
};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Owns the listening sockets. Clones are handles to the same sockets.
#[derive(Clone)]
pub struct ListenerManager {
    shared: Arc<Shared>,
}

struct Shared {
    edge: Arc<Edge>,
    bind: BindOptions,
    /// How long a retired listener's idle connections may still send a request, which is answered with `Connection: close`.
    idle_grace: Duration,
    slots: Mutex<BTreeMap<ListenerKey, Slot>>,
    connections: Arc<Connections>,
    draining: AtomicBool,
    /// Clients are asked to go, for now.
    reluctant: AtomicBool,
    stopped: AtomicBool,
    /// The task that follows the source has ended before it was told to.
    abandoned: AtomicBool,
    changed: Notify,
}

enum Slot {
    /// Bound ahead of the swap; connections queue in the kernel.
    Bound(BoundSocket, BoundAddress),
    Serving(Running),
    Failed {
        failure: BindFailure,
        pause: Duration,
        retry_at: Instant,
    },
}

struct Running {
    address: BoundAddress,
    /// The loops hold the socket, which closes with the last of them.
    socket: Weak<Acceptor>,
    draining: Arc<watch::Sender<bool>>,
    close_idle: Arc<watch::Sender<bool>>,
    serving: Arc<Serving>,
    loops: Vec<AbortHandle>,
}

impl Running {
    fn stop_accepting(&self) {
        self.loops.iter().for_each(AbortHandle::abort);
    }

    /// A loop never ends by itself.
    fn has_lost_a_loop(&self) -> bool {
        self.loops.iter().any(AbortHandle::is_finished)
    }
}

impl ListenerManager {
    /// A manager without sockets; [`run`](Self::run) makes it follow `source`.
    pub fn new(
        source: Arc<dyn ListenerSource>,
        handler: Arc<dyn ConnectionHandler>,
        bind: BindOptions,
        idle_grace: Duration,
    ) -> ListenerManager {
        ListenerManager {
            shared: Arc::new(Shared {
                edge: Arc::new(Edge { source, handler, pressure: pressure::calm() }),
                bind,
                idle_grace,
                slots: Mutex::default(),
                connections: Arc::default(),
                draining: AtomicBool::new(false),
                reluctant: AtomicBool::new(false),
                stopped: AtomicBool::new(false),
                abandoned: AtomicBool::new(false),
                changed: Notify::new(),
            }),
        }
    }

    /// Binds what `listeners` has and is not bound yet, so that it is open when they go live. Closes nothing.
    /// Returns what could not be bound; publishing goes on without it.
    pub fn prepare(&self, listeners: &Listeners) -> Vec<BindFailure> {
        let mut slots = self.slots();
        if self.stopped() {
            return Vec::new();
        }
        for key in with_sockets(listeners) {
            match slots.entry(key.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(self.try_bind(key, None));
                }
                Entry::Occupied(mut entry) => {
                    if let Slot::Failed { pause, .. } = entry.get() {
                        let slot = self.try_bind(key, Some(*pause));
                        entry.insert(slot);
                    }
                }
            }
        }
        failures(&slots).filter(|failure| listeners.contains_key(&failure.key)).cloned().collect()
    }

    /// Follows the source until [`stop_accepting`](Self::stop_accepting); `loops` accept tasks a socket.
    pub async fn run(&self, loops: usize) {
        let _following = Following(&self.shared);
        let mut changes = self.shared.edge.source.changes();
        while !self.stopped() {
            changes.borrow_and_update();
            self.follow(&self.shared.edge.source.listeners(), loops.max(1));
            loop {
                let retry = self.next_retry();
                tokio::select! {
                    changed = changes.changed() => {
                        if changed.is_err() {
                            // The source is gone: what is bound stays, until somebody stops us.
                            self.shared.changed.notified().await;
                        }
                        break;
                    }
                    () = self.shared.changed.notified() => break,
                    () = sleep_until(retry) => self.retry(loops.max(1)),
                }
            }
        }
    }

    /// Addresses of the listeners that accept, by key.
    pub fn bound(&self) -> BTreeMap<ListenerKey, BoundAddress> {
        let address = |slot| running(slot).map(|running| running.address.clone());
        self.slots().iter().filter_map(|(key, slot)| Some((key.clone(), address(slot)?))).collect()
    }

    /// Addresses of the open sockets, by key: connections to them are accepted, or wait in the kernel.
    pub fn opened(&self) -> BTreeMap<ListenerKey, BoundAddress> {
        let address = |slot: &Slot| match slot {
            Slot::Serving(Running { address, .. }) | Slot::Bound(_, address) => Some(address.clone()),
            Slot::Failed { .. } => None,
        };
        self.slots().iter().filter_map(|(key, slot)| Some((key.clone(), address(slot)?))).collect()
    }

    /// Listeners that are wanted and cannot be bound: reasons not to be ready.
    pub fn failures(&self) -> Vec<BindFailure> {
        failures(&self.slots()).cloned().collect()
    }

    /// Whether every listener of the live snapshot accepts.
    pub fn all_bound(&self) -> bool {
        let slots = self.slots();
        let wanted = self.shared.edge.source.listeners();
        with_sockets(&wanted).all(|key| matches!(slots.get(key), Some(Slot::Serving(_))))
    }

    /// What has died of that which serves: whoever comes may wait for ever.
    pub fn broken(&self) -> Option<&'static str> {
        let slots = self.slots();
        if self.stopped() {
            return None;
        }
        if self.shared.abandoned.load(Ordering::Acquire) {
            return Some("nobody opens and closes listeners any more");
        }
        let lost = slots.values().filter_map(running).any(Running::has_lost_a_loop);
        lost.then_some("a task of a listener has died")
    }

    /// As if the task had died.
    #[cfg(test)]
    pub(crate) fn lose_a_loop(&self) {
        if let Some(lost) =
            self.slots().values().filter_map(running).find_map(|running| running.loops.first())
        {
            lost.abort();
        }
    }

    /// Handles to all listening sockets, for a process that is to have them too.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let slots = self.slots();
        let mut sockets = Vec::with_capacity(slots.len());
        for slot in slots.values() {
            match slot {
                Slot::Bound(socket, _) => sockets.push(socket.as_fd().try_clone_to_owned()?),
                Slot::Serving(running) => {
                    if let Some(socket) = running.socket.upgrade() {
                        sockets.push(socket.as_fd().try_clone_to_owned()?);
                    }
                }
                Slot::Failed { .. } => {}
            }
        }
        Ok(sockets)
    }

    /// Closes the listening sockets for good and nothing else: another process has them, and what comes from now on is its.
    pub fn stop_listening(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        let mut slots = self.slots();
        slots.retain(|_, slot| matches!(slot, Slot::Serving(_)));
        slots.values().filter_map(running).for_each(Running::stop_accepting);
        self.shared.changed.notify_one();
    }

    /// Open connections, those of retired listeners included.
    pub fn connections(&self) -> usize {
        self.shared.connections.count.load(Ordering::Acquire)
    }

    /// Connections that were closed at once because there were too many.
    pub fn refused(&self) -> usize {
        self.shared.connections.refused.load(Ordering::Relaxed)
    }

    /// Connections that there ever were, those that were closed at once included.
    pub fn accepted(&self) -> u64 {
        self.shared.connections.accepted()
    }

    /// Connections with TLS of ours by what became of their handshake.
    pub fn handshakes(&self, end: Handshake) -> u64 {
        self.shared.connections.handshakes(end)
    }

    /// Open connections of each listener that accepts.
    pub fn connections_by_listener(&self) -> BTreeMap<ListenerKey, usize> {
        let slots = self.slots();
        let counts = slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Serving(running) => Some((key.clone(), running.serving.own.load(Ordering::Relaxed))),
            Slot::Bound(..) | Slot::Failed { .. } => None,
        });
        counts.collect()
    }

    /// Returns when no connection is open.
    pub async fn none_left(&self) {
        loop {
            let none_left = self.shared.connections.none_left.notified();
            tokio::pin!(none_left);
            none_left.as_mut().enable();
            if self.connections() == 0 {
                return;
            }
            none_left.await;
        }
    }

    /// From now on connections are asked to go (`Connection: close`, GOAWAY); new ones are still accepted.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        for running in self.slots().values().filter_map(running) {
            running.draining.send_replace(true);
        }
    }

    /// How near the process is to its limits, for the accept loops and for all requests.
    pub fn pressure(&self) -> Arc<Pressure> {
        self.shared.edge.pressure.clone()
    }

    /// Does what a level asks for: clients are asked to go after what they have begun, and at [`Level::Full`] connections without a
    /// request are closed. New connections are asked the same; a lower level takes it back.
    pub fn relieve(&self, level: Level) {
        self.shared.reluctant.store(level >= Level::Reluctant, Ordering::Release);
        for running in self.slots().values().filter_map(running) {
            // Asked again with the map locked, like `drain`, which is for good.
            running.draining.send_replace(self.asks_to_go());
            running.close_idle.send_replace(level == Level::Full || self.stopped());
        }
    }

    fn asks_to_go(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire) || self.shared.reluctant.load(Ordering::Acquire)
    }

    /// Closes the listening sockets and the connections that have no request on them, for good.
    pub fn stop_accepting(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.drain();
        for slot in std::mem::take(&mut *self.slots()).into_values() {
            if let Some(running) = running(&slot) {
                running.stop_accepting();
                running.close_idle.send_replace(true);
            }
        }
        self.shared.changed.notify_one();
    }

    /// Makes the open sockets those of `listeners`: retires first, because a retired one may hold an address that is wanted.
    fn follow(&self, listeners: &Listeners, loops: usize) {
        let mut slots = self.slots();
        if self.stopped() {
            return;
        }
        let gone: Vec<ListenerKey> =
            slots.keys().filter(|key| !has_socket(listeners, key)).cloned().collect();
        for key in gone {
            if let Some(Slot::Serving(running)) = slots.remove(&key) {
                tracing::info!(listener = %key, address = %running.address, "listener retired");
                self.retire(running);
            }
        }
        for key in with_sockets(listeners) {
            let slot = slots.remove(key).unwrap_or_else(|| self.try_bind(key, None));
            slots.insert(key.clone(), self.start(key, slot, loops));
        }
    }

    fn retry(&self, loops: usize) {
        let now = Instant::now();
        let mut slots = self.slots();
        if self.stopped() {
            return;
        }
        for (key, slot) in slots.iter_mut() {
            if let Slot::Failed { pause, retry_at, .. } = slot
                && *retry_at <= now
            {
                let tried = self.try_bind(key, Some(*pause));
                *slot = self.start(key, tried, loops);
            }
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        let slots = self.slots();
        let times = slots.values().filter_map(|slot| match slot {
            Slot::Failed { retry_at, .. } => Some(*retry_at),
            Slot::Bound(..) | Slot::Serving(_) => None,
        });
        times.min()
    }

    fn try_bind(&self, key: &ListenerKey, last_pause: Option<Duration>) -> Slot {
        match bind::bind(key, &self.shared.bind) {
            Ok((socket, address)) => Slot::Bound(socket, address),
            Err(failure) => failed(failure, last_pause),
        }
    }

    /// Begins to accept on a bound socket; other slots stay as they are.
    fn start(&self, key: &ListenerKey, slot: Slot, loops: usize) -> Slot {
        let Slot::Bound(socket, address) = slot else { return slot };
        let acceptor = match Acceptor::of(socket) {
            Ok(acceptor) => Arc::new(acceptor),
            Err(error) => {
                let failure =
                    BindFailure { key: key.clone(), address: address.to_string(), reason: error.to_string() };
                return failed(failure, None);
            }
        };
        let (draining, draining_rx) = watch::channel(false);
        let (close_idle, close_idle_rx) = watch::channel(false);
        if self.asks_to_go() {
            draining.send_replace(true);
        }
        let (draining, close_idle) = (Arc::new(draining), Arc::new(close_idle));
        let serving = Arc::new(Serving {
            key: key.clone(),
            draining: draining_rx,
            close_idle: close_idle_rx,
            address: address.clone(),
            own: AtomicUsize::new(0),
            all: self.shared.connections.clone(),
            _signals: [draining.clone(), close_idle.clone()],
        });
        tracing::info!(listener = %key, %address, "listening");
        let accepting = || {
            let task = accept_loop(acceptor.clone(), serving.clone(), self.shared.edge.clone());
            tokio::spawn(task).abort_handle()
        };
        let loops = (0..loops).map(|_| accepting()).collect();
        let socket = Arc::downgrade(&acceptor);
        Slot::Serving(Running { address, socket, draining, close_idle, serving, loops })
    }

    fn retire(&self, running: Running) {
        running.stop_accepting();
        running.draining.send_replace(true);
        let grace = self.shared.idle_grace;
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            running.close_idle.send_replace(true);
        });
    }

    /// Asked again with the map locked: what stops us sets it before it empties the map.
    fn stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire)
    }

    /// A panic while the map was held left each slot whole, so the map is used on.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<ListenerKey, Slot>> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Service for ListenerManager {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        mut shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        tokio::select! {
            () = self.run(listeners_per_fd) => {}
            // A dropped sender is Pingora going down without a word; both mean the same here.
            _ = shutdown.wait_for(|down| *down) => self.stop_accepting(),
        }
    }

    fn name(&self) -> &str {
        "listeners"
    }
}

impl fmt::Debug for ListenerManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerManager").field("bound", &self.bound()).finish_non_exhaustive()
    }
}

/// The task that follows the source, which ends when all is stopped or by a fault.
struct Following<'s>(&'s Shared);

impl Drop for Following<'_> {
    fn drop(&mut self) {
        if !self.0.stopped.load(Ordering::Acquire) {
            self.0.abandoned.store(true, Ordering::Release);
        }
    }
}

/// Those that are to have a socket: what one of these hands over to others needs none.
fn with_sockets(listeners: &Listeners) -> impl Iterator<Item = &ListenerKey> {
    listeners.iter().filter(|(_, listener)| listener.is_bound()).map(|(key, _)| key)
}

fn has_socket(listeners: &Listeners, key: &ListenerKey) -> bool {
    listeners.get(key).is_some_and(|listener| listener.is_bound())
}

fn running(slot: &Slot) -> Option<&Running> {
    match slot {
        Slot::Serving(running) => Some(running),
        Slot::Bound(..) | Slot::Failed { .. } => None,
    }
}

fn failures(slots: &BTreeMap<ListenerKey, Slot>) -> impl Iterator<Item = &BindFailure> {
    slots.values().filter_map(|slot| match slot {
        Slot::Failed { failure, .. } => Some(failure),
        Slot::Bound(..) | Slot::Serving(_) => None,
    })
}

/// The first failure is an error in the log, the retries are not: it is one thing that is wrong.
fn failed(failure: BindFailure, last_pause: Option<Duration>) -> Slot {
    match last_pause {
        None => tracing::error!("{failure}; it is tried again"),
        Some(_) => tracing::debug!("{failure}"),
    }
    let pause = last_pause.map_or(FIRST_RETRY, |last| (last * 2).min(LONGEST_RETRY));
    Slot::Failed { failure, pause, retry_at: Instant::now() + pause }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

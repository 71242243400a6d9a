//! How many connections and handshakes there are, and which of them is one too many.
//!
//! Invariant: what is counted is counted down when its guard goes, whichever way its task ends. It must not know what a connection
//! carries.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use routing::listener::ListenerKey;
use tokio::sync::{Notify, watch};

use super::BoundAddress;
use crate::edge::ConnectionLimits;

/// What the connections of one listener share.
pub(super) struct Serving {
    pub(super) key: ListenerKey,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) close_idle: watch::Receiver<bool>,
    pub(super) address: BoundAddress,
    pub(super) own: AtomicUsize,
    pub(super) all: Arc<Connections>,
    /// Pingora takes a dropped sender for a shutdown, so the senders live as long as the last connection.
    pub(super) _signals: [Arc<watch::Sender<bool>>; 2],
}

impl Serving {
    /// The bound port; 0 on a unix socket.
    pub(super) fn port(&self) -> u16 {
        match &self.address {
            BoundAddress::Tcp(address) => address.port(),
            BoundAddress::Unix(_) => 0,
        }
    }

    /// Whether this connection, which is counted already, is one too many.
    pub(super) fn over(&self, limits: &ConnectionLimits) -> Option<Refusal> {
        let above = |count: &AtomicUsize, most: Option<usize>| {
            most.is_some_and(|most| count.load(Ordering::Relaxed) > most)
        };
        if above(&self.own, limits.per_listener) {
            Some(Refusal::Listener)
        } else if above(&self.all.count, limits.total) {
            Some(Refusal::Total)
        } else {
            None
        }
    }

    /// Counts a connection of this client until the guard is dropped; `None`: it is one too many.
    pub(super) fn count_client(self: &Arc<Self>, client: IpAddr, most: usize) -> Option<CountedClient> {
        let mut clients = self.all.clients();
        let count = clients.entry(client).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(CountedClient(self.clone(), client))
    }

    /// Counts a handshake until the guard is dropped; `None`: too many are going on.
    pub(super) fn begin_handshake(self: &Arc<Self>, most: usize) -> Option<Shaking> {
        let shaking = Shaking(self.clone());
        let before = self.all.handshakes.fetch_add(1, Ordering::Relaxed);
        (before < most).then_some(shaking)
    }

    /// Notes that a connection was refused.
    pub(super) fn refused(&self, why: Refusal) {
        let count = self.all.refused.fetch_add(1, Ordering::Relaxed) + 1;
        // Once per doubling: a flood must not become a flood of lines.
        if count.is_power_of_two() {
            tracing::warn!(listener = %self.key, reason = why.as_str(), count, "connections refused at their limit");
        }
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn count_connection(self: &Arc<Self>) -> Counted {
        self.all.accepted.fetch_add(1, Ordering::Relaxed);
        self.own.fetch_add(1, Ordering::Relaxed);
        self.all.count.fetch_add(1, Ordering::AcqRel);
        Counted(self.clone())
    }
}

/// One connection, while it lives.
pub(super) struct Counted(Arc<Serving>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.own.fetch_sub(1, Ordering::Relaxed);
        if self.0.all.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.all.none_left.notify_waiters();
        }
    }
}

/// One connection of a client whose connections are counted.
pub(super) struct CountedClient(Arc<Serving>, IpAddr);

impl Drop for CountedClient {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.0.all.clients().entry(self.1) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// One TLS handshake, while it goes on.
pub(super) struct Shaking(Arc<Serving>);

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.all.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which limit a connection is beyond, or why else it is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Total,
    Listener,
    Client,
    Handshakes,
    Itself,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Refusal::Total => "all connections",
            Refusal::Listener => "connections of the listener",
            Refusal::Client => "connections of one client",
            Refusal::Handshakes => "TLS handshakes at one time",
            Refusal::Itself => {
                "made to the port that connections are redirected to, which leads nowhere else"
            }
        }
    }
}

/// What became of a connection that began with TLS of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It went on.
    Complete,
    /// It was refused, by either side.
    Failed,
    /// It took too long.
    TimedOut,
}

impl Handshake {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Complete, Self::Failed, Self::TimedOut];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// The connections of all listeners.
#[derive(Default)]
pub(super) struct Connections {
    pub(super) count: AtomicUsize,
    pub(super) refused: AtomicUsize,
    /// Ever, refused ones included.
    accepted: AtomicU64,
    handshakes: AtomicUsize,
    /// By [`Handshake`].
    ended: [AtomicU64; 3],
    /// By address; empty while there is no limit on these.
    clients: Mutex<BTreeMap<IpAddr, usize>>,
    pub(super) none_left: Notify,
}

impl Connections {
    /// Notes the end of a handshake.
    pub(super) fn shaken(&self, end: Handshake) {
        if let Some(count) = self.ended.get(end as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many handshakes ended so.
    pub(super) fn handshakes(&self, end: Handshake) -> u64 {
        self.ended.get(end as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many connections there ever were.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A panic while the map was held left the counts whole.
    fn clients(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Everything that is in force at one moment, and the cell that holds it.
//!
//! Invariant: a snapshot never changes after it was published; a request that pinned one ends on it. There is one
//! writer, the pipeline; readers never wait.

use crate::{
    edge::EdgeConfig,
    listener::{ListenerSource, LiveListener},
    policy::Chain,
    runtime::registry::Clusters,
    tls::Certificates,
};
use arc_swap::ArcSwap;
use config_model::diagnostic::Diagnostics;
use routing::listener::{ListenerKey, Listeners};
use std::sync::Arc;
use tokio::sync::watch;

/// One published configuration.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts publications; 0 is the empty snapshot before the first.
    pub generation: u64,
    /// What is listened on and how requests are routed.
    pub listeners: Listeners,
    /// What requests are sent to.
    pub clusters: Clusters,
    /// What TLS is terminated with.
    pub certificates: Arc<Certificates>,
    /// What has its say about requests.
    pub policies: Chain,
    /// What clients may do.
    pub edge: Arc<EdgeConfig>,
    /// What is wrong with the configuration this was made from.
    pub diagnostics: Arc<Diagnostics>,
}

/// The snapshot in force.
#[derive(Debug)]
pub struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    announced: watch::Sender<u64>,
}

impl Default for SnapshotCell {
    fn default() -> Self {
        Self { current: ArcSwap::from_pointee(Snapshot::default()), announced: watch::Sender::new(0) }
    }
}

impl SnapshotCell {
    /// The snapshot in force; keep it for as long as one decision must be of one piece.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts a snapshot in force and tells subscribers its generation. For the pipeline alone.
    pub fn publish(&self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        self.current.store(Arc::new(snapshot));
        self.announced.send_replace(generation);
    }

    /// Puts other certificates in force with the configuration that they were read for; nothing when another one is in force
    /// by now. For the watch over certificate files alone.
    pub fn renew(&self, generation: u64, certificates: &Arc<Certificates>) {
        self.current.rcu(|current| {
            if current.generation == generation {
                let certificates = certificates.clone();
                Arc::new(Snapshot { certificates, ..Snapshot::clone(current) })
            } else {
                current.clone()
            }
        });
    }

    /// Receives the generation of each publication; a slow receiver sees the latest only.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.announced.subscribe()
    }
}

impl ListenerSource for SnapshotCell {
    fn listeners(&self) -> Listeners {
        self.load().listeners.clone()
    }

    fn listener(&self, key: &ListenerKey) -> Option<LiveListener> {
        let snapshot = self.load();
        Some(LiveListener {
            listener: snapshot.listeners.get(key)?.clone(),
            certificates: snapshot.certificates.clone(),
            edge: snapshot.edge.clone(),
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_the_snapshot_it_loaded() {
        let cell = SnapshotCell::default();
        let before = cell.load();
        let seen = cell.subscribe();
        cell.publish(Snapshot { generation: 7, ..Snapshot::default() });
        assert_eq!((before.generation, cell.load().generation, *seen.borrow()), (0, 7, 7));
    }
}

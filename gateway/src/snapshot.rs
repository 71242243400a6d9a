//! Everything that is in force at one moment, and the cell that holds it.
//!
//! Invariant: a snapshot never changes after it was published; a request that pinned one ends on it. There is one
//! writer, the pipeline; readers never wait.

use crate::{
    edge::EdgeConfig,
    listener::{ConnectionInfo, ListenerSource, LiveListener},
    policy::{Chain, builtin::Gate},
    runtime::registry::Clusters,
    telemetry::Plans,
    tls::Certificates,
};
use arc_swap::ArcSwap;
use config_model::diagnostic::Diagnostics;
use routing::listener::{Chains, FilterChain, Listener, ListenerKey, Listeners, of_original_destination};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// One published configuration.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts publications; 0 is the empty snapshot before the first.
    pub generation: u64,
    /// What is listened on and how requests are routed.
    pub listeners: Listeners,
    /// What requests are sent to.
    pub clusters: Arc<Clusters>,
    /// What TLS is terminated with.
    pub certificates: Arc<Certificates>,
    /// What has its say about requests.
    pub policies: Chain,
    /// What has its say about connections that are not looked into; `None`: nothing.
    pub gate: Option<Arc<Gate>>,
    /// What clients may do.
    pub edge: Arc<EdgeConfig>,
    /// What is said about requests, and to whom.
    pub telemetry: Arc<Plans>,
    /// What is wrong with the configuration this was made from.
    pub diagnostics: Arc<Diagnostics>,
    /// Listeners that earlier configurations had and this one has not, and since when; [`SnapshotCell::publish`] sees to them.
    pub retired: BTreeMap<ListenerKey, (Instant, Arc<Listener>)>,
}

/// How long a listener that is gone is known to its connections. Those without a request are closed long before.
const RETIREMENT: Duration = Duration::from_secs(600);

impl Snapshot {
    /// The listener of a connection: one that is gone serves its own until they have drained.
    #[must_use]
    pub fn listener(&self, key: &ListenerKey) -> Option<&Arc<Listener>> {
        self.listeners.get(key).or_else(|| self.retired.get(key).map(|(_, listener)| listener))
    }

    /// The chain of a connection: what is in force now for where it came in, where it was going and what it showed.
    #[must_use]
    pub fn chain(&self, connection: &ConnectionInfo) -> Option<&Arc<FilterChain>> {
        match &self.listener(&connection.listener)?.chains {
            Chains::Http(chain) => Some(chain),
            Chains::Tls(by_name) => by_name.lookup_sni(connection.sni.as_deref()),
            Chains::Matched(matched) => {
                let course = connection.course.as_deref()?;
                matched.pick(course.destination, &course.sniffed)
            }
        }
    }

    /// Listeners that are known to their connections only, after a snapshot with these.
    fn retired_by(&self, next: &Listeners) -> BTreeMap<ListenerKey, (Instant, Arc<Listener>)> {
        let now = Instant::now();
        let before = self.retired.iter().filter(|(_, (since, _))| now.duration_since(*since) < RETIREMENT);
        let before = before.map(|(key, retired)| (key.clone(), retired.clone()));
        let own = self.listeners.iter().map(|(key, listener)| (key.clone(), (now, listener.clone())));
        before.chain(own).filter(|(key, _)| !next.contains_key(key)).collect()
    }
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
    pub fn publish(&self, mut snapshot: Snapshot) {
        snapshot.retired = self.current.load().retired_by(&snapshot.listeners);
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

    fn handed_over(&self, key: &ListenerKey, destination: SocketAddr) -> Option<LiveListener> {
        let snapshot = self.load();
        let accepted = snapshot.listeners.get(key)?;
        Some(LiveListener {
            listener: of_original_destination(&snapshot.listeners, accepted, destination).clone(),
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
    use routing::listener::Bind;

    #[test]
    fn a_reader_keeps_the_snapshot_it_loaded() {
        let cell = SnapshotCell::default();
        let before = cell.load();
        let seen = cell.subscribe();
        cell.publish(Snapshot { generation: 7, ..Snapshot::default() });
        assert_eq!((before.generation, cell.load().generation, *seen.borrow()), (0, 7, 7));
    }

    #[test]
    fn a_listener_that_is_gone_is_known_to_its_connections_until_it_comes_back() {
        let key = ListenerKey { bind: Bind::Any, port: 80 };
        let listener =
            || Arc::new(Listener::of_gateway(key.clone(), Chains::Tls(routing::host::HostIndex::new())));
        let with = |listener: &Arc<Listener>| Snapshot {
            listeners: [(key.clone(), listener.clone())].into(),
            ..Snapshot::default()
        };
        let (first, second) = (listener(), listener());
        let cell = SnapshotCell::default();
        cell.publish(with(&first));
        for _ in 0..2 {
            cell.publish(Snapshot::default());
            assert!(Arc::ptr_eq(cell.load().listener(&key).unwrap(), &first));
            assert!(ListenerSource::listener(&cell, &key).is_none(), "nobody is let in by it");
        }
        cell.publish(with(&second));
        assert!(Arc::ptr_eq(cell.load().listener(&key).unwrap(), &second));
        assert!(cell.load().retired.is_empty());
    }
}

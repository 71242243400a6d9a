//! Configuration from the Kubernetes API, followed while it changes.
//!
//! Invariant: nothing is told before every kind was listed once, so a gateway never starts with half a cluster. A list that has to be
//! read again takes the place of the old one whole. While the API cannot be reached, what was read last stays, and is called stale.
//! Only this module and those below name kube. Must not interpret resources beyond finding the Secrets and ConfigMaps they name.

mod audit;
mod cache;
mod client;
pub(crate) mod discovery;
mod follow;
mod item;
mod references;
mod store;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use config_model::{mesh::MeshConfig, meta::Kind};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

pub use audit::unread;
pub use client::{Cluster, ConnectError};

use super::{Loaded, Source};
use crate::settings::Settings;
use cache::Cache;
use store::{Part, Store};

/// Of whom the configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Namespace of the gateway's pod: the only one whose Secrets are read.
    pub namespace: String,
    /// Labels of the gateway's pod: only what Gateways with these name is read.
    pub labels: BTreeMap<String, String>,
    /// Namespace of MeshConfig.
    pub root_namespace: String,
}

impl Home {
    /// The gateway that these settings describe.
    #[must_use]
    pub fn of(settings: &Settings) -> Home {
        Home {
            namespace: settings.namespace.clone(),
            labels: settings.labels.clone(),
            root_namespace: MeshConfig::default().root_namespace,
        }
    }
}

/// How quickly changes are taken up.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A change is told when nothing has happened for this long (100 ms, as istiod's).
    pub quiet: Duration,
    /// The same where only endpoints have changed (10 ms): no route is compiled for those.
    pub quiet_endpoints: Duration,
    /// A change is told at the latest after this long (10 s).
    pub longest: Duration,
    /// A kind that is not installed is looked for this often (10 s).
    pub discover: Duration,
    /// A Secret that came to be named is waited for this long (2 s); what names it goes live without it then.
    pub named: Duration,
    /// The API is waited for this long at the start, before what was kept on disk is served (5 s).
    pub patience: Duration,
    /// What is in force is kept on disk at most this often (5 s).
    pub keep: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            quiet: Duration::from_millis(100),
            quiet_endpoints: Duration::from_millis(10),
            longest: Duration::from_secs(10),
            discover: Duration::from_secs(10),
            named: Duration::from_secs(2),
            patience: Duration::from_secs(5),
            keep: Duration::from_secs(5),
        }
    }
}

/// The Kubernetes API as a source.
pub struct Kubernetes {
    cluster: Cluster,
    home: Home,
    timing: Timing,
    runtime: Handle,
    store: Arc<Store>,
    changes: watch::Receiver<u64>,
    seen: u64,
    stage: Stage,
    followers: BTreeMap<Part, Follower>,
    cache: Option<Cache>,
}

/// A task that ends with its holder.
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How far the first state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Stage {
    /// Nothing was asked for yet.
    New,
    /// Lists are being read since then; nothing was told.
    Waiting(Instant),
    /// What was kept on disk was told; lists are still being read.
    Kept,
    /// A whole state was told.
    Following,
}

impl Kubernetes {
    /// A source that reads with this client, on this runtime. With a folder, the last state is kept there.
    #[must_use]
    pub fn new(cluster: Cluster, home: Home, cache: Option<PathBuf>, runtime: Handle) -> Kubernetes {
        Kubernetes::with_timing(cluster, home, cache, runtime, Timing::default())
    }

    /// The same with another timing.
    #[must_use]
    pub fn with_timing(
        cluster: Cluster,
        home: Home,
        cache: Option<PathBuf>,
        runtime: Handle,
        timing: Timing,
    ) -> Kubernetes {
        let cache = cache.map(|folder| Cache::new(folder, timing.keep));
        let store = Arc::new(Store::new(cache.is_some()));
        let changes = store.changes();
        Kubernetes {
            cluster,
            home,
            timing,
            runtime,
            store,
            changes,
            seen: 0,
            stage: Stage::New,
            followers: BTreeMap::new(),
            cache,
        }
    }

    /// What cannot be read, and why.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.store.troubles()
    }

    fn start(&mut self) {
        let store = Arc::clone(&self.store);
        self.cluster.on_reach(move |reach| store.set_reach(reach));
        for kind in Kind::ALL {
            if !matches!(kind, Kind::Secret | Kind::ConfigMap | Kind::Endpoints) {
                self.follow(Part::Kind(kind));
            }
        }
        let mesh = MeshConfig::CONFIG_MAP;
        self.follow(Part::named(Kind::ConfigMap, &self.home.root_namespace, mesh));
        self.store.begin();
    }

    fn follow(&mut self, part: Part) {
        self.store.expect(part.clone());
        let (store, client) = (Arc::clone(&self.store), self.cluster.client());
        let task = self.runtime.spawn(follow::run(store, client, part.clone(), self.timing.discover));
        self.followers.insert(part, Follower(task));
    }

    /// Follows what resources have come to name, and leaves what nothing names any more.
    fn follow_named(&mut self) {
        let named = self.store.with_resources(|resources| references::named(&self.home, resources));
        let mesh = Part::named(Kind::ConfigMap, &self.home.root_namespace, MeshConfig::CONFIG_MAP);
        let gone: Vec<Part> = self
            .followers
            .keys()
            .filter(|part| matches!(part, Part::Named(_)) && **part != mesh && !named.contains(part))
            .cloned()
            .collect();
        for part in gone {
            self.followers.remove(&part);
            self.store.forget(&part);
        }
        for part in named {
            if !self.followers.contains_key(&part) {
                self.follow(part);
            }
        }
    }

    /// Lets a burst of changes end; shorter when only endpoints change.
    async fn settle(&mut self) {
        let latest = Instant::now() + self.timing.longest;
        loop {
            let quiet = if self.store.only_endpoints_changed() {
                self.timing.quiet_endpoints
            } else {
                self.timing.quiet
            };
            let until = latest.min(Instant::now() + quiet);
            if timeout_at(until, self.changes.changed()).await.is_err() || Instant::now() >= latest {
                return;
            }
        }
    }

    /// Waits until everything was listed that is named, but not for ever: one Secret must not hold up the rest.
    async fn settle_named(&mut self) {
        let latest = Instant::now() + self.timing.named;
        loop {
            self.follow_named();
            if self.store.is_listed() || timeout_at(latest, self.changes.changed()).await.is_err() {
                return;
            }
        }
    }

    async fn first(&mut self) -> Option<Loaded> {
        loop {
            let _newest = *self.changes.borrow_and_update();
            if self.store.is_listed() {
                self.settle_named().await;
                self.stage = Stage::Following;
                return None;
            }
            let Stage::Waiting(since) = self.stage else {
                self.changed().await;
                continue;
            };
            let patience = if self.store.is_reached() { self.timing.patience } else { Duration::ZERO };
            let kept = self.cache.as_ref().filter(|cache| cache.exists());
            match kept {
                Some(cache) if since.elapsed() >= patience => {
                    self.stage = Stage::Kept;
                    if let Some(loaded) = cache.load() {
                        return Some(loaded);
                    }
                }
                Some(_) => {
                    let left = patience.saturating_sub(since.elapsed());
                    // Either way it is looked at again.
                    let _woken = timeout(left, self.changes.changed()).await;
                }
                None => self.changed().await,
            }
        }
    }

    /// Waits for a change. The store lives as long as this source, and with it the sender.
    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Source for Kubernetes {
    fn describe(&self) -> String {
        format!("the Kubernetes API at {}", self.cluster.address())
    }

    async fn next(&mut self) -> Option<Loaded> {
        if self.stage == Stage::New {
            self.start();
            self.stage = Stage::Waiting(Instant::now());
        }
        if self.stage != Stage::Following
            && let Some(kept) = self.first().await
        {
            return Some(kept);
        }
        while self.store.generation() == self.seen {
            self.changed().await;
        }
        self.settle().await;
        self.settle_named().await;
        let (loaded, generation) = self.store.loaded();
        self.seen = generation;
        if let Some(cache) = &mut self.cache {
            cache.keep(&self.store, &self.runtime);
        }
        Some(loaded)
    }
}

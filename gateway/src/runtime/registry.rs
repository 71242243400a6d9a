//! All clusters that the configuration in force has, and which of them a new configuration can keep.
//!
//! Invariant: only the writer of snapshots calls [`Registry::reconcile`]; a cluster whose specification is unchanged
//! is the same object before and after.

use super::{
    cluster::Cluster,
    dns::{self, Resolve},
    dynamic::{DynamicNames, Reach},
    metrics::Collector,
    outlier,
    trust::Reload,
};
use crate::tls::{CredentialReader, NoCredentials, Sources};
use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use routing::{
    cluster::ClusterName,
    compile::{Clusters as Compiled, WorkloadFiles},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::runtime::Handle;

/// Clusters by name, hashed for lookups on the request path.
pub type Clusters = HashMap<ClusterName, Arc<Cluster>, RandomState>;

/// How long a publication waits for the first answers to new names.
pub const FIRST_RESOLUTION: Duration = Duration::from_secs(1);

/// How often certificate files are looked at.
pub const CERTIFICATE_CHECK: Duration = Duration::from_secs(1);

/// The clusters in force, and what resolves their names.
pub struct Registry {
    shared: Arc<Shared>,
    resolver: Arc<dyn Resolve>,
    background: Handle,
    reach: Reach,
}

struct Shared {
    current: Mutex<Current>,
    credentials: ArcSwap<Box<dyn CredentialReader>>,
    workload: WorkloadFiles,
}

/// What was reconciled last.
#[derive(Default)]
struct Current {
    /// What it was made of.
    compiled: Arc<Compiled>,
    clusters: Arc<Clusters>,
    /// Those with certificates.
    secured: Arc<[Arc<Cluster>]>,
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at certificate files for as long as the registry lives.
async fn follow_files(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(CERTIFICATE_CHECK).await;
        let Some(shared) = shared.upgrade() else { return };
        let clusters = Arc::clone(&shared.current().secured);
        if clusters.is_empty() {
            continue;
        }
        let looked = tokio::task::spawn_blocking(move || {
            let credentials = shared.credentials.load();
            let sources = Sources { credentials: &***credentials, workload: &shared.workload };
            clusters.iter().for_each(|cluster| cluster.reload_trust(&sources, Reload::IfFilesChanged));
        });
        if looked.await.is_err() {
            tracing::error!("certificate files could not be looked at");
        }
    }
}

impl Registry {
    /// An empty registry whose names are resolved by tasks on `background`.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolve>, background: Handle) -> Self {
        Self::with_workload(resolver, background, WorkloadFiles::default())
    }

    /// The same, with the gateway's own certificate in these files.
    #[must_use]
    pub fn with_workload(resolver: Arc<dyn Resolve>, background: Handle, workload: WorkloadFiles) -> Self {
        let shared = Arc::new(Shared {
            current: Mutex::default(),
            credentials: ArcSwap::from_pointee(Box::new(NoCredentials)),
            workload,
        });
        background.spawn(follow_files(Arc::downgrade(&shared)));
        Self { shared, resolver, background, reach: Reach::default() }
    }

    /// The same, where names that requests ask for may stand for these addresses.
    #[must_use]
    pub fn reaching(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// Where Secrets and ConfigMaps are looked up from now on; clusters take them at the next reconciliation.
    pub fn set_credentials(&self, credentials: impl CredentialReader + 'static) {
        self.shared.credentials.store(Arc::new(Box::new(credentials)));
    }

    /// The clusters for a new configuration. Unchanged ones are kept with all their state; one whose endpoints alone
    /// changed is kept and told; the rest are made anew and take over the counters of addresses that stay.
    ///
    /// Clusters that are gone live on until the last request that uses them is done.
    pub fn reconcile(&self, compiled: &Arc<Compiled>) -> Arc<Clusters> {
        let mut current = self.shared.current();
        let credentials = self.shared.credentials.load();
        let sources = Sources { credentials: &***credentials, workload: &self.shared.workload };
        // Most changes are of rules, and then it is the very same.
        if Arc::ptr_eq(compiled, &current.compiled) {
            current.secured.iter().for_each(|cluster| cluster.reload_trust(&sources, Reload::Always));
            return Arc::clone(&current.clusters);
        }
        let mut next = Clusters::with_capacity_and_hasher(compiled.len(), RandomState::default());
        for cluster in compiled.values() {
            let before = current.clusters.get(&cluster.spec.name);
            let kept = match before {
                Some(c) if c.spec == cluster.spec => {
                    let named = dns::needs_resolution(c.spec.discovery, &c.declared());
                    c.declare(cluster.endpoints.clone());
                    c.reload_trust(&sources, Reload::Always);
                    if !named {
                        self.follow(c);
                    }
                    c.clone()
                }
                _ => {
                    let made = Arc::new(Cluster::new(
                        cluster.spec.clone(),
                        cluster.endpoints.clone(),
                        before.map(Arc::as_ref),
                        &sources,
                    ));
                    self.look_after(&made);
                    made
                }
            };
            next.insert(cluster.spec.name.clone(), kept);
        }
        let secured = next.values().filter(|cluster| cluster.tls().is_some()).cloned().collect();
        *current = Current { compiled: Arc::clone(compiled), clusters: Arc::new(next), secured };
        Arc::clone(&current.clusters)
    }

    /// Waits until every name was asked for once, but no longer than `limit`; then requests to a cluster whose names
    /// are still unknown are answered as having no healthy upstream.
    pub async fn settle(&self, clusters: &Clusters, limit: Duration) {
        let unsettled = clusters.values().filter(|cluster| !cluster.is_settled());
        let all = futures::future::join_all(unsettled.map(|cluster| cluster.settled()));
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(?limit, "some names are still being resolved; publishing without them");
        }
    }

    fn look_after(&self, cluster: &Arc<Cluster>) {
        if cluster.needs_care() {
            self.background.spawn(outlier::care(Arc::downgrade(cluster)));
        }
        cluster
            .resolve_with(|| DynamicNames::new(self.resolver.clone(), self.background.clone(), self.reach));
        self.follow(cluster);
    }

    /// What the clusters in force have to say to metrics.
    ///
    /// # Errors
    /// When two metrics have one name; that is a mistake of the module's.
    pub fn collector(&self) -> Result<Collector, prometheus::Error> {
        let shared = Arc::downgrade(&self.shared);
        Collector::new(move || {
            let clusters = shared.upgrade().map(|shared| Arc::clone(&shared.current().clusters));
            clusters.map(|clusters| clusters.values().cloned().collect()).unwrap_or_default()
        })
    }

    fn follow(&self, cluster: &Arc<Cluster>) {
        if dns::needs_resolution(cluster.spec.discovery, &cluster.declared()) {
            self.background.spawn(dns::follow(Arc::downgrade(cluster), self.resolver.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::dns::{Answer, ResolveError};
    use async_trait::async_trait;
    use routing::cluster::{Address, ClusterSpec, Discovery, Endpoint, UpstreamTls};

    struct Fixed(Mutex<Result<Vec<std::net::IpAddr>, String>>);

    #[async_trait]
    impl Resolve for Fixed {
        async fn resolve(&self, _name: &str) -> Result<Answer, ResolveError> {
            match &*self.0.lock().unwrap() {
                Ok(a) => Ok(Answer { addresses: a.clone(), ttl: Duration::from_secs(30) }),
                Err(e) => Err(ResolveError(e.clone())),
            }
        }
    }

    fn cluster(address: Address, discovery: Discovery, connect: u64) -> routing::cluster::Cluster {
        routing::cluster::Cluster {
            spec: Arc::new(ClusterSpec {
                discovery,
                connect_timeout: Duration::from_secs(connect),
                ..ClusterSpec::new("a.example.com", 80, "")
            }),
            endpoints: Arc::from([Endpoint::at(address)]),
        }
    }

    fn of(clusters: &[&routing::cluster::Cluster]) -> Arc<Compiled> {
        let named = clusters.iter().map(|cluster| (cluster.spec.name.clone(), Arc::new((*cluster).clone())));
        Arc::new(named.collect())
    }

    fn ip(address: &str) -> Address {
        Address::Ip(address.parse().unwrap())
    }

    fn registry(answer: Result<Vec<std::net::IpAddr>, String>) -> (Registry, Arc<Fixed>) {
        let resolver = Arc::new(Fixed(Mutex::new(answer)));
        (Registry::new(resolver.clone(), Handle::current()).reaching(Reach::Anywhere), resolver)
    }

    #[tokio::test]
    async fn an_unchanged_cluster_is_kept_and_a_changed_one_keeps_its_load() {
        let (registry, _) = registry(Ok(vec![]));
        let compiled = cluster(ip("10.0.0.1:80"), Discovery::Static, 10);
        let name = compiled.spec.name.clone();
        let first = registry.reconcile(&of(&[&compiled]));
        let again = registry.reconcile(&of(&[&compiled.clone()]));
        assert!(Arc::ptr_eq(&first[&name], &again[&name]));
        let same = of(&[&compiled]);
        assert!(Arc::ptr_eq(&registry.reconcile(&same), &registry.reconcile(&same)));

        let guard = first[&name].endpoints().all[0].begin(&first[&name]);
        let changed = registry.reconcile(&of(&[&cluster(ip("10.0.0.1:80"), Discovery::Static, 3)]));
        assert!(!Arc::ptr_eq(&first[&name], &changed[&name]));
        assert_eq!(changed[&name].endpoints().all[0].in_flight(), 1);
        drop(guard);
        assert_eq!(changed[&name].endpoints().all[0].in_flight(), 0);
    }

    #[tokio::test]
    async fn a_cluster_for_a_domain_resolves_the_names_below_it_and_no_others() {
        let (registry, _) = registry(Ok(vec!["10.1.0.1".parse().unwrap()]));
        let mut compiled = cluster(Address::Name("*.example.com".into(), 8443), Discovery::DynamicDns, 10);
        compiled.spec = Arc::new(ClusterSpec {
            discovery: Discovery::DynamicDns,
            ..ClusterSpec::new("*.example.com", 443, "")
        });
        let clusters = registry.reconcile(&of(&[&compiled]));
        registry.settle(&clusters, FIRST_RESOLUTION).await;
        let one = clusters.values().next().unwrap();
        let found = one.named("A.example.com").await.unwrap();
        assert_eq!(found.endpoint.address, ip("10.1.0.1:8443"));
        for other in ["example.com", ".example.com", "a.example.org", "aexample.com", ""] {
            assert!(one.named(other).await.is_none(), "{other}");
        }
    }

    #[tokio::test]
    async fn any_name_goes_to_the_port_that_is_asked_for() {
        let (registry, _) = registry(Ok(vec!["10.1.0.1".parse().unwrap()]));
        let mut compiled = cluster(Address::Name("*".into(), 0), Discovery::DynamicDns, 10);
        compiled.spec =
            Arc::new(ClusterSpec { discovery: Discovery::DynamicDns, ..ClusterSpec::new("any", 0, "") });
        let clusters = registry.reconcile(&of(&[&compiled]));
        let one = clusters.values().next().unwrap();
        for (authority, address) in [
            ("a.example", "10.1.0.1:80"),
            ("a.example:8080", "10.1.0.1:8080"),
            ("10.2.0.1:81", "10.2.0.1:81"),
            ("[fd00::1]:81", "[fd00::1]:81"),
            ("[fd00::1]", "[fd00::1]:80"),
        ] {
            let found = one.named(authority).await.unwrap();
            assert_eq!(found.endpoint.address, ip(address), "{authority}");
        }
        assert!(one.named("").await.is_none());
        compiled.spec =
            Arc::new(ClusterSpec { tls: Some(UpstreamTls::default()), ..ClusterSpec::clone(&compiled.spec) });
        let clusters = registry.reconcile(&of(&[&compiled]));
        let found = clusters.values().next().unwrap().named("a.example").await.unwrap();
        assert_eq!(found.endpoint.address, ip("10.1.0.1:443"), "by TLS");
    }

    #[tokio::test]
    async fn where_connections_were_going_is_one_endpoint_as_long_as_it_is_one_address() {
        let (registry, _) = registry(Ok(vec![]));
        let mut compiled = cluster(ip("10.0.0.1:80"), Discovery::Static, 10);
        let original = |port| ClusterSpec {
            discovery: Discovery::OriginalDestination { port },
            ..ClusterSpec::new("any", 80, "")
        };
        (compiled.spec, compiled.endpoints) = (Arc::new(original(None)), [].into());
        let clusters = registry.reconcile(&of(&[&compiled]));
        let one = clusters.values().next().unwrap();
        let to = |to: &str| one.original(to.parse().unwrap()).unwrap();
        let first = to("10.0.0.1:80");
        let guard = first.begin(one);
        assert!(Arc::ptr_eq(&first, &to("10.0.0.1:80")));
        assert_eq!(to("10.0.0.2:80").in_flight(), 0);
        assert_eq!(to("10.0.0.2:80").endpoint.address, ip("10.0.0.2:80"));
        drop(guard);

        compiled.spec = Arc::new(original(Some(8080)));
        let clusters = registry.reconcile(&of(&[&compiled]));
        let found = clusters.values().next().unwrap().original("10.0.0.1:80".parse().unwrap());
        assert_eq!(found.unwrap().endpoint.address, ip("10.0.0.1:8080"));
        assert!(
            registry
                .reconcile(&of(&[&cluster(ip("10.0.0.1:80"), Discovery::Static, 10)]))
                .values()
                .all(|cluster| cluster.original("10.0.0.1:80".parse().unwrap()).is_none())
        );
    }

    #[tokio::test]
    async fn an_endpoint_change_reaches_the_cluster_that_is_in_use() {
        let (registry, _) = registry(Ok(vec![]));
        let first = registry.reconcile(&of(&[&cluster(ip("10.0.0.1:80"), Discovery::Static, 10)]));
        registry.reconcile(&of(&[&cluster(ip("10.0.0.2:80"), Discovery::Static, 10)]));
        let one = first.values().next().unwrap();
        assert_eq!(one.endpoints().all[0].endpoint.address, ip("10.0.0.2:80"));
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_resolved_before_settling_and_a_failure_keeps_the_last_answer() {
        let (registry, resolver) = registry(Ok(vec!["10.1.0.1".parse().unwrap()]));
        let named = cluster(Address::Name("a.example.com".into(), 8080), Discovery::StrictDns, 10);
        let clusters = registry.reconcile(&of(&[&named]));
        registry.settle(&clusters, FIRST_RESOLUTION).await;
        let one = clusters.values().next().unwrap();
        assert_eq!(one.endpoints().all[0].endpoint.address, ip("10.1.0.1:8080"));

        *resolver.0.lock().unwrap() = Err("gone".into());
        tokio::time::advance(Duration::from_secs(31)).await;
        tokio::task::yield_now().await;
        assert_eq!(one.endpoints().all.len(), 1);

        *resolver.0.lock().unwrap() = Ok(vec!["10.1.0.2".parse().unwrap()]);
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
            if one.endpoints().all[0].endpoint.address == ip("10.1.0.2:8080") {
                return;
            }
        }
        panic!("the new answer never arrived: {:?}", one.endpoints());
    }
}

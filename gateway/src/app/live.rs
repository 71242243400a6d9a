//! What puts a configuration in force: build everything, swap once; what is gone drains by itself.
//!
//! Invariant: a snapshot is published whole. What only running it can tell (a certificate, a port, a collector) is a finding, and the
//! rest is in force all the same.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use config_model::diagnostic::Diagnostics;

use super::telemetry::Telemetry;
use crate::{
    edge::{EdgeConfig, EdgeFlags},
    jwt::store::KeyStore,
    listener::ListenerManager,
    pipeline::{Built, Publisher},
    policy::{
        Given, Limits,
        builtin::{self, Means, SecurityMetrics},
    },
    proxy::ask,
    runtime::{Registry, registry::FIRST_RESOLUTION},
    snapshot::{Snapshot, SnapshotCell},
    tls::{self, Certificates},
};

/// All that a configuration is put in force with.
pub(super) struct Live {
    pub(super) snapshots: Arc<SnapshotCell>,
    pub(super) registry: Registry,
    pub(super) listeners: ListenerManager,
    pub(super) edge: EdgeFlags,
    pub(super) policies: Given,
    pub(super) security: Arc<SecurityMetrics>,
    pub(super) keys: KeyStore,
    pub(super) limits: Limits,
    pub(super) calls: Arc<ask::Calls>,
    pub(super) latest: tls::watch::Latest<config_model::set::ResourceSet>,
    pub(super) telemetry: Telemetry,
}

#[async_trait]
impl Publisher for Live {
    async fn publish(&mut self, built: &Arc<Built>) -> Diagnostics {
        let compiled = &built.compiled;
        let metadata = &built.validated.mesh().default_config.proxy_metadata;
        for problem in EdgeFlags::from_metadata(metadata).1 {
            tracing::warn!("{problem}");
        }
        self.registry.set_credentials(built.validated.set().clone());
        let clusters = self.registry.reconcile(&compiled.clusters);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(built.validated.set().clone()));
        let before = self.snapshots.load();
        let (certificates, problems) =
            Certificates::build(&compiled.listeners, built.validated.set(), &before.certificates);
        let mut found = tls::findings::findings(&problems, &built.validated, &built.diagnostics);
        self.registry.settle(&clusters, FIRST_RESOLUTION).await;
        for failure in self.listeners.prepare(&compiled.listeners) {
            // Not kept as a finding: it is tried again, and /diagnostics shows what fails at the time of asking.
            tracing::error!(listener = %failure.key, "{failure}");
        }
        let means = Means {
            keys: &self.keys,
            metrics: &self.security,
            limits: &self.limits,
            service: &|provider| ask::service(&self.calls, &clusters, provider),
        };
        let policies = self.policies.among(&builtin::configured(compiled, &means));
        let gate = builtin::gate(compiled, &means);
        let mut diagnostics = Diagnostics::clone(&built.diagnostics);
        let (telemetry, problems) = self.telemetry.plans(built);
        found.extend(problems);
        diagnostics.share(&found);
        self.snapshots.publish(Snapshot {
            generation: built.generation,
            listeners: compiled.listeners.clone(),
            clusters,
            certificates: Arc::new(certificates),
            policies,
            gate,
            edge: Arc::new(EdgeConfig::new(built.validated.mesh(), &self.edge)),
            telemetry,
            diagnostics: Arc::new(diagnostics),
            ..Snapshot::default()
        });
        found
    }
}

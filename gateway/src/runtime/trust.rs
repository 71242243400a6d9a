//! A cluster's certificates: loaded with it, loaded again as they change, and why the upstream's were refused.
//!
//! Invariant: what cannot be loaded refuses every connection that a rule secures: it never weakens. What was good stays
//! in use while what replaces it is not.

use super::Cluster;
use crate::tls::{Sources, Stamp, Trust};
use arc_swap::ArcSwap;
use routing::cluster::{ClusterSpec, Endpoint, UpstreamTls};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Why the upstream's certificate was refused, and when that was found out.
#[derive(Debug)]
pub(super) struct Refusal {
    at: Instant,
    reason: Option<Arc<str>>,
}

/// How long the reason of a refusal is taken for that of the next.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);

/// When certificates are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// Whatever the files' times say: Secrets have none.
    Always,
    /// When a file was written.
    IfFilesChanged,
}

/// Certificates, and the files as they were when they were read.
#[derive(Debug)]
pub(super) struct Loaded {
    trust: Trust,
    stamp: Stamp,
}

impl Loaded {
    /// What a new cluster needs; `None` without TLS. Blocks on files.
    pub(super) fn first(spec: &ClusterSpec, sources: &Sources<'_>) -> Option<ArcSwap<Self>> {
        let tls = spec.tls.as_ref().or(spec.auto_mtls.as_ref())?;
        let stamp = Stamp::of(tls, sources.workload);
        let trust = Trust::load(tls, sources);
        match &trust {
            Trust::Usable(_) => {}
            Trust::Unavailable(why) if spec.tls.is_some() => {
                tracing::error!(cluster = %spec.name, reason = %why, "no connection can be trusted, so none is made");
            }
            Trust::Unavailable(why) => {
                tracing::debug!(cluster = %spec.name, reason = %why, "no mutual TLS with the mesh");
            }
        }
        Some(ArcSwap::from_pointee(Self { trust, stamp }))
    }
}

impl Cluster {
    /// Its TLS: as a rule asks for it, or as the mesh does it; `None` without either.
    #[must_use]
    pub fn tls(&self) -> Option<&UpstreamTls> {
        self.spec.tls.as_ref().or(self.spec.auto_mtls.as_ref())
    }

    /// TLS towards one endpoint, and the certificates for it. What a rule asks for is for all; the mesh's is for those
    /// that are of it, and only where the gateway has a certificate to show: nobody asked for it (Istio: auto mTLS).
    #[must_use]
    pub fn tls_to(&self, endpoint: &Endpoint) -> Option<(&UpstreamTls, Trust)> {
        let (tls, trust) = (self.tls()?, self.trust()?);
        let used = self.spec.tls.is_some() || (endpoint.is_of_mesh() && matches!(trust, Trust::Usable(_)));
        used.then_some((tls, trust))
    }

    /// What its TLS is verified against and shown; `None` without TLS.
    #[must_use]
    pub fn trust(&self) -> Option<Trust> {
        self.trust.as_ref().map(|loaded| loaded.load().trust.clone())
    }

    /// Reads certificates again where their Secrets or files may have changed. What was good stays in use while what
    /// replaces it is not. Blocks on files.
    pub(super) fn reload_trust(&self, sources: &Sources<'_>, whole: Reload) {
        let (Some(tls), Some(loaded)) = (self.tls(), &self.trust) else { return };
        let stamp = Stamp::of(tls, sources.workload);
        let before = loaded.load();
        if whole == Reload::IfFilesChanged && before.stamp == stamp {
            return;
        }
        let trust = match Trust::load(tls, sources) {
            Trust::Unavailable(why) if matches!(before.trust, Trust::Usable(_)) => {
                tracing::error!(cluster = %self.spec.name, reason = %why, "new certificates cannot be used, the old ones stay");
                before.trust.clone()
            }
            trust => {
                if !trust.same(&before.trust) {
                    tracing::info!(cluster = %self.spec.name, "certificates changed");
                }
                trust
            }
        };
        loaded.store(Arc::new(Loaded { trust, stamp }));
    }

    /// Why its upstream's certificate was refused: as found out of late, else as `ask` finds out.
    pub async fn explained_refusal<F>(&self, ask: impl FnOnce() -> F) -> Option<Arc<str>>
    where
        F: Future<Output = Option<Arc<str>>>,
    {
        let known = self.refusal.load_full();
        if let Some(known) = known.filter(|known| known.at.elapsed() < REFUSAL_HOLDS) {
            return known.reason.clone();
        }
        // Whoever comes meanwhile gets what was known: one question at a time is enough.
        self.refusal.store(Some(Arc::new(Refusal { at: Instant::now(), reason: None })));
        let reason = ask().await;
        self.refusal.store(Some(Arc::new(Refusal { at: Instant::now(), reason: reason.clone() })));
        reason
    }
}

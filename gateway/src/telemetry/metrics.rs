//! Metrics and their registry.
//!
//! Invariant: the number of series is bounded by the configuration, never by what clients send. What is read is read off the data
//! plane's threads.

use super::{
    identity::Identity,
    istio::{IstioMetrics, Read},
    names,
};
use prometheus::{Encoder, IntCounter, IntGauge, Opts, Registry, TextEncoder};
use std::sync::Arc;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Istio's.
    pub istio: Arc<IstioMetrics>,
    /// Generation of the configuration in force.
    pub config_generation: IntGauge,
    /// 1 while the configuration in force is what its source says.
    pub config_synchronized: IntGauge,
    /// Resources that are not served as written.
    pub config_rejected: IntGauge,
    /// Client connections open now.
    pub active_connections: IntGauge,
    /// Access log lines lost.
    pub access_log_dropped: IntCounter,
    /// Copies for mirrors that were not made, or given up.
    pub mirror_dropped: IntCounter,
}

impl Metrics {
    /// A registry of its own.
    ///
    /// # Errors
    /// When two metrics have one name; that is a mistake in this file.
    pub fn new(identity: Identity, version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let build = IntGauge::with_opts(
            Opts::new(names::BUILD, "Version of the proxy.")
                .const_label("component", "proxy")
                .const_label("tag", version),
        )?;
        build.set(1);
        registry.register(Box::new(build))?;
        let istio = Arc::new(IstioMetrics::new(identity, |_| names::BUCKETS.to_vec())?);
        registry.register(Box::new(Read(istio.clone())))?;
        Ok(Self {
            istio,
            config_generation: gauge(names::CONFIG_GENERATION, "Generation of the configuration in force.")?,
            config_synchronized: gauge(
                names::CONFIG_SYNCHRONIZED,
                "1 while the configuration in force is its source's.",
            )?,
            config_rejected: gauge(names::CONFIG_REJECTED, "Resources that are not served as written.")?,
            active_connections: gauge(names::ACTIVE_CONNECTIONS, "Client connections open now.")?,
            access_log_dropped: counter(
                names::ACCESS_LOG_DROPPED,
                "Access log lines lost to a slow reader.",
            )?,
            mirror_dropped: counter(
                names::MIRROR_DROPPED,
                "Copies for mirrors not made, or given up, for want of room.",
            )?,
            registry,
        })
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(error = %e, "metrics cannot be encoded");
        }
        out
    }

    /// Registers a metric of another part of the process.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn register(&self, collector: Box<dyn prometheus::core::Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }
}

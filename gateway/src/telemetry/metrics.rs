//! Metrics and their registry.
//!
//! Invariant: the number of series is bounded by the configuration, never by what clients send. What is read is read off the data
//! plane's threads.

use super::{buckets::Buckets, identity::Identity, istio::IstioMetrics, names};
use prometheus::{Encoder, IntCounter, IntGauge, Opts, Registry, TextEncoder, core::Collector};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    described: Mutex<BTreeMap<String, BTreeSet<String>>>,
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
        Self::with_buckets(identity, version, &Buckets::default())
    }

    /// A registry of its own, with these bounds of the buckets of Istio's histograms.
    ///
    /// # Errors
    /// When two metrics have one name; that is a mistake in this file.
    pub fn with_buckets(
        identity: Identity,
        version: &str,
        buckets: &Buckets,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let described = Mutex::default();
        let register = |collector: Box<dyn Collector>| register(&registry, &described, collector);
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let build = IntGauge::with_opts(
            Opts::new(names::BUILD, "Version of the proxy.")
                .const_label("component", "proxy")
                .const_label("tag", version),
        )?;
        build.set(1);
        register(Box::new(build))?;
        let istio = Arc::new(IstioMetrics::new(identity, |name| buckets.of(name)));
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
                "Access log lines lost: to a slow reader, or because they could not be written.",
            )?,
            mirror_dropped: counter(
                names::MIRROR_DROPPED,
                "Copies for mirrors not made, or given up, for want of room.",
            )?,
            described,
            registry,
        })
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = String::new();
        self.istio.write(&mut out);
        let mut out = out.into_bytes();
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(error = %e, "metrics cannot be encoded");
        }
        out
    }

    /// Registers a metric of another part of the process.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        register(&self.registry, &self.described, collector)
    }

    /// Every metric that there may be, and its labels.
    #[must_use]
    pub fn described(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut all = self.described.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let istio = names::ISTIO.iter().map(|(name, _)| {
            ((*name).to_owned(), names::istio_labels(name).into_iter().map(str::to_owned).collect())
        });
        all.extend(istio);
        all
    }
}

fn register(
    registry: &Registry,
    described: &Mutex<BTreeMap<String, BTreeSet<String>>>,
    collector: Box<dyn Collector>,
) -> Result<(), prometheus::Error> {
    let all = collector.desc().into_iter().map(|description| {
        let fixed = description.const_label_pairs.iter().map(|pair| pair.name().to_owned());
        (description.fq_name.clone(), fixed.chain(description.variable_labels.iter().cloned()).collect())
    });
    let all: Vec<_> = all.collect();
    registry.register(collector)?;
    described.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
    Ok(())
}

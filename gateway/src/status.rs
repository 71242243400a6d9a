//! What is found is written into the cluster: conditions and messages on the resources, and Events about errors.
//!
//! Invariant: traffic does not depend on it. Of all gateways of one kind one writes, as the Lease says; only what changed is written,
//! no faster than is set, and what others have written stays. Right or wrong, it says what [`crate::pipeline::Status`] says. With
//! `source/kubernetes` this is all that names kube.

mod api;
mod document;
mod event;
mod judgement;
mod lease;
mod metrics;
mod pace;
mod scribe;

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

pub use lease::Term;
pub use metrics::Metrics;

use crate::{
    listener::BindFailure,
    pipeline::Status,
    source::kubernetes::{Cluster, Home},
};
use lease::Election;
use scribe::Scribe;

/// Asks which listeners cannot be bound just now.
pub type Failures = Box<dyn Fn() -> Vec<BindFailure> + Send + Sync>;

/// How fast, and how patiently, the cluster is written to.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Of the Lease.
    pub term: Term,
    /// A change is taken up after this long, and with it what came in the meantime.
    pub quiet: Duration,
    /// Listeners are looked at this often.
    pub recheck: Duration,
    /// Reads and writes of single resources: one each so long, and so many that were saved up.
    pub writes: (Duration, u32),
    /// Events, likewise.
    pub events: (Duration, u32),
    /// What failed is tried again after this long.
    pub retry: Duration,
    /// What is forbidden is tried again after this long.
    pub refused: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            term: Term::default(),
            quiet: Duration::from_secs(1),
            recheck: Duration::from_secs(30),
            writes: (Duration::from_millis(50), 20),
            events: (Duration::from_secs(1), 25),
            retry: Duration::from_secs(5),
            refused: Duration::from_secs(300),
        }
    }
}

/// Writes while it may.
pub struct Writer {
    election: Election,
    scribe: Scribe,
}

impl Writer {
    /// A writer that begins when it is run. `process` names this one among those that ask for the same Lease.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        home: &Home,
        process: &str,
        status: Arc<Status>,
        failures: Failures,
        metrics: Metrics,
        timing: Timing,
    ) -> Writer {
        let identity = format!("{process}_{:016x}", fastrand::u64(..));
        let election = Election::new(
            cluster.client(),
            &home.namespace,
            lease_name(&home.labels),
            identity,
            timing.term,
            metrics.clone(),
        );
        let scribe = Scribe::new(cluster.client(), process, status, failures, metrics, timing);
        Writer { election, scribe }
    }

    /// Runs until `stop` is ready, and then gives the Lease back.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = self.election.win() => {}
            }
            tokio::select! {
                () = &mut stop => break,
                () = self.election.keep() => {}
                never = self.scribe.write() => match never {},
            }
        }
        self.election.release().await;
    }
}

/// Gateways with the same labels have one configuration, and one Lease.
fn lease_name(labels: &BTreeMap<String, String>) -> String {
    let of = |key: &str| labels.get(key).filter(|value| !value.is_empty());
    let name = of("app").or_else(|| of("istio")).map_or("gateway", String::as_str);
    // A value of a label may have capitals and underscores, a name may not.
    let name = name.to_ascii_lowercase().replace('_', "-");
    format!("limen-status-{}", name.trim_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_a_name_that_the_api_takes() {
        let of = |key: &str, value: &str| lease_name(&[(key.to_owned(), value.to_owned())].into());
        assert_eq!(of("app", "istio-ingressgateway"), "limen-status-istio-ingressgateway");
        assert_eq!(of("istio", "Edge_1"), "limen-status-edge-1");
        assert_eq!(of("x", "y"), "limen-status-gateway");
    }
}

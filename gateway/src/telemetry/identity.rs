//! Who this gateway is, as the `source_*` labels of Istio's metrics say it.

use routing::cluster::Workload;

/// Istio's name for the one cluster of an installation that names none.
pub const DEFAULT_CLUSTER: &str = "Kubernetes";

/// The gateway itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its own workload; what is empty is not known.
    pub workload: Workload,
    /// Name of the cluster in the sense of Kubernetes: its own, and that of the endpoints it finds.
    pub cluster: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self { workload: Workload::default(), cluster: DEFAULT_CLUSTER.to_owned() }
    }
}

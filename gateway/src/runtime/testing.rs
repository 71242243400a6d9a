//! For the unit tests of the run time: clusters out of nothing.
//!
//! Invariant: nothing here resolves a name or opens a socket.

use super::Cluster;
use crate::tls::{NoCredentials, Sources};
use routing::{
    cluster::{Address, ClusterSpec, Endpoint},
    compile::WorkloadFiles,
};
use std::sync::Arc;

/// The defaults.
pub(crate) fn spec() -> ClusterSpec {
    ClusterSpec::new("a.example.com", 80, "")
}

/// A cluster with these endpoints.
pub(crate) fn cluster(spec: ClusterSpec, endpoints: Vec<Endpoint>) -> Arc<Cluster> {
    let workload = WorkloadFiles::within("/nowhere");
    let sources = Sources { credentials: &NoCredentials, workload: &workload };
    Arc::new(Cluster::new(Arc::new(spec), endpoints.into(), None, &sources))
}

/// An endpoint on port 80.
pub(crate) fn ip(address: [u8; 4]) -> Endpoint {
    Endpoint::at(Address::Ip((address, 80).into()))
}

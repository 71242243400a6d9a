//! Mutable state that survives a change of configuration: endpoints as resolved, requests in flight, cursors.
//!
//! Invariant: state is keyed by cluster and address, never by generation, so that a reload neither forgets load nor
//! counts it twice. Nothing here reads resources: it is told what is compiled.

pub mod cluster;
pub mod connections;
pub mod dns;
pub mod dynamic;
pub mod endpoint;
pub mod limits;
pub mod metrics;
#[cfg(test)]
mod model;
pub mod outlier;
pub mod registry;
pub mod remote;
pub mod resolver;
#[cfg(test)]
pub(crate) mod testing;
mod trust;

pub use cluster::Cluster;
pub use endpoint::{EndpointState, EndpointView, InFlight, NoAnswer};
pub use limits::{Admission, Limit};
pub use registry::Registry;

//! Reading and writing the Kubernetes API, against an API server double: what is listed, watched, lost and found again, up to traffic that
//! follows; what is written on resources; what a cluster is audited for.
//!
//! The double is held to the API's documented behaviour by its own tests; kube speaks to it as to any other server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod audit;
mod behaviour;
mod chain;
mod double;
#[allow(dead_code, reason = "made for the live tests; these use a part of it")]
#[path = "../live/harness.rs"]
mod harness;
mod kinds;
mod manifests;
#[path = "../live/measure.rs"]
mod measure;
mod scale;
mod source;
mod status;
mod token;

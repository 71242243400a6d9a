//! How it runs.

pub mod admin;
pub mod app;
pub mod cli;
pub mod drain;
pub mod edge;
pub mod handover;
pub mod jwt;
pub mod listener;
pub mod pipeline;
pub mod policy;
pub mod pressure;
pub mod proxy;
pub mod report;
pub mod runtime;
pub mod settings;
pub mod shutdown;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod telemetry;
pub mod tls;

#[cfg(test)]
mod hostile;
/// What must hold for any bytes; also the bodies of the fuzz targets.
#[cfg(test)]
#[allow(unreachable_pub, reason = "public in the fuzz crate")]
#[path = "../fuzz/laws.rs"]
mod laws;

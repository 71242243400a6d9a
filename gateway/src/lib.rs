//! How it runs.

pub mod app;
pub mod drain;
pub mod listener;
pub mod proxy;
pub mod runtime;
pub mod shutdown;
pub mod snapshot;
pub mod source;
pub mod telemetry;
pub mod tls;

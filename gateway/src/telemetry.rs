//! What the gateway says about itself: metrics, access log, response flags.
//!
//! Invariant: names are an API, all in [`names`]; a label is an enum or comes from the configuration, never from the
//! text of a request.

pub mod access_log;
pub mod flags;
pub mod identity;
pub mod istio;
pub mod metrics;
pub mod names;

pub use access_log::AccessLog;
pub use flags::{Flag, Flags};
pub use identity::Identity;
pub use istio::IstioMetrics;
pub use metrics::Metrics;

//! What the gateway says about itself: metrics, access log, response flags.
//!
//! Invariant: names are an API, all in [`names`]; a label is an enum or comes from the configuration, never from the
//! text of a request.

pub mod access_log;
pub mod buckets;
pub mod collectors;
pub mod condition;
pub mod export;
pub mod flags;
pub mod identity;
pub mod istio;
pub mod log_plan;
pub mod logs;
pub mod metrics;
pub mod metrics_plan;
pub mod names;
pub mod node;
pub mod plan;
pub mod trace;

use config_model::diagnostic::Diagnostics;
use std::sync::Arc;

pub use access_log::AccessLog;
pub use flags::{Flag, Flags};
pub use identity::Identity;
pub use istio::IstioMetrics;
pub use logs::Logs;
pub use metrics::Metrics;
pub use plan::Side;
pub use trace::Tracing;

/// What is wrong with what the configuration says about traces, logs and metrics; nothing is started.
#[must_use]
pub fn findings(ground: &plan::Ground<'_>) -> Diagnostics {
    let (_, mut findings) = plan::traces(ground, Side::Client);
    if ground.is_beside() {
        findings.add_new(plan::traces(ground, Side::Server).1);
    }
    findings.extend(log_plan::logs(ground).1);
    findings.extend(metrics_plan::metrics(ground).1);
    findings
}

/// What is said about requests under one configuration, and to whom.
#[derive(Debug, Default)]
pub struct Plans {
    /// How they are traced.
    pub tracing: Tracing,
    /// How those are traced that come in to a workload; `None`: in the same way.
    pub inbound_tracing: Option<Tracing>,
    /// Where they are logged.
    pub logs: Logs,
    /// Labels of Istio's metrics that are made of them; `None`: there are none.
    pub labels: Option<Arc<istio::Expressions>>,
}

impl Plans {
    /// How requests of a side are traced.
    #[must_use]
    pub fn tracing(&self, side: Side) -> &Tracing {
        let inbound = self.inbound_tracing.as_ref().filter(|_| side == Side::Server);
        inbound.unwrap_or(&self.tracing)
    }
}

//! Istio's security API as policies: who is asked, whose tokens are taken, who may do what.
//!
//! Invariant: the order is Istio's: providers are asked first, tokens are checked next, and the rules that need both come last.
//! Those of an embedding program stand among them, by their phase. A configuration without them makes no policy.

mod authorization;
mod external;
mod facts;
mod gate;
mod metrics;
mod tokens;

pub use external::{CallError, Calling, Service};
pub use facts::Subject;
pub use gate::Gate;
pub use metrics::SecurityMetrics;

use super::{Chain, Configured, Limits, annotated};
use crate::jwt::store::KeyStore;
use authorization::Authorization;
use external::External;
use routing::{
    authz::{Custom, provider::Provider},
    compile::Compiled,
};
use std::sync::Arc;
use tokens::Tokens;

/// What the policies of a configuration are made with.
pub struct Means<'a> {
    /// Keys of issuers.
    pub keys: &'a KeyStore,
    /// What is counted.
    pub metrics: &'a Arc<SecurityMetrics>,
    /// What rate limits have counted so far.
    pub limits: &'a Limits,
    /// How a provider is reached.
    pub service: &'a dyn Fn(&Provider) -> Arc<dyn Service>,
}

/// The policies that a configuration asks for.
#[must_use]
pub fn configured(compiled: &Compiled, means: &Means<'_>) -> Configured {
    let mut configured = Configured {
        annotated: annotated::chain(&compiled.annotated, means.limits, means.metrics),
        failures: Some(Arc::clone(&means.metrics.failures)),
        ..Configured::default()
    };
    let http = &compiled.authorization.http;
    let service = match &http.custom {
        Custom::Ask { provider, .. } => Some((means.service)(provider)),
        Custom::Nothing | Custom::Refuse(_) => None,
    };
    if !matches!(http.custom, Custom::Nothing) {
        configured.external = Chain::new().then(External::new(
            Arc::clone(&compiled.authorization),
            service,
            Arc::clone(means.metrics),
        ));
    }
    if !compiled.authentication.is_empty() {
        configured.authn = Chain::new().then(Tokens::new(
            Arc::clone(&compiled.authentication),
            means.keys,
            Arc::clone(means.metrics),
        ));
    }
    if !(http.audit.is_empty() && http.deny.is_empty() && http.allow.is_empty()) {
        configured.authz = Chain::new()
            .then(Authorization::new(Arc::clone(&compiled.authorization), Arc::clone(means.metrics)));
    }
    configured
}

/// What a configuration says of connections that are not looked into.
#[must_use]
pub fn gate(compiled: &Compiled, means: &Means<'_>) -> Option<Arc<Gate>> {
    let tcp = &compiled.authorization.tcp;
    if tcp.is_empty() {
        return None;
    }
    let service = match &tcp.custom {
        Custom::Ask { provider, .. } => Some((means.service)(provider)),
        Custom::Nothing | Custom::Refuse(_) => None,
    };
    Some(Arc::new(Gate::new(Arc::clone(&compiled.authorization), service, Arc::clone(means.metrics))))
}

//! Policies that `limen.dev/…` annotations of VirtualServices and Gateways ask for.
//!
//! Invariant: a request whose rule and server are not annotated does not meet them. What the annotations of a configuration need is made
//! once, when it is put in force; a request finds it by the resource that asks.

mod body_limit;
mod buckets;
mod compression;
mod encoder;
mod error_pages;
mod negotiation;
mod rate_limit;

pub use rate_limit::Limits;

use super::{Chain, builtin::SecurityMetrics};
use body_limit::BodyLimit;
use compression::Compress;
use config_model::annotation::{Annotations, Setting};
use error_pages::Pages;
use rate_limit::RateLimits;
use routing::annotated::Index;
use std::sync::Arc;

/// The policies that a configuration's annotations ask for. Responses pass them from the last to the first: pages take the place of
/// errors before these are compressed.
pub(super) fn chain(index: &Index, limits: &Limits, metrics: &Arc<SecurityMetrics>) -> Chain {
    let mut chain = Chain::new();
    if asks(index, |policies| &policies.compression) {
        chain = chain.then_annotated(Compress);
    }
    if asks(index, |policies| &policies.error_pages) {
        chain = chain.then_annotated(Pages::new(index));
    }
    let limiters = limits.follow(index);
    if asks(index, |policies| &policies.rate_limit) {
        chain = chain.then_annotated(RateLimits::new(limiters, Arc::clone(metrics)));
    }
    if asks(index, |policies| &policies.max_request_body) {
        chain = chain.then_annotated(BodyLimit::new(Arc::clone(metrics)));
    }
    chain
}

fn asks<T>(index: &Index, of: impl Fn(&Annotations) -> &Option<Setting<T>>) -> bool {
    index.resources().iter().any(|resource| matches!(of(&resource.policies), Some(Setting::On(_))))
}

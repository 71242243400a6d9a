//! What the annotations ask for that count for a request.
//!
//! Invariant: the same function decides it as for live traffic, `routing::annotated::effective`.

use config_model::{annotation, meta::ResourceKey};
use routing::{annotated::effective, listener::FilterChain, route::Route};
use std::{collections::BTreeMap, fmt::Display};

/// By the annotation's name without its prefix.
pub(crate) fn annotated(route: Option<&Route>, chain: &FilterChain) -> BTreeMap<String, String> {
    let rule = route.and_then(|route| route.origin.metadata.policies.as_deref());
    let server = chain.policies.as_deref();
    let said = [
        (annotation::RATE_LIMIT, effective(rule, server, |asks| asks.rate_limit.as_ref()).map(shown)),
        (
            annotation::MAX_REQUEST_BODY,
            effective(rule, server, |asks| asks.max_request_body.as_ref()).map(shown),
        ),
        (annotation::COMPRESSION, effective(rule, server, |asks| asks.compression.as_ref()).map(shown)),
        (annotation::ERROR_PAGES, effective(rule, server, |asks| asks.error_pages.as_ref()).map(shown)),
    ];
    let short = |name: &str| name.strip_prefix(annotation::PREFIX).unwrap_or(name).to_owned();
    said.into_iter().filter_map(|(name, said)| Some((short(name), said?))).collect()
}

fn shown<T: Display>((of, asks): (&ResourceKey, &T)) -> String {
    format!("{asks} (by {of})")
}

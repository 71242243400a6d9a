//! What the API allows and seldom is meant: Istio says nothing of it, so the codes are our own.
//!
//! Invariant: nothing here rejects a resource, and each looks at one resource alone. What is only likely a mistake is a note.

mod paths;
mod retries;
mod tls;

use crate::{diagnostic::Diagnostics, istio, meta::Resource};

pub(super) fn virtual_service(resource: &Resource<istio::VirtualService>, out: &mut Diagnostics) {
    paths::check(resource, out);
    retries::check(resource, out);
}

pub(super) fn gateway(resource: &Resource<istio::Gateway>, out: &mut Diagnostics) {
    tls::check_gateway(resource, out);
}

pub(super) fn destination_rule(resource: &Resource<istio::DestinationRule>, out: &mut Diagnostics) {
    tls::check_rule(resource, out);
}

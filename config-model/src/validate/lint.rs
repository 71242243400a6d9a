//! What the API allows and seldom is meant: Istio says nothing of it, so the codes are our own.
//!
//! Invariant: nothing here rejects a resource, and each looks at one resource alone. What is only likely a mistake is a note.

mod paths;
mod retries;
mod tls;

use super::Validated;
use crate::diagnostic::Diagnostics;

pub(super) fn check(validated: &Validated, out: &mut Diagnostics) {
    for resource in validated.virtual_services() {
        paths::check(resource, out);
        retries::check(resource, out);
    }
    for resource in validated.gateways() {
        tls::check_gateway(resource, out);
    }
    for resource in validated.destination_rules() {
        tls::check_rule(resource, out);
    }
}

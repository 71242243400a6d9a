//! Findings between resources: what is named and not there, and what stands in each other's way.
//!
//! Invariant: nothing here rejects a resource. Codes and levels are Istio's (pkg/config/analysis) where it has one.

mod certificate;
mod claims;
mod conflicts;
mod credentials;
mod destination_rules;
mod destinations;
mod gateways;
mod mesh_hosts;
mod ports;
mod registry;
mod service_entries;
mod shadows;
mod subsets;
mod telemetries;

use std::{collections::BTreeSet, sync::Arc};

use super::{Deployment, Validated};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::Gateway,
    meta::{Kind, Resource, ResourceKey},
    scalar::HostPattern,
};

/// What the checks between resources work on.
struct Scene<'a> {
    validated: &'a Validated,
    deployment: &'a Deployment,
    registry: registry::Registry<'a>,
}

pub(super) fn check(validated: &Validated, deployment: &Deployment, out: &mut Diagnostics) {
    let scene = Scene { validated, deployment, registry: registry::Registry::new(validated) };
    destinations::check(&scene, out);
    gateways::check(&scene, out);
    claims::check(&scene, out);
    mesh_hosts::check(&scene, out);
    subsets::check(&scene, out);
    shadows::check(&scene, out);
    conflicts::check(&scene, out);
    ports::check(&scene, out);
    credentials::check(&scene, out);
    destination_rules::check(&scene, out);
    service_entries::check(&scene, out);
    telemetries::check(&scene, out);
}

/// Where findings go.
type Out<'a> = &'a mut Diagnostics;

/// A finding about a field of a resource.
fn about<T>(
    resource: &Resource<T>,
    code: Code,
    path: impl Into<String>,
    message: impl Into<String>,
) -> Diagnostic {
    Diagnostic::new(code, message).about(&resource.key, &resource.origin).at(path)
}

/// What a field names and is not there, in Istio's words.
fn missing<T>(resource: &Resource<T>, path: impl Into<String>, what: &str, name: &str) -> Diagnostic {
    about(resource, Code::REFERENCE_NOT_FOUND, path, format!("Referenced {what} not found: {name:?}"))
}

/// Who sees what a namespace exports: `*` for everybody, which is also meant where nothing is written, or names of namespaces.
fn scopes<'e>(exports: &'e [String], own: &'e str) -> BTreeSet<&'e str> {
    scopes_of(exports.iter().map(String::as_str), own)
}

/// The same of a list that is no field.
fn scopes_of<'e>(exports: impl Iterator<Item = &'e str>, own: &'e str) -> BTreeSet<&'e str> {
    let named: BTreeSet<&str> = exports.map(|entry| if entry == "." { own } else { entry }).collect();
    if named.is_empty() || named.contains("*") { BTreeSet::from(["*"]) } else { named }
}

/// The labels that a Gateway selects pods by, as a selector is written.
fn selector_text(gateway: &Resource<Gateway>) -> String {
    let pairs = gateway.spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// Most resources that one finding names: thousands may be in each other's way, and each is told so.
const NAMED: usize = 5;

/// Names in one text, as many as are worth reading.
fn listed(names: impl IntoIterator<Item = String>, separator: &str) -> String {
    let mut names = names.into_iter();
    let mut text = names.by_ref().take(NAMED).collect::<Vec<_>>().join(separator);
    let more = names.count();
    if more > 0 {
        text.push_str(&format!("{separator}and {more} more"));
    }
    text
}

/// `namespace/name`.
fn name_of<T>(resource: &Resource<T>) -> String {
    format!("{}/{}", resource.key.namespace, resource.key.name)
}

/// A dot-free name stands for the Service in the rule's namespace; every other name for itself (Istio: ResolveShortnameToFQDN).
pub fn resolve_short_name(host: &HostPattern, namespace: &str, domain: &str) -> Arc<str> {
    if host.is_qualified() { host.to_shared() } else { format!("{host}.{namespace}.svc.{domain}").into() }
}

/// The Gateway that a VirtualService's `gateways` entry names; `None` for the mesh.
fn gateway_key(entry: &str, namespace: &str) -> Option<ResourceKey> {
    let (namespace, name) = resolve_gateway_name(entry, namespace)?;
    Some(ResourceKey::new(Kind::Gateway, namespace, name))
}

/// What a VirtualService's `gateways` entry names: `None` for the mesh, else namespace and name of a Gateway.
pub fn resolve_gateway_name<'a>(entry: &'a str, namespace: &'a str) -> Option<(&'a str, &'a str)> {
    if entry == "mesh" {
        return None;
    }
    match entry.split_once('/') {
        Some((".", name)) => Some((namespace, name)),
        Some((namespace, name)) => Some((namespace, name)),
        // The old form: name.namespace.svc.domain.
        None => match entry.split_once('.') {
            Some((name, rest)) => Some((rest.split('.').next().unwrap_or(namespace), name)),
            None => Some((namespace, entry)),
        },
    }
}

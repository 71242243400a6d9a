//! Findings between resources: what is named and not there, and what stands in each other's way.
//!
//! Invariant: nothing here rejects a resource. Codes and levels are Istio's (pkg/config/analysis) where it has one.

mod authorization_policies;
mod certificate;
mod claims;
mod conflicts;
mod credentials;
mod destination_rules;
mod destinations;
mod facts;
mod gateways;
mod mesh_hosts;
mod ports;
mod registry;
mod scene;
mod service_entries;
mod shadows;
mod subsets;
mod telemetries;

use std::{collections::BTreeSet, sync::Arc};

pub(super) use scene::{Reader, Seen};

use super::{Deployment, Validated};
use crate::{
    derived::Derived,
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::{Gateway, VirtualService},
    meta::{Kind, Resource, ResourceKey},
    parse::locate,
    scalar::{HostPattern, Timestamp},
};
use facts::Facts;
use registry::Registry;
use scene::Scene;

/// Checks that look at all resources of some kinds. Each is made again when a kind that it looked at has changed.
const CHECKS: [fn(&Scene<'_>, Out<'_>); 12] = [
    destinations::delegates,
    claims::check,
    mesh_hosts::check,
    subsets::check,
    shadows::check,
    conflicts::check,
    ports::check,
    credentials::check,
    destination_rules::check,
    service_entries::check,
    telemetries::check,
    authorization_policies::check,
];

/// The findings between resources, one configuration after the other.
#[derive(Debug, Default)]
pub(super) struct Checks {
    registry: Registry,
    facts: Derived<Resource<VirtualService>, Facts>,
    /// Of each VirtualService: whether what it names is there.
    named: Derived<Resource<VirtualService>, Diagnostics>,
    /// What was looked at for any of these but the VirtualService itself.
    seen: Seen,
    whole: [Whole; CHECKS.len()],
}

/// The findings of a check that looks at all resources of some kinds.
#[derive(Debug, Default)]
struct Whole {
    findings: Diagnostics,
    /// What it looked at; `None`: it was not made yet.
    seen: Option<Seen>,
    /// When what it judged by the time was judged, and from when on that may be otherwise.
    holds: Option<(Timestamp, Timestamp)>,
}

impl Whole {
    fn is_current(&self, changed: Seen, now: Option<Timestamp>) -> bool {
        let holds = match (self.holds, now) {
            (Some((since, until)), Some(now)) => since <= now && now < until,
            (None, _) | (_, None) => true,
        };
        holds && self.seen.is_some_and(|seen| !seen.meets(changed))
    }
}

impl Checks {
    /// Takes up the next configuration, in which so much has changed, and adds all findings.
    pub(super) fn follow(
        &mut self,
        validated: &Validated,
        deployment: &Deployment,
        changed: Seen,
        out: &mut Diagnostics,
    ) {
        let Checks { registry, facts, named, seen, whole } = self;
        if changed.meets(Registry::seen()) {
            *registry = Registry::new(validated);
        }
        if seen.meets(changed) {
            named.clear();
            *seen = Seen::default();
        }
        if changed.has(Kind::VirtualService) {
            facts.follow(validated.virtual_services(), |_, resource| Facts::of(resource));
        }
        let scene = Scene::new(validated, deployment, registry, facts);
        named.follow(validated.virtual_services(), |_, resource| {
            let mut found = Diagnostics::new();
            destinations::of(&scene, resource, &mut found);
            gateways::of(&scene, resource, &mut found);
            locate::place(&mut found);
            found
        });
        *seen = seen.and(scene.seen().0);
        named.values().iter().for_each(|found| out.share(found));
        for (whole, check) in whole.iter_mut().zip(CHECKS) {
            if !whole.is_current(changed, deployment.now) {
                let scene = Scene::new(validated, deployment, registry, facts);
                let mut findings = Diagnostics::new();
                check(&scene, &mut findings);
                locate::place(&mut findings);
                let (seen, until) = scene.seen();
                *whole = Whole { findings, seen: Some(seen), holds: deployment.now.zip(until) };
            }
            out.share(&whole.findings);
        }
    }
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

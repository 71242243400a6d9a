//! References between resources: Gateways, hosts, subsets and Secrets that are named and do not exist.
//!
//! Invariant: a finding here never rejects. A missing Service may come a second later, and what is there goes on being served.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Validated;
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::{DestinationRule, Gateway, VirtualService, gateway::Server, virtual_service::Destination},
    meta::{Kind, Resource, ResourceKey},
    scalar::{HostPattern, PortNumber},
};

pub(super) fn check(validated: &Validated, out: &mut Diagnostics) {
    let registry = Registry::new(validated);
    let mut findings = References { validated, registry, out };
    for virtual_service in validated.virtual_services() {
        findings.gateways_of(virtual_service);
        findings.destinations_of(virtual_service);
        findings.delegates_of(virtual_service);
    }
    for rule in validated.destination_rules() {
        findings.host_of(rule);
    }
    for gateway in validated.gateways() {
        findings.secrets_of(gateway);
    }
}

/// A dot-free name stands for the Service in the rule's namespace; every other name for itself (Istio: ResolveShortnameToFQDN).
pub fn resolve_short_name(host: &HostPattern, namespace: &str, domain: &str) -> Arc<str> {
    if host.is_qualified() { host.to_shared() } else { format!("{host}.{namespace}.svc.{domain}").into() }
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

/// The hosts that destinations may name, and their ports.
struct Registry {
    ports: BTreeMap<Arc<str>, BTreeSet<PortNumber>>,
    subsets: BTreeMap<Arc<str>, BTreeSet<String>>,
    domain: &'static str,
}

impl Registry {
    fn new(validated: &Validated) -> Registry {
        let domain = validated.mesh().domain();
        let mut ports: BTreeMap<Arc<str>, BTreeSet<PortNumber>> = BTreeMap::new();
        for key in validated.services().keys() {
            let host = format!("{}.{}.svc.{domain}", key.name, key.namespace).to_ascii_lowercase();
            let numbers =
                validated.services().get(key).map(|service| service.spec.ports.iter().map(|port| port.port));
            ports.entry(host.into()).or_default().extend(numbers.into_iter().flatten());
        }
        for entry in validated.service_entries() {
            for host in &entry.spec.hosts {
                ports
                    .entry(host.to_shared())
                    .or_default()
                    .extend(entry.spec.ports.iter().map(|port| port.number));
            }
        }
        let mut subsets: BTreeMap<Arc<str>, BTreeSet<String>> = BTreeMap::new();
        for rule in validated.destination_rules() {
            let host = resolve_short_name(&rule.spec.host, &rule.key.namespace, domain);
            subsets
                .entry(host)
                .or_default()
                .extend(rule.spec.subsets.iter().map(|subset| subset.name.clone()));
        }
        Registry { ports, subsets, domain }
    }

    fn has_host(&self, host: &str) -> bool {
        self.ports.contains_key(host)
    }

    /// A subset of any DestinationRule for the host, exact or by wildcard.
    fn has_subset(&self, host: &str, subset: &str) -> bool {
        let holds = |key: &str| self.subsets.get(key).is_some_and(|names| names.contains(subset));
        holds(host)
            || holds("*")
            || host
                .match_indices('.')
                .filter_map(|(at, _)| host.get(at..))
                .any(|suffix| holds(&format!("*{suffix}")))
    }
}

struct References<'a> {
    validated: &'a Validated,
    registry: Registry,
    out: &'a mut Diagnostics,
}

impl References<'_> {
    fn gateways_of(&mut self, resource: &Resource<VirtualService>) {
        let own = resource.key.namespace.as_str();
        for (index, entry) in resource.spec.gateways.iter().enumerate() {
            let Some((namespace, name)) = resolve_gateway_name(entry, own) else { continue };
            let key = ResourceKey::new(Kind::Gateway, namespace, name);
            let path = format!("spec.gateways[{index}]");
            match self.validated.set().gateways().get(&key) {
                Some(gateway) => self.hosts_in(resource, gateway, &path),
                None => {
                    let mut finding = Diagnostic::new(
                        Code::REFERENCE_NOT_FOUND,
                        format!("Referenced gateway not found: {entry:?}"),
                    )
                    .about(&resource.key, &resource.origin)
                    .at(path);
                    let elsewhere = self.validated.gateways().iter().find(|gateway| gateway.key.name == name);
                    if let Some(gateway) = elsewhere {
                        finding = finding.hint(format!("write \"{}/{name}\"", gateway.key.namespace));
                    }
                    self.out.push(finding);
                }
            }
        }
    }

    /// Hosts that no server of the Gateway admits for this namespace.
    fn hosts_in(&mut self, resource: &Resource<VirtualService>, gateway: &Resource<Gateway>, path: &str) {
        let own = resource.key.namespace.as_str();
        let admits = |server: &Server, host: &HostPattern| {
            server.hosts.iter().any(|of_server| {
                let namespace = match of_server.namespace() {
                    Some(".") => Some(gateway.key.namespace.as_str()),
                    other => other,
                };
                namespace.is_none_or(|namespace| namespace == own) && of_server.host().overlaps(host)
            })
        };
        for host in &resource.spec.hosts {
            if !gateway.spec.servers.iter().any(|server| admits(server, host)) {
                let message = format!(
                    "Host {:?} is not covered by a server of gateway {}/{}",
                    host.as_str(),
                    gateway.key.namespace,
                    gateway.key.name
                );
                let finding = Diagnostic::new(Code::HOST_NOT_IN_GATEWAY, message)
                    .about(&resource.key, &resource.origin)
                    .at(path)
                    .hint("add the host to a server of the Gateway, or correct spec.hosts");
                self.out.push(finding);
            }
        }
    }

    fn destinations_of(&mut self, resource: &Resource<VirtualService>) {
        let spec = &resource.spec;
        for (index, route) in spec.http.iter().enumerate() {
            let path = format!("spec.http[{index}]");
            for (index, to) in route.route.iter().enumerate() {
                self.destination(resource, &format!("{path}.route[{index}].destination"), &to.destination);
            }
            if let Some(mirror) = &route.mirror {
                self.destination(resource, &format!("{path}.mirror"), mirror);
            }
            for (index, mirror) in route.mirrors.iter().enumerate() {
                self.destination(
                    resource,
                    &format!("{path}.mirrors[{index}].destination"),
                    &mirror.destination,
                );
            }
        }
        let l4 =
            spec.tls.iter().map(|route| &route.route).enumerate().map(|(index, route)| ("tls", index, route));
        let l4 = l4.chain(
            spec.tcp.iter().map(|route| &route.route).enumerate().map(|(index, route)| ("tcp", index, route)),
        );
        for (kind, rule, routes) in l4 {
            for (index, to) in routes.iter().enumerate() {
                self.destination(
                    resource,
                    &format!("spec.{kind}[{rule}].route[{index}].destination"),
                    &to.destination,
                );
            }
        }
    }

    fn destination(&mut self, resource: &Resource<VirtualService>, path: &str, destination: &Destination) {
        let host = resolve_short_name(&destination.host, &resource.key.namespace, self.registry.domain);
        let report = |out: &mut Diagnostics, code, field: &str, message: String, hint: Option<String>| {
            let mut finding = Diagnostic::new(code, message)
                .about(&resource.key, &resource.origin)
                .at(format!("{path}.{field}"));
            finding.hint = hint;
            out.push(finding);
        };
        if !self.registry.has_host(&host) {
            let message = format!("Referenced host not found: {:?}", destination.host.as_str());
            let hint = self.host_hint(&host);
            report(self.out, Code::REFERENCE_NOT_FOUND, "host", message, hint);
            return;
        }
        let ports = self.registry.ports.get(&host).cloned().unwrap_or_default();
        match destination.port_number() {
            Some(port) if !ports.contains(&port) => {
                let known: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let message = format!("Referenced host:port not found: \"{}:{port}\"", destination.host);
                let hint = format!("its ports are {}", known.join(", "));
                report(self.out, Code::REFERENCE_NOT_FOUND, "port", message, Some(hint));
            }
            None if ports.len() > 1 => {
                let known: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let message = format!(
                    "Host {:?} has several ports; the destination must name one",
                    destination.host.as_str()
                );
                let hint = format!("add port.number: one of {}", known.join(", "));
                report(self.out, Code::PORT_REQUIRED, "host", message, Some(hint));
            }
            _ => {}
        }
        if !destination.subset.is_empty() && !self.registry.has_subset(&host, &destination.subset) {
            let message = format!(
                "Referenced host+subset in destinationrule not found: \"{}+{}\"",
                destination.host, destination.subset
            );
            report(self.out, Code::REFERENCE_NOT_FOUND, "subset", message, None);
        }
    }

    /// The usual slips: `name.namespace` without its suffix, and a Service in another namespace.
    fn host_hint(&self, host: &str) -> Option<String> {
        let full = format!("{host}.svc.{}", self.registry.domain);
        if self.registry.has_host(&full) {
            return Some(format!("write the full name {full:?}"));
        }
        let name = host.split('.').next()?;
        let elsewhere = self.validated.services().keys().find(|key| key.name == name)?;
        Some(format!("there is a Service {name:?} in namespace {:?}", elsewhere.namespace))
    }

    fn delegates_of(&mut self, resource: &Resource<VirtualService>) {
        for (index, route) in resource.spec.http.iter().enumerate() {
            let Some(delegate) = &route.delegate else { continue };
            let namespace =
                if delegate.namespace.is_empty() { &resource.key.namespace } else { &delegate.namespace };
            let key = ResourceKey::new(Kind::VirtualService, namespace.as_str(), delegate.name.as_str());
            if !self.validated.set().virtual_services().contains_key(&key) {
                let finding = Diagnostic::new(
                    Code::DELEGATE_NOT_FOUND,
                    format!("Delegate VirtualService not found: \"{namespace}/{}\"", delegate.name),
                )
                .about(&resource.key, &resource.origin)
                .at(format!("spec.http[{index}].delegate"));
                self.out.push(finding);
            }
        }
    }

    fn host_of(&mut self, resource: &Resource<DestinationRule>) {
        let host = resolve_short_name(&resource.spec.host, &resource.key.namespace, self.registry.domain);
        let known = match resource.spec.host.is_wildcard() {
            true => {
                self.registry.ports.keys().any(|name| resource.spec.host.covers_name(name) || **name == *host)
            }
            false => self.registry.has_host(&host),
        };
        if !known {
            let message = format!(
                "Host {:?} of this DestinationRule is not in the registry",
                resource.spec.host.as_str()
            );
            let mut finding = Diagnostic::new(Code::UNKNOWN_DESTINATION_RULE_HOST, message)
                .about(&resource.key, &resource.origin)
                .at("spec.host");
            finding.hint = self.host_hint(&host);
            self.out.push(finding);
        }
    }

    /// Credentials are Secrets in the namespace of the gateway's pods. Without Pods in the set that namespace is not known for sure,
    /// so a Secret of that name in any namespace will do.
    fn secrets_of(&mut self, resource: &Resource<Gateway>) {
        for (index, server) in resource.spec.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            if !tls.mode.terminates() {
                continue;
            }
            let one = Some(("credentialName".to_owned(), &tls.credential_name))
                .filter(|(_, name)| !name.is_empty());
            let several = tls
                .credential_names
                .iter()
                .enumerate()
                .map(|(index, name)| (format!("credentialNames[{index}]"), name));
            for (field, reference) in one.into_iter().chain(several) {
                if self.secret_exists(reference) {
                    continue;
                }
                let finding = Diagnostic::new(
                    Code::REFERENCE_NOT_FOUND,
                    format!("Referenced credentialName not found: {reference:?}"),
                )
                .about(&resource.key, &resource.origin)
                .at(format!("spec.servers[{index}].tls.{field}"))
                .hint("the Secret must be in the namespace of the gateway's pods");
                self.out.push(finding);
            }
        }
    }

    fn secret_exists(&self, reference: &str) -> bool {
        let plain = reference
            .strip_prefix("kubernetes://")
            .or_else(|| reference.strip_prefix("kubernetes-gateway://"));
        if plain.is_none() && reference.contains("://") {
            return true;
        }
        let plain = plain.unwrap_or(reference);
        match plain.split_once('/') {
            Some((namespace, name)) => {
                self.validated.secrets().contains_key(&ResourceKey::new(Kind::Secret, namespace, name))
            }
            None => self.validated.secrets().keys().any(|key| key.name == plain),
        }
    }
}

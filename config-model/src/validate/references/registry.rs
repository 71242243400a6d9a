//! The hosts that a rule may name: Services and ServiceEntries, with their ports and who may see them.
//!
//! Invariant: a look-up costs the number of labels of the name, whatever the number of hosts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{Seen, Validated, resolve_short_name, scopes, scopes_of};
use crate::{
    meta::Kind,
    scalar::{HostPattern, PortNumber},
};

/// An annotation of a Service that says who may see it, as a list with commas.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// One Service or ServiceEntry that defines a host.
#[derive(Debug)]
struct Definition {
    ports: Vec<PortNumber>,
    scopes: Scopes,
}

/// Who may see it.
#[derive(Debug, Clone)]
enum Scopes {
    Everybody,
    Namespaces(BTreeSet<String>),
}

impl Scopes {
    fn of(scopes: &BTreeSet<&str>) -> Scopes {
        if scopes.contains("*") {
            Scopes::Everybody
        } else {
            Scopes::Namespaces(scopes.iter().map(|scope| (*scope).to_owned()).collect())
        }
    }
}

/// Every known host.
#[derive(Debug, Default)]
pub(super) struct Registry {
    hosts: HashMap<Arc<str>, Vec<Definition>>,
    /// Hosts with a star, by what follows it.
    wildcards: BTreeMap<String, Arc<str>>,
    /// Every host turned round, so that those with one suffix stand together.
    reversed: BTreeSet<String>,
    subsets: HashMap<Arc<str>, BTreeSet<String>>,
    /// Namespaces of the Services of a name, for hints.
    services: HashMap<String, String>,
    pub(super) domain: &'static str,
}

impl Registry {
    /// What it is made of.
    pub(super) fn seen() -> Seen {
        [Kind::Service, Kind::ServiceEntry, Kind::DestinationRule]
            .into_iter()
            .fold(Seen::default().and_mesh(), |seen, kind| seen.and(Seen::of(kind)))
    }

    pub(super) fn new(validated: &Validated) -> Registry {
        let domain = validated.mesh().domain();
        let mut registry = Registry {
            hosts: HashMap::new(),
            wildcards: BTreeMap::new(),
            reversed: BTreeSet::new(),
            subsets: HashMap::new(),
            services: HashMap::new(),
            domain,
        };
        for service in validated.services().values() {
            let key = &service.key;
            let host = format!("{}.{}.svc.{domain}", key.name, key.namespace).to_ascii_lowercase();
            let exports = service.meta.annotations.get(EXPORT_TO).map_or("", String::as_str);
            let exports = exports.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            let ports = service.spec.ports.iter().map(|port| port.port).collect();
            registry.define(host.into(), ports, Scopes::of(&scopes_of(exports, &key.namespace)));
            registry.services.entry(key.name.clone()).or_insert_with(|| key.namespace.clone());
        }
        for entry in validated.service_entries() {
            let own = &entry.key.namespace;
            let exports = Scopes::of(&scopes(&entry.spec.export_to, own));
            for host in &entry.spec.hosts {
                let ports = entry.spec.ports.iter().map(|port| port.number).collect();
                registry.define(resolve_short_name(host, own, domain), ports, exports.clone());
            }
        }
        if validated.destination_rules().iter().any(|rule| rule.spec.host.is_wildcard()) {
            registry.reversed = registry.hosts.keys().map(|host| host.chars().rev().collect()).collect();
        }
        for rule in validated.destination_rules() {
            let host = resolve_short_name(&rule.spec.host, &rule.key.namespace, domain);
            let names = rule.spec.subsets.iter().map(|subset| subset.name.clone());
            registry.subsets.entry(host).or_default().extend(names);
        }
        registry
    }

    fn define(&mut self, host: Arc<str>, ports: Vec<PortNumber>, scopes: Scopes) {
        if let Some(suffix) = host.strip_prefix('*') {
            self.wildcards.insert(suffix.to_owned(), Arc::clone(&host));
        }
        self.hosts.entry(host).or_insert_with(|| Vec::with_capacity(1)).push(Definition { ports, scopes });
    }

    /// The ports of a host that rules of a namespace may see; `None` when they may see no such host. By its own name, else by
    /// the longest wildcard that covers it.
    pub(super) fn ports(
        &self,
        host: &str,
        namespace: &str,
        exports: &[String],
    ) -> Option<BTreeSet<PortNumber>> {
        let sees = |definition: &Definition| {
            let Scopes::Namespaces(scopes) = &definition.scopes else { return true };
            let exported = exports.iter().map(|entry| if entry == "." { namespace } else { entry.as_str() });
            (exports.is_empty() && scopes.contains(namespace))
                || exported.into_iter().any(|to| scopes.contains(to))
        };
        let visible = |host: &str| {
            let mut found = self.hosts.get(host)?.iter().filter(|definition| sees(definition)).peekable();
            found.peek()?;
            Some(found.flat_map(|definition| definition.ports.iter().copied()).collect())
        };
        let name = host.strip_prefix('*').unwrap_or(host);
        visible(host).or_else(|| {
            let suffixes = name.char_indices().map(|(at, _)| at).filter_map(|at| name.get(at..));
            suffixes.filter_map(|suffix| self.wildcards.get(suffix)).find_map(|host| visible(host))
        })
    }

    /// Whether a host is known to anybody, a wildcard by any name that it covers.
    pub(super) fn knows(
        &self,
        pattern: &HostPattern,
        resolved: &str,
        namespace: &str,
        exports: &[String],
    ) -> bool {
        let covered = || {
            let Some(suffix) = pattern.suffix() else { return false };
            let start: String = suffix.chars().rev().collect();
            let next = self.reversed.range(start.clone()..).next();
            next.is_some_and(|name| name.starts_with(&start))
        };
        self.ports(resolved, namespace, exports).is_some() || covered()
    }

    /// A subset of any DestinationRule for the host, exact or by wildcard.
    pub(super) fn has_subset(&self, host: &str, subset: &str) -> bool {
        let holds = |key: &str| self.subsets.get(key).is_some_and(|names| names.contains(subset));
        holds(host)
            || holds("*")
            || host
                .match_indices('.')
                .filter_map(|(at, _)| host.get(at..))
                .any(|suffix| holds(&format!("*{suffix}")))
    }

    /// The usual slips: `name.namespace` without its suffix, and a Service in another namespace.
    pub(super) fn hint(&self, host: &str) -> Option<String> {
        let full = format!("{host}.svc.{}", self.domain);
        if self.hosts.contains_key(full.as_str()) {
            return Some(format!("write the full name {full:?}"));
        }
        if self.hosts.contains_key(host) {
            return Some("it is there, but not exported to this namespace".to_owned());
        }
        let name = host.split('.').next()?;
        let namespace = self.services.get(name)?;
        Some(format!("there is a Service {name:?} in namespace {namespace:?}"))
    }
}

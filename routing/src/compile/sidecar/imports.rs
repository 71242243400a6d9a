//! `egress[].hosts` of a Sidecar: which services and VirtualServices a listener may know of.
//!
//! Invariant: an exclusion beats every import; a service is imported where its whole name is covered, a VirtualService where one of its
//! hosts and an imported one cover each other in either direction (Istio: sidecar.go `Matches`, `VSMatches`).

use super::super::l4::covers;
use std::collections::{HashMap, HashSet};

/// Any namespace.
const ANY: &str = "*";

/// The hosts of one egress listener, by the namespace that they are looked for in.
pub(super) struct Imports<'a> {
    namespaces: HashMap<&'a str, Hosts<'a>>,
}

/// Those of one namespace.
#[derive(Default)]
struct Hosts<'a> {
    exact: HashSet<&'a str>,
    all: Vec<&'a str>,
    excluded: Vec<&'a str>,
}

impl<'a> Imports<'a> {
    /// Reads `namespace/host` entries; `own` is the namespace that `.` stands for.
    pub(super) fn new(entries: impl IntoIterator<Item = &'a str>, own: &'a str) -> Self {
        let mut namespaces: HashMap<&str, Hosts<'_>> = HashMap::new();
        for entry in entries {
            // Another form is refused by validation.
            let Some((namespace, host)) = entry.split_once('/').filter(|(_, host)| !host.contains('/'))
            else {
                continue;
            };
            let (namespace, excluded) = match namespace.strip_prefix('~') {
                Some("") => (ANY, true),
                Some(namespace) => (namespace, true),
                None => (namespace, false),
            };
            let hosts = namespaces.entry(if namespace == "." { own } else { namespace }).or_default();
            if excluded {
                hosts.excluded.push(host);
                continue;
            }
            if !host.starts_with('*') {
                hosts.exact.insert(host);
            }
            hosts.all.push(host);
        }
        Self { namespaces }
    }

    /// Whether a service is imported.
    pub(super) fn service(&self, namespace: &str, host: &str) -> bool {
        !self.excludes(namespace, host) && self.of(namespace).any(|hosts| hosts.takes_service(host))
    }

    /// Whether a VirtualService with these hosts is imported.
    pub(super) fn rules<'h>(&self, namespace: &str, mut hosts: impl Iterator<Item = &'h str>) -> bool {
        hosts.any(|host| {
            self.of(namespace).any(|imported| imported.takes_rules(host)) && !self.excludes(namespace, host)
        })
    }

    fn excludes(&self, namespace: &str, host: &str) -> bool {
        self.of(namespace).any(|hosts| hosts.excluded.iter().any(|excluded| covers(excluded, host)))
    }

    fn of(&self, namespace: &str) -> impl Iterator<Item = &Hosts<'a>> {
        [namespace, ANY].into_iter().filter_map(|namespace| self.namespaces.get(namespace))
    }
}

impl Hosts<'_> {
    fn takes_service(&self, host: &str) -> bool {
        self.exact.contains(host) || self.all.iter().any(|imported| covers(imported, host))
    }

    fn takes_rules(&self, host: &str) -> bool {
        self.exact.contains(host)
            || self.all.iter().any(|imported| covers(imported, host) || covers(host, imported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_and_a_host() {
        let imports =
            Imports::new(["./*", "infra/a.infra.svc", "*/*.example.com", "~/b.example.com"], "shop");
        let known = |namespace, host| imports.service(namespace, host);
        assert!(known("shop", "x.shop.svc") && known("infra", "a.infra.svc"));
        assert!(!known("infra", "b.infra.svc") && !known("other", "a.infra.svc"));
        assert!(known("other", "a.example.com") && !known("other", "example.com"));
        assert!(!known("other", "b.example.com") && !known("shop", "b.example.com"));
    }

    #[test]
    fn what_is_excluded_of_a_namespace_stays_elsewhere() {
        let imports = Imports::new(["*/*", "~infra/*", "~shop/a.com"], "shop");
        assert!(!imports.service("infra", "x") && !imports.service("shop", "a.com"));
        assert!(imports.service("shop", "b.com") && imports.service("other", "a.com"));
        let nothing = Imports::new(["~/*"], "shop");
        assert!(!nothing.service("shop", "a.com"));
        let nothing = Imports::new(["*/*", "~/*"], "shop");
        assert!(!nothing.service("shop", "a.com"));
    }

    #[test]
    fn rules_for_more_than_is_imported_come_along() {
        let imports = Imports::new(["./a.example.com", "~./b.example.com"], "shop");
        let known = |hosts: &[&str]| imports.rules("shop", hosts.iter().copied());
        assert!(known(&["*.example.com"]) && known(&["x.org", "a.example.com"]) && known(&["*"]));
        assert!(!known(&["c.example.com"]) && !known(&["b.example.com"]) && !known(&["*.org"]));
        assert!(!imports.rules("other", ["a.example.com"].into_iter()));
        assert!(!imports.service("shop", "*.example.com"));
    }
}

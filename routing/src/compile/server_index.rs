//! From the hosts of a VirtualService to the servers of a Gateway that show them, and under which names.
//!
//! Invariant: of each pair of hosts of which one covers the other the narrower is shown (Istio: host/names.go `Intersection`). A look-up
//! costs what it finds, whatever the number of servers.

use super::servers::AdmittedHost;
use config_model::{istio::VirtualService, meta::Resource, validate::resolve_short_name};
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Names that a VirtualService has at one server, in the order in which they come up.
pub(super) type Names = SmallVec<[Arc<str>; 1]>;

/// A server by its number, with the namespace that a host of it is for.
type Admits<'s> = SmallVec<[(u32, Option<&'s str>); 1]>;

/// The hosts of some servers, by what they are looked for by.
pub(super) struct ServerIndex<'s> {
    /// Exact names, and wildcards by what follows their star.
    exact: HashMap<&'s str, Admits<'s>, FixedState>,
    wildcards: HashMap<&'s str, Admits<'s>, FixedState>,
    /// All hosts, spelt backwards and sorted: those below a suffix stand together.
    backwards: Vec<(String, u32, &'s AdmittedHost<'s>)>,
}

impl<'s> ServerIndex<'s> {
    /// Indexes the hosts of each server; servers are numbered as they come.
    pub(super) fn new(servers: impl Iterator<Item = &'s [AdmittedHost<'s>]>) -> Self {
        let (mut exact, mut wildcards) = (HashMap::default(), HashMap::default());
        let mut backwards: Vec<(String, u32, &AdmittedHost<'_>)> = Vec::new();
        for (number, hosts) in (0..).zip(servers) {
            for host in hosts {
                let admits: &mut Admits<'_> = match host.host.strip_prefix('*') {
                    Some(suffix) => wildcards.entry(suffix).or_default(),
                    None => exact.entry(host.host).or_default(),
                };
                admits.push((number, host.namespace));
                backwards.push((host.host.chars().rev().collect(), number, host));
            }
        }
        backwards.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        Self { exact, wildcards, backwards }
    }

    /// The names that a VirtualService has at each server that shows any, in the order of servers.
    pub(super) fn intersect(
        &self,
        resource: &Resource<VirtualService>,
        domain: &str,
    ) -> SmallVec<[(u32, Names); 1]> {
        let namespace = resource.key.namespace.as_str();
        let admits = |of: Option<&str>| of.is_none_or(|of| of == namespace);
        let mut found: SmallVec<[(u32, Arc<str>); 4]> = SmallVec::new();
        for host in &resource.spec.hosts {
            let host = resolve_short_name(host, namespace, domain);
            let wildcard = host.strip_prefix('*');
            let by_wildcard = suffixes(wildcard.unwrap_or(&host), wildcard.is_some())
                .filter_map(|suffix| self.wildcards.get(suffix));
            for (server, of) in by_wildcard.chain(self.exact.get(&*host)).flatten() {
                if admits(*of) {
                    found.push((*server, Arc::clone(&host)));
                }
            }
            if let Some(suffix) = wildcard {
                let start: String = suffix.chars().rev().collect();
                let from = self.backwards.partition_point(|(name, ..)| *name < start);
                let below =
                    self.backwards.iter().skip(from).take_while(|(name, ..)| name.starts_with(&start));
                for (_, server, admitted) in below {
                    if admitted.host.len() > suffix.len() && admits(admitted.namespace) {
                        found.push((*server, admitted.host.into()));
                    }
                }
            }
        }
        by_server(&mut found)
    }
}

/// Names by server, each once.
fn by_server(found: &mut [(u32, Arc<str>)]) -> SmallVec<[(u32, Names); 1]> {
    // Stable: names stay in the order in which they came up.
    found.sort_by_key(|(server, _)| *server);
    let mut all: SmallVec<[(u32, Names); 1]> = SmallVec::new();
    let mut seen = HashSet::new();
    for (server, name) in found {
        match all.last_mut() {
            Some((known, names)) if *known == *server => {
                // Most have one name; a set is for those that have many.
                if names.len() == 1 && seen.is_empty() {
                    seen.extend(names.iter().cloned());
                }
                if seen.insert(Arc::clone(name)) {
                    names.push(Arc::clone(name));
                }
            }
            _ => {
                seen.clear();
                all.push((*server, SmallVec::from_iter([Arc::clone(name)])));
            }
        }
    }
    all
}

/// The suffixes that a wildcard may have to cover a name: from each dot on, and the empty one of `*`. A wildcard itself
/// is covered by its own suffix.
fn suffixes(name: &str, whole: bool) -> impl Iterator<Item = &str> {
    let dots = name.match_indices('.').filter(move |(at, _)| *at > 0).filter_map(|(at, _)| name.get(at..));
    whole.then_some(name).into_iter().chain(dots).chain(std::iter::once(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::validated;

    /// The names by server, as `server:name`.
    fn names(servers: &[&[&str]], own: &[&str]) -> Vec<String> {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec: {{hosts: {own:?}, gateways: [g], http: [{{directResponse: {{status: 200}}}}]}}"
        );
        let input = validated(&yaml);
        let admitted: Vec<Vec<_>> = servers
            .iter()
            .map(|hosts| {
                let hosts = hosts.iter().map(|host| match host.split_once('/') {
                    Some((namespace, host)) => AdmittedHost { namespace: Some(namespace), host },
                    None => AdmittedHost { namespace: None, host },
                });
                hosts.collect()
            })
            .collect();
        let index = ServerIndex::new(admitted.iter().map(Vec::as_slice));
        let found = index.intersect(input.virtual_services().first().unwrap(), "cluster.local");
        let shown =
            found.iter().flat_map(|(server, names)| names.iter().map(move |name| format!("{server}:{name}")));
        shown.collect()
    }

    #[test]
    fn of_each_pair_the_narrower_name_stays() {
        let one = |server: &[&str], own: &[&str]| -> Vec<String> {
            names(&[server], own).iter().map(|name| name.replace("0:", "")).collect()
        };
        assert_eq!(one(&["*"], &["a.foo.com"]), ["a.foo.com"]);
        assert_eq!(one(&["*.foo.com"], &["*"]), ["*.foo.com"]);
        assert_eq!(one(&["a.foo.com"], &["*.foo.com"]), ["a.foo.com"]);
        assert_eq!(one(&["*.foo.com"], &["foo.com"]), Vec::<String>::new());
        assert_eq!(one(&["*.foo.com"], &["*.bar.foo.com"]), ["*.bar.foo.com"]);
        assert_eq!(one(&["*.foo.com"], &["*.foo.com", "b.org"]), ["*.foo.com"]);
        assert_eq!(one(&["*.com", "a.foo.com", "b.org"], &["*.foo.com"]), ["*.foo.com", "a.foo.com"]);
        assert_eq!(one(&["other/a.com", "shop/b.com", "c.com"], &["*"]), ["b.com", "c.com"]);
        assert_eq!(one(&["shop/*"], &["a.com"]), ["a.com"]);
        assert_eq!(one(&["*"], &["reviews"]), ["reviews.shop.svc.cluster.local"]);
        assert_eq!(one(&["*", "*.com", "a.com"], &["a.com", "b.com"]), ["a.com", "b.com"]);
    }

    #[test]
    fn each_server_has_its_own_names() {
        assert_eq!(
            names(&[&["a.com"], &["*"], &["other/*.com"], &["*.com"]], &["b.com", "a.com"]),
            ["0:a.com", "1:b.com", "1:a.com", "3:b.com", "3:a.com"]
        );
    }
}

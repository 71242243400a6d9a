//! Route tables: which VirtualServices a set of servers shows, under which hosts, in which order.
//!
//! Invariant: a virtual host that would be made of what the previous one was made of is the previous one. No step costs
//! more than the hosts and rules that take part in it: VirtualServices are found by Gateway, hosts by hash.

use super::{
    Identity,
    rule::{RouteList, RuleCompiler, Site, SourceKey},
    servers::{AdmittedHost, BoundServer},
    visibility::{Reach, reach},
};
use crate::{
    precedence,
    request::Scheme,
    table::{RouteTable, VirtualHost},
};
use config_model::{
    diagnostic::Diagnostic,
    istio::VirtualService,
    meta::{Resource, ResourceKey},
    validate::{Validated, resolve_gateway_name, resolve_short_name},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// The VirtualServices of one Gateway, in order.
type Bound<'a> = Vec<&'a Arc<Resource<VirtualService>>>;

/// VirtualServices by the Gateways they name, in the order in which they are considered.
pub(super) struct Bindings<'a> {
    /// By namespace, then by name.
    by_gateway: HashMap<&'a str, HashMap<&'a str, Bound<'a>>>,
}

impl<'a> Bindings<'a> {
    /// Those that the gateway's namespace may see: private ones, then those exported by name, then public ones; each
    /// group oldest first (Istio: push_context.go `VirtualServicesForGateway`).
    pub(super) fn new(input: &'a Validated, identity: &Identity) -> Self {
        let default = &input.mesh().default_virtual_service_export_to;
        let mut visible: Vec<_> = input
            .virtual_services()
            .iter()
            .map(|resource| {
                let own = resource.key.namespace.as_str();
                (reach(&resource.spec.export_to, default, own, &identity.namespace), resource)
            })
            .filter(|(reach, resource)| *reach != Reach::Hidden && !resource.spec.http.is_empty())
            .collect();
        // Stable: within a group the age order stays.
        visible.sort_by_key(|(reach, _)| *reach);
        let mut by_gateway: HashMap<_, HashMap<_, Bound<'_>>> = HashMap::new();
        for (_, resource) in visible {
            let mut seen = HashSet::new();
            for entry in &resource.spec.gateways {
                let Some(name) = resolve_gateway_name(entry, &resource.key.namespace) else { continue };
                if seen.insert(name) {
                    by_gateway.entry(name.0).or_default().entry(name.1).or_default().push(resource);
                }
            }
        }
        Self { by_gateway }
    }

    fn of(&self, gateway: &ResourceKey) -> &[&'a Arc<Resource<VirtualService>>] {
        let in_namespace = self.by_gateway.get(gateway.namespace.as_str());
        in_namespace.and_then(|names| names.get(gateway.name.as_str())).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What a later compilation may take over.
#[derive(Debug, Default)]
pub(super) struct Cache {
    lists: HashMap<SourceKey, Arc<RouteList>>,
    tables: BTreeMap<Arc<str>, CachedTable>,
}

#[derive(Debug)]
struct CachedTable {
    table: Arc<RouteTable>,
    /// The lists that each virtual host was made of.
    sources: HashMap<Arc<str>, Vec<Arc<RouteList>>>,
}

/// Builds tables one after the other, taking over what it can.
pub(super) struct TableBuilder<'a, 'b> {
    rules: RuleCompiler<'a>,
    bindings: &'b Bindings<'a>,
    domain: &'b str,
    previous: Option<&'b Cache>,
    cache: Cache,
}

/// A virtual host in the making.
struct Draft {
    domain: Arc<str>,
    require_tls: bool,
    sources: Vec<Arc<RouteList>>,
}

impl<'a, 'b> TableBuilder<'a, 'b> {
    pub(super) fn new(
        rules: RuleCompiler<'a>,
        bindings: &'b Bindings<'a>,
        domain: &'b str,
        previous: Option<&'b Cache>,
    ) -> Self {
        Self { rules, bindings, domain, previous, cache: Cache::default() }
    }

    /// What the next compilation may take over.
    pub(super) fn into_cache(self) -> Cache {
        self.cache
    }

    /// The table that these servers share. `key` tells it from every other table; `port` is for the names of its hosts.
    pub(super) fn table(
        &mut self,
        key: &Arc<str>,
        name: &str,
        port: u16,
        servers: &[&BoundServer<'_>],
        findings: &mut Vec<Diagnostic>,
    ) -> Arc<RouteTable> {
        let mut drafts = Drafts::default();
        // The routes of a VirtualService on a Gateway are those of the first server that shows it; later servers of the
        // same Gateway reuse them (Istio: gateway.go `buildGatewayHTTPRouteConfig`).
        let mut lists: HashMap<(*const ResourceKey, &ResourceKey), Arc<RouteList>> = HashMap::new();
        for server in servers {
            let gateway = &server.gateway.key;
            let scheme = if server.server.tls.is_some() { Scheme::Https } else { Scheme::Http };
            let site = Site { gateway, port: server.port, scheme };
            let index = ServerIndex::new(&server.hosts);
            for &resource in self.bindings.of(gateway) {
                let names = index.intersect(resource, self.domain);
                if names.is_empty() {
                    continue;
                }
                let at = (std::ptr::from_ref(gateway), &resource.key);
                let list = match lists.get(&at) {
                    Some(list) => Arc::clone(list),
                    None => {
                        let Some(list) = self.list(resource, site) else { continue };
                        self.rules.report(&list, resource, findings);
                        lists.insert(at, Arc::clone(&list));
                        list
                    }
                };
                for name in names {
                    let draft = drafts.entry(name);
                    draft.require_tls |= server.redirects();
                    if !draft.sources.iter().any(|known| Arc::ptr_eq(known, &list)) {
                        draft.sources.push(Arc::clone(&list));
                    }
                }
            }
            // A host that nothing is bound to is redirected too.
            if server.redirects() {
                for host in &server.hosts {
                    drafts.entry(host.host.into()).require_tls = true;
                }
            }
        }
        self.finish(key, name, port, drafts)
    }

    /// The routes of a VirtualService at a site; `None` where nothing of it applies there.
    fn list(
        &mut self,
        resource: &'a Arc<Resource<VirtualService>>,
        site: Site<'_>,
    ) -> Option<Arc<RouteList>> {
        if !self.rules.applies(resource, site) {
            return None;
        }
        let key = self.rules.source_key(resource, site);
        let known = self.cache.lists.get(&key).or_else(|| self.previous?.lists.get(&key)).cloned();
        let list = known.unwrap_or_else(|| Arc::new(self.rules.compile(resource, site)));
        self.cache.lists.insert(key, Arc::clone(&list));
        Some(list)
    }

    fn finish(&mut self, key: &Arc<str>, name: &str, port: u16, drafts: Drafts) -> Arc<RouteTable> {
        let old = self.previous.and_then(|previous| previous.tables.get(key));
        let mut unchanged = old.is_some_and(|old| &**old.table.name() == name);
        let mut sources = HashMap::with_capacity(drafts.list.len());
        let mut hosts = Vec::with_capacity(drafts.list.len());
        for draft in drafts.list {
            let host_name = format!("{}:{port}", draft.domain);
            let same = old.and_then(|old| {
                let host = old.table.hosts().get(&draft.domain)?;
                let made_of = old.sources.get(&draft.domain)?;
                let equal = **host.name() == *host_name
                    && host.require_tls() == draft.require_tls
                    && made_of.len() == draft.sources.len()
                    && made_of.iter().zip(&draft.sources).all(|(a, b)| Arc::ptr_eq(a, b));
                equal.then(|| Arc::clone(host))
            });
            let host = same.unwrap_or_else(|| {
                unchanged = false;
                let lists = draft.sources.iter().map(|list| list.routes.clone()).collect();
                let routes = precedence::order(lists);
                let domain = Arc::clone(&draft.domain);
                Arc::new(VirtualHost::new(host_name, domain, draft.require_tls, routes))
            });
            hosts.push(host);
            sources.insert(draft.domain, draft.sources);
        }
        let table = match old {
            Some(old) if unchanged && old.table.hosts().len() == hosts.len() => Arc::clone(&old.table),
            _ => Arc::new(RouteTable::new(name, hosts)),
        };
        let cached = CachedTable { table: Arc::clone(&table), sources };
        self.cache.tables.insert(Arc::clone(key), cached);
        table
    }
}

/// Virtual hosts in the making, in the order in which their domains came up.
#[derive(Default)]
struct Drafts {
    list: Vec<Draft>,
    by_domain: HashMap<Arc<str>, usize>,
}

impl Drafts {
    fn entry(&mut self, domain: Arc<str>) -> &mut Draft {
        let at = *self.by_domain.entry(Arc::clone(&domain)).or_insert(self.list.len());
        if at == self.list.len() {
            self.list.push(Draft { domain, require_tls: false, sources: Vec::new() });
        }
        #[expect(clippy::indexing_slicing, reason = "`at` is an index of the list, or was pushed just now")]
        &mut self.list[at]
    }
}

/// The hosts of one server, by what they are looked for by.
struct ServerIndex<'s> {
    /// Exact names, and wildcards by what follows their star; with the namespaces they are for.
    exact: HashMap<&'s str, Vec<Option<&'s str>>>,
    wildcards: HashMap<&'s str, Vec<Option<&'s str>>>,
    /// All hosts, spelt backwards and sorted: those below a suffix stand together.
    backwards: Vec<(String, &'s AdmittedHost<'s>)>,
}

impl<'s> ServerIndex<'s> {
    fn new(hosts: &'s [AdmittedHost<'s>]) -> Self {
        let mut index = Self { exact: HashMap::new(), wildcards: HashMap::new(), backwards: Vec::new() };
        for host in hosts {
            match host.host.strip_prefix('*') {
                Some(suffix) => index.wildcards.entry(suffix).or_default().push(host.namespace),
                None => index.exact.entry(host.host).or_default().push(host.namespace),
            }
            index.backwards.push((host.host.chars().rev().collect(), host));
        }
        index.backwards.sort_by(|(a, _), (b, _)| a.cmp(b));
        index
    }

    /// The hosts that a VirtualService has on this server: of each pair of which one covers the other, the narrower
    /// (Istio: host/names.go `Intersection`).
    fn intersect(&self, resource: &Resource<VirtualService>, domain: &str) -> Vec<Arc<str>> {
        let namespace = resource.key.namespace.as_str();
        let admits = |list: &Vec<Option<&str>>| list.iter().any(|of| of.is_none_or(|of| of == namespace));
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut seen = HashSet::new();
        let mut push = |name: Arc<str>| {
            if seen.insert(Arc::clone(&name)) {
                names.push(name);
            }
        };
        for host in &resource.spec.hosts {
            let host = resolve_short_name(host, namespace, domain);
            let wildcard = host.strip_prefix('*');
            let by_wildcard = suffixes(wildcard.unwrap_or(&host), wildcard.is_some())
                .any(|suffix| self.wildcards.get(suffix).is_some_and(admits));
            if by_wildcard || self.exact.get(&*host).is_some_and(admits) {
                push(Arc::clone(&host));
            }
            if let Some(suffix) = wildcard {
                let start: String = suffix.chars().rev().collect();
                let from = self.backwards.partition_point(|(name, _)| *name < start);
                let below = self.backwards.iter().skip(from).take_while(|(name, _)| name.starts_with(&start));
                for (_, admitted) in below {
                    let narrower = admitted.host.len() > suffix.len();
                    if narrower && admitted.namespace.is_none_or(|of| of == namespace) {
                        push(admitted.host.into());
                    }
                }
            }
        }
        names
    }
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
    use crate::compile::testing::{compiled, identity, validated};
    use crate::compile::{Compiled, compile};
    use crate::listener::Chains;

    fn names(server: &[&str], own: &[&str]) -> Vec<String> {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec: {{hosts: {own:?}, gateways: [g], http: [{{directResponse: {{status: 200}}}}]}}"
        );
        let input = validated(&yaml);
        let hosts: Vec<_> = server
            .iter()
            .map(|host| match host.split_once('/') {
                Some((namespace, host)) => AdmittedHost { namespace: Some(namespace), host },
                None => AdmittedHost { namespace: None, host },
            })
            .collect();
        let resource = input.virtual_services().first().unwrap();
        let found = ServerIndex::new(&hosts).intersect(resource, "cluster.local");
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn of_each_pair_the_narrower_name_stays() {
        assert_eq!(names(&["*"], &["a.foo.com"]), ["a.foo.com"]);
        assert_eq!(names(&["*.foo.com"], &["*"]), ["*.foo.com"]);
        assert_eq!(names(&["a.foo.com"], &["*.foo.com"]), ["a.foo.com"]);
        assert_eq!(names(&["*.foo.com"], &["foo.com"]), Vec::<String>::new());
        assert_eq!(names(&["*.foo.com"], &["*.bar.foo.com"]), ["*.bar.foo.com"]);
        assert_eq!(names(&["*.foo.com"], &["*.foo.com", "b.org"]), ["*.foo.com"]);
        assert_eq!(names(&["*.com", "a.foo.com", "b.org"], &["*.foo.com"]), ["*.foo.com", "a.foo.com"]);
        assert_eq!(names(&["other/a.com", "shop/b.com", "c.com"], &["*"]), ["b.com", "c.com"]);
        assert_eq!(names(&["shop/*"], &["a.com"]), ["a.com"]);
        assert_eq!(names(&["*"], &["reviews"]), ["reviews.shop.svc.cluster.local"]);
    }

    fn shop(services: usize, changed: Option<usize>) -> String {
        let mut yaml = String::from(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: shop}\nspec: {servers: [{port: {number: 80, protocol: HTTP, name: http}, hosts: ['*']}]}\n",
        );
        for n in 0..services {
            let path = if changed == Some(n) { "/changed" } else { "/api" };
            yaml += &format!(
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v{n}, namespace: shop}}\nspec: {{hosts: [h{n}.com], gateways: [g], http: [{{match: [{{uri: {{prefix: {path}}}}}, {{uri: {{regex: '/x/{n}/[0-9]+'}}}}], route: [{{destination: {{host: s{n}}}}}]}}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: shop}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: 80, name: http}}]}}\n"
            );
        }
        yaml
    }

    fn table(compiled: &Compiled) -> Arc<RouteTable> {
        let listener = compiled.listeners.values().next().unwrap();
        match &listener.chains {
            Chains::Http(chain) => Arc::clone(&chain.table),
            Chains::Tls(_) => panic!("plain text"),
        }
    }

    #[test]
    fn only_what_changed_is_built_anew() {
        let (old, _) = compiled(&shop(3, None));
        let (same, _) = compile(&validated(&shop(3, None)), &identity(), Some(&old));
        assert!(Arc::ptr_eq(&table(&old), &table(&same)));
        let (new, _) = compile(&validated(&shop(3, Some(1))), &identity(), Some(&same));
        let (before, after) = (table(&same), table(&new));
        let kept =
            |host: &str| Arc::ptr_eq(before.hosts().get(host).unwrap(), after.hosts().get(host).unwrap());
        assert_eq!(["h0.com", "h1.com", "h2.com"].map(kept), [true, false, true]);
    }

    #[test]
    fn a_destination_that_resolves_anew_is_built_anew() {
        let yaml = shop(1, None);
        let (old, _) = compiled(&yaml);
        let input = validated(&yaml.replace("ports: [{port: 80, ", "ports: [{port: 81, "));
        let (new, _) = compile(&input, &identity(), Some(&old));
        assert!(!Arc::ptr_eq(&table(&old), &table(&new)));
    }

    #[test]
    fn another_identity_takes_nothing_over() {
        let (old, _) = compiled(&shop(1, None));
        let other = Identity { namespace: "ingress".into(), ..identity() };
        let (new, _) = compile(&validated(&shop(1, None)), &other, Some(&old));
        assert!(!Arc::ptr_eq(&table(&old), &table(&new)));
    }
}

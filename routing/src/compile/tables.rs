//! Route tables: which VirtualServices a set of servers shows, under which hosts, in which order.
//!
//! Invariant: a virtual host that would be made of what the previous one was made of is the previous one, and a table of which no virtual
//! host is new is the previous table. No step costs more than the hosts and rules that take part in it: what VirtualServices show is
//! known by Gateway, hosts are found by hash.

use super::{
    bindings::Bindings,
    rule::{RouteList, RuleCompiler},
    servers::{Bound, BoundServer},
    shown::{Of, Shows, Steady},
};
use crate::{
    precedence,
    table::{RouteTable, VirtualHost},
};
use config_model::diagnostic::Diagnostics;
use foldhash::fast::FixedState;
use smallvec::{SmallVec, smallvec};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Tables as they were made last.
#[derive(Debug, Default)]
pub(super) struct Tables(BTreeMap<Arc<str>, Made>);

/// A table, and what its virtual hosts were made of, in their order.
#[derive(Debug)]
struct Made {
    table: Arc<RouteTable>,
    port: u16,
    hosts: Vec<(Draft, Arc<VirtualHost>)>,
}

/// A virtual host in the making.
#[derive(Debug)]
struct Draft {
    domain: Arc<str>,
    require_tls: bool,
    sources: SmallVec<[Arc<RouteList>; 1]>,
}

impl Draft {
    fn has_domain(&self, domain: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.domain, domain) || self.domain == *domain
    }

    /// Whether both make the same virtual host.
    fn is(&self, other: &Draft) -> bool {
        self.has_domain(&other.domain)
            && self.require_tls == other.require_tls
            && self.sources.len() == other.sources.len()
            && self.sources.iter().zip(&other.sources).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    fn host(&self, port: u16) -> Arc<VirtualHost> {
        let lists = self.sources.iter().map(|list| list.routes.clone()).collect();
        let domain = Arc::clone(&self.domain);
        let name = format!("{domain}:{port}");
        Arc::new(VirtualHost::new(name, domain, self.require_tls, precedence::order(lists)))
    }
}

/// Builds tables one after the other, taking over what it can.
pub(super) struct TableBuilder<'b> {
    shows: &'b mut Shows,
    shown: Of,
    before: BTreeMap<Arc<str>, Made>,
    tables: BTreeMap<Arc<str>, Made>,
}

impl Tables {
    /// Begins the tables of a configuration: finds out what VirtualServices show at all of its servers.
    pub(super) fn begin<'b>(
        &mut self,
        shows: &'b mut Shows,
        bound: &Bound<'_>,
        bindings: &Bindings,
        mut rules: RuleCompiler<'_>,
        steady: Steady,
        findings: &mut Diagnostics,
    ) -> TableBuilder<'b> {
        let shown = shows.follow(bound, bindings, &mut rules, steady, findings);
        TableBuilder { shows, shown, before: std::mem::take(&mut self.0), tables: BTreeMap::new() }
    }

    /// Ends them.
    pub(super) fn end(&mut self, built: TableBuilder<'_>) {
        let TableBuilder { shows, before, tables, .. } = built;
        // Routes that nothing holds any more go with it.
        drop(before);
        shows.sweep();
        self.0 = tables;
    }
}

impl TableBuilder<'_> {
    /// The table that these servers share. `key` tells it from every other table; `port` is for the names of its hosts.
    pub(super) fn table(
        &mut self,
        key: &Arc<str>,
        name: &str,
        port: u16,
        servers: &[&BoundServer<'_>],
    ) -> Arc<RouteTable> {
        let old = self.before.remove(key).filter(|old| old.port == port && &**old.table.name() == name);
        let old = match old {
            Some(old) => match self.follow(old, servers, port) {
                Ok(made) => {
                    let table = Arc::clone(&made.table);
                    self.tables.insert(Arc::clone(key), made);
                    return table;
                }
                Err(old) => Some(old),
            },
            None => None,
        };
        let mut drafts = Drafts::for_about(old.as_ref().map_or(0, |old| old.hosts.len()));
        for server in servers {
            self.shows.at(&self.shown, server, |names, list| {
                for name in names {
                    let draft = drafts.entry(name);
                    draft.require_tls |= server.redirects();
                    if !draft.sources.iter().any(|known| Arc::ptr_eq(known, list)) {
                        draft.sources.push(Arc::clone(list));
                    }
                }
            });
            // A host that nothing is bound to is redirected too.
            if server.redirects() {
                for host in &server.hosts {
                    drafts.entry(&host.host.into()).require_tls = true;
                }
            }
        }
        let made = finish(drafts.list, name, port, old);
        let table = Arc::clone(&made.table);
        self.tables.insert(Arc::clone(key), made);
        table
    }

    /// The old table with other routes for some of its hosts, which is what most changes come to: one server, and each domain where it was,
    /// shown once. `Err`: it is not so.
    fn follow(&self, mut old: Made, servers: &[&BoundServer<'_>], port: u16) -> Result<Made, Made> {
        let [server] = servers else { return Err(old) };
        let alone = |draft: &Draft| !draft.require_tls && draft.sources.len() == 1;
        if server.redirects() || old.hosts.len() != old.table.hosts().len() {
            return Err(old);
        }
        let (mut at, mut same, mut changed) = (0, true, Vec::new());
        self.shows.at(&self.shown, server, |names, list| {
            for name in names {
                let here = old.hosts.get(at).filter(|(draft, _)| alone(draft) && draft.has_domain(name));
                match here {
                    Some((draft, _)) if draft.sources.iter().any(|known| Arc::ptr_eq(known, list)) => {}
                    Some(_) => changed.push((at, Arc::clone(list))),
                    None => same = false,
                }
                at += 1;
            }
        });
        if !same || at != old.hosts.len() {
            return Err(old);
        }
        if changed.is_empty() {
            return Ok(old);
        }
        for (at, list) in changed {
            if let Some((draft, host)) = old.hosts.get_mut(at) {
                draft.sources = smallvec![list];
                *host = draft.host(port);
            }
        }
        let hosts = old.hosts.iter().map(|(_, host)| Arc::clone(host)).collect();
        match old.table.with_hosts(hosts) {
            Some(table) => Ok(Made { table: Arc::new(table), ..old }),
            None => Err(old),
        }
    }
}

/// Makes the virtual hosts that are not there yet, and the table where it is not the old one.
fn finish(drafts: Vec<Draft>, name: &str, port: u16, old: Option<Made>) -> Made {
    let (old, mut known) = match old {
        Some(Made { table, hosts, .. }) => (Some(table), hosts.into_iter()),
        None => (None, Vec::new().into_iter()),
    };
    let count = known.len();
    let (mut same_domains, mut same_hosts) = (count == drafts.len(), true);
    // Those that are not at the place where they were, by their domain.
    let mut elsewhere: HashMap<Arc<str>, (Draft, Arc<VirtualHost>), FixedState> = HashMap::default();
    let mut hosts: Vec<(Draft, Arc<VirtualHost>)> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let here = if same_domains { known.next() } else { None };
        let before = match here {
            Some((before, host)) if before.has_domain(&draft.domain) => Some((before, host)),
            here => {
                same_domains = false;
                let rest = here.into_iter().chain(known.by_ref());
                elsewhere.extend(rest.map(|(before, host)| (Arc::clone(&before.domain), (before, host))));
                elsewhere.remove(&draft.domain)
            }
        };
        let host = match before {
            Some((before, host)) if before.is(&draft) => host,
            _ => {
                same_hosts = false;
                draft.host(port)
            }
        };
        hosts.push((draft, host));
    }
    let values = || hosts.iter().map(|(_, host)| Arc::clone(host));
    let table = match old {
        Some(old) if same_domains && same_hosts => old,
        // Two domains that differ in case are one to a table, so that places would not be the same.
        Some(old) if same_domains && old.hosts().len() == count => match old.with_hosts(values().collect()) {
            Some(table) => Arc::new(table),
            None => Arc::new(RouteTable::new(name, values())),
        },
        _ => Arc::new(RouteTable::new(name, values())),
    };
    Made { table, port, hosts }
}

/// Virtual hosts in the making, in the order in which their domains came up.
#[derive(Default)]
struct Drafts {
    list: Vec<Draft>,
    by_domain: HashMap<Arc<str>, usize, FixedState>,
}

impl Drafts {
    fn for_about(count: usize) -> Self {
        let by_domain = HashMap::with_capacity_and_hasher(count, FixedState::default());
        Self { list: Vec::with_capacity(count), by_domain }
    }

    fn entry(&mut self, domain: &Arc<str>) -> &mut Draft {
        let at = *self.by_domain.entry(Arc::clone(domain)).or_insert(self.list.len());
        if at == self.list.len() {
            self.list.push(Draft { domain: Arc::clone(domain), require_tls: false, sources: smallvec![] });
        }
        #[expect(clippy::indexing_slicing, reason = "`at` is an index of the list, or was pushed just now")]
        &mut self.list[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::{identity, validated};
    use crate::compile::{Compiled, Compiler};
    use crate::listener::Chains;

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
            Chains::Tls(_) | Chains::Matched(_) => panic!("plain text"),
        }
    }

    #[test]
    fn only_what_changed_is_built_anew() {
        let mut compiler = Compiler::new(identity());
        let (old, _) = compiler.compile(&validated(&shop(3, None)));
        let (same, _) = compiler.compile(&validated(&shop(3, None)));
        assert!(Arc::ptr_eq(&table(&old), &table(&same)));
        let (new, _) = compiler.compile(&validated(&shop(3, Some(1))));
        let (before, after) = (table(&same), table(&new));
        let kept =
            |host: &str| Arc::ptr_eq(before.hosts().get(host).unwrap(), after.hosts().get(host).unwrap());
        assert_eq!(["h0.com", "h1.com", "h2.com"].map(kept), [true, false, true]);
    }

    #[test]
    fn a_destination_that_resolves_anew_is_built_anew() {
        let yaml = shop(1, None);
        let mut compiler = Compiler::new(identity());
        let (old, _) = compiler.compile(&validated(&yaml));
        let (new, _) =
            compiler.compile(&validated(&yaml.replace("ports: [{port: 80, ", "ports: [{port: 81, ")));
        assert!(!Arc::ptr_eq(&table(&old), &table(&new)));
    }
}

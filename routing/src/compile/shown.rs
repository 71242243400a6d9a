//! What VirtualServices show at the servers of their Gateways: domains and routes.
//!
//! Invariant: what a VirtualService shows is worked out once, as long as it, the servers of its Gateway and what its destinations resolve
//! to are the same; and a list of routes is compiled once for each content. Holds no more than what is shown.

use super::{
    bindings::Bindings,
    rule::{RouteList, RuleCompiler, Site, SourceKey},
    server_index::{Names, ServerIndex},
    servers::{Bound, BoundServer, Serves},
};
use crate::{listener::ListenerKey, request::Scheme};
use config_model::{
    derived::Derived,
    diagnostic::Diagnostics,
    istio::{Gateway, VirtualService},
    meta::Resource,
};
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::{collections::HashMap, sync::Arc};

/// Whether destinations mean what they meant before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Steady {
    /// They do.
    Yes,
    /// They may mean something else.
    No,
}

/// What is shown, by Gateway.
#[derive(Debug, Default)]
pub(super) struct Shows {
    gateways: Vec<OfGateway>,
    /// Lists of routes by what they were made of: for VirtualServices that are another object with the same content, and for those
    /// whose destinations might have come to mean something else and do not.
    lists: HashMap<SourceKey, Arc<RouteList>, FixedState>,
}

/// What is shown at one Gateway.
#[derive(Debug)]
struct OfGateway {
    gateway: Arc<Resource<Gateway>>,
    servers: Vec<Place>,
    shown: Derived<Resource<VirtualService>, Shown>,
}

/// Where a server is: the index in its Gateway, and the table that it takes part in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    index: usize,
    table: (ListenerKey, Option<usize>),
}

/// What a VirtualService shows at one Gateway.
#[derive(Debug, Default)]
struct Shown {
    at: SmallVec<[Showing; 1]>,
    findings: Diagnostics,
}

/// What a VirtualService shows at one server. The routes are those of the first server of a table that shows it; later servers of
/// the same Gateway reuse them (Istio: gateway.go `buildGatewayHTTPRouteConfig`).
#[derive(Debug)]
struct Showing {
    server: u32,
    names: Names,
    list: Arc<RouteList>,
}

/// Where a VirtualService shows something: its number, and the number of the showing.
type At = (u32, u32);

/// Where to look for what is shown at a server: by the server's address, the number of its Gateway and the places there.
#[derive(Debug, Default)]
pub(super) struct Of(HashMap<*const (), (usize, Vec<At>), FixedState>);

/// A Gateway and its servers, as they are bound now.
struct Bindable<'s, 'g> {
    gateway: &'g Arc<Resource<Gateway>>,
    servers: Vec<(&'s BoundServer<'g>, Place)>,
}

impl Shows {
    /// Finds out what is shown at these servers.
    pub(super) fn follow(
        &mut self,
        bound: &Bound<'_>,
        bindings: &Bindings,
        rules: &mut RuleCompiler<'_>,
        steady: Steady,
        findings: &mut Diagnostics,
    ) -> Of {
        let mut before: HashMap<*const Resource<Gateway>, OfGateway> = HashMap::new();
        for old in self.gateways.drain(..) {
            before.insert(Arc::as_ptr(&old.gateway), old);
        }
        let mut of = Of::default();
        for (number, now) in by_gateway(bound).into_iter().enumerate() {
            let servers: Vec<Place> = now.servers.iter().map(|(_, place)| place.clone()).collect();
            let old = before.remove(&Arc::as_ptr(now.gateway));
            let mut shown = match old.filter(|old| steady == Steady::Yes && old.servers == servers) {
                Some(old) => old.shown,
                None => Derived::default(),
            };
            let mut making = Making { now: &now, index: None, rules, lists: &mut self.lists };
            shown.follow(bindings.of(&now.gateway.key), |_, resource| making.make(resource));
            if making.rules.any_delegates() {
                let rules_of_others: Vec<bool> =
                    shown.iter().map(|(resource, _)| making.rules.delegates(resource)).collect();
                shown
                    .remake(|at| rules_of_others.get(at) == Some(&true), |_, resource| making.make(resource));
            }
            let mut places: Vec<Vec<At>> = vec![Vec::new(); now.servers.len()];
            for (resource, (_, shown)) in (0_u32..).zip(shown.iter()) {
                findings.share(&shown.findings);
                for (at, showing) in (0_u32..).zip(&shown.at) {
                    if let Some(list) = places.get_mut(showing.server as usize) {
                        list.push((resource, at));
                    }
                }
            }
            for ((server, _), places) in now.servers.iter().zip(places) {
                of.0.insert(address(server), (number, places));
            }
            self.gateways.push(OfGateway { gateway: Arc::clone(now.gateway), servers, shown });
        }
        of
    }

    /// Visits what each VirtualService shows at a server, in the order in which they are considered.
    pub(super) fn at(
        &self,
        of: &Of,
        server: &BoundServer<'_>,
        mut visit: impl FnMut(&Names, &Arc<RouteList>),
    ) {
        let Some((gateway, places)) = of.0.get(&address(server)) else { return };
        let Some(of_gateway) = self.gateways.get(*gateway) else { return };
        let shown = of_gateway.shown.values();
        for (resource, at) in places {
            let showing = shown.get(*resource as usize).and_then(|shown| shown.at.get(*at as usize));
            if let Some(showing) = showing {
                visit(&showing.names, &showing.list);
            }
        }
    }

    /// Lets go of lists that nothing shows any more, when there are many.
    pub(super) fn sweep(&mut self) {
        let live: usize = self.gateways.iter().map(|of_gateway| of_gateway.shown.values().len()).sum();
        if self.lists.len() > live + live / 8 + 64 {
            self.lists.retain(|_, list| Arc::strong_count(list) > 1);
        }
    }
}

/// What tells a server from every other while all are held.
fn address(server: &BoundServer<'_>) -> *const () {
    std::ptr::from_ref(server).cast()
}

/// The servers for HTTP by Gateway, in the order in which they come up.
fn by_gateway<'s, 'g>(bound: &'s Bound<'g>) -> Vec<Bindable<'s, 'g>> {
    let mut all: Vec<Bindable<'_, '_>> = Vec::new();
    let mut known: HashMap<*const Resource<Gateway>, usize> = HashMap::new();
    for (key, servers) in bound {
        for (number, server) in servers.iter().enumerate() {
            // On plain text all servers of a listener share one table; with TLS each has its own.
            let table = match server.serves {
                Serves::Http => None,
                Serves::Https => Some(number),
                Serves::Tcp | Serves::TerminatedTcp | Serves::Passthrough | Serves::AutoPassthrough => {
                    continue;
                }
            };
            let at = *known.entry(Arc::as_ptr(server.gateway)).or_insert(all.len());
            if at == all.len() {
                all.push(Bindable { gateway: server.gateway, servers: Vec::new() });
            }
            let place = Place { index: server.index, table: (key.clone(), table) };
            if let Some(of_gateway) = all.get_mut(at) {
                of_gateway.servers.push((server, place));
            }
        }
    }
    all
}

/// What it takes to work out what a VirtualService shows at one Gateway.
struct Making<'m, 's, 'g, 'r> {
    now: &'m Bindable<'s, 'g>,
    /// Made when something has to be looked up.
    index: Option<ServerIndex<'s>>,
    rules: &'m mut RuleCompiler<'r>,
    lists: &'m mut HashMap<SourceKey, Arc<RouteList>, FixedState>,
}

impl Making<'_, '_, '_, '_> {
    fn make(&mut self, resource: &Arc<Resource<VirtualService>>) -> Shown {
        let now = self.now;
        let index = self.index.get_or_insert_with(|| {
            ServerIndex::new(now.servers.iter().map(|(server, _)| server.hosts.as_slice()))
        });
        let mut shown = Shown::default();
        for (number, names) in index.intersect(resource, self.rules.domain()) {
            let Some((server, place)) = now.servers.get(number as usize) else { continue };
            let known = shown.at.iter().find(|showing: &&Showing| {
                now.servers.get(showing.server as usize).is_some_and(|(_, other)| other.table == place.table)
            });
            let list = match known {
                Some(known) => Some(Arc::clone(&known.list)),
                None => list(self.rules, self.lists, resource, server),
            };
            let Some(list) = list else { continue };
            if known.is_none() {
                shown.findings.extend(self.rules.report(&list, resource));
            }
            shown.at.push(Showing { server: number, names, list });
        }
        shown
    }
}

/// The routes of a VirtualService at a server; `None` where nothing of it applies there.
fn list(
    rules: &mut RuleCompiler<'_>,
    lists: &mut HashMap<SourceKey, Arc<RouteList>, FixedState>,
    resource: &Arc<Resource<VirtualService>>,
    server: &BoundServer<'_>,
) -> Option<Arc<RouteList>> {
    let scheme = if server.server.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let site = Site { gateway: Some(&server.gateway.key), port: server.port, scheme };
    if !rules.applies(resource, site) {
        return None;
    }
    let key = rules.source_key(resource, site);
    if let Some(known) = lists.get(&key) {
        return Some(Arc::clone(known));
    }
    let made = Arc::new(rules.compile(resource, site));
    lists.insert(key, Arc::clone(&made));
    Some(made)
}

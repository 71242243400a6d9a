//! What the proxy beside a workload serves: what the workload calls, as far as its Sidecar lets it, and what calls the workload.
//!
//! Invariant: total and pure, as all of `compile`; made whole each time, but for clusters and TLS settings that come out equal, which
//! are the same `Arc` as before.

mod addresses;
mod bytes;
mod chains;
mod clusters;
mod hosts;
mod imports;
mod inbound;
mod outbound;
mod peers;
mod routes;
mod scope;
#[cfg(test)]
mod tests;

use super::{
    Clusters, Compiled, Identity, Workload, annotations, authentication, authorization,
    bindings::Bindings,
    clusters::Maker,
    delegate::Delegates,
    endpoints::{EndpointSources, Workloads},
    in_order,
    input::Input,
    registry::{Registry, Service},
    rule::RuleCompiler,
};
use crate::{
    listener::{FilterChain, TcpRoute},
    table::RouteTable,
};
use addresses::Allocated;
use bytes::Bytes;
use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    mesh::MeshConfig,
    meta::{Kind, ResourceKey},
    parse::locate,
    validate::Validated,
};
use hosts::Common;
use outbound::Outbound;
use routes::Plain;
use scope::{Rest, Scope};
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// Compiles what the sidecar of this workload serves. `before` is what it served last.
pub(super) fn compile(
    now: &Validated,
    identity: &Identity,
    workload: &Workload,
    before: Option<&Compiled>,
) -> (Compiled, Diagnostics) {
    let input = Input::new(now, identity, None);
    let registry = Registry::new(now, identity);
    let mut bindings = Bindings::default();
    bindings.follow(&input);
    let delegates = Delegates::new(bindings.delegation(), now.mesh(), &identity.domain);
    let scope = Scope::new(now, identity, &registry, &delegates);
    let reached = Registry::of(scope.services.iter().map(|s| Cow::into_owned(s.clone())), &identity.domain);
    let mut endpoints = Workloads::default();
    endpoints.follow(now);
    let sources = EndpointSources::new(now, identity, &endpoints);
    let making = Making::new(&scope);
    let (plain, aliases) = (Plain::new(now.mesh()), aliases(reached.all()));
    let (mut findings, mut own) = (Diagnostics::new(), Vec::<Diagnostic>::new());

    let allocated = Allocated::new(now.mesh());
    let common = Common {
        namespace: &identity.namespace,
        domain: &identity.domain,
        plain: &plain,
        aliases: &aliases,
        allocated,
    };
    let bytes = Bytes { identity, reached: &reached, aliases: &aliases };
    let outbound = Outbound { scope: &scope, workload, sources: &sources, bytes, making: &making, allocated };
    let entries = outbound.entries();
    let views = outbound.views(&entries, &identity.domain);
    let mut rules = RuleCompiler::new(&reached, identity, now.mesh(), &delegates);
    let mut listeners = outbound.listeners(entries, &views, &mut rules, &common, &mut findings);

    let inbound = inbound::Inbound::new(now, identity, workload, &scope, &registry);
    let known = before.map(|before| &before.listeners);
    for (key, listener) in inbound.listeners(&making, &plain, known, &mut own) {
        // A socket of its own comes before an address that connections are only handed over for.
        listeners.insert(key, listener);
    }

    let mut made: Clusters = Maker::default().follow(&input, &reached, &|_| false, &mut findings);
    let named = matches!(scope.rest, Rest::Named).then(|| clusters::of_any_name(now.mesh(), identity));
    let named = named.transpose().unwrap_or_else(|what| {
        let message =
            format!("outboundTrafficPolicy.{what}: requests to what no service has are answered 503");
        let root = now.mesh().root_namespace.as_str();
        let key = ResourceKey::new(Kind::ConfigMap, root, MeshConfig::CONFIG_MAP);
        let finding =
            Diagnostic::new(Code::NOT_YET_HONOURED, message).at(format!("data.{}", MeshConfig::KEY));
        own.push(match now.config_maps().get(&key) {
            Some(map) => finding.about(&map.key, &map.origin),
            None => finding,
        });
        None
    });
    let others = clusters::passing(now.mesh()).into_iter().chain(named).chain(inbound.clusters(now));
    made.extend(others.map(|cluster| (cluster.spec.name.clone(), Arc::new(cluster))));
    if let Some(before) = before {
        clusters::share(&mut made, &before.clusters);
    }
    let (annotated, of_annotations) = annotations::compile(now);
    let authorization = authorization::compile(now, identity, &registry, &mut own);
    findings.extend(own);
    findings.share(&of_annotations);
    locate::place(&mut findings);
    let compiled = Compiled {
        listeners,
        clusters: Arc::new(made),
        authentication: Arc::new(authentication::compile(now, identity)),
        authorization: Arc::new(authorization),
        annotated: Arc::new(annotated),
        identity: identity.clone(),
    };
    (compiled, in_order(findings))
}

/// Names of Services that stand for another (`ExternalName`), by that one's host.
fn aliases(services: &[Service]) -> HashMap<String, Vec<Arc<str>>> {
    let mut aliases: HashMap<String, Vec<Arc<str>>> = HashMap::new();
    for service in services {
        if let Some(of) = service.alias_of() {
            aliases.entry(of).or_default().push(Arc::clone(&service.host));
        }
    }
    aliases
}

/// What all chains of a sidecar share.
struct Making {
    /// `namespace/name` of the Sidecar; empty: there is none.
    sidecar: Arc<str>,
    /// The table of connections that carry no requests.
    none: Arc<RouteTable>,
}

impl Making {
    fn new(scope: &Scope<'_>) -> Self {
        Self { sidecar: scope.name(), none: Arc::new(RouteTable::new("tcp", [])) }
    }

    /// A chain for requests in the clear.
    fn requests(&self, name: &str, port: u16, table: Arc<RouteTable>) -> FilterChain {
        FilterChain {
            gateway: Arc::clone(&self.sidecar),
            server: name.into(),
            server_port: port,
            mode: None,
            tls: None,
            tcp: None,
            table,
            policies: None,
        }
    }

    /// A chain whose connections are not looked into.
    fn bytes(&self, name: &str, port: u16, route: Arc<TcpRoute>) -> FilterChain {
        FilterChain { tcp: Some(route), ..self.requests(name, port, Arc::clone(&self.none)) }
    }
}

//! TCP and TLS rules of VirtualServices: where connections go that are not HTTP.
//!
//! Invariant: a VirtualService takes part where any of its hosts and any host of the server cover one another, in either
//! direction (Istio: gateway.go `gatewayMatchesTLS`, `pickMatchingGatewayHosts`); the first rule that fits takes all.

use super::{Identity, bindings::Bindings, registry::Registry, servers::BoundServer};
use crate::{
    cluster::ClusterName,
    listener::{TcpDestination, TcpRoute},
};
use config_model::{
    istio::{VirtualService, virtual_service::RouteDestination},
    meta::Resource,
    scalar::HostPattern,
    validate::{resolve_gateway_name, resolve_short_name},
};
use std::sync::Arc;

/// Compiles the rules of all servers that are not HTTP.
pub(super) struct L4<'b> {
    registry: &'b Registry,
    domain: &'b str,
    /// Those with such rules that the gateway may see, in the order in which they are considered.
    visible: &'b [Arc<Resource<VirtualService>>],
}

impl<'b> L4<'b> {
    pub(super) fn new(identity: &'b Identity, registry: &'b Registry, bindings: &'b Bindings) -> Self {
        Self { registry, domain: &identity.domain, visible: bindings.l4() }
    }

    /// Where all connections of a server go: the first TCP rule that fits.
    pub(super) fn tcp(&self, server: &BoundServer<'_>) -> Option<Arc<TcpRoute>> {
        self.of(server).find_map(|resource| {
            let rule = resource.spec.tcp.iter().find(|rule| {
                let fits =
                    |port: Option<u16>, gateways: &[String]| self.fits(server, resource, port, gateways);
                !rule.route.is_empty()
                    && (rule.matches.is_empty()
                        || rule.matches.iter().any(|m| fits(m.port.map(|port| port.get()), &m.gateways)))
            })?;
            Some(self.route(server, resource, &rule.route))
        })
    }

    /// The server names that TLS rules give, with where they go, in order.
    pub(super) fn tls(&self, server: &BoundServer<'_>) -> Vec<(Vec<Arc<str>>, Arc<TcpRoute>)> {
        let mut found = Vec::new();
        for resource in self.of(server) {
            for rule in resource.spec.tls.iter().filter(|rule| !rule.route.is_empty()) {
                for m in &rule.matches {
                    if self.fits(server, resource, m.port.map(|port| port.get()), &m.gateways) {
                        let names = m.sni_hosts.iter().map(|host| host.as_str().to_ascii_lowercase().into());
                        found.push((names.collect(), self.route(server, resource, &rule.route)));
                    }
                }
            }
        }
        found
    }

    /// The VirtualServices that name the server's Gateway and share a host with it.
    fn of(&self, server: &BoundServer<'_>) -> impl Iterator<Item = &'b Arc<Resource<VirtualService>>> {
        self.visible.iter().filter(move |resource| {
            names_gateway(&resource.spec.gateways, server, &resource.key.namespace)
                && resource.spec.hosts.iter().any(|host| self.shares(server, resource, host))
        })
    }

    fn shares(
        &self,
        server: &BoundServer<'_>,
        resource: &Resource<VirtualService>,
        host: &HostPattern,
    ) -> bool {
        let own = resource.key.namespace.as_str();
        let host = resolve_short_name(host, own, self.domain);
        server
            .hosts
            .iter()
            .filter(|admitted| admitted.namespace.is_none_or(|namespace| namespace == own))
            .any(|admitted| covers(admitted.host, &host) || covers(&host, admitted.host))
    }

    fn fits(
        &self,
        server: &BoundServer<'_>,
        resource: &Resource<VirtualService>,
        port: Option<u16>,
        gateways: &[String],
    ) -> bool {
        port.is_none_or(|port| port == 0 || port == server.port)
            && (gateways.is_empty() || names_gateway(gateways, server, &resource.key.namespace))
    }

    fn route(
        &self,
        server: &BoundServer<'_>,
        resource: &Resource<VirtualService>,
        route: &[RouteDestination],
    ) -> Arc<TcpRoute> {
        let single = route.len() == 1;
        let destinations = route.iter().filter_map(|to| {
            let weight = if single { 1 } else { to.weight.get() };
            let port = to.destination.port_number().map(|port| port.get());
            let (host, port) =
                self.registry.resolve(&to.destination.host, port, &resource.key.namespace, server.port);
            let cluster = ClusterName::outbound(port, &to.destination.subset, &host);
            (weight > 0).then_some(TcpDestination { cluster, weight })
        });
        let virtual_service = format!("{}/{}", resource.key.namespace, resource.key.name);
        Arc::new(TcpRoute::new(virtual_service.into(), destinations.collect()))
    }
}

fn names_gateway(entries: &[String], server: &BoundServer<'_>, namespace: &str) -> bool {
    let gateway = &server.gateway.key;
    entries.iter().any(|entry| {
        resolve_gateway_name(entry, namespace) == Some((gateway.namespace.as_str(), gateway.name.as_str()))
    })
}

/// Whether a pattern covers a name or a narrower pattern.
pub(super) fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.strip_prefix('*').unwrap_or(name).ends_with(suffix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use crate::compile::testing::compiled;
    use crate::listener::{Bind, Chains, ListenerKey};

    const RULES: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 31400, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 31401, name: tcp2, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ["*.example.com"], tls: {mode: PASSTHROUGH}}
  - port: {number: 443, name: term, protocol: TLS}
    hosts: [term.other.com]
    tls: {mode: SIMPLE, credentialName: c}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: default}
spec:
  hosts: ["a.example.com", "*.b.example.com", "c.example.com", "d.example.com", "term.other.com"]
  gateways: [gw]
  tcp:
  - match: [{port: 31400}]
    route:
    - {destination: {host: one, port: {number: 9000}}, weight: 1}
    - {destination: {host: two, port: {number: 9000}}, weight: 3}
    - {destination: {host: three, port: {number: 9000}}, weight: 0}
  - match: [{port: 443}]
    route: [{destination: {host: one, port: {number: 9000}}}]
  tls:
  - match: [{port: 443, sniHosts: [a.example.com]}]
    route: [{destination: {host: one, port: {number: 443}}}]
  - match:
    - {sniHosts: ["*.b.example.com"]}
    - {sniHosts: [a.example.com, c.example.com]}
    - {port: 444, sniHosts: [d.example.com]}
    route: [{destination: {host: two, port: {number: 443}}}]
"#;

    #[test]
    fn connections_go_where_the_first_rule_says() {
        let (compiled, _) = compiled(RULES);
        let listener = |port| compiled.listeners.get(&ListenerKey { bind: Bind::Any, port });
        let Chains::Http(tcp) = &listener(31400).unwrap().chains else { panic!("plain") };
        let route = tcp.tcp.as_ref().unwrap();
        let shares: Vec<_> = route.destinations().iter().map(|d| (d.cluster.to_string(), d.weight)).collect();
        assert_eq!(
            shares,
            [
                ("outbound|9000||one.default.svc.cluster.local".to_owned(), 1),
                ("outbound|9000||two.default.svc.cluster.local".to_owned(), 3)
            ]
        );
        assert!(listener(31401).is_none(), "no rule is for it");

        let Chains::Tls(tls) = &listener(443).unwrap().chains else { panic!("TLS") };
        let goes = |name: &str| {
            let chain = tls.lookup_sni(Some(name))?;
            let route = chain.tcp.as_ref()?;
            Some((chain.tls.is_some(), route.pick(0)?.to_string()))
        };
        let to =
            |terminated, name: &str| Some((terminated, format!("outbound|{name}.default.svc.cluster.local")));
        assert_eq!(goes("a.example.com"), to(false, "443||one"));
        assert_eq!(goes("x.b.example.com"), to(false, "443||two"));
        assert_eq!(goes("term.other.com"), to(true, "9000||one"));
        // A match with a name that is taken is left out whole.
        assert_eq!(goes("c.example.com"), None);
        assert_eq!(goes("d.example.com"), None);
    }
}

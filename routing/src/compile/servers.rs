//! From Gateways to the servers that are served: selection, port resolution, merging and its conflicts.
//!
//! Invariant: first processed wins, oldest Gateway first (Istio: gateway.go `mergeGateways`); who loses is dropped whole
//! and reported. Servers that are not served yet still claim their port and hosts, so that nothing changes hands later.

use super::{Identity, l4::covers, tls};
use crate::listener::{Bind, ListenerKey, ServerTls};
use config_model::{
    diagnostic::{Code, Diagnostic},
    istio::gateway::{Gateway, Server, ServerTlsMode},
    kubernetes::{self, EndpointSlice, TargetPort},
    meta::Resource,
    scalar::{
        Protocol,
        labels::{is_subset_of, selects},
    },
    validate::Validated,
};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// A Service label that switches port translation off.
const NO_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// A server that is served.
pub(super) struct BoundServer<'a> {
    /// Its Gateway.
    pub(super) gateway: &'a Arc<Resource<Gateway>>,
    /// The server as written.
    pub(super) server: &'a Server,
    /// Its index in the Gateway.
    pub(super) index: usize,
    /// Port number as written; rules compare with this one.
    pub(super) port: u16,
    /// Hosts that it admits.
    pub(super) hosts: Vec<AdmittedHost<'a>>,
    /// What its connections carry.
    pub(super) serves: Serves,
    /// What it terminates; `None` on plain text.
    pub(super) tls: Option<Arc<ServerTls>>,
}

/// A host of a server, with the namespace it is for.
pub(super) struct AdmittedHost<'a> {
    /// Namespace that a VirtualService must be in; `None` for any.
    pub(super) namespace: Option<&'a str>,
    /// Exact name, `*.suffix` or `*`.
    pub(super) host: &'a str,
}

impl BoundServer<'_> {
    /// Whether plain-text requests for its hosts are sent to https.
    pub(super) fn redirects(&self) -> bool {
        self.tls.is_none() && self.server.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    /// What it does with TLS; `None` on plain text.
    pub(super) fn mode(&self) -> Option<ServerTlsMode> {
        match self.serves {
            Serves::Http | Serves::Tcp => None,
            Serves::Https | Serves::TerminatedTcp | Serves::Passthrough | Serves::AutoPassthrough => {
                Some(mode(self.server))
            }
        }
    }

    /// Whether one of its hosts covers a service's (Istio: the namespaces of hosts play no part here).
    pub(super) fn covers(&self, host: &str) -> bool {
        self.hosts.iter().any(|admitted| covers(admitted.host, host))
    }

    /// `namespace/name` of its Gateway.
    pub(super) fn gateway_name(&self) -> String {
        format!("{}/{}", self.gateway.key.namespace, self.gateway.key.name)
    }
}

/// The servers of each listener, in merge order.
pub(super) type Bound<'a> = BTreeMap<ListenerKey, Vec<BoundServer<'a>>>;

/// Binds every server that is for this gateway. They depend on Gateways, on the ports of the gateway's own Services, and on what the
/// whole mesh says.
pub(super) fn bind<'a>(
    input: &'a Validated,
    identity: &Identity,
    ports: &Ports,
    findings: &mut Vec<Diagnostic>,
) -> Bound<'a> {
    let mut claims: HashMap<ListenerKey, Claim<'_>> = HashMap::new();
    let mut bound: BTreeMap<ListenerKey, Vec<BoundServer<'_>>> = BTreeMap::new();
    for gateway in input.gateways() {
        if !selects(gateway.spec.selector.as_ref(), &identity.labels) {
            continue;
        }
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let mut report = |code, field: &str, message: String| {
                let finding = Diagnostic::new(code, message)
                    .about(&gateway.key, &gateway.origin)
                    .at(format!("spec.servers[{index}]{field}"));
                findings.push(finding);
            };
            let Some(bind) = bind_of(server) else {
                let message = format!("bind {:?} is no address: the server is not opened", server.bind);
                report(Code::SERVER_DROPPED, ".bind", message);
                continue;
            };
            let number = server.port.number.map_or(0, |number| number.get());
            let Some(kind) = Kind::of(server) else {
                let message = format!("protocol {:?} cannot be served", server.port.protocol);
                report(Code::SERVER_DROPPED, ".port.protocol", message);
                continue;
            };
            let port = if matches!(bind, Bind::Unix(_)) { 0 } else { ports.resolve(number) };
            if ports.misses(number) {
                let message = format!("No Service of this gateway exposes port {number}");
                report(Code::GATEWAY_PORT, ".port.number", message);
            }
            let key = ListenerKey { bind, port };
            let hosts = admitted(gateway, server);
            let claim = claims.entry(key.clone());
            let claim =
                claim.or_insert_with(|| Claim { kind, by: gateway, servers: 0, tls_hosts: HashMap::new() });
            if let Err(conflict) = claim.admit(kind, gateway, server, &hosts) {
                let (code, field, message) = conflict.describe(gateway, number);
                report(code, field, message);
                continue;
            }
            let serves = served(server, kind);
            let terminates = matches!(serves, Serves::Https | Serves::TerminatedTcp);
            let tls = terminates.then(|| {
                let settings = server.tls.as_ref();
                let (tls, problems) = tls::compile(settings, input.mesh(), identity);
                for message in problems {
                    report(Code::INVALID_CREDENTIAL, ".tls", message);
                }
                Arc::new(tls)
            });
            let server = BoundServer { gateway, server, index, port: number, hosts, serves, tls };
            bound.entry(key).or_default().push(server);
        }
    }
    bound
}

/// What shares a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Tcp,
    Tls,
}

impl Kind {
    fn of(server: &Server) -> Option<Self> {
        match Protocol::parse(&server.port.protocol)? {
            Protocol::Udp => None,
            protocol if protocol.is_http() => Some(Self::Http),
            protocol if protocol.is_tcp() && server.tls.is_none() => Some(Self::Tcp),
            _ => Some(Self::Tls),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "plain-text HTTP",
            Self::Tcp => "plain TCP",
            Self::Tls => "TLS",
        }
    }
}

/// Who holds a port.
struct Claim<'a> {
    kind: Kind,
    by: &'a Resource<Gateway>,
    /// How many servers hold it.
    servers: usize,
    /// Host strings of servers with a `tls` block, normalised, and whose they are.
    tls_hosts: HashMap<String, &'a Resource<Gateway>>,
}

impl<'a> Claim<'a> {
    fn admit(
        &mut self,
        kind: Kind,
        gateway: &'a Resource<Gateway>,
        server: &Server,
        hosts: &[AdmittedHost<'_>],
    ) -> Result<(), Conflict<'a>> {
        // Two plain TCP servers cannot be told apart.
        if self.kind != kind || (kind == Kind::Tcp && self.servers > 0) {
            return Err(Conflict::Protocol { holder: self.by, holds: self.kind, wants: kind });
        }
        self.servers += 1;
        if server.tls.is_none() {
            return Ok(());
        }
        let names: Vec<String> = hosts.iter().map(AdmittedHost::to_string).collect();
        if let Some((host, holder)) = names.iter().find_map(|n| self.tls_hosts.get(n).map(|by| (n, *by))) {
            return Err(Conflict::Host { holder, host: host.clone() });
        }
        self.tls_hosts.extend(names.into_iter().map(|name| (name, gateway)));
        Ok(())
    }
}

/// Why a server is dropped.
enum Conflict<'a> {
    Protocol { holder: &'a Resource<Gateway>, holds: Kind, wants: Kind },
    Host { holder: &'a Resource<Gateway>, host: String },
}

impl Conflict<'_> {
    fn describe(&self, own: &Resource<Gateway>, port: u16) -> (Code, &'static str, String) {
        let (holder, field, what) = match self {
            Self::Protocol { holder, holds, wants } => {
                let what = format!(
                    "port {port} already serves {}, so {} cannot join",
                    holds.as_str(),
                    wants.as_str()
                );
                (*holder, ".port", what)
            }
            Self::Host { holder, host } => {
                (*holder, ".hosts", format!("host {host:?} on port {port} is already taken"))
            }
        };
        // Within one Gateway it is a slip; between two it is what Istio's analysis calls a conflict.
        let code = if std::ptr::eq(holder, own) { Code::SERVER_DROPPED } else { Code::CONFLICTING_GATEWAYS };
        let holder = format!("{}/{}", holder.key.namespace, holder.key.name);
        (code, field, format!("Conflict with gateway {holder}: {what}; this server is left out whole"))
    }
}

impl std::fmt::Display for AdmittedHost<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.host),
            None => f.write_str(self.host),
        }
    }
}

/// Istio: gateway.go `sanitizeServerHostNamespace`: `.` is the Gateway's own namespace.
fn admitted<'a>(gateway: &'a Resource<Gateway>, server: &'a Server) -> Vec<AdmittedHost<'a>> {
    let resolve = |namespace| if namespace == "." { gateway.key.namespace.as_str() } else { namespace };
    let hosts = server.hosts.iter();
    hosts.map(|h| AdmittedHost { namespace: h.namespace().map(resolve), host: h.host().as_str() }).collect()
}

/// What the connections of a server carry, and who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serves {
    /// Requests in the clear.
    Http,
    /// Requests in TLS that is terminated.
    Https,
    /// Bytes in the clear.
    Tcp,
    /// Bytes in TLS that is terminated.
    TerminatedTcp,
    /// TLS that goes on as it is, by rules.
    Passthrough,
    /// TLS that goes on as it is, to the cluster that its server name names.
    AutoPassthrough,
}

fn served(server: &Server, kind: Kind) -> Serves {
    match kind {
        Kind::Http => return Serves::Http,
        Kind::Tcp => return Serves::Tcp,
        Kind::Tls => {}
    }
    match mode(server) {
        ServerTlsMode::Passthrough => Serves::Passthrough,
        ServerTlsMode::AutoPassthrough => Serves::AutoPassthrough,
        ServerTlsMode::Simple
        | ServerTlsMode::Mutual
        | ServerTlsMode::OptionalMutual
        | ServerTlsMode::IstioMutual => match Protocol::parse(&server.port.protocol) {
            Some(Protocol::Https) => Serves::Https,
            _ => Serves::TerminatedTcp,
        },
    }
}

fn mode(server: &Server) -> ServerTlsMode {
    server.tls.as_ref().map(|tls| tls.mode).unwrap_or_default()
}

fn bind_of(server: &Server) -> Option<Bind> {
    if server.bind.is_empty() {
        return Some(Bind::Any);
    }
    match server.bind.strip_prefix("unix://") {
        Some(path) => Some(Bind::Unix(path.into())),
        None => {
            let ip: IpAddr = server.bind.parse().ok()?;
            Some(if ip.is_unspecified() { Bind::Any } else { Bind::Ip(ip) })
        }
    }
}

/// The ports of the Services of the gateway's own pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    /// Service port to target port, first found first.
    targets: BTreeMap<u16, u16>,
    /// Whether there is such a Service.
    known: bool,
}

impl Ports {
    pub(super) fn new(input: &Validated, identity: &Identity) -> Self {
        let mut targets = BTreeMap::new();
        let mut known = false;
        for service in input.services().values() {
            let selector = &service.spec.selector;
            let ours = service.key.namespace == identity.namespace
                && !selector.is_empty()
                && is_subset_of(selector, &identity.labels)
                && !service.meta.labels.contains_key(NO_TRANSLATION);
            if !ours {
                continue;
            }
            known = true;
            for port in &service.spec.ports {
                let target = match &port.target_port {
                    None => port.port.get(),
                    Some(TargetPort::Number(number)) => number.get(),
                    Some(TargetPort::Name(name)) => {
                        named_port(input, identity, service, &port.name, name).unwrap_or(port.port.get())
                    }
                };
                targets.entry(port.port.get()).or_insert(target);
            }
        }
        Self { targets, known }
    }

    fn resolve(&self, number: u16) -> u16 {
        self.targets.get(&number).copied().unwrap_or(number)
    }

    /// Whether there are Services and none leads to this port.
    fn misses(&self, number: u16) -> bool {
        self.known
            && !self.targets.contains_key(&number)
            && !self.targets.values().any(|target| *target == number)
    }
}

/// The number of a named container port: from the proxy's pods, else from the Service's slices.
pub(super) fn named_port(
    input: &Validated,
    identity: &Identity,
    service: &Resource<kubernetes::Service>,
    port: &str,
    target: &str,
) -> Option<u16> {
    let pods = input.pods().values().filter(|pod| {
        pod.key.namespace == identity.namespace && is_subset_of(&service.spec.selector, &pod.meta.labels)
    });
    let of_pods = pods.filter_map(|pod| pod.spec.container_port(target)).next();
    let mut slices = input.endpoint_slices().values().filter(|slice| {
        slice.key.namespace == service.key.namespace
            && slice.meta.labels.get(EndpointSlice::SERVICE_LABEL) == Some(&service.key.name)
    });
    let of_slices =
        || slices.find_map(|slice| slice.spec.ports.iter().find(|p| p.name == port).and_then(|p| p.port));
    of_pods.or_else(of_slices).map(|number| number.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::{identity, validated};

    fn gateway(name: &str, age: u32, servers: &str) -> String {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop, creationTimestamp: '2024-01-{age:02}T00:00:00Z'}}\nspec:\n  servers: [{servers}]\n"
        )
    }

    /// Servers by listener as `gateway#index`, and the codes raised.
    fn bound(yaml: &str) -> (Vec<String>, Vec<String>) {
        let input = validated(yaml);
        let mut findings = Vec::new();
        let ports = Ports::new(&input, &identity());
        let bound = bind(&input, &identity(), &ports, &mut findings);
        let shown = bound.iter().map(|(key, servers)| {
            let names: Vec<_> =
                servers.iter().map(|s| format!("{}#{}", s.gateway.key.name, s.index)).collect();
            format!("{key} {}", names.join(" "))
        });
        (shown.collect(), findings.iter().map(|f| f.code.to_string()).collect())
    }

    const HTTP: &str = "{port: {number: 80, protocol: HTTP, name: http}, hosts: ['a.com']}";
    const HTTPS: &str = "{port: {number: 80, protocol: HTTPS, name: https}, hosts: ['a.com', 'b.com'], tls: {mode: SIMPLE, credentialName: c}}";

    #[test]
    fn plain_http_merges_and_oldest_wins_a_protocol_clash() {
        let yaml = [gateway("young", 9, HTTPS), gateway("old", 1, HTTP), gateway("mid", 5, HTTP)].concat();
        assert_eq!(bound(&yaml), (vec!["0.0.0.0_80 old#0 mid#0".into()], vec!["IST0145".into()]));
        let reverse = [gateway("old", 1, HTTPS), gateway("young", 9, HTTP)].concat();
        assert_eq!(bound(&reverse).0, ["0.0.0.0_80 old#0"]);
    }

    #[test]
    fn one_equal_tls_host_drops_the_whole_later_server() {
        let yaml =
            [gateway("a", 1, HTTPS), gateway("b", 2, &HTTPS.replace("'a.com', ", "'c.com', "))].concat();
        assert_eq!(bound(&yaml), (vec!["0.0.0.0_80 a#0".into()], vec!["IST0145".into()]));
        let apart =
            [gateway("a", 1, HTTPS), gateway("b", 2, &HTTPS.replace("'a.com', 'b.com'", "'*.com'"))].concat();
        assert_eq!(bound(&apart).0, ["0.0.0.0_80 a#0 b#0"]);
    }

    #[test]
    fn redirecting_servers_are_compared_too() {
        let redirect =
            "{port: {number: 80, protocol: HTTP, name: http}, hosts: ['a.com'], tls: {httpsRedirect: true}}";
        let yaml = [gateway("a", 1, redirect), gateway("b", 2, redirect), gateway("c", 3, HTTP)].concat();
        assert_eq!(bound(&yaml), (vec!["0.0.0.0_80 a#0 c#0".into()], vec!["IST0145".into()]));
    }

    #[test]
    fn a_service_translates_ports_and_different_numbers_may_meet() {
        let service = "
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: istio-system}
spec: {selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: 8080}]}
";
        let at = |port: &str| HTTP.replace("80", port);
        let yaml = [
            service.to_owned(),
            gateway("a", 1, HTTP),
            gateway("b", 2, &at("8080")),
            gateway("c", 3, &at("90")),
        ]
        .concat();
        assert_eq!(
            bound(&yaml),
            (vec!["0.0.0.0_90 c#0".into(), "0.0.0.0_8080 a#0 b#0".into()], vec!["IST0162".into()])
        );
    }

    #[test]
    fn other_protocols_hold_their_port() {
        let tcp = "{port: {number: 80, protocol: TCP, name: tcp}, hosts: ['*']}";
        let yaml = [gateway("a", 1, tcp), gateway("b", 2, HTTP)].concat();
        assert_eq!(bound(&yaml), (vec!["0.0.0.0_80 a#0".into()], vec!["IST0145".into()]));
        let twice = [gateway("a", 1, tcp), gateway("b", 2, tcp)].concat();
        assert_eq!(bound(&twice).1, ["IST0145"]);
    }

    #[test]
    fn another_bind_is_another_listener() {
        let local = HTTP.replace("{port", "{bind: 127.0.0.1, port");
        let (listeners, _) = bound(&[gateway("a", 1, HTTP), gateway("b", 2, &local)].concat());
        assert_eq!(listeners, ["0.0.0.0_80 a#0", "127.0.0.1_80 b#0"]);
    }
}

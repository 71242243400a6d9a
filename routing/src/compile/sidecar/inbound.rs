//! Inbound listeners: a chain for each port of the workload, those that its Sidecar gives in place of them, and the rest as it comes.
//!
//! Invariant: what is neither mutual TLS nor allowed in plain text finds no chain, and is closed. A Sidecar with `ingress` says all that is
//! served by name; other ports still pass (Istio: listener_inbound.go `buildInboundListeners`).

use super::{
    super::{
        registry::{Port, Registry, Service, Source},
        rules::Rules,
        servers::named_port,
        tls,
    },
    Making,
    clusters::Own,
    peers::{Mode, Peers},
    routes::{self, Plain},
    scope::Scope,
};
use crate::{
    cluster::{Address, Cluster, ClusterName},
    compile::{Identity, Workload},
    listener::{
        Bind, ChainMatch, Chains, Direction, FilterChain, Listener, ListenerKey, Listeners, MESH_PROTOCOLS,
        Matched, PLAIN_HTTP, Reached, ServerTls, TcpRoute, Transport,
    },
    table::RouteTable,
};
use config_model::{
    diagnostic::{Code, Diagnostic},
    istio::{
        destination_rule::ConnectionPoolSettings,
        gateway::{ServerTlsMode, ServerTlsSettings},
        sidecar::{CaptureMode, IstioIngressListener},
    },
    kubernetes::TargetPort,
    scalar::{Protocol, labels::is_subset_of},
    validate::Validated,
};
use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// Names of the mesh's protocols for requests, and for all else (Istio: `mtlsHTTPALPNs`, `mtlsTCPWithMxcALPNs`).
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];

/// Makes them.
pub(super) struct Inbound<'i> {
    input: &'i Validated,
    identity: &'i Identity,
    workload: &'i Workload,
    scope: &'i Scope<'i>,
    /// Ports of the services that select the workload, by the port that it listens on; of several services the oldest's.
    targets: BTreeMap<u16, (&'i Service, &'i Port)>,
}

/// A port that is served by name.
struct Served<'s> {
    port: u16,
    service_port: u16,
    protocol: Option<Protocol>,
    bind: Bind,
    bound: bool,
    tls: Option<&'s ServerTlsSettings>,
}

/// What the connections of a chain are told by, and what becomes of them.
#[derive(Clone, Copy)]
struct Way {
    protocols: &'static [&'static str],
    transport: Transport,
    http: bool,
    /// Whether TLS ends here.
    ends: bool,
}

impl<'i> Inbound<'i> {
    pub(super) fn new(
        input: &'i Validated,
        identity: &'i Identity,
        workload: &'i Workload,
        scope: &'i Scope<'i>,
        registry: &'i Registry,
    ) -> Self {
        let mut own: Vec<_> = registry.all().iter().collect();
        own.sort_by(|a, b| super::scope::by_age(a, b));
        let mut targets = BTreeMap::new();
        for service in own {
            for port in &service.ports {
                if let Some(target) = target(input, identity, workload, service, port) {
                    targets.entry(target).or_insert((service, port));
                }
            }
        }
        Self { input, identity, workload, scope, targets }
    }

    fn ingress(&self) -> &'i [IstioIngressListener] {
        self.scope.sidecar.map(|sidecar| sidecar.spec.ingress.as_slice()).unwrap_or_default()
    }

    /// The listeners. TLS settings that are what they were in `before` are the same `Arc`.
    pub(super) fn listeners(
        &self,
        making: &Making,
        plain: &Plain,
        before: Option<&Listeners>,
        findings: &mut Vec<Diagnostic>,
    ) -> Listeners {
        let known: HashSet<&Arc<ServerTls>> = before
            .into_iter()
            .flat_map(|listeners| listeners.values())
            .flat_map(|listener| listener.chains.each())
            .filter_map(|(_, chain)| chain.tls.as_ref())
            .collect();
        let kept = |tls: ServerTls| {
            let tls = Arc::new(tls);
            let found = known.get(&tls).copied().cloned();
            found.unwrap_or(tls)
        };
        let peers = Peers::new(self.input, self.identity);
        let mutual = kept(tls::of_mesh(self.input.mesh(), self.identity));
        let make = Chain { making, plain, mutual: &mutual };
        let mut listeners = Listeners::new();
        let mut add = |key: ListenerKey, reached, chains| {
            let chains = Chains::Matched(Arc::new(Matched::new(chains, None)));
            let listener = Listener { key: key.clone(), direction: Direction::Inbound, reached, chains };
            listeners.insert(key, Arc::new(listener));
        };
        let served = self.served();
        let mut all = vec![self.black_hole(making)];
        let by_name: HashSet<u16> = served.iter().map(|served| served.port).collect();
        let others =
            std::iter::once(None).chain(peers.ports().filter(|port| !by_name.contains(port)).map(Some));
        for port in others {
            for way in ways(peers.on(port), None) {
                all.push(make.passing(port, way));
            }
        }
        for (number, served) in served.iter().enumerate() {
            let mode = peers.on(Some(served.port));
            let (ways, settings) = match served.tls {
                // TLS of the user's own is ended where the mesh's is not (Istio: `buildInboundListeners`).
                Some(settings) if mode == Mode::Disable => {
                    let (made, problems) = tls::compile(Some(settings), self.input.mesh(), self.identity);
                    self.report(number, problems, findings);
                    let http = served.protocol.is_some_and(Protocol::is_http);
                    let way = Way { protocols: &[], transport: Transport::Tls, http, ends: true };
                    (vec![way], Some((settings.mode, kept(made))))
                }
                _ => (ways(mode, served.protocol_family()), None),
            };
            let chains = ways.into_iter().map(|way| make.of_port(served, way, settings.as_ref()));
            if served.bound {
                let key = ListenerKey { bind: served.bind.clone(), port: served.port };
                add(key, Reached::Bound, chains.collect());
            } else {
                all.extend(chains);
            }
        }
        add(ListenerKey { bind: Bind::Any, port: self.workload.inbound }, Reached::Redirected, all);
        listeners
    }

    /// The ports of the Sidecar's `ingress`, else those of services.
    fn served(&self) -> Vec<Served<'i>> {
        let ingress = self.ingress();
        if ingress.is_empty() {
            let of_services = self.targets.iter().map(|(target, (_, port))| Served {
                port: *target,
                service_port: port.number,
                protocol: port.protocol,
                bind: Bind::Any,
                bound: false,
                tls: None,
            });
            return of_services.filter(|served| !self.is_own(served.port)).collect();
        }
        let written = ingress.iter().filter_map(|listener| {
            let port = listener.port.as_ref()?;
            let number = port.number?.get();
            let protocol = Protocol::parse(&port.protocol);
            let protocol = match (&listener.tls, protocol) {
                (Some(_), Some(Protocol::Https)) => Some(Protocol::Http),
                (Some(_), Some(Protocol::Tls)) => Some(Protocol::Tcp),
                (_, protocol) => protocol,
            };
            let bind = listener.bind.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified());
            Some(Served {
                port: number,
                service_port: number,
                protocol,
                bind: bind.map_or(Bind::Any, Bind::Ip),
                bound: listener.capture_mode == CaptureMode::None,
                tls: listener.tls.as_ref(),
            })
        });
        written.filter(|served| !self.is_own(served.port)).collect()
    }

    /// Whether a port is the proxy's own.
    fn is_own(&self, port: u16) -> bool {
        [self.workload.inbound, self.workload.outbound].contains(&port)
    }

    /// What is meant for the port that connections are redirected to would come back for ever.
    fn black_hole(&self, making: &Making) -> (ChainMatch, Arc<FilterChain>) {
        let condition = ChainMatch { port: Some(self.workload.inbound), ..ChainMatch::default() };
        let route = Arc::new(TcpRoute::automatic(ClusterName::black_hole()));
        (condition, Arc::new(making.bytes("virtualInbound-blackhole", 0, route)))
    }

    fn report(&self, number: usize, problems: Vec<String>, findings: &mut Vec<Diagnostic>) {
        let Some(sidecar) = self.scope.sidecar else { return };
        findings.extend(problems.into_iter().map(|message| {
            Diagnostic::new(Code::INVALID_CREDENTIAL, message)
                .about(&sidecar.key, &sidecar.origin)
                .at(format!("spec.ingress[{number}].tls"))
        }));
    }

    /// The clusters of the workload's ports.
    pub(super) fn clusters(&self, input: &Validated) -> Vec<Cluster> {
        let (mesh, rules) = (input.mesh(), Rules::new(input, self.identity));
        let of_all = self.scope.sidecar.and_then(|sidecar| sidecar.spec.inbound_connection_pool.as_ref());
        let ingress = self.ingress();
        if ingress.is_empty() {
            let own = self.targets.iter().map(|(target, (service, port))| {
                let pool = of_all.or_else(|| self.pool_of(&rules, service, port.number));
                self.own(*target, Some(*service), port.protocol, None, pool).cluster(mesh)
            });
            return own.collect();
        }
        let own = ingress.iter().filter_map(|listener| {
            let port = listener.port.as_ref()?;
            let number = port.number?.get();
            let service = self.targets.get(&number).map(|(service, _)| *service);
            let of_rule = || service.and_then(|service| self.pool_of(&rules, service, number));
            let pool = listener.connection_pool.as_ref().or(of_all).or_else(of_rule);
            let protocol = Protocol::parse(&port.protocol);
            let endpoint = endpoint(&listener.default_endpoint, &self.workload.addresses);
            Some(self.own(number, service, protocol, endpoint, pool).cluster(mesh))
        });
        own.collect()
    }

    fn own<'p>(
        &self,
        port: u16,
        service: Option<&Service>,
        protocol: Option<Protocol>,
        endpoint: Option<Address>,
        pool: Option<&'p ConnectionPoolSettings>,
    ) -> Own<'p> {
        let service = match (service, self.scope.sidecar) {
            (Some(service), _) => {
                (Arc::clone(&service.host), service.name().into(), service.namespace().into())
            }
            // Istio: cluster.go `findOrCreateService`.
            (None, Some(sidecar)) => {
                let (name, namespace) = (&*sidecar.key.name, &*self.identity.namespace);
                (format!("{name}.{namespace}").into(), name.into(), namespace.into())
            }
            (None, None) => ("".into(), "".into(), "".into()),
        };
        Own { port, service, protocol, endpoint, pool }
    }

    /// The limits of the DestinationRule for a service, which the client's side has too.
    fn pool_of<'r>(
        &self,
        rules: &Rules<'r>,
        service: &Service,
        port: u16,
    ) -> Option<&'r ConnectionPoolSettings> {
        // Only of what the sidecar reaches itself does it know rules.
        self.scope.services.iter().find(|known| known.host == service.host)?;
        let rule = rules.find(&service.host, service.namespace())?;
        rule.selector().is_none().then(|| rule.policy(None, port).connection_pool).flatten()
    }
}

impl Served<'_> {
    fn protocol_family(&self) -> Option<bool> {
        self.protocol.map(Protocol::is_http)
    }
}

/// Makes chains.
struct Chain<'c> {
    making: &'c Making,
    plain: &'c Plain,
    mutual: &'c Arc<ServerTls>,
}

impl Chain<'_> {
    fn of_port(
        &self,
        served: &Served<'_>,
        way: Way,
        own: Option<&(ServerTlsMode, Arc<ServerTls>)>,
    ) -> (ChainMatch, Arc<FilterChain>) {
        let key = ListenerKey { bind: served.bind.clone(), port: served.port };
        let cluster = ClusterName::inbound(served.port);
        let chain = self.chain(&key.to_string(), cluster, (served.service_port, served.protocol), way);
        (way.condition(Some(served.port)), self.ended(chain, way, own))
    }

    /// What is not served by name.
    fn passing(&self, port: Option<u16>, way: Way) -> (ChainMatch, Arc<FilterChain>) {
        let name = if way.http { "virtualInbound-catchall-http" } else { "virtualInbound" };
        let chain = self.chain(name, ClusterName::inbound_passthrough(), (0, None), way);
        (way.condition(port), self.ended(chain, way, None))
    }

    fn chain(
        &self,
        name: &str,
        cluster: ClusterName,
        (port, protocol): (u16, Option<Protocol>),
        way: Way,
    ) -> FilterChain {
        if !way.http {
            return self.making.bytes(name, port, Arc::new(TcpRoute::automatic(cluster)));
        }
        let table = cluster.to_string();
        let host = routes::any(&format!("inbound|http|{port}"), self.plain.inbound(cluster, protocol));
        self.making.requests(name, port, Arc::new(RouteTable::new(table, [host])))
    }

    fn ended(
        &self,
        chain: FilterChain,
        way: Way,
        own: Option<&(ServerTlsMode, Arc<ServerTls>)>,
    ) -> Arc<FilterChain> {
        let (mode, tls) = match (way.ends, own) {
            (false, _) => (None, None),
            (true, Some((mode, tls))) => (Some(*mode), Some(Arc::clone(tls))),
            (true, None) => (Some(ServerTlsMode::IstioMutual), Some(Arc::clone(self.mutual))),
        };
        Arc::new(FilterChain { mode, tls, ..chain })
    }
}

impl Way {
    fn condition(&self, port: Option<u16>) -> ChainMatch {
        ChainMatch {
            port,
            transport: Some(self.transport),
            protocols: self.protocols.into(),
            ..ChainMatch::default()
        }
    }
}

/// The chains of a port, by what is asked of peers and whether it is HTTP; `None`: nobody knows (Istio: filterchain_options.go).
fn ways(mode: Mode, http: Option<bool>) -> Vec<Way> {
    let mutual = |protocols: &'static [&'static str], http| Way {
        protocols,
        transport: Transport::Tls,
        http,
        ends: true,
    };
    let plain = |protocols: &'static [&'static str], http| Way {
        protocols,
        transport: Transport::Raw,
        http,
        ends: false,
    };
    // TLS that the workload ends itself.
    let through = Way { protocols: &[], transport: Transport::Tls, http: false, ends: false };
    match (mode, http) {
        (Mode::Strict, Some(http)) => vec![mutual(&[], http)],
        (Mode::Strict, None) => vec![mutual(&MESH_HTTP, true), mutual(&[], false)],
        (Mode::Permissive, Some(true)) => vec![mutual(&MESH_PROTOCOLS, true), plain(&[], true)],
        (Mode::Permissive, Some(false)) => {
            vec![mutual(&MESH_PROTOCOLS, false), through, plain(&[], false)]
        }
        (Mode::Permissive, None) => vec![
            mutual(&MESH_HTTP, true),
            plain(&PLAIN_HTTP, true),
            mutual(&MESH_TCP, false),
            plain(&[], false),
            through,
        ],
        (Mode::Disable, Some(http)) => vec![plain(&[], http)],
        (Mode::Disable, None) => vec![plain(&PLAIN_HTTP, true), plain(&[], false)],
    }
}

/// The port of the workload that a service's port leads to; `None`: the service is not the workload's.
fn target(
    input: &Validated,
    identity: &Identity,
    workload: &Workload,
    service: &Service,
    port: &Port,
) -> Option<u16> {
    match &service.source {
        Source::Kubernetes(resource) => {
            let selector = &resource.spec.selector;
            let own = resource.key.namespace == identity.namespace
                && !selector.is_empty()
                && is_subset_of(selector, &identity.labels);
            let written = resource
                .spec
                .ports
                .iter()
                .find(|written| written.port.get() == port.number && *written.name == *port.name);
            let target = match written.filter(|_| own)?.target_port.as_ref() {
                None => port.number,
                Some(TargetPort::Number(number)) => number.get(),
                Some(TargetPort::Name(name)) => {
                    named_port(input, identity, resource, &port.name, name).unwrap_or(port.number)
                }
            };
            Some(target)
        }
        Source::Entries(entries) => entries.iter().find_map(|entry| {
            let written = entry.spec.ports.iter().find(|written| written.number.get() == port.number)?;
            let target = written.target_port.unwrap_or(written.number).get();
            if let Some(selector) = &entry.spec.workload_selector {
                let own = entry.key.namespace == identity.namespace
                    && is_subset_of(&selector.labels, &identity.labels);
                return own.then_some(target);
            }
            let own = entry.spec.endpoints.iter().find(|endpoint| {
                endpoint.address.parse::<IpAddr>().is_ok_and(|ip| workload.addresses.contains(&ip))
            })?;
            Some(own.ports.get(&*written.name).map_or(target, |port| port.get()))
        }),
    }
}

/// Istio: cluster.go `buildInboundClustersFromSidecar`; `None`: where the connection was going.
fn endpoint(written: &str, own: &[IpAddr]) -> Option<Address> {
    if let Some(path) = written.strip_prefix("unix://") {
        return Some(Address::Unix(path.into()));
    }
    let (host, port) = written.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let first =
        |v4: bool, otherwise: IpAddr| own.iter().find(|ip| ip.is_ipv4() == v4).copied().unwrap_or(otherwise);
    let ip = match host {
        "0.0.0.0" => first(true, Ipv4Addr::LOCALHOST.into()),
        "[::]" => first(false, Ipv6Addr::LOCALHOST.into()),
        "127.0.0.1" => Ipv4Addr::LOCALHOST.into(),
        "[::1]" => Ipv6Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(Address::Ip(SocketAddr::new(ip, port)))
}

//! Which chain of a sidecar's listener takes a connection, by where it was going and what it carries.
//!
//! Invariant: Envoy's order (`FilterChainManagerImpl::findFilterChain`): destination port, longest destination prefix, server name
//! (exact, longest wildcard, any), transport, application protocol. Each step keeps its most specific and never goes back to
//! a wider one; what then finds none gets the chain of those that match nothing, or is closed.

use super::FilterChain;
use crate::host::HostIndex;
use foldhash::fast::FixedState;
use ipnet::IpNet;
use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc};

/// What HTTP in the clear counts as (Istio: `plaintextHTTPALPNs`).
pub const PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// With a ClientHello.
    Tls,
    /// With anything else (Envoy: `raw_buffer`).
    Raw,
}

/// The conditions of one chain; what is empty holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainMatch {
    /// Port that the connection was going to.
    pub port: Option<u16>,
    /// Address that it was going to: one of these.
    pub prefixes: Box<[IpNet]>,
    /// Server name of its ClientHello: `a.example.com`, `*.example.com`.
    pub server_names: Box<[Arc<str>]>,
    /// How it begins.
    pub transport: Option<Transport>,
    /// One of what it offers by ALPN; in the clear, what it is ([`PLAIN_HTTP`]).
    pub protocols: Box<[&'static str]>,
}

impl fmt::Display for ChainMatch {
    /// As `istioctl proxy-config listeners` puts it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.server_names.is_empty() {
            parts.push(format!("SNI: {}", self.server_names.join(",")));
        }
        match self.transport {
            None => {}
            Some(Transport::Tls) => parts.push("Trans: tls".to_owned()),
            Some(Transport::Raw) => parts.push("Trans: raw_buffer".to_owned()),
        }
        if !self.protocols.is_empty() {
            parts.push(format!("App: {}", self.protocols.join(",")));
        }
        if !self.prefixes.is_empty() {
            let prefixes: Vec<_> = self.prefixes.iter().map(ToString::to_string).collect();
            parts.push(format!("Addr: {}", prefixes.join(",")));
        }
        if let Some(port) = self.port {
            parts.push(format!("Addr: *:{port}"));
        }
        if parts.is_empty() { f.write_str("ALL") } else { f.write_str(&parts.join("; ")) }
    }
}

/// What the first bytes of a connection showed. What nobody looked at is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sniffed {
    /// How it begins; `None`: nobody looked, which counts as `Raw`.
    pub transport: Option<Transport>,
    /// Server name of its ClientHello.
    pub server_name: Option<Arc<str>>,
    /// What it offers by ALPN; in the clear, the one of [`PLAIN_HTTP`] that it is, where it is HTTP.
    pub protocols: Box<[Box<[u8]>]>,
}

/// What must be looked at before a chain can be chosen: a server that speaks first is not kept waiting for a client's bytes that no chain
/// asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Whether it begins with a ClientHello, and what that says.
    pub tls: bool,
    /// In the clear, whether it is HTTP.
    pub http: bool,
}

/// The chains of a listener, found by their conditions.
#[derive(Clone, Debug)]
pub struct Matched {
    all: Box<[(ChainMatch, Arc<FilterChain>)]>,
    ports: HashMap<u16, Destinations, FixedState>,
    any_port: Destinations,
    otherwise: Option<Arc<FilterChain>>,
}

/// Chains of one port by address.
#[derive(Clone, Debug, Default)]
struct Destinations {
    prefixes: HashMap<IpNet, Names, FixedState>,
    /// Their lengths, longest first.
    lengths: Vec<u8>,
    any: Option<Box<Names>>,
}

/// By server name; `*` is any and none.
#[derive(Clone, Debug, Default)]
struct Names {
    index: HostIndex<Transports>,
    wants: Wants,
}

#[derive(Clone, Debug, Default)]
struct Transports {
    tls: Option<Protocols>,
    raw: Option<Protocols>,
    any: Option<Protocols>,
}

/// By protocol; positions in the list of all.
#[derive(Clone, Debug, Default)]
struct Protocols {
    named: Vec<(&'static str, usize)>,
    any: Option<usize>,
}

impl Matched {
    /// Chains with their conditions. Of two with the very same condition the first stays; `otherwise` takes what matches none.
    #[must_use]
    pub fn new(all: Vec<(ChainMatch, Arc<FilterChain>)>, otherwise: Option<Arc<FilterChain>>) -> Self {
        let mut ports: HashMap<u16, Destinations, FixedState> = HashMap::default();
        let mut any_port = Destinations::default();
        for (at, (condition, _)) in all.iter().enumerate() {
            let destinations = match condition.port {
                Some(port) => ports.entry(port).or_default(),
                None => &mut any_port,
            };
            if condition.prefixes.is_empty() {
                destinations.any.get_or_insert_default().add(condition, at);
            }
            for prefix in &condition.prefixes {
                destinations.within(prefix.trunc()).add(condition, at);
            }
        }
        Self { all: all.into(), ports, any_port, otherwise }
    }

    /// Every chain with its conditions, and last the one of those that match none, with no conditions.
    pub fn each(&self) -> impl Iterator<Item = (Option<&ChainMatch>, &Arc<FilterChain>)> {
        let all = self.all.iter().map(|(condition, chain)| (Some(condition), chain));
        all.chain(self.otherwise.iter().map(|chain| (None, chain)))
    }

    /// What must be known of a connection to this address.
    #[must_use]
    pub fn wants(&self, destination: SocketAddr) -> Wants {
        self.names(destination).map(|names| names.wants).unwrap_or_default()
    }

    /// What is known of a connection to this address that begins so: no more than is looked at.
    #[must_use]
    pub fn seen(&self, destination: SocketAddr, begins: Sniffed) -> Sniffed {
        let Wants { tls, http } = self.wants(destination);
        match begins.transport {
            Some(Transport::Tls) if tls => begins,
            Some(Transport::Raw) if http => begins,
            _ if tls || http => Sniffed { transport: Some(Transport::Raw), ..Sniffed::default() },
            _ => Sniffed::default(),
        }
    }

    /// The chain that takes a connection; `None`: none does, and it is closed.
    #[must_use]
    pub fn pick(&self, destination: SocketAddr, sniffed: &Sniffed) -> Option<&Arc<FilterChain>> {
        let found = self.names(destination).and_then(|names| names.find(sniffed));
        found.and_then(|at| self.all.get(at)).map(|(_, chain)| chain).or(self.otherwise.as_ref())
    }

    fn names(&self, destination: SocketAddr) -> Option<&Names> {
        self.ports.get(&destination.port()).unwrap_or(&self.any_port).find(destination)
    }
}

impl Destinations {
    fn within(&mut self, prefix: IpNet) -> &mut Names {
        let length = prefix.prefix_len();
        if !self.lengths.contains(&length) {
            let at = self.lengths.partition_point(|known| *known > length);
            self.lengths.insert(at, length);
        }
        self.prefixes.entry(prefix).or_default()
    }

    fn find(&self, destination: SocketAddr) -> Option<&Names> {
        let ip = destination.ip().to_canonical();
        let within = |length: &u8| {
            let prefix = IpNet::new(ip, *length).ok()?.trunc();
            self.prefixes.get(&prefix)
        };
        self.lengths.iter().find_map(within).or(self.any.as_deref())
    }
}

impl Names {
    fn add(&mut self, condition: &ChainMatch, at: usize) {
        if condition.server_names.is_empty() {
            self.of("*").add(condition, at);
        }
        for name in &condition.server_names {
            self.of(name).add(condition, at);
        }
        // Where one chain asks for a ClientHello, all of the address are told apart by it.
        let plain = |name: &&str| PLAIN_HTTP.contains(name);
        self.wants.tls |= !condition.server_names.is_empty()
            || condition.transport == Some(Transport::Tls)
            || !condition.protocols.iter().all(plain);
        self.wants.http |=
            condition.transport != Some(Transport::Tls) && condition.protocols.iter().any(plain);
    }

    fn of(&mut self, name: &str) -> &mut Transports {
        self.index.get_or_insert_with(name, Transports::default)
    }

    fn find(&self, sniffed: &Sniffed) -> Option<usize> {
        self.index.lookup_sni(sniffed.server_name.as_deref())?.find(sniffed)
    }
}

impl Transports {
    fn add(&mut self, condition: &ChainMatch, at: usize) {
        let protocols = match condition.transport {
            None => &mut self.any,
            Some(Transport::Tls) => &mut self.tls,
            Some(Transport::Raw) => &mut self.raw,
        };
        let protocols = protocols.get_or_insert_default();
        if condition.protocols.is_empty() {
            protocols.any.get_or_insert(at);
        }
        for name in &condition.protocols {
            if !protocols.named.iter().any(|(known, _)| known == name) {
                protocols.named.push((*name, at));
            }
        }
    }

    fn find(&self, sniffed: &Sniffed) -> Option<usize> {
        let exact = match sniffed.transport {
            Some(Transport::Tls) => self.tls.as_ref(),
            Some(Transport::Raw) | None => self.raw.as_ref(),
        };
        exact.or(self.any.as_ref())?.find(sniffed)
    }
}

impl Protocols {
    fn find(&self, sniffed: &Sniffed) -> Option<usize> {
        let named = |offered: &[u8]| {
            self.named.iter().find(|(name, _)| name.as_bytes() == offered).map(|(_, at)| *at)
        };
        sniffed.protocols.iter().find_map(|offered| named(offered)).or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::RouteTable;

    fn chain(name: &str) -> Arc<FilterChain> {
        Arc::new(FilterChain {
            gateway: "".into(),
            server: name.into(),
            server_port: 0,
            mode: None,
            tls: None,
            tcp: None,
            table: Arc::new(RouteTable::new("t", [])),
            policies: None,
        })
    }

    fn matched(all: Vec<(&str, ChainMatch)>, otherwise: Option<&str>) -> Matched {
        let all = all.into_iter().map(|(name, condition)| (condition, chain(name)));
        Matched::new(all.collect(), otherwise.map(chain))
    }

    fn tls(name: Option<&str>, offered: &[&str]) -> Sniffed {
        Sniffed {
            transport: Some(Transport::Tls),
            server_name: name.map(Arc::from),
            protocols: offered.iter().map(|name| name.as_bytes().into()).collect(),
        }
    }

    fn raw(protocol: &[&str]) -> Sniffed {
        Sniffed { transport: Some(Transport::Raw), ..tls(None, protocol) }
    }

    fn goes(matched: &Matched, to: &str, sniffed: &Sniffed) -> Option<String> {
        matched.pick(to.parse().unwrap(), sniffed).map(|chain| chain.server.to_string())
    }

    const TLS: Option<Transport> = Some(Transport::Tls);
    const RAW: Option<Transport> = Some(Transport::Raw);

    #[test]
    fn a_port_of_ones_own_is_never_left_for_any_port() {
        let of = |port| ChainMatch { port, ..ChainMatch::default() };
        let prefixed = ChainMatch { prefixes: ["10.0.0.0/8".parse().unwrap()].into(), ..of(Some(81)) };
        let all = vec![("any", of(None)), ("80", of(Some(80))), ("81", prefixed)];
        let chains = matched(all, Some("otherwise"));
        let nothing = Sniffed::default();
        assert_eq!(goes(&chains, "1.1.1.1:80", &nothing).as_deref(), Some("80"));
        assert_eq!(goes(&chains, "1.1.1.1:90", &nothing).as_deref(), Some("any"));
        assert_eq!(goes(&chains, "10.1.1.1:81", &nothing).as_deref(), Some("81"));
        assert_eq!(goes(&chains, "1.1.1.1:81", &nothing).as_deref(), Some("otherwise"));
    }

    #[test]
    fn the_longest_prefix_then_the_name_then_the_transport_then_the_protocol() {
        let within =
            |text: &str| ChainMatch { prefixes: [text.parse().unwrap()].into(), ..ChainMatch::default() };
        let named = |name: &str| ChainMatch { server_names: [name.into()].into(), ..within("10.1.0.0/16") };
        let all = vec![
            ("wide", within("10.0.0.0/8")),
            ("narrow", named("a.com")),
            ("wild", ChainMatch { transport: TLS, ..named("*.com") }),
            ("rest", within("10.1.0.0/16")),
            ("h2", ChainMatch { protocols: ["h2c"].into(), transport: RAW, ..within("10.2.0.0/16") }),
            ("raw", ChainMatch { transport: RAW, ..within("10.2.0.0/16") }),
            ("either", ChainMatch { protocols: ["h2c"].into(), ..within("10.2.0.0/16") }),
        ];
        let chains = matched(all, None);
        let goes = |to: &str, sniffed: &Sniffed| goes(&chains, to, sniffed);
        assert_eq!(goes("10.9.0.1:1", &tls(Some("a.com"), &[])).as_deref(), Some("wide"));
        assert_eq!(goes("10.1.0.1:1", &tls(Some("a.com"), &[])).as_deref(), Some("narrow"));
        assert_eq!(goes("10.1.0.1:1", &tls(Some("b.com"), &[])).as_deref(), Some("wild"));
        assert_eq!(goes("10.1.0.1:1", &tls(Some("b.org"), &[])).as_deref(), Some("rest"));
        assert_eq!(goes("10.1.0.1:1", &raw(&[])).as_deref(), Some("rest"));
        assert_eq!(goes("10.2.0.1:1", &raw(&["h2c"])).as_deref(), Some("h2"));
        assert_eq!(goes("10.2.0.1:1", &raw(&[])).as_deref(), Some("raw"));
        assert_eq!(goes("10.2.0.1:1", &tls(None, &["h2"])), None);
        assert_eq!(goes("11.0.0.1:1", &raw(&[])), None);
        assert_eq!(goes("[::ffff:10.9.0.1]:1", &raw(&[])).as_deref(), Some("wide"));
        assert_eq!(goes("[fd00::1]:1", &raw(&[])), None);
    }

    #[test]
    fn a_clients_protocols_are_tried_in_its_order() {
        let of =
            |protocols: &[&'static str]| ChainMatch { protocols: protocols.into(), ..ChainMatch::default() };
        let chains = matched(vec![("mesh", of(&["istio", "istio-h2"])), ("all", of(&[]))], None);
        assert_eq!(goes(&chains, "1.1.1.1:1", &tls(None, &["h2", "istio-h2"])).as_deref(), Some("mesh"));
        assert_eq!(goes(&chains, "1.1.1.1:1", &tls(None, &["h2"])).as_deref(), Some("all"));
    }

    #[test]
    fn no_more_is_seen_than_is_looked_at() {
        let port = |port, condition| ChainMatch { port: Some(port), ..condition };
        let all = vec![
            ("plain", port(1, ChainMatch::default())),
            ("http", port(2, ChainMatch { protocols: PLAIN_HTTP.into(), ..ChainMatch::default() })),
            ("tls", port(3, ChainMatch { transport: TLS, ..ChainMatch::default() })),
        ];
        let chains = matched(all, None);
        let seen = |port: u16, begins: Sniffed| chains.seen(([10, 0, 0, 1], port).into(), begins);
        let hello = || tls(Some("a.com"), &["http/1.1"]);
        assert_eq!(seen(1, hello()), Sniffed::default());
        assert_eq!(seen(1, raw(&["http/1.1"])), Sniffed::default());
        assert_eq!((seen(2, hello()), seen(2, raw(&["h2c"]))), (raw(&[]), raw(&["h2c"])));
        assert_eq!((seen(3, hello()), seen(3, raw(&["h2c"]))), (hello(), raw(&[])));
        // Whoever offers it within TLS does not speak it in the clear.
        assert_eq!(goes(&chains, "10.0.0.1:2", &seen(2, hello())), None);
    }

    #[test]
    fn nothing_is_looked_at_that_no_chain_asks_for() {
        let port = |port, condition| ChainMatch { port: Some(port), ..condition };
        let none = ChainMatch::default;
        let all = vec![
            ("plain", port(3306, none())),
            ("raw", port(6, ChainMatch { transport: RAW, ..none() })),
            ("mutual", port(1, ChainMatch { transport: TLS, ..none() })),
            ("http", port(2, ChainMatch { protocols: PLAIN_HTTP.into(), ..none() })),
            ("named", port(3, ChainMatch { server_names: ["a.com".into()].into(), ..none() })),
            ("mesh", port(4, ChainMatch { transport: TLS, protocols: ["istio"].into(), ..none() })),
        ];
        let chains = matched(all, None);
        let wants = |port: u16| {
            let Wants { tls, http } = chains.wants(([10, 0, 0, 1], port).into());
            (tls, http)
        };
        assert_eq!(wants(3306), (false, false));
        assert_eq!(wants(1), (true, false));
        assert_eq!(wants(2), (false, true));
        assert_eq!(wants(3), (true, false));
        assert_eq!(wants(4), (true, false));
        assert_eq!(wants(5), (false, false));
        assert_eq!(wants(6), (false, false));
        assert_eq!(goes(&chains, "10.0.0.1:6", &Sniffed::default()).as_deref(), Some("raw"));
    }
}

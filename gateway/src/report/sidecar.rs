//! Which chain of a sidecar takes the connection that somebody wonders about.
//!
//! Invariant: listener and chain are found by the functions that serve connections. What the question leaves out is what the workload's
//! resolver would give it: the address of the service that the URL names.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use routing::{
    compile::{Compiled, Identity},
    host::without_port,
    listener::{
        Bind, Chains, Direction, FilterChain, Listener, Reached, Sniffed, Transport as Begins,
        of_original_destination,
    },
};

use super::explain::{Certificate, Question, Transport};

/// A chain, or why there is none.
type Chosen<'c> = Result<&'c Arc<FilterChain>, String>;

/// The listener that takes a connection and its chain, or why none does; `None`: nothing listens there.
pub(super) fn taken<'c>(
    compiled: &'c Compiled,
    question: &Question,
) -> Option<(&'c Arc<Listener>, Chosen<'c>)> {
    let direction = question.direction;
    let of_direction = || compiled.listeners.values().filter(move |listener| listener.direction == direction);
    let ip = question.destination.or_else(|| match direction {
        Direction::Inbound => compiled.identity().role.workload()?.addresses.first().copied(),
        Direction::Outbound | Direction::Gateway => address(compiled, question),
    });
    let destination = SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), question.port);
    let explicit = of_direction().find(|listener| {
        let here = match &listener.key.bind {
            Bind::Any => true,
            Bind::Ip(at) => ip.is_none_or(|ip| ip == *at),
            Bind::Unix(_) => false,
        };
        listener.reached == Reached::Bound && listener.key.port == question.port && here
    });
    let listener = match explicit {
        Some(listener) => listener,
        None => {
            let accepted = of_direction().find(|listener| listener.reached == Reached::Redirected)?;
            of_original_destination(&compiled.listeners, accepted, destination)
        }
    };
    let chain = match &listener.chains {
        Chains::Matched(chains) => chains.pick(destination, &chains.seen(destination, sniffed(question))),
        Chains::Http(_) | Chains::Tls(_) => None,
    };
    let chain = chain.ok_or_else(|| "no chain takes such a connection: it is closed".to_owned());
    Some((listener, chain.and_then(|chain| known(chain, question).map(|()| chain))))
}

/// Whether the certificate that a client shows is of the mesh, where it has to be.
fn known(chain: &FilterChain, question: &Question) -> Result<(), String> {
    let asked = chain.tls.as_ref().and_then(|tls| tls.client.as_ref());
    match (asked, &question.client_certificate) {
        (Some(asked), Some(shown))
            if !asked.trust_domains.is_empty()
                && *shown != Certificate::default()
                && !shown.uris.iter().any(|uri| asked.is_of_mesh(uri)) =>
        {
            let domains = asked.trust_domains.join(", ");
            Err(format!(
                "the client's certificate bears no name of the trust domains {domains}: its handshake fails"
            ))
        }
        _ => Ok(()),
    }
}

/// What the first bytes of the connection would show.
fn sniffed(question: &Question) -> Sniffed {
    let bytes = |names: Vec<&str>| names.into_iter().map(|name| name.as_bytes().into()).collect();
    let (transport, server_name, protocols) = match &question.transport {
        Transport::Plain => (Begins::Raw, None, vec!["http/1.1"]),
        Transport::Tls(name) => {
            let offered = question.alpn.iter().flatten().map(String::as_str).collect();
            (Begins::Tls, name.as_deref(), offered)
        }
        Transport::Tcp => (Begins::Raw, None, Vec::new()),
    };
    Sniffed {
        transport: Some(transport),
        server_name: server_name.map(Arc::from),
        protocols: bytes(protocols),
    }
}

/// The address that the URL's host stands for: itself, or that of the listener which leads to the service it names.
fn address(compiled: &Compiled, question: &Question) -> Option<IpAddr> {
    let host = without_port(&question.authority);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Some(ip);
    }
    let names = names(bare, compiled.identity());
    compiled.listeners.values().find_map(|listener| {
        let Bind::Ip(ip) = listener.key.bind else { return None };
        let fits = listener.direction == Direction::Outbound
            && listener.reached == Reached::HandedOver
            && listener.key.port == question.port;
        let leads =
            || listener.chains.each().any(|(_, chain)| names.iter().any(|name| leads_to(chain, name)));
        (fits && leads()).then_some(ip)
    })
}

/// The names that a resolver of the workload's namespace tries for one.
fn names(host: &str, identity: &Identity) -> [String; 4] {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let (namespace, domain) = (&identity.namespace, &identity.domain);
    [
        host.clone(),
        format!("{host}.{namespace}.svc.{domain}"),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ]
}

fn leads_to(chain: &FilterChain, host: &str) -> bool {
    let of_bytes = chain.tcp.iter().flat_map(|route| route.destinations());
    of_bytes.map(|to| to.cluster.as_str()).any(|cluster| cluster.rsplit('|').next() == Some(host))
        || chain.table.hosts().iter().any(|(_, found)| without_port(found.name()) == host)
}

//! Names of endpoints to addresses, again and again.
//!
//! Invariant: a failure keeps the last good addresses; an answer lives as long as its TTL says, but at least 5 s.
//! A task holds its cluster weakly, so that a cluster that left the configuration ends its task.

use super::cluster::Cluster;
use async_trait::async_trait;
use routing::cluster::{Address, Discovery, Endpoint};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

/// Shortest time between two questions for the same name (Envoy: `dns_min_refresh_rate`).
pub const MIN_REFRESH: Duration = Duration::from_secs(1);
/// How long a question may take; a resolver that hangs is one that failed.
pub const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// Time between two questions where no answer says otherwise (Istio: `dnsRefreshRate`).
pub const DEFAULT_REFRESH: Duration = Duration::from_secs(60);

/// Addresses of a name, of both families, never empty; the first one's family is preferred.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// How long they hold.
    pub ttl: Duration,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ResolveError(pub String);

/// Whoever answers for names: the system's resolver, or a test's.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// Addresses of `name`; an error when there are none.
    async fn resolve(&self, name: &str) -> Result<Answer, ResolveError>;
}

/// Whether any endpoint has to be asked for by name.
#[must_use]
pub fn needs_resolution(discovery: Discovery, endpoints: &[Endpoint]) -> bool {
    if discovery == Discovery::DynamicDns {
        return false;
    }
    endpoints.iter().any(|e| match &e.address {
        Address::Name(name, _) => literal(name).is_none(),
        Address::Ip(_) | Address::Unix(_) => false,
    })
}

/// The endpoints that `known` answers make of what was declared; names without an answer yield none.
///
/// Order: as declared, then as answered; an address listed twice is kept once. Of a name with addresses of both families
/// those of the first one's are endpoints, and those of the other are where they listen too (Envoy has a host for each
/// address and family, half of which lead nowhere where one family does; its hosts with several addresses are as these).
#[must_use]
pub fn expand(
    discovery: Discovery,
    declared: &[Endpoint],
    known: &HashMap<Arc<str>, Vec<IpAddr>>,
) -> Vec<Endpoint> {
    let mut seen = HashSet::new();
    let mut out = Vec::with_capacity(declared.len());
    for endpoint in declared {
        let mut push = |address: Address, alternates: Arc<[SocketAddr]>| {
            if seen.insert(address.clone()) {
                out.push(Endpoint { address, alternates, ..endpoint.clone() });
            }
        };
        match &endpoint.address {
            Address::Name(name, port) => match (literal(name), known.get(name)) {
                (Some(ip), _) => push(Address::Ip(SocketAddr::new(ip, *port)), Arc::default()),
                (None, Some(ips)) => match discovery {
                    // A logical name stands for one host at a time, whatever the length of the answer.
                    Discovery::LogicalDns => push_host(&mut push, &interleaved(ips), *port),
                    _ => push_each(&mut push, ips, *port),
                },
                (None, None) => {}
            },
            other => push(other.clone(), Arc::default()),
        }
    }
    out
}

/// One host that listens on all of `ips`.
fn push_host(push: &mut impl FnMut(Address, Arc<[SocketAddr]>), ips: &[IpAddr], port: u16) {
    let mut addresses = ips.iter().map(|ip| SocketAddr::new(*ip, port));
    if let Some(first) = addresses.next() {
        push(Address::Ip(first), addresses.collect());
    }
}

/// A host for each of `ips` that is of the first one's family; each has the others' addresses, beginning with another.
fn push_each(push: &mut impl FnMut(Address, Arc<[SocketAddr]>), ips: &[IpAddr], port: u16) {
    let v4 = ips.first().is_some_and(IpAddr::is_ipv4);
    let (preferred, other): (Vec<IpAddr>, Vec<IpAddr>) = ips.iter().partition(|ip| ip.is_ipv4() == v4);
    for (index, ip) in preferred.into_iter().enumerate() {
        let turned = other.iter().cycle().skip(index).take(other.len());
        let alternates = turned.map(|ip| SocketAddr::new(*ip, port)).collect();
        push(Address::Ip(SocketAddr::new(ip, port)), alternates);
    }
}

/// The families in turn, beginning with the first one's (RFC 8305 §4).
pub(super) fn interleaved(ips: &[IpAddr]) -> Vec<IpAddr> {
    let v4 = ips.first().is_some_and(IpAddr::is_ipv4);
    let of = |wanted: bool| ips.iter().filter(move |ip| (ip.is_ipv4() == v4) == wanted);
    let (mut preferred, mut other) = (of(true), of(false));
    let mut out = Vec::with_capacity(ips.len());
    while out.len() < ips.len() {
        out.extend(preferred.next());
        out.extend(other.next());
    }
    out
}

/// Asks, but not for ever.
pub(super) async fn ask(resolver: &dyn Resolve, name: &str) -> Result<Answer, ResolveError> {
    match tokio::time::timeout(QUESTION_LIMIT, resolver.resolve(name)).await {
        Ok(answer) => answer,
        Err(_) => Err(ResolveError("the resolver did not answer in time".into())),
    }
}

/// When an answer is asked for again: as it says, within bounds, and not all names at one time (Istio: jitter of 100 ms).
pub(super) fn refresh(ttl: Duration) -> Duration {
    ttl.max(MIN_REFRESH) + Duration::from_millis(fastrand::u64(0..100))
}

/// Time until the next question after so many failures in a row: one second, doubled each time, up to
/// [`DEFAULT_REFRESH`], of which a quarter is by chance.
pub(super) fn back_off(failures: u32) -> Duration {
    let full = Duration::from_secs(1_u64 << failures.saturating_sub(1).min(6)).min(DEFAULT_REFRESH);
    full.mul_f64(0.75 + 0.25 * fastrand::f64())
}

/// Keeps the names of `cluster` resolved until it is dropped.
pub(super) async fn follow(cluster: Weak<Cluster>, resolver: Arc<dyn Resolve>) {
    let mut known: HashMap<Arc<str>, Vec<IpAddr>> = HashMap::new();
    let mut failures: u32 = 0;
    loop {
        let (declared, changed) = match cluster.upgrade() {
            Some(c) => (c.declared(), c.changed()),
            None => return,
        };
        let mut names: Vec<Arc<str>> = Vec::new();
        for endpoint in declared.iter() {
            if let Address::Name(name, _) = &endpoint.address
                && literal(name).is_none()
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        if names.is_empty() {
            // Every name went; the registry starts another task should one come back.
            return;
        }
        known.retain(|name, _| names.contains(name));
        let answers = futures::future::join_all(names.iter().map(|name| {
            let resolver = &resolver;
            async move { (name, ask(&**resolver, name).await) }
        }))
        .await;
        let mut wait = DEFAULT_REFRESH;
        let mut failed = None;
        for (name, answer) in answers {
            match answer {
                Ok(answer) => {
                    wait = wait.min(refresh(answer.ttl));
                    known.insert(name.clone(), answer.addresses);
                }
                Err(e) => failed = Some((name, e)),
            }
        }
        let failing = failures > 0;
        failures = if failed.is_some() { failures.saturating_add(1) } else { 0 };
        if failures > 0 {
            wait = wait.min(back_off(failures));
        }
        match cluster.upgrade() {
            Some(c) => {
                // Said once per spell of failure: a name that stays unknown must not fill the log.
                match (&failed, failing) {
                    (Some((name, e)), false) => {
                        tracing::warn!(cluster = %c.spec.name, %name, error = %e, "name not resolved, last addresses kept");
                    }
                    (None, true) => tracing::info!(cluster = %c.spec.name, "names resolve again"),
                    _ => {}
                }
                c.resolved(&declared, &known);
            }
            None => return,
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed.notified() => {}
        }
    }
}

fn literal(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Endpoint {
        Endpoint::at(Address::Name(name.into(), 80))
    }

    fn addresses(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(|e| e.address.to_string()).collect()
    }

    #[test]
    fn strict_takes_every_address_and_logical_only_the_first() {
        let ips = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let known = HashMap::from([(Arc::from("a"), ips)]);
        let strict = expand(Discovery::StrictDns, &[named("a")], &known);
        assert_eq!(addresses(&strict), ["10.0.0.1:80", "10.0.0.2:80"]);
        let logical = expand(Discovery::LogicalDns, &[named("a")], &known);
        assert_eq!(addresses(&logical), ["10.0.0.1:80"]);
    }

    #[test]
    fn addresses_of_the_other_family_are_tried_after_those_of_the_first() {
        let ips = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"];
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let known = HashMap::from([(Arc::from("a"), ips)]);
        let of = |discovery| -> Vec<(String, Vec<String>)> {
            let text =
                |e: Endpoint| (e.address.to_string(), e.alternates.iter().map(ToString::to_string).collect());
            expand(discovery, &[named("a")], &known).into_iter().map(text).collect()
        };
        let strict = of(Discovery::StrictDns);
        let other = ["[fd00::1]:80".to_owned(), "[fd00::2]:80".to_owned()];
        assert_eq!(strict.len(), 3);
        assert_eq!(strict[0], ("10.0.0.1:80".to_owned(), other.to_vec()));
        assert_eq!(strict[1].1, [other[1].clone(), other[0].clone()]);
        let logical = of(Discovery::LogicalDns);
        assert_eq!(logical.len(), 1);
        assert_eq!(logical[0].0, "10.0.0.1:80");
        assert_eq!(logical[0].1, ["[fd00::1]:80", "10.0.0.2:80", "[fd00::2]:80", "10.0.0.3:80"]);
    }

    #[test]
    fn failures_are_asked_for_again_ever_later() {
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (7, 60), (400, 60)] {
            let wait = back_off(failures).as_secs_f64();
            let most = f64::from(most);
            assert!((most * 0.75..=most).contains(&wait), "{failures}: {wait}");
        }
        assert!(refresh(Duration::ZERO) >= MIN_REFRESH && refresh(Duration::from_secs(9)).as_secs() == 9);
    }

    #[test]
    fn an_address_written_as_a_name_is_not_asked_for() {
        let declared = [named("127.0.0.1"), named("::1")];
        assert!(!needs_resolution(Discovery::StrictDns, &declared));
        let got = expand(Discovery::StrictDns, &declared, &HashMap::new());
        assert_eq!(addresses(&got), ["127.0.0.1:80", "[::1]:80"]);
    }
}

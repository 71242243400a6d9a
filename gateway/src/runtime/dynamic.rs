//! Names that requests ask for, resolved when they are asked for (ServiceEntry `DYNAMIC_DNS`).
//!
//! Invariant: a request waits for the first answer to its name only, and no longer than [`FIRST_ANSWER`]; after that the
//! last good addresses serve while newer ones are asked for. Names that nobody asks for are forgotten, and there are never
//! more than [`MOST_NAMES`]: they come from clients.

use super::{
    dns::{self, Resolve},
    endpoint::EndpointState,
};
use arc_swap::ArcSwap;
use routing::cluster::{Address, Endpoint};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, time::Instant};

/// How long a request waits for the first answer (Envoy: `dns_query_timeout`).
pub const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// Names of one cluster, at most (Envoy: `max_hosts`).
pub const MOST_NAMES: usize = 1024;
/// How long a name is kept that nobody asks for (Envoy: `host_ttl`).
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// What names may stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of the outside world only: whoever may choose a name, and what it says, must not get to who trusts this
    /// network (Envoy has no such rule).
    #[default]
    Outside,
    /// Any address.
    Anywhere,
}

impl Reach {
    /// Whether a name may stand for this address.
    #[must_use]
    pub fn covers(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::Anywhere, _) => true,
            (Self::Outside, IpAddr::V4(ip)) => {
                let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
                let this_network = ip.octets()[0] == 0;
                !(ip.is_loopback()
                    || ip.is_private()
                    || ip.is_link_local()
                    || ip.is_multicast()
                    || ip.is_broadcast()
                    || shared
                    || this_network)
            }
            (Self::Outside, IpAddr::V6(ip)) => {
                !(ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local()
                    || ip.is_multicast())
            }
        }
    }
}

/// The names of one cluster.
pub struct DynamicNames {
    /// By `HOST:PORT`.
    names: Mutex<HashMap<Arc<str>, Arc<Name>>>,
    resolver: Arc<dyn Resolve>,
    background: Handle,
    reach: Reach,
}

struct Name {
    endpoint: ArcSwap<Option<Arc<EndpointState>>>,
    asked: AtomicBool,
    answered: watch::Sender<bool>,
}

impl std::fmt::Debug for DynamicNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamicNames").field("names", &self.names().len()).finish_non_exhaustive()
    }
}

impl DynamicNames {
    /// No names yet; tasks on `background` ask for them. Addresses that `reach` does not cover are as if there were none.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolve>, background: Handle, reach: Reach) -> Self {
        Self { names: Mutex::default(), resolver, background, reach }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Name>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint that a name stands for; `None` where there is no answer, or there are too many names already.
    pub async fn endpoint(self: &Arc<Self>, host: &str, port: u16) -> Option<Arc<EndpointState>> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            let at = Address::Ip(SocketAddr::new(ip, port));
            return self.reach.covers(ip).then(|| Arc::new(EndpointState::alone(Endpoint::at(at))));
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let name = self.name(&host, port)?;
        name.asked.store(true, Relaxed);
        let mut answered = name.answered.subscribe();
        if !*answered.borrow() {
            // A wait that ends without an answer is the same as a bad one.
            let _either_way = tokio::time::timeout(FIRST_ANSWER, answered.wait_for(|done| *done)).await;
        }
        (**name.endpoint.load()).clone()
    }

    fn name(self: &Arc<Self>, host: &str, port: u16) -> Option<Arc<Name>> {
        let key = format!("{host}:{port}");
        let mut names = self.names();
        if let Some(name) = names.get(key.as_str()) {
            return Some(name.clone());
        }
        if names.len() >= MOST_NAMES {
            return None;
        }
        let name = Arc::new(Name {
            endpoint: ArcSwap::from_pointee(None),
            asked: AtomicBool::new(true),
            answered: watch::Sender::new(false),
        });
        let key: Arc<str> = key.into();
        names.insert(key.clone(), name.clone());
        let (resolver, reach) = (self.resolver.clone(), self.reach);
        let task = follow(Arc::downgrade(self), Arc::downgrade(&name), key, resolver, reach);
        self.background.spawn(task);
        Some(name)
    }
}

/// Keeps one name, `HOST:PORT`, resolved until nobody asks for it.
async fn follow(
    all: Weak<DynamicNames>,
    name: Weak<Name>,
    key: Arc<str>,
    resolver: Arc<dyn Resolve>,
    reach: Reach,
) {
    let Some((host, port)) = key.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)))
    else {
        return;
    };
    let mut failures = 0;
    let mut asked_at = Instant::now();
    loop {
        let answer = dns::ask(&*resolver, host).await;
        let wait = {
            let Some(name) = name.upgrade() else { return };
            let wait = match answer {
                Ok(mut answer) => {
                    failures = 0;
                    answer.addresses.retain(|ip| {
                        let covered = reach.covers(*ip);
                        if !covered {
                            tracing::info!(%host, address = %ip, "an address inside is refused (--dynamic-dns-inside)");
                        }
                        covered
                    });
                    name.stands_for(&answer.addresses, port);
                    dns::refresh(answer.ttl)
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(%host, %error, "name not resolved");
                    dns::back_off(failures)
                }
            };
            name.answered.send_replace(true);
            if name.asked.swap(false, Relaxed) {
                asked_at = Instant::now();
            } else if asked_at.elapsed() > FORGOTTEN_AFTER {
                if let Some(all) = all.upgrade() {
                    all.names().remove(&key);
                }
                return;
            }
            wait
        };
        tokio::time::sleep(wait).await;
    }
}

impl Name {
    fn stands_for(&self, ips: &[IpAddr], port: u16) {
        let mut addresses = dns::interleaved(ips).into_iter().map(|ip| SocketAddr::new(ip, port));
        let Some(address) = addresses.next().map(Address::Ip) else { return };
        let alternates: Arc<[SocketAddr]> = addresses.collect();
        let before = self.endpoint.load();
        let before =
            before.as_ref().as_ref().map(|state| (&state.endpoint.address, &state.endpoint.alternates));
        if before == Some((&address, &alternates)) {
            return;
        }
        let endpoint = Endpoint { alternates, ..Endpoint::at(address) };
        let state = EndpointState::alone(endpoint);
        self.endpoint.store(Arc::new(Some(Arc::new(state))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::dns::{Answer, ResolveError};
    use async_trait::async_trait;

    /// Answers as it is told, and counts.
    #[derive(Default)]
    struct Told(Mutex<(HashMap<String, IpAddr>, usize)>);

    #[async_trait]
    impl Resolve for Told {
        async fn resolve(&self, name: &str) -> Result<Answer, ResolveError> {
            let known = {
                let mut told = self.0.lock().unwrap();
                told.1 += 1;
                told.0.get(name).copied()
            };
            match known {
                Some(ip) if ip.is_unspecified() => std::future::pending().await,
                Some(ip) => Ok(Answer { addresses: vec![ip], ttl: Duration::from_secs(30) }),
                None => Err(ResolveError("no such name".into())),
            }
        }
    }

    fn names(told: &[(&str, &str)]) -> (Arc<DynamicNames>, Arc<Told>) {
        let resolver = Arc::new(Told::default());
        resolver.0.lock().unwrap().0 =
            told.iter().map(|(n, ip)| ((*n).to_owned(), ip.parse().unwrap())).collect();
        (Arc::new(DynamicNames::new(resolver.clone(), Handle::current(), Reach::Anywhere)), resolver)
    }

    async fn address(names: &Arc<DynamicNames>, host: &str) -> Option<String> {
        names.endpoint(host, 443).await.map(|state| state.endpoint.address.to_string())
    }

    #[test]
    fn the_outside_is_what_no_network_has_for_itself() {
        for inside in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
        ] {
            let ip: IpAddr = inside.parse().unwrap();
            assert!(!Reach::Outside.covers(ip), "{inside}");
            assert!(Reach::Anywhere.covers(ip), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "203.0.113.10",
            "2001:db8::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(Reach::Outside.covers(outside.parse().unwrap()), "{outside}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_once_and_kept() {
        let (names, told) = names(&[("a.ext", "10.0.0.1")]);
        assert_eq!(address(&names, "A.ext.").await.as_deref(), Some("10.0.0.1:443"));
        assert_eq!(address(&names, "a.ext").await.as_deref(), Some("10.0.0.1:443"));
        assert_eq!(told.0.lock().unwrap().1, 1);
        told.0.lock().unwrap().0.clear();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(address(&names, "a.ext").await.as_deref(), Some("10.0.0.1:443"), "the last good one");
        told.0.lock().unwrap().0.insert("a.ext".into(), "10.0.0.2".parse().unwrap());
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(address(&names, "a.ext").await.as_deref(), Some("10.0.0.2:443"));
    }

    #[tokio::test(start_paused = true)]
    async fn each_port_of_a_name_is_an_endpoint_and_an_address_needs_no_name() {
        let (names, told) = names(&[("a.ext", "10.0.0.1")]);
        let at = async |host: &str, port| {
            names.endpoint(host, port).await.map(|state| state.endpoint.address.to_string())
        };
        assert_eq!(at("a.ext", 80).await.as_deref(), Some("10.0.0.1:80"));
        assert_eq!(at("a.ext", 8080).await.as_deref(), Some("10.0.0.1:8080"));
        assert_eq!(told.0.lock().unwrap().1, 2);
        assert_eq!(at("10.0.0.7", 80).await.as_deref(), Some("10.0.0.7:80"));
        assert_eq!(at("[fd00::1]", 80).await.as_deref(), Some("[fd00::1]:80"));
        let outside = Arc::new(DynamicNames::new(told, Handle::current(), Reach::Outside));
        assert!(outside.endpoint("10.0.0.7", 80).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_or_knows_nothing_costs_one_request_its_wait() {
        let (names, _) = names(&[("hangs.ext", "0.0.0.0")]);
        let begun = Instant::now();
        assert_eq!(address(&names, "hangs.ext").await, None);
        assert_eq!(begun.elapsed(), FIRST_ANSWER);
        let begun = Instant::now();
        assert_eq!(address(&names, "nowhere.ext").await, None);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_bounded_and_forgotten() {
        let (names, _) = names(&[]);
        for n in 0..MOST_NAMES {
            assert_eq!(address(&names, &format!("{n}.ext")).await, None);
        }
        assert!(names.name("one.more", 443).is_none());
        tokio::time::sleep(FORGOTTEN_AFTER * 2).await;
        assert!(names.names().is_empty());
    }
}

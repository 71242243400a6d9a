//! The resolver that the machine is set up with.
//!
//! Invariant: both families of a name are asked for at the same time, and neither waits long for the other: a server that
//! does not answer for AAAA costs [`SECOND_FAMILY`], once for each question.

use super::dns::{Answer, Resolve, ResolveError};
use async_trait::async_trait;
use hickory_resolver::{TokioResolver, config::LookupIpStrategy, lookup_ip::LookupIp, net::NetError};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long the IPv6 addresses of a name are waited for once its IPv4 addresses are known (RFC 8305 §3 asks for less,
/// but there a connection waits).
pub const SECOND_FAMILY: Duration = Duration::from_millis(500);

/// The resolver that `/etc/resolv.conf` and `/etc/hosts` describe.
pub struct SystemResolver(Result<Families, String>);

struct Families {
    v4: TokioResolver,
    v6: TokioResolver,
}

impl SystemResolver {
    /// Reads the system's configuration; where that fails, every question is answered with the reason.
    #[must_use]
    pub fn new() -> Self {
        let built = |strategy| {
            TokioResolver::builder_tokio().and_then(|mut builder| {
                builder.options_mut().ip_strategy = strategy;
                builder.build()
            })
        };
        let both = built(LookupIpStrategy::Ipv4Only)
            .and_then(|v4| Ok(Families { v4, v6: built(LookupIpStrategy::Ipv6Only)? }));
        Self(both.map_err(|e| e.to_string()))
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Answer, ResolveError> {
        let Families { v4, v6 } = self.0.as_ref().map_err(|e| ResolveError(e.clone()))?;
        join(name, family(v4.lookup_ip(name)), family(v6.lookup_ip(name))).await
    }
}

/// What is known of one family of a name.
#[derive(Debug)]
enum Family {
    Found(Answer),
    /// It has none.
    Empty,
    Failed(ResolveError),
}

async fn family(question: impl Future<Output = Result<LookupIp, NetError>>) -> Family {
    match question.await {
        Ok(found) => {
            let addresses: Vec<IpAddr> = found.iter().collect();
            let ttl = found.valid_until().saturating_duration_since(Instant::now());
            if addresses.is_empty() { Family::Empty } else { Family::Found(Answer { addresses, ttl }) }
        }
        Err(e) if e.is_no_records_found() || e.is_nx_domain() => Family::Empty,
        Err(e) => Family::Failed(ResolveError(e.to_string())),
    }
}

/// IPv4 first, as Istio's proxies ask for it; what is known of IPv6 follows. A failure to learn of IPv4 is the name's:
/// the addresses that were good before are better than those of a family that may lead nowhere.
async fn join(
    name: &str,
    v4: impl Future<Output = Family>,
    v6: impl Future<Output = Family>,
) -> Result<Answer, ResolveError> {
    tokio::pin!(v6);
    let mut second = None;
    tokio::pin!(v4);
    let first = tokio::select! {
        first = &mut v4 => first,
        known = &mut v6 => {
            second = Some(known);
            v4.await
        }
    };
    let second = match (second, &first) {
        (Some(known), _) => known,
        (None, Family::Empty) => v6.await,
        (None, Family::Failed(_)) => Family::Empty,
        (None, Family::Found(_)) => tokio::time::timeout(SECOND_FAMILY, v6).await.unwrap_or(Family::Empty),
    };
    match (first, second) {
        (Family::Failed(e), _) | (Family::Empty, Family::Failed(e)) => Err(e),
        (Family::Empty, Family::Empty) => Err(ResolveError(format!("{name} has no address"))),
        (Family::Empty, Family::Found(answer)) => Ok(answer),
        (Family::Found(mut answer), Family::Found(more)) => {
            answer.ttl = answer.ttl.min(more.ttl);
            answer.addresses.extend(more.addresses);
            Ok(answer)
        }
        (Family::Found(answer), Family::Empty | Family::Failed(_)) => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str], ttl: u64) -> Family {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Family::Found(Answer { addresses, ttl: Duration::from_secs(ttl) })
    }

    fn failed() -> Family {
        Family::Failed(ResolveError("no answer".into()))
    }

    async fn after(ms: u64, family: Family) -> Family {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        family
    }

    fn text(answer: Result<Answer, ResolveError>) -> String {
        answer.map_or_else(|e| e.to_string(), |a| format!("{:?} {}", a.addresses, a.ttl.as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn both_families_make_one_answer_and_the_slower_one_is_not_waited_for_long() {
        let both = join("a", after(10, found(&["10.0.0.1"], 30)), after(1, found(&["fd00::1"], 9))).await;
        assert_eq!(text(both), "[10.0.0.1, fd00::1] 9");
        let begun = tokio::time::Instant::now();
        let slow = join("a", after(10, found(&["10.0.0.1"], 30)), std::future::pending()).await;
        assert_eq!(text(slow), "[10.0.0.1] 30");
        assert_eq!(begun.elapsed(), Duration::from_millis(10) + SECOND_FAMILY);
    }

    #[tokio::test(start_paused = true)]
    async fn one_family_is_enough_but_a_failure_is_not_an_empty_one() {
        let only_v6 = join("a", after(1, Family::Empty), after(900, found(&["fd00::1"], 9))).await;
        assert_eq!(text(only_v6), "[fd00::1] 9");
        let v6_fails = join("a", after(1, found(&["10.0.0.1"], 30)), after(2, failed())).await;
        assert_eq!(text(v6_fails), "[10.0.0.1] 30");
        let v4_fails = join("a", after(5, failed()), after(1, found(&["fd00::1"], 9))).await;
        assert_eq!(text(v4_fails), "no answer");
        let none = join("a", after(1, Family::Empty), after(1, Family::Empty)).await;
        assert_eq!(text(none), "a has no address");
    }
}

//! `limen.dev/rate-limit`: so many requests in a time, of a rule, a client or whoever a header names (Envoy: local_ratelimit).
//!
//! Invariant: what was counted survives a change of the configuration that does not change the limit. Nothing of a request is kept but a
//! hash.

use super::{
    super::{
        Answer, BodyPolicy, Failure, Hooks, Policy, Reply, ResponseView, RouteView, Verdict,
        builtin::SecurityMetrics,
    },
    buckets::{Buckets, Taken},
};
use crate::telemetry::Flag;
use config_model::{
    annotation::{By, RateLimit, Setting},
    meta::ResourceKey,
};
use http::{HeaderName, HeaderValue, StatusCode};
use routing::annotated::Index;
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// What Envoy calls it, in body and log.
const LIMITED: &str = "local_rate_limited";

/// What rate limits have counted so far, from one configuration to the next.
#[derive(Debug, Default)]
pub struct Limits(Mutex<Limiters>);

pub(super) type Limiters = HashMap<ResourceKey, Arc<Limiter>>;

/// The limit of one resource.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    /// Also where it is one for each value of a header.
    header: Option<HeaderName>,
    buckets: Buckets,
    /// So that nobody can choose whose bucket is his.
    hasher: RandomState,
    began: Instant,
}

impl Limits {
    /// The limits of a configuration; those that another one had go.
    pub(super) fn follow(&self, index: &Index) -> Limiters {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Limiters::new();
        for resource in index.resources() {
            let Some(limit) = resource.policies.rate_limit.as_ref().and_then(Setting::on) else { continue };
            let old = known.get(&resource.resource).filter(|old| old.limit == *limit);
            let limiter = old.cloned().unwrap_or_else(|| Arc::new(Limiter::new(limit)));
            next.insert(resource.resource.clone(), limiter);
        }
        known.clone_from(&next);
        next
    }
}

impl Limiter {
    fn new(limit: &RateLimit) -> Limiter {
        let header = match &limit.by {
            By::Header(name) => name.to_http(),
            By::Route | By::Client => None,
        };
        Limiter {
            buckets: Buckets::new(limit.requests, limit.per.as_std(), limit.burst),
            hasher: RandomState::new(),
            began: Instant::now(),
            limit: limit.clone(),
            header,
        }
    }

    fn take(&self, request: &RouteView<'_>) -> Taken {
        let key = match &self.limit.by {
            By::Route => request.route().map_or(0, |route| {
                self.hash(&(route.virtual_service(), route.index(), route.delegate(), route.delegate_index()))
            }),
            By::Client => self.hash(&network(request.client().ip())),
            By::Header(_) => {
                let value = self.header.as_ref().and_then(|name| request.headers().get(name));
                self.hash(&value.map(HeaderValue::as_bytes))
            }
        };
        self.buckets.take(key, self.began.elapsed())
    }

    fn hash(&self, value: &impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }
}

/// Whoever has one address of version 6 has a network of them.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The limits of a configuration.
pub(super) struct RateLimits {
    limiters: Limiters,
    metrics: Arc<SecurityMetrics>,
}

impl RateLimits {
    pub(super) fn new(limiters: Limiters, metrics: Arc<SecurityMetrics>) -> RateLimits {
        RateLimits { limiters, metrics }
    }
}

/// What a response tells of the limit that its request met.
#[derive(Debug)]
pub(super) struct Told {
    size: u32,
    taken: Taken,
}

impl Policy for RateLimits {
    type State = Option<Told>;

    const HOOKS: Hooks = Hooks::ROUTE.and(Hooks::RESPONSE);

    fn name(&self) -> &str {
        "rate_limit"
    }

    async fn on_route(&self, told: &mut Option<Told>, request: &mut RouteView<'_>) -> Answer {
        let Some((resource, _)) = request.annotated(|policies| policies.rate_limit.as_ref()) else {
            return Ok(Verdict::Continue);
        };
        let limiter = self.limiters.get(resource).ok_or_else(|| Failure::new("a limit that is not kept"))?;
        let taken = limiter.take(request);
        if limiter.limit.headers {
            *told = Some(Told { size: limiter.limit.burst, taken });
        }
        if taken.granted {
            self.metrics.rate_allowed.inc();
            return Ok(Verdict::Continue);
        }
        self.metrics.rate_limited.inc();
        let reply = Reply::text(StatusCode::TOO_MANY_REQUESTS, LIMITED).details(LIMITED);
        Ok(Verdict::Respond(reply.flag(Flag::RateLimited)))
    }

    fn on_response(&self, told: &mut Option<Told>, response: &mut ResponseView<'_>) -> Answer {
        if let Some(Told { size, taken }) = told {
            let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
            response.insert_header(LIMIT, HeaderValue::from(*size))?;
            response.insert_header(REMAINING, HeaderValue::from(taken.left))?;
            response.insert_header(RESET, HeaderValue::from(seconds(taken.wait)))?;
        }
        Ok(Verdict::Continue)
    }
}

impl BodyPolicy for RateLimits {}

#[cfg(test)]
mod tests {
    use super::*;
    use config_model::meta::{Kind, Metadata};
    use routing::annotated::Annotated;

    fn index(limits: &[(&str, &str)]) -> Index {
        let annotated = limits.iter().map(|(name, limit)| {
            let annotations = [("limen.dev/rate-limit".to_owned(), (*limit).to_owned())].into();
            let metadata = Metadata { name: (*name).to_owned(), annotations, ..Metadata::default() };
            Annotated::of(Kind::VirtualService, &metadata).unwrap()
        });
        Index::new(annotated.collect(), |_, _, _| None)
    }

    #[test]
    fn what_was_counted_stays_where_the_limit_stays() {
        let limits = Limits::default();
        let key = |name| ResourceKey::new(Kind::VirtualService, "", name);
        let five = "{requests: 5, per: hour}";
        let first = limits.follow(&index(&[("a", five), ("b", five), ("c", five)]));
        let second = limits.follow(&index(&[("a", five), ("b", "{requests: 6, per: hour}")]));
        assert!(Arc::ptr_eq(&first[&key("a")], &second[&key("a")]));
        assert!(!Arc::ptr_eq(&first[&key("b")], &second[&key("b")]));
        assert_eq!(limits.0.lock().unwrap().len(), 2, "what is gone is not kept");
    }

    #[test]
    fn a_network_of_version_6_is_one_client() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}

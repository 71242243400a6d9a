//! Limits of a cluster's connections and requests, and when an endpoint is ejected.
//!
//! Invariant: `None` is no limit, as 0 is in a DestinationRule; nothing here holds state.

use std::{sync::Arc, time::Duration};

/// Limits of connections and requests (Envoy: circuit breakers and connection pools).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Most connections.
    pub max_connections: Option<u32>,
    /// Most requests that wait for a connection.
    pub max_pending: Option<u32>,
    /// Most requests at a time, of any HTTP version.
    pub max_requests: Option<u32>,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Concurrent retries.
    pub retries: RetryLimit,
    /// TCP keep-alive probes; `None`: none are sent.
    pub keepalive: Option<KeepAlive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Streams on one HTTP/2 connection.
    pub max_streams: Option<u32>,
    /// Time between PINGs on an HTTP/2 connection, and time to answer one.
    pub h2_keepalive: Option<(Duration, Duration)>,
}

/// How many retries may be under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetryLimit {
    /// As many as rules ask for: Istio's default.
    #[default]
    Unlimited,
    /// So many at a time.
    Concurrent(u32),
    /// A share of the requests.
    Budget {
        /// Share of active requests, parts per million.
        millionths: u32,
        /// Retries that are always allowed.
        minimum: u32,
        /// Requests that began so long ago count as active too; `None`: only those that are.
        interval: Option<Duration>,
    },
}

/// TCP keep-alive. What is `None` is the operating system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeepAlive {
    /// Probes without an answer before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// When an endpoint is ejected, and for how long (Istio: `outlierDetection`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outlier {
    /// Errors in a row.
    pub consecutive_5xx: Option<u32>,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway: Option<u32>,
    /// Failures without an answer in a row; `Some` splits them from the answers' errors.
    pub local_origin: Option<u32>,
    /// Whether failures without an answer count apart even where `local_origin` is off.
    pub split: bool,
    /// Time between sweeps, at which endpoints return.
    pub interval: Duration,
    /// Length of the first ejection; each further one is longer by this.
    pub base_ejection: Duration,
    /// Most endpoints that may be ejected, per cent.
    pub max_ejection_percent: u32,
    /// Statuses that are errors in place of 5xx; empty: 5xx.
    pub error_codes: Box<[u16]>,
}

impl Outlier {
    /// Longest ejection (Envoy: `max_ejection_time`, unless the base is longer).
    pub const MAX_EJECTION: Duration = Duration::from_secs(300);

    /// How long the `count`th ejection lasts, from 1.
    #[must_use]
    pub fn ejection(&self, count: u32) -> Duration {
        self.base_ejection.saturating_mul(count.max(1)).min(Self::MAX_EJECTION.max(self.base_ejection))
    }
}

/// Slow start: a new endpoint's weight grows to its full one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Warmup {
    /// How long it takes.
    pub duration: Duration,
    /// Share at the beginning, thousandths.
    pub minimum_thousandths: u32,
    /// Shape of the curve, thousandths: 1000 is a straight line, more is faster at first.
    pub aggression_thousandths: u32,
}

impl Warmup {
    /// Share of the full weight after `age`, thousandths (Envoy: `applySlowStartFactor`).
    #[must_use]
    pub fn thousandths(&self, age: Duration) -> u32 {
        if self.duration.is_zero() || age >= self.duration {
            return 1000;
        }
        let exponent = 1000.0 / f64::from(self.aggression_thousandths.max(1));
        let time = age.as_secs_f64().max(0.001) / self.duration.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the factor is from 0 to 1"
        )]
        let share = (time.clamp(0.0, 1.0).powf(exponent) * 1000.0) as u32;
        share.max(self.minimum_thousandths).clamp(1, 1000)
    }
}

/// Version of the PROXY header sent upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
}

/// Connections that are not HTTP go through a proxy, which the endpoints are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// `host:port` that the proxy is asked to connect to.
    pub target: Arc<str>,
    /// How it is asked.
    pub method: TunnelMethod,
}

/// How a proxy is asked for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelMethod {
    /// CONNECT.
    Connect,
    /// POST, whose body is the connection.
    Post,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejections_grow_and_are_capped_at_five_minutes_unless_the_base_is_longer() {
        let outlier = |base| Outlier {
            consecutive_5xx: None,
            consecutive_gateway: None,
            local_origin: None,
            split: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(base),
            max_ejection_percent: 10,
            error_codes: Box::default(),
        };
        assert_eq!(outlier(30).ejection(1).as_secs(), 30);
        assert_eq!(outlier(30).ejection(3).as_secs(), 90);
        assert_eq!(outlier(30).ejection(11).as_secs(), 300);
        assert_eq!(outlier(600).ejection(2).as_secs(), 600);
    }

    #[test]
    fn a_warm_up_grows_from_its_minimum_to_all() {
        let mut warmup = Warmup {
            duration: Duration::from_secs(100),
            minimum_thousandths: 100,
            aggression_thousandths: 1000,
        };
        let at = |w: &Warmup, s| w.thousandths(Duration::from_secs(s));
        assert_eq!(
            [at(&warmup, 0), at(&warmup, 50), at(&warmup, 100), at(&warmup, 900)],
            [100, 500, 1000, 1000]
        );
        warmup.aggression_thousandths = 2000;
        assert_eq!(at(&warmup, 25), 500);
    }
}

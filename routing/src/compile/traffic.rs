//! Blocks of a traffic policy as settings of a cluster.
//!
//! Invariant: what is not written is Istio's default, and 0 is no limit, as there.

use crate::cluster::{
    HashCookie, HashKey, KeepAlive, LbPolicy, Outlier, Pool, ProxyVersion, RetryLimit, Tunnel, TunnelMethod,
    UpstreamProtocol, Warmup,
};
use config_model::{
    istio::destination_rule::{
        ConnectionPoolSettings, H2UpgradePolicy, LoadBalancerSettings, OutlierDetection, ProxyProtocol,
        ProxyProtocolVersion, RetryBudget, SimpleLb, TcpKeepalive, TunnelSettings,
    },
    mesh::MeshConfig,
    scalar::{self, Protocol},
};
use std::{sync::Arc, time::Duration};

/// How long an idle upstream connection is kept unless something else is said (Envoy: one hour).
const IDLE: Duration = Duration::from_secs(3600);
/// Istio: `minimumRingSize`.
const RING: u64 = 1024;
/// Envoy's largest ring.
const LARGEST_RING: u64 = 8 * 1024 * 1024;
/// Istio: `tableSize`.
const TABLE: u64 = 65_537;

/// How an endpoint is chosen.
pub(super) fn lb_policy(settings: Option<&LoadBalancerSettings>) -> LbPolicy {
    let Some(settings) = settings else { return LbPolicy::LeastRequest };
    if let Some(hash) = &settings.consistent_hash {
        if let Some(maglev) = &hash.maglev {
            return LbPolicy::Maglev { size: maglev.table_size.unwrap_or(TABLE) };
        }
        let written =
            hash.ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size).or(hash.minimum_ring_size);
        return LbPolicy::RingHash { minimum: written.unwrap_or(RING).clamp(1, LARGEST_RING) };
    }
    match settings.simple {
        Some(SimpleLb::RoundRobin) => LbPolicy::RoundRobin,
        Some(SimpleLb::Random) => LbPolicy::Random,
        Some(
            SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::Passthrough,
        )
        | None => LbPolicy::LeastRequest,
    }
}

/// What is hashed where the choice is by a hash.
pub(super) fn hash_key(settings: Option<&LoadBalancerSettings>) -> Option<HashKey> {
    let hash = settings?.consistent_hash.as_ref()?;
    if let Some(name) = &hash.http_header_name {
        return name.to_http().map(HashKey::Header);
    }
    if let Some(cookie) = &hash.http_cookie {
        let attribute = |a: &config_model::istio::destination_rule::CookieAttribute| {
            (Arc::from(a.name.as_str()), Arc::from(a.value.as_str()))
        };
        return Some(HashKey::Cookie(HashCookie {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_str().into(),
            ttl: cookie.ttl.map(scalar::Duration::as_std),
            attributes: cookie.attributes.iter().map(attribute).collect(),
        }));
    }
    if let Some(name) = &hash.http_query_parameter_name {
        return Some(HashKey::Query(name.as_str().into()));
    }
    (hash.use_source_ip == Some(true)).then_some(HashKey::SourceIp)
}

/// Slow start.
pub(super) fn warmup(settings: Option<&LoadBalancerSettings>) -> Option<Warmup> {
    let settings = settings?;
    let written = settings.warmup.as_ref();
    let duration = written.and_then(|w| w.duration).or(settings.warmup_duration_secs)?;
    Some(Warmup {
        duration: duration.as_std(),
        minimum_thousandths: thousandths(written.and_then(|w| w.minimum_percent).unwrap_or(10.0) / 100.0),
        aggression_thousandths: thousandths(written.and_then(|w| w.aggression).unwrap_or(1.0)),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and validation keeps both from being negative"
)]
fn thousandths(number: f64) -> u32 {
    (number * 1000.0) as u32
}

/// Istio: cluster_builder.go `setH2Options`, `shouldH2Upgrade`, `useDownstreamProtocol`.
pub(super) fn protocol(
    port: Option<Protocol>,
    pool: Option<&ConnectionPoolSettings>,
    mesh: H2UpgradePolicy,
) -> UpstreamProtocol {
    let http = pool.and_then(|pool| pool.http.as_ref());
    if http.is_some_and(|http| http.use_client_protocol) {
        return UpstreamProtocol::Client;
    }
    if port.is_some_and(Protocol::is_http2) {
        return UpstreamProtocol::Http2;
    }
    let upgrades = match http.map(|http| http.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Default => mesh == H2UpgradePolicy::Upgrade && port.is_some_and(Protocol::is_http),
    };
    if upgrades { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 }
}

/// Time to connect.
pub(super) fn connect_timeout(pool: Option<&ConnectionPoolSettings>, mesh: &MeshConfig) -> Duration {
    let written = pool.and_then(|pool| pool.tcp.as_ref()).and_then(|tcp| tcp.connect_timeout);
    written.filter(|timeout| !timeout.is_zero()).unwrap_or(mesh.connect_timeout).as_std()
}

/// HTTP's own beats TCP's; zero is no limit (Istio: cluster_traffic_policy.go `applyConnectionPool`).
pub(super) fn idle_timeout(pool: Option<&ConnectionPoolSettings>) -> Option<Duration> {
    let http = pool.and_then(|pool| pool.http.as_ref()).and_then(|http| http.idle_timeout);
    let tcp = pool.and_then(|pool| pool.tcp.as_ref()).and_then(|tcp| tcp.idle_timeout);
    match http.or(tcp) {
        None => Some(IDLE),
        Some(timeout) if timeout.is_zero() => None,
        Some(timeout) => Some(timeout.as_std()),
    }
}

/// Limits of connections and requests.
pub(super) fn pool(
    settings: Option<&ConnectionPoolSettings>,
    budget: Option<&RetryBudget>,
    mesh_keepalive: Option<&TcpKeepalive>,
) -> Pool {
    let tcp = settings.and_then(|pool| pool.tcp.as_ref());
    let http = settings.and_then(|pool| pool.http.as_ref());
    let limit =
        |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0);
    let of_http =
        |field: fn(&config_model::istio::destination_rule::HttpSettings) -> i32| limit(http.map(field));
    let retries = match (budget, of_http(|http| http.max_retries)) {
        (Some(budget), _) => RetryLimit::Budget {
            // A share of 0 to 100 as validation leaves it; the cast saturates.
            millionths: budget.percent.map_or(200_000, |percent| (percent * 10_000.0) as u32),
            minimum: budget.min_retry_concurrency.filter(|least| *least > 0).unwrap_or(3),
            interval: budget.budget_interval.filter(|i| !i.is_zero()).map(scalar::Duration::as_std),
        },
        (None, Some(most)) => RetryLimit::Concurrent(most),
        (None, None) => RetryLimit::Unlimited,
    };
    Pool {
        max_connections: limit(tcp.map(|tcp| tcp.max_connections)),
        max_pending: of_http(|http| http.http1_max_pending_requests),
        max_requests: of_http(|http| http.http2_max_requests),
        max_requests_per_connection: of_http(|http| http.max_requests_per_connection),
        retries,
        keepalive: keepalive(tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()), mesh_keepalive),
        max_connection_duration: tcp
            .and_then(|tcp| tcp.max_connection_duration)
            .filter(|duration| !duration.is_zero())
            .map(scalar::Duration::as_std),
        max_streams: of_http(|http| http.max_concurrent_streams),
        h2_keepalive: http
            .and_then(|http| http.http2_keep_alive.as_ref())
            .and_then(|keepalive| Some((keepalive.interval?.as_std(), keepalive.timeout?.as_std()))),
    }
}

/// Fields of the rule lie over the mesh's.
fn keepalive(own: Option<&TcpKeepalive>, mesh: Option<&TcpKeepalive>) -> Option<KeepAlive> {
    if own.is_none() && mesh.is_none() {
        return None;
    }
    let probes = |k: &TcpKeepalive| Some(k.probes).filter(|probes| *probes > 0);
    Some(KeepAlive {
        probes: own.and_then(probes).or(mesh.and_then(probes)),
        time: own.and_then(|k| k.time).or(mesh.and_then(|k| k.time)).map(scalar::Duration::as_std),
        interval: own
            .and_then(|k| k.interval)
            .or(mesh.and_then(|k| k.interval))
            .map(scalar::Duration::as_std),
    })
}

/// Istio: cluster_traffic_policy.go `applyOutlierDetection`.
pub(super) fn outlier(settings: &OutlierDetection) -> Outlier {
    let on = |count: u32| Some(count).filter(|count| *count > 0);
    let split = settings.split_external_local_origin_errors;
    let time = |written: Option<scalar::Duration>, default| {
        written.filter(|time| !time.is_zero()).map_or(Duration::from_secs(default), scalar::Duration::as_std)
    };
    Outlier {
        consecutive_5xx: on(settings.consecutive_5xx_errors.unwrap_or(5)),
        consecutive_gateway: settings.consecutive_gateway_errors.and_then(on),
        local_origin: on(settings.consecutive_local_origin_failures.unwrap_or(5)).filter(|_| split),
        split,
        interval: time(settings.interval, 10),
        base_ejection: time(settings.base_ejection_time, 30),
        max_ejection_percent: u32::try_from(settings.max_ejection_percent)
            .ok()
            .filter(|percent| *percent > 0)
            .unwrap_or(10),
        error_codes: settings
            .outlier_detection_http_error_codes
            .iter()
            .filter_map(|code| u16::try_from(*code).ok())
            .collect(),
    }
}

/// Version of the PROXY header.
pub(super) fn proxy_version(settings: &ProxyProtocol) -> ProxyVersion {
    match settings.version {
        ProxyProtocolVersion::V1 => ProxyVersion::V1,
        ProxyProtocolVersion::V2 => ProxyVersion::V2,
    }
}

/// The way through a proxy (Istio: tunnelingconfig/apply.go).
pub(super) fn tunnel(settings: &TunnelSettings) -> Tunnel {
    let host = &settings.target_host;
    let port = settings.target_port.map_or(0, |port| port.get());
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let method = if settings.protocol == "POST" { TunnelMethod::Post } else { TunnelMethod::Connect };
    Tunnel { target: target.into(), method }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool_of(yaml: &str) -> Option<ConnectionPoolSettings> {
        Some(config_model::parse::value(yaml).unwrap())
    }

    #[test]
    fn zero_is_no_limit_and_the_rest_is_as_written() {
        let written = pool_of(
            "{tcp: {maxConnections: 7, maxConnectionDuration: 5m, tcpKeepalive: {time: 10s}}, http: {http1MaxPendingRequests: 0, http2MaxRequests: 9, maxRequestsPerConnection: 3, maxRetries: 2, maxConcurrentStreams: 50, http2KeepAlive: {interval: 3s, timeout: 2s}}}",
        );
        let mesh = TcpKeepalive { probes: 4, ..TcpKeepalive::default() };
        let got = pool(written.as_ref(), None, Some(&mesh));
        assert_eq!((got.max_connections, got.max_pending, got.max_requests), (Some(7), None, Some(9)));
        assert_eq!((got.max_requests_per_connection, got.retries), (Some(3), RetryLimit::Concurrent(2)));
        assert_eq!(got.max_connection_duration, Some(Duration::from_secs(300)));
        let keepalive = got.keepalive.unwrap();
        assert_eq!(
            (keepalive.probes, keepalive.time, keepalive.interval),
            (Some(4), Some(Duration::from_secs(10)), None)
        );
        assert_eq!(got.h2_keepalive, Some((Duration::from_secs(3), Duration::from_secs(2))));
        assert_eq!(pool(None, None, None), Pool::default());
    }

    #[test]
    fn a_budget_replaces_the_limit_of_retries() {
        let written = pool_of("{http: {maxRetries: 2}}");
        let budget = RetryBudget::default();
        let want = RetryLimit::Budget { millionths: 200_000, minimum: 3, interval: None };
        assert_eq!(pool(written.as_ref(), Some(&budget), None).retries, want);
    }

    #[test]
    fn the_clients_protocol_beats_the_ports_and_an_upgrade_is_for_plain_http() {
        let client = pool_of("{http: {useClientProtocol: true}}");
        let upgrade = pool_of("{http: {h2UpgradePolicy: UPGRADE}}");
        let h2 = Some(Protocol::Http2);
        let no = H2UpgradePolicy::DoNotUpgrade;
        assert_eq!(protocol(h2, client.as_ref(), no), UpstreamProtocol::Client);
        assert_eq!(protocol(h2, None, no), UpstreamProtocol::Http2);
        assert_eq!(protocol(Some(Protocol::Https), upgrade.as_ref(), no), UpstreamProtocol::Http2);
        assert_eq!(protocol(Some(Protocol::Http), None, H2UpgradePolicy::Upgrade), UpstreamProtocol::Http2);
        assert_eq!(protocol(None, None, H2UpgradePolicy::Upgrade), UpstreamProtocol::Http1);
    }

    #[test]
    fn outlier_defaults_are_istios() {
        let of = |yaml: &str| outlier(&config_model::parse::value(yaml).unwrap());
        let plain = of("{}");
        assert_eq!(
            (plain.consecutive_5xx, plain.consecutive_gateway, plain.local_origin),
            (Some(5), None, None)
        );
        assert_eq!((plain.interval.as_secs(), plain.base_ejection.as_secs()), (10, 30));
        assert_eq!(plain.max_ejection_percent, 10);
        let other = of(
            "{consecutive5xxErrors: 0, consecutiveGatewayErrors: 2, splitExternalLocalOriginErrors: true}",
        );
        assert_eq!(
            (other.consecutive_5xx, other.consecutive_gateway, other.local_origin),
            (None, Some(2), Some(5))
        );
    }

    #[test]
    fn consistent_hashing_has_istios_sizes() {
        let of = |yaml: &str| {
            let settings: LoadBalancerSettings = config_model::parse::value(yaml).unwrap();
            (lb_policy(Some(&settings)), hash_key(Some(&settings)))
        };
        assert_eq!(
            of("{consistentHash: {useSourceIp: true}}"),
            (LbPolicy::RingHash { minimum: 1024 }, Some(HashKey::SourceIp))
        );
        assert_eq!(
            of("{consistentHash: {httpQueryParameterName: q, maglev: {}}}").0,
            LbPolicy::Maglev { size: 65_537 }
        );
        assert_eq!(of("{consistentHash: {minimumRingSize: 64}}"), (LbPolicy::RingHash { minimum: 64 }, None));
        let settings: LoadBalancerSettings = config_model::parse::value("{warmupDurationSecs: 20s}").unwrap();
        let made = warmup(Some(&settings)).unwrap();
        assert_eq!((made.minimum_thousandths, made.aggression_thousandths), (100, 1000));
    }
}

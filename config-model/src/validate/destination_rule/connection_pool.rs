//! Limits and time-outs of connections, which DestinationRules and Sidecars share (Istio: validateConnectionPool).

use crate::{
    istio::destination_rule::{ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, TcpSettings},
    validate::check::Check,
};

pub(in crate::validate) fn check<T>(check: &mut Check<'_, T>, path: &str, pool: &ConnectionPoolSettings) {
    if pool.tcp.is_none() && pool.http.is_none() {
        check.error(path, "connection pool must have at least one field");
    }
    if let Some(tcp) = &pool.tcp {
        check_tcp(check, &format!("{path}.tcp"), tcp);
    }
    if let Some(http) = &pool.http {
        check_http(check, &format!("{path}.http"), http);
    }
}

fn check_tcp<T>(check: &mut Check<'_, T>, path: &str, tcp: &TcpSettings) {
    not_negative(check, path, "maxConnections", "max connections", tcp.max_connections);
    check.duration(format_args!("{path}.connectTimeout"), tcp.connect_timeout);
    check.duration(format_args!("{path}.maxConnectionDuration"), tcp.max_connection_duration);
    // Below a millisecond the timeout is off.
    if tcp.idle_timeout.is_some_and(|idle| idle.as_std().as_millis() != 0) {
        check.duration(format_args!("{path}.idleTimeout"), tcp.idle_timeout);
    }
    if let Some(keepalive) = &tcp.tcp_keepalive {
        check.duration(format_args!("{path}.tcpKeepalive.time"), keepalive.time);
        check.duration(format_args!("{path}.tcpKeepalive.interval"), keepalive.interval);
    }
}

fn check_http<T>(check: &mut Check<'_, T>, path: &str, http: &HttpSettings) {
    for (field, what, value) in [
        ("http1MaxPendingRequests", "http1 max pending requests", http.http1_max_pending_requests),
        ("http2MaxRequests", "http2 max requests", http.http2_max_requests),
        ("maxRequestsPerConnection", "max requests per connection", http.max_requests_per_connection),
        ("maxRetries", "max retries", http.max_retries),
        ("maxConcurrentStreams", "max concurrent streams", http.max_concurrent_streams),
    ] {
        not_negative(check, path, field, what, value);
    }
    check.duration(format_args!("{path}.idleTimeout"), http.idle_timeout);
    if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
        check.error(path, "use client protocol must not be true when H2UpgradePolicy is UPGRADE");
    }
    let Some(keep_alive) = &http.http2_keep_alive else { return };
    let path = format!("{path}.http2KeepAlive");
    for (field, value) in [("interval", keep_alive.interval), ("timeout", keep_alive.timeout)] {
        if value.is_none() {
            check.error(path.as_str(), format!("http2 keepalive {field} is required"));
        }
        check.duration(format_args!("{path}.{field}"), value);
    }
}

fn not_negative<T>(check: &mut Check<'_, T>, path: &str, field: &str, what: &str, value: i32) {
    if value < 0 {
        check.error(format!("{path}.{field}"), format!("{what} must be non-negative"));
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::destination_rule::tests::policy;

    #[test]
    fn pools() {
        for (text, finds) in [
            ("{}", vec!["!IST0106 connectionPool"]),
            ("{tcp: {maxConnections: 0, connectTimeout: 1s, idleTimeout: 0s}}", vec![]),
            ("{tcp: {maxConnections: -1}}", vec!["!IST0106 connectionPool.tcp.maxConnections"]),
            ("{tcp: {connectTimeout: 0s}}", vec!["!IST0106 connectionPool.tcp.connectTimeout"]),
            (
                "{tcp: {maxConnectionDuration: 500ns}}",
                vec!["!IST0106 connectionPool.tcp.maxConnectionDuration"],
            ),
            ("{tcp: {tcpKeepalive: {time: 0s}}}", vec!["!IST0106 connectionPool.tcp.tcpKeepalive.time"]),
            ("{http: {maxRetries: -1}}", vec!["!IST0106 connectionPool.http.maxRetries"]),
            ("{http: {http2MaxRequests: -1}}", vec!["!IST0106 connectionPool.http.http2MaxRequests"]),
            ("{http: {idleTimeout: 0s}}", vec!["!IST0106 connectionPool.http.idleTimeout"]),
            (
                "{http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}",
                vec!["!IST0106 connectionPool.http"],
            ),
            ("{http: {http2KeepAlive: {interval: 1s}}}", vec!["!IST0106 connectionPool.http.http2KeepAlive"]),
            ("{http: {http2KeepAlive: {interval: 1s, timeout: 1s}}}", vec![]),
        ] {
            assert_eq!(policy(&format!("{{connectionPool: {text}}}")), finds, "{text}");
        }
    }
}

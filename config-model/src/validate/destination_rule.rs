//! What admission demands of a DestinationRule.

use std::collections::BTreeSet;

use super::{check::Check, names};
use crate::{
    diagnostic::Diagnostics,
    istio::{
        DestinationRule,
        destination_rule::{
            ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, H2UpgradePolicy,
            LoadBalancerSettings, LocalityLbSetting, OutlierDetection, TrafficPolicy,
        },
    },
    meta::Resource,
    scalar::Duration,
};

type Checks<'a, 'b> = &'a mut Check<'b, DestinationRule>;

pub(super) fn check(resource: &Resource<DestinationRule>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    if !names::is_wildcard_domain(&spec.host, false) && !names::is_ip(spec.host.as_str()) {
        check.error("spec.host", format!("{:?} is not a host name", spec.host.as_str()));
    }
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(&mut check, "spec.trafficPolicy", policy);
    }
    let mut subset_names = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        if !names::is_label(&subset.name) {
            check.error(format!("{path}.name"), format!("{:?} is not a DNS label", subset.name));
        }
        if !subset_names.insert(&subset.name) {
            check.error(format!("{path}.name"), format!("subset {:?} is defined twice", subset.name));
        }
        check.labels(&format!("{path}.labels"), &subset.labels);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(&mut check, &format!("{path}.trafficPolicy"), policy);
        }
    }
    check.export_to(&spec.export_to, false);
    if let Some(selector) = &spec.workload_selector {
        check.labels("spec.workloadSelector.matchLabels", &selector.labels);
        let own = &resource.key.namespace;
        if spec.export_to.iter().any(|entry| entry != "." && entry != own) {
            check.error("spec.exportTo", "with a workloadSelector the rule stays in its own namespace");
        }
    }
}

fn traffic_policy(check: Checks<'_, '_>, path: &str, policy: &TrafficPolicy) {
    if *policy == TrafficPolicy::default() {
        check.error(path, "an empty trafficPolicy");
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        check.error(path, "tunnel and proxyProtocol cannot be used together");
    }
    parts(
        check,
        path,
        (policy.load_balancer.as_ref(), policy.connection_pool.as_ref()),
        (policy.outlier_detection.as_ref(), policy.tls.as_ref()),
    );
    if policy.port_level_settings.len() > 4096 {
        check.error(format!("{path}.portLevelSettings"), "at most 4096 entries");
    }
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        if port.port.as_ref().and_then(|port| port.number).is_none() {
            check.error(&path, "port.number must be from 1 to 65535");
        }
        parts(
            check,
            &path,
            (port.load_balancer.as_ref(), port.connection_pool.as_ref()),
            (port.outlier_detection.as_ref(), port.tls.as_ref()),
        );
    }
    if let Some(tunnel) = &policy.tunnel {
        let path = format!("{path}.tunnel");
        if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
            check.error(format!("{path}.protocol"), "the protocol must be CONNECT or POST");
        }
        if !names::is_dns_name(&tunnel.target_host) && !names::is_ip(&tunnel.target_host) {
            check.error(&path, "targetHost must be a name or an IP address");
        }
        if tunnel.target_port.is_none() {
            check.error(&path, "targetPort must be from 1 to 65535");
        }
    }
}

/// The blocks that host, subset and port policies share.
fn parts(
    check: Checks<'_, '_>,
    path: &str,
    (balancer, pool): (Option<&LoadBalancerSettings>, Option<&ConnectionPoolSettings>),
    (outlier, tls): (Option<&OutlierDetection>, Option<&ClientTlsSettings>),
) {
    if let Some(balancer) = balancer {
        load_balancer(check, &format!("{path}.loadBalancer"), balancer, outlier.is_some());
    }
    if let Some(pool) = pool {
        connection_pool(check, &format!("{path}.connectionPool"), pool);
    }
    if let Some(outlier) = outlier {
        outlier_detection(check, &format!("{path}.outlierDetection"), outlier);
    }
    if let Some(tls) = tls {
        client_tls(check, &format!("{path}.tls"), tls);
    }
}

fn load_balancer(check: Checks<'_, '_>, path: &str, balancer: &LoadBalancerSettings, has_outlier: bool) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        check.error(path, "simple and consistentHash cannot be used together");
    }
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(check, &format!("{path}.consistentHash"), hash);
    }
    if balancer.locality_lb_setting.is_some() && balancer.zone_aware_lb_setting.is_some() {
        check.error(path, "localityLbSetting and zoneAwareLbSetting cannot be used together");
    }
    if let Some(locality) = &balancer.locality_lb_setting {
        locality_setting(check, &format!("{path}.localityLbSetting"), locality, has_outlier);
    }
    if balancer.warmup_duration_secs.is_some() {
        check.deprecated(format!("{path}.warmupDurationSecs"), "use warmup.duration");
    }
    if let Some(warmup) = &balancer.warmup {
        let path = format!("{path}.warmup");
        if warmup.duration.is_none() {
            check.error(&path, "duration is required");
        }
        check.duration(&format!("{path}.duration"), warmup.duration);
        if warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            check.error(format!("{path}.minimumPercent"), "the percentage must be from 0 to 100");
        }
        if warmup.aggression.is_some_and(|aggression| aggression.is_nan() || aggression < 1.0) {
            check.error(format!("{path}.aggression"), "aggression must be at least 1");
        }
    }
}

fn consistent_hash(check: Checks<'_, '_>, path: &str, hash: &ConsistentHashLb) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|used| **used).count() > 1 {
        check.error(
            path,
            "at most one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName may be set",
        );
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        check.error(path, "ringHash and maglev cannot be used together");
    }
    if hash.minimum_ring_size.is_some() {
        check.deprecated(format!("{path}.minimumRingSize"), "use ringHash.minimumRingSize");
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            check.error(
                format!("{path}.minimumRingSize"),
                "minimumRingSize cannot be used with ringHash or maglev",
            );
        }
    }
    if let Some(cookie) = &hash.http_cookie {
        let path = format!("{path}.httpCookie");
        if cookie.name.is_empty() {
            check.error(&path, "the name of the cookie is required");
        }
        let mut seen = BTreeSet::new();
        for (index, attribute) in cookie.attributes.iter().enumerate() {
            if !seen.insert(attribute.name.to_ascii_lowercase()) {
                check.error(
                    format!("{path}.attributes[{index}]"),
                    format!("attribute {:?} is given twice", attribute.name),
                );
            }
        }
    }
    if let Some(size) = hash.maglev.as_ref().and_then(|maglev| maglev.table_size)
        && (size >= 5_000_011 || !is_prime(size))
    {
        check.error(format!("{path}.maglev.tableSize"), "tableSize must be a prime below 5000011");
    }
}

/// By trial: called for numbers below five million only.
fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

fn locality_setting(check: Checks<'_, '_>, path: &str, locality: &LocalityLbSetting, has_outlier: bool) {
    let fails_over = !locality.failover.is_empty() || !locality.failover_priority.is_empty();
    if !locality.distribute.is_empty() && fails_over {
        check.error(path, "distribute cannot be used with failover or failoverPriority");
    }
    for (index, distribute) in locality.distribute.iter().enumerate() {
        let path = format!("{path}.distribute[{index}]");
        let sum: u64 = distribute.to.values().map(|share| u64::from(*share)).sum();
        if sum != 100 {
            check.error(format!("{path}.to"), format!("the shares add up to {sum}, not to 100"));
        }
        if distribute.to.values().any(|share| *share == 0 || *share > 100) {
            check.error(format!("{path}.to"), "each share must be from 1 to 100");
        }
    }
    for (index, failover) in locality.failover.iter().enumerate() {
        if failover.from == failover.to {
            check.error(format!("{path}.failover[{index}]"), "from and to are the same region");
        }
    }
    if fails_over && !has_outlier {
        check.warn(path, "failover needs outlierDetection to know when endpoints fail");
    }
}

fn connection_pool(check: Checks<'_, '_>, path: &str, pool: &ConnectionPoolSettings) {
    if pool.tcp.is_none() && pool.http.is_none() {
        check.error(path, "an empty connectionPool; set tcp or http");
    }
    if let Some(tcp) = &pool.tcp {
        let path = format!("{path}.tcp");
        if tcp.max_connections < 0 {
            check.error(format!("{path}.maxConnections"), "the limit cannot be negative");
        }
        check.duration(&format!("{path}.connectTimeout"), tcp.connect_timeout);
        check.duration(&format!("{path}.maxConnectionDuration"), tcp.max_connection_duration);
        if tcp.idle_timeout.is_some_and(|idle| !idle.is_zero()) {
            check.duration(&format!("{path}.idleTimeout"), tcp.idle_timeout);
        }
        if let Some(keepalive) = &tcp.tcp_keepalive {
            for (field, value) in [("time", keepalive.time), ("interval", keepalive.interval)] {
                if value.is_some_and(|value| value < Duration::from_secs(1)) {
                    check.error(format!("{path}.tcpKeepalive.{field}"), "at least one second");
                }
            }
        }
    }
    let Some(http) = &pool.http else { return };
    let path = format!("{path}.http");
    for (field, value) in [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ] {
        if value < 0 {
            check.error(format!("{path}.{field}"), "the limit cannot be negative");
        }
    }
    check.duration(&format!("{path}.idleTimeout"), http.idle_timeout);
    if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
        check.error(&path, "h2UpgradePolicy UPGRADE and useClientProtocol cannot be used together");
    }
    if let Some(keep_alive) = &http.http2_keep_alive {
        let path = format!("{path}.http2KeepAlive");
        if keep_alive.interval.is_none() || keep_alive.timeout.is_none() {
            check.error(&path, "interval and timeout are both required");
        }
        check.duration(&format!("{path}.interval"), keep_alive.interval);
        check.duration(&format!("{path}.timeout"), keep_alive.timeout);
    }
}

fn outlier_detection(check: Checks<'_, '_>, path: &str, outlier: &OutlierDetection) {
    if outlier.consecutive_errors != 0 {
        check.deprecated(
            format!("{path}.consecutiveErrors"),
            "use consecutive5xxErrors; this one has no effect",
        );
    }
    if outlier.consecutive_local_origin_failures.is_some_and(|count| count > 0)
        && !outlier.split_external_local_origin_errors
    {
        check.error(
            format!("{path}.consecutiveLocalOriginFailures"),
            "consecutiveLocalOriginFailures needs splitExternalLocalOriginErrors",
        );
    }
    check.duration(&format!("{path}.interval"), outlier.interval);
    check.duration(&format!("{path}.baseEjectionTime"), outlier.base_ejection_time);
    for (field, value) in [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ] {
        if !(0..=100).contains(&value) {
            check.error(format!("{path}.{field}"), "the percentage must be from 0 to 100");
        }
    }
    for (index, code) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..=599).contains(code) {
            check.error(
                format!("{path}.outlierDetectionHttpErrorCodes[{index}]"),
                "the status must be from 100 to 599",
            );
        }
    }
}

fn client_tls(check: Checks<'_, '_>, path: &str, tls: &ClientTlsSettings) {
    let files = !tls.client_certificate.is_empty() || !tls.private_key.is_empty();
    let any_file = files || !tls.ca_certificates.is_empty() || !tls.ca_crl.is_empty();
    if tls.insecure_skip_verify == Some(true)
        && (!tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty())
    {
        check.error(
            format!("{path}.insecureSkipVerify"),
            "insecureSkipVerify cannot be used with caCertificates or subjectAltNames",
        );
    }
    if (tls.mode == ClientTlsMode::Simple || tls.mode == ClientTlsMode::Mutual)
        && !tls.credential_name.is_empty()
        && any_file
    {
        check.error(path, "credentialName cannot be used with certificate files");
    }
    match tls.mode {
        ClientTlsMode::Mutual
            if tls.credential_name.is_empty()
                && (tls.client_certificate.is_empty() || tls.private_key.is_empty()) =>
        {
            check.error(path, "MUTUAL needs clientCertificate and privateKey, or credentialName");
        }
        ClientTlsMode::IstioMutual if any_file || !tls.credential_name.is_empty() => {
            check
                .error(path, "ISTIO_MUTUAL uses the workload's own certificate; no certificate may be named");
        }
        _ => {}
    }
}

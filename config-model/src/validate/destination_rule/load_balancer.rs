//! How endpoints are chosen (Istio: validateLoadBalancer).

use std::collections::BTreeSet;

use super::{Check, locality};
use crate::istio::{
    DestinationRule,
    destination_rule::{ConsistentHashLb, HttpCookie, LoadBalancerSettings, WarmupConfiguration},
};

pub(super) fn check(
    check: &mut Check<'_, DestinationRule>,
    path: &str,
    balancer: &LoadBalancerSettings,
    ejects: bool,
) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        check.error(path, "at most one of simple and consistentHash may be set");
    }
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(check, &format!("{path}.consistentHash"), hash);
    }
    if balancer.locality_lb_setting.is_some() && balancer.zone_aware_lb_setting.is_some() {
        check.error(path, "only one of localityLbSetting and zoneAwareLbSetting can be set");
    }
    if let Some(locality) = &balancer.locality_lb_setting {
        locality::check(check, &format!("{path}.localityLbSetting"), locality, ejects);
    }
    if let Some(zones) = &balancer.zone_aware_lb_setting {
        locality::check_zones(check, &format!("{path}.zoneAwareLbSetting"), zones, ejects);
    }
    if balancer.warmup_duration_secs.is_some() {
        let path = format!("{path}.warmupDurationSecs");
        check.deprecated(path.as_str(), "warmupDurationSecs is deprecated; use warmup.duration");
        check.duration(&path, balancer.warmup_duration_secs);
    }
    if let Some(warmup) = &balancer.warmup {
        check_warmup(check, &format!("{path}.warmup"), warmup);
    }
}

fn check_warmup(check: &mut Check<'_, DestinationRule>, path: &str, warmup: &WarmupConfiguration) {
    if warmup.duration.is_none() {
        check.error(path, "duration is required");
    }
    check.duration(format_args!("{path}.duration"), warmup.duration);
    if warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        check.error(
            format!("{path}.minimumPercent"),
            "minimumPercent value should be less than or equal to 100",
        );
    }
    if warmup.aggression.is_some_and(|aggression| aggression.is_nan() || aggression <= 0.0) {
        check.error(format!("{path}.aggression"), "aggression should be greater than 0");
    }
}

fn consistent_hash(check: &mut Check<'_, DestinationRule>, path: &str, hash: &ConsistentHashLb) {
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
        check.error(path, "at most one of ringHash and maglev may be set");
    }
    if hash.minimum_ring_size.is_some_and(|size| size != 0) {
        let path = format!("{path}.minimumRingSize");
        check.warn(
            path.as_str(),
            "consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead",
        );
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            check.error(path, "only one of MinimumRingSize or Maglev/Ringhash can be specified");
        }
    }
    if let Some(cookie) = &hash.http_cookie {
        check_cookie(check, &format!("{path}.httpCookie"), cookie);
    }
    if let Some(maglev) = &hash.maglev {
        let message = match maglev.table_size.unwrap_or(0) {
            0 => "tableSize must be set for maglev",
            5_000_011.. => "tableSize must be less than 5000011 for maglev",
            size if !is_prime(size) => "tableSize must be a prime number for maglev",
            _ => return,
        };
        check.refuse(format!("{path}.maglev.tableSize"), message, "65537 is a good size");
    }
}

fn check_cookie(check: &mut Check<'_, DestinationRule>, path: &str, cookie: &HttpCookie) {
    if cookie.name.is_empty() {
        check.error(path, "name required for HttpCookie");
    }
    let mut seen = BTreeSet::new();
    for (index, attribute) in cookie.attributes.iter().enumerate() {
        let path = format!("{path}.attributes[{index}]");
        if attribute.name.is_empty() {
            check.error(path, "cookie attribute name cannot be empty");
        } else if !seen.insert(&attribute.name) {
            check.error(path, format!("duplicate cookie attribute name: {}", attribute.name));
        }
    }
}

/// By trial: called for numbers below five million only. One counts, as it does for Envoy.
fn is_prime(number: u64) -> bool {
    (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use crate::validate::destination_rule::tests::policy;

    #[test]
    fn balancers() {
        for (text, finds) in [
            ("{simple: RANDOM}", vec![]),
            ("{simple: RANDOM, consistentHash: {useSourceIp: true}}", vec!["!IST0106 loadBalancer"]),
            ("{localityLbSetting: {}, zoneAwareLbSetting: {}}", vec!["!IST0106 loadBalancer"]),
            ("{warmup: {duration: 10s, minimumPercent: 0, aggression: 0.1}}", vec![]),
            ("{warmup: {minimumPercent: 5}}", vec!["!IST0106 loadBalancer.warmup"]),
            (
                "{warmup: {duration: 1s, minimumPercent: 101}}",
                vec!["!IST0106 loadBalancer.warmup.minimumPercent"],
            ),
            ("{warmup: {duration: 1s, aggression: 0}}", vec!["!IST0106 loadBalancer.warmup.aggression"]),
            ("{warmupDurationSecs: 1s}", vec!["IST0002 loadBalancer.warmupDurationSecs"]),
        ] {
            assert_eq!(policy(&format!("{{loadBalancer: {text}}}")), finds, "{text}");
        }
    }

    #[test]
    fn hashes() {
        for (text, finds) in [
            ("{httpHeaderName: x, ringHash: {minimumRingSize: 10}}", vec![]),
            ("{httpHeaderName: x, useSourceIp: true}", vec!["!IST0106 "]),
            ("{ringHash: {}, maglev: {tableSize: 7}}", vec!["!IST0106 "]),
            ("{httpCookie: {name: a, ttl: 0s, attributes: [{name: SameSite, value: Lax}]}}", vec![]),
            ("{httpCookie: {ttl: 0s}}", vec!["!IST0106 .httpCookie"]),
            (
                "{httpCookie: {name: a, attributes: [{name: b}, {name: b}]}}",
                vec!["!IST0106 .httpCookie.attributes[1]"],
            ),
            ("{httpCookie: {name: a, attributes: [{value: b}]}}", vec!["!IST0106 .httpCookie.attributes[0]"]),
            ("{minimumRingSize: 10}", vec!["IST0133 .minimumRingSize"]),
            ("{maglev: {tableSize: 65537}}", vec![]),
            ("{maglev: {tableSize: 4}}", vec!["!IST0106 .maglev.tableSize"]),
            ("{maglev: {}}", vec!["!IST0106 .maglev.tableSize"]),
            ("{maglev: {tableSize: 5000011}}", vec!["!IST0106 .maglev.tableSize"]),
        ] {
            let found = policy(&format!("{{loadBalancer: {{consistentHash: {text}}}}}"));
            let found: Vec<String> =
                found.into_iter().map(|line| line.replace("loadBalancer.consistentHash", "")).collect();
            assert_eq!(found, finds, "{text}");
        }
    }
}

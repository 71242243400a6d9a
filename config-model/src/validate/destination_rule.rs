//! What admission demands of a DestinationRule (Istio: ValidateDestinationRule, and the schema of the resource).
//!
//! The blocks of a traffic policy are each in a file of their own.

mod client_tls;
pub(super) mod connection_pool;
mod load_balancer;
mod locality;
mod outlier;

use std::collections::BTreeSet;

use super::{check::Check, names};
use crate::{
    diagnostic::Diagnostics,
    istio::{
        DestinationRule,
        destination_rule::{
            ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, TrafficPolicy,
            TunnelSettings,
        },
    },
    meta::Resource,
};

pub(super) fn check(resource: &Resource<DestinationRule>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    if !names::is_wildcard_domain(spec.host.as_str()) {
        check.error("spec.host", format!("domain name {:?} invalid", spec.host.as_str()));
    }
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(&mut check, "spec.trafficPolicy", policy);
    }
    let mut subset_names = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        if subset.name.is_empty() {
            check.error(path.as_str(), "subset name cannot be empty");
        } else if !names::is_label(&subset.name) {
            check.error(format!("{path}.name"), format!("subset name is invalid: {}", subset.name));
        }
        if !subset_names.insert(&subset.name) {
            check.error(format!("{path}.name"), format!("duplicate subset names: {}", subset.name));
        }
        check.labels(format_args!("{path}.labels"), &subset.labels);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(&mut check, &format!("{path}.trafficPolicy"), policy);
        }
    }
    check.export_to(&spec.export_to, false);
    if spec.workload_selector.is_some() {
        selector(&mut check, spec);
    }
}

/// A rule for selected clients is for those of its own namespace.
fn selector(check: &mut Check<'_, DestinationRule>, spec: &DestinationRule) {
    let labels = spec.workload_selector.as_ref().map(|selector| &selector.labels);
    if let Some(labels) = labels {
        check.selector("spec.workloadSelector.matchLabels", labels, 4096);
        if labels.is_empty() {
            check.warn("spec.workloadSelector", "workload selector specified without labels");
        }
    }
    let own = check.resource.key.namespace.as_str();
    let named: BTreeSet<&str> =
        spec.export_to.iter().map(|entry| if entry == "." { own } else { entry.as_str() }).collect();
    let message = match (named.is_empty(), named.contains(own), named.len()) {
        (true, ..) | (_, true, 1) => return,
        (_, true, _) => "destination rule with workload selector cannot have multiple entries in exportTo",
        (_, false, _) => {
            "destination rule with workload selector cannot have exportTo beyond current namespace"
        }
    };
    check.error("spec.exportTo", message);
}

fn traffic_policy(check: &mut Check<'_, DestinationRule>, path: &str, policy: &TrafficPolicy) {
    if *policy == TrafficPolicy::default() {
        check.error(path, "traffic policy must have at least one field");
        return;
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        check.error(path, "tunnel and proxyProtocol must not be set together");
    }
    let blocks = Blocks {
        load_balancer: policy.load_balancer.as_ref(),
        connection_pool: policy.connection_pool.as_ref(),
        outlier_detection: policy.outlier_detection.as_ref(),
        tls: policy.tls.as_ref(),
    };
    blocks.check(check, path);
    check.at_most(format_args!("{path}.portLevelSettings"), policy.port_level_settings.len(), 4096);
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        match &port.port {
            None => check.error(path.as_str(), "portTrafficPolicy must have valid port"),
            Some(selector) if selector.number.is_none() => {
                check.warn(format!("{path}.port"), "without a port number the settings apply to no port");
            }
            Some(_) => {}
        }
        let blocks = Blocks {
            load_balancer: port.load_balancer.as_ref(),
            connection_pool: port.connection_pool.as_ref(),
            outlier_detection: port.outlier_detection.as_ref(),
            tls: port.tls.as_ref(),
        };
        if blocks.are_absent() {
            check.error(path.as_str(), "port traffic policy must have at least one field");
        }
        blocks.check(check, &path);
    }
    if let Some(tunnel) = &policy.tunnel {
        check_tunnel(check, &format!("{path}.tunnel"), tunnel);
    }
    if let Some(percent) = policy.retry_budget.as_ref().and_then(|budget| budget.percent)
        && !(0.0..=100.0).contains(&percent)
    {
        check.error(format!("{path}.retryBudget.percent"), "percent must be in the range 0..100");
    }
}

/// The blocks that policies of a host, a subset and a port share.
struct Blocks<'a> {
    load_balancer: Option<&'a LoadBalancerSettings>,
    connection_pool: Option<&'a ConnectionPoolSettings>,
    outlier_detection: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTlsSettings>,
}

impl Blocks<'_> {
    fn are_absent(&self) -> bool {
        self.load_balancer.is_none()
            && self.connection_pool.is_none()
            && self.outlier_detection.is_none()
            && self.tls.is_none()
    }

    fn check(&self, check: &mut Check<'_, DestinationRule>, path: &str) {
        if let Some(balancer) = self.load_balancer {
            let fails_over = self.outlier_detection.is_some();
            load_balancer::check(check, &format!("{path}.loadBalancer"), balancer, fails_over);
        }
        if let Some(pool) = self.connection_pool {
            connection_pool::check(check, &format!("{path}.connectionPool"), pool);
        }
        if let Some(outlier) = self.outlier_detection {
            outlier::check(check, &format!("{path}.outlierDetection"), outlier);
        }
        if let Some(tls) = self.tls {
            client_tls::check(check, &format!("{path}.tls"), tls);
        }
    }
}

fn check_tunnel(check: &mut Check<'_, DestinationRule>, path: &str, tunnel: &TunnelSettings) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        check.error(format!("{path}.protocol"), "tunnel protocol must be \"CONNECT\" or \"POST\"");
    }
    if !names::is_dns_name(&tunnel.target_host) && !names::is_ip(&tunnel.target_host) {
        check.error(path, "tunnel target host must be valid FQDN or IP address");
    }
    if tunnel.target_port.is_none() {
        check.error(path, "tunnel target port is invalid: port number 0 must be in the range 1..65535");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::validate::tests::{DR, findings};

    /// What is found in a rule with this spec, with paths below the traffic policy.
    pub(super) fn spec(spec: &str) -> Vec<String> {
        let mut found = findings(&format!("{DR}  host: a\n{spec}"));
        found.retain(|line| {
            !line.starts_with("IST0128") && !line.starts_with("IST0129") && !line.starts_with("LIM")
        });
        found.into_iter().map(|line| line.replace("spec.trafficPolicy.", "").replace("spec.", "")).collect()
    }

    /// What is found in a traffic policy.
    pub(super) fn policy(policy: &str) -> Vec<String> {
        spec(&format!("  trafficPolicy: {policy}\n"))
    }

    #[test]
    fn hosts_and_subsets() {
        for (host, good) in [
            ("a", true),
            ("*.a.com", true),
            ("*", true),
            ("*-a.com", true),
            ("10.0.0.1", false),
            ("a_b", false),
        ] {
            let found = findings(&format!("{DR}  host: '{host}'\n"));
            assert_eq!(found.is_empty(), good, "{host}: {found:?}");
        }
        for (text, finds) in [
            ("  subsets: [{name: v1, labels: {a: b}}, {name: v2}]\n", vec![]),
            ("  subsets: [{name: v1}, {name: v1}]\n", vec!["!IST0106 subsets[1].name"]),
            ("  subsets: [{labels: {a: b}}]\n", vec!["!IST0106 subsets[0]"]),
            ("  subsets: [{name: a_b}]\n", vec!["!IST0106 subsets[0].name"]),
            ("  subsets: [{name: v1, labels: {a: '*'}}]\n", vec!["!IST0106 subsets[0].labels.a"]),
            ("  subsets: [{name: v1, trafficPolicy: {}}]\n", vec!["!IST0106 subsets[0].trafficPolicy"]),
        ] {
            assert_eq!(spec(text), finds, "{text}");
        }
    }

    #[test]
    fn selectors() {
        let with = |export: &str| {
            spec(&format!("  workloadSelector: {{matchLabels: {{a: b}}}}\n  exportTo: {export}\n"))
        };
        for (export, finds) in [
            ("[]", vec![]),
            ("['.']", vec![]),
            ("[default]", vec![]),
            ("['.', other]", vec!["!IST0106 exportTo"]),
            ("[other]", vec!["!IST0106 exportTo"]),
            ("['*']", vec!["!IST0106 exportTo"]),
        ] {
            assert_eq!(with(export), finds, "{export}");
        }
        assert_eq!(
            spec("  workloadSelector: {matchLabels: {a: '*'}}\n"),
            ["!IST0106 workloadSelector.matchLabels"]
        );
        assert_eq!(spec("  workloadSelector: {}\n"), ["IST0133 workloadSelector"]);
    }

    #[test]
    fn policies() {
        for (text, finds) in [
            ("{}", vec!["!IST0106 trafficPolicy"]),
            ("{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}", vec![]),
            ("{portLevelSettings: [{tls: {mode: DISABLE}}]}", vec!["!IST0106 portLevelSettings[0]"]),
            ("{portLevelSettings: [{port: {number: 80}}]}", vec!["!IST0106 portLevelSettings[0]"]),
            ("{tunnel: {targetHost: a.b, targetPort: 1}}", vec![]),
            ("{tunnel: {protocol: PUT, targetHost: a.b, targetPort: 1}}", vec!["!IST0106 tunnel.protocol"]),
            ("{tunnel: {targetHost: a.b}}", vec!["!IST0106 tunnel"]),
            ("{tunnel: {targetPort: 1}}", vec!["!IST0106 tunnel"]),
            (
                "{tunnel: {targetHost: a.b, targetPort: 1}, proxyProtocol: {version: V2}}",
                vec!["!IST0106 trafficPolicy"],
            ),
            ("{retryBudget: {percent: 12.5, minRetryConcurrency: 3}}", vec![]),
            ("{retryBudget: {percent: 101}}", vec!["!IST0106 retryBudget.percent"]),
        ] {
            assert_eq!(policy(text), finds, "{text}");
        }
    }
}

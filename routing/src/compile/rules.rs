//! Which DestinationRule a service gets, and what it says for one port and subset.
//!
//! Invariant: levels of the search are never merged: the first that has a visible rule for the host decides, be it that none
//! of its rules is for this gateway (Istio: push_context.go `destinationRule`, sidecar.go `DestinationRule`).

mod merged;

pub(super) use merged::{NamedSubset, Rule};

use super::Identity;
use config_model::{
    istio::destination_rule::{
        ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, PortTrafficPolicy,
        ProxyProtocol, RetryBudget, TrafficPolicy,
    },
    scalar::labels::is_subset_of,
    validate::{Validated, resolve_short_name},
};
use merged::{Merged, exports};
use std::collections::{BTreeMap, HashMap};

/// All DestinationRules, by the namespace that they are in.
pub(super) struct Rules<'a> {
    namespaces: HashMap<&'a str, OfNamespace<'a>>,
    /// Of the root namespace, those that nobody else sees.
    private: Merged<'a>,
    proxy: &'a str,
    labels: &'a BTreeMap<String, String>,
    root: &'a str,
}

#[derive(Default)]
struct OfNamespace<'a> {
    /// Those that the namespace itself sees.
    local: Merged<'a>,
    /// Those that others see.
    exported: Merged<'a>,
}

/// The blocks of traffic policy in force; absent is Istio's default.
#[derive(Clone, Copy, Default)]
pub(super) struct Policy<'a> {
    /// How an endpoint is chosen.
    pub(super) load_balancer: Option<&'a LoadBalancerSettings>,
    /// Limits and time-outs.
    pub(super) connection_pool: Option<&'a ConnectionPoolSettings>,
    /// TLS towards the endpoints.
    pub(super) tls: Option<&'a ClientTlsSettings>,
    /// When an endpoint is ejected.
    pub(super) outlier: Option<&'a OutlierDetection>,
    /// The PROXY header.
    pub(super) proxy_protocol: Option<&'a ProxyProtocol>,
    /// Limit of concurrent retries.
    pub(super) retry_budget: Option<&'a RetryBudget>,
}

impl<'a> Rules<'a> {
    /// Indexes every rule; those of one host and namespace are merged, those with a workload selector first, then oldest
    /// first (Istio: push_context.go `setDestinationRules`).
    pub(super) fn new(input: &'a Validated, identity: &'a Identity) -> Self {
        let mesh = input.mesh();
        let private_unless_said = mesh.default_destination_rule_export_to.iter().any(|entry| entry == ".");
        let mut namespaces: HashMap<&str, OfNamespace<'_>> = HashMap::new();
        let mut private = Merged::default();
        let mut rules: Vec<_> = input.destination_rules().iter().collect();
        // Stable: the age order stays.
        rules.sort_by_key(|rule| rule.spec.workload_selector.is_none());
        for resource in rules {
            let own = resource.key.namespace.as_str();
            let host = resolve_short_name(&resource.spec.host, own, &identity.domain);
            let to = exports(&resource.spec);
            let within = namespaces.entry(own).or_default();
            if to.is_empty() || [".", "*", own].iter().any(|one| to.contains(one)) {
                within.local.add(&host, Rule::new(resource, to.clone()));
            }
            let alone = to.len() == 1 && (to.contains(".") || to.contains(own));
            if !(alone || (to.is_empty() && private_unless_said)) {
                within.exported.add(&host, Rule::new(resource, to));
            } else if own == mesh.root_namespace {
                private.add(&host, Rule::new(resource, to));
            }
        }
        Self {
            namespaces,
            private,
            proxy: &identity.namespace,
            labels: &identity.labels,
            root: &mesh.root_namespace,
        }
    }

    /// The rule in force for a host whose service is of `namespace`.
    pub(super) fn find(&self, host: &str, namespace: &str) -> Option<&Rule<'a>> {
        let own = if self.proxy == self.root {
            // Mesh-wide rules live here too: at this level only those that nobody else sees count.
            self.private.find(host)
        } else {
            self.namespaces.get(self.proxy).and_then(|within| within.local.find(host))
        };
        let own = own.map(|rules| self.of_this_gateway(rules.iter()));
        own.or_else(|| self.exported(namespace, host)).or_else(|| self.exported(self.root, host)).flatten()
    }

    /// What a namespace exports for a host to that of the gateway; `None` where that is nothing.
    fn exported(&self, namespace: &str, host: &str) -> Option<Option<&Rule<'a>>> {
        let rules = self.namespaces.get(namespace)?.exported.find(host)?;
        let mut visible = rules.iter().filter(|rule| rule.is_exported_to(self.proxy)).peekable();
        visible.peek()?;
        Some(self.of_this_gateway(visible))
    }

    /// The first that selects the gateway, else the last that selects nobody.
    fn of_this_gateway<'r>(&self, rules: impl Iterator<Item = &'r Rule<'a>>) -> Option<&'r Rule<'a>>
    where
        'a: 'r,
    {
        let mut for_all = None;
        for rule in rules {
            match rule.selector() {
                None => for_all = Some(rule),
                Some(selector) => {
                    let here = rule.resource.key.namespace == self.proxy;
                    if here && is_subset_of(selector, self.labels) {
                        return Some(rule);
                    }
                }
            }
        }
        for_all
    }
}

impl<'a> Policy<'a> {
    /// Blocks of `policy` replace ours one by one; a setting for the port replaces those that it can have as a set, and
    /// leaves the others as they are without `policy`.
    fn overlaid(self, policy: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = policy else { return self };
        let for_port = |setting: &&PortTrafficPolicy| {
            setting.port.as_ref().and_then(|p| p.number).is_some_and(|number| number.get() == port)
        };
        if let Some(setting) = policy.port_level_settings.iter().find(for_port) {
            return Self {
                load_balancer: setting.load_balancer.as_ref(),
                connection_pool: setting.connection_pool.as_ref(),
                tls: setting.tls.as_ref(),
                outlier: setting.outlier_detection.as_ref(),
                proxy_protocol: self.proxy_protocol,
                retry_budget: self.retry_budget,
            };
        }
        Self {
            load_balancer: policy.load_balancer.as_ref().or(self.load_balancer),
            connection_pool: policy.connection_pool.as_ref().or(self.connection_pool),
            tls: policy.tls.as_ref().or(self.tls),
            outlier: policy.outlier_detection.as_ref().or(self.outlier),
            proxy_protocol: policy.proxy_protocol.as_ref().or(self.proxy_protocol),
            retry_budget: policy.retry_budget.as_ref().or(self.retry_budget),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::{identity, validated};

    const HOST: &str = "a.shop.svc.cluster.local";

    fn rule(namespace: &str, name: &str, rest: &str) -> String {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{rest}}}\n"
        )
    }

    fn winner(yaml: &str, proxy: &str) -> Option<String> {
        let input = validated(yaml);
        let identity = Identity { namespace: proxy.into(), ..identity() };
        let rules = Rules::new(&input, &identity);
        rules.find(HOST, "shop").map(|rule| rule.resource.key.name.clone())
    }

    #[test]
    fn client_then_service_then_root_and_the_first_level_wins_whole() {
        let client = rule("ingress", "client", "host: '*.local'");
        let service = rule("shop", "service", "host: a");
        let root = rule("istio-system", "root", "host: '*.local'");
        let elsewhere = rule("other", "elsewhere", &format!("host: {HOST}"));
        let all = [client, service.clone(), root.clone(), elsewhere.clone()].concat();
        assert_eq!(winner(&all, "ingress").as_deref(), Some("client"));
        assert_eq!(winner(&[service, root.clone()].concat(), "ingress").as_deref(), Some("service"));
        assert_eq!(winner(&[root, elsewhere.clone()].concat(), "ingress").as_deref(), Some("root"));
        assert_eq!(winner(&elsewhere, "ingress"), None);
        let hidden = rule("shop", "hidden", "host: a, exportTo: ['.']");
        assert_eq!(winner(&hidden, "ingress"), None);
    }

    #[test]
    fn in_the_root_namespace_a_private_rule_comes_first() {
        let service = rule("shop", "service", "host: a");
        let public = rule("istio-system", "public", "host: '*.local'");
        let private = rule("istio-system", "private", "host: '*.shop.svc.cluster.local', exportTo: ['.']");
        let both = [service, public].concat();
        assert_eq!(winner(&both, "istio-system").as_deref(), Some("service"));
        assert_eq!(winner(&[both, private].concat(), "istio-system").as_deref(), Some("private"));
    }

    #[test]
    fn rules_of_one_host_share_subsets_and_the_first_policy() {
        let yaml = [
            rule("shop", "r1", "host: a, subsets: [{name: v1, labels: {version: v1}}]"),
            rule(
                "shop",
                "r2",
                "host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: x}}, {name: v2, labels: {version: v2}}]",
            ),
        ]
        .concat();
        let input = validated(&yaml);
        let identity = identity();
        let rules = Rules::new(&input, &identity);
        let rule = rules.find(HOST, "shop").unwrap();
        let names: Vec<_> = rule.subsets.iter().map(|s| s.subset.name.as_str()).collect();
        assert_eq!(names, ["v1", "v2"]);
        assert_eq!(rule.subsets[0].subset.labels["version"], "v1");
        assert!(rule.policy(None, 80).load_balancer.is_some());
    }

    #[test]
    fn a_port_setting_replaces_the_set_and_a_subset_overlays_by_block() {
        let yaml = rule(
            "shop",
            "r",
            "host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {connectTimeout: 1s}}, portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}, subsets: [{name: v1, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]",
        );
        let input = validated(&yaml);
        let identity = identity();
        let rules = Rules::new(&input, &identity);
        let rule = rules.find(HOST, "shop").unwrap();
        let host = rule.policy(None, 80);
        assert!(host.load_balancer.is_some() && host.connection_pool.is_some() && host.tls.is_none());
        let port = rule.policy(None, 443);
        assert!(port.load_balancer.is_none() && port.connection_pool.is_none() && port.tls.is_some());
        let subset = rule.policy(Some(rule.subsets[0].subset), 443);
        assert!(subset.load_balancer.is_some() && subset.connection_pool.is_none() && subset.tls.is_some());
    }
}

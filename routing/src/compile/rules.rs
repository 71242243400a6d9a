//! Which DestinationRule a service gets, and what it says for one port and subset.
//!
//! Invariant: levels of the search are never merged: the first that has a visible rule for the host wins whole
//! (Istio: push_context.go `destinationRule`).

use super::{Identity, visibility::exports};
use config_model::{
    istio::{
        DestinationRule,
        destination_rule::{
            ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection,
            PortTrafficPolicy, ProxyProtocol, RetryBudget, Subset, TrafficPolicy, TunnelSettings,
        },
    },
    meta::Resource,
    scalar::labels::is_subset_of,
    validate::{Validated, resolve_short_name},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// All DestinationRules, by namespace and host.
pub(super) struct Rules<'a> {
    namespaces: HashMap<&'a str, OfNamespace<'a>>,
    proxy: &'a str,
    labels: &'a BTreeMap<String, String>,
    root: &'a str,
}

#[derive(Default)]
struct OfNamespace<'a> {
    exact: HashMap<Arc<str>, Vec<Rule<'a>>>,
    /// By what follows the star, longest first.
    wildcards: Vec<(Arc<str>, Vec<Rule<'a>>)>,
}

/// One rule, or several of one host and namespace that Istio merges.
pub(super) struct Rule<'a> {
    /// The oldest of them.
    pub(super) resource: &'a Arc<Resource<DestinationRule>>,
    /// The others, oldest first.
    younger: Vec<&'a Arc<Resource<DestinationRule>>>,
    /// Subsets, each name once, with where they are written.
    pub(super) subsets: Vec<NamedSubset<'a>>,
    policy: Option<&'a TrafficPolicy>,
    exports: BTreeSet<&'a str>,
    selector: Option<&'a BTreeMap<String, String>>,
}

/// A subset and where it is written.
pub(super) struct NamedSubset<'a> {
    /// The rule it is written in.
    pub(super) resource: &'a Resource<DestinationRule>,
    /// Its index there.
    pub(super) index: usize,
    /// What it says.
    pub(super) subset: &'a Subset,
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
    /// Indexes every rule; those of one host and namespace are merged oldest first.
    pub(super) fn new(input: &'a Validated, identity: &'a Identity) -> Self {
        let mesh = input.mesh();
        let mut namespaces: HashMap<&str, OfNamespace<'_>> = HashMap::new();
        for resource in input.destination_rules() {
            let own = resource.key.namespace.as_str();
            let host = resolve_short_name(&resource.spec.host, own, &identity.domain);
            let rule = Rule::new(resource, &mesh.default_destination_rule_export_to);
            let namespace = namespaces.entry(own).or_default();
            let list = match host.strip_prefix('*') {
                None => namespace.exact.entry(host).or_default(),
                Some(suffix) => {
                    let at = match namespace.wildcards.iter().position(|(known, _)| **known == *suffix) {
                        Some(at) => at,
                        None => {
                            let longer = |(known, _): &(Arc<str>, Vec<Rule<'_>>)| known.len() >= suffix.len();
                            let at = namespace.wildcards.partition_point(longer);
                            namespace.wildcards.insert(at, (suffix.into(), Vec::new()));
                            at
                        }
                    };
                    let Some((_, list)) = namespace.wildcards.get_mut(at) else { continue };
                    list
                }
            };
            Rule::merge_into(list, rule);
        }
        Self { namespaces, proxy: &identity.namespace, labels: &identity.labels, root: &mesh.root_namespace }
    }

    /// The rule in force for a host whose service is of `namespace`.
    pub(super) fn find(&self, host: &str, namespace: &str) -> Option<&Rule<'a>> {
        let proxy = self.proxy;
        let exported = |rule: &Rule<'_>| rule.exports.contains("*") || rule.exports.contains(proxy);
        let of_client = if proxy == self.root {
            // Mesh-wide rules live here too: at this level only those that nobody else sees count.
            self.at_level(proxy, host, &|rule| rule.exports.len() == 1 && rule.exports.contains(proxy))
        } else {
            self.at_level(proxy, host, &|_| true)
        };
        of_client
            .or_else(|| self.at_level(namespace, host, &exported))
            .or_else(|| self.at_level(self.root, host, &exported))
    }

    fn at_level(
        &self,
        namespace: &str,
        host: &str,
        visible: &dyn Fn(&Rule<'_>) -> bool,
    ) -> Option<&Rule<'a>> {
        let level = self.namespaces.get(namespace)?;
        let list = level.exact.get(host).or_else(|| {
            let covers =
                |suffix: &str| suffix.is_empty() || (host.len() > suffix.len() && host.ends_with(suffix));
            level.wildcards.iter().find(|(suffix, _)| covers(suffix)).map(|(_, list)| list)
        })?;
        let selected = list.iter().find(|rule| {
            namespace == self.proxy
                && visible(rule)
                && rule.selector.is_some_and(|selector| is_subset_of(selector, self.labels))
        });
        selected.or_else(|| list.iter().rev().find(|rule| rule.selector.is_none() && visible(rule)))
    }
}

impl<'a> Rule<'a> {
    fn new(resource: &'a Arc<Resource<DestinationRule>>, default: &'a [String]) -> Self {
        let spec = &resource.spec;
        let mut rule = Self {
            resource,
            younger: Vec::new(),
            subsets: Vec::new(),
            policy: spec.traffic_policy.as_ref(),
            exports: exports(&spec.export_to, default, &resource.key.namespace),
            selector: spec.workload_selector.as_ref().map(|selector| &selector.labels),
        };
        rule.add_subsets(resource);
        rule
    }

    /// All resources that it is made of, oldest first.
    pub(super) fn made_of(&self) -> impl Iterator<Item = &'a Arc<Resource<DestinationRule>>> {
        std::iter::once(self.resource).chain(self.younger.iter().copied())
    }

    fn add_subsets(&mut self, resource: &'a Resource<DestinationRule>) {
        for (index, subset) in resource.spec.subsets.iter().enumerate() {
            if !self.subsets.iter().any(|known| known.subset.name == subset.name) {
                self.subsets.push(NamedSubset { resource, index, subset });
            }
        }
    }

    /// Istio: destination_rule.go `mergeDestinationRule`: a younger rule joins an older one that is not seen by more.
    fn merge_into(list: &mut Vec<Self>, rule: Self) {
        let joins = |older: &&mut Self| {
            older.selector == rule.selector
                && (rule.exports.contains("*") || rule.exports.is_superset(&older.exports))
        };
        match list.iter_mut().find(joins) {
            Some(older) => {
                older.add_subsets(rule.resource);
                older.younger.push(rule.resource);
                older.policy = older.policy.or(rule.policy);
            }
            None => list.push(rule),
        }
    }

    /// What the rule says for a service port and a subset (Istio: cluster_traffic_policy.go, `MergeTrafficPolicy`).
    pub(super) fn policy(&self, subset: Option<&'a Subset>, port: u16) -> Policy<'a> {
        let base = Policy::default().overlaid(self.policy, port);
        base.overlaid(subset.and_then(|subset| subset.traffic_policy.as_ref()), port)
    }

    /// The tunnel of a cluster: a subset's own, or the rule's for the cluster that is none; neither is inherited, nor
    /// hidden by settings for the port (Istio: tunnelingconfig/apply.go).
    pub(super) fn tunnel(&self, subset: Option<&'a Subset>) -> Option<&'a TunnelSettings> {
        let policy = match subset {
            Some(subset) => subset.traffic_policy.as_ref(),
            None => self.policy,
        };
        policy?.tunnel.as_ref()
    }
}

impl<'a> Policy<'a> {
    /// Blocks of `policy` replace ours one by one; a setting for the port replaces all of them as a set.
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
                proxy_protocol: None,
                retry_budget: None,
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

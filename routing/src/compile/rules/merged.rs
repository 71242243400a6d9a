//! DestinationRules of one namespace: which of them are one rule, and which hosts they are for.
//!
//! Invariant: rules are merged as Istio merges them (destination_rule.go `mergeDestinationRule`): by what `exportTo` says word for
//! word, so that one without it and one with `*` stay apart.

use super::Policy;
use config_model::{
    istio::{
        DestinationRule,
        destination_rule::{Subset, TrafficPolicy, TunnelSettings},
    },
    meta::Resource,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// One rule, or several of one host and namespace that are merged.
pub(in crate::compile) struct Rule<'a> {
    /// The first of them.
    pub(in crate::compile) resource: &'a Arc<Resource<DestinationRule>>,
    /// The others, in their order.
    more: Vec<&'a Arc<Resource<DestinationRule>>>,
    /// Subsets, each name once, with where they are written.
    pub(in crate::compile) subsets: Vec<NamedSubset<'a>>,
    policy: Option<&'a TrafficPolicy>,
    /// As written; empty where nothing is.
    exports: BTreeSet<&'a str>,
}

/// A subset and where it is written.
pub(in crate::compile) struct NamedSubset<'a> {
    /// The rule it is written in.
    pub(in crate::compile) resource: &'a Resource<DestinationRule>,
    /// Its index there.
    pub(in crate::compile) index: usize,
    /// What it says.
    pub(in crate::compile) subset: &'a Subset,
}

/// The namespaces of an `exportTo`, as written; a rule for some workloads is seen in its namespace only.
pub(super) fn exports(rule: &DestinationRule) -> BTreeSet<&str> {
    match rule.workload_selector {
        Some(_) => BTreeSet::from(["."]),
        None => rule.export_to.iter().map(|entry| entry.trim()).collect(),
    }
}

impl<'a> Rule<'a> {
    pub(super) fn new(resource: &'a Arc<Resource<DestinationRule>>, exports: BTreeSet<&'a str>) -> Self {
        let policy = resource.spec.traffic_policy.as_ref();
        let mut rule = Self { resource, more: Vec::new(), subsets: Vec::new(), policy, exports };
        rule.add_subsets(resource);
        rule
    }

    /// All resources that it is made of.
    pub(in crate::compile) fn made_of(&self) -> impl Iterator<Item = &'a Arc<Resource<DestinationRule>>> {
        std::iter::once(self.resource).chain(self.more.iter().copied())
    }

    fn add_subsets(&mut self, resource: &'a Resource<DestinationRule>) {
        for (index, subset) in resource.spec.subsets.iter().enumerate() {
            if !self.subsets.iter().any(|known| known.subset.name == subset.name) {
                self.subsets.push(NamedSubset { resource, index, subset });
            }
        }
    }

    /// Labels of the gateways that it is for; `None`: all.
    pub(in crate::compile) fn selector(&self) -> Option<&'a BTreeMap<String, String>> {
        self.resource.spec.workload_selector.as_ref().map(|selector| &selector.labels)
    }

    pub(super) fn is_exported_to(&self, namespace: &str) -> bool {
        self.exports.is_empty() || self.exports.contains("*") || self.exports.contains(namespace)
    }

    /// What the rule says for a service port and a subset (Istio: cluster_traffic_policy.go, `MergeTrafficPolicy`).
    pub(in crate::compile) fn policy(&self, subset: Option<&'a Subset>, port: u16) -> Policy<'a> {
        let base = Policy::default().overlaid(self.policy, port);
        base.overlaid(subset.and_then(|subset| subset.traffic_policy.as_ref()), port)
    }

    /// The tunnel of a cluster: a subset's own, or the rule's for the cluster that is none; neither is inherited, nor
    /// hidden by settings for the port (Istio: tunnelingconfig/apply.go).
    pub(in crate::compile) fn tunnel(&self, subset: Option<&'a Subset>) -> Option<&'a TunnelSettings> {
        let policy = match subset {
            Some(subset) => subset.traffic_policy.as_ref(),
            None => self.policy,
        };
        policy?.tunnel.as_ref()
    }
}

/// Merged rules by host.
#[derive(Default)]
pub(super) struct Merged<'a> {
    exact: HashMap<Arc<str>, Vec<Rule<'a>>>,
    /// By what follows the star, longest first.
    wildcards: Vec<(Arc<str>, Vec<Rule<'a>>)>,
}

impl<'a> Merged<'a> {
    /// Adds the next rule.
    pub(super) fn add(&mut self, host: &Arc<str>, rule: Rule<'a>) {
        let Some(suffix) = host.strip_prefix('*') else {
            return merge(self.exact.entry(Arc::clone(host)).or_default(), rule);
        };
        let known = self.wildcards.iter().position(|(known, _)| **known == *suffix);
        let at = known.unwrap_or_else(|| {
            let at = self.wildcards.partition_point(|(known, _)| known.len() >= suffix.len());
            self.wildcards.insert(at, (suffix.into(), Vec::new()));
            at
        });
        if let Some((_, list)) = self.wildcards.get_mut(at) {
            merge(list, rule);
        }
    }

    /// The rules of the most specific host that covers this one.
    pub(super) fn find(&self, host: &str) -> Option<&[Rule<'a>]> {
        let by_wildcard = || {
            let name = host.strip_prefix('*').unwrap_or(host);
            let covering = self.wildcards.iter().find(|(suffix, _)| name.ends_with(&**suffix));
            covering.map(|(_, list)| list)
        };
        self.exact.get(host).or_else(by_wildcard).map(Vec::as_slice)
    }
}

/// Lets every rule so far that is seen by no more than `rule` take its subsets, and its policy where it has none; the rule
/// stands by itself where the last of them does not take it.
fn merge<'a>(list: &mut Vec<Rule<'a>>, rule: Rule<'a>) {
    let mut apart = true;
    for known in &mut *list {
        apart = rule.exports != known.exports;
        if apart && (known.exports.is_empty() || !rule.exports.is_superset(&known.exports)) {
            continue;
        }
        match (known.selector(), rule.selector()) {
            (Some(a), Some(b)) if a != b => {
                apart = true;
                continue;
            }
            (Some(_), Some(_)) | (None, None) => apart = false,
            _ => {}
        }
        known.add_subsets(rule.resource);
        known.more.push(rule.resource);
        known.policy = known.policy.or(rule.policy);
    }
    if apart {
        list.push(rule);
    }
}

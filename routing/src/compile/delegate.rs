//! Delegation: a VirtualService without hosts lends its rules to those that name it.
//!
//! Invariant: what cannot be lent is left out, alone: a rule whose delegate is missing, not to be seen or in conflict
//! takes no request, and its neighbours stay (Istio: virtualservice_controller.go `mergeVirtualServices`).

mod merge;

use super::visibility::exports;
use config_model::{
    diagnostic::Code,
    istio::virtual_service::{HttpRoute, VirtualService},
    mesh::MeshConfig,
    meta::{Resource, ResourceKey},
};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

/// A rule in force: as it stands in its VirtualService, or merged with one of a delegate.
#[derive(Debug)]
pub(super) struct Rule<'a> {
    /// What it says. Names in a merged rule are in full, so that it no longer matters whose namespace they were in.
    pub(super) rule: Cow<'a, HttpRoute>,
    /// Its number in its VirtualService.
    pub(super) index: usize,
    /// Where the other half of a merged rule stands.
    pub(super) delegate: Option<Lent<'a>>,
}

/// The delegate's half of a merged rule.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    /// The delegate.
    pub(super) resource: &'a Resource<VirtualService>,
    /// Number of the rule there.
    pub(super) index: usize,
    /// For each match of the merged rule, its number in the root's rule and in the delegate's; none where the rule has
    /// no match.
    pub(super) matches: Vec<(usize, usize)>,
}

/// The rules of a VirtualService that delegates.
#[derive(Debug)]
pub(super) struct Expanded<'a> {
    /// In the order in which they are tried.
    pub(super) rules: Vec<Rule<'a>>,
    /// What was left out: number of the root's rule, code and reason.
    pub(super) lost: Vec<(usize, Code, String)>,
    /// Hash over everything that was looked at.
    pub(super) content: u64,
}

/// All VirtualServices that delegate, with their rules.
pub(super) struct Delegates<'a> {
    roots: HashMap<&'a ResourceKey, Expanded<'a>>,
    lenders: HashMap<&'a ResourceKey, Lender<'a>>,
}

struct Lender<'a> {
    resource: &'a Resource<VirtualService>,
    exports: BTreeSet<&'a str>,
}

impl<'a> Delegates<'a> {
    /// Merges those that lend their rules into those that take them. `domain` ends the full names of Services.
    pub(super) fn new(
        taking_part: &'a [Arc<Resource<VirtualService>>],
        mesh: &'a MeshConfig,
        domain: &str,
    ) -> Self {
        let default = &mesh.default_virtual_service_export_to;
        let (roots, lenders): (Vec<_>, Vec<_>) =
            taking_part.iter().partition(|resource| !resource.spec.hosts.is_empty());
        let lenders = lenders.into_iter().map(|resource| {
            let exports = exports(&resource.spec.export_to, default, &resource.key.namespace);
            (&resource.key, Lender { resource, exports })
        });
        let mut all = Self { roots: HashMap::new(), lenders: lenders.collect() };
        let expanded = roots.into_iter().map(|root| (&root.key, all.expand(root, domain)));
        all.roots = expanded.collect();
        all
    }

    /// Whether none delegates.
    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The rules of a VirtualService that delegates; `None`: it does not, and its rules are its own.
    pub(super) fn expanded(&self, root: &ResourceKey) -> Option<&Expanded<'a>> {
        self.roots.get(root)
    }

    /// A delegate as it stands now.
    pub(super) fn resource(&self, key: &ResourceKey) -> Option<&'a Resource<VirtualService>> {
        self.lenders.get(key).map(|lender| lender.resource)
    }

    fn expand(&self, root: &'a Resource<VirtualService>, domain: &str) -> Expanded<'a> {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        root.content_hash.hash(&mut hasher);
        let mut expanded = Expanded { rules: Vec::new(), lost: Vec::new(), content: 0 };
        for (index, rule) in root.spec.http.iter().enumerate() {
            let Some(delegate) = &rule.delegate else {
                expanded.rules.push(Rule { rule: Cow::Borrowed(rule), index, delegate: None });
                continue;
            };
            let own = root.key.namespace.as_str();
            let namespace = if delegate.namespace.is_empty() { own } else { &delegate.namespace };
            let key = ResourceKey::new(root.key.kind, namespace, delegate.name.as_str());
            let Some(lender) = self.lenders.get(&key) else {
                hasher.write_u8(0);
                let reason =
                    format!("{namespace}/{} is not there, or is no delegate: it has hosts", delegate.name);
                expanded.lost.push((index, Code::DELEGATE_NOT_FOUND, reason));
                continue;
            };
            lender.resource.content_hash.hash(&mut hasher);
            lender.exports.hash(&mut hasher);
            if !lender.exports.contains("*") && !lender.exports.contains(own) {
                let reason = format!("{namespace}/{} is not exported to namespace {own}", delegate.name);
                expanded.lost.push((index, Code::DELEGATE_NOT_FOUND, reason));
                continue;
            }
            let full_root = merge::in_full(rule, own, domain);
            for (lent, leaf) in lender.resource.spec.http.iter().enumerate() {
                let leaf = merge::in_full(leaf, namespace, domain);
                match merge::merge(&full_root, leaf) {
                    Some((merged, matches)) => expanded.rules.push(Rule {
                        rule: Cow::Owned(merged),
                        index,
                        delegate: Some(Lent { resource: lender.resource, index: lent, matches }),
                    }),
                    None => {
                        let reason = format!(
                            "spec.http[{lent}] of {namespace}/{} wants a match that no match of this rule allows: it takes no request",
                            delegate.name
                        );
                        expanded.lost.push((index, Code::RULE_DROPPED, reason));
                    }
                }
            }
        }
        expanded.content = hasher.finish();
        expanded
    }
}

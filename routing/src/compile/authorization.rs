//! AuthorizationPolicies to what is evaluated (Istio: pilot/pkg/security/authz/builder).
//!
//! Invariant: total, and never wider than what was written: a rule of which a part means nothing allows nobody, and refuses at least
//! those that it was written for.

mod provider;
mod rule;
mod trust_domain;

use super::{Identity, attachment::attaches, registry::Registry};
use crate::authz::{Authorization, Custom, Engine, Policies, Rule, RuleName, Rules, provider::Protocol};
use config_model::{
    diagnostic::{Code, Diagnostic},
    istio::{AuthorizationPolicy, authorization_policy::Action},
    meta::Resource,
    validate::Validated,
};
use provider::Providers;
use std::{collections::BTreeSet, sync::Arc};
use trust_domain::TrustDomains;

/// The annotation that puts a policy on trial.
const DRY_RUN: &str = "istio.io/dry-run";
/// What rules of CUSTOM are named by, before the provider's name.
const CUSTOM: &str = "istio-ext-authz";
/// What such a rule's name ends with, where its provider cannot be asked.
const BAD_CUSTOM: &str = "-deny-due-to-bad-CUSTOM-action";

type Policy = Arc<Resource<AuthorizationPolicy>>;

/// What rules are made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Requests,
    Connections,
}

/// Compiles the policies that are for this gateway.
pub(super) fn compile(
    input: &Validated,
    identity: &Identity,
    registry: &Registry,
    findings: &mut Vec<Diagnostic>,
) -> Authorization {
    let mesh = input.mesh();
    let own: Vec<&Policy> = input
        .authorization_policies()
        .iter()
        .filter(|policy| {
            let spec = &policy.spec;
            let (root, namespace) = (&mesh.root_namespace, &policy.key.namespace);
            attaches(identity, root, namespace, spec.selector.as_ref(), spec.targets())
        })
        .collect();
    if own.is_empty() {
        return Authorization::default();
    }
    let domains = TrustDomains::new(&mesh.trust_domain, &mesh.trust_domain_aliases);
    let providers = Providers { mesh, registry };
    let compiler = Compiler { own: &own, domains: &domains, providers: &providers };
    Authorization {
        http: compiler.policies(Layer::Requests, findings),
        // What is wrong was said of the requests.
        tcp: compiler.policies(Layer::Connections, &mut Vec::new()),
    }
}

struct Compiler<'a> {
    own: &'a [&'a Policy],
    domains: &'a TrustDomains,
    providers: &'a Providers<'a>,
}

impl<'a> Compiler<'a> {
    fn policies(&self, layer: Layer, findings: &mut Vec<Diagnostic>) -> Policies {
        Policies {
            custom: self.custom(layer, findings),
            audit: self.engine(Action::Audit, layer, findings),
            deny: self.engine(Action::Deny, layer, findings),
            allow: self.engine(Action::Allow, layer, findings),
        }
    }

    fn of(&self, action: Action) -> impl Iterator<Item = &'a Policy> {
        self.own.iter().copied().filter(move |policy| policy.spec.action == action)
    }

    fn engine(&self, action: Action, layer: Layer, findings: &mut Vec<Diagnostic>) -> Engine {
        let (mut enforced, mut on_trial) = (None, None);
        for policy in self.of(action) {
            let rules: &mut Option<Vec<Rule>> = if is_dry(policy) { &mut on_trial } else { &mut enforced };
            rules.get_or_insert_default().extend(self.rules(policy, layer, ("", ""), findings));
        }
        Engine::new(enforced.map(Rules::new), on_trial.map(Rules::new))
    }

    /// One provider is asked at most (Istio: PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS is off).
    fn custom(&self, layer: Layer, findings: &mut Vec<Diagnostic>) -> Custom {
        let name_of =
            |policy: &'a Policy| policy.spec.provider.as_ref().map_or("", |provider| &provider.name);
        let names: BTreeSet<&str> = self.of(Action::Custom).map(name_of).collect();
        let mut names = names.into_iter();
        let Some(name) = names.next() else { return Custom::Nothing };
        let found = match names.next() {
            Some(other) => {
                Err(format!("{name} and {other} are both named, and a gateway asks one provider only"))
            }
            None => self.providers.find(name),
        };
        let suffix = if found.is_ok() { "" } else { BAD_CUSTOM };
        let mut rules = Vec::new();
        for policy in self.of(Action::Custom) {
            let prefix = format!("{CUSTOM}-{}-", name_of(policy));
            rules.extend(self.rules(policy, layer, (&prefix, suffix), findings));
            if let Err(message) = &found {
                let message =
                    format!("provider {:?}: {message}; what its rules match is refused", name_of(policy));
                let finding = Diagnostic::new(Code::REFERENCE_NOT_FOUND, message);
                findings.push(finding.about(&policy.key, &policy.origin).at("spec.provider.name"));
            }
        }
        match found {
            Err(_) => Custom::Refuse(Rules::new(rules)),
            // Connections are nothing that could be asked about over HTTP.
            Ok(provider) if layer == Layer::Connections && matches!(provider.protocol, Protocol::Http(_)) => {
                Custom::Nothing
            }
            Ok(provider) => Custom::Ask { provider: Arc::new(provider), rules: Rules::new(rules) },
        }
    }

    fn rules(
        &self,
        policy: &Policy,
        layer: Layer,
        (prefix, suffix): (&str, &str),
        findings: &mut Vec<Diagnostic>,
    ) -> Vec<Rule> {
        let name = |index| RuleName::new(&policy.key.namespace, &policy.key.name, index, prefix, suffix);
        if policy.spec.rules.is_empty() {
            return vec![Rule::never(name(0))];
        }
        let compiled = policy.spec.rules.iter().enumerate().filter_map(|(index, rule)| {
            let scope = rule::Scope {
                namespace: &policy.key.namespace,
                action: policy.spec.action,
                layer,
                domains: self.domains,
            };
            match rule::compile(rule, &scope) {
                Ok((operations, sources)) => Some(Rule::new(name(index), operations, sources)),
                // For connections that is how a rule of requests is left out.
                Err(problem) => {
                    if let Some(message) = problem.message {
                        let finding =
                            Diagnostic::new(Code::SCHEMA, format!("the rule allows nobody: {message}"));
                        let path = format!("spec.rules[{index}]");
                        findings.push(finding.about(&policy.key, &policy.origin).at(path));
                    }
                    None
                }
            }
        });
        compiled.collect()
    }
}

/// Admission has seen to it that the value is one of Go's words.
fn is_dry(policy: &Policy) -> bool {
    let value = policy.meta.annotations.get(DRY_RUN);
    value.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"))
}

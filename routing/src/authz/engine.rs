//! The policies of one action.
//!
//! Invariant: rules are in the order of their names. Policies on trial are evaluated beside the others and change nothing.

use super::{Facts, Rule, RuleName};

/// Rules in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Rules(Box<[Rule]>);

impl Rules {
    pub(crate) fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by(|a, b| a.name().cmp(b.name()));
        Self(rules.into())
    }

    /// The first that matches.
    #[must_use]
    pub fn first(&self, facts: &Facts<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.is_match(facts))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.0
    }
}

/// The policies of one action: those that are enforced, and those on trial. `None`: there is no such policy, which is not the
/// same as policies of which no rule is left.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    enforced: Option<Rules>,
    on_trial: Option<Rules>,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// Whether a request is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict<'p> {
    /// It is.
    Allowed,
    /// It is refused, by this rule; `None`: no rule allows it.
    Denied(Option<&'p RuleName>),
}

/// What policies on trial would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dry<'p> {
    /// Whether they would have let it in.
    pub verdict: Verdict<'p>,
    /// The rule that matched.
    pub rule: Option<&'p RuleName>,
}

impl Engine {
    pub(crate) fn new(enforced: Option<Rules>, on_trial: Option<Rules>) -> Self {
        Self { enforced, on_trial }
    }

    /// Whether there are no policies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.enforced.is_none() && self.on_trial.is_none()
    }

    /// The rules that are enforced.
    #[must_use]
    pub fn enforced(&self) -> Option<&Rules> {
        self.enforced.as_ref()
    }

    /// The rules that are on trial.
    #[must_use]
    pub fn on_trial(&self) -> Option<&Rules> {
        self.on_trial.as_ref()
    }

    pub(crate) fn judge(&self, facts: &Facts<'_>, effect: Effect) -> Verdict<'_> {
        self.enforced.as_ref().map_or(Verdict::Allowed, |rules| verdict(rules, facts, effect).verdict)
    }

    pub(crate) fn dry_run(&self, facts: &Facts<'_>, effect: Effect) -> Option<Dry<'_>> {
        self.on_trial.as_ref().map(|rules| verdict(rules, facts, effect))
    }
}

fn verdict<'p>(rules: &'p Rules, facts: &Facts<'_>, effect: Effect) -> Dry<'p> {
    let rule = rules.first(facts).map(Rule::name);
    let verdict = match (effect, rule) {
        (Effect::Allow, Some(_)) | (Effect::Deny, None) => Verdict::Allowed,
        (Effect::Allow, None) => Verdict::Denied(None),
        (Effect::Deny, Some(name)) => Verdict::Denied(Some(name)),
    };
    Dry { verdict, rule }
}

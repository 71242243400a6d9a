//! Who may do what: the rules of `AuthorizationPolicy`, compiled and evaluated.
//!
//! Invariant: actions are asked in Istio's order, CUSTOM, then (tokens are checked elsewhere) AUDIT, DENY and ALLOW; the first
//! refusal is final. Within an action the first rule by name speaks for the others, as in Envoy, whose engine keeps them in a sorted
//! map. Evaluation allocates nothing.

mod engine;
mod facts;
mod predicate;
pub mod provider;
mod rule;
mod template;
mod text;

pub use engine::{Dry, Engine, Rules, Verdict};
pub use facts::{Connection, Facts, Peer};
pub use rule::{Rule, RuleName};

pub(crate) use predicate::{Predicate, Test};
pub(crate) use rule::Alternatives;
pub(crate) use template::Template;
pub(crate) use text::TextMatch;

use provider::Provider;
use std::sync::Arc;

/// The policies that are for this gateway: for requests, and for connections that are not looked into.
#[derive(Clone, Debug, Default)]
pub struct Authorization {
    /// For requests.
    pub http: Policies,
    /// For connections that are not HTTP.
    pub tcp: Policies,
}

/// Policies by action.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// What is asked of providers, before all else.
    pub custom: Custom,
    /// What is noted.
    pub audit: Engine,
    /// What is refused.
    pub deny: Engine,
    /// What alone is let in, where there is any such policy.
    pub allow: Engine,
}

/// The CUSTOM action.
#[derive(Clone, Debug, Default)]
pub enum Custom {
    /// There are no such policies.
    #[default]
    Nothing,
    /// A provider is asked about what one of its rules matches.
    Ask {
        /// Who is asked.
        provider: Arc<Provider>,
        /// About what.
        rules: Rules,
    },
    /// What a rule matches is refused: the provider is not usable, or there is more than one (Istio: `getBadCustomDenyRules`).
    Refuse(Rules),
}

impl Policies {
    /// Whether there is nothing to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.custom, Custom::Nothing)
            && self.audit.is_empty()
            && self.deny.is_empty()
            && self.allow.is_empty()
    }

    /// The provider that must be asked first; or the rule that refuses for want of one.
    ///
    /// # Errors
    /// The rule that refuses.
    pub fn provider(&self, facts: &Facts<'_>) -> Result<Option<&Arc<Provider>>, &RuleName> {
        match &self.custom {
            Custom::Nothing => Ok(None),
            Custom::Ask { provider, rules } => Ok(rules.first(facts).map(|_| provider)),
            Custom::Refuse(rules) => rules.first(facts).map_or(Ok(None), |rule| Err(rule.name())),
        }
    }

    /// Decides by what is known here, after the provider and the tokens.
    pub fn decide(&self, facts: &Facts<'_>) -> Outcome<'_> {
        let audited = self.audit.enforced().and_then(|rules| rules.first(facts)).map(Rule::name);
        let mut outcome = Outcome { verdict: Verdict::Allowed, audited, dry_deny: None, dry_allow: None };
        outcome.dry_deny = self.deny.dry_run(facts, engine::Effect::Deny);
        outcome.verdict = self.deny.judge(facts, engine::Effect::Deny);
        if outcome.verdict == Verdict::Allowed {
            outcome.dry_allow = self.allow.dry_run(facts, engine::Effect::Allow);
            outcome.verdict = self.allow.judge(facts, engine::Effect::Allow);
        }
        outcome
    }
}

/// What the policies say about one request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<'p> {
    /// Whether it is let in.
    pub verdict: Verdict<'p>,
    /// The rule that wants it noted.
    pub audited: Option<&'p RuleName>,
    /// What DENY policies on trial would have done; `None`: there are none.
    pub dry_deny: Option<Dry<'p>>,
    /// The same of ALLOW policies.
    pub dry_allow: Option<Dry<'p>>,
}

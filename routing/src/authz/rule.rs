//! One rule of a policy: what is asked for, and who asks.
//!
//! Invariant: a rule matches when one of its operations and one of its sources do, each with the conditions that were put to it.

use super::{Facts, Test};
use std::fmt;

/// Which rule of which policy, under Istio's name for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleName {
    // First, so that names order as Envoy keeps them.
    text: Box<str>,
    policy: Box<str>,
    index: usize,
}

impl RuleName {
    /// Rule `index` of a policy; a prefix and a suffix tell what it was made into.
    pub(crate) fn new(namespace: &str, name: &str, index: usize, prefix: &str, suffix: &str) -> Self {
        let text = format!("{prefix}ns[{namespace}]-policy[{name}]-rule[{index}]{suffix}");
        Self { text: text.into(), policy: format!("{namespace}/{name}").into(), index }
    }

    /// As in `ns[shop]-policy[readers]-rule[0]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `namespace/name` of the policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Number of the rule, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Lists of tests of which all must hold; one such list is enough. An empty list of tests always holds.
pub(crate) type Alternatives = Box<[Box<[Test]>]>;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    name: RuleName,
    operations: Alternatives,
    sources: Alternatives,
}

impl Rule {
    /// A rule; without alternatives it matches nothing.
    pub(crate) fn new(name: RuleName, operations: Alternatives, sources: Alternatives) -> Self {
        Self { name, operations, sources }
    }

    /// What stands for a policy without rules.
    pub(crate) fn never(name: RuleName) -> Self {
        Self::new(name, Box::default(), Box::default())
    }

    /// Which it is.
    #[must_use]
    pub fn name(&self) -> &RuleName {
        &self.name
    }

    /// Whether it matches.
    #[must_use]
    pub fn is_match(&self, facts: &Facts<'_>) -> bool {
        let holds = |all: &Alternatives| all.iter().any(|tests| tests.iter().all(|test| test.holds(facts)));
        holds(&self.operations) && holds(&self.sources)
    }

    /// What does not hold, of the alternative that comes nearest; `None`: it matches, or never could. Allocates: for explanations only.
    #[must_use]
    pub fn obstacle(&self, facts: &Facts<'_>) -> Option<String> {
        [&self.operations, &self.sources].into_iter().find_map(|all| {
            let failing = |tests: &[Test]| tests.iter().filter(|test| !test.holds(facts)).count();
            let nearest = all.iter().min_by_key(|tests| failing(tests))?;
            nearest.iter().find(|test| !test.holds(facts)).map(ToString::to_string)
        })
    }
}

//! Which policy comes first: those that a program brings, among those that configuration asks for.
//!
//! Invariant: the order is Istio's (listener_builder.go): external authorization, then authentication, then authorization, with
//! the phases of a WasmPlugin between them.

use super::{Chain, Failures};
use std::sync::Arc;

/// Where a program's policy stands among those of the configuration (Istio: the phase of a WasmPlugin).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Before tokens are verified.
    Authn,
    /// Before access is judged, with verified claims.
    Authz,
    /// After all of them: sees only what is let in.
    #[default]
    Last,
}

/// The policies that a program brings.
#[derive(Clone, Debug, Default)]
pub struct Given {
    authn: Chain,
    authz: Chain,
    last: Chain,
}

/// The policies that a configuration asks for.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    /// Those of `limen.dev` annotations: the outermost, since they spare the others work and finish every response.
    pub annotated: Chain,
    /// AuthorizationPolicies with an external judge.
    pub external: Chain,
    /// RequestAuthentications.
    pub authn: Chain,
    /// The other AuthorizationPolicies.
    pub authz: Chain,
    /// What becomes of failures of all policies, those that a program brings among them; `None`: they are told only.
    pub failures: Option<Arc<Failures>>,
}

impl Given {
    /// With these policies behind those of the same phase.
    #[must_use]
    pub fn with(mut self, phase: Phase, policies: &Chain) -> Given {
        let chain = match phase {
            Phase::Authn => &mut self.authn,
            Phase::Authz => &mut self.authz,
            Phase::Last => &mut self.last,
        };
        *chain = std::mem::take(chain).followed_by(policies);
        self
    }

    /// All of them in order.
    #[must_use]
    pub fn among(&self, configured: &Configured) -> Chain {
        let Configured { annotated, external, authn, authz, failures } = configured;
        let all = [annotated, external, &self.authn, authn, &self.authz, authz, &self.last]
            .into_iter()
            .fold(Chain::new(), Chain::followed_by);
        match failures {
            Some(failures) => all.counted(failures),
            None => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    struct Named(&'static str);
    impl Policy for Named {
        type State = ();
        fn name(&self) -> &str {
            self.0
        }
    }

    #[test]
    fn the_order_is_istios() {
        let one = |name| Chain::new().then(Named(name));
        let configured = Configured {
            annotated: one("annotated"),
            external: one("external"),
            authn: one("authn"),
            authz: one("authz"),
            failures: None,
        };
        let given = Given::default()
            .with(Phase::Last, &one("last"))
            .with(Phase::Authz, &one("authorizes"))
            .with(Phase::Authn, &one("authenticates"));
        assert_eq!(
            given.among(&configured).names().collect::<Vec<_>>(),
            ["annotated", "external", "authenticates", "authn", "authorizes", "authz", "last"]
        );
        assert!(Given::default().among(&Configured::default()).is_empty());
    }
}

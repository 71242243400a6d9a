//! AuthorizationPolicies of the actions AUDIT, DENY and ALLOW.

use super::{
    super::{Answer, Hooks, Policy, Reply, RequestView, Verdict},
    SecurityMetrics, facts,
};
use http::StatusCode;
use routing::{
    authz::Verdict as Decision,
    authz::{self, Dry, RuleName},
};
use std::sync::Arc;

/// The rules, for requests.
pub(super) struct Authorization {
    rules: Arc<authz::Authorization>,
    metrics: Arc<SecurityMetrics>,
}

impl Authorization {
    pub(super) fn new(rules: Arc<authz::Authorization>, metrics: Arc<SecurityMetrics>) -> Self {
        Self { rules, metrics }
    }
}

impl Policy for Authorization {
    type State = ();

    const HOOKS: Hooks = Hooks::REQUEST;

    fn name(&self) -> &str {
        "authorization"
    }

    async fn on_request(&self, _: &mut (), request: &mut RequestView<'_>) -> Answer {
        Ok(facts::with(request, |facts| {
            let outcome = self.rules.http.decide(facts);
            if let Some(rule) = outcome.audited {
                self.metrics.audited(rule);
            }
            for dry in [outcome.dry_deny, outcome.dry_allow].into_iter().flatten() {
                self.metrics.dry_run(dry.rule, matches!(dry, Dry { verdict: Decision::Allowed, .. }));
            }
            match outcome.verdict {
                Decision::Allowed => {
                    self.metrics.allowed.inc();
                    Verdict::Continue
                }
                Decision::Denied(rule) => {
                    self.metrics.denied.inc();
                    Verdict::Respond(denied(rule))
                }
            }
        }))
    }
}

/// The answer to what is refused, in Istio's words; the log says by which rule.
pub(super) fn denied(rule: Option<&RuleName>) -> Reply {
    Reply::text(StatusCode::FORBIDDEN, "RBAC: access denied").details(details(rule))
}

/// What the access log says of a refusal.
pub(crate) fn details(rule: Option<&RuleName>) -> String {
    format!("rbac_access_denied_matched_policy[{}]", rule.map_or("none", RuleName::as_str))
}

//! What the built-in policies count.

use crate::{
    policy::Failures,
    telemetry::{self, names},
};
use prometheus::{IntCounter, IntCounterVec, Opts};
use routing::authz::RuleName;
use std::sync::Arc;

/// Counters of the built-in policies.
#[derive(Clone, Debug)]
pub struct SecurityMetrics {
    decisions: IntCounterVec,
    pub(super) allowed: IntCounter,
    pub(super) denied: IntCounter,
    pub(super) token_refused: IntCounter,
    pub(super) asked_allowed: IntCounter,
    pub(super) asked_denied: IntCounter,
    pub(super) asked_failed: IntCounter,
    pub(in crate::policy) rate_allowed: IntCounter,
    pub(in crate::policy) rate_limited: IntCounter,
    pub(in crate::policy) too_long: IntCounter,
    /// Policies of any kind that could not judge.
    pub(super) failures: Arc<Failures>,
    failed: IntCounterVec,
    audited: IntCounterVec,
    dry_run: IntCounterVec,
}

impl SecurityMetrics {
    /// Counters that are registered.
    ///
    /// # Errors
    /// When one of their names is taken.
    pub fn register(telemetry: &telemetry::Metrics) -> prometheus::Result<SecurityMetrics> {
        let metrics = SecurityMetrics::new()?;
        for vector in [&metrics.decisions, &metrics.audited, &metrics.dry_run, &metrics.failed] {
            telemetry.register(Box::new(vector.clone()))?;
        }
        Ok(metrics)
    }

    fn new() -> prometheus::Result<SecurityMetrics> {
        let vector =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let decisions = vector(
            names::POLICY_DECISIONS,
            "Requests and connections that a policy decided",
            &["policy", "decision"],
        )?;
        let failed = vector(
            names::POLICY_FAILURES,
            "Requests that were refused because a policy could not judge them",
            &["policy"],
        )?;
        let of = |policy: &str, decision: &str| decisions.get_metric_with_label_values(&[policy, decision]);
        Ok(SecurityMetrics {
            allowed: of("authorization", "allowed")?,
            denied: of("authorization", "denied")?,
            token_refused: of("authentication", "denied")?,
            asked_allowed: of("external", "allowed")?,
            asked_denied: of("external", "denied")?,
            asked_failed: of("external", "failed")?,
            rate_allowed: of("rate_limit", "allowed")?,
            rate_limited: of("rate_limit", "denied")?,
            too_long: of("max_request_body", "denied")?,
            failures: Arc::new(Failures::new(failed.clone())),
            failed,
            audited: vector(
                names::POLICY_AUDITED,
                "Requests that a rule of the action AUDIT matched",
                &["policy"],
            )?,
            dry_run: vector(
                names::POLICY_DRY_RUN,
                "What policies on trial would have done; the policy is that of the rule that matched",
                &["policy", "decision"],
            )?,
            decisions,
        })
    }

    /// A rule of the action AUDIT matched.
    pub(crate) fn audited(&self, rule: &RuleName) {
        self.audited.with_label_values(&[rule.policy()]).inc();
        tracing::debug!(rule = rule.as_str(), "audited");
    }

    /// A policy on trial would have decided.
    pub(crate) fn dry_run(&self, rule: Option<&RuleName>, allowed: bool) {
        let decision = if allowed { "allowed" } else { "denied" };
        self.dry_run.with_label_values(&[rule.map_or("none", RuleName::policy), decision]).inc();
    }

    /// A connection that is not looked into was let in, or not.
    pub(crate) fn connection(&self, allowed: bool) {
        if allowed { self.allowed.inc() } else { self.denied.inc() }
    }
}

//! `limen.dev/max-request-body`: longer bodies are refused (Envoy: the buffer filter's words, without its buffer).
//!
//! Invariant: nothing beyond the limit goes upstream. A length that is said is judged before anything is sent.

use super::super::{
    Answer, BodyAccess, BodyPolicy, Hooks, Policy, RouteView, UpstreamView, Verdict,
    builtin::SecurityMetrics, passage::Body,
};
use http::{HeaderMap, header};
use std::sync::Arc;

/// The limits of a configuration.
pub(super) struct BodyLimit {
    metrics: Arc<SecurityMetrics>,
}

impl BodyLimit {
    pub(super) fn new(metrics: Arc<SecurityMetrics>) -> BodyLimit {
        BodyLimit { metrics }
    }
}

impl Policy for BodyLimit {
    type State = ();

    const HOOKS: Hooks = Hooks::ROUTE;

    fn name(&self) -> &str {
        "max_request_body"
    }

    async fn on_route(&self, (): &mut (), request: &mut RouteView<'_>) -> Answer {
        let limit = request.annotated(|policies| policies.max_request_body.as_ref());
        match limit {
            Some((_, limit)) if length(request.headers()).is_some_and(|length| length > *limit) => {
                self.metrics.too_long.inc();
                Ok(Verdict::Respond(Body::Request.too_long()))
            }
            _ => Ok(Verdict::Continue),
        }
    }
}

impl BodyPolicy for BodyLimit {
    fn request_body(&self, (): &mut (), attempt: &UpstreamView<'_>) -> BodyAccess {
        match attempt.annotated(|policies| policies.max_request_body.as_ref()) {
            Some((_, limit)) => BodyAccess::none().up_to(*limit),
            None => BodyAccess::none(),
        }
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

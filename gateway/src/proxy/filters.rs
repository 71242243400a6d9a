//! Fault and CORS of a rule, in Envoy's order, before anything is sent upstream.
//!
//! Invariant: a fault that aborts is answered as if there were no CORS policy; a preflight is answered as if there were no
//! rule (Envoy: the filters' order).

use super::{ctx::Ctx, reply::LocalReply};
use crate::telemetry::Flag;
use http::HeaderMap;
use pingora_proxy::Session;
use routing::{
    action::{cors::CorsPlan, fault::AbortStatus},
    route::Route,
};

/// What becomes of a request.
#[must_use]
pub(super) enum Passage {
    /// It goes on.
    Proceed,
    /// It is answered.
    Answer(LocalReply),
}

/// Lets a request through the filters of `route`, or answers it.
pub(super) async fn pass(route: &Route, session: &Session, ctx: &mut Ctx) -> Passage {
    let Some(filters) = route.forward().and_then(|forward| forward.filters.as_deref()) else {
        return Passage::Proceed;
    };
    if let Some(fault) = &filters.fault {
        let plan = fault.plan(|| fastrand::u64(..));
        if let Some(delay) = plan.delay {
            ctx.flags.insert(Flag::DelayInjected);
            tokio::time::sleep(delay).await;
        }
        if let Some(status) = plan.abort {
            return Passage::Answer(abort(status));
        }
    }
    let Some(cors) = &filters.cors else { return Passage::Proceed };
    let request = session.req_header();
    match cors.plan(&request.method, &request.headers) {
        CorsPlan::Pass => Passage::Proceed,
        CorsPlan::Mark { origin } => {
            ctx.cors_origin = Some(origin.clone());
            Passage::Proceed
        }
        CorsPlan::Preflight { origin } => {
            let mut headers = HeaderMap::new();
            cors.preflight(origin, &request.headers, &mut headers);
            // Each name stands there once.
            let headers = headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect();
            Passage::Answer(LocalReply::empty(200, "cors_response").headers(headers).without_operations())
        }
    }
}

fn abort(status: AbortStatus) -> LocalReply {
    let reply = |status| LocalReply::text(status, "fault filter abort".to_owned(), "fault_filter_abort");
    match status {
        AbortStatus::Http(status) => reply(status),
        // Whoever does not speak gRPC gets the 200 that carries a gRPC status (as Envoy 1.40 answers).
        AbortStatus::Grpc(code) => reply(200).grpc_status(code),
    }
    .flag(Flag::FaultInjected)
}

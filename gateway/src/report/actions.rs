//! What a forwarding rule does beside sending a request on, as data: retries, faults, cross-origin policy, copies.
//!
//! Invariant: dice are not thrown. What happens to a share of requests is shown with its share; only what happens to
//! all of them is told as the answer.

use super::answer::{Actions, ResponsePart};
use http::{HeaderMap, Method};
use routing::{
    action::{
        cors::{Cors, CorsPlan, Credentials, Listed, UnmatchedPreflight},
        fault::{AbortStatus, Fault},
        mirror::Mirror,
        retry::{Localities, PreviousHosts, RetryPolicy},
    },
    request::RequestHead,
    route::Forward,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Fills in what the rule says, and gives the reply that the gateway makes itself where every such request gets one.
pub(super) fn fill(actions: &mut Actions, head: &RequestHead<'_>, forward: &Forward) -> Option<ResponsePart> {
    actions.retries = forward.retry.as_deref().map(retries);
    let filters = forward.filters.as_deref()?;
    actions.mirror = filters.mirrors.iter().map(mirror).collect();
    actions.fault = filters.fault.as_ref().map(fault);
    let method = Method::from_bytes(head.method.as_bytes()).ok()?;
    let plan = filters.cors.as_ref().map(|cors| (cors, cors.plan(&method, head.headers)));
    actions.cors = plan.as_ref().map(|(cors, plan)| policy(cors, plan));
    let aborted = filters.fault.as_ref().and_then(|fault| fault.abort).filter(|a| a.share.percent() >= 100.0);
    if let Some(abort) = aborted {
        let (status, headers) = match abort.status {
            AbortStatus::Http(status) => (status, Vec::new()),
            AbortStatus::Grpc(code) => (200, vec![("grpc-status".to_owned(), code.to_string())]),
        };
        return Some(ResponsePart {
            status,
            headers: headers.into_iter().collect(),
            body: "fault filter abort".to_owned(),
            flags: "FI".to_owned(),
        });
    }
    let (cors, CorsPlan::Preflight { origin }) = plan? else { return None };
    let mut reply = HeaderMap::new();
    cors.preflight(origin, head.headers, &mut reply);
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Some(ResponsePart {
        status: 200,
        headers: reply.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: String::new(),
        flags: "-".to_owned(),
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn retries(policy: &RetryPolicy) -> Value {
    json!({
        "attempts": policy.retries,
        "retry_on": policy.on.names().collect::<Vec<_>>().join(","),
        "status_codes": policy.statuses,
        "per_try_timeout_ms": policy.per_try_timeout.map(millis),
        "backoff_ms": millis(policy.base),
        "previous_hosts": match policy.previous_hosts {
            PreviousHosts::Avoid => "avoid",
            PreviousHosts::Allow => "allow",
            PreviousHosts::AvoidUnlessHashed => "avoid_unless_hashed",
        },
        "remote_localities": policy.localities == Localities::Remote,
    })
}

fn mirror(mirror: &Mirror) -> Value {
    json!({"cluster": mirror.cluster.as_str(), "percentage": mirror.share.percent()})
}

fn fault(fault: &Fault) -> Value {
    json!({
        "delay": fault.delay.map(|delay| json!({
            "fixed_delay_ms": millis(delay.time),
            "percentage": delay.share.percent(),
        })),
        "abort": fault.abort.map(|abort| match abort.status {
            AbortStatus::Http(status) => {
                json!({"http_status": status, "percentage": abort.share.percent()})
            }
            AbortStatus::Grpc(code) => json!({"grpc_status": code, "percentage": abort.share.percent()}),
        }),
    })
}

fn policy(cors: &Cors, plan: &CorsPlan<'_>) -> Value {
    let listed = |listed: &Listed| match listed {
        Listed::Unsaid => Value::Null,
        Listed::Asked => "*".into(),
        Listed::These(list) => String::from_utf8_lossy(list.as_bytes()).into(),
    };
    let text = |value: &Option<http::HeaderValue>| {
        value.as_ref().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    };
    json!({
        "request": match plan {
            CorsPlan::Pass => "not_concerned",
            CorsPlan::Preflight { .. } => "preflight",
            CorsPlan::Mark { .. } => "allowed_origin",
        },
        "allow_origins": cors.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "allow_methods": listed(&cors.methods),
        "allow_headers": listed(&cors.headers),
        "expose_headers": text(&cors.expose),
        "max_age": text(&cors.max_age),
        "allow_credentials": cors.credentials == Credentials::Allow,
        "unmatched_preflights": match cors.unmatched {
            UnmatchedPreflight::Forward => "forward",
            UnmatchedPreflight::Answer => "answer",
        },
    })
}

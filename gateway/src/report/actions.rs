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

#[cfg(test)]
mod tests {
    use crate::report::{
        explain::{Answer, Question, Transport, answer},
        findings::Paint,
        story::story,
    };
    use http::{HeaderMap, HeaderValue};
    use std::collections::BTreeMap;

    fn told(rules: &str, method: &str) -> Answer {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: g, namespace: n}}
spec: {{servers: [{{port: {{number: 80, protocol: HTTP, name: http}}, hosts: ['*']}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: root, namespace: n}}
spec: {{hosts: [a.example], gateways: [g], http: [{{name: r, delegate: {{name: team}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: team, namespace: n}}
spec: {{http: [{rules}]}}
"
        );
        let mut set = config_model::set::ResourceSet::new();
        set.extend(config_model::parse::parse("t.yaml", &yaml).resources);
        let (validated, _) = config_model::validate::validate(set);
        let identity = routing::compile::Identity::default();
        let compiled = routing::compile::compile(&validated, &identity).0;
        let mut headers = HeaderMap::new();
        headers.insert("origin", HeaderValue::from_static("https://b.example"));
        headers.insert("access-control-request-method", HeaderValue::from_static("PUT"));
        let question = Question {
            method: method.to_owned(),
            transport: Transport::Plain,
            port: 80,
            authority: "a.example".to_owned(),
            path: "/".to_owned(),
            query: None,
            headers,
            alpn: None,
            client_ip: None,
            client_certificate: None,
            destination: None,
            direction: routing::listener::Direction::Gateway,
            seed: None,
            port_map: BTreeMap::new(),
        };
        answer(&compiled, &crate::edge::PathPolicy::of(validated.mesh()), &question)
    }

    #[test]
    fn a_rules_other_actions_are_told() {
        let told = told(
            "{route: [{destination: {host: x}}], mirror: {host: y}, mirrorPercentage: {value: 50},
              retries: {attempts: 3, retryOn: '5xx,429', perTryTimeout: 2s},
              fault: {delay: {fixedDelay: 7s, percentage: {value: 10}}, abort: {httpStatus: 418, percentage: {value: 5}}}}",
            "GET",
        );
        let actions = serde_json::to_value(&told.actions).unwrap();
        assert_eq!(actions["retries"]["attempts"], 3);
        assert_eq!(actions["retries"]["retry_on"], "5xx,retriable-status-codes");
        assert_eq!(actions["retries"]["per_try_timeout_ms"], 2000);
        assert_eq!(actions["mirror"][0]["cluster"], "outbound|80||y.n.svc.cluster.local");
        assert_eq!(actions["mirror"][0]["percentage"], 50.0);
        assert_eq!(actions["fault"]["delay"]["fixed_delay_ms"], 7000);
        assert_eq!(actions["fault"]["abort"]["http_status"], 418);
        let route = told.route.as_ref().unwrap();
        assert_eq!((route.virtual_service.as_str(), route.index), ("n/root", 0));
        assert_eq!(route.delegate.as_ref().unwrap().virtual_service, "n/team");
        let text = story(&told, Paint::Plain);
        for wanted in ["up to 3 retries on 5xx", "copy to ", "by n/team http[0]", "fixed_delay_ms"] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }

    #[test]
    fn what_everyone_gets_is_the_reply() {
        let abort = told(
            "{route: [{destination: {host: x}}], fault: {abort: {httpStatus: 503, percentage: {value: 100}}}}",
            "GET",
        );
        let response = abort.response.unwrap();
        assert_eq!((response.status, response.flags.as_str()), (503, "FI"));
        let rule = "{route: [{destination: {host: x}}], corsPolicy: {allowOrigins: [{exact: 'https://b.example'}], allowMethods: [PUT]}}";
        let preflight = told(rule, "OPTIONS").response.unwrap();
        assert_eq!(preflight.status, 200);
        assert_eq!(preflight.headers["access-control-allow-methods"], "PUT");
        let plain = told(rule, "GET");
        assert_eq!(plain.actions.cors.unwrap()["request"], "allowed_origin");
    }
}

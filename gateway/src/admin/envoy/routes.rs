//! Route tables, as the dump shows them.
//!
//! Invariant: virtual hosts and routes stand in the order in which they are tried.

use routing::{
    matcher::StringMatcher,
    path::PathMatch,
    route::{Action, Condition, Route},
    table::{RouteTable, VirtualHost},
};
use serde_json::{Map, Value, json};

use super::{any, made_of, weighted};

pub(super) fn route_config(table: &RouteTable) -> Value {
    let hosts: Vec<Value> = table.hosts().iter().map(|(_, host)| virtual_host(host)).collect();
    any(
        "envoy.config.route.v3.RouteConfiguration",
        json!({"name": &**table.name(), "virtual_hosts": hosts, "validate_clusters": false}),
    )
}

fn virtual_host(host: &VirtualHost) -> Value {
    let routes: Vec<Value> = host.routes().iter().map(|route| self::route(route)).collect();
    let tls = if host.require_tls() { "ALL" } else { "NONE" };
    json!({"name": &**host.name(), "domains": [&**host.domain()], "require_tls": tls, "routes": routes})
}

fn route(route: &Route) -> Value {
    let mut shown = Map::new();
    if let Some(name) = &route.origin.name {
        shown.insert("name".to_owned(), json!(&**name));
    }
    shown.insert("match".to_owned(), matching(route));
    let (key, action) = match &route.action {
        Action::Forward(forward) => {
            let mut action = match &*forward.destinations {
                [only] => json!({"cluster": only.cluster.as_str()}),
                all => {
                    json!({"weighted_clusters": weighted(all.iter().map(|d| (d.cluster.as_str(), d.weight)))})
                }
            };
            let timeout = forward.timeout.map_or(0.0, |timeout| timeout.as_secs_f64());
            action
                .as_object_mut()
                .map(|action| action.insert("timeout".to_owned(), json!(format!("{timeout}s"))));
            ("route", action)
        }
        Action::Redirect(redirect) => {
            let code = match redirect.code {
                302 => "FOUND",
                303 => "SEE_OTHER",
                307 => "TEMPORARY_REDIRECT",
                308 => "PERMANENT_REDIRECT",
                _ => "MOVED_PERMANENTLY",
            };
            let mut action = Map::new();
            action.insert("response_code".to_owned(), json!(code));
            if let Some(host) = &redirect.authority {
                action.insert("host_redirect".to_owned(), json!(&**host));
            }
            if let Some(scheme) = &redirect.scheme {
                action.insert("scheme_redirect".to_owned(), json!(&**scheme));
            }
            if let Some(port) = redirect.port {
                action.insert("port_redirect".to_owned(), json!(port));
            }
            ("redirect", Value::Object(action))
        }
        Action::Reply(reply) => {
            let body = String::from_utf8_lossy(&reply.body);
            ("direct_response", json!({"status": reply.status, "body": {"inline_string": body}}))
        }
    };
    shown.insert(key.to_owned(), action);
    shown.insert("metadata".to_owned(), made_of("virtual-service", &route.origin.virtual_service));
    Value::Object(shown)
}

fn matching(route: &Route) -> Value {
    let mut shown = Map::new();
    let folded = match &route.matcher.path {
        PathMatch::Any => {
            shown.insert("prefix".to_owned(), json!("/"));
            false
        }
        PathMatch::Exact { text, ignore_case } => {
            shown.insert("path".to_owned(), json!(&**text));
            *ignore_case
        }
        PathMatch::Prefix { text, ignore_case } => {
            shown.insert("prefix".to_owned(), json!(&**text));
            *ignore_case
        }
        PathMatch::Regex(pattern) => {
            shown.insert("safe_regex".to_owned(), json!({"regex": pattern.as_str()}));
            false
        }
    };
    if folded {
        shown.insert("case_sensitive".to_owned(), json!(false));
    }
    let (mut headers, mut parameters) = (Vec::new(), Vec::new());
    for condition in &route.matcher.conditions {
        match condition {
            Condition::Method(matcher) => headers.push(value_match(":method", matcher)),
            Condition::Scheme(matcher) => headers.push(value_match(":scheme", matcher)),
            Condition::Authority(matcher) => headers.push(value_match(":authority", matcher)),
            Condition::Header { name, matcher } => headers.push(value_match(&name.to_string(), matcher)),
            Condition::NotHeader { name, matcher } => {
                let mut shown = value_match(&name.to_string(), matcher);
                shown.as_object_mut().map(|shown| shown.insert("invert_match".to_owned(), json!(true)));
                headers.push(shown);
            }
            Condition::Query { key, matcher } => parameters.push(value_match(key, matcher)),
            // Claims are metadata in Envoy, which nobody reads here; what never holds has no form at all.
            Condition::Claim { .. } | Condition::NotClaim { .. } | Condition::Never { .. } => {}
        }
    }
    if !headers.is_empty() {
        shown.insert("headers".to_owned(), json!(headers));
    }
    if !parameters.is_empty() {
        shown.insert("query_parameters".to_owned(), json!(parameters));
    }
    Value::Object(shown)
}

fn value_match(name: &str, matcher: &StringMatcher) -> Value {
    match matcher {
        StringMatcher::Present => json!({"name": name, "present_match": true}),
        StringMatcher::Exact(text) => json!({"name": name, "string_match": {"exact": &**text}}),
        StringMatcher::Prefix(text) => json!({"name": name, "string_match": {"prefix": &**text}}),
        StringMatcher::Regex(pattern) => {
            json!({"name": name, "string_match": {"safe_regex": {"regex": pattern.as_str()}}})
        }
    }
}

//! An explanation as a text to read.
//!
//! Invariant: says nothing that the answer's data does not say.

use super::{
    explain::{Answer, HeaderChanges, Verdict},
    findings::Paint,
};

fn retries(policy: &serde_json::Value) -> String {
    let on = policy["retry_on"].as_str().unwrap_or_default();
    format!("up to {} retries on {on}", policy["attempts"])
}

/// The numbered story of one request.
#[must_use]
pub fn story(answer: &Answer, paint: Paint) -> String {
    let mut lines = Vec::new();
    lines.push(("listener", listener(answer)));
    if let Some(host) = &answer.virtual_host {
        lines.push(("host", format!("{} (domain {})", host.name, host.domain)));
    }
    for (at, candidate) in answer.candidates.iter().enumerate() {
        let heading = if at == 0 { "rules" } else { "" };
        let verdict = if candidate.matched { "yes" } else { "no " };
        let place =
            format!("{}[{}].match[{}]", candidate.virtual_service, candidate.index, candidate.match_index);
        lines.push((heading, format!("{verdict} {place}: {}", candidate.reason)));
    }
    if let Some(route) = &answer.route {
        let name = route.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
        let by = route.delegate.as_ref();
        let by = by.map(|lent| format!(", by {} http[{}]", lent.virtual_service, lent.index));
        let by = by.unwrap_or_default();
        lines.push(("route", format!("{} http[{}]{name}{by}", route.virtual_service, route.index)));
    }
    let actions = &answer.actions;
    let mut what = Vec::new();
    what.extend(actions.path.as_ref().map(|path| format!("path {path}")));
    what.extend(actions.authority.as_ref().map(|authority| format!("authority {authority}")));
    what.extend(actions.timeout_ms.map(|timeout| format!("timeout {timeout} ms")));
    what.extend(actions.retries.as_ref().map(retries));
    what.extend(actions.fault.as_ref().map(|fault| format!("fault {fault}")));
    what.extend(actions.mirror.iter().map(|mirror| format!("copy to {mirror}")));
    what.extend(actions.cors.as_ref().map(|cors| format!("cross-origin policy {cors}")));
    let policies = actions.policies.iter();
    what.extend(policies.map(|(name, policy)| format!("{name}: {} (by {})", policy.asks, policy.of)));
    what.extend(headers("request headers", &actions.request_headers));
    what.extend(headers("response headers", &actions.response_headers));
    if !what.is_empty() {
        lines.push(("action", what.join("; ")));
    }
    for (at, cluster) in answer.clusters.iter().enumerate() {
        let heading = if at == 0 { "target" } else { "" };
        let endpoints = match cluster.endpoints {
            1 => "1 endpoint".to_owned(),
            n => format!("{n} endpoints"),
        };
        lines.push((heading, format!("{} weight {}, {endpoints}", cluster.name, cluster.weight)));
    }
    if let Some(response) = &answer.response {
        let headers: String =
            response.headers.iter().map(|(name, value)| format!("; {name}: {value}")).collect();
        let body =
            if response.body.is_empty() { String::new() } else { format!("; body {:?}", response.body) };
        let flags = if response.flags == "-" { String::new() } else { format!("; flag {}", response.flags) };
        lines.push(("reply", format!("{}{headers}{body}{flags}", response.status)));
    }
    for (at, candidate) in answer.shadowed.iter().enumerate() {
        let heading = if at == 0 { "shadowed" } else { "" };
        let place =
            format!("{}[{}].match[{}]", candidate.virtual_service, candidate.index, candidate.match_index);
        lines.push((heading, format!("{place} would match too, but comes later")));
    }
    let mut out = String::new();
    let mut number = 0;
    for (heading, line) in lines {
        let lead = if heading.is_empty() {
            String::new()
        } else {
            number += 1;
            number.to_string()
        };
        let safe: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        out.push_str(&format!("{lead:>2} {heading:<9} {safe}\n"));
    }
    let colour = match answer.verdict {
        Verdict::Forward | Verdict::Redirect | Verdict::DirectResponse | Verdict::Passthrough => "32",
        Verdict::NotFound | Verdict::Misdirected | Verdict::Refused | Verdict::Denied => "31",
    };
    let why = answer.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    out.push_str(&format!("=> {}{why}\n", paint.paint(colour, name(answer.verdict))));
    out
}

fn listener(answer: &Answer) -> String {
    let Some(listener) = &answer.listener else { return "none on this port".to_owned() };
    let mut text = format!("{} on port {}", listener.name, listener.port);
    if let (Some(gateway), Some(server)) = (&listener.gateway, &listener.server) {
        text.push_str(&format!(", Gateway {gateway} server {server}"));
    }
    if let Some(mode) = &listener.tls_mode {
        text.push_str(&format!(", TLS {mode}"));
    }
    text
}

fn headers(what: &str, changes: &HeaderChanges) -> Option<String> {
    let removed = changes.remove.iter().map(|name| format!("-{name}"));
    let set = changes.set.iter().map(|(name, value)| format!("{name}={value}"));
    let added = changes.add.iter().map(|(name, value)| format!("+{name}={value}"));
    let all: Vec<_> = removed.chain(set).chain(added).collect();
    (!all.is_empty()).then(|| format!("{what} {}", all.join(" ")))
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward => "forward",
        Verdict::Redirect => "redirect",
        Verdict::DirectResponse => "direct response",
        Verdict::NotFound => "not found",
        Verdict::Misdirected => "misdirected",
        Verdict::Refused => "refused",
        Verdict::Passthrough => "passthrough",
        Verdict::Denied => "denied",
    }
}

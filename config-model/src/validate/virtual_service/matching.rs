//! One match of an HTTP rule.

use std::collections::BTreeMap;

use super::{
    super::{check::Check, names, regex},
    gateway_name,
};
use crate::{
    istio::{VirtualService, virtual_service::HttpMatchRequest},
    scalar::{HeaderName, StringMatch},
};

/// What the regex `*`, which is none, means in a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Star {
    /// Presence, as Istio reads it.
    MeansPresent,
    /// A regex like any other, and so an error.
    IsARegex,
}

pub(super) fn check(
    check: &mut Check<'_, VirtualService>,
    path: &str,
    entry: &HttpMatchRequest,
    on_mesh: bool,
) {
    for (field, condition) in [
        ("uri", &entry.uri),
        ("scheme", &entry.scheme),
        ("method", &entry.method),
        ("authority", &entry.authority),
    ] {
        let Some(condition) = condition else { continue };
        // An empty prefix of the path is tolerated: it matches every path.
        if field == "uri" && matches!(condition, StringMatch::Prefix(prefix) if prefix.is_empty()) {
            continue;
        }
        string_match(check, &format!("{path}.{field}"), condition, Star::IsARegex);
    }
    headers(check, &format!("{path}.headers"), &entry.headers, on_mesh, Star::IsARegex);
    headers(check, &format!("{path}.withoutHeaders"), &entry.without_headers, on_mesh, Star::MeansPresent);
    for (name, condition) in &entry.query_params {
        let path = format!("{path}.queryParams.{name}");
        match condition {
            None => check.error(path, "a null condition; write {} for presence"),
            Some(condition) => string_match(check, &path, condition, Star::MeansPresent),
        }
    }
    for (index, gateway) in entry.gateways.iter().enumerate() {
        gateway_name(check, &format!("{path}.gateways[{index}]"), gateway);
    }
    if !entry.source_namespace.is_empty() && !names::is_label(&entry.source_namespace) {
        check.error(
            format!("{path}.sourceNamespace"),
            format!("{:?} is not the name of a namespace", entry.source_namespace),
        );
    }
    check.labels(&format!("{path}.sourceLabels"), &entry.source_labels);
}

fn headers(
    check: &mut Check<'_, VirtualService>,
    path: &str,
    conditions: &BTreeMap<String, Option<StringMatch>>,
    on_mesh: bool,
    star: Star,
) {
    for (name, condition) in conditions {
        let path = format!("{path}.{name}");
        if is_claim(name) {
            if on_mesh {
                check.error(
                    &path,
                    "claims can be matched only by a VirtualService that is not bound to the mesh",
                );
            }
        } else if !is_header(name) {
            check.error(&path, format!("{name:?} is not a header name"));
        }
        match condition {
            None if star == Star::IsARegex => check.error(&path, "a null condition; write {} for presence"),
            None => {}
            Some(condition) => string_match(check, &path, condition, star),
        }
    }
}

/// `@request.auth.claims.x` or `@request.auth.claims[x]`, without regard to case.
fn is_claim(name: &str) -> bool {
    const PREFIX: &str = "@request.auth.claims";
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        && name.get(PREFIX.len()..).is_some_and(|rest| rest.len() > 1 && rest.starts_with(['.', '[']))
}

fn is_header(name: &str) -> bool {
    match name.parse::<HeaderName>() {
        Ok(header) if header.is_pseudo() => {
            matches!(header.as_str(), ":method" | ":scheme" | ":authority" | ":path" | ":status")
        }
        Ok(_) => true,
        Err(_) => false,
    }
}

/// An empty prefix or regex is a mistake, and a regex must be one.
pub(super) fn string_match(
    check: &mut Check<'_, VirtualService>,
    path: &str,
    condition: &StringMatch,
    star: Star,
) {
    match condition {
        StringMatch::Exact(_) | StringMatch::Present => {}
        StringMatch::Prefix(prefix) if prefix.is_empty() => {
            check.error(format!("{path}.prefix"), "an empty prefix")
        }
        StringMatch::Prefix(_) => {}
        StringMatch::Regex(pattern) if pattern.is_empty() => {
            check.error(format!("{path}.regex"), "an empty regex")
        }
        StringMatch::Regex(pattern) if pattern == "*" && star == Star::MeansPresent => {}
        StringMatch::Regex(pattern) => {
            if let Some(reason) = regex::check_regex(pattern) {
                check.error(format!("{path}.regex"), reason);
            }
        }
    }
}

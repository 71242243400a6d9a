//! Rules that no request can reach because an earlier rule takes everything it would match.

use std::collections::HashSet;

use super::super::check::Check;
use crate::{
    diagnostic::{Code, Diagnostic},
    istio::{
        VirtualService,
        virtual_service::{HttpMatchRequest, HttpRoute},
    },
    scalar::StringMatch,
};

pub(super) fn check(check: &mut Check<'_, VirtualService>, routes: &[HttpRoute]) {
    let mut catch_all: Option<usize> = None;
    let mut seen: HashSet<String> = HashSet::new();
    for (index, route) in routes.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        if let Some(earlier) = catch_all {
            let message = format!("no request reaches this rule: spec.http[{earlier}] takes every request");
            check.push(
                Diagnostic::new(Code::UNREACHABLE_RULE, message)
                    .at(path)
                    .hint("move the rule that matches everything to the end"),
            );
            continue;
        }
        let repeated: Vec<usize> = route
            .matches
            .iter()
            .enumerate()
            .filter(|(_, entry)| !seen.insert(conditions(entry)))
            .map(|(index, _)| index)
            .collect();
        if !route.matches.is_empty() && repeated.len() == route.matches.len() {
            let message = "no request reaches this rule: earlier rules have the same matches";
            check.push(Diagnostic::new(Code::UNREACHABLE_RULE, message).at(path));
        } else {
            for entry in repeated {
                let message = "an earlier rule has the same match";
                check.push(
                    Diagnostic::new(Code::INEFFECTIVE_MATCH, message).at(format!("{path}.match[{entry}]")),
                );
            }
        }
        if route.matches.is_empty() || route.matches.iter().any(is_catch_all) {
            catch_all = Some(index);
        }
    }
}

/// What a match demands, as a text that is equal for equal demands.
fn conditions(entry: &HttpMatchRequest) -> String {
    let mut entry = entry.clone();
    entry.name.clear();
    entry.stat_prefix.clear();
    format!("{entry:?}")
}

/// Nothing demanded but a path that every path begins with. A match for one port or gateway is none: others go on.
fn is_catch_all(entry: &HttpMatchRequest) -> bool {
    let every_path = match &entry.uri {
        None => true,
        Some(StringMatch::Prefix(prefix)) => prefix == "/",
        Some(StringMatch::Regex(pattern)) => pattern == ".*",
        Some(_) => false,
    };
    let bare = HttpMatchRequest {
        uri: entry.uri.clone(),
        name: entry.name.clone(),
        stat_prefix: entry.stat_prefix.clone(),
        ignore_uri_case: entry.ignore_uri_case,
        ..HttpMatchRequest::default()
    };
    every_path && *entry == bare
}

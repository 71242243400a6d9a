//! Rules and matches that no request can reach, because earlier ones take everything they would match.
//!
//! Istio: analyzeUnreachableHTTPRules and its kin, with their codes. Where Istio compares only the form of two matches, what
//! they mean is compared here: one covers the other when whatever the other demands implies all that it demands.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt::Debug,
    hash::{Hash, Hasher},
};

use super::{At, Check};
use crate::{
    diagnostic::{Code, Diagnostic},
    istio::{
        VirtualService,
        virtual_service::{HttpMatchRequest, HttpRoute},
    },
    scalar::StringMatch,
};

pub(super) fn check(check: &mut Check<'_, VirtualService>, spec: &VirtualService) {
    http(check, &spec.http);
    l4(check, "spec.tls", spec.tls.iter().map(|route| route.matches.as_slice()));
    l4(check, "spec.tcp", spec.tcp.iter().map(|route| route.matches.as_slice()));
}

fn http(check: &mut Check<'_, VirtualService>, routes: &[HttpRoute]) {
    let mut catch_all: Option<usize> = None;
    let mut seen: HashMap<Demands<'_>, usize> = HashMap::new();
    let mut prefixes = Prefixes::default();
    for (rule, route) in routes.iter().enumerate() {
        let path = format_args!("spec.http[{rule}]");
        let name = || rule_name(rule, &route.name);
        if let Some(earlier) = catch_all {
            let reason = if route.matches.is_empty() {
                "only the last rule can have no matches"
            } else if routes.get(earlier).is_some_and(|route| route.matches.is_empty()) {
                "route without matches defined before"
            } else {
                "a route that matches every request is defined before"
            };
            unreachable(check, path, &name(), reason);
            continue;
        }
        let mut duplicates = 0;
        for (index, entry) in route.matches.iter().enumerate() {
            let earlier = match seen.entry(Demands(entry)) {
                Entry::Occupied(earlier) => {
                    duplicates += 1;
                    Some((*earlier.get(), Code::INEFFECTIVE_MATCH))
                }
                Entry::Vacant(none) => {
                    none.insert(rule);
                    prefixes.covering(entry).map(|earlier| (earlier, covered(entry)))
                }
            };
            match earlier {
                Some((earlier, code)) => {
                    let at = format_args!("{path}.match[{index}]");
                    let other = routes.get(earlier).map(|route| rule_name(earlier, &route.name));
                    let own = rule_name(index, &entry.name);
                    ineffective(check, code, at, [&name(), &own, &other.unwrap_or_default()]);
                }
                None => prefixes.insert(entry, rule),
            }
        }
        if !route.matches.is_empty() && duplicates == route.matches.len() {
            unreachable(check, path, &name(), "all matches used by prior rules");
        }
        if route.matches.is_empty() || route.matches.iter().any(is_catch_all) {
            catch_all = Some(rule);
        }
    }
}

/// TLS and TCP rules: equal matches, and rules behind one without matches.
fn l4<'m, M: Debug + 'm>(
    check: &mut Check<'_, VirtualService>,
    path: &str,
    routes: impl Iterator<Item = &'m [M]>,
) {
    let mut catch_all = false;
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (rule, matches) in routes.enumerate() {
        let path = format_args!("{path}[{rule}]");
        let name = rule_name(rule, "");
        if catch_all {
            let reason = match matches {
                [] => "only the last rule can have no matches",
                _ => "route without matches defined before",
            };
            unreachable(check, path, &name, reason);
            continue;
        }
        let mut duplicates = 0;
        for (index, entry) in matches.iter().enumerate() {
            let text = format!("{entry:?}");
            if let Some(earlier) = seen.get(&text) {
                duplicates += 1;
                let at = format_args!("{path}.match[{index}]");
                let names = [&name, &rule_name(index, ""), &rule_name(*earlier, "")];
                ineffective(check, Code::INEFFECTIVE_MATCH, at, names);
            } else {
                seen.insert(text, rule);
            }
        }
        catch_all = matches.is_empty();
        if !matches.is_empty() && duplicates == matches.len() {
            unreachable(check, path, &name, "all matches used by prior rules");
        }
    }
}

fn unreachable(check: &mut Check<'_, VirtualService>, path: At<'_>, rule: &str, reason: &str) {
    let message = format!("VirtualService rule {rule} not used ({reason}).");
    let finding = Diagnostic::new(Code::UNREACHABLE_RULE, message);
    check.push(
        finding
            .at(path.to_string())
            .hint("rules are tried in order: put the narrower one first, or remove this one"),
    );
}

/// The number of a match that an earlier prefix covers: Istio compares prefixes with prefixes and has none for the rest.
fn covered(entry: &HttpMatchRequest) -> Code {
    match entry.uri {
        Some(StringMatch::Exact(_)) => Code::EXACT_BEHIND_PREFIX,
        _ => Code::INEFFECTIVE_MATCH,
    }
}

fn ineffective(
    check: &mut Check<'_, VirtualService>,
    code: Code,
    path: At<'_>,
    [rule, entry, earlier]: [&String; 3],
) {
    let message = format!(
        "VirtualService rule {rule} match {entry} is not used (duplicate/overlapping match in rule {earlier})."
    );
    let finding = Diagnostic::new(code, message);
    check.push(finding.at(path.to_string()).hint("rules are tried in order: put the narrower one first"));
}

/// How Istio names a rule or match in these messages.
fn rule_name(index: usize, name: &str) -> String {
    if name.is_empty() { format!("#{index}") } else { format!("{name:?}") }
}

/// What a match demands: its name and how it is counted are no part of that.
struct Demands<'a>(&'a HttpMatchRequest);

impl PartialEq for Demands<'_> {
    fn eq(&self, other: &Self) -> bool {
        let HttpMatchRequest {
            name: _,
            stat_prefix: _,
            uri,
            scheme,
            method,
            authority,
            headers,
            port,
            source_labels,
            gateways,
            query_params,
            ignore_uri_case,
            without_headers,
            source_namespace,
        } = self.0;
        let other = other.0;
        *uri == other.uri
            && *scheme == other.scheme
            && *method == other.method
            && *authority == other.authority
            && *headers == other.headers
            && *port == other.port
            && *source_labels == other.source_labels
            && *gateways == other.gateways
            && *query_params == other.query_params
            && *ignore_uri_case == other.ignore_uri_case
            && *without_headers == other.without_headers
            && *source_namespace == other.source_namespace
    }
}

impl Eq for Demands<'_> {}

impl Hash for Demands<'_> {
    /// By what most matches differ in.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.0.uri, &self.0.method, &self.0.headers, &self.0.query_params).hash(hasher);
    }
}

/// Matches by their path's prefix, so that only those are compared whose prefix begins the other's path.
#[derive(Default)]
struct Prefixes<'a>(BTreeMap<&'a str, Vec<(usize, &'a HttpMatchRequest)>>);

impl<'a> Prefixes<'a> {
    fn insert(&mut self, entry: &'a HttpMatchRequest, rule: usize) {
        let Some(StringMatch::Prefix(prefix)) = &entry.uri else { return };
        // Matches without regard to case would have to be found under every spelling.
        if !entry.ignore_uri_case {
            self.0.entry(prefix).or_default().push((rule, entry));
        }
    }

    /// The rule of an earlier match that takes all that this match would.
    fn covering(&self, entry: &HttpMatchRequest) -> Option<usize> {
        let path = match &entry.uri {
            Some(StringMatch::Exact(path) | StringMatch::Prefix(path)) if !entry.ignore_uri_case => path,
            _ => return None,
        };
        let mut end = path.len();
        while let Some((prefix, entries)) = self.0.range(..=path.get(..end)?).next_back() {
            let shared = prefix.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
            if shared == prefix.len() {
                let earlier = entries.iter().find(|(_, earlier)| demands_less(earlier, entry));
                if let Some((rule, _)) = earlier {
                    return Some(*rule);
                }
                end = shared.checked_sub(1)?;
            } else {
                end = shared;
            }
            while !path.is_char_boundary(end) {
                end -= 1;
            }
        }
        None
    }
}

/// Whether all that `a` demands besides the path is implied by what `b` demands.
fn demands_less(a: &HttpMatchRequest, b: &HttpMatchRequest) -> bool {
    let opt = |a: &Option<StringMatch>, b: &Option<StringMatch>| match (a, b) {
        (None, _) => true,
        (Some(a), Some(b)) => implies(b, a),
        (Some(_), None) => false,
    };
    let all = |a: &BTreeMap<String, Option<StringMatch>>, b: &BTreeMap<String, Option<StringMatch>>| {
        a.iter().all(|(name, wanted)| {
            let given = b.get(name);
            match (wanted, given) {
                (_, None) => false,
                (None | Some(StringMatch::Present), Some(_)) => true,
                (Some(wanted), Some(Some(given))) => implies(given, wanted),
                (Some(_), Some(None)) => false,
            }
        })
    };
    opt(&a.scheme, &b.scheme)
        && opt(&a.method, &b.method)
        && opt(&a.authority, &b.authority)
        && all(&a.headers, &b.headers)
        && all(&a.query_params, &b.query_params)
        // What must be absent is compared as it is written: negation turns implication round.
        && a.without_headers.iter().all(|(name, value)| b.without_headers.get(name) == Some(value))
        && (a.port.is_none() || a.port == b.port)
        && (a.gateways.is_empty() || a.gateways == b.gateways)
        && a.source_labels.iter().all(|(key, value)| b.source_labels.get(key) == Some(value))
        && (a.source_namespace.is_empty() || a.source_namespace == b.source_namespace)
}

/// Whether every text that `given` takes is one that `wanted` takes.
fn implies(given: &StringMatch, wanted: &StringMatch) -> bool {
    match (given, wanted) {
        (_, StringMatch::Present) => true,
        (StringMatch::Exact(given) | StringMatch::Prefix(given), StringMatch::Prefix(wanted)) => {
            given.starts_with(wanted)
        }
        (given, wanted) => given == wanted,
    }
}

/// Nothing demanded but a path that every path begins with. A match for one port or gateway is none: others go on.
fn is_catch_all(entry: &HttpMatchRequest) -> bool {
    let every_path = match &entry.uri {
        None | Some(StringMatch::Present) => true,
        Some(StringMatch::Prefix(prefix)) => matches!(prefix.as_str(), "" | "/"),
        Some(StringMatch::Regex(pattern)) => pattern == ".*",
        Some(StringMatch::Exact(_)) => false,
    };
    if !every_path {
        return false;
    }
    let bare = HttpMatchRequest {
        uri: entry.uri.clone(),
        name: entry.name.clone(),
        stat_prefix: entry.stat_prefix.clone(),
        ignore_uri_case: entry.ignore_uri_case,
        ..HttpMatchRequest::default()
    };
    *entry == bare
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{VS, findings};

    fn rules(matches: &[&str]) -> Vec<String> {
        let rules: String = matches
            .iter()
            .map(|entries| format!("  - match: [{entries}]\n    directResponse: {{status: 200}}\n"))
            .collect();
        let mut found = findings(&format!("{VS}  hosts: [a.com]\n  http:\n{rules}"));
        found.retain(|line| !line.starts_with("LIM0017"));
        found
    }

    #[test]
    fn equal_matches() {
        let a = "{uri: {exact: /a}}";
        assert_eq!(rules(&[a, "{uri: {exact: /b}}"]), Vec::<String>::new());
        assert_eq!(rules(&[a, a]), ["IST0130 spec.http[1]", "IST0131 spec.http[1].match[0]"]);
        assert_eq!(
            rules(&[a, "{uri: {exact: /b}}, {name: again, uri: {exact: /a}}"]),
            ["IST0131 spec.http[1].match[1]"]
        );
    }

    #[test]
    fn rules_behind_one_that_takes_all() {
        assert_eq!(rules(&["", "{uri: {exact: /a}}"]), ["IST0130 spec.http[1]"]);
        assert_eq!(rules(&["", ""]), ["IST0130 spec.http[1]"]);
        assert_eq!(rules(&["{uri: {prefix: /}}", "{uri: {exact: /a}}"]), ["IST0130 spec.http[1]"]);
        assert_eq!(rules(&["{uri: {prefix: /}, port: 80}", "{uri: {exact: /a}}"]), Vec::<String>::new());
    }

    #[test]
    fn prefixes_that_cover() {
        for (first, second, covered) in [
            ("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", true),
            ("{uri: {prefix: /a}}", "{uri: {exact: /ab}}", true),
            ("{uri: {prefix: /a/b}}", "{uri: {prefix: /a}}", false),
            ("{uri: {prefix: /a}, method: {exact: GET}}", "{uri: {prefix: /ab}}", false),
            ("{uri: {prefix: /a}}", "{uri: {prefix: /ab}, method: {exact: GET}}", true),
            (
                "{uri: {prefix: /a}, headers: {x: {prefix: a}}}",
                "{uri: {prefix: /ab}, headers: {x: {exact: ab}}}",
                true,
            ),
            (
                "{uri: {prefix: /a}, headers: {x: {}}}",
                "{uri: {prefix: /ab}, headers: {x: {exact: ab}}}",
                true,
            ),
            (
                "{uri: {prefix: /a}, headers: {x: {exact: b}}}",
                "{uri: {prefix: /ab}, headers: {x: {exact: c}}}",
                false,
            ),
            ("{uri: {prefix: /a}, withoutHeaders: {x: {}}}", "{uri: {prefix: /ab}}", false),
            ("{uri: {prefix: /a}, port: 80}", "{uri: {prefix: /ab}, port: 81}", false),
        ] {
            let code = if second.starts_with("{uri: {exact") { "LIM0023" } else { "IST0131" };
            let wants = if covered { vec![format!("{code} spec.http[1].match[0]")] } else { vec![] };
            assert_eq!(rules(&[first, second]), wants, "{first} {second}");
        }
        // The nearest prefix does not cover, a shorter one does.
        let wide = "{uri: {prefix: /a}}";
        let near = "{uri: {prefix: /abc}, method: {exact: PUT}}";
        assert_eq!(
            rules(&[wide, near, "{uri: {prefix: /abcd}}"]),
            ["IST0131 spec.http[1].match[0]", "IST0131 spec.http[2].match[0]"]
        );
    }

    #[test]
    fn l4_rules() {
        let to = "route: [{destination: {host: s.com}}]";
        let mut found = findings(&format!(
            "{VS}  hosts: [a.com]\n  tcp:\n  - {{match: [{{port: 1}}], {to}}}\n  - {{match: [{{port: 1}}], {to}}}\n  - {{{to}}}\n  - {{match: [{{port: 2}}], {to}}}\n"
        ));
        found.retain(|line| !line.starts_with("IST0101"));
        assert_eq!(found, ["IST0130 spec.tcp[1]", "IST0131 spec.tcp[1].match[0]", "IST0130 spec.tcp[3]"]);
    }
}

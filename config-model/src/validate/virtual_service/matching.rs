//! One match of an HTTP rule (Istio: validateHTTPRouteMatchRequest).

use super::{At, Check, Scope, gateway_names, names};
use crate::{
    istio::{VirtualService, virtual_service::HttpMatchRequest},
    scalar::{HeaderName, StringMatch},
    validate::regex::check_regex,
};

pub(super) fn check(
    check: &mut Check<'_, VirtualService>,
    path: At<'_>,
    entry: &HttpMatchRequest,
    scope: Scope,
) {
    // An empty prefix of the path is tolerated: it matches every path.
    if let Some(uri) = &entry.uri {
        regex(check, format_args!("{path}.uri"), uri);
    }
    for (field, condition) in
        [("scheme", &entry.scheme), ("method", &entry.method), ("authority", &entry.authority)]
    {
        if let Some(condition) = condition {
            string_match(check, format_args!("{path}.{field}"), condition);
        }
    }
    for (name, condition) in &entry.headers {
        let path = format_args!("{path}.headers.{name}");
        header_name(check, path, name, scope);
        match condition {
            None => check.refuse(
                path,
                format!("header match {name} cannot be null"),
                "write {} to ask for the header with any value",
            ),
            Some(condition) => string_match(check, path, condition),
        }
    }
    for (name, condition) in &entry.without_headers {
        let path = format_args!("{path}.withoutHeaders.{name}");
        header_name(check, path, name, scope);
        // The regex "*", which is none, means presence here.
        let condition = condition.as_ref();
        if let Some(condition) =
            condition.filter(|condition| !matches!(condition, StringMatch::Regex(text) if text == "*"))
        {
            string_match(check, path, condition);
        }
    }
    for (name, condition) in &entry.query_params {
        if let Some(condition) = condition {
            string_match(check, format_args!("{path}.queryParams.{name}"), condition);
        }
    }
    check.labels(format_args!("{path}.sourceLabels"), &entry.source_labels);
    gateway_names(check, format_args!("{path}.gateways"), &entry.gateways);
    if !entry.source_namespace.is_empty() && !names::is_label(&entry.source_namespace) {
        check.error(
            format!("{path}.sourceNamespace"),
            format!("sourceNamespace match {} is invalid", entry.source_namespace),
        );
    }
}

/// A header, a pseudo-header, or for gateways a claim of a token.
fn header_name(check: &mut Check<'_, VirtualService>, path: At<'_>, name: &str, scope: Scope) {
    if is_claim(name) {
        if scope == Scope::Mesh {
            check.refuse(
                path,
                format!(
                    "JWT claim based routing (key: {name}) is only supported for gateway, found no gateways"
                ),
                "name the gateways that the VirtualService is for, without mesh",
            );
        }
    } else if name.is_empty() {
        check.error(path, "header name cannot be empty");
    } else if !matches!(name, ":method" | ":scheme" | ":authority" | ":path" | ":status") && !is_token(name) {
        check.error(path, format!("header name {name} is not a valid header name"));
    }
}

/// The characters of a header name (RFC 9110 §5.6.2).
pub(super) fn is_token(name: &str) -> bool {
    name.parse::<HeaderName>().is_ok_and(|name| !name.is_pseudo())
}

/// `@request.auth.claims.x` or `@request.auth.claims[x]`, the prefix without regard to case (Istio: ToRoutingClaim).
pub(in crate::validate) fn is_claim(name: &str) -> bool {
    const PREFIX: &str = "@request.auth.claims";
    let Some((start, rest)) = name.split_at_checked(PREFIX.len()) else { return false };
    let dotted = rest.starts_with('.') && rest.len() > 1;
    let squared = rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2;
    start.eq_ignore_ascii_case(PREFIX) && (dotted || squared)
}

/// An empty prefix or regex is a mistake, and a regex must be one.
fn string_match(check: &mut Check<'_, VirtualService>, path: At<'_>, condition: &StringMatch) {
    match condition {
        StringMatch::Prefix(prefix) if prefix.is_empty() => check.refuse(
            format!("{path}.prefix"),
            "prefix string match should not be empty",
            "write {} to ask for any value",
        ),
        _ => regex(check, path, condition),
    }
}

/// The regex of a condition, if it has one.
pub(super) fn regex(check: &mut Check<'_, VirtualService>, path: At<'_>, condition: &StringMatch) {
    let StringMatch::Regex(pattern) = condition else { return };
    let path = format_args!("{path}.regex");
    if pattern.is_empty() {
        check.error(path, "regex string match should not be empty");
    } else if let Some(reason) = check_regex(pattern) {
        check.error(path, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::{
        tests::{VS, findings},
        virtual_service::http::tests::rule,
    };

    #[test]
    fn conditions() {
        for (entry, finds) in [
            ("{uri: {regex: '('}}", vec!["!IST0106 match[0].uri.regex"]),
            ("{uri: {regex: ''}}", vec!["!IST0106 match[0].uri.regex"]),
            ("{uri: {prefix: ''}}", vec![]),
            ("{method: {prefix: ''}}", vec!["!IST0106 match[0].method.prefix"]),
            ("{authority: {regex: '*'}}", vec!["!IST0106 match[0].authority.regex"]),
            ("{headers: {'a b': {}}}", vec!["!IST0106 match[0].headers.a b"]),
            ("{headers: {a: null}}", vec!["!IST0106 match[0].headers.a"]),
            ("{headers: {a: {prefix: ''}}}", vec!["!IST0106 match[0].headers.a.prefix"]),
            ("{headers: {a: {regex: '*'}}}", vec!["!IST0106 match[0].headers.a.regex"]),
            ("{headers: {':authority': {exact: a}}}", vec![]),
            ("{headers: {':path2': {exact: a}}}", vec!["!IST0106 match[0].headers.:path2"]),
            ("{withoutHeaders: {a: {regex: '*'}}}", vec![]),
            ("{withoutHeaders: {a: null}}", vec![]),
            ("{withoutHeaders: {'a b': {}}}", vec!["!IST0106 match[0].withoutHeaders.a b"]),
            ("{queryParams: {a: {prefix: ''}}}", vec!["!IST0106 match[0].queryParams.a.prefix"]),
            ("{sourceNamespace: a_b}", vec!["!IST0106 match[0].sourceNamespace"]),
            ("{sourceLabels: {'/a': b}}", vec!["!IST0106 match[0].sourceLabels"]),
            ("{gateways: [a_b]}", vec!["!IST0106 match[0].gateways[0]"]),
            (
                "{headers: {'@request.auth.claims.a': {exact: b}}}",
                vec!["!IST0106 match[0].headers.@request.auth.claims.a"],
            ),
        ] {
            assert_eq!(rule(&format!("match: [{entry}]")), finds, "{entry}");
        }
    }

    #[test]
    fn claims_are_for_gateways() {
        let text = format!(
            "{VS}  hosts: [a.com]\n  gateways: [gw]\n  http:\n  - match: [{{headers: {{'@request.auth.claims[a]': {{exact: b}}}}}}]\n    directResponse: {{status: 200}}\n"
        );
        assert_eq!(findings(&text), ["IST0101 spec.gateways[0]", "IST0132 spec.gateways[0]"]);
        for (name, claim) in [
            ("@Request.Auth.Claims.a", true),
            ("@request.auth.claims[a][b]", true),
            ("@request.auth.claims", false),
            ("@request.auth.claims.", false),
            ("@request.auth.claims[]", false),
            ("@request.auth.claims[a", false),
        ] {
            assert_eq!(is_claim(name), claim, "{name}");
        }
    }
}

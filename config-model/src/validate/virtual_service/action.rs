//! What an HTTP rule does: forward, redirect, reply, or delegate. One of them, and each by its own rules.

use super::{At, Check};
use crate::{
    istio::{
        VirtualService,
        virtual_service::{HttpDirectResponse, HttpRedirect, HttpRewrite, HttpRoute},
    },
    scalar::StringMatch,
    validate::regex::check_regex,
};

const MAX_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

pub(super) fn check(
    check: &mut Check<'_, VirtualService>,
    path: At<'_>,
    route: &HttpRoute,
    is_delegate: bool,
) {
    if route.delegate.is_some() && !is_delegate {
        root(check, path, route);
    } else {
        if route.delegate.is_some() {
            check.error(format!("{path}.delegate"), "delegate HTTP route cannot contain delegate");
        }
        one_action(check, path, route);
    }
    if let Some(redirect) = &route.redirect {
        check_redirect(check, format_args!("{path}.redirect"), redirect, route);
    }
    if let Some(response) = &route.direct_response {
        check_response(check, format_args!("{path}.directResponse"), response);
    }
    if let Some(rewrite) = &route.rewrite {
        check_rewrite(check, format_args!("{path}.rewrite"), rewrite);
    }
}

/// A rule that delegates does nothing else. Istio does not look at directResponse here.
fn root(check: &mut Check<'_, VirtualService>, path: At<'_>, route: &HttpRoute) {
    for (field, used) in [("redirect", route.redirect.is_some()), ("route", !route.route.is_empty())] {
        if used {
            check.error(
                format!("{path}.delegate"),
                format!("root HTTP route {} must not specify {field}", route.name),
            );
        }
    }
}

fn one_action(check: &mut Check<'_, VirtualService>, path: At<'_>, route: &HttpRoute) {
    let forwards = !route.route.is_empty();
    let what = match (&route.redirect, &route.direct_response) {
        (Some(_), replies) => {
            if replies.is_some() {
                check.error(path, "HTTP route rule cannot contain both direct_response and redirect");
            }
            "redirect"
        }
        (None, Some(_)) => "direct_response",
        (None, None) => {
            if !forwards {
                check.refuse(
                    path,
                    "HTTP route, redirect or direct_response is required",
                    "say where requests go: add route with a destination",
                );
            }
            return;
        }
    };
    if forwards {
        check.error(path, format!("HTTP route cannot contain both route and {what}"));
    }
    if route.fault.is_some() {
        check.error(format!("{path}.fault"), format!("HTTP route cannot contain both fault and {what}"));
    }
    if route.rewrite.is_some() {
        check.error(
            format!("{path}.rewrite"),
            format!("HTTP route rule cannot contain both rewrite and {what}"),
        );
    }
}

fn check_redirect(
    check: &mut Check<'_, VirtualService>,
    path: At<'_>,
    redirect: &HttpRedirect,
    route: &HttpRoute,
) {
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        check.error(path, "redirect may only specify one of uri or prefix_rewrite");
    }
    let only_prefixes =
        route.matches.iter().all(|entry| matches!(entry.uri, None | Some(StringMatch::Prefix(_))));
    if !redirect.prefix_rewrite.is_empty() && !only_prefixes {
        check.error(
            format!("{path}.prefixRewrite"),
            "redirect prefix_rewrite requires all URI matches to use prefix match type",
        );
    }
    let texts = [&redirect.uri, &redirect.prefix_rewrite, &redirect.authority, &redirect.scheme];
    let port = redirect.port.is_some() || redirect.derive_port.is_some();
    if texts.iter().all(|text| text.is_empty()) && !port {
        check.error(path, "redirect must specify URI, authority, scheme, or port");
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        check.error(path, "at most one of port and derivePort may be set");
    }
    match redirect.redirect_code {
        0 | 301 | 302 | 303 | 307 | 308 => {}
        300..=399 => check.warn(
            format!("{path}.redirectCode"),
            "no redirect has this code; the rule answers only with 301, 302, 303, 307 or 308",
        ),
        code => check.error(
            format!("{path}.redirectCode"),
            format!("{code} is not a valid redirect code, must be 3xx"),
        ),
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        check.error(format!("{path}.scheme"), "invalid redirect scheme, must be \"http\" or \"https\"");
    }
}

fn check_response(check: &mut Check<'_, VirtualService>, path: At<'_>, response: &HttpDirectResponse) {
    if !(200..=599).contains(&response.status) {
        check.error(
            format!("{path}.status"),
            format!("HTTP status {} is not in range 200-599", response.status),
        );
    }
    let Some(body) = &response.body else { return };
    if body.string.is_some() && body.bytes.is_some() {
        check.error(format!("{path}.body"), "at most one of string and bytes may be set");
    }
    match body.decode() {
        None => check.error(format!("{path}.body.bytes"), "not valid base64"),
        Some(bytes) if bytes.len() > MAX_BODY => {
            let message =
                "large direct_responses may impact control plane performance, must be less than 1MB";
            check.error(format!("{path}.body"), message);
        }
        Some(bytes) if bytes.len() > LARGE_BODY => {
            check.warn(format!("{path}.body"), "large direct_responses may impact control plane performance");
        }
        Some(_) => {}
    }
}

fn check_rewrite(check: &mut Check<'_, VirtualService>, path: At<'_>, rewrite: &HttpRewrite) {
    if *rewrite == HttpRewrite::default() {
        check.error(path, "rewrite must specify at least one of URI, UriRegexRewrite, or authority");
    }
    let Some(regex) = &rewrite.uri_regex_rewrite else { return };
    if !rewrite.uri.is_empty() {
        check.error(path, "rewrite may only contain one of URI or UriRegexRewrite");
    }
    let path = format_args!("{path}.uriRegexRewrite");
    if regex.pattern.is_empty() || regex.rewrite.is_empty() {
        check.error(path, "UriRegexRewrite requires both Rewrite and Match fields to be specified");
    } else if let Some(reason) = check_regex(&regex.pattern) {
        check.error(format!("{path}.match"), reason);
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::virtual_service::http::tests::{rule, whole};

    #[test]
    fn one_action() {
        for (text, finds) in [
            ("{}", vec!["!IST0106 "]),
            ("{directResponse: {status: 200}}", vec![]),
            ("{directResponse: {status: 200}, redirect: {uri: /x}}", vec!["!IST0106 "]),
            ("{redirect: {uri: /x}, rewrite: {uri: /y}}", vec!["!IST0106 rewrite"]),
            ("{directResponse: {status: 200}, fault: {abort: {httpStatus: 500}}}", vec!["!IST0106 fault"]),
            ("{delegate: {name: nope}, redirect: {uri: /x}}", vec!["!IST0106 delegate"]),
            ("{delegate: {name: nope}, route: [{destination: {host: s}}]}", vec!["!IST0106 delegate"]),
        ] {
            assert_eq!(whole(text), finds, "{text}");
        }
        assert_eq!(rule("directResponse: {status: 200}"), ["!IST0106 "]);
        assert_eq!(rule("redirect: {uri: /x}"), ["!IST0106 "]);
    }

    #[test]
    fn redirects() {
        let with =
            |redirect: &str, entry: &str| whole(&format!("{{match: [{entry}], redirect: {redirect}}}"));
        let any = "{uri: {prefix: /}}";
        for (redirect, entry, finds) in [
            ("{}", any, vec!["!IST0106 redirect"]),
            ("{uri: /x, prefixRewrite: /y}", any, vec!["!IST0106 redirect"]),
            ("{prefixRewrite: /y}", "{uri: {exact: /a}}", vec!["!IST0106 redirect.prefixRewrite"]),
            ("{prefixRewrite: /y}", "{port: 80}", vec![]),
            ("{derivePort: FROM_REQUEST_PORT}", any, vec![]),
            ("{port: 80, derivePort: FROM_REQUEST_PORT}", any, vec!["!IST0106 redirect"]),
            ("{scheme: ftp}", any, vec!["!IST0106 redirect.scheme"]),
            ("{uri: /x, redirectCode: 304}", any, vec!["IST0133 redirect.redirectCode"]),
            ("{uri: /x, redirectCode: 200}", any, vec!["!IST0106 redirect.redirectCode"]),
        ] {
            assert_eq!(with(redirect, entry), finds, "{redirect}");
        }
    }

    #[test]
    fn replies() {
        let with = |response: &str| whole(&format!("{{directResponse: {response}}}"));
        let body = |count: usize| format!("{{status: 200, body: {{string: '{}'}}}}", "x".repeat(count));
        assert_eq!(with("{status: 199}"), ["!IST0106 directResponse.status"]);
        assert_eq!(with("{status: 600}"), ["!IST0106 directResponse.status"]);
        assert_eq!(with("{status: 599, body: {bytes: aGk=}}"), Vec::<String>::new());
        assert_eq!(with("{status: 200, body: {bytes: '!'}}"), ["!IST0106 directResponse.body.bytes"]);
        assert_eq!(with("{status: 200, body: {bytes: aGk=, string: a}}"), ["!IST0106 directResponse.body"]);
        assert_eq!(with(&body(100 << 10)), Vec::<String>::new());
        assert_eq!(with(&body((100 << 10) + 1)), ["IST0133 directResponse.body"]);
        assert_eq!(with(&body((1 << 20) + 1)), ["!IST0106 directResponse.body"]);
    }

    #[test]
    fn rewrites() {
        for (rewrite, finds) in [
            ("{uri: /x}", vec![]),
            ("{authority: x}", vec![]),
            ("{}", vec!["!IST0106 rewrite"]),
            ("{uri: /, uriRegexRewrite: {match: a, rewrite: b}}", vec!["!IST0106 rewrite"]),
            ("{uriRegexRewrite: {match: a}}", vec!["!IST0106 rewrite.uriRegexRewrite"]),
            ("{uriRegexRewrite: {match: '(', rewrite: b}}", vec!["!IST0106 rewrite.uriRegexRewrite.match"]),
            ("{uriRegexRewrite: {match: '/a/(.*)', rewrite: '/\\1'}}", vec![]),
        ] {
            assert_eq!(rule(&format!("rewrite: {rewrite}")), finds, "{rewrite}");
        }
    }
}

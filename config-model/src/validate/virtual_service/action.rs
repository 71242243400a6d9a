//! What an HTTP rule does: forward, redirect, reply, or delegate. One of them, and each by its own rules.

use super::super::{check::Check, regex};
use crate::{
    istio::{
        VirtualService,
        virtual_service::{HttpDirectResponse, HttpRedirect, HttpRewrite, HttpRoute},
    },
    scalar::StringMatch,
};

const MAX_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

pub(super) fn check(check: &mut Check<'_, VirtualService>, path: &str, route: &HttpRoute, is_delegate: bool) {
    let forwards = !route.route.is_empty();
    let redirects = route.redirect.is_some();
    let replies = route.direct_response.is_some();
    if route.delegate.is_some() {
        if is_delegate {
            check.error(format!("{path}.delegate"), "a delegate cannot delegate again");
        }
        if forwards || redirects {
            check.error(format!("{path}.delegate"), "a rule that delegates cannot have route or redirect");
        }
    } else {
        match [forwards, redirects, replies].iter().filter(|used| **used).count() {
            0 => check.error(path, "the rule needs one of route, redirect and directResponse"),
            1 => {}
            _ => check.error(path, "the rule may have only one of route, redirect and directResponse"),
        }
    }
    if redirects || replies {
        let what = if redirects { "redirect" } else { "directResponse" };
        if route.fault.is_some() {
            check.error(format!("{path}.fault"), format!("fault cannot be used with {what}"));
        }
        if route.rewrite.is_some() {
            check.error(format!("{path}.rewrite"), format!("rewrite cannot be used with {what}"));
        }
    }
    if let Some(redirect) = &route.redirect {
        check_redirect(check, &format!("{path}.redirect"), redirect, route);
    }
    if let Some(response) = &route.direct_response {
        check_response(check, &format!("{path}.directResponse"), response);
    }
    if let Some(rewrite) = &route.rewrite {
        check_rewrite(check, &format!("{path}.rewrite"), rewrite);
    }
}

fn check_redirect(
    check: &mut Check<'_, VirtualService>,
    path: &str,
    redirect: &HttpRedirect,
    route: &HttpRoute,
) {
    if *redirect == HttpRedirect::default() {
        check.error(path, "an empty redirect");
    }
    // Admission accepts every 3xx, but other codes than these give a broken route, so they are refused here.
    if !matches!(redirect.redirect_code, 0 | 301 | 302 | 303 | 307 | 308) {
        check.error(format!("{path}.redirectCode"), "the code must be 301, 302, 303, 307 or 308");
    }
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        check.error(path, "uri and prefixRewrite cannot be used together");
    }
    if !redirect.prefix_rewrite.is_empty() {
        let only_prefixes =
            route.matches.iter().all(|entry| matches!(entry.uri, None | Some(StringMatch::Prefix(_))));
        if !only_prefixes {
            check
                .error(format!("{path}.prefixRewrite"), "prefixRewrite needs every match to be a uri prefix");
        }
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        check.error(format!("{path}.scheme"), format!("{:?} is neither http nor https", redirect.scheme));
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        check.error(path, "port and derivePort cannot be used together");
    }
}

fn check_response(check: &mut Check<'_, VirtualService>, path: &str, response: &HttpDirectResponse) {
    if !(200..=599).contains(&response.status) {
        check.error(format!("{path}.status"), "the status must be from 200 to 599");
    }
    let Some(body) = &response.body else { return };
    if body.string.is_some() && body.bytes.is_some() {
        check.error(format!("{path}.body"), "at most one of string and bytes may be set");
    }
    match body.decode() {
        None => check.error(format!("{path}.body.bytes"), "not valid base64"),
        Some(bytes) if bytes.len() > MAX_BODY => {
            check.error(format!("{path}.body"), "the body is above 1 MiB")
        }
        Some(bytes) if bytes.len() > LARGE_BODY => {
            check.warn(format!("{path}.body"), "the body is above 100 KiB")
        }
        Some(_) => {}
    }
}

fn check_rewrite(check: &mut Check<'_, VirtualService>, path: &str, rewrite: &HttpRewrite) {
    if *rewrite == HttpRewrite::default() {
        check.error(path, "an empty rewrite; set uri, uriRegexRewrite or authority");
    }
    let Some(regex) = &rewrite.uri_regex_rewrite else { return };
    if !rewrite.uri.is_empty() {
        check.error(path, "uri and uriRegexRewrite cannot be used together");
    }
    let path = format!("{path}.uriRegexRewrite");
    if regex.pattern.is_empty() || regex.rewrite.is_empty() {
        check.error(&path, "match and rewrite are both required");
    } else if let Some(reason) = regex::check_regex(&regex.pattern) {
        check.error(format!("{path}.match"), reason);
    }
}

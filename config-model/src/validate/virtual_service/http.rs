//! One HTTP rule of a VirtualService: which parts it may combine, and each part (Istio: validateHTTPRoute).

use super::{At, Check, Scope, action, cors, destination, fault, headers, matching, retry, weights};
use crate::istio::{VirtualService, virtual_service::HttpRoute};

pub(super) fn check(
    check: &mut Check<'_, VirtualService>,
    path: At<'_>,
    route: &HttpRoute,
    is_delegate: bool,
    scope: Scope,
) {
    action::check(check, path, route, is_delegate);
    for (index, entry) in route.matches.iter().enumerate() {
        matching::check(check, format_args!("{path}.match[{index}]"), entry, scope);
    }
    for (index, to) in route.route.iter().enumerate() {
        let path = format_args!("{path}.route[{index}]");
        destination(check, format_args!("{path}.destination"), &to.destination);
        headers::check(check, format_args!("{path}.headers"), to.headers.as_deref());
    }
    weights(check, format_args!("{path}.route"), route.route.iter().map(|to| to.weight));
    headers::check(check, format_args!("{path}.headers"), route.headers.as_deref());
    headers::authority_once(check, path, route);
    check.duration(format_args!("{path}.timeout"), route.timeout);
    if let Some(retries) = &route.retries {
        retry::check(check, format_args!("{path}.retries"), retries);
    }
    if let Some(cors) = &route.cors_policy {
        cors::check(check, format_args!("{path}.corsPolicy"), cors);
    }
    if let Some(fault) = &route.fault {
        fault::check(check, format_args!("{path}.fault"), fault);
    }
    mirrors(check, path, route);
}

fn mirrors(check: &mut Check<'_, VirtualService>, path: At<'_>, route: &HttpRoute) {
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        check.error(format!("{path}.mirrors"), "HTTP route cannot contain both mirror and mirrors");
    }
    if let Some(mirror) = &route.mirror {
        destination(check, format_args!("{path}.mirror"), mirror);
    }
    for (index, mirror) in route.mirrors.iter().enumerate() {
        destination(check, format_args!("{path}.mirrors[{index}].destination"), &mirror.destination);
    }
    if let Some(percent) = route.mirror_percent {
        let path = format_args!("{path}.mirrorPercent");
        if percent > 100 {
            let message = format!("mirror_percent must have a max value of 100 (it has {percent})");
            check.error(path, message);
        }
        check.warn(path, "using deprecated setting \"mirrorPercent\", use \"mirrorPercentage\" instead");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::validate::tests::{VS, findings};

    const SERVICE: &str =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";

    /// What is found in a rule, with paths that begin below it.
    pub(in crate::validate::virtual_service) fn whole(rule: &str) -> Vec<String> {
        let mut found = findings(&format!("{VS}  hosts: [a.com]\n  http:\n  - {rule}\n{SERVICE}"));
        found.retain(|line| !line.starts_with("LIM"));
        found.into_iter().map(|line| line.replace("spec.http[0].", "").replace("spec.http[0]", "")).collect()
    }

    /// What is found in a rule that forwards and does something more.
    pub(in crate::validate::virtual_service) fn rule(rest: &str) -> Vec<String> {
        whole(&format!("{{route: [{{destination: {{host: s}}}}], {rest}}}"))
    }

    #[test]
    fn parts() {
        for (rest, finds) in [
            ("timeout: 1s", vec![]),
            ("timeout: 0s", vec!["!IST0106 timeout"]),
            ("timeout: 0.0015s", vec!["!IST0106 timeout"]),
            ("mirror: {host: s}, mirrors: [{destination: {host: s}}]", vec!["!IST0106 mirrors"]),
            ("mirror: {host: '*'}", vec!["!IST0106 mirror.host"]),
            ("mirrors: [{destination: {host: a_b}}]", vec!["!IST0106 mirrors[0].destination.host"]),
            ("mirror: {host: s}, mirrorPercent: 50", vec!["IST0133 mirrorPercent"]),
            (
                "mirror: {host: s}, mirrorPercent: 101",
                vec!["!IST0106 mirrorPercent", "IST0133 mirrorPercent"],
            ),
        ] {
            let mut found = rule(rest);
            found.sort();
            assert_eq!(found, finds, "{rest}");
        }
    }

    #[test]
    fn destinations() {
        for (to, finds) in [
            ("{destination: {host: s}, weight: 0}", vec![]),
            ("{destination: {host: s}}, {destination: {host: s}}", vec!["!IST0106 route"]),
            ("{destination: {host: s}, weight: 1}, {destination: {host: s}}", vec![]),
            ("{}", vec!["!IST0106 route[0].destination"]),
            ("{destination: {subset: v1}}", vec!["!IST0106 route[0].destination"]),
            (
                "{}, {destination: {host: t}}",
                vec!["!IST0106 route", "!IST0106 route[0].destination", "IST0101 route[1].destination.host"],
            ),
            ("{destination: {host: '*'}}", vec!["!IST0106 route[0].destination.host"]),
            ("{destination: {host: 10.0.0.1}}", vec!["!IST0106 route[0].destination.host"]),
            ("{destination: {host: s, subset: a_b}}", vec!["!IST0106 route[0].destination.subset"]),
            ("{destination: {host: s, port: {number: 0}}}", vec!["!IST0106 route[0].destination.port"]),
            (
                "{destination: {host: s}, headers: {response: {remove: [host]}}}",
                vec!["!IST0106 route[0].headers.response.remove[0]"],
            ),
        ] {
            assert_eq!(whole(&format!("{{route: [{to}]}}")), finds, "{to}");
        }
    }
}

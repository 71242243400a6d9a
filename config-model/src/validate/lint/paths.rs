//! Prefixes of paths that end inside a name, and rewrites that leave `//` or glue names together.
//!
//! Envoy compares a prefix byte by byte and puts the rewrite in its place as it is (Istio: §prefix_rewrite of route.go).

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::{
        VirtualService,
        virtual_service::{HttpMatchRequest, HttpRoute},
    },
    meta::Resource,
    scalar::StringMatch,
    validate::check::At,
};

pub(super) fn check(resource: &Resource<VirtualService>, out: &mut Diagnostics) {
    for (rule, route) in resource.spec.http.iter().enumerate() {
        let path = format_args!("spec.http[{rule}]");
        for (index, entry) in route.matches.iter().enumerate() {
            let Some(prefix) = prefix_of(entry) else { continue };
            if let Some(finding) = within_a_name(prefix, format_args!("{path}.match[{index}].uri.prefix")) {
                out.push(finding.about(&resource.key, &resource.origin));
            }
        }
        if let Some(finding) = joint(route, path) {
            out.push(finding.about(&resource.key, &resource.origin));
        }
    }
}

fn prefix_of(entry: &HttpMatchRequest) -> Option<&str> {
    match &entry.uri {
        Some(StringMatch::Prefix(prefix)) => Some(prefix),
        _ => None,
    }
}

/// `/foo` takes `/foobar` too. A prefix that ends in another sign than a letter or digit was cut there on purpose.
fn within_a_name(prefix: &str, path: At<'_>) -> Option<Diagnostic> {
    let inside = prefix.starts_with('/') && prefix.ends_with(|c: char| c.is_ascii_alphanumeric());
    inside.then(|| {
        let message = format!(
            "prefix {prefix:?} also matches {:?}: it is compared byte by byte",
            format!("{prefix}bar")
        );
        let hint = format!("if the folder is meant, match prefix \"{prefix}/\" and exact {prefix:?}");
        Diagnostic::new(Code::PREFIX_WITHIN_NAME, message).at(path.to_string()).hint(hint)
    })
}

/// What a rewrite makes where the prefix ended: `//`, or two names in one.
fn joint(route: &HttpRoute, path: At<'_>) -> Option<Diagnostic> {
    let rewrite = route.rewrite.as_ref().map(|rewrite| (rewrite.uri.as_str(), "rewrite.uri"));
    let redirect =
        route.redirect.as_ref().map(|redirect| (redirect.prefix_rewrite.as_str(), "redirect.prefixRewrite"));
    let (new, field) = rewrite.into_iter().chain(redirect).find(|(new, _)| !new.is_empty())?;
    route.matches.iter().filter_map(prefix_of).filter(|prefix| !prefix.is_empty()).find_map(|prefix| {
        let (asked, made, what) = match (prefix.ends_with('/'), new.ends_with('/')) {
            (false, true) => (format!("{prefix}/x"), format!("{new}/x"), "has an empty segment"),
            (true, false) => (format!("{prefix}x"), format!("{new}x"), "lost the slash between two names"),
            _ => return None,
        };
        let message = format!("{asked:?} becomes {made:?}, which {what}");
        let hint =
            format!("let match prefix {prefix:?} and {field} {new:?} both end with a slash, or neither");
        Some(Diagnostic::new(Code::REWRITE_BREAKS_PATH, message).at(format!("{path}.{field}")).hint(hint))
    })
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{VS, run};

    fn rule(rule: &str) -> Vec<String> {
        let (_, found) = run(&format!("{VS}  hosts: [a.com]\n  http:\n  - {rule}\n"));
        let own = found.into_iter().filter(|d| d.code.as_str().starts_with("LIM"));
        own.map(|d| format!("{} {}", d.code, d.path.replace("spec.http[0].", ""))).collect()
    }

    #[test]
    fn prefixes() {
        for (prefix, noted) in [
            ("/foo", true),
            ("/foo/bar2", true),
            ("/foo/", false),
            ("/", false),
            ("/img_", false),
            ("/v1.", false),
        ] {
            let found =
                rule(&format!("{{match: [{{uri: {{prefix: {prefix}}}}}], directResponse: {{status: 200}}}}"));
            let wants: Vec<&str> = if noted { vec!["LIM0017 match[0].uri.prefix"] } else { vec![] };
            assert_eq!(found, wants, "{prefix}");
        }
    }

    #[test]
    fn joints() {
        for (prefix, new, breaks) in [
            ("/foo/", "/", false),
            ("/foo.", "/", true),
            ("/foo/", "/bar", true),
            ("/foo.", "/bar", false),
            ("/", "/bar/", false),
        ] {
            let rewrite = rule(&format!(
                "{{match: [{{uri: {{prefix: {prefix}}}}}], rewrite: {{uri: {new}}}, route: [{{destination: {{host: a.b}}}}]}}"
            ));
            let wants: Vec<&str> = if breaks { vec!["LIM0018 rewrite.uri"] } else { vec![] };
            assert_eq!(rewrite, wants, "{prefix} {new}");
            let redirect = rule(&format!(
                "{{match: [{{uri: {{prefix: {prefix}}}}}], redirect: {{prefixRewrite: {new}}}}}"
            ));
            let wants: Vec<&str> = if breaks { vec!["LIM0018 redirect.prefixRewrite"] } else { vec![] };
            assert_eq!(redirect, wants, "{prefix} {new}");
        }
        assert_eq!(
            rule(
                "{match: [{uri: {exact: /foo}}], rewrite: {uri: /bar/}, route: [{destination: {host: a.b}}]}"
            ),
            Vec::<String>::new()
        );
    }
}

//! One rule of a root and one of its delegate made into one.
//!
//! Invariant: a merged match takes no request that either side would refuse. Where that cannot be seen from the text of
//! the two sides, they are in conflict (Istio: virtualservice.go `mergeHTTPRoute`).

use config_model::{
    istio::virtual_service::{Destination, HttpMatchRequest, HttpRoute},
    scalar::StringMatch,
    validate::{resolve_gateway_name, resolve_short_name},
};
use std::collections::BTreeMap;

/// A rule with the names of hosts and Gateways written in full, as of its namespace.
pub(super) fn in_full(rule: &HttpRoute, namespace: &str, domain: &str) -> HttpRoute {
    let mut rule = rule.clone();
    let name = |destination: &mut Destination| {
        if let Ok(host) = resolve_short_name(&destination.host, namespace, domain).parse() {
            destination.host = host;
        }
    };
    rule.route.iter_mut().for_each(|to| name(&mut to.destination));
    rule.mirror.as_deref_mut().into_iter().for_each(name);
    rule.mirrors.iter_mut().for_each(|to| name(&mut to.destination));
    for gateway in rule.matches.iter_mut().flat_map(|entry| &mut entry.gateways) {
        if let Some((namespace, name)) = resolve_gateway_name(gateway, namespace) {
            *gateway = format!("{namespace}/{name}");
        }
    }
    rule
}

/// For each match of a merged rule, its number in the root's rule and in the delegate's.
pub(super) type Numbers = Vec<(usize, usize)>;

/// The rule of both, and for each of its matches the numbers of the two it was made of; `None` when some match of the
/// delegate fits no match of the root. A field that the delegate leaves out is the root's, as a whole.
pub(super) fn merge(root: &HttpRoute, leaf: HttpRoute) -> Option<(HttpRoute, Numbers)> {
    let (matches, numbers) = merge_matches(&root.matches, &leaf.matches)?;
    let merged = HttpRoute {
        name: join(&root.name, &leaf.name),
        matches,
        rewrite: leaf.rewrite.or_else(|| root.rewrite.clone()),
        direct_response: leaf.direct_response.or_else(|| root.direct_response.clone()),
        timeout: leaf.timeout.or(root.timeout),
        retries: leaf.retries.or_else(|| root.retries.clone()),
        fault: leaf.fault.or_else(|| root.fault.clone()),
        mirror: leaf.mirror.or_else(|| root.mirror.clone()),
        mirror_percent: leaf.mirror_percent.or(root.mirror_percent),
        mirror_percentage: leaf.mirror_percentage.or(root.mirror_percentage),
        cors_policy: leaf.cors_policy.or_else(|| root.cors_policy.clone()),
        mirrors: if leaf.mirrors.is_empty() { root.mirrors.clone() } else { leaf.mirrors },
        headers: leaf.headers.or_else(|| root.headers.clone()),
        route: leaf.route,
        redirect: leaf.redirect,
        delegate: None,
    };
    Some((merged, numbers))
}

fn join(root: &str, leaf: &str) -> String {
    match (root, leaf) {
        ("", only) | (only, "") => only.to_owned(),
        (root, leaf) => format!("{root}-{leaf}"),
    }
}

fn merge_matches(
    root: &[HttpMatchRequest],
    leaf: &[HttpMatchRequest],
) -> Option<(Vec<HttpMatchRequest>, Numbers)> {
    if root.is_empty() {
        return Some((leaf.to_vec(), (0..leaf.len()).map(|at| (0, at)).collect()));
    }
    if leaf.is_empty() {
        return Some((root.to_vec(), (0..root.len()).map(|at| (at, 0)).collect()));
    }
    let mut merged = Vec::new();
    let mut numbers = Vec::new();
    for (l, leaf) in leaf.iter().enumerate() {
        let before = merged.len();
        for (r, root) in root.iter().enumerate().filter(|(_, root)| !conflicts(root, leaf)) {
            merged.push(merge_match(root, leaf));
            numbers.push((r, l));
        }
        if merged.len() == before {
            return None;
        }
    }
    Some((merged, numbers))
}

type Conditions = BTreeMap<String, Option<StringMatch>>;

fn merge_match(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> HttpMatchRequest {
    let either =
        |root: &Option<StringMatch>, leaf: &Option<StringMatch>| leaf.clone().or_else(|| root.clone());
    let union = |root: &Conditions, leaf: &Conditions| {
        let mut all = root.clone();
        all.extend(leaf.clone());
        all
    };
    let text = |root: &str, leaf: &str| if leaf.is_empty() { root.to_owned() } else { leaf.to_owned() };
    let mut source_labels = root.source_labels.clone();
    source_labels.extend(leaf.source_labels.clone());
    HttpMatchRequest {
        name: join(&root.name, &leaf.name),
        uri: either(&root.uri, &leaf.uri),
        scheme: either(&root.scheme, &leaf.scheme),
        method: either(&root.method, &leaf.method),
        authority: either(&root.authority, &leaf.authority),
        headers: union(&root.headers, &leaf.headers),
        port: leaf.port.or(root.port),
        source_labels,
        gateways: if leaf.gateways.is_empty() { root.gateways.clone() } else { leaf.gateways.clone() },
        query_params: union(&root.query_params, &leaf.query_params),
        ignore_uri_case: leaf.ignore_uri_case,
        without_headers: union(&root.without_headers, &leaf.without_headers),
        source_namespace: text(&root.source_namespace, &leaf.source_namespace),
        stat_prefix: text(&root.stat_prefix, &leaf.stat_prefix),
    }
}

/// Istio: virtualservice.go `hasConflict`.
fn conflicts(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let fields = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    let keys = maps.into_iter().flat_map(|(root, leaf)| {
        leaf.iter().filter_map(|(key, leaf)| root.get(key).map(|root| (root, leaf)))
    });
    if fields.into_iter().chain(keys).any(|(root, leaf)| texts_conflict(root.as_ref(), leaf.as_ref())) {
        return true;
    }
    let ports = root.port.zip(leaf.port).is_some_and(|(root, leaf)| root != leaf);
    // A root's namespace must be repeated: a leaf without one is taken to want another.
    let namespace = !root.source_namespace.is_empty() && root.source_namespace != leaf.source_namespace;
    let differs =
        |key: &String, value: &String| root.source_labels.get(key).is_some_and(|other| other != value);
    let labels = leaf.source_labels.iter().any(|(key, value)| differs(key, value));
    let gateways =
        !root.gateways.is_empty() && leaf.gateways.iter().any(|name| !root.gateways.contains(name));
    root.ignore_uri_case != leaf.ignore_uri_case || ports || namespace || labels || gateways
}

/// Istio: virtualservice.go `stringMatchConflict`. An empty text counts as none, and presence on either side is always a
/// conflict.
fn texts_conflict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else { return false };
    match (root, leaf) {
        (StringMatch::Exact(root), StringMatch::Exact(leaf)) if !root.is_empty() => root != leaf,
        (StringMatch::Prefix(root), StringMatch::Prefix(leaf) | StringMatch::Exact(leaf))
            if !root.is_empty() && !leaf.is_empty() =>
        {
            !leaf.starts_with(root.as_str())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> HttpRoute {
        config_model::parse::parse(
            "v.yaml",
            format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: n}}\nspec: {{http: [{yaml}]}}"
            ),
        )
        .resources
        .into_iter()
        .find_map(|resource| match resource {
            config_model::set::AnyResource::VirtualService(resource) => resource.spec.http.first().cloned(),
            _ => None,
        })
        .unwrap()
    }

    /// The matches of both, as pairs of numbers; `None` for a conflict.
    fn merged(root: &str, leaf: &str) -> Option<Vec<(usize, usize)>> {
        merge(&rule(&format!("{{match: [{root}]}}")), rule(&format!("{{match: [{leaf}]}}")))
            .map(|(_, numbers)| numbers)
    }

    #[test]
    fn the_conflict_table() {
        for (root, leaf, fits) in [
            ("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", true),
            ("{uri: {prefix: /a}}", "{uri: {exact: /ab}}", true),
            ("{uri: {prefix: /a/b}}", "{uri: {prefix: /a}}", false),
            ("{uri: {prefix: /a}}", "{uri: {exact: /b}}", false),
            ("{uri: {exact: /a}}", "{uri: {exact: /a}}", true),
            ("{uri: {exact: /a}}", "{uri: {exact: /b}}", false),
            ("{uri: {exact: /a}}", "{uri: {prefix: /a}}", false),
            ("{uri: {regex: /a}}", "{uri: {exact: /a}}", false),
            ("{uri: {prefix: /a}}", "{uri: {regex: /a}}", false),
            ("{uri: {regex: /a}}", "{method: {exact: GET}}", true),
            ("{method: {exact: GET}}", "{uri: {regex: /a}}", true),
            ("{headers: {x: {}}}", "{headers: {x: {exact: a}}}", false),
            ("{headers: {x: {exact: a}}}", "{headers: {x: {}}}", false),
            ("{headers: {x: {exact: a}}}", "{headers: {y: {}}}", true),
            ("{headers: {x: {prefix: a}}}", "{headers: {x: {exact: ab}}}", true),
            ("{withoutHeaders: {x: {exact: a}}}", "{withoutHeaders: {x: {exact: b}}}", false),
            ("{queryParams: {x: {exact: a}}}", "{queryParams: {x: {exact: a}}}", true),
            ("{ignoreUriCase: true}", "{uri: {exact: /a}}", false),
            ("{port: 80}", "{port: 80}", true),
            ("{port: 80}", "{uri: {exact: /a}}", true),
            ("{port: 80}", "{port: 81}", false),
            ("{gateways: [a, b]}", "{gateways: [b]}", true),
            ("{gateways: [a]}", "{gateways: [b]}", false),
            ("{gateways: [a]}", "{uri: {exact: /a}}", true),
            ("{sourceLabels: {a: b}}", "{sourceLabels: {c: d}}", true),
            ("{sourceLabels: {a: b}}", "{sourceLabels: {a: c}}", false),
            ("{sourceNamespace: a}", "{sourceNamespace: a}", true),
            ("{sourceNamespace: a}", "{uri: {exact: /a}}", false),
            ("{uri: {exact: /a}}", "{sourceNamespace: a}", true),
        ] {
            assert_eq!(merged(root, leaf).is_some(), fits, "{root} with {leaf}");
        }
    }

    #[test]
    fn each_match_of_the_delegate_needs_one_of_the_root() {
        let root = "{uri: {prefix: /a}}, {uri: {prefix: /b}}";
        assert_eq!(merged(root, "{uri: {prefix: /a/x}}, {uri: {prefix: /b/x}}"), Some(vec![(0, 0), (1, 1)]));
        assert_eq!(merged(root, "{headers: {x: {exact: y}}}"), Some(vec![(0, 0), (1, 0)]));
        assert_eq!(merged(root, "{uri: {prefix: /a/x}}, {uri: {prefix: /c}}"), None);
        assert_eq!(merged("", "{uri: {prefix: /a}}"), Some(vec![(0, 0)]));
        assert_eq!(merged(root, ""), Some(vec![(0, 0), (1, 0)]));
        assert_eq!(merged("", ""), Some(vec![]));
    }

    #[test]
    fn fields_are_taken_whole_and_names_are_joined() {
        let root = rule(
            "{name: r, match: [{name: m}], timeout: 1s, rewrite: {uri: /r}, headers: {request: {set: {a: r, b: r}}}, mirror: {host: m}}",
        );
        let leaf = rule(
            "{name: l, match: [{name: n}], timeout: 2s, headers: {request: {set: {a: l}}}, route: [{destination: {host: d}}]}",
        );
        let (both, _) =
            merge(&in_full(&root, "r", "cluster.local"), in_full(&leaf, "l", "cluster.local")).unwrap();
        assert_eq!((both.name.as_str(), both.matches[0].name.as_str()), ("r-l", "m-n"));
        assert_eq!(both.timeout, leaf.timeout);
        assert_eq!(both.rewrite, root.rewrite);
        assert_eq!(both.headers, leaf.headers);
        assert_eq!(both.mirror.unwrap().host.as_str(), "m.r.svc.cluster.local");
        assert_eq!(both.route[0].destination.host.as_str(), "d.l.svc.cluster.local");
    }
}

//! What admission says of AuthorizationPolicies.

use crate::validate::tests;

fn findings(text: &str) -> Vec<String> {
    let mut found = tests::findings(text);
    // That policies are not enforced yet.
    found.retain(|line| line != "LIM0010 spec");
    found
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
    )
}

fn check(cases: &[(&str, &[&str])]) {
    for (spec, wants) in cases {
        assert_eq!(findings(&policy(spec)), *wants, "{spec}");
    }
}

#[test]
fn actions_and_providers() {
    check(&[
        ("{}", &[]),
        ("{rules: [{}]}", &[]),
        ("{action: DENY, rules: [{}]}", &[]),
        ("{action: DENY}", &["!IST0106 spec"]),
        ("{action: CUSTOM, provider: {name: p}, rules: [{}]}", &[]),
        ("{action: CUSTOM, provider: {name: p}}", &["!IST0106 spec"]),
        ("{action: CUSTOM, rules: [{}]}", &["!IST0106 spec.provider"]),
        ("{provider: {name: p}, rules: [{}]}", &["!IST0106 spec.provider"]),
        (
            "{action: CUSTOM, provider: {name: p}, rules: [{from: [{source: {principals: [a]}}], when: [{key: 'request.auth.claims[a]', values: [b]}]}]}",
            &["!IST0106 spec.rules[0].from[0].source.principals", "!IST0106 spec.rules[0].when[0].key"],
        ),
    ]);
}

#[test]
fn who_it_is_for() {
    check(&[
        ("{selector: {matchLabels: {a: b}}, rules: [{}]}", &[]),
        ("{selector: {}, rules: [{}]}", &["IST0133 spec.selector"]),
        ("{selector: {matchLabels: {'a*': b}}}", &["!IST0106 spec.selector.matchLabels"]),
        ("{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}", &[]),
        ("{targetRef: {kind: Service, name: g}}", &[]),
        ("{targetRef: {kind: Service, name: g}, selector: {matchLabels: {a: b}}}", &["!IST0106 spec"]),
        ("{targetRefs: [{kind: Gateway, name: g}]}", &["!IST0106 spec.targetRefs[0]"]),
        ("{targetRefs: [{kind: Service}]}", &["!IST0106 spec.targetRefs[0].name"]),
        (
            "{targetRefs: [{kind: Service, name: a, namespace: b}]}",
            &["!IST0106 spec.targetRefs[0].namespace"],
        ),
    ]);
}

#[test]
fn parts_of_rules() {
    check(&[
        ("{rules: [{from: [{}]}]}", &["!IST0106 spec.rules[0].from[0]"]),
        ("{rules: [{from: [{source: {}}]}]}", &["!IST0106 spec.rules[0].from[0].source"]),
        ("{rules: [{to: [{}]}]}", &["!IST0106 spec.rules[0].to[0]"]),
        ("{rules: [{to: [{operation: {}}]}]}", &["!IST0106 spec.rules[0].to[0].operation"]),
        (
            "{rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]}",
            &["!IST0106 spec.rules[0].from[0].source"],
        ),
        ("{rules: [{when: [{key: '', values: [a]}]}]}", &["!IST0106 spec.rules[0].when[0]"]),
        ("{rules: [{when: [{key: source.ip}]}]}", &["!IST0106 spec.rules[0].when[0]"]),
    ]);
}

#[test]
fn values_have_forms() {
    let source = |field: &str, value: &str| {
        findings(&policy(&format!("{{rules: [{{from: [{{source: {{{field}: ['{value}']}}}}]}}]}}"))).len()
    };
    for (field, good, bad) in [
        ("principals", "*/ns/a/*", ""),
        ("notRequestPrincipals", "https://a/*", ""),
        ("namespaces", "a*b", ""),
        ("serviceAccounts", "ns/sa", "ns/sa*"),
        ("notServiceAccounts", "sa", "a/b/c"),
        ("serviceAccounts", "sa", "/b"),
        ("ipBlocks", "10.0.0.0/8", "10.0.0.0/33"),
        ("remoteIpBlocks", "::1", "1.2.3"),
        ("trustDomains", "*.a", "a*b"),
        ("notTrustDomains", "*", "a/b"),
        ("trustDomains", "td*", "*td*"),
    ] {
        assert_eq!((source(field, good), source(field, bad)), (0, 1), "{field}");
    }
    let operation = |field: &str, value: &str| {
        findings(&policy(&format!("{{rules: [{{to: [{{operation: {{{field}: ['{value}']}}}}]}}]}}"))).len()
    };
    for (field, good, bad) in [
        ("ports", "0", "65536"),
        ("notPorts", "80", "+80"),
        ("hosts", "*.example.com", ""),
        ("paths", "/foo/{*}/bar/{**}", "/{**}/foo/{*}"),
        ("paths", "/foo/{**}/", "/foo/{*}.txt"),
        ("notPaths", "/*/plain", "/*/baz/{*}"),
        ("paths", "*", "/a{b}"),
    ] {
        assert_eq!((operation(field, good), operation(field, bad)), (0, 1), "{field}");
    }
}

#[test]
fn attributes_are_known() {
    let when = |key: &str, value: &str| {
        findings(&policy(&format!("{{rules: [{{when: [{{key: '{key}', notValues: ['{value}']}}]}}]}}")))
    };
    for (key, value) in [
        ("request.headers[x-a]", "1"),
        ("source.ip", "10.0.0.0/8"),
        ("remote.ip", "::1"),
        ("source.namespace", "a"),
        ("source.serviceAccount", "a/b"),
        ("source.principal", "*"),
        ("source.trustDomain", "a*"),
        ("request.auth.principal", "a/b"),
        ("request.auth.audiences", "a"),
        ("request.auth.presenter", "a"),
        ("request.auth.claims[a][b]", "c"),
        ("destination.ip", "1.2.3.4"),
        ("destination.port", "80"),
        ("connection.sni", "a"),
    ] {
        assert_eq!(when(key, value), Vec::<String>::new(), "{key}");
    }
    for key in [
        "request.headers",
        "request.headers[]",
        "request.auth.claims[",
        "destination.labels[a]",
        "destination.namespace",
        "destination.name",
        "destination.user",
        "source.nope",
    ] {
        assert_eq!(when(key, "a"), ["!IST0106 spec.rules[0].when[0].key"], "{key}");
    }
    assert_eq!(when("source.ip", "x"), ["!IST0106 spec.rules[0].when[0].notValues[0]"]);
    assert_eq!(when("experimental.envoy.filters.a[b]", "x"), ["LIM0010 spec.rules[0].when[0].key"]);
}

#[test]
fn a_dry_run_is_for_allow_and_deny() {
    let run = |action: &str, value: &str| {
        let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, annotations: {istio.io/dry-run: '";
        findings(&format!("{head}{value}'}}}}\nspec: {{action: {action}, rules: [{{}}]}}\n"))
    };
    assert_eq!(run("DENY", "true"), Vec::<String>::new());
    assert_eq!(run("ALLOW", "F"), Vec::<String>::new());
    let refused = ["!IST0106 metadata.annotations.istio.io/dry-run"];
    assert_eq!(run("ALLOW", "yes"), refused);
    assert_eq!(run("AUDIT", "true"), refused);
}

#[test]
fn a_deny_of_http_alone_denies_every_connection() {
    let rule = |rule: &str| findings(&policy(&format!("{{action: DENY, rules: [{rule}]}}"))).len();
    assert_eq!(rule("{to: [{operation: {methods: [GET]}}]}"), 1);
    assert_eq!(rule("{to: [{operation: {methods: [GET], ports: ['80']}}]}"), 0);
    assert_eq!(rule("{from: [{source: {requestPrincipals: [a]}}]}"), 1);
    assert_eq!(rule("{from: [{source: {requestPrincipals: [a], ipBlocks: [1.2.3.4]}}]}"), 0);
    assert_eq!(rule("{from: [{source: {ipBlocks: [1.2.3.4]}}], to: [{operation: {methods: [GET]}}]}"), 1);
    assert_eq!(rule("{}"), 0);
}

//! Reading files, good and hostile.

use super::*;
use crate::meta::Kind;

const VIRTUAL_SERVICE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination:\n        host: reviews\n";

fn lines(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn one_broken_document_does_not_stop_the_others() {
    let text = format!(
        "{VIRTUAL_SERVICE}---\nkind: VirtualService\nmetadata:\n  name: broken\nspec: [\n---\n{}",
        VIRTUAL_SERVICE.replace("name: reviews", "name: other")
    );
    let parsed = parse("a.yaml", &text);
    assert_eq!(
        parsed.resources.iter().map(|r| r.key().to_string()).collect::<Vec<_>>(),
        ["VirtualService default/reviews", "VirtualService default/other"]
    );
    assert_eq!(parsed.failed[0].key, Some(ResourceKey::new(Kind::VirtualService, "default", "broken")));
    assert_eq!(parsed.resources[1].origin().line, 17);
    let origin = parsed.diagnostics.iter().next().unwrap().origin.clone().unwrap();
    assert!((11..=16).contains(&origin.line), "{origin}");
}

#[test]
fn a_syntax_error_says_where_the_construct_began() {
    let parsed = parse("a.yaml", "---\nkind: x\n---\nkind: y\nname: \"open\nb: c\n");
    let line = lines(&parsed).pop().unwrap();
    assert_eq!(
        line,
        "Error [LIM0001] (a.yaml:7) found unexpected end of stream, while scanning a quoted scalar on line 5"
    );
}

#[test]
fn a_wrong_type_names_its_field_and_line() {
    let parsed = parse(
        "a.yaml",
        VIRTUAL_SERVICE.replace("        host: reviews\n", "        host: reviews\n      weight: lots\n"),
    );
    assert_eq!(
        lines(&parsed),
        [
            "Error [IST0106] (VirtualService default/reviews a.yaml:11) invalid value: string \"lots\", expected a whole number (spec.http[0].route[0].weight)"
        ]
    );
    assert_eq!(parsed.diagnostics.iter().next().unwrap().origin.as_ref().unwrap().column, 7);
}

#[test]
fn a_missing_required_field_is_reported_at_its_parent() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - name: http\n";
    assert_eq!(
        lines(&parse("a.yaml", text)),
        ["Error [IST0106] (Service default/a a.yaml:6) missing field `port` (spec.ports[0])"]
    );
}

#[test]
fn an_unknown_enum_value_lists_the_allowed_ones() {
    let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  host: a\n  trafficPolicy:\n    loadBalancer:\n      simple: ROUNDROBIN\n";
    let parsed = parse("a.yaml", text);
    let line = &lines(&parsed)[0];
    assert!(
        line.contains("a.yaml:8")
            && line.contains("`ROUND_ROBIN`")
            && line.contains("spec.trafficPolicy.loadBalancer.simple"),
        "{line}"
    );
}

#[test]
fn an_unknown_field_is_a_warning_with_a_suggestion() {
    let parsed = parse("a.yaml", VIRTUAL_SERVICE.replace("  - route:", "  - tiemout: 3s\n    route:"));
    assert_eq!(parsed.resources.len(), 1);
    assert_eq!(
        lines(&parsed),
        [
            "Warning [LIM0003] (VirtualService default/reviews a.yaml:8) unknown field \"tiemout\" has no effect (spec.http[0].tiemout)"
        ]
    );
    assert_eq!(parsed.diagnostics.iter().next().unwrap().hint.as_deref(), Some("did you mean \"timeout\"?"));
}

#[test]
fn lists_json_and_other_kinds_are_read() {
    let text = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}},
 {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"b"}},
 {"apiVersion":"networking.istio.io/v1","kind":"Gateway","metadata":{"name":"g"},"spec":{"servers":[{"port":{"number":"x"}}]}}]}"#;
    let parsed = parse("a.json", text);
    assert_eq!(parsed.resources[0].key().to_string(), "Namespace a");
    assert_eq!(parsed.ignored[0].kind, "apps/v1 Deployment");
    let line = &lines(&parsed)[0];
    assert!(
        line.starts_with("Error [IST0106] (Gateway default/g a.json:3)")
            && line.ends_with("(spec.servers[0].port.number)"),
        "{line}"
    );
}

#[test]
fn a_wrong_group_or_version_is_said() {
    let parsed = parse("a.yaml", VIRTUAL_SERVICE.replace("istio.io/v1", "istio.io/v2"));
    assert!(lines(&parsed)[0].starts_with("Error [LIM0005] (VirtualService default/reviews a.yaml:1)"));
    let parsed = parse("a.yaml", VIRTUAL_SERVICE.replace("networking.istio.io", "networkin.istio.io"));
    assert!(lines(&parsed)[0].starts_with("Error [LIM0005]"));
    let parsed =
        parse("a.yaml", "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\n");
    assert_eq!((parsed.ignored.len(), parsed.diagnostics.len()), (1, 0));
}

#[test]
fn nulls_are_absent_fields_except_in_header_matches() {
    let text = VIRTUAL_SERVICE
        .replace("  - route:", "  - retries: null\n    match:\n    - headers: {x: null}\n    route:");
    let parsed = parse("a.yaml", text);
    assert_eq!(lines(&parsed), Vec::<String>::new());
    let AnyResource::VirtualService(vs) = &parsed.resources[0] else { panic!() };
    assert_eq!(vs.spec.http[0].matches[0].headers.get("x"), Some(&None));
}

#[test]
fn byte_order_mark_and_windows_lines_are_read() {
    let text = format!("\u{feff}{}", VIRTUAL_SERVICE.replace('\n', "\r\n"));
    let parsed = parse("a.yaml", &text);
    assert_eq!((parsed.resources.len(), parsed.diagnostics.len()), (1, 0));
}

#[test]
fn hostile_files_get_an_error() {
    let deep = "[".repeat(100_000);
    let deep_blocks = "- ".repeat(100_000);
    let questions = "? ".repeat(100_000);
    let braces = "{a: ".repeat(100_000);
    let huge = format!("a: {}", "x".repeat(MAX_DOCUMENT_BYTES));
    let steps: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    for text in [
        &deep,
        &deep_blocks,
        &questions,
        &braces,
        &huge,
        &steps,
        "a: \0b",
        "\tkind: x",
        "a: b: c",
        "*x",
        "a: *x",
        "!!binary {",
        "- - -",
        "42",
    ] {
        let parsed = parse("a.yaml", text);
        assert_eq!(
            (parsed.failed.len(), parsed.diagnostics.len(), parsed.resources.len()),
            (1, 1, 0),
            "{:.40}",
            text
        );
        assert!(parsed.diagnostics.iter().all(|d| d.message.len() < 300), "{:.40}", text);
    }
    assert_eq!(parse("a.yaml", b"kind: \xff\xfe").failed.len(), 1);
    assert_eq!(parse("a.yaml", vec![b'a'; 100 << 20]).failed.len(), 1);
}

#[test]
fn a_file_of_countless_objects_is_read_up_to_a_limit() {
    let parsed = parse("a.yaml", "---\n1\n".repeat(MAX_OBJECTS + 10));
    assert_eq!(
        (parsed.failed.len(), parsed.diagnostics.iter().filter(|d| d.code == Code::LIMIT).count()),
        (MAX_OBJECTS + 1, 1)
    );
    let parsed = parse(
        "a.yaml",
        format!("{{apiVersion: v1, kind: List, items: [{}]}}", "1,".repeat(MAX_OBJECTS + 10)),
    );
    assert_eq!(parsed.failed.len(), MAX_OBJECTS + 1);
}

#[test]
fn a_secret_never_shows_in_a_finding() {
    let parsed = parse("a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: hunter2!}\n");
    assert_eq!(parsed.failed.len(), 1);
    assert!(!format!("{parsed:?}").contains("hunter2"));
}

#[test]
fn mesh_configuration_is_read_from_its_config_map() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    connectTimeout: 3s\n    extensionProviders: []\n";
    let parsed = parse("a.yaml", text);
    let AnyResource::ConfigMap(map) = &parsed.resources[0] else { panic!() };
    assert_eq!(mesh_config(map).unwrap().connect_timeout.to_string(), "3s");
    let parsed = parse("a.yaml", text.replace("3s", "soon"));
    let AnyResource::ConfigMap(map) = &parsed.resources[0] else { panic!() };
    assert!(mesh_config(map).unwrap_err().message.contains("connectTimeout"));
}

#[test]
fn a_provider_that_cannot_be_read_takes_nothing_else_with_it() {
    let mesh = "    enableTracing: false\n    extensionProviders:\n    \
        - {name: good, zipkin: {service: z, port: 9411}}\n    \
        - {name: bad, zipkin: {service: z, port: many}}\n    \
        - {name: envoy, envoyFileAccessLog: {path: /a}}\n";
    let text =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio}}\ndata:\n  mesh: |\n{mesh}");
    let parsed = parse("a.yaml", text);
    let AnyResource::ConfigMap(map) = &parsed.resources[0] else { panic!() };
    let mesh = mesh_config(map).unwrap();
    assert!(!mesh.enable_tracing);
    assert_eq!(mesh.provider("good").unwrap().service().unwrap().0, "z");
    let bad = mesh.provider("bad").unwrap();
    assert!(bad.unreadable.as_ref().unwrap().contains("zipkin.port") && !bad.takes_traces(), "{bad:?}");
    let log = mesh.provider("envoy").unwrap().envoy_file_access_log.as_ref().unwrap();
    assert_eq!(log.path, "/a", "what is written replaces what is built in");
    assert!(mesh.provider("prometheus").is_some());
}

#[test]
fn a_member_of_a_list_is_found_in_it() {
    let parsed = parse(
        "a.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- {kind: x}\n",
    );
    let finding = parsed.diagnostics.iter().next().unwrap();
    let origin = finding.origin.as_ref().unwrap();
    assert_eq!((finding.code, origin.line, origin.column), (Code::SCHEMA, 7, 3));
}

#[test]
fn a_lone_carriage_return_ends_no_line() {
    let text = "kind: Gateway\n# one\r# two\r# three\nspec: {a: b: c}\n";
    let parsed = super::parse("a.yaml", text.as_bytes());
    let origin = parsed.diagnostics.iter().next().unwrap().origin.clone().unwrap();
    assert_eq!(origin.line, 3);
}

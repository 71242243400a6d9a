//! Exit codes and JSON, as scripts see them.

use std::{fs, path::Path};

use serde_json::Value;

use super::*;

mod samples;

mod sidecar;

const CONFIG: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: ['shop.example']
  gateways: [door]
  http:
  - name: canary
    match: [{uri: {prefix: /api}, headers: {x-canary: {exact: '2'}}}]
    route: [{destination: {host: shop, subset: v2, port: {number: 80}}}]
  - name: api
    match: [{uri: {prefix: /api}}]
    rewrite: {uri: /v1}
    timeout: 3s
    route:
    - {destination: {host: shop, subset: v1, port: {number: 80}}, weight: 90}
    - {destination: {host: shop, subset: v2, port: {number: 80}}, weight: 10}
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, redirectCode: 302}
  - match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop}
spec:
  host: shop
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-1, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 9080}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: shop-1, namespace: default}}
- {addresses: [10.0.0.2], targetRef: {kind: Pod, name: shop-2, namespace: default}}
- {addresses: [10.0.0.3], targetRef: {kind: Pod, name: shop-3, namespace: default}}
---
apiVersion: v1
kind: Pod
metadata: {name: shop-1, labels: {app: shop, version: v1}}
---
apiVersion: v1
kind: Pod
metadata: {name: shop-2, labels: {app: shop, version: v1}}
---
apiVersion: v1
kind: Pod
metadata: {name: shop-3, labels: {app: shop, version: v2}}
";

struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

fn limen(arguments: &[&str]) -> Ran {
    limen_for(Reader::Program, arguments)
}

fn limen_for(reader: Reader, arguments: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = ["limen"].iter().chain(arguments).map(OsString::from);
    let exit = main(arguments, &mut Output::new(&mut out, &mut err, reader));
    Ran { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn explain(folder: &Path, arguments: &[&str]) -> Ran {
    let config = folder.to_string_lossy();
    let mut all = vec!["explain", "--config", &config, "--output", "json"];
    all.extend(arguments);
    limen(&all)
}

#[test]
fn check_tells_good_from_bad_from_unparsable() {
    let good = folder(&[("a.yaml", CONFIG)]);
    let ran = limen(&["check", &good.path().to_string_lossy(), "--output", "json"]);
    assert_eq!((ran.exit, &ran.json()["resources"]), (Exit::Ok, &Value::from(8)), "{}", ran.out);

    let bad = CONFIG.replace("subset: v1", "subset: v9").replace("redirectCode: 302", "redirectCode: 999");
    let bad = folder(&[("a.yaml", &bad)]);
    let ran = limen(&["check", &bad.path().to_string_lossy(), "--output", "json"]);
    assert_eq!(ran.exit, Exit::Failed, "{}", ran.out);
    let json = ran.json();
    let findings = json["findings"].as_array().unwrap();
    let error = findings.iter().find(|finding| finding["severity"] == "error").unwrap();
    assert_eq!(error["resource"], "VirtualService default/shop");
    assert!(error["file"].as_str().unwrap().ends_with("a.yaml") && error["line"].as_u64().unwrap() > 1);

    let unparsable = folder(&[("a.yaml", CONFIG), ("b.yaml", "kind: [\n")]);
    let ran = limen(&["check", &unparsable.path().to_string_lossy()]);
    assert_eq!(ran.exit, Exit::Unparsable);
    assert!(ran.out.contains("b.yaml:"), "{}", ran.out);
    assert_eq!(limen(&["check", "/nowhere/at/all"]).exit, Exit::Usage);
    assert_eq!(limen(&["check"]).exit, Exit::Usage);
}

#[test]
fn check_prints_sarif() {
    let bad = folder(&[("a.yaml", "kind: [\n")]);
    let ran = limen(&["check", &bad.path().to_string_lossy(), "--output", "sarif"]);
    assert_eq!((ran.exit, &ran.json()["version"]), (Exit::Unparsable, &Value::from("2.1.0")));
}

#[test]
fn a_person_sees_the_line_and_a_program_gets_one_line() {
    let bad = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples/invalid/LIM0003.yaml");
    let ran = limen(&["check", bad]);
    assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
    let ran = limen_for(Reader::Person, &["check", "--color", "never", bad]);
    let shown: Vec<&str> = ran.out.lines().skip(1).collect();
    assert_eq!(
        shown,
        ["  8 |   - tiemout: 3s", "    |     ^^^^^^^^^^^", "    = did you mean \"timeout\"?"],
        "{}",
        ran.out
    );
    assert!(limen_for(Reader::Person, &["check", "--color", "always", bad]).out.contains("\u{1b}[33m^^^"));
}

#[test]
fn check_explains_a_code() {
    let ran = limen(&["check", "--explain", "ist0112"]);
    assert_eq!(ran.exit, Exit::Ok);
    assert!(ran.out.starts_with("# IST0112 ") && ran.out.contains("host: shop\n"), "{}", ran.out);
    let json = limen(&["check", "--explain", "LIM0001", "--output", "json"]).json();
    assert_eq!((&json["code"], &json["severity"]), (&"LIM0001".into(), &"error".into()));
    let ran = limen(&["check", "--explain", "IST9999"]);
    assert_eq!((ran.exit, ran.err.contains("IST0101")), (Exit::Usage, true));
}

#[test]
fn one_of_a_thing_is_one_thing() {
    let one = folder(&[("a.yaml", "kind: [\n")]);
    let ran = limen(&["check", &one.path().to_string_lossy()]);
    assert_eq!(ran.err, "1 error, 0 warnings, 0 notes in 0 resources\n");
    let ran = limen(&["get", "routes", "--config", &one.path().to_string_lossy()]);
    assert_eq!(ran.err, "limen: the configuration has 1 error; `limen check` lists them\n");
    let ran = explain(one.path(), &["http://shop.example/"]);
    assert_eq!(ran.err, "limen: the configuration has 1 error; `limen check` lists them\n");
}

#[test]
fn explain_forwards_with_every_part_of_the_answer() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let ran = explain(config.path(), &["-H", "x-canary: 1", "http://shop.example:8080/api/x?q=1"]);
    assert_eq!(ran.exit, Exit::Ok, "{}{}", ran.out, ran.err);
    let json = ran.json();
    assert_eq!(json["verdict"], "forward");
    assert_eq!(
        (&json["listener"]["name"], &json["listener"]["port"]),
        (&"0.0.0.0_8080".into(), &8080.into())
    );
    assert_eq!(json["listener"]["gateway"], "default/door");
    assert!(json["listener"]["tls_mode"].is_null());
    assert_eq!(json["virtual_host"]["domain"], "shop.example");
    assert_eq!(
        (&json["route"]["virtual_service"], &json["route"]["index"]),
        (&"default/shop".into(), &1.into())
    );
    let clusters = json["clusters"].as_array().unwrap();
    assert_eq!(clusters[0]["name"], "outbound|80|v1|shop.default.svc.cluster.local");
    assert_eq!((&clusters[0]["weight"], &clusters[0]["endpoints"]), (&90.into(), &2.into()));
    assert_eq!((&clusters[1]["weight"], &clusters[1]["endpoints"]), (&10.into(), &1.into()));
    assert_eq!(
        (&json["actions"]["path"], &json["actions"]["timeout_ms"]),
        (&"/v1/x?q=1".into(), &3000.into())
    );
    assert_eq!(json["actions"]["authority"], "shop.example:8080");
    assert!(json["response"].is_null());
    assert_eq!(json["candidates"][0]["matched"], false);
    assert_eq!(json["candidates"][0]["reason"], "header x-canary: wants exact \"2\", got \"1\"");
}

#[test]
fn explain_tells_which_annotations_count_and_whose_they_are() {
    let annotated = |text: &str, kind: &str, name: &str, value: &str| {
        let was = format!("kind: {kind}\nmetadata: {{name: {name}}}");
        assert!(text.contains(&was), "{was}");
        text.replace(&was, &format!("kind: {kind}\nmetadata: {{name: {name}, annotations: {{{value}}}}}"))
    };
    let of_door = "limen.dev/max-request-body: 1k, limen.dev/compression: 'on'";
    let text = annotated(CONFIG, "Gateway", "door", of_door);
    let text = annotated(&text, "VirtualService", "shop", "limen.dev/max-request-body: 2k");
    let config = folder(&[("a.yaml", &text)]);
    let json = explain(config.path(), &["http://shop.example:8080/teapot"]).json();
    let policies = &json["actions"]["policies"];
    assert_eq!(policies["max-request-body"]["of"], "VirtualService default/shop", "{json}");
    assert_eq!(policies["max-request-body"]["asks"], "2000");
    assert_eq!(policies["compression"]["of"], "Gateway default/door");
    let folder = config.path().to_string_lossy();
    let ran = limen(&["explain", "--config", &folder, "http://shop.example:8080/teapot"]);
    assert!(ran.out.contains("max-request-body: 2000 (by VirtualService default/shop)"), "{}", ran.out);
}

#[test]
fn explain_tells_what_the_gateway_answers_itself() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let ran = explain(config.path(), &["http://shop.example:8080/old"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["verdict"]), (Exit::Ok, &"redirect".into()));
    assert_eq!(json["response"]["status"], 302);
    assert_eq!(json["response"]["headers"]["location"], "http://shop.example:8080/new");

    let ran = explain(config.path(), &["http://shop.example:8080/teapot"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["verdict"]), (Exit::Ok, &"direct_response".into()));
    assert_eq!(
        (&json["response"]["status"], &json["response"]["body"]),
        (&418.into(), &"short and stout".into())
    );

    let ran = explain(config.path(), &["http://shop.example:8080/nope"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["verdict"]), (Exit::NoRoute, &"not_found".into()));
    assert_eq!((&json["response"]["status"], &json["response"]["flags"]), (&404.into(), &"NR".into()));
    assert_eq!(json["candidates"].as_array().unwrap().len(), 4);
    assert!(json["candidates"].as_array().unwrap().iter().all(|c| !c["reason"].as_str().unwrap().is_empty()));

    let ran = explain(config.path(), &["http://other.example:8080/"]);
    assert_eq!((ran.exit, &ran.json()["virtual_host"]), (Exit::NoRoute, &Value::Null));
}

#[test]
fn explain_refuses_where_nobody_listens() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let ran = explain(config.path(), &["http://shop.example:9999/"]);
    let json = ran.json();
    assert_eq!(
        (ran.exit, &json["verdict"], &json["listener"]),
        (Exit::NoRoute, &"refused".into(), &Value::Null)
    );
    let ran = explain(config.path(), &["https://shop.example:8080/"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["verdict"]), (Exit::NoRoute, &"refused".into()));
    assert_eq!(json["listener"]["name"], "0.0.0.0_8080");
}

#[test]
fn explain_follows_a_seed_and_a_port_map() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let seed = seed.to_string();
        let ran = explain(config.path(), &["--seed", &seed, "http://shop.example:8080/api"]);
        let json = ran.json();
        assert_eq!(json["clusters"].as_array().unwrap().len(), 1);
        seen.insert(json["clusters"][0]["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    let ran = explain(config.path(), &["--port-map", "8080=18080", "http://shop.example:18080/api"]);
    assert_eq!((ran.exit, &ran.json()["listener"]["port"]), (Exit::Ok, &18080.into()));
}

#[test]
fn explain_says_usage_and_unparsable() {
    let config = folder(&[("a.yaml", "kind: [\n")]);
    assert_eq!(explain(config.path(), &["http://a.example/"]).exit, Exit::Unparsable);
    assert_eq!(explain(config.path(), &["ftp://a.example/"]).exit, Exit::Usage);
    assert_eq!(explain(config.path(), &["-H", "nonsense", "http://a/"]).exit, Exit::Usage);
    assert_eq!(limen(&["explain", "http://a/"]).exit, Exit::Usage);
    assert_eq!(explain(config.path(), &["notaurl"]).exit, Exit::Usage);
}

#[test]
fn the_story_has_a_reason_for_each_rule() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let ran =
        limen(&["explain", "--config", &config.path().to_string_lossy(), "http://shop.example:8080/nope"]);
    assert!(ran.out.contains("listener") && ran.out.contains("=> not found"), "{}", ran.out);
    assert_eq!(ran.out.matches("path: wants").count(), 4, "{}", ran.out);
}

#[test]
fn tables_have_the_names_that_istio_uses() {
    let config = folder(&[("a.yaml", CONFIG)]);
    let get = |table: &str| {
        let config = config.path().to_string_lossy().into_owned();
        let text = limen(&["get", table, "--config", &config]);
        let json = limen(&["get", table, "--config", &config, "--output", "json"]);
        assert_eq!((text.exit, json.exit), (Exit::Ok, Exit::Ok));
        (text.out, json.json())
    };
    let (text, json) = get("listeners");
    assert!(text.starts_with("ADDRESSES  PORT  MATCH"), "{text}");
    assert_eq!((&json[0]["port"], &json[0]["destination"]), (&8080.into(), &"Route: http.8080".into()));
    let (text, json) = get("routes");
    assert!(text.contains("/api*") && text.contains("default/shop"), "{text}");
    assert_eq!(json.as_array().unwrap().len(), 4);
    assert_eq!(get("hosts").1[0]["domain"], "shop.example");
    let (_, clusters) = get("clusters");
    let names: Vec<_> =
        clusters.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"outbound|80|v1|shop.default.svc.cluster.local"), "{names:?}");
    let (_, endpoints) = get("endpoints");
    assert!(endpoints.as_array().unwrap().iter().any(|row| row["endpoint"] == "10.0.0.3:9080"));
    assert_eq!(get("certificates").1.as_array().unwrap().len(), 0);
}

#[test]
fn version_help_and_completions_answer_on_standard_output() {
    assert_eq!(limen(&["version", "--output", "json"]).json()["version"], VERSION);
    let help = limen(&["run", "--help"]);
    assert_eq!((help.exit, help.out.contains("LIMEN_DRAIN_TIME")), (Exit::Ok, true));
    assert!(limen(&["completions", "bash"]).out.contains("limen"));
    assert_eq!(limen(&["no-such-command"]).exit, Exit::Usage);
    assert_eq!(limen(&["run", "--port-map", "80"]).exit, Exit::Usage);
}

#[test]
fn run_says_in_one_line_why_it_cannot_start() {
    let ran = limen(&["run", "--config", "/nowhere/at/all"]);
    assert_eq!((ran.exit, ran.err.lines().count()), (Exit::Failed, 1), "{}", ran.err);
    assert_eq!(limen(&["run"]).exit, Exit::Usage);
}

#[test]
fn every_flag_has_a_variable() {
    for command in Cli::command().get_subcommands() {
        for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
            let id = argument.get_id().as_str();
            if id != "help" && id != "version" {
                let variable = argument.get_env().and_then(|name| name.to_str());
                assert!(variable.is_some_and(|name| name.starts_with("LIMEN_")), "{id}");
            }
        }
    }
}

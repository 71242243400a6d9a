//! What providers and Telemetries make of traces.

use super::*;
use config_model::{parse, set::ResourceSet, validate::validate};
use routing::compile::{Identity, Role, Workload, compile};

fn of_client(ground: &Ground<'_>) -> (TracePlan, Diagnostics) {
    traces(ground, Side::Client)
}

/// A collector's service, and MeshConfig.
pub(in crate::telemetry) fn configuration(mesh: &str, more: &str) -> String {
    let mesh = mesh.replace('\n', "\n    ");
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: c, namespace: obs}}
spec:
  hosts: [c.example]
  resolution: STATIC
  ports: [{{number: 4317, name: grpc, protocol: GRPC}}, {{number: 9411, name: http, protocol: HTTP}}]
  endpoints: [{{address: 10.0.0.1}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    {mesh}
{more}"
    )
}

pub(in crate::telemetry) fn on<T>(
    yaml: &str,
    plan: impl FnOnce(&Ground<'_>) -> (T, Diagnostics),
) -> (T, Vec<String>) {
    planned_for(Identity::default(), yaml, plan)
}

/// The same for the sidecar of a workload of the root namespace.
pub(in crate::telemetry) fn beside<T>(
    yaml: &str,
    plan: impl FnOnce(&Ground<'_>) -> (T, Diagnostics),
) -> (T, Vec<String>) {
    let role = Role::Sidecar(Box::new(Workload::at(vec![[10, 1, 0, 9].into()])));
    planned_for(Identity { role, ..Identity::default() }, yaml, plan)
}

fn planned_for<T>(
    identity: Identity,
    yaml: &str,
    plan: impl FnOnce(&Ground<'_>) -> (T, Diagnostics),
) -> (T, Vec<String>) {
    let parsed = parse::parse("a.yaml", yaml);
    assert!(!parsed.diagnostics.has_errors(), "{:?}", parsed.diagnostics);
    let mut set = ResourceSet::default();
    parsed.resources.into_iter().for_each(|r| drop(set.insert(r)));
    let (validated, _) = validate(set);
    let (compiled, _) = compile(&validated, &identity);
    let node = Node {
        namespace: identity.namespace.clone(),
        labels: identity.labels.clone(),
        domain: identity.domain.clone(),
        ..Node::default()
    };
    let environment = |name: &str| (name == "TOKEN").then(|| "secret".to_owned());
    let (plan, findings) =
        plan(&Ground { validated: &validated, compiled: &compiled, node: &node, environment: &environment });
    (plan, findings.iter().map(|finding| finding.to_string()).collect())
}

fn telemetry(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

const OTEL: &str = "extensionProviders:\n- {name: otel, opentelemetry: {service: c.example, port: 4317, maxTagLength: 64}}\n\
        - {name: zipkin, zipkin: {service: obs/c.example, port: 9411, enable64bitTraceId: true, path: spans, \
        headers: [{name: authorization, envName: TOKEN}]}}\n- {name: dd, datadog: {service: c.example, port: 1}}\n";

const SKYWALKING: &str = "- {name: sw, skywalking: {service: c.example, port: 1}}\n";

#[test]
fn the_share_of_requests_is_the_narrowest_that_is_given() {
    let for_all = telemetry("a", "istio-system", "{tracing: [{providers: [{name: otel}]}]}");
    let percent = "{tracing: [{randomSamplingPercentage: 12.34}]}";
    let selected =
        "{selector: {matchLabels: {app: istio-ingressgateway}}, tracing: [{randomSamplingPercentage: 0}]}";
    for (mesh, more, want) in [
        ("", String::new(), Sampling::ById(100)),
        ("enableTracing: false", String::new(), Sampling::Never),
        ("defaultConfig: {tracing: {sampling: 5}}", String::new(), Sampling::ById(500)),
        ("defaultConfig: {tracing: {sampling: 500}}", String::new(), Sampling::ById(100)),
        ("defaultConfig: {tracing: {sampling: 5}}", for_all.clone(), Sampling::ById(500)),
        (
            "",
            telemetry(
                "a",
                "istio-system",
                "{tracing: [{providers: [{name: otel}], randomSamplingPercentage: 12.34}]}",
            ),
            Sampling::ById(1234),
        ),
        ("defaultProviders: {tracing: [otel]}", String::new(), Sampling::ById(100)),
        (
            "defaultProviders: {tracing: [otel]}",
            telemetry("a", "istio-system", percent),
            Sampling::ById(1234),
        ),
        ("", for_all.clone() + &telemetry("b", "istio-system", selected), Sampling::Never),
        ("", telemetry("a", "istio-system", percent), Sampling::Never),
        ("", telemetry("a", "elsewhere", percent), Sampling::ById(100)),
        (
            "",
            telemetry("a", "istio-system", "{tracing: [{match: {mode: SERVER}, providers: [{name: otel}]}]}"),
            Sampling::Never,
        ),
        (
            "",
            telemetry(
                "a",
                "istio-system",
                "{tracing: [{providers: [{name: otel}], useRequestIdForTraceSampling: false}]}",
            ),
            Sampling::Always,
        ),
        (
            "",
            telemetry(
                "a",
                "istio-system",
                "{tracing: [{providers: [{name: otel}], disableSpanReporting: true}]}",
            ),
            Sampling::Never,
        ),
    ] {
        let (plan, findings) = on(&configuration(&format!("{OTEL}{mesh}"), &more), of_client);
        assert_eq!(plan.sampling, want, "{mesh} {more}");
        assert_eq!(findings, Vec::<String>::new(), "{mesh} {more}");
    }
}

#[test]
fn providers_are_spoken_to_as_they_say() {
    let with = |name: &str| {
        telemetry("a", "istio-system", &format!("{{tracing: [{{providers: [{{name: {name}}}]}}]}}"))
    };
    let recipe = |name: &str| on(&configuration(OTEL, &with(name)), of_client).0.recipe.unwrap();
    let otel = recipe("otel");
    assert_eq!(otel.address.protocol, Protocol::Grpc);
    assert_eq!(otel.address.to, Destination::Cluster(ClusterName::outbound(4317, "", "c.example")));
    assert_eq!((otel.max_path, otel.width), (64, Width::Wide));
    let Encoding::Otlp(resource) = &otel.encoding else { panic!() };
    assert!(resource.contains(&("service.name".to_owned(), "istio-ingressgateway.istio-system".to_owned())));
    let zipkin = recipe("zipkin");
    assert_eq!((zipkin.address.path.as_str(), zipkin.width), ("/spans", Width::Narrow));
    assert_eq!(zipkin.address.headers[0].1, "secret");
    assert!(zipkin.address.headers[0].1.is_sensitive());
    // The address alone, as Istio's bootstrap has it.
    let (plan, _) =
        on(&configuration("defaultConfig: {tracing: {zipkin: {address: 'z.example:9411'}}}", ""), of_client);
    assert_eq!(plan.recipe.unwrap().address.to, Destination::Address("z.example".into(), 9411));
    let (plan, _) =
        on(&configuration("defaultConfig: {tracing: {zipkin: {address: 'c.example:9411'}}}", ""), of_client);
    let known = Destination::Cluster(ClusterName::outbound(9411, "", "c.example"));
    assert_eq!(plan.recipe.unwrap().address.to, known);
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_traced() {
    let with = |name: &str| {
        telemetry("a", "istio-system", &format!("{{tracing: [{{providers: [{{name: {name}}}]}}]}}"))
    };
    for (mesh, more, want) in [
        (OTEL.to_owned(), with("dd"), "no collector of traces that is spoken to (datadog)"),
        (OTEL.to_owned() + SKYWALKING, with("sw"), "no collector of traces that is spoken to (skywalking)"),
        (
            OTEL.replace("port: 4317", "port: 4318"),
            with("otel"),
            "Referenced service not found: \"c.example:4318\"",
        ),
        (
            OTEL.replace("obs/c", "else/c"),
            with("zipkin"),
            "Referenced service not found: \"else/c.example:9411\"",
        ),
        (
            "defaultConfig: {tracing: {zipkin: {address: nowhere}}}".to_owned(),
            String::new(),
            "is not host:port",
        ),
        ("defaultConfig: {tracing: {datadog: {}}}".to_owned(), String::new(), "datadog is not spoken to"),
        (
            "defaultConfig: {tracing: {zipkin: {address: 'z:1'}, tlsSettings: {mode: SIMPLE}}}".to_owned(),
            String::new(),
            "tlsSettings is not honoured",
        ),
    ] {
        let (plan, findings) = on(&configuration(&mesh, &more), of_client);
        assert!(plan.recipe.is_none(), "{mesh}");
        assert!(findings.iter().any(|finding| finding.contains(want)), "{mesh}: {findings:?}");
        assert!(findings[0].contains("ConfigMap istio-system/istio"), "{findings:?}");
    }
}

#[test]
fn a_sidecar_is_a_client_on_the_way_out_and_a_server_on_the_way_in() {
    let more = telemetry(
        "a",
        "istio-system",
        "{tracing: [{providers: [{name: otel}]}, {match: {mode: SERVER}, randomSamplingPercentage: 50}, {match: {mode: CLIENT}, disableSpanReporting: true}]}",
    );
    let text = configuration(OTEL, &more);
    let (out, _) = beside(&text, of_client);
    assert!(out.recipe.is_none(), "CLIENT");
    let (inward, _) = beside(&text, |ground| traces(ground, Side::Server));
    assert_eq!((inward.recipe.is_some(), inward.sampling), (true, Sampling::percent(50.0)), "SERVER");
}

//! Which metrics are told, and with which labels: from resources to the text that Prometheus reads.

use super::*;
use crate::telemetry::{
    Flags, Identity, Metrics,
    access_log::Entry,
    istio::{RequestProtocol, Sample},
    plan::tests::{beside, configuration, on},
};
use http::HeaderMap;

const ROOT: &str = "istio-system";

fn telemetry(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn planned(mesh: &str, more: &str) -> (MetricsPlan, Vec<String>) {
    on(&configuration(mesh, more), metrics)
}

fn sample() -> Sample {
    Sample {
        protocol: RequestProtocol::Http,
        code: 200,
        grpc_status: None,
        flags: Flags::default(),
        duration: Duration::from_millis(3),
        request_bytes: 10,
        response_bytes: 20,
    }
}

/// What is told of two requests, each with its header `x-a`, and of one connection.
fn told(metrics: &Metrics, plan: MetricsPlan) -> Vec<String> {
    let labels = metrics.istio.set(plan.rules, plan.interval);
    let nowhere = metrics.istio.nowhere().clone();
    for value in ["one", "two"] {
        let headers: HeaderMap = [("x-a".parse().unwrap(), value.parse().unwrap())].into_iter().collect();
        let entry = Entry { method: "GET", authority: "a.example", ..Entry::empty(&headers) };
        match &labels {
            Some(labels) => metrics.istio.record_with(&nowhere, &sample(), labels.of(&entry)),
            None => metrics.istio.record(&nowhere, &sample()),
        }
    }
    metrics.istio.tcp_opened(&nowhere, Flags::default(), None);
    lines(metrics)
}

fn lines(metrics: &Metrics) -> Vec<String> {
    let text = String::from_utf8(metrics.encode()).unwrap();
    text.lines()
        .filter(|line| line.starts_with("istio_") && !line.contains("_bucket"))
        .map(str::to_owned)
        .collect()
}

fn of<'l>(lines: &'l [String], name: &str) -> Vec<&'l str> {
    lines.iter().filter(|line| line.starts_with(&format!("{name}{{"))).map(String::as_str).collect()
}

fn new() -> Metrics {
    Metrics::new(Identity::default(), "test").unwrap()
}

#[test]
fn nothing_said_is_everything_told() {
    let (plan, findings) = planned("", "");
    assert_eq!((plan.rules.clone(), plan.interval), (Rules::default(), REPORTING_INTERVAL));
    assert!(findings.is_empty(), "{findings:?}");
    let told = told(&new(), plan);
    assert!(of(&told, names::REQUESTS)[0].ends_with("} 2"), "{told:?}");
}

#[test]
fn a_label_is_removed_from_one_metric_and_its_series_are_one() {
    let spec = "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: \
                {response_code: {operation: REMOVE}, my_tag: {operation: REMOVE}}}]}]}";
    let (plan, findings) = planned("", &telemetry("a", ROOT, spec));
    assert!(findings.is_empty(), "{findings:?}");
    let metrics = new();
    let mut failed = sample();
    failed.code = 503;
    metrics.istio.set(plan.rules, plan.interval);
    metrics.istio.record(metrics.istio.nowhere(), &sample());
    metrics.istio.record(metrics.istio.nowhere(), &failed);
    let told = lines(&metrics);
    let requests = of(&told, names::REQUESTS);
    assert!(requests.len() == 1 && requests[0].ends_with("} 2"), "{requests:?}");
    assert!(!requests[0].contains("response_code"), "{requests:?}");
    assert_eq!(of(&told, "istio_request_bytes_count").len(), 2, "the others keep it: {told:?}");
}

#[test]
fn labels_are_set_to_texts_and_to_what_requests_say() {
    let spec = "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {fixed: {value: \"'edge'\"}, \
                asked: {value: \"request.headers['x-a']\"}, response_flags: {value: request.method}, \
                missing: {value: request.referer}}}]}]}";
    let (plan, findings) = planned("", &telemetry("a", ROOT, spec));
    assert!(findings.is_empty(), "{findings:?}");
    let told = told(&new(), plan);
    let requests = of(&told, names::REQUESTS);
    assert_eq!(requests.len(), 2, "{requests:?}");
    for value in ["one", "two"] {
        let line = requests.iter().find(|line| line.contains(&format!("asked=\"{value}\""))).unwrap();
        for label in
            ["fixed=\"edge\"", "response_flags=\"GET\"", "missing=\"unknown\"", "response_code=\"200\""]
        {
            assert!(line.contains(label), "{label} in {line}");
        }
        assert!(line.ends_with("} 1"), "{line}");
    }
    let duration = of(&told, "istio_request_duration_milliseconds_count");
    assert!(duration.len() == 1 && duration[0].ends_with("} 2"), "not asked for: {duration:?}");
    let opened = of(&told, names::TCP_OPENED);
    assert!(opened.len() == 1 && !opened[0].contains("fixed="), "{opened:?}");
}

#[test]
fn a_standard_label_is_not_put_where_istio_has_none() {
    let spec = "{metrics: [{overrides: [{tagOverrides: {response_code: {value: \"'x'\"}, mine: {value: \"'y'\"}}}]}]}";
    let told = told(&new(), planned("", &telemetry("a", ROOT, spec)).0);
    let opened = of(&told, names::TCP_OPENED);
    assert!(opened[0].contains("mine=\"y\"") && !opened[0].contains("response_code"), "{opened:?}");
    assert!(of(&told, names::REQUESTS)[0].contains("response_code=\"x\""), "{told:?}");
}

#[test]
fn the_narrower_telemetry_goes_on_top_and_modes_of_servers_say_nothing() {
    let wide = telemetry(
        "wide",
        ROOT,
        "{metrics: [{reportingInterval: 7s, overrides: [{match: {metric: ALL_METRICS}, disabled: true}]}]}",
    );
    let own = telemetry(
        "own",
        ROOT,
        "{selector: {matchLabels: {istio: ingressgateway}}, metrics: [{overrides: [\
         {match: {metric: REQUEST_SIZE, mode: CLIENT}, disabled: true}, {match: {metric: REQUEST_COUNT, mode: SERVER}, disabled: true}, \
         {match: {customMetric: response_bytes}, disabled: true}, {match: {customMetric: other}, disabled: true}]}]}",
    );
    let (plan, findings) = planned("", &wide);
    assert!(plan.rules.metrics.iter().all(|rule| rule.disabled) && findings.is_empty(), "{findings:?}");
    assert_eq!(told(&new(), plan), ["istio_build{component=\"proxy\",tag=\"test\"} 1"]);
    let (plan, findings) = planned("", &(wide + &own));
    assert_eq!(plan.interval, Duration::from_secs(7));
    let off: Vec<_> =
        names::ISTIO.iter().zip(&plan.rules.metrics).filter(|(_, rule)| rule.disabled).collect();
    assert_eq!(
        off.iter().map(|((name, _), _)| *name).collect::<Vec<_>>(),
        [names::REQUEST_BYTES, names::RESPONSE_BYTES]
    );
    assert!(findings.len() == 1 && findings[0].contains("there is no metric istio_other"), "{findings:?}");
}

#[test]
fn only_a_provider_that_is_scraped_has_metrics() {
    let named =
        |name: &str| telemetry("a", ROOT, &format!("{{metrics: [{{providers: [{{name: {name}}}]}}]}}"));
    let disabled = |plan: &MetricsPlan| plan.rules.metrics.iter().all(|rule| rule.disabled);
    let (plan, findings) = planned("", &named("stackdriver"));
    assert!(disabled(&plan), "{plan:?}");
    assert!(findings.len() == 1 && findings[0].contains("use one of the kind prometheus"), "{findings:?}");
    assert!(disabled(&planned("defaultProviders: {metrics: []}", "").0));
    assert!(!disabled(&planned("defaultProviders: {metrics: []}", &named("prometheus")).0));
    let mine = "extensionProviders: [{name: mine, prometheus: {}}]";
    assert!(!disabled(&planned(mine, &named("mine")).0));
}

#[test]
fn what_cannot_be_evaluated_or_has_no_effect_is_said() {
    let spec = "{metrics: [{overrides: [{tagOverrides: {a: {value: \"node.metadata['x']\"}, b: {value: \"'c'\"}}}]}]}";
    let (plan, findings) = planned(
        "defaultConfig: {extraStatTags: [a], proxyStatsMatcher: {inclusionPrefixes: [x]}}",
        &telemetry("a", ROOT, spec),
    );
    assert!(plan.rules.metrics.iter().all(|rule| rule.labels.keys().eq(["b"])), "{plan:?}");
    let said = |text: &str| findings.iter().filter(|finding| finding.contains(text)).count();
    assert_eq!(said("label \"a\" cannot be evaluated"), 1, "{findings:?}");
    assert_eq!(
        (said("extraStatTags has no effect"), said("proxyStatsMatcher has no effect")),
        (1, 1),
        "{findings:?}"
    );
}

#[test]
fn other_labels_begin_anew_and_what_left_the_configuration_is_not_missing_in_a_sum() {
    use routing::cluster::{ClusterSpec, Workload};
    let metrics = new();
    metrics.istio.record(metrics.istio.nowhere(), &sample());
    let spec = "{metrics: [{overrides: [{tagOverrides: {destination_workload: {operation: REMOVE}}}]}]}";
    let (plan, _) = planned("", &telemetry("a", ROOT, spec));
    metrics.istio.set(plan.rules, plan.interval);
    assert!(of(&lines(&metrics), names::REQUESTS).is_empty());
    let cluster = ClusterSpec::new("a.example", 80, "");
    let workload = |name: &str| std::sync::Arc::new(Workload { name: name.into(), ..Workload::default() });
    let [one, two] =
        ["one", "two"].map(|name| metrics.istio.workload(&cluster, &workload(name), Default::default()));
    metrics.istio.record(&one, &sample());
    metrics.istio.record(&two, &sample());
    let count = |lines: &[String]| {
        of(lines, names::REQUESTS)
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(count(&lines(&metrics)), ["2"]);
    drop(two);
    for _ in 0..3 {
        assert_eq!(count(&lines(&metrics)), ["2"], "it does not fall");
    }
    drop(one);
    for _ in 0..2 {
        assert_eq!(count(&lines(&metrics)), ["2"], "as it was when it was told last");
    }
    assert!(count(&lines(&metrics)).is_empty(), "and then no more");
}

#[test]
fn texts_of_requests_make_no_series_without_end() {
    let spec = "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {path: {value: request.path}}}]}]}";
    let (plan, _) = planned("", &telemetry("a", ROOT, spec));
    let metrics = new();
    let labels = metrics.istio.set(plan.rules, plan.interval).unwrap();
    let none = HeaderMap::new();
    for number in 0..3000 {
        let path = format!("/{number}");
        let values = labels.of(&Entry { path: &path, ..Entry::empty(&none) });
        metrics.istio.record_with(metrics.istio.nowhere(), &sample(), values);
    }
    let told = lines(&metrics);
    let requests = of(&told, names::REQUESTS);
    assert!(requests.len() == 1025, "{}", requests.len());
    let sum: u64 = requests.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 3000, "none is lost");
}

#[test]
fn a_sidecar_tells_of_each_way_as_it_is_said() {
    let more = telemetry(
        "a",
        ROOT,
        "{metrics: [{providers: [{name: prometheus}], overrides: [{match: {mode: SERVER}, tagOverrides: {way: {value: '\"in\"'}}}, {match: {mode: CLIENT, metric: REQUEST_COUNT}, disabled: true}]}]}",
    );
    let (plan, findings) = beside(&configuration("", &more), metrics);
    assert_eq!(findings, Vec::<String>::new());
    let metrics = Metrics::new(Identity::default(), "test").unwrap();
    metrics.istio.set(plan.rules, plan.interval);
    let of = |name| {
        let spec =
            routing::cluster::ClusterSpec { name, ..routing::cluster::ClusterSpec::new("a.example", 80, "") };
        metrics.istio.cluster(&spec)
    };
    let (inward, out) =
        (of(routing::cluster::ClusterName::inbound(80)), of(routing::cluster::ClusterName::passthrough()));
    metrics.istio.record(&inward, &sample());
    metrics.istio.record(&out, &sample());
    let lines = lines(&metrics);
    let found = |name: &str, reporter: &str| {
        let reporter = format!("reporter=\"{reporter}\"");
        lines
            .iter()
            .find(|line| line.starts_with(name) && line.contains(&reporter))
            .cloned()
            .unwrap_or_default()
    };
    assert!(found("istio_requests_total{", "destination").contains("way=\"in\""), "{lines:?}");
    assert_eq!(found("istio_requests_total{", "source"), "");
    let times = "istio_request_duration_milliseconds_count{";
    assert!(found(times, "destination").contains("way=\"in\""), "{lines:?}");
    assert!(!found(times, "source").is_empty() && !found(times, "source").contains("way="), "{lines:?}");
}

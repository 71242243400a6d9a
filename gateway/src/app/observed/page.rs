//! Holds the page of metrics, and the dashboard for Grafana, to what the process has.

use super::*;
use crate::{
    app::panics,
    listener::BindOptions,
    pipeline,
    policy::builtin::SecurityMetrics,
    pressure,
    proxy::{GatewayProxy, HttpHandler},
    runtime::{Registry, resolver::SystemResolver},
    status,
    telemetry::{Identity, export::Exported},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const PAGE: &str = include_str!("../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../../deploy/dashboards/limen.json");
/// Labels that Prometheus gives what it scrapes.
const OF_SCRAPES: [&str; 3] = ["namespace", "pod", "container"];

type Described = BTreeMap<String, BTreeSet<String>>;

/// Everything that a process registers.
async fn registered() -> Described {
    let metrics = Arc::new(Metrics::new(Identity::default(), "test").unwrap());
    let (snapshots, drain) = (Arc::new(SnapshotCell::default()), Arc::new(DrainController::new()));
    let proxy = GatewayProxy::new(Arc::clone(&snapshots), Arc::clone(&metrics), None);
    let listeners = ListenerManager::new(
        snapshots.clone(),
        Arc::new(HttpHandler::new(proxy, 1)),
        BindOptions::default(),
        Duration::ZERO,
    );
    pipeline::Metrics::register(&metrics).unwrap();
    panics::register(&metrics).unwrap();
    pressure::Gauges::register(&metrics).unwrap();
    Observed::register(&metrics, listeners, snapshots, drain).unwrap();
    let resolver = Arc::new(CountedResolver::new(SystemResolver::new(), &metrics).unwrap());
    let registry = Registry::new(resolver, tokio::runtime::Handle::current());
    metrics.register(Box::new(registry.collector().unwrap())).unwrap();
    SecurityMetrics::register(&metrics).unwrap();
    Exported::register(&metrics).unwrap();
    status::Metrics::register(&metrics).unwrap();
    metrics.described()
}

/// The page's tables: `| name | type | labels | unit | meaning |`. A list of labels may be another metric's.
fn page() -> Described {
    let mut all = Described::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, unit, meaning] = cells[..] else { panic!("no row of five: {line}") };
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        assert!(!unit.is_empty() && meaning.ends_with('.'), "{line}");
        let name = name.trim_matches('`').to_owned();
        let words: BTreeSet<String> =
            labels.split(", ").map(|label| label.trim_matches('`').to_owned()).collect();
        let labels = match labels {
            "none" => BTreeSet::new(),
            "requests" | "connections" | "messages" => list(labels),
            _ => words,
        };
        assert!(all.insert(name, labels).is_none(), "twice: {line}");
    }
    all
}

/// The list of labels behind `**requests**:` and its like.
fn list(name: &str) -> BTreeSet<String> {
    let line = PAGE.lines().find(|line| line.starts_with(&format!("**{name}**:"))).unwrap();
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_page_has_every_metric_with_its_labels_and_no_other() {
    let (registered, page) = (registered().await, page());
    assert!(registered.len() > 40, "{}", registered.len());
    for (name, labels) in &registered {
        assert_eq!(page.get(name), Some(labels), "{name} of the process, on the page");
    }
    for name in page.keys() {
        assert!(registered.contains_key(name), "{name} is on the page, and the process has it not");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_and_labels_that_there_are() {
    let page = page();
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut asked = Vec::new();
    questions(&dashboard, &mut asked);
    assert!(asked.len() > 25, "{asked:?}");
    for question in asked {
        let mut labels = BTreeSet::new();
        for (at, name) in
            words(question).filter(|(_, word)| word.starts_with("istio_") || word.starts_with("limen_"))
        {
            let known = ["", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| page.get(name.strip_suffix(suffix)?))
                .unwrap_or_else(|| panic!("there is no {name}: {question}"));
            labels.extend(known.iter().map(String::as_str));
            let of_it = question[at + name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next());
            for label in of_it.unwrap_or_default().split(',').filter(|label| !label.is_empty()) {
                let label = label.split(['=', '!', '~']).next().unwrap();
                assert!(
                    known.contains(label) || OF_SCRAPES.contains(&label),
                    "{name} has no label {label}: {question}"
                );
            }
        }
        for list in question.split("by (").skip(1).chain(question.split("on (").skip(1)) {
            for label in list.split(')').next().unwrap().split(", ") {
                let fits = labels.contains(label) || OF_SCRAPES.contains(&label) || label == "le";
                assert!(fits, "nothing there has the label {label}: {question}");
            }
        }
    }
}

/// Every question to Prometheus in it.
fn questions<'v>(value: &'v serde_json::Value, found: &mut Vec<&'v str>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&name.as_str()) => {
                        found.push(text)
                    }
                    _ => questions(field, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| questions(item, found)),
        _ => {}
    }
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(move |word| {
        let place = at;
        at += word.len() + 1;
        (place, word)
    })
}

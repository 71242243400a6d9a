//! What MeshConfig and the Telemetries that hold for the gateway say about Istio's metrics.
//!
//! Invariant: the rules are Istio's (telemetry.go `mergeMetrics`, istio_stats.cc `Config`). What cannot be done as it is written is a
//! finding, and the metrics stay as they are in that.

use super::{
    condition::Condition,
    istio::{Change, REPORTING_INTERVAL, Rule, Rules},
    names,
    plan::{Ground, Planner, Side},
};
use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics, Severity},
    istio::{
        Telemetry,
        telemetry::{IstioMetric, MetricSelector, MetricsOverrides, TagOperation, TagOverride},
    },
    meta::Resource,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How Istio's metrics are told.
#[derive(Debug, PartialEq)]
pub struct MetricsPlan {
    /// Which, and with which labels.
    pub rules: Rules,
    /// Time between two updates of counters of connections that are not HTTP.
    pub interval: Duration,
}

/// The plan, and what is wrong with it.
#[must_use]
pub fn metrics(ground: &Ground<'_>) -> (MetricsPlan, Diagnostics) {
    let mut planner = Planner { ground, findings: Diagnostics::new() };
    let plan = planner.metrics();
    (plan, planner.findings)
}

/// What is said of one provider.
#[derive(Default)]
struct Said<'p> {
    interval: Option<Duration>,
    /// By place in [`names::ISTIO`].
    metrics: Metrics<'p>,
    /// The same of what comes in to a workload.
    inbound: Metrics<'p>,
    all_disabled: bool,
}

type Metrics<'p> = [Metric<'p>; names::ISTIO.len()];

#[derive(Default)]
struct Metric<'p> {
    disabled: bool,
    labels: BTreeMap<&'p str, (&'p TagOverride, Place<'p>)>,
}

/// Where a change is written.
#[derive(Clone, Copy)]
struct Place<'p> {
    resource: &'p Resource<Telemetry>,
    entry: usize,
    change: usize,
}

impl Place<'_> {
    fn path(self) -> String {
        format!("spec.metrics[{}].overrides[{}]", self.entry, self.change)
    }
}

impl<'p> Planner<'p> {
    fn metrics(&mut self) -> MetricsPlan {
        let mesh = self.ground.validated.mesh();
        let proxy = &mesh.default_config;
        for (field, why) in [
            (
                proxy.proxy_stats_matcher.is_some().then_some("proxyStatsMatcher"),
                "it chooses among Envoy's own statistics, and there are none here",
            ),
            (
                (!proxy.extra_stat_tags.is_empty()).then_some("extraStatTags"),
                "labels that a Telemetry adds are told without it",
            ),
        ] {
            if let Some(field) = field {
                self.finding(
                    Code::NO_EFFECT,
                    format!("defaultConfig.{field} has no effect on a gateway: {why}"),
                );
            }
        }
        let said = self.said_of_metrics();
        let of_prometheus = said.into_iter().find(|(name, said)| {
            let provider = mesh.provider(name);
            if let Some(provider) = provider
                && provider.prometheus.is_none()
                && provider.takes_metrics()
            {
                self.not_yet(format!(
                    "the provider {name:?} is no place for metrics that is spoken to: use one of the kind prometheus, which is scraped"
                ));
            }
            provider.is_some_and(|provider| provider.prometheus.is_some()) && !said.all_disabled
        });
        let Some((_, said)) = of_prometheus else {
            let rules = Rules {
                metrics: std::array::from_fn(|_| Rule { disabled: true, ..Rule::default() }),
                ..Rules::default()
            };
            return MetricsPlan { rules, interval: REPORTING_INTERVAL };
        };
        let mut rules = Rules::default();
        let beside = self.ground.is_beside();
        let (mut expressions, mut refused) = (Vec::new(), BTreeSet::new());
        let mut of = |metrics: Metrics<'p>| {
            metrics.map(|metric| {
                let labels = metric.labels.into_iter().filter_map(|(name, (tag, place))| {
                    let change = self.change(name, tag, place, &mut expressions, &mut refused)?;
                    Some((name.to_owned(), change))
                });
                Rule { labels: labels.collect(), disabled: metric.disabled }
            })
        };
        rules.metrics = of(said.metrics);
        if beside {
            rules.inbound = Some(Box::new(of(said.inbound))).filter(|inbound| **inbound != rules.metrics);
        }
        rules.expressions = expressions;
        MetricsPlan { rules, interval: said.interval.unwrap_or(REPORTING_INTERVAL) }
    }

    /// By provider, in the order of their names.
    fn said_of_metrics(&mut self) -> BTreeMap<&'p str, Said<'p>> {
        let ground = self.ground;
        let telemetries = ground.validated.telemetries_for(&ground.node.namespace, &ground.node.labels);
        let default: Vec<&str> =
            ground.validated.mesh().default_providers.metrics.iter().map(String::as_str).collect();
        let entries = || {
            telemetries.iter().flat_map(|resource| {
                resource.spec.metrics.iter().enumerate().map(move |(index, entry)| (*resource, index, entry))
            })
        };
        // The last that names any holds; it is no deep merge.
        let named = entries().map(|(_, _, entry)| &entry.providers).rfind(|named| !named.is_empty());
        let in_scope: BTreeSet<&str> = match named {
            Some(named) => named.iter().map(|provider| provider.name.as_str()).collect(),
            None => default.iter().copied().collect(),
        };
        let mut all = BTreeMap::new();
        if entries().next().is_none() {
            all.extend(default.iter().map(|name| (*name, Said::default())));
        }
        let mut inherited = default;
        for (resource, entry, metrics) in entries() {
            if !metrics.providers.is_empty() {
                inherited = metrics.providers.iter().map(|provider| provider.name.as_str()).collect();
            }
            for name in inherited.iter().filter(|name| in_scope.contains(*name)) {
                let said: &mut Said<'_> = all.entry(*name).or_default();
                if let Some(interval) = metrics.reporting_interval {
                    said.interval = Some(interval.as_std());
                }
                for (change, overrides) in metrics.overrides.iter().enumerate() {
                    said.add(overrides, Place { resource, entry, change });
                }
            }
            for (change, overrides) in metrics.overrides.iter().enumerate() {
                let custom = overrides.matches.as_ref().and_then(|matches| matches.custom_metric.as_deref());
                if let Some(custom) = custom.filter(|name| place_of(name).is_none()) {
                    let place = Place { resource, entry, change };
                    let message = format!("there is no metric istio_{custom}: this changes nothing");
                    self.about(
                        place,
                        format!("{}.match.customMetric", place.path()),
                        Code::NO_EFFECT,
                        message,
                    );
                }
            }
        }
        all
    }

    fn change(
        &mut self,
        name: &str,
        tag: &TagOverride,
        place: Place<'_>,
        expressions: &mut Vec<Condition>,
        refused: &mut BTreeSet<String>,
    ) -> Option<Change> {
        if tag.operation == TagOperation::Remove {
            return Some(Change::Removed);
        }
        if !is_label(name) {
            // Said where it is validated.
            return None;
        }
        let path = format!("{}.tagOverrides.{name}", place.path());
        match Condition::value(&tag.value) {
            Ok(expression) => Some(match expression.fixed() {
                Some(text) => Change::Fixed(text.to_owned()),
                None => Change::Made(
                    expressions.iter().position(|known| *known == expression).unwrap_or_else(|| {
                        expressions.push(expression);
                        expressions.len() - 1
                    }),
                ),
            }),
            Err(why) => {
                if refused.insert(format!("{}/{path}", place.resource.key)) {
                    let message = format!("the value of the label {name:?} cannot be evaluated, {why}");
                    self.about(place, path, Code::NOT_YET_HONOURED, message);
                }
                None
            }
        }
    }

    fn about(&mut self, place: Place<'_>, path: String, code: Code, message: String) {
        let mut finding =
            Diagnostic::new(code, message).about(&place.resource.key, &place.resource.origin).at(path);
        if code == Code::NOT_YET_HONOURED {
            finding =
                finding.severity(Severity::Error).hint("the label stays as it is until this is corrected");
        }
        self.findings.push(finding);
    }
}

impl<'p> Said<'p> {
    fn add(&mut self, overrides: &'p MetricsOverrides, place: Place<'p>) {
        let matches = overrides.matches.as_ref();
        let is_all =
            matches.is_some_and(|m| m.custom_metric.is_none() && m.metric == Some(IstioMetric::AllMetrics));
        if is_all && overrides.disabled == Some(true) {
            // Whichever way is named (Istio: the filter is left out).
            self.all_disabled = true;
            return;
        }
        self.all_disabled = false;
        let sides = [(Side::Client, &mut self.metrics), (Side::Server, &mut self.inbound)];
        for (_, metrics) in
            sides.into_iter().filter(|(side, _)| matches.is_none_or(|matches| side.is_meant(matches.mode)))
        {
            for index in chosen(matches) {
                let Some(metric) = metrics.get_mut(index) else { continue };
                metric.disabled = overrides.disabled.unwrap_or(metric.disabled);
                metric
                    .labels
                    .extend(overrides.tag_overrides.iter().map(|(name, tag)| (name.as_str(), (tag, place))));
            }
        }
    }
}

/// Places of the metrics that are chosen.
fn chosen(matches: Option<&MetricSelector>) -> Vec<usize> {
    match matches.map(|matches| (matches.custom_metric.as_deref(), matches.metric)) {
        Some((Some(custom), _)) => place_of(custom).into_iter().collect(),
        Some((None, Some(metric))) if metric != IstioMetric::AllMetrics => {
            BY_NAME.iter().position(|(_, known)| *known == metric).into_iter().collect()
        }
        _ => (0..names::ISTIO.len()).collect(),
    }
}

/// A metric by the name that a Telemetry has for it, or its own without `istio_` (Istio takes both).
fn place_of(custom: &str) -> Option<usize> {
    let by_name = BY_NAME.iter().position(|(name, _)| *name == custom);
    by_name.or_else(|| {
        names::ISTIO
            .iter()
            .position(|(name, _)| name.strip_prefix("istio_").is_some_and(|name| name == custom))
    })
}

/// What Telemetries call [`names::ISTIO`], in its order (Istio: telemetry.go `metricToPrometheusMetric`).
const BY_NAME: [(&str, IstioMetric); names::ISTIO.len()] = [
    ("REQUEST_COUNT", IstioMetric::RequestCount),
    ("REQUEST_DURATION", IstioMetric::RequestDuration),
    ("REQUEST_SIZE", IstioMetric::RequestSize),
    ("RESPONSE_SIZE", IstioMetric::ResponseSize),
    ("GRPC_REQUEST_MESSAGES", IstioMetric::GrpcRequestMessages),
    ("GRPC_RESPONSE_MESSAGES", IstioMetric::GrpcResponseMessages),
    ("TCP_OPENED_CONNECTIONS", IstioMetric::TcpOpenedConnections),
    ("TCP_CLOSED_CONNECTIONS", IstioMetric::TcpClosedConnections),
    ("TCP_SENT_BYTES", IstioMetric::TcpSentBytes),
    ("TCP_RECEIVED_BYTES", IstioMetric::TcpReceivedBytes),
];

/// Whether Prometheus takes it as the name of a label.
fn is_label(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests;

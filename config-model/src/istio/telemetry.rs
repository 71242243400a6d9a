//! `Telemetry` (`telemetry.istio.io`): metrics, traces and access logs of workloads.
//!
//! Invariant: whom it is for is the selector's matter, and which of several holds is not decided here.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use super::{PolicyTargetReference, WorkloadSelector};
use crate::scalar::{Duration, Percent};

/// A Telemetry's spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Telemetry {
    /// The pods this is for; absent is all of the namespace, and in the root namespace all of the mesh.
    pub selector: Option<WorkloadSelector>,
    /// Deprecated: `targetRefs`.
    pub target_ref: Option<PolicyTargetReference>,
    /// Resources that this is for in place of pods.
    pub target_refs: Vec<PolicyTargetReference>,
    /// Traces; each entry goes on top of the one before.
    pub tracing: Vec<Tracing>,
    /// Metrics; each entry goes on top of the one before.
    pub metrics: Vec<Metrics>,
    /// Access logs; each entry goes on top of the one before.
    pub access_logging: Vec<AccessLogging>,
}

impl Telemetry {
    /// Whether it is for a whole namespace: it names neither labels nor resources (Istio: namespaceWideTelemetryConfig).
    pub fn is_for_all(&self) -> bool {
        self.selector.as_ref().is_none_or(|selector| selector.labels.is_empty()) && self.is_for_pods()
    }

    /// Whether it is for pods, and not for resources that it names.
    pub fn is_for_pods(&self) -> bool {
        self.target_ref.is_none() && self.target_refs.is_empty()
    }
}

/// Which way requests go, seen from the workload. A gateway is a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    /// Both ways.
    #[default]
    ClientAndServer,
    /// Out of the workload.
    Client,
    /// Into the workload.
    Server,
}

impl WorkloadMode {
    /// Whether it takes in what a client does.
    pub fn has_client(self) -> bool {
        self != WorkloadMode::Server
    }

    /// Whether it takes in what a server does.
    pub fn has_server(self) -> bool {
        self != WorkloadMode::Client
    }
}

/// A choice by direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ModeSelector {
    /// The direction.
    pub mode: WorkloadMode,
}

/// A provider of MeshConfig, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProviderRef {
    /// Its name; required by validation.
    pub name: String,
}

/// What is traced, and how.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tracing {
    /// Requests that this is for.
    #[serde(rename = "match")]
    pub matches: Option<ModeSelector>,
    /// Where spans go; the first counts.
    pub providers: Vec<ProviderRef>,
    /// Share of requests that are traced when nobody has decided yet.
    #[serde(deserialize_with = "percentage")]
    pub random_sampling_percentage: Option<Percent>,
    /// No spans are reported; headers are passed on all the same.
    pub disable_span_reporting: Option<bool>,
    /// Tags of spans, by name; they replace those of a wider scope as a whole.
    pub custom_tags: Option<BTreeMap<String, CustomTag>>,
    /// The decision is read from, and written into, the request ID; absent is yes.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Spans carry Istio's own tags; absent is yes.
    pub enable_istio_tags: Option<bool>,
    /// No headers of a trace are passed on.
    pub disable_context_propagation: Option<bool>,
}

/// The value of a span's tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CustomTag {
    /// None of the ways is given: there is no such tag.
    #[default]
    Unset,
    /// This text.
    Literal(String),
    /// A variable of the proxy's environment.
    Environment {
        /// Its name.
        name: String,
        /// The value where there is no such variable.
        default_value: String,
    },
    /// A header of the request.
    Header {
        /// Its name.
        name: String,
        /// The value where there is no such header.
        default_value: String,
    },
    /// What the access log's operators make of this.
    Formatter(String),
}

impl<'de> Deserialize<'de> for CustomTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CustomTag, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Text {
            value: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Named {
            name: String,
            default_value: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename = "CustomTag")]
        struct Message {
            literal: Option<Text>,
            environment: Option<Named>,
            header: Option<Named>,
            formatter: Option<Text>,
        }
        match Message::deserialize(deserializer)? {
            Message { literal: None, environment: None, header: None, formatter: None } => {
                Ok(CustomTag::Unset)
            }
            Message { literal: Some(Text { value }), environment: None, header: None, formatter: None } => {
                Ok(CustomTag::Literal(value))
            }
            Message {
                literal: None,
                environment: Some(Named { name, default_value }),
                header: None,
                formatter: None,
            } => Ok(CustomTag::Environment { name, default_value }),
            Message {
                literal: None,
                environment: None,
                header: Some(Named { name, default_value }),
                formatter: None,
            } => Ok(CustomTag::Header { name, default_value }),
            Message { literal: None, environment: None, header: None, formatter: Some(Text { value }) } => {
                Ok(CustomTag::Formatter(value))
            }
            _ => Err(de::Error::custom(
                "at most one of `literal`, `environment`, `header`, `formatter` may be set",
            )),
        }
    }
}

/// A share that is written as a plain number, 0 to 100.
fn percentage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Percent>, D::Error> {
    let number = Option::<f64>::deserialize(deserializer)?;
    number.map(|value| Percent::new(value).map_err(de::Error::custom)).transpose()
}

/// What is counted, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metrics {
    /// Who this is for; absent is whom the wider scope names.
    pub providers: Vec<ProviderRef>,
    /// Changes, in order; each goes on top of those before.
    pub overrides: Vec<MetricsOverrides>,
    /// Time between two updates of the counters of connections that are not HTTP.
    pub reporting_interval: Option<Duration>,
}

/// A change of one metric, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricsOverrides {
    /// The metrics; absent is all of them, both ways.
    #[serde(rename = "match")]
    pub matches: Option<MetricSelector>,
    /// Whether they are left out; absent leaves that as it is.
    pub disabled: Option<bool>,
    /// Changes of labels, by name.
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// A choice of metrics: `metric` or `customMetric`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricSelector {
    /// One of Istio's.
    pub metric: Option<IstioMetric>,
    /// One by its name, without the prefix `istio_`.
    pub custom_metric: Option<String>,
    /// The direction.
    pub mode: WorkloadMode,
}

/// Istio's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum IstioMetric {
    #[default]
    AllMetrics,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

/// A change of one label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TagOverride {
    /// Set or left out.
    pub operation: TagOperation,
    /// The value: an expression in CEL.
    pub value: String,
}

/// What happens to a label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    /// It is set, and added where there is none.
    #[default]
    Upsert,
    /// It is left out.
    Remove,
}

/// What is logged, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AccessLogging {
    /// Requests that this is for.
    #[serde(rename = "match")]
    pub matches: Option<ModeSelector>,
    /// Who this is for; absent is whom the wider scope names.
    pub providers: Vec<ProviderRef>,
    /// Whether nothing is logged; absent leaves that as it is.
    pub disabled: Option<bool>,
    /// Which requests are logged.
    pub filter: Option<LogFilter>,
}

/// Which requests are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogFilter {
    /// A condition in CEL.
    pub expression: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Telemetry, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn everything_of_the_api_is_read() {
        let spec = read(
            r#"{"selector":{"matchLabels":{"app":"a"}},
                "tracing":[{"match":{"mode":"CLIENT"},"providers":[{"name":"otel"}],"randomSamplingPercentage":12.5,
                  "disableSpanReporting":false,"useRequestIdForTraceSampling":false,"enableIstioTags":false,
                  "disableContextPropagation":true,
                  "customTags":{"a":{"literal":{"value":"b"}},"c":{"header":{"name":"x-c","defaultValue":"d"}},
                    "e":{"environment":{"name":"E"}},"f":{"formatter":{"value":"%PROTOCOL%"}},"g":{}}}],
                "metrics":[{"providers":[{"name":"prometheus"}],"reportingInterval":"10s",
                  "overrides":[{"match":{"metric":"REQUEST_COUNT","mode":"SERVER"},"disabled":true,
                    "tagOverrides":{"x":{"value":"request.host"},"y":{"operation":"REMOVE"}}}]}],
                "accessLogging":[{"match":{"mode":"SERVER"},"providers":[{"name":"envoy"}],"disabled":true,
                  "filter":{"expression":"response.code >= 400"}}]}"#,
        )
        .unwrap();
        assert!(!spec.is_for_all() && spec.is_for_pods());
        let tracing = &spec.tracing[0];
        assert_eq!(tracing.random_sampling_percentage.unwrap().millionths(), 125_000);
        let tags = tracing.custom_tags.as_ref().unwrap();
        assert_eq!(tags["a"], CustomTag::Literal("b".into()));
        assert_eq!(tags["c"], CustomTag::Header { name: "x-c".into(), default_value: "d".into() });
        assert_eq!(tags["g"], CustomTag::Unset);
        let metrics = &spec.metrics[0];
        assert_eq!(metrics.reporting_interval, Some(Duration::from_secs(10)));
        let change = &metrics.overrides[0];
        assert_eq!(change.matches.as_ref().unwrap().metric, Some(IstioMetric::RequestCount));
        assert!(!change.matches.as_ref().unwrap().mode.has_client());
        assert_eq!(change.tag_overrides["x"].operation, TagOperation::Upsert);
        assert_eq!(change.tag_overrides["y"].operation, TagOperation::Remove);
        assert_eq!(spec.access_logging[0].filter.as_ref().unwrap().expression, "response.code >= 400");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            r#"{"tracing":[{"randomSamplingPercentage":101}]}"#,
            r#"{"tracing":[{"customTags":{"a":{"literal":{"value":"b"},"header":{"name":"c"}}}}]}"#,
            r#"{"metrics":[{"overrides":[{"match":{"metric":"REQUESTS"}}]}]}"#,
            r#"{"metrics":[{"reportingInterval":"often"}]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("{}").unwrap().is_for_all());
        assert!(read(r#"{"selector":{}}"#).unwrap().is_for_all());
        assert!(!read(r#"{"targetRefs":[{"kind":"Gateway","name":"g"}]}"#).unwrap().is_for_all());
    }
}

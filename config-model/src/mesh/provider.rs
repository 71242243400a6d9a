//! Extension providers: where metrics, traces and logs go, and who is asked for authorization, by the names that resources use.
//!
//! Invariant: Istio's own providers (`prometheus`, `stackdriver`, `envoy`) are there unless one of the same name takes their place.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{ExtAuthzGrpc, ExtAuthzHttp};
use crate::scalar::{Duration, PortNumber, lenient};

/// The providers of what no Telemetry is written for, by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultProviders {
    /// Of traces; the first counts.
    pub tracing: Vec<String>,
    /// Of metrics. Absent is `prometheus`, as istiod's chart writes it into every installation.
    pub metrics: Vec<String>,
    /// Of access logs.
    pub access_logging: Vec<String>,
}

impl Default for DefaultProviders {
    fn default() -> DefaultProviders {
        DefaultProviders {
            tracing: Vec::new(),
            metrics: vec!["prometheus".to_owned()],
            access_logging: Vec::new(),
        }
    }
}

/// A provider: its name, and one of the ways.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtensionProvider {
    /// The name that resources use.
    pub name: String,
    /// Metrics that Prometheus scrapes.
    pub prometheus: Option<PrometheusProvider>,
    /// Access logs in a file.
    pub envoy_file_access_log: Option<FileAccessLogProvider>,
    /// Access logs by OTLP.
    pub envoy_otel_als: Option<OtelLogProvider>,
    /// Access logs by Envoy's own protocol.
    pub envoy_http_als: Option<IgnoredAny>,
    /// Access logs of TCP by Envoy's own protocol.
    pub envoy_tcp_als: Option<IgnoredAny>,
    /// Traces by OTLP.
    pub opentelemetry: Option<OpenTelemetryProvider>,
    /// Traces to Zipkin.
    pub zipkin: Option<ZipkinProvider>,
    /// Traces to Datadog.
    pub datadog: Option<IgnoredAny>,
    /// Traces to SkyWalking.
    pub skywalking: Option<IgnoredAny>,
    /// Traces to Lightstep; deprecated.
    pub lightstep: Option<IgnoredAny>,
    /// Traces to an agent of OpenCensus; deprecated.
    pub opencensus: Option<IgnoredAny>,
    /// Metrics, traces and logs of Google Cloud.
    pub stackdriver: Option<IgnoredAny>,
    /// Authorization asked over HTTP.
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    /// Authorization asked over gRPC.
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
    /// Why it could not be read: it hurts whoever names it, and nobody else.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

impl ExtensionProvider {
    /// The field that says what it is, where that is nothing that is spoken to here.
    pub fn foreign(&self) -> Option<&'static str> {
        let all = [
            ("datadog", &self.datadog),
            ("skywalking", &self.skywalking),
            ("lightstep", &self.lightstep),
            ("opencensus", &self.opencensus),
            ("stackdriver", &self.stackdriver),
            ("envoyHttpAls", &self.envoy_http_als),
            ("envoyTcpAls", &self.envoy_tcp_als),
        ];
        all.into_iter().find_map(|(name, field)| field.is_some().then_some(name))
    }

    /// Whether metrics can go there.
    pub fn takes_metrics(&self) -> bool {
        self.prometheus.is_some() || self.stackdriver.is_some()
    }

    /// Whether traces can go there.
    pub fn takes_traces(&self) -> bool {
        let others = [&self.datadog, &self.skywalking, &self.lightstep, &self.opencensus, &self.stackdriver];
        self.opentelemetry.is_some() || self.zipkin.is_some() || others.into_iter().any(Option::is_some)
    }

    /// The service that it is, and its port; `None`: it is no service, or one that is not spoken to here.
    pub fn service(&self) -> Option<(&str, Option<PortNumber>)> {
        let traces = self.opentelemetry.as_ref().map(|p| (p.service.as_str(), p.port));
        let traces = traces.or_else(|| self.zipkin.as_ref().map(|p| (p.service.as_str(), p.port)));
        traces.or_else(|| self.envoy_otel_als.as_ref().map(|p| (p.service.as_str(), p.port)))
    }

    /// Whether access logs can go there.
    pub fn takes_logs(&self) -> bool {
        let others = [&self.envoy_http_als, &self.envoy_tcp_als, &self.stackdriver];
        self.envoy_file_access_log.is_some()
            || self.envoy_otel_als.is_some()
            || others.into_iter().any(Option::is_some)
    }
}

/// Metrics that Prometheus scrapes; it has no fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PrometheusProvider {}

/// Access logs in a file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FileAccessLogProvider {
    /// Path of the file.
    pub path: String,
    /// Format of a line; absent is the mesh's.
    pub log_format: Option<LogFormat>,
    /// Whether values that are not there are left out.
    pub omit_empty_values: bool,
}

/// Access logs by OTLP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OtelLogProvider {
    /// Host of the collector, `NAMESPACE/HOST` or a host of the registry.
    pub service: String,
    /// Its port.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Name of the log; empty is Istio's.
    pub log_name: String,
    /// Body and attributes of a record.
    pub log_format: Option<LogFormat>,
}

/// What a line of the log says: a text, or fields by name, or for OTLP both.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogFormat {
    /// A text with operators.
    pub text: Option<String>,
    /// Fields with operators.
    pub labels: Option<BTreeMap<String, LogValue>>,
}

/// The value of a field: JSON without null.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum LogValue {
    /// A text with operators.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A list.
    List(Vec<LogValue>),
    /// Fields below this one.
    Fields(BTreeMap<String, LogValue>),
}

/// Traces by OTLP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OpenTelemetryProvider {
    /// Host of the collector, `NAMESPACE/HOST` or a host of the registry.
    pub service: String,
    /// Its port.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Length to which the path in a tag is cut; 0 is 256.
    #[serde(deserialize_with = "lenient::int")]
    pub max_tag_length: u32,
    /// By HTTP in place of gRPC.
    pub http: Option<OtlpHttp>,
    /// Settings of gRPC.
    pub grpc: Option<OtlpGrpc>,
    /// What is told about where the proxy runs.
    pub resource_detectors: Option<ResourceDetectors>,
    /// How the service is named.
    pub service_attribute_enrichment: ServiceAttributeEnrichment,
    /// Sampling that Dynatrace decides.
    pub dynatrace_sampler: Option<IgnoredAny>,
}

/// OTLP by HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OtlpHttp {
    /// Path of the requests.
    pub path: String,
    /// Time for an answer.
    pub timeout: Option<Duration>,
    /// Headers of the requests.
    pub headers: Vec<ProviderHeader>,
}

/// OTLP by gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OtlpGrpc {
    /// Time for an answer.
    pub timeout: Option<Duration>,
    /// Metadata of the calls.
    pub initial_metadata: Vec<ProviderHeader>,
}

/// A header: its value, or the variable of the environment that holds it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProviderHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
    /// The variable that holds its value.
    pub env_name: Option<String>,
}

/// Without the value, which may be a token.
impl fmt::Debug for ProviderHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderHeader").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is told about where the proxy runs. Each has no fields.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceDetectors {
    /// What `OTEL_RESOURCE_ATTRIBUTES` says.
    pub environment: Option<IgnoredAny>,
    /// What Dynatrace's files say.
    pub dynatrace: Option<IgnoredAny>,
}

/// How a service is named in traces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum ServiceAttributeEnrichment {
    #[default]
    IstioCanonical,
    OtelSemanticConventions,
}

/// Traces to Zipkin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ZipkinProvider {
    /// Host of the collector, `NAMESPACE/HOST` or a host of the registry.
    pub service: String,
    /// Its port.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Length to which the path in a tag is cut; 0 is 256.
    #[serde(deserialize_with = "lenient::int")]
    pub max_tag_length: u32,
    /// Trace IDs of 64 bits in place of 128.
    pub enable_64bit_trace_id: bool,
    /// Path of the requests; empty is `/api/v2/spans`.
    pub path: String,
    /// The headers that carry the context.
    pub trace_context_option: TraceContextOption,
    /// Time for an answer.
    pub timeout: Option<Duration>,
    /// Headers of the requests.
    pub headers: Vec<ProviderHeader>,
}

/// The headers that carry the context of a trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum TraceContextOption {
    #[default]
    #[serde(rename = "USE_B3")]
    B3,
    #[serde(rename = "USE_B3_WITH_W3C_PROPAGATION")]
    B3WithW3c,
}

/// Istio's own providers.
pub(super) fn built_in() -> Vec<ExtensionProvider> {
    let named = |name: &str| ExtensionProvider { name: name.to_owned(), ..ExtensionProvider::default() };
    let stdout = FileAccessLogProvider { path: "/dev/stdout".to_owned(), ..FileAccessLogProvider::default() };
    vec![
        ExtensionProvider { prometheus: Some(PrometheusProvider {}), ..named("prometheus") },
        ExtensionProvider { stackdriver: Some(IgnoredAny), ..named("stackdriver") },
        ExtensionProvider { envoy_file_access_log: Some(stdout), ..named("envoy") },
    ]
}

/// Puts what is written over Istio's own, by name (Istio: ApplyMeshConfig).
pub(super) fn merged<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ExtensionProvider>, D::Error> {
    Ok(over_built_in(Vec::deserialize(deserializer)?))
}

/// What is written, over Istio's own.
pub(crate) fn over_built_in(written: Vec<ExtensionProvider>) -> Vec<ExtensionProvider> {
    let mut all = built_in();
    for written in written {
        match all.iter_mut().find(|known| known.name == written.name) {
            Some(known) => *known = written,
            None => all.push(written),
        }
    }
    all
}

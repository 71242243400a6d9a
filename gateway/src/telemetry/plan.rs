//! What MeshConfig and the Telemetries that hold for the gateway say about traces.
//!
//! Invariant: the rules are Istio's (telemetry.go `Tracing`, tracing.go `configureTracingFromTelemetry`). What cannot be done as it is
//! written is a finding, and requests are served all the same.

use super::{
    export::{Address, Destination, PATIENCE, Protocol},
    node::{Node, resource_attributes},
    trace::{Encoding, OTLP_GRPC_PATH, Propagation, Recipe, Sampling, Tags, Width},
};
use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::telemetry::{CustomTag, ModeSelector, WorkloadMode},
    mesh::{
        ExtensionProvider, MeshConfig, MeshTracing,
        provider::{OpenTelemetryProvider, ProviderHeader, ZipkinProvider},
    },
    meta::{Kind, ResourceKey},
    scalar::PortNumber,
    validate::Validated,
};
use http::{HeaderName, HeaderValue};
use routing::{cluster::ClusterName, compile::Compiled, listener::Direction};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Istio's share of requests that are traced, in percent.
const SAMPLING: f64 = 1.0;
/// Envoy's longest path in a tag, in bytes.
const MAX_PATH: u32 = 256;
/// Envoy's and Istio's path of Zipkin's second version.
const ZIPKIN_PATH: &str = "/api/v2/spans";
/// Time for a message to Zipkin (Istio: tracing.go `zipkinConfig`).
const ZIPKIN_PATIENCE: Duration = Duration::from_secs(5);

/// How requests are to be traced.
#[derive(Default)]
pub struct TracePlan {
    /// How many.
    pub sampling: Sampling,
    /// Whether they carry a context on.
    pub propagation: Propagation,
    /// Where spans go; `None`: nowhere.
    pub recipe: Option<Recipe>,
}

/// What a plan is made from.
pub struct Ground<'g> {
    /// The configuration.
    pub validated: &'g Validated,
    /// What was compiled of it.
    pub compiled: &'g Compiled,
    /// Where the gateway runs.
    pub node: &'g Node,
    /// The process' environment.
    pub environment: &'g dyn Fn(&str) -> Option<String>,
}

/// Who the proxy is for the requests that are told of (Istio: `WorkloadMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// A client of what it sends them to: a gateway, and a sidecar for its workload.
    #[default]
    Client,
    /// A server: a sidecar for who calls its workload.
    Server,
}

impl Side {
    /// Of connections that go this way.
    #[must_use]
    pub fn of(direction: Direction) -> Self {
        match direction {
            Direction::Gateway | Direction::Outbound => Self::Client,
            Direction::Inbound => Self::Server,
        }
    }

    /// Whether what is said of this choice is said of it.
    pub(super) fn is_meant(self, mode: WorkloadMode) -> bool {
        match self {
            Self::Client => mode.has_client(),
            Self::Server => mode.has_server(),
        }
    }

    /// The same; what names no choice is said of both.
    pub(super) fn is_of(self, matches: Option<ModeSelector>) -> bool {
        matches.is_none_or(|matches| self.is_meant(matches.mode))
    }
}

impl Ground<'_> {
    /// Whether there are two sides: beside a workload.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        self.compiled.identity().role.workload().is_some()
    }
}

/// What the Telemetries say together.
struct Said<'g> {
    provider: Option<&'g str>,
    disabled: bool,
    tags: Option<&'g BTreeMap<String, CustomTag>>,
    sampling: Option<f64>,
    by_id: bool,
    istio_tags: bool,
    propagation: Propagation,
}

/// The plan for a side, and what is wrong with it.
#[must_use]
pub fn traces(ground: &Ground<'_>, side: Side) -> (TracePlan, Diagnostics) {
    let mut planner = Planner { ground, findings: Diagnostics::new() };
    let plan = planner.plan(side);
    (plan, planner.findings)
}

pub(super) struct Planner<'p> {
    pub(super) ground: &'p Ground<'p>,
    pub(super) findings: Diagnostics,
}

impl<'p> Planner<'p> {
    fn mesh(&self) -> &'p MeshConfig {
        self.ground.validated.mesh()
    }

    fn plan(&mut self, side: Side) -> TracePlan {
        let mesh = self.mesh();
        let proxy = mesh.default_config.tracing.as_ref();
        let Some(said) = self.said(side) else {
            // No Telemetry, no default provider: what `defaultConfig` says (Istio: "legacy mesh config").
            if !mesh.enable_tracing {
                return TracePlan::default();
            }
            let istio_tags = proxy.and_then(|tracing| tracing.enable_istio_tags).unwrap_or(true);
            let recipe = proxy.and_then(|tracing| self.by_address(tracing, istio_tags));
            let sampling = Sampling::percent(mesh_sampling(proxy));
            return TracePlan { sampling, propagation: Propagation::On, recipe };
        };
        let provider = said.provider.filter(|_| !said.disabled).and_then(|name| mesh.provider(name));
        let Some(recipe) = provider.and_then(|provider| self.by_provider(provider, &said)) else {
            // Istio: no provider that can be used, no tracing.
            return TracePlan::default();
        };
        let sampling = match said.by_id {
            true => Sampling::percent(said.sampling.unwrap_or_else(|| mesh_sampling(proxy))),
            false => Sampling::Always,
        };
        TracePlan { sampling, propagation: said.propagation, recipe: Some(recipe) }
    }

    /// The Telemetries, each on top of those before; `None`: there is nothing.
    fn said(&self, side: Side) -> Option<Said<'p>> {
        let node = self.ground.node;
        let telemetries = self.ground.validated.telemetries_for(&node.namespace, &node.labels);
        let entries: Vec<_> = telemetries.iter().flat_map(|resource| &resource.spec.tracing).collect();
        let default = self.mesh().default_providers.tracing.first().map(String::as_str);
        if entries.is_empty() && default.is_none() {
            return None;
        }
        let mut said = Said {
            provider: default,
            disabled: false,
            tags: None,
            sampling: None,
            by_id: true,
            istio_tags: true,
            propagation: Propagation::On,
        };
        for entry in entries.into_iter().filter(|entry| side.is_of(entry.matches)) {
            said.provider = entry.providers.first().map(|p| p.name.as_str()).or(said.provider);
            said.disabled = entry.disable_span_reporting.unwrap_or(said.disabled);
            said.tags = entry.custom_tags.as_ref().or(said.tags);
            said.sampling = entry.random_sampling_percentage.map(percent).or(said.sampling);
            said.by_id = entry.use_request_id_for_trace_sampling.unwrap_or(said.by_id);
            said.istio_tags = entry.enable_istio_tags.unwrap_or(said.istio_tags);
            said.propagation = match entry.disable_context_propagation {
                Some(true) => Propagation::Off,
                Some(false) => Propagation::On,
                None => said.propagation,
            };
        }
        Some(said)
    }

    fn by_provider(&mut self, provider: &ExtensionProvider, said: &Said<'_>) -> Option<Recipe> {
        let proxy = self.mesh().default_config.tracing.as_ref();
        // Istio: an empty map is as none.
        let written = said.tags.filter(|tags| !tags.is_empty());
        let tags = self.tags(said.istio_tags, written.or_else(|| proxy.map(|proxy| &proxy.custom_tags)));
        let max_path = |own: u32| own_or(own, proxy.map_or(0, |proxy| proxy.max_path_tag_length));
        if let Some(otel) = &provider.opentelemetry {
            let max_path = max_path(otel.max_tag_length);
            let address = self.otlp(&provider.name, otel)?;
            let encoding = Encoding::Otlp(self.resource(otel));
            return Some(self.recipe(address, encoding, Width::Wide, max_path, tags));
        }
        if let Some(zipkin) = &provider.zipkin {
            let max_path = max_path(zipkin.max_tag_length);
            let address = self.zipkin(&provider.name, zipkin)?;
            let width = if zipkin.enable_64bit_trace_id { Width::Narrow } else { Width::Wide };
            return Some(self.recipe(address, self.zipkin_encoding(), width, max_path, tags));
        }
        if provider.unreadable.is_none() {
            self.not_yet(format!(
                "the provider {:?} is no collector of traces that is spoken to ({}): nothing is traced; use opentelemetry or zipkin",
                provider.name,
                provider.foreign().unwrap_or("it is not for traces")
            ));
        }
        None
    }

    /// `defaultConfig.tracing`'s collector, which is an address.
    fn by_address(&mut self, tracing: &MeshTracing, istio_tags: bool) -> Option<Recipe> {
        let others = [
            ("datadog", tracing.datadog.is_some()),
            ("lightstep", tracing.lightstep.is_some()),
            ("stackdriver", tracing.stackdriver.is_some()),
            ("openCensusAgent", tracing.open_census_agent.is_some()),
        ];
        for (name, _) in others.into_iter().filter(|(_, there)| *there) {
            self.not_yet(format!("defaultConfig.tracing.{name} is not spoken to: nothing is traced"));
        }
        let zipkin = tracing.zipkin.as_ref()?;
        if tracing.tls_settings.is_some() {
            // Spans may hold what users sent: less than was asked for is not done.
            self.not_yet(
                "defaultConfig.tracing.tlsSettings is not honoured: nothing is traced; use a provider, whose service has a \
                 DestinationRule"
                    .to_owned(),
            );
            return None;
        }
        let Some(to) = self.address(&zipkin.address) else {
            let message = format!(
                "defaultConfig.tracing.zipkin.address {:?} is not host:port: nothing is traced",
                zipkin.address
            );
            self.finding(Code::SCHEMA, message);
            return None;
        };
        let tags = self.tags(istio_tags, Some(&tracing.custom_tags));
        let address = Address {
            authority: zipkin.address.clone(),
            to,
            protocol: Protocol::Http,
            path: ZIPKIN_PATH.to_owned(),
            content_type: "application/json",
            headers: Vec::new(),
            patience: ZIPKIN_PATIENCE,
        };
        let max_path = own_or(tracing.max_path_tag_length, 0);
        Some(self.recipe(address, self.zipkin_encoding(), Width::Wide, max_path, tags))
    }

    fn recipe(
        &self,
        address: Address,
        encoding: Encoding,
        width: Width,
        max_path: u32,
        tags: Tags,
    ) -> Recipe {
        let node = self.ground.node.id();
        Recipe { address, encoding, width, max_path: max_path as usize, tags, node }
    }

    fn zipkin_encoding(&self) -> Encoding {
        let node = self.ground.node;
        Encoding::Zipkin(node.service_name(&self.mesh().default_config), node.ip)
    }

    fn otlp(&mut self, name: &str, provider: &OpenTelemetryProvider) -> Option<Address> {
        if provider.dynatrace_sampler.is_some() {
            self.not_yet(format!("dynatraceSampler of provider {name:?} is not honoured: the percentage is"));
        }
        if provider.resource_detectors.as_ref().is_some_and(|detectors| detectors.dynatrace.is_some()) {
            self.not_yet(format!("resourceDetectors.dynatrace of provider {name:?} is not honoured"));
        }
        let (to, authority) = self.service(name, &provider.service, provider.port)?;
        let (protocol, path, timeout, headers) = match &provider.http {
            Some(http) => (Protocol::Http, rooted(&http.path), http.timeout, &http.headers[..]),
            None => {
                let grpc = provider.grpc.as_ref();
                let metadata = grpc.map(|grpc| &grpc.initial_metadata[..]).unwrap_or_default();
                (Protocol::Grpc, OTLP_GRPC_PATH.to_owned(), grpc.and_then(|grpc| grpc.timeout), metadata)
            }
        };
        let headers = self.headers(name, headers);
        let patience = timeout.map_or(PATIENCE, |timeout| timeout.as_std());
        let content_type = "application/x-protobuf";
        Some(Address { to, protocol, path, content_type, authority, headers, patience })
    }

    fn zipkin(&mut self, name: &str, provider: &ZipkinProvider) -> Option<Address> {
        let (to, authority) = self.service(name, &provider.service, provider.port)?;
        let path = if provider.path.is_empty() { ZIPKIN_PATH.to_owned() } else { rooted(&provider.path) };
        let headers = self.headers(name, &provider.headers);
        let patience = provider.timeout.map_or(ZIPKIN_PATIENCE, |timeout| timeout.as_std());
        let (protocol, content_type) = (Protocol::Http, "application/json");
        Some(Address { to, protocol, path, content_type, authority, headers, patience })
    }

    fn resource(&self, provider: &OpenTelemetryProvider) -> Vec<(String, String)> {
        use config_model::mesh::provider::ServiceAttributeEnrichment as Enrichment;
        let how = provider.service_attribute_enrichment;
        let node = self.ground.node;
        let own = [
            ("service.name", node.otel_service_name(&self.mesh().default_config, how)),
            ("telemetry.sdk.name", "limen".to_owned()),
            ("telemetry.sdk.language", "rust".to_owned()),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let mut all: Vec<(String, String)> =
            own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let detects = provider.resource_detectors.as_ref().is_some_and(|d| d.environment.is_some());
        if detects || how == Enrichment::OtelSemanticConventions {
            let text = (self.ground.environment)("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
            for (key, value) in resource_attributes(&text) {
                match all.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, known)) => *known = value,
                    None => all.push((key, value)),
                }
            }
        }
        all
    }

    /// A provider's service as requests reach it, and its name (Istio: `LookupCluster`).
    pub(super) fn service(
        &mut self,
        name: &str,
        service: &str,
        port: Option<PortNumber>,
    ) -> Option<(Destination, String)> {
        // An absent port is said where the provider is read.
        let port = port?.get();
        let (namespace, host) = match service.split_once('/') {
            Some((namespace, host)) => (Some(namespace), host),
            None => (None, service),
        };
        let cluster = ClusterName::outbound(port, "", host);
        let known = self.ground.compiled.clusters.contains_key(&cluster);
        if !known || namespace.is_some_and(|namespace| !self.is_in(host, namespace)) {
            let message = format!("Referenced service not found: \"{service}:{port}\" (provider {name:?})");
            self.finding(Code::REFERENCE_NOT_FOUND, message);
            return None;
        }
        Some((Destination::Cluster(cluster), host.to_owned()))
    }

    /// Whether a host belongs to a namespace: a Service by its name, a ServiceEntry by where it is.
    fn is_in(&self, host: &str, namespace: &str) -> bool {
        let domain = format!(".svc.{}", self.ground.node.domain);
        if let Some(name) = host.strip_suffix(&domain) {
            return name.rsplit_once('.').is_some_and(|(_, its)| its == namespace);
        }
        let entries = self.ground.validated.service_entries().iter();
        entries
            .filter(|entry| entry.key.namespace == namespace)
            .any(|entry| entry.spec.hosts.iter().any(|known| known.as_str() == host))
    }

    /// `host:port`: a Service of the cluster where its name is one's, else any host.
    fn address(&self, text: &str) -> Option<Destination> {
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return None;
        }
        if host.parse::<IpAddr>().is_err() {
            let domain = &self.ground.node.domain;
            let full = match host.split('.').count() {
                1 => format!("{host}.{}.svc.{domain}", self.ground.node.namespace),
                2 => format!("{host}.svc.{domain}"),
                3 if host.ends_with(".svc") => format!("{host}.{domain}"),
                _ => host.to_owned(),
            };
            let known = [host, &full].map(|host| ClusterName::outbound(port, "", host));
            let known = known.into_iter().find(|name| self.ground.compiled.clusters.contains_key(name));
            if let Some(cluster) = known {
                return Some(Destination::Cluster(cluster));
            }
        }
        Some(Destination::Address(host.into(), port))
    }

    pub(super) fn headers(
        &mut self,
        name: &str,
        written: &[ProviderHeader],
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for header in written {
            let of_environment = || header.env_name.as_deref().and_then(self.ground.environment);
            let value = header.value.clone().or_else(of_environment).unwrap_or_default();
            let pair =
                HeaderName::from_bytes(header.name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok());
            match pair {
                Some((key, mut value)) => {
                    value.set_sensitive(true);
                    headers.push((key, value));
                }
                // Not the value: it may be a token.
                None => self.finding(
                    Code::SCHEMA,
                    format!("header {:?} of provider {name:?} cannot be sent and is left out", header.name),
                ),
            }
        }
        headers
    }

    fn tags(&mut self, istio: bool, written: Option<&BTreeMap<String, CustomTag>>) -> Tags {
        let fixed = if istio { self.ground.node.tags().to_vec() } else { Vec::new() };
        let none = BTreeMap::new();
        let (tags, problems) = Tags::new(fixed, written.unwrap_or(&none), self.ground.environment);
        for (name, problem) in problems {
            self.finding(Code::SCHEMA, format!("the tag {name:?} of traces is left out: {problem}"));
        }
        tags
    }

    pub(super) fn not_yet(&mut self, message: String) {
        self.finding(Code::NOT_YET_HONOURED, message);
    }

    /// A finding about MeshConfig, or about nothing where there is none.
    pub(super) fn finding(&mut self, code: Code, message: String) {
        let root = MeshConfig::default().root_namespace;
        let key = ResourceKey::new(Kind::ConfigMap, root.as_str(), MeshConfig::CONFIG_MAP);
        let finding = Diagnostic::new(code, message).at(format!("data.{}", MeshConfig::KEY));
        self.findings.push(match self.ground.validated.config_maps().get(&key) {
            Some(map) => finding.about(&map.key, &map.origin),
            None => finding,
        });
    }
}

/// Percent of requests that are traced where no Telemetry says (Istio: tracing.go `proxyConfigSamplingValue`).
fn mesh_sampling(proxy: Option<&MeshTracing>) -> f64 {
    match proxy.map_or(0.0, |tracing| tracing.sampling) {
        0.0 => SAMPLING,
        // Istio: more than all is as nothing said.
        over if over > 100.0 => SAMPLING,
        percent => percent,
    }
}

fn percent(percent: config_model::scalar::Percent) -> f64 {
    f64::from(percent.millionths()) / 10_000.0
}

/// The first length that is one.
fn own_or(own: u32, other: u32) -> u32 {
    [own, other].into_iter().find(|length| *length > 0).unwrap_or(MAX_PATH)
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
pub(super) mod tests;

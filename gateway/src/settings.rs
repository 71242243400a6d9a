//! What a process is told once, when it starts: identity, ports, threads, source, limits.
//!
//! Invariant: nothing here changes while the process runs; what may change is configuration and comes through the pipeline.
//! Reads no environment and no file: whoever makes a [`Settings`] did that.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use routing::compile::{Role, WorkloadFiles};

use crate::{edge::EdgeFlags, runtime::dynamic::Reach, telemetry::identity::DEFAULT_CLUSTER};

/// Everything that `limen run` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where configuration comes from.
    pub source: SourceSettings,
    /// Namespace of the gateway's workload.
    pub namespace: String,
    /// Labels of the gateway's workload, which Gateways select by.
    pub labels: BTreeMap<String, String>,
    /// Where the proxy stands, and beside what.
    pub role: Role,
    /// Folder with the workload's own certificate; `None` is where Istio's agent or `/etc/certs` has it.
    pub workload_certificates: Option<PathBuf>,
    /// File with the annotations of the workload's pod, as the kubelet writes it; `None`, or not there: it has none.
    pub pod_annotations: Option<PathBuf>,
    /// Who decides about a trace that a client began.
    pub trace_decision: TraceDecision,
    /// Bound port by gateway port, on top of what a Service's `targetPort` says.
    pub port_map: BTreeMap<u16, u16>,
    /// Address to bind where a Gateway names none; `None` is every address of both families.
    pub bind: Option<IpAddr>,
    /// Address of the admin endpoints; `None`: there are none.
    pub admin: Option<SocketAddr>,
    /// File with the token that the admin endpoints ask for; `None`: they answer on loopback only.
    pub admin_token_file: Option<PathBuf>,
    /// PEM file with authorities that vouch for issuers' servers besides the system's; `None` is where Istio mounts them, if they are there.
    pub jwks_authorities: Option<PathBuf>,
    /// Address of the readiness endpoint; `None`: there is none.
    pub status: Option<SocketAddr>,
    /// Addresses of the metrics endpoint.
    pub metrics: Vec<SocketAddr>,
    /// Threads that serve traffic, at least 1.
    pub threads: usize,
    /// What is written about each request; `None`: what the configuration says.
    pub access_log: Option<AccessLogFormat>,
    /// Where that is written, whatever the configuration says; `None` with a format is standard output.
    pub access_log_file: Option<PathBuf>,
    /// Ports of Gateways whose requests are not logged.
    pub access_log_except: Vec<u16>,
    /// After this long, connections that are still open are closed and the process ends.
    pub drain_time: Duration,
    /// For this long after the signal new connections are still accepted.
    pub min_drain_time: Duration,
    /// Limits on clients that hold whatever MeshConfig says.
    pub edge: EdgeFlags,
    /// What names that requests ask for may stand for (ServiceEntry `DYNAMIC_DNS`).
    pub dynamic_dns: Reach,
    /// Private socket over which a process gives its listening sockets to the one after it; `None`: it does not.
    pub handover: Option<PathBuf>,
    /// Whether a configuration with errors keeps the process from starting.
    pub strict: Strictness,
    /// Whether the system may write the memory of the process to a file when it crashes: keys are in it.
    pub core_dumps: CoreDumps,
}

/// Whether the system may write the memory of the process to a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CoreDumps {
    /// It is asked not to.
    #[default]
    Refused,
    /// As the system has it.
    Allowed,
}

/// Where configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSettings {
    /// Folders and files.
    Folders(Vec<PathBuf>),
    /// The Kubernetes API that the service account or the kubeconfig names.
    Kubernetes {
        /// Folder where the last state is kept, for a start while the API is away.
        cache: Option<PathBuf>,
        /// Whether what is found is written on the resources.
        status: StatusWriter,
    },
}

/// Whether what is found is written into the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum StatusWriter {
    /// By one gateway of several, as far as it may.
    On,
    /// Nothing is written.
    Off,
}

/// What is written about each request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// Nothing.
    Off,
    /// Istio's text line.
    #[default]
    Text,
    /// Istio's JSON object.
    Json,
    /// A line of command operators such as `%RESPONSE_CODE%`.
    Custom(String),
}

/// Who decides about a trace that a client began, where the collector speaks OTLP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TraceDecision {
    /// The client: what its `traceparent` says holds.
    #[default]
    Client,
    /// Both: a client's yes holds only where the gateway's own draw says yes too, as in Envoy 1.40.
    Both,
}

/// What errors in the first configuration mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub enum Strictness {
    /// What is good is served.
    #[default]
    Tolerant,
    /// The process does not start.
    Strict,
}

impl Default for Settings {
    fn default() -> Settings {
        let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Settings {
            source: SourceSettings::Folders(Vec::new()),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            labels: default_labels(),
            role: Role::Gateway,
            workload_certificates: None,
            pod_annotations: None,
            trace_decision: TraceDecision::default(),
            port_map: BTreeMap::new(),
            bind: None,
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 15000))),
            admin_token_file: None,
            jwks_authorities: None,
            status: Some(everywhere(15021)),
            metrics: vec![everywhere(15090), everywhere(15020)],
            threads: available_threads(),
            access_log: None,
            access_log_file: None,
            access_log_except: Vec::new(),
            drain_time: DEFAULT_DRAIN_TIME,
            min_drain_time: DEFAULT_MIN_DRAIN_TIME,
            edge: EdgeFlags::default(),
            dynamic_dns: Reach::default(),
            handover: None,
            strict: Strictness::default(),
            core_dumps: CoreDumps::default(),
        }
    }
}

/// Namespace of Istio's own ingress gateway.
pub const DEFAULT_NAMESPACE: &str = "istio-system";
/// Below Kubernetes' default grace period of 30 s, so that the drain ends before the kill.
pub const DEFAULT_DRAIN_TIME: Duration = Duration::from_secs(25);
/// Istio's `MINIMUM_DRAIN_DURATION`.
pub const DEFAULT_MIN_DRAIN_TIME: Duration = Duration::from_secs(5);

/// Labels of Istio's own ingress gateway.
#[must_use]
pub fn default_labels() -> BTreeMap<String, String> {
    [("app", "istio-ingressgateway"), ("istio", "ingressgateway")]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The processors that this process may use; on Linux, cgroup quotas count.
#[must_use]
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Settings {
    /// The identity that Gateways are selected by and Secrets are looked up with.
    #[must_use]
    pub fn identity(&self) -> routing::compile::Identity {
        routing::compile::Identity {
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            domain: DEFAULT_DOMAIN.to_owned(),
            cluster: DEFAULT_CLUSTER.to_owned(),
            workload: self.workload_certificates.as_deref().map_or_else(WorkloadFiles::default, |folder| {
                WorkloadFiles::within(&folder.to_string_lossy())
            }),
            role: self.role.clone(),
        }
    }
}

/// The cluster's DNS domain.
pub const DEFAULT_DOMAIN: &str = "cluster.local";

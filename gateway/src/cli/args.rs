//! The arguments of every command, with their environment variables.
//!
//! Invariant: names and defaults are an interface; each flag has a variable `LIMEN_` + its name. Nothing is read or opened here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    edge::{Allow, EdgeFlags},
    settings::{self, AccessLogFormat},
};

/// An ingress gateway that serves Istio's networking API.
#[derive(Debug, Parser)]
#[command(name = "limen", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve
    Run(Box<RunArgs>),
    /// Parse, validate and cross-check configuration
    Check(CheckArgs),
    /// Say what would happen to one request, and why
    Explain(Box<ExplainArgs>),
    /// Show tables of what is compiled
    Get(GetArgs),
    /// Show the version
    Version(VersionArgs),
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What the commands that read configuration share.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Folder or file of configuration; may be given more than once
    #[arg(long, value_name = "DIR|FILE", env = "LIMEN_CONFIG", value_delimiter = ',')]
    pub config: Vec<PathBuf>,
    /// Read the Kubernetes API (in a cluster, or by the kubeconfig) instead of folders
    #[arg(long, env = "LIMEN_KUBERNETES", conflicts_with = "config")]
    pub kubernetes: bool,
    /// Namespace of the gateway, or of the workload beside a sidecar
    #[arg(long, value_name = "NS", env = "LIMEN_NAMESPACE", default_value = settings::DEFAULT_NAMESPACE)]
    pub namespace: String,
    /// Labels of that pod
    #[arg(
        long,
        value_name = "K=V,…",
        env = "LIMEN_LABELS",
        default_value = "app=istio-ingressgateway,istio=ingressgateway"
    )]
    pub labels: Labels,
    /// What the proxy is
    #[arg(long, value_enum, env = "LIMEN_ROLE", default_value = "gateway")]
    pub role: Role,
    /// When to use colour
    #[arg(long, value_enum, env = "LIMEN_COLOR", default_value = "auto")]
    pub color: Color,
}

/// What `limen run --role sidecar` is told of the workload beside it.
#[derive(Debug, Clone, Args)]
pub struct SidecarArgs {
    /// Addresses of the workload, for a sidecar; when not given, those of INSTANCE_IP and POD_IP, and the machine's own
    #[arg(long, value_name = "IP,…", env = "LIMEN_WORKLOAD_ADDRESSES", value_delimiter = ',')]
    pub workload_addresses: Vec<IpAddr>,
    /// Port that what the workload opens is redirected to, for a sidecar
    #[arg(
        long,
        value_name = "PORT",
        env = "LIMEN_OUTBOUND_PORT",
        default_value_t = 15001,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub outbound_port: u16,
    /// Port that what comes to the workload is redirected to, for a sidecar
    #[arg(
        long,
        value_name = "PORT",
        env = "LIMEN_INBOUND_PORT",
        default_value_t = 15006,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub inbound_port: u16,
}

/// `limen run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// What the commands that read configuration share.
    #[command(flatten)]
    pub common: CommonArgs,
    /// What only a sidecar is told.
    #[command(flatten)]
    pub sidecar: SidecarArgs,
    /// Folder where the last state of the Kubernetes API is kept, to be served when the API is away at the start
    #[arg(long, value_name = "DIR", env = "LIMEN_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Folder with the workload's own certificate: cert-chain.pem, key.pem, root-cert.pem; where Istio's agent or /etc/certs has it
    /// when not given
    #[arg(long, value_name = "DIR", env = "LIMEN_WORKLOAD_CERTIFICATES")]
    pub workload_certificates: Option<PathBuf>,
    /// File with the annotations of the workload's pod (a downward API volume); sidecar.istio.io/statsHistogramBuckets is read of it
    #[arg(
        long,
        value_name = "FILE",
        env = "LIMEN_POD_ANNOTATIONS",
        default_value = "/etc/istio/pod/annotations"
    )]
    pub pod_annotations: PathBuf,
    /// Whether a client's traceparent decides that its request is traced, or both it and the gateway's own draw, as in Envoy 1.40
    #[arg(long, value_enum, env = "LIMEN_TRACE_DECISION", default_value = "client")]
    pub trace_decision: Decision,
    /// With --kubernetes: write conditions and messages on the resources, and Events about errors; one gateway of several does
    #[arg(long, value_enum, env = "LIMEN_STATUS_WRITER", default_value = "on")]
    pub status_writer: Switch,
    /// Bound port for a gateway port, on top of a Service's targetPort
    #[arg(long, value_name = "80=8080,…", env = "LIMEN_PORT_MAP", default_value = "")]
    pub port_map: PortMap,
    /// Address to bind; all addresses of both families when not given
    #[arg(long, value_name = "ADDR", env = "LIMEN_BIND")]
    pub bind: Option<IpAddr>,
    /// Address of the admin endpoints
    #[arg(long, value_name = "ADDR", env = "LIMEN_ADMIN", default_value = "127.0.0.1:15000")]
    pub admin: SocketAddr,
    /// File with the token that the admin endpoints ask for; needed where their address is not a loopback address
    #[arg(long, value_name = "FILE", env = "LIMEN_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// PEM file with authorities for the servers that issuers' keys are fetched from, besides the system's; /cacerts/extra.pem when not
    /// given and there
    #[arg(long, value_name = "FILE", env = "LIMEN_JWKS_CA")]
    pub jwks_ca: Option<PathBuf>,
    /// Address of the readiness endpoint
    #[arg(long, value_name = "ADDR", env = "LIMEN_STATUS_ADDR", default_value = "0.0.0.0:15021")]
    pub status_addr: SocketAddr,
    /// Address of the metrics endpoint; may be given more than once
    #[arg(
        long,
        value_name = "ADDR",
        env = "LIMEN_METRICS_ADDR",
        value_delimiter = ',',
        default_values = ["0.0.0.0:15090", "0.0.0.0:15020"]
    )]
    pub metrics_addr: Vec<SocketAddr>,
    /// Threads that serve traffic; the processors that may be used when not given
    #[arg(long, value_name = "N", env = "LIMEN_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// What is written about each request: off, text, json, or a format of %OPERATORS%; when not given, what MeshConfig and Telemetry
    /// say, and text where they say nothing
    #[arg(long, value_name = "FORMAT", env = "LIMEN_ACCESS_LOG")]
    pub access_log: Option<AccessLogArg>,
    /// File that it is written to, opened anew on SIGHUP; standard output when not given
    #[arg(long, value_name = "FILE", env = "LIMEN_ACCESS_LOG_FILE")]
    pub access_log_file: Option<PathBuf>,
    /// Ports of Gateways whose requests are not logged
    #[arg(long, value_name = "PORT,…", env = "LIMEN_ACCESS_LOG_EXCEPT", value_delimiter = ',')]
    pub access_log_except: Vec<u16>,
    /// What the process logs: a level, or filters such as `info,gateway::pipeline=debug`
    #[arg(long, value_name = "LEVEL", env = "LIMEN_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How the process logs
    #[arg(long, value_enum, env = "LIMEN_LOG_FORMAT", default_value = "text")]
    pub log_format: Format,
    /// How long a drain may take before open connections are cut
    #[arg(long, value_name = "DURATION", env = "LIMEN_DRAIN_TIME", default_value = "25s", value_parser = duration)]
    pub drain_time: Duration,
    /// How long new connections are accepted during a drain
    #[arg(long, value_name = "DURATION", env = "LIMEN_MIN_DRAIN_TIME", default_value = "5s", value_parser = duration)]
    pub min_drain_time: Duration,
    /// Addresses of this host, its links and private networks for names that requests ask for (DYNAMIC_DNS): refused, but allowed
    /// beside a workload, which gets there without it
    #[arg(long, value_enum, env = "LIMEN_DYNAMIC_DNS_INSIDE")]
    pub dynamic_dns_inside: Option<Allow>,
    /// Private socket: take the listening sockets of the process that serves there, and give them to the next one
    #[arg(long, value_name = "PATH", env = "LIMEN_HANDOVER")]
    pub handover: Option<PathBuf>,
    /// Limits on clients.
    #[command(flatten)]
    pub edge: EdgeFlags,
    /// Files with the memory of the process, keys among it, when it crashes; allowed, it is up to the system
    #[arg(long, value_enum, env = "LIMEN_CORE_DUMPS", default_value = "refuse")]
    pub core_dumps: Allow,
    /// Do not start with a configuration that has errors
    #[arg(long, env = "LIMEN_STRICT")]
    pub strict: bool,
    /// Has no effect: what is served is logged
    #[arg(long, value_enum, env = "LIMEN_OUTPUT", default_value = "text", hide = true)]
    pub output: Format,
}

/// `limen check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Folders and files
    #[arg(value_name = "PATH", conflicts_with = "kubernetes")]
    pub paths: Vec<PathBuf>,
    /// What the commands that read configuration share.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Print the page of a finding's code, and read no configuration
    #[arg(long, value_name = "CODE", env = "LIMEN_EXPLAIN", conflicts_with_all = ["paths", "kubernetes"])]
    pub explain: Option<String>,
    /// Format of the findings
    #[arg(long, value_enum, env = "LIMEN_OUTPUT", default_value = "text")]
    pub output: CheckFormat,
}

/// `limen explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The URL that a client asks for
    #[arg(value_name = "URL")]
    pub url: String,
    /// What the commands that read configuration share.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Ask a running gateway instead of reading configuration
    #[arg(long, value_name = "URL", env = "LIMEN_ADMIN_URL", conflicts_with_all = ["config", "kubernetes"])]
    pub admin: Option<String>,
    /// File with the token that it asks for
    #[arg(long, value_name = "FILE", env = "LIMEN_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Method
    #[arg(
        short = 'X',
        long = "request",
        value_name = "METHOD",
        env = "LIMEN_REQUEST",
        default_value = "GET"
    )]
    pub method: String,
    /// A header, as `name: value`; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "K: V", env = "LIMEN_HEADER")]
    pub headers: Vec<String>,
    /// Port that the client connects to; the URL's when not given
    #[arg(long, value_name = "N", env = "LIMEN_PORT")]
    pub port: Option<u16>,
    /// TLS server name; the URL's host when not given, none when empty
    #[arg(long, value_name = "NAME", env = "LIMEN_SNI")]
    pub sni: Option<String>,
    /// What the client speaks; by the URL's scheme when not given
    #[arg(long, value_enum, env = "LIMEN_PROTOCOL")]
    pub protocol: Option<Protocol>,
    /// Protocols that the client offers in its TLS handshake
    #[arg(long, value_name = "LIST", env = "LIMEN_ALPN")]
    pub alpn: Option<String>,
    /// The client shows a certificate, with this name: a SPIFFE identity, a DNS name or a subject
    #[arg(
        long,
        value_name = "NAME",
        env = "LIMEN_CLIENT_CERT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub client_cert: Option<String>,
    /// Address of the client
    #[arg(long, value_name = "IP", env = "LIMEN_CLIENT_IP")]
    pub client_ip: Option<IpAddr>,
    /// Choose among weighted destinations as a request with this random number would
    #[arg(long, value_name = "N", env = "LIMEN_SEED")]
    pub seed: Option<u64>,
    /// Address that the connection goes to, for a sidecar; the one that the URL's host stands for when not given
    #[arg(long, value_name = "IP", env = "LIMEN_DESTINATION")]
    pub destination: Option<IpAddr>,
    /// Which way, for a sidecar: what the workload asks for, when not given
    #[arg(long, value_enum, env = "LIMEN_DIRECTION")]
    pub direction: Option<Direction>,
    /// Bound port for a gateway port, as given to `limen run`
    #[arg(long, value_name = "80=8080,…", env = "LIMEN_PORT_MAP", default_value = "")]
    pub port_map: PortMap,
    /// Format of the answer
    #[arg(long, value_enum, env = "LIMEN_OUTPUT", default_value = "text")]
    pub output: Format,
}

/// `limen get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// The table
    #[arg(value_enum)]
    pub table: TableArg,
    /// What the commands that read configuration share.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Ask a running gateway instead of reading configuration
    #[arg(long, value_name = "URL", env = "LIMEN_ADMIN_URL", conflicts_with_all = ["config", "kubernetes"])]
    pub admin: Option<String>,
    /// File with the token that it asks for
    #[arg(long, value_name = "FILE", env = "LIMEN_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Format of the table
    #[arg(long, value_enum, env = "LIMEN_OUTPUT", default_value = "text")]
    pub output: Format,
}

/// `limen version`.
#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// Format
    #[arg(long, value_enum, env = "LIMEN_OUTPUT", default_value = "text")]
    pub output: Format,
}

/// Text or JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum Format {
    Text,
    Json,
}

/// Formats of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum CheckFormat {
    Text,
    Json,
    Sarif,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum Switch {
    On,
    Off,
}

/// Who decides about a trace that a client began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum Decision {
    Client,
    Both,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// What the proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum Role {
    Gateway,
    Sidecar,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum Protocol {
    Http1,
    Http2,
    Https,
    Tls,
    Tcp,
}

impl Protocol {
    /// The value on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Https => "https",
            Protocol::Tls => "tls",
            Protocol::Tcp => "tcp",
        }
    }
}

/// Which way through a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum Direction {
    Outbound,
    Inbound,
}

impl Direction {
    /// The value on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }
    }
}

/// The tables of `limen get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each arm is the value on the command line")]
pub enum TableArg {
    Listeners,
    Hosts,
    Routes,
    Clusters,
    Endpoints,
    Certificates,
}

/// `k=v,k=v`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Labels, String> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let parsed: Result<_, String> = pairs
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
                _ => Err(format!("{pair:?} is not of the form key=value")),
            })
            .collect();
        Ok(Labels(parsed?))
    }
}

/// `80=8080,443=8443`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortMap(pub BTreeMap<u16, u16>);

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<PortMap, String> {
        let mut map = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let ports = pair
                .split_once('=')
                .and_then(|(from, to)| Some((from.trim().parse().ok()?, to.trim().parse().ok()?)));
            let Some((from, to)) = ports.filter(|(from, to): &(u16, u16)| *from != 0 && *to != 0) else {
                return Err(format!("{pair:?} is not of the form 80=8080"));
            };
            if map.insert(from, to).is_some() {
                return Err(format!("port {from} is there twice"));
            }
        }
        Ok(PortMap(map))
    }
}

/// `off`, `text`, `json`, or a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogArg(pub AccessLogFormat);

impl FromStr for AccessLogArg {
    type Err = String;

    fn from_str(text: &str) -> Result<AccessLogArg, String> {
        Ok(AccessLogArg(match text {
            "off" => AccessLogFormat::Off,
            "text" => AccessLogFormat::Text,
            "json" => AccessLogFormat::Json,
            format if format.contains('%') => AccessLogFormat::Custom(format.to_owned()),
            _ => return Err("use off, text, json, or a format with %OPERATORS%".to_owned()),
        }))
    }
}

/// A duration as Istio writes it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<config_model::scalar::Duration>()
        .map(|value| value.as_std())
        .map_err(|error| error.to_string())
}

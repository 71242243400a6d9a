//! What a program says about the gateway that it wants.
//!
//! Invariant: nothing is opened, read or started here; [`GatewayBuilder::build`] does all of that, in one order. What is not said is
//! as `limen run` has it, but for what a program has to itself: no port is opened but those of the Gateways, and the process's panic hook is
//! left alone.

use std::{
    collections::BTreeMap,
    fmt,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use pingora_proxy::ProxyHttp;
use prometheus::core::Collector;

use super::{Gateway, StartError, start};
use crate::{
    cli::LevelHandle,
    listener::ConnectionHandler,
    policy::{Chain, Given, Phase, Policy},
    proxy::{GatewayProxy, HttpHandler},
    settings::{AccessLogFormat, Settings, SourceSettings, StatusWriter},
    source::{Source, fixed::Fixed},
};

/// Makes what serves the connections, of the proxy and the number of threads that serve.
type Handler = Box<dyn FnOnce(GatewayProxy, usize) -> Arc<dyn ConnectionHandler> + Send>;

/// Who follows the signals of the process while [`Gateway::run`] runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signals {
    /// The gateway: SIGTERM and SIGINT begin its drain, a second one ends it, SIGHUP has access logs opened anew.
    #[default]
    Follow,
    /// The program: nothing is installed, and [`GatewayHandle`](super::GatewayHandle) ends the gateway.
    Ignore,
}

/// What is done about panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Panics {
    /// The process's hook is left as it is. A panic ends its task and nothing else.
    #[default]
    Leave,
    /// They are counted (`limen_panics_total`) and their places logged, by a hook in place of the process's.
    Count,
}

/// A log of requests that goes to the program.
pub(super) struct OwnLog {
    pub(super) format: AccessLogFormat,
    pub(super) to: Box<dyn Write + Send>,
}

/// Says what a gateway is to be; see [`Gateway::builder`].
///
/// # Examples
/// ```
/// use gateway::{Gateway, policy::{Chain, Phase, Policy}};
///
/// struct Nothing;
/// impl Policy for Nothing {
///     type State = ();
/// }
///
/// let builder = Gateway::builder()
///     .folder("/etc/limen")
///     .identity("edge", [("app", "edge")])
///     .port(80, 8080)
///     .policies(Phase::Authz, &Chain::new().then(Nothing));
/// # let _ = builder;
/// ```
#[must_use = "nothing is started before `build`"]
pub struct GatewayBuilder {
    pub(super) settings: Settings,
    pub(super) source: Option<Box<dyn Source>>,
    pub(super) policies: Given,
    pub(super) handler: Handler,
    pub(super) log: Option<OwnLog>,
    pub(super) collectors: Vec<Box<dyn Collector>>,
    pub(super) level: LevelHandle,
    pub(super) signals: Signals,
    pub(super) panics: Panics,
    pub(super) any_ports: bool,
}

impl Default for GatewayBuilder {
    fn default() -> GatewayBuilder {
        GatewayBuilder {
            settings: Settings { admin: None, status: None, metrics: Vec::new(), ..Settings::default() },
            source: None,
            policies: Given::default(),
            handler: Box::new(|proxy, threads| Arc::new(HttpHandler::new(proxy, threads))),
            log: None,
            collectors: Vec::new(),
            level: LevelHandle::new(|_| Err("the log is of the program that embeds the gateway".to_owned())),
            signals: Signals::default(),
            panics: Panics::default(),
            any_ports: false,
        }
    }
}

impl GatewayBuilder {
    /// All settings at once, in place of those that were given so far: what `limen run` is told by its flags.
    pub fn settings(mut self, settings: Settings) -> GatewayBuilder {
        self.settings = settings;
        self
    }

    /// Changes single settings.
    ///
    /// # Examples
    /// ```
    /// use gateway::Gateway;
    /// use std::time::Duration;
    ///
    /// let builder = Gateway::builder().with(|settings| settings.drain_time = Duration::from_secs(5));
    /// # let _ = builder;
    /// ```
    pub fn with(mut self, change: impl FnOnce(&mut Settings)) -> GatewayBuilder {
        change(&mut self.settings);
        self
    }

    /// Configuration from a folder or file of YAML, which is followed. Several add up.
    pub fn folder(mut self, path: impl Into<PathBuf>) -> GatewayBuilder {
        let path = path.into();
        match &mut self.settings.source {
            SourceSettings::Folders(paths) => paths.push(path),
            source @ SourceSettings::Kubernetes { .. } => *source = SourceSettings::Folders(vec![path]),
        }
        self
    }

    /// Configuration from the Kubernetes API that the service account or the kubeconfig names; `cache`: a folder where the last
    /// state is kept, for a start while the API is away. Nothing is written to the API, unless settings ask for it.
    pub fn kubernetes(mut self, cache: Option<PathBuf>) -> GatewayBuilder {
        self.settings.source = SourceSettings::Kubernetes { cache, status: StatusWriter::Off };
        self
    }

    /// Configuration that stays as this text has it. To change it later keep the handle of a [`Fixed`] of your own.
    pub fn yaml(self, text: &str) -> GatewayBuilder {
        self.source(Fixed::yaml("memory", text).0)
    }

    /// Configuration from a source of the program's, in place of what settings say.
    pub fn source(mut self, source: impl Source + 'static) -> GatewayBuilder {
        self.source = Some(Box::new(source));
        self
    }

    /// Who the gateway is: the namespace and the labels of its workload, by which Gateways select it. Without a word it is Istio's
    /// own ingress gateway.
    pub fn identity<K: Into<String>, V: Into<String>>(
        mut self,
        namespace: impl Into<String>,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> GatewayBuilder {
        self.settings.namespace = namespace.into();
        self.settings.labels =
            labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect::<BTreeMap<_, _>>();
        self
    }

    /// Address that listeners are bound to whose Gateway names none; otherwise it is every address of both families.
    pub fn bind(mut self, address: impl Into<IpAddr>) -> GatewayBuilder {
        self.settings.bind = Some(address.into());
        self
    }

    /// Binds `bound` for the port `port` of Gateways.
    pub fn port(mut self, port: u16, bound: u16) -> GatewayBuilder {
        self.settings.port_map.insert(port, bound);
        self
    }

    /// Lets the system choose the port of every listener that [`port`](Self::port) says nothing of; what it chose
    /// [`GatewayHandle::address`](super::GatewayHandle::address) knows.
    pub fn any_ports(mut self) -> GatewayBuilder {
        self.any_ports = true;
        self
    }

    /// Serves `/healthz/ready`, metrics and the admin endpoints at these addresses; port 0 lets the system choose.
    pub fn surfaces(mut self, status: SocketAddr, metrics: SocketAddr, admin: SocketAddr) -> GatewayBuilder {
        self.settings.status = Some(status);
        self.settings.metrics = vec![metrics];
        self.settings.admin = Some(admin);
        self
    }

    /// Adds a policy that sees what every policy of the configuration has let in.
    pub fn policy(self, policy: impl Policy) -> GatewayBuilder {
        self.policies(Phase::Last, &Chain::new().then(policy))
    }

    /// Adds policies of a phase, behind those that were added to it.
    pub fn policies(mut self, phase: Phase, policies: &Chain) -> GatewayBuilder {
        self.policies = self.policies.with(phase, policies);
        self
    }

    /// Serves requests by a [`ProxyHttp`] of the program's around the gateway's. It must hand on every callback of
    /// [`GatewayProxy::CALLBACKS`]; what it does besides is its own business. TCP and passed-through TLS do not pass it.
    pub fn wrap<P>(mut self, wrap: impl FnOnce(GatewayProxy) -> P + Send + 'static) -> GatewayBuilder
    where
        P: ProxyHttp + Send + Sync + 'static,
        P::CTX: Send + Sync,
    {
        self.handler = Box::new(move |proxy, threads| Arc::new(HttpHandler::wrapping(proxy, threads, wrap)));
        self
    }

    /// Writes a line for each request to `to`, besides what settings and configuration say about logs. Lines come in batches, on a
    /// thread of their own: a writer that is slow delays no request, and what does not fit into 8 MiB is dropped and counted.
    pub fn access_log(mut self, format: AccessLogFormat, to: impl Write + Send + 'static) -> GatewayBuilder {
        self.log = Some(OwnLog { format, to: Box::new(to) });
        self
    }

    /// Shows a metric of the program's among those of the gateway.
    pub fn collector(mut self, collector: impl Collector + 'static) -> GatewayBuilder {
        self.collectors.push(Box::new(collector));
        self
    }

    /// What `POST /logging` on the admin port does; without it the gateway cannot turn the program's log.
    pub fn log_level(mut self, level: LevelHandle) -> GatewayBuilder {
        self.level = level;
        self
    }

    /// Who follows the signals of the process.
    pub fn signals(mut self, signals: Signals) -> GatewayBuilder {
        self.signals = signals;
        self
    }

    /// What is done about panics.
    pub fn panics(mut self, panics: Panics) -> GatewayBuilder {
        self.panics = panics;
        self
    }

    /// Starts all but the data plane: once this returns, the first configuration is in force, and its ports are bound and have
    /// connections wait. May be called anywhere; it blocks for as long as the source takes to give a first state.
    ///
    /// # Errors
    /// What keeps it from starting: an address that is taken, a source that cannot be made, a metric whose name is. What is
    /// wrong with single resources is none of it, unless settings ask for [`Strictness::Strict`](crate::settings::Strictness).
    pub fn build(self) -> Result<Gateway, StartError> {
        // A thread of its own may wait, whoever calls.
        let thread = std::thread::Builder::new().name("limen-start".to_owned());
        let started = thread.spawn(move || start::start(self));
        let started = started.map_err(|error| StartError(format!("cannot start a thread: {error}")))?;
        started.join().unwrap_or_else(|_| Err(StartError("a panic at the start".to_owned())))
    }
}

impl fmt::Debug for GatewayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayBuilder")
            .field("settings", &self.settings)
            .field("source", &self.source.as_ref().map(|source| source.describe()))
            .field("policies", &self.policies)
            .finish_non_exhaustive()
    }
}

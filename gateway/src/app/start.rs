//! Wiring, in the order in which things start: what can fail first, what serves last.
//!
//! Invariant: nothing accepts traffic before the first configuration is in force; whatever keeps a gateway from starting is one
//! sentence. Decides nothing about requests. There is no other way to start: `limen run` and programs that embed the gateway come by here.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use config_model::diagnostic::Severity;
use routing::cluster::Workload;
use tokio::{
    runtime::{Builder as RuntimeBuilder, Handle},
    sync::watch,
};

use super::{
    Gateway, GatewayBuilder, Panics, StartError,
    gateway::{Base, Threads},
    live::Live,
    observed::{CountedResolver, Observed},
    panics,
    telemetry::{self as own_telemetry, Telemetry},
};
use crate::{
    admin::{self, Access, Admin, Bound, History, Surface},
    cli::{VERSION, counted},
    drain::DrainController,
    handover::{Offer, Predecessor},
    jwt::store::{KeyStore, Pace},
    listener::{BindOptions, Inherited, ListenerManager},
    pipeline::{self, Builder, Pipeline, Status},
    policy::{Limits, builtin::SecurityMetrics},
    pressure,
    proxy::{Caller, GatewayProxy},
    runtime::{Registry, resolver::SystemResolver},
    settings::{Settings, SourceSettings, StatusWriter, Strictness},
    snapshot::SnapshotCell,
    source::{
        Source,
        directory::Directory,
        kubernetes::{Cluster, Home, Kubernetes},
    },
    status,
    telemetry::{Identity, Metrics, collectors::Collectors, export::Exported},
    tls,
};

/// How long connections without a request outlive the listener that accepted them.
const IDLE_GRACE: Duration = Duration::from_secs(5);

impl From<prometheus::Error> for StartError {
    fn from(error: prometheus::Error) -> StartError {
        StartError(format!("metrics: {error}"))
    }
}

/// Starts everything but the data plane.
pub(super) fn start(builder: GatewayBuilder) -> Result<Gateway, StartError> {
    let started = Instant::now();
    let GatewayBuilder { settings, source, policies, handler, log, collectors: own, level, .. } = builder;
    let metrics =
        Arc::new(Metrics::with_buckets(workload(&settings), VERSION, &own_telemetry::buckets(&settings))?);
    let pipeline_metrics = pipeline::Metrics::register(&metrics)?;
    if builder.panics == Panics::Count {
        std::panic::set_hook(Box::new(panics::hook(panics::register(&metrics)?)));
    }
    let (predecessor, inherited) = match settings.handover.as_deref().map(Predecessor::find) {
        None | Some(Ok(None)) => (None, Inherited::default()),
        Some(Ok(Some((predecessor, inherited)))) => (Some(predecessor), inherited),
        Some(Err(error)) => {
            return Err(StartError(format!("the process before gives no sockets: {error}")));
        }
    };
    let addresses = bind(&settings, &inherited)?;
    let surfaces = addresses.iter().map(|bound| Ok((bound.surface(), bound.address()?)));
    let surfaces = surfaces.collect::<io::Result<Vec<_>>>().map_err(admin_addresses)?;
    // Names are resolved here, whoever asked for them.
    let background = RuntimeBuilder::new_multi_thread()
        .worker_threads(1)
        .thread_name("limen-background")
        .enable_all()
        .build()
        .map_err(no_thread)?;

    let (snapshots, drain, status) =
        (Arc::new(SnapshotCell::default()), Arc::new(DrainController::new()), Arc::new(Status::default()));
    let proxy = GatewayProxy::new(Arc::clone(&snapshots), Arc::clone(&metrics), None);
    let options = BindOptions {
        address: settings.bind,
        ports: settings.port_map.clone(),
        any: builder.any_ports,
        inherited,
    };
    let threads = settings.threads.max(1);
    let listeners = ListenerManager::new(snapshots.clone(), handler(proxy, threads), options, IDLE_GRACE);
    let admin = Arc::new(Admin {
        status: Arc::clone(&status),
        snapshots: Arc::clone(&snapshots),
        listeners: listeners.clone(),
        drain: Arc::clone(&drain),
        metrics: Arc::clone(&metrics),
        level,
        access: access(&settings)?,
        history: History::default(),
        port_map: settings.port_map.clone(),
        started,
        was_ready: AtomicBool::new(false),
    });
    let (stop, stopped) = watch::channel(false);
    let (hide, hidden) = watch::channel(false);
    let sockets = addresses.iter().map(Bound::socket).collect::<io::Result<Vec<_>>>();
    let sockets = sockets.map_err(admin_addresses)?;
    let mut waiting = (!addresses.is_empty()).then_some((admin.clone(), addresses, hidden));
    let mut showing = None;
    // The process before answers until this one is ready.
    if predecessor.is_none()
        && let Some((admin, addresses, hidden)) = waiting.take()
    {
        showing = Some(admin::spawn(admin, addresses, hidden).map_err(no_thread)?);
    }

    let gauges = pressure::Gauges::register(&metrics)?;
    let limits = {
        let snapshots = Arc::clone(&snapshots);
        move || snapshots.load().edge.pressure
    };
    background.spawn(pressure::follow(pressure::System::new(), limits, listeners.clone(), Some(gauges)));

    let mut identity = settings.identity();
    if let Some(cluster) = own_telemetry::environment("ISTIO_META_CLUSTER_ID") {
        identity.cluster = cluster;
    }
    let registry = Registry::with_workload(
        Arc::new(CountedResolver::new(SystemResolver::new(), &metrics)?),
        background.handle().clone(),
        identity.workload.clone(),
    )
    .reaching(settings.dynamic_dns);
    Observed::register(&metrics, listeners.clone(), Arc::clone(&snapshots), Arc::clone(&drain))?;
    metrics.register(Box::new(registry.collector()?))?;
    let security = SecurityMetrics::register(&metrics)?;
    let latest = tls::watch::Latest::default();
    background.spawn(tls::watch::follow(Arc::clone(&snapshots), Arc::clone(&latest)));
    let exported = Exported::register(&metrics)?;
    let caller = Arc::new(Caller::new(snapshots.clone()));
    let dropped = metrics.access_log_dropped.clone();
    let collectors = Collectors::new(caller, exported, dropped.clone(), background.handle().clone());
    let (exports, files) = (collectors.tasks(), collectors.files());
    let publisher = Live {
        snapshots: snapshots.clone(),
        registry,
        listeners: listeners.clone(),
        edge: settings.edge.clone(),
        policies,
        security: Arc::new(security),
        keys: KeyStore::new(
            background.handle().clone(),
            Pace::default(),
            settings.jwks_authorities.as_deref(),
        ),
        limits: Limits::default(),
        calls: Arc::default(),
        latest,
        telemetry: Telemetry::new(&settings, collectors, Arc::clone(&metrics.istio), log, dropped)?,
    };
    let Ends { followed, written } = match source {
        Some(source) => Ends { followed: source, written: None },
        None => ends(&settings, background.handle())?,
    };
    let status_metrics = status::Metrics::register(&metrics)?;
    for collector in own {
        metrics.register(collector)?;
    }
    let pipeline = Pipeline::new(
        followed,
        Builder::new(identity),
        Box::new(publisher),
        Arc::clone(&status),
        pipeline_metrics,
    );
    let (following, first) = pipeline.spawn(stopped).map_err(no_thread)?;
    let base = Base { listeners, drain, status, snapshots, metrics, admin, surfaces };
    // Whatever follows may fail: what runs by now ends with the gateway.
    let mut gateway = Gateway::new(
        base,
        &settings,
        builder.signals,
        Threads { background, stop, hide: Arc::new(hide), following, showing, exports, files },
    );
    let _step = first.blocking_recv().map_err(|_| "the configuration could not be taken up".to_owned())?;
    let errors = gateway.base().status.findings().count(Severity::Error);
    if settings.strict == Strictness::Strict && errors > 0 {
        let errors = counted(errors, "error");
        return Err(StartError(format!("the configuration has {errors}, and --strict was given")));
    }

    if let Some(predecessor) = predecessor {
        take_over(predecessor, gateway.base())?;
    }
    if let Some((admin, addresses, hidden)) = waiting {
        gateway.show(admin::spawn(admin, addresses, hidden).map_err(no_thread)?);
    }
    if let Some(path) = &settings.handover {
        let offer = Offer::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        gateway.offer(offer, sockets);
    }
    if let Some((cluster, home)) = written {
        gateway.write(&cluster, &home, status_metrics);
    }
    Ok(gateway)
}

fn take_over(predecessor: Predecessor, base: &Base) -> Result<(), String> {
    if base.status.built().is_none() {
        return Err("nothing is taken over: no configuration could be put in force".to_owned());
    }
    if let Some(failure) = base.listeners.failures().first() {
        return Err(format!("nothing is taken over: {failure}"));
    }
    predecessor.take_over();
    Ok(())
}

fn no_thread(error: io::Error) -> String {
    format!("cannot start a thread: {error}")
}

fn admin_addresses(error: io::Error) -> String {
    format!("admin addresses: {error}")
}

fn access(settings: &Settings) -> Result<Access, String> {
    let Some(address) = settings.admin else { return Ok(Access::Closed) };
    let access = Access::new(address, settings.admin_token_file.as_deref());
    let access = access.map_err(|error| format!("--admin-token-file: {error}"))?;
    if access == Access::Closed {
        tracing::warn!(%address, "the admin endpoints refuse everybody: no loopback address, and no --admin-token-file");
    }
    Ok(access)
}

/// What is read, and the cluster that is written to.
struct Ends {
    followed: Box<dyn Source>,
    written: Option<(Cluster, Home)>,
}

fn ends(settings: &Settings, runtime: &Handle) -> Result<Ends, String> {
    match &settings.source {
        SourceSettings::Folders(paths) => {
            Ok(Ends { followed: Box::new(Directory::new(paths.clone())), written: None })
        }
        SourceSettings::Kubernetes { cache, status } => {
            let cluster = runtime.block_on(Cluster::infer()).map_err(|error| error.to_string())?;
            let home = Home::of(settings);
            let source = Kubernetes::new(cluster.clone(), home.clone(), cache.clone(), runtime.clone());
            let written = (*status == StatusWriter::On).then_some((cluster, home));
            Ok(Ends { followed: Box::new(source), written })
        }
    }
}

fn bind(settings: &Settings, inherited: &Inherited) -> Result<Vec<Bound>, String> {
    let one = |(address, surface): (SocketAddr, Surface)| {
        let left = inherited.take_address(address).map(|socket| Bound::of(socket, surface));
        left.map_or_else(|| Bound::new(address, surface), Ok)
            .map_err(|error: io::Error| format!("{address} cannot be bound: {error}"))
    };
    let surface = |address: Option<SocketAddr>, surface| address.map(|address| (address, surface));
    let metrics = settings.metrics.iter().map(|address| (*address, Surface::Metrics));
    [surface(settings.admin, Surface::Admin), surface(settings.status, Surface::Status)]
        .into_iter()
        .flatten()
        .chain(metrics)
        .map(one)
        .collect()
}

/// Who the gateway is in the labels of Istio's metrics. Istio's own Deployment has the name of its label `app`.
fn workload(settings: &Settings) -> Identity {
    let labels = &settings.labels;
    let name = labels.get("service.istio.io/workload-name").or_else(|| labels.get("app"));
    let workload = Workload::of(name.map_or("", String::as_str), &settings.namespace, labels);
    Identity { workload, ..Identity::default() }
}

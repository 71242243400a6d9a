//! Wiring, in the order in which things start: what can fail first, what serves last.
//!
//! Invariant: nothing accepts traffic before the first configuration is in force; whatever keeps the process from starting is one
//! sentence. Decides nothing about requests.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use config_model::diagnostic::{Diagnostics, Severity};
use routing::cluster::Workload;
use tokio::{sync::watch, time::timeout};

use crate::{
    admin::{self, Access, Admin, Bound, History, Surface},
    app::{
        self, panics,
        telemetry::{self, Telemetry},
    },
    cli::{LevelHandle, VERSION, counted},
    drain::{DrainController, DrainState},
    edge::{EdgeConfig, EdgeFlags},
    handover::{Estate, Offer, Predecessor},
    jwt::store::{KeyStore, Pace},
    listener::{BindOptions, Inherited, ListenerManager},
    pipeline::{self, Builder, Built, Pipeline, Publisher, Status},
    policy::{
        Given, Limits,
        builtin::{self, Means, SecurityMetrics},
    },
    pressure,
    proxy::{Caller, GatewayProxy, HttpHandler, ask},
    runtime::{Registry, registry::FIRST_RESOLUTION, resolver::SystemResolver},
    settings::{Settings, SourceSettings, StatusWriter, Strictness},
    shutdown::{DrainTimes, Exit},
    snapshot::{Snapshot, SnapshotCell},
    source::{
        Source,
        directory::Directory,
        kubernetes::{Cluster, Home, Kubernetes},
    },
    status,
    telemetry::{Identity, Metrics, collectors::Collectors, export::Exported},
    tls::{self, Certificates},
};

/// How long connections without a request outlive the listener that accepted them.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// How long collectors may take over what is left for them at the end.
const LAST_EXPORTS: Duration = Duration::from_secs(2);

/// Starts everything and serves until drained.
///
/// # Errors
/// What keeps it from starting, in one sentence.
pub fn launch(settings: &Settings, level: LevelHandle) -> Result<Exit, String> {
    let started = Instant::now();
    let metrics = Metrics::new(workload(settings), VERSION).map_err(|error| format!("metrics: {error}"))?;
    let pipeline_metrics =
        pipeline::Metrics::register(&metrics).map_err(|error| format!("metrics: {error}"))?;
    let metrics = Arc::new(metrics);
    let panics = panics::register(&metrics).map_err(|error| format!("metrics: {error}"))?;
    std::panic::set_hook(Box::new(panics::hook(panics)));
    let (predecessor, inherited) = match settings.handover.as_deref().map(Predecessor::find) {
        None | Some(Ok(None)) => (None, Inherited::default()),
        Some(Ok(Some((predecessor, inherited)))) => (Some(predecessor), inherited),
        Some(Err(error)) => return Err(format!("the process before gives no sockets: {error}")),
    };
    let addresses = bind(settings, &inherited)?;
    // Names are resolved here, whoever asked for them.
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("limen-background")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a thread: {error}"))?;

    let (snapshots, drain, status) =
        (Arc::new(SnapshotCell::default()), Arc::new(DrainController::new()), Arc::new(Status::default()));
    let proxy = GatewayProxy::new(Arc::clone(&snapshots), Arc::clone(&metrics), None);
    let options = BindOptions { address: settings.bind, ports: settings.port_map.clone(), inherited };
    let listeners = ListenerManager::new(
        snapshots.clone(),
        Arc::new(HttpHandler::new(proxy, settings.threads)),
        options,
        IDLE_GRACE,
    );
    let access = Access::new(settings.admin, settings.admin_token_file.as_deref());
    let access = access.map_err(|error| format!("--admin-token-file: {error}"))?;
    if access == Access::Closed {
        let address = settings.admin;
        tracing::warn!(%address, "the admin endpoints refuse everybody: no loopback address, and no --admin-token-file");
    }
    let admin = Arc::new(Admin {
        status: Arc::clone(&status),
        snapshots: Arc::clone(&snapshots),
        listeners: listeners.clone(),
        drain: Arc::clone(&drain),
        metrics: Arc::clone(&metrics),
        level,
        access,
        history: History::default(),
        port_map: settings.port_map.clone(),
        started,
        was_ready: AtomicBool::new(false),
    });
    let (stop, stopped) = watch::channel(false);
    let (hide, hidden) = watch::channel(false);
    let surfaces = addresses.iter().map(Bound::socket).collect::<io::Result<Vec<_>>>();
    let surfaces = surfaces.map_err(|error| format!("admin addresses: {error}"))?;
    let show =
        || admin::spawn(admin, addresses, hidden).map_err(|error| format!("cannot start a thread: {error}"));
    // The process before answers until this one is ready.
    let (mut showing, mut show) = (None, Some(show));
    if predecessor.is_none()
        && let Some(show) = show.take()
    {
        showing = Some(show()?);
    }

    let gauges = pressure::Gauges::register(&metrics).map_err(|error| format!("metrics: {error}"))?;
    let limits = {
        let snapshots = Arc::clone(&snapshots);
        move || snapshots.load().edge.pressure
    };
    background.spawn(pressure::follow(pressure::System::new(), limits, listeners.clone(), Some(gauges)));

    let identity = settings.identity();
    let registry = Registry::with_workload(
        Arc::new(SystemResolver::new()),
        background.handle().clone(),
        identity.workload.clone(),
    )
    .reaching(settings.dynamic_dns);
    let upstreams = registry.collector().and_then(|collector| metrics.register(Box::new(collector)));
    upstreams.map_err(|error| format!("metrics: {error}"))?;
    let security = SecurityMetrics::register(&metrics).map_err(|error| format!("metrics: {error}"))?;
    let latest = tls::watch::Latest::default();
    background.spawn(tls::watch::follow(Arc::clone(&snapshots), Arc::clone(&latest)));
    let exported = Exported::register(&metrics).map_err(|error| format!("metrics: {error}"))?;
    let caller = Arc::new(Caller::new(snapshots.clone()));
    let dropped = metrics.access_log_dropped.clone();
    let collectors = Collectors::new(caller, exported, dropped, background.handle().clone());
    let (exports, files) = (collectors.tasks(), collectors.files());
    background.spawn(telemetry::reopen_on_hangup(files));
    let publisher = Live {
        snapshots: snapshots.clone(),
        registry,
        listeners: listeners.clone(),
        edge: settings.edge.clone(),
        policies: Given::default(),
        security: Arc::new(security),
        keys: KeyStore::new(
            background.handle().clone(),
            Pace::default(),
            settings.jwks_authorities.as_deref(),
        ),
        limits: Limits::default(),
        calls: Arc::default(),
        latest,
        telemetry: Telemetry::new(settings, collectors)?,
    };
    let source = source(settings, background.handle())?;
    let status_metrics = status::Metrics::register(&metrics).map_err(|error| format!("metrics: {error}"))?;
    let pipeline = Pipeline::new(
        source.followed,
        Builder::new(identity),
        Box::new(publisher),
        Arc::clone(&status),
        pipeline_metrics,
    );
    let (following, first) =
        pipeline.spawn(stopped).map_err(|error| format!("cannot start a thread: {error}"))?;
    let _step = first.blocking_recv().map_err(|_| "the configuration could not be taken up".to_owned())?;
    let errors = status.findings().count(Severity::Error);
    if settings.strict == Strictness::Strict && errors > 0 {
        return Err(format!("the configuration has {}, and --strict was given", counted(errors, "error")));
    }

    if let Some(predecessor) = predecessor {
        if status.built().is_none() {
            return Err("nothing is taken over: no configuration could be put in force".to_owned());
        }
        if let Some(failure) = listeners.failures().first() {
            return Err(format!("nothing is taken over: {failure}"));
        }
        predecessor.take_over();
    }
    if let Some(show) = show {
        showing = Some(show()?);
    }
    let hide = Arc::new(hide);
    if let Some(path) = &settings.handover {
        let offer = Offer::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let hide = Arc::clone(&hide);
        let stop_surfaces = Box::new(move || {
            hide.send_replace(true);
        });
        let estate =
            Estate { listeners: listeners.clone(), surfaces, drain: Arc::clone(&drain), stop_surfaces };
        background.spawn(offer.serve(estate));
    }

    let writing = source.written.map(|(cluster, home)| {
        let writer = writer(&cluster, &home, &status, &listeners, status_metrics);
        let leaving = Arc::clone(&drain);
        // Whoever leaves lets another write: a drain may take long.
        background.spawn(writer.run(async move { leaving.reached(DrainState::Draining).await }))
    });

    let times = DrainTimes { min: settings.min_drain_time, max: settings.drain_time };
    let exit = app::serve(settings.threads, &listeners, &drain, times)
        .map_err(|error| format!("cannot serve: {error}"));
    let _thread_gone = stop.send(true);
    hide.send_replace(true);
    for (name, thread) in [("configuration", Some(following)), ("admin", showing)] {
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the {name} thread had ended early");
        }
    }
    if let Some(writing) = writing {
        drain.quit();
        let _given_back = background.block_on(async { timeout(app::UNWIND, writing).await });
    }
    // Whoever could still log a request is gone now but for tasks that were cut: the last holder writes out what is queued.
    drop(listeners);
    // Nothing more is handed over; the collectors' services are still there to be asked.
    snapshots.publish(Snapshot { telemetry: Arc::default(), ..Snapshot::clone(&snapshots.load()) });
    exports.finish(background.handle(), LAST_EXPORTS);
    // A runtime that is dropped waits for threads that block, and one may wait minutes for a successor's word.
    background.shutdown_timeout(app::UNWIND);
    exit
}

/// What puts a configuration in force: build everything, swap once; what is gone drains by itself.
struct Live {
    snapshots: Arc<SnapshotCell>,
    registry: Registry,
    listeners: ListenerManager,
    edge: EdgeFlags,
    policies: Given,
    security: Arc<SecurityMetrics>,
    keys: KeyStore,
    limits: Limits,
    calls: Arc<ask::Calls>,
    latest: tls::watch::Latest<config_model::set::ResourceSet>,
    telemetry: Telemetry,
}

#[async_trait]
impl Publisher for Live {
    async fn publish(&mut self, built: &Arc<Built>) -> Diagnostics {
        let compiled = &built.compiled;
        let metadata = &built.validated.mesh().default_config.proxy_metadata;
        for problem in EdgeFlags::from_metadata(metadata).1 {
            tracing::warn!("{problem}");
        }
        self.registry.set_credentials(built.validated.set().clone());
        let clusters = self.registry.reconcile(compiled.clusters.values().map(|cluster| &**cluster));
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(built.validated.set().clone()));
        let before = self.snapshots.load();
        let (certificates, problems) =
            Certificates::build(&compiled.listeners, built.validated.set(), &before.certificates);
        let mut found = tls::findings::findings(&problems, &built.validated, &built.diagnostics);
        self.registry.settle(&clusters, FIRST_RESOLUTION).await;
        for failure in self.listeners.prepare(&compiled.listeners) {
            // Not kept as a finding: it is tried again, and /diagnostics shows what fails at the time of asking.
            tracing::error!(listener = %failure.key, "{failure}");
        }
        let means = Means {
            keys: &self.keys,
            metrics: &self.security,
            limits: &self.limits,
            service: &|provider| ask::service(&self.calls, &clusters, provider),
        };
        let policies = self.policies.among(&builtin::configured(compiled, &means));
        let gate = builtin::gate(compiled, &means);
        let mut diagnostics = Diagnostics::clone(&built.diagnostics);
        let (telemetry, problems) = self.telemetry.plans(built);
        found.extend(problems);
        diagnostics.share(&found);
        self.snapshots.publish(Snapshot {
            generation: built.generation,
            listeners: compiled.listeners.clone(),
            clusters,
            certificates: Arc::new(certificates),
            policies,
            gate,
            edge: Arc::new(EdgeConfig::new(built.validated.mesh(), &self.edge)),
            telemetry,
            diagnostics: Arc::new(diagnostics),
            ..Snapshot::default()
        });
        found
    }
}

/// What is read, and the cluster that is written to.
struct Ends {
    followed: Box<dyn Source>,
    written: Option<(Cluster, Home)>,
}

fn source(settings: &Settings, runtime: &tokio::runtime::Handle) -> Result<Ends, String> {
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

/// What writes into the cluster, under the name of the pod.
fn writer(
    cluster: &Cluster,
    home: &Home,
    status: &Arc<Status>,
    listeners: &ListenerManager,
    metrics: status::Metrics,
) -> status::Writer {
    let name = hostname::get().ok().and_then(|name| name.into_string().ok());
    let name = name.unwrap_or_else(|| "limen".to_owned());
    let listeners = listeners.clone();
    let failures = Box::new(move || listeners.failures());
    let timing = status::Timing::default();
    status::Writer::new(cluster, home, &name, Arc::clone(status), failures, metrics, timing)
}

fn bind(settings: &Settings, inherited: &Inherited) -> Result<Vec<Bound>, String> {
    let one = |(address, surface)| {
        let left = inherited.take_address(address).map(|socket| Bound::of(socket, surface));
        left.map_or_else(|| Bound::new(address, surface), Ok)
            .map_err(|error: io::Error| format!("{address} cannot be bound: {error}"))
    };
    let metrics = settings.metrics.iter().map(|address| (*address, Surface::Metrics));
    [(settings.admin, Surface::Admin), (settings.status, Surface::Status)]
        .into_iter()
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

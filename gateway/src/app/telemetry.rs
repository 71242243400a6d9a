//! What is said about requests, wired to who the process is and what it was told.
//!
//! Invariant: the environment is read here, and by no one behind this. A log that a flag asks for is written whatever the configuration
//! says, and one that cannot be written keeps the process from starting.

use std::{path::Path, sync::Arc};

use config_model::diagnostic::{Code, Diagnostic, Diagnostics};
use prometheus::IntCounter;
use tokio::signal::unix::{SignalKind, signal};

use super::builder::OwnLog;
use crate::{
    pipeline::Built,
    settings::{AccessLogFormat, DEFAULT_DOMAIN, Settings, TraceDecision},
    telemetry::{
        AccessLog, IstioMetrics, Logs, Plans, Tracing,
        access_log::Target,
        buckets::Buckets,
        collectors::{Collectors, Files},
        log_plan::{self, LogRule, Output, Written},
        logs::{Connections, Rule, Sink},
        metrics_plan,
        node::Node,
        plan::{self, Ground, Side},
    },
};

/// The bounds of Istio's histograms.
pub(super) fn buckets(settings: &Settings) -> Buckets {
    let text = settings.pod_annotations.as_deref().and_then(|path| std::fs::read_to_string(path).ok());
    Buckets::of_annotations(&text.unwrap_or_default()).unwrap_or_else(|problem| {
        tracing::warn!("{problem}: Envoy's buckets are used");
        Buckets::default()
    })
}

/// Makes the plans of each configuration.
pub(super) struct Telemetry {
    collectors: Collectors,
    metrics: Arc<IstioMetrics>,
    node: Node,
    decision: TraceDecision,
    /// What flags ask for; `None`: nothing.
    flagged: Option<Vec<LogRule>>,
    /// The program's own.
    own: Option<Arc<AccessLog>>,
    silent: Vec<u16>,
}

impl Telemetry {
    /// Opens the log that flags ask for.
    ///
    /// # Errors
    /// When it cannot be opened, or its format is none.
    pub(super) fn new(
        settings: &Settings,
        mut collectors: Collectors,
        metrics: Arc<IstioMetrics>,
        own: Option<OwnLog>,
        dropped: IntCounter,
    ) -> Result<Telemetry, String> {
        let own = own.map(|log| begin(log, dropped)).transpose()?.flatten();
        let flagged = flagged(settings);
        if let Some(rules) = &flagged
            && let Some(problem) = collectors.logs(rules.clone()).1.into_iter().next()
        {
            return Err(problem);
        }
        Ok(Telemetry {
            collectors,
            metrics,
            node: node(settings),
            decision: settings.trace_decision,
            flagged,
            own,
            silent: settings.access_log_except.clone(),
        })
    }

    /// What a configuration says, in force; and what is wrong with it.
    pub(super) fn plans(&mut self, built: &Built) -> (Arc<Plans>, Diagnostics) {
        let ground = Ground {
            validated: &built.validated,
            compiled: &built.compiled,
            node: &self.node,
            environment: &environment,
        };
        let (traces, mut findings) = plan::traces(&ground, Side::Client);
        let decided = |tracing| Tracing { decision: self.decision, ..tracing };
        let (tracing, inbound_tracing) = if ground.is_beside() {
            let (inbound, found) = plan::traces(&ground, Side::Server);
            findings.add_new(found);
            let [tracing, inbound] = self.collectors.tracing([traces, inbound]).map(decided);
            (tracing, Some(inbound))
        } else {
            let [tracing] = self.collectors.tracing([traces]).map(decided);
            (tracing, None)
        };
        let (metrics, found) = metrics_plan::metrics(&ground);
        findings.extend(found);
        let labels = self.metrics.set(metrics.rules, metrics.interval);
        let rules = match &self.flagged {
            Some(rules) => rules.clone(),
            None => {
                let (rules, found) = log_plan::logs(&ground);
                findings.extend(found);
                rules
            }
        };
        let (mut rules, problems) = self.collectors.logs(rules);
        rules.extend(self.own.clone().map(|log| Rule {
            sink: Sink::Lines(log),
            condition: None,
            side: None,
        }));
        findings.extend(problems.into_iter().map(|problem| Diagnostic::new(Code::SCHEMA, problem)));
        let logs = logs(rules, &self.silent, built);
        (Arc::new(Plans { tracing, inbound_tracing, logs, labels }), findings)
    }
}

fn logs(rules: Vec<Rule>, silent: &[u16], built: &Built) -> Logs {
    let connections = match built.validated.mesh().disable_envoy_listener_log {
        true => Connections::Silent,
        false => Connections::Logged,
    };
    Logs::new(rules, silent.to_vec(), connections)
}

/// The log that flags ask for.
fn flagged(settings: &Settings) -> Option<Vec<LogRule>> {
    if settings.access_log.is_none() && settings.access_log_file.is_none() {
        return None;
    }
    let format = settings.access_log.as_ref().unwrap_or(&AccessLogFormat::Text);
    let Some(written) = written(format) else { return Some(Vec::new()) };
    let target = match &settings.access_log_file {
        Some(path) => Target::File(Arc::<Path>::from(path.as_path())),
        None => Target::Stdout,
    };
    Some(vec![LogRule { output: Output::Lines(target, written), condition: None, side: None }])
}

/// How lines are written; `None`: not at all.
fn written(format: &AccessLogFormat) -> Option<Written> {
    match format {
        AccessLogFormat::Off => None,
        AccessLogFormat::Text => Some(Written::Text),
        AccessLogFormat::Json => Some(Written::Json),
        AccessLogFormat::Custom(text) => Some(Written::Format(text.clone(), false)),
    }
}

/// The log that goes to the program.
fn begin(log: OwnLog, dropped: IntCounter) -> Result<Option<Arc<AccessLog>>, String> {
    let Some(written) = written(&log.format) else { return Ok(None) };
    let format = written.compile().map_err(|error| format!("access log format: {error}"))?;
    let log =
        AccessLog::to_writer(format, log.to, dropped).map_err(|error| format!("access log: {error}"))?;
    Ok(Some(Arc::new(log)))
}

/// Opens files anew at each SIGHUP, as whoever rotates them asks for.
pub(super) async fn reopen_on_hangup(files: Files) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return tracing::error!(%error, "SIGHUP is not heard: access logs are not opened anew"),
    };
    while hangup.recv().await.is_some() {
        files.reopen();
        tracing::info!("access logs opened anew");
    }
}

/// Where the process runs. The names are those that Istio's injection gives a gateway's container.
fn node(settings: &Settings) -> Node {
    let first = |names: &[&str]| names.iter().find_map(|name| environment(name)).unwrap_or_default();
    Node {
        namespace: settings.namespace.clone(),
        labels: settings.labels.clone(),
        pod: first(&["POD_NAME", "HOSTNAME"]),
        ip: first(&["INSTANCE_IP", "POD_IP"]).parse().ok(),
        workload: first(&["ISTIO_META_WORKLOAD_NAME"]),
        mesh_id: first(&["ISTIO_META_MESH_ID"]),
        cluster_id: first(&["ISTIO_META_CLUSTER_ID"]),
        domain: DEFAULT_DOMAIN.to_owned(),
    }
}

/// What the process was told; empty counts as nothing.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

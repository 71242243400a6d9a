//! `limen run`: arguments to settings, then serve.
//!
//! Invariant: whatever keeps it from starting is one line on standard error, and exit code 1.

use std::io::IsTerminal as _;

use super::{
    Exit, Output,
    args::{Color, Decision, Role, RunArgs, Switch},
    log, workload,
};
use crate::{
    app::launch,
    edge::Allow,
    runtime::dynamic::Reach,
    settings::{
        CoreDumps, Settings, SourceSettings, StatusWriter, Strictness, TraceDecision, available_threads,
    },
};

pub(super) fn run(args: &RunArgs, out: &mut Output<'_>) -> Exit {
    if args.common.config.is_empty() && !args.common.kubernetes {
        out.fail("no configuration: use --config DIR or --kubernetes");
        return Exit::Usage;
    }
    for path in &args.common.config {
        if let Err(error) = std::fs::metadata(path) {
            out.fail(&format!("{}: {error}", path.display()));
            return Exit::Failed;
        }
    }
    let colour = match args.common.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stderr().is_terminal(),
    };
    let level = match log::start(&args.log_level, args.log_format, colour) {
        Ok(level) => level,
        Err(message) => {
            out.fail(&message);
            return Exit::Usage;
        }
    };
    match launch::launch(&settings(args), level) {
        Ok(_drained) => Exit::Ok,
        Err(message) => {
            out.fail(&message);
            Exit::Failed
        }
    }
}

fn settings(args: &RunArgs) -> Settings {
    Settings {
        source: if args.common.kubernetes {
            let status = match args.status_writer {
                Switch::On => StatusWriter::On,
                Switch::Off => StatusWriter::Off,
            };
            SourceSettings::Kubernetes { cache: args.cache_dir.clone(), status }
        } else {
            SourceSettings::Folders(args.common.config.clone())
        },
        namespace: args.common.namespace.clone(),
        labels: args.common.labels.0.clone(),
        role: match args.common.role {
            Role::Gateway => routing::compile::Role::Gateway,
            Role::Sidecar => routing::compile::Role::Sidecar(Box::new(workload::of(&args.sidecar))),
        },
        workload_certificates: args.workload_certificates.clone(),
        pod_annotations: Some(args.pod_annotations.clone()),
        trace_decision: match args.trace_decision {
            Decision::Client => TraceDecision::Client,
            Decision::Both => TraceDecision::Both,
        },
        port_map: args.port_map.0.clone(),
        bind: args.bind,
        admin: Some(args.admin),
        admin_token_file: args.admin_token_file.clone(),
        jwks_authorities: args.jwks_ca.clone(),
        status: Some(args.status_addr),
        metrics: args.metrics_addr.clone(),
        threads: args.threads.map_or_else(available_threads, usize::from),
        access_log: args.access_log.as_ref().map(|format| format.0.clone()),
        access_log_file: args.access_log_file.clone(),
        access_log_except: args.access_log_except.clone(),
        drain_time: args.drain_time,
        min_drain_time: args.min_drain_time,
        edge: args.edge.clone(),
        dynamic_dns: match (args.dynamic_dns_inside, args.common.role) {
            (Some(Allow::Allow), _) | (None, Role::Sidecar) => Reach::Anywhere,
            (Some(Allow::Refuse), _) | (None, Role::Gateway) => Reach::Outside,
        },
        handover: args.handover.clone(),
        strict: if args.strict { Strictness::Strict } else { Strictness::Tolerant },
        core_dumps: match args.core_dumps {
            Allow::Allow => CoreDumps::Allowed,
            Allow::Refuse => CoreDumps::Refused,
        },
    }
}

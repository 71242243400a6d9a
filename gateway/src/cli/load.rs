//! Reading configuration once, for the commands that look and do not serve.
//!
//! Invariant: goes the same way as what is served: source, merge, validation, compilation.

use std::path::PathBuf;

use config_model::diagnostic::{Code, Diagnostics, Severity};

use routing::compile::Workload;

use super::{
    Exit, Output,
    args::{CommonArgs, Role},
    cluster,
    output::counted,
};
use crate::{
    pipeline::{Builder, Built},
    settings::Settings,
    source::{Loaded, directory::Directory},
};

/// How far a cluster is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Depth {
    /// What is served.
    Served,
    /// Also what Istio would apply and is not read here.
    Unread,
}

/// Reads and compiles what the arguments name, or says why that is not possible.
pub(super) fn load(
    common: &CommonArgs,
    more: &[PathBuf],
    depth: Depth,
    out: &mut Output<'_>,
) -> Result<Built, Exit> {
    let settings = Settings {
        namespace: common.namespace.clone(),
        labels: common.labels.0.clone(),
        ..Settings::default()
    };
    let loaded =
        if common.kubernetes { cluster::load(&settings, depth, out)? } else { folders(common, more, out)? };
    let mut identity = settings.identity();
    if common.role == Role::Sidecar {
        identity.role = routing::compile::Role::Sidecar(Box::new(Workload::at(Vec::new())));
    }
    Ok(Builder::new(identity).build(&loaded))
}

fn folders(common: &CommonArgs, more: &[PathBuf], out: &mut Output<'_>) -> Result<Loaded, Exit> {
    let paths: Vec<PathBuf> = more.iter().chain(&common.config).cloned().collect();
    if paths.is_empty() {
        out.fail("no configuration: name a folder or a file, or use --kubernetes");
        return Err(Exit::Usage);
    }
    // A path that is not there at all is a mistake in the arguments, not in the configuration.
    for path in &paths {
        if let Err(error) = std::fs::metadata(path) {
            out.fail(&format!("{}: {error}", path.display()));
            return Err(Exit::Usage);
        }
    }
    Ok(Directory::new(paths).load())
}

/// Whether a file could not be parsed at all: a document that is no YAML, or is beyond a limit.
pub(super) fn has_unparsable(findings: &Diagnostics) -> bool {
    findings.iter().any(|finding| {
        (finding.code == Code::SYNTAX || finding.code == Code::LIMIT) && finding.severity == Severity::Error
    })
}

/// Says on standard error that what follows rests on less than what was written.
pub(super) fn warn_of_errors(findings: &Diagnostics, out: &mut Output<'_>) {
    let errors = findings.count(Severity::Error);
    if errors > 0 {
        out.fail(&format!("the configuration has {}; `limen check` lists them", counted(errors, "error")));
    }
}

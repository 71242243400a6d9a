//! `limen check`: what is wrong with some files.
//!
//! Invariant: the exit code alone says whether a pipeline may go on: warnings never fail it.

use config_model::diagnostic::Severity;

use super::{
    Exit, Output, VERSION,
    args::{CheckArgs, CheckFormat},
    load, paint,
};
use crate::report::findings::{self, Findings};

pub(super) fn check(args: &CheckArgs, out: &mut Output<'_>) -> Exit {
    let built = match load::load(&args.common, &args.paths, out) {
        Ok(built) => built,
        Err(exit) => return exit,
    };
    let findings = &built.diagnostics;
    match args.output {
        CheckFormat::Text => {
            out.say(&findings::text(findings, paint(args.common.color)));
            if findings.is_empty() {
                out.tell(&format!("✔ No validation issues found in {} resources.\n", built.resources));
            } else {
                out.tell(&format!(
                    "{} errors, {} warnings, {} notes in {} resources\n",
                    findings.count(Severity::Error),
                    findings.count(Severity::Warning),
                    findings.count(Severity::Info),
                    built.resources
                ));
            }
        }
        CheckFormat::Json => out.json(&Findings::new(findings, built.resources)),
        CheckFormat::Sarif => out.json(&findings::sarif(findings, VERSION)),
    }
    if load::has_unparsable(findings) {
        Exit::Unparsable
    } else if findings.has_errors() {
        Exit::Failed
    } else {
        Exit::Ok
    }
}

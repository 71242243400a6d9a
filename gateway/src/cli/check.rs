//! `limen check`: what is wrong with some files.
//!
//! Invariant: the exit code alone says whether a pipeline may go on: warnings never fail it.

use config_model::diagnostic::{Code, Diagnostics, Raised, Severity, page};
use serde_json::json;

use super::{
    Exit, Output, Reader, VERSION,
    args::{CheckArgs, CheckFormat},
    load::{self, Depth},
    output::counted,
    paint,
};
use crate::{
    report::{
        findings::{self, Detail, Findings},
        sarif::sarif,
    },
    settings::DEFAULT_DOMAIN,
    telemetry::{self, node::Node, plan::Ground},
    tls,
};

pub(super) fn check(args: &CheckArgs, out: &mut Output<'_>) -> Exit {
    if let Some(code) = &args.explain {
        return explain_code(code, args.output, out);
    }
    let built = match load::load(&args.common, &args.paths, Depth::Unread, out) {
        Ok(built) => built,
        Err(exit) => return exit,
    };
    let mut findings = Diagnostics::clone(&built.diagnostics);
    findings.extend(tls::findings::of_secrets(&built.compiled.listeners, &built.validated, &findings));
    findings.extend(telemetry::findings(&Ground {
        validated: &built.validated,
        compiled: &built.compiled,
        node: &Node {
            namespace: args.common.namespace.clone(),
            labels: args.common.labels.0.clone(),
            domain: DEFAULT_DOMAIN.to_owned(),
            ..Node::default()
        },
        // What the gateway's environment holds is not known here.
        environment: &|_| None,
    }));
    findings.sort();
    let findings = &findings;
    match args.output {
        CheckFormat::Text => {
            let detail = match out.reader() {
                Reader::Person => Detail::Excerpt,
                Reader::Program => Detail::Line,
            };
            out.say(&findings::text(findings, detail, paint(args.common.color, out.reader())));
            let resources = counted(built.resources, "resource");
            if findings.is_empty() {
                out.tell(&format!("✔ No validation issues found in {resources}.\n"));
            } else {
                let counted = [
                    counted(findings.count(Severity::Error), "error"),
                    counted(findings.count(Severity::Warning), "warning"),
                    counted(findings.count(Severity::Info), "note"),
                ];
                out.tell(&format!("{} in {}\n", counted.join(", "), resources));
            }
        }
        CheckFormat::Json => out.json(&Findings::new(findings, built.resources)),
        CheckFormat::Sarif => out.json(&sarif(findings, VERSION)),
    }
    if load::has_unparsable(findings) {
        Exit::Unparsable
    } else if findings.has_errors() {
        Exit::Failed
    } else {
        Exit::Ok
    }
}

/// The page of a code.
fn explain_code(text: &str, format: CheckFormat, out: &mut Output<'_>) -> Exit {
    let Some(code) = Code::parse(text) else {
        let codes: Vec<&str> = Code::TABLE.iter().map(|info| info.code.as_str()).collect();
        out.fail(&format!("{text:?} is not a code; the codes are {}", codes.join(", ")));
        return Exit::Usage;
    };
    match format {
        CheckFormat::Text => out.say(&page(code)),
        CheckFormat::Json => {
            let info = code.info();
            let (example, retired) = match info.raised {
                Raised::ByFile(sample) => (Some(sample), false),
                Raised::Elsewhere(_) => (None, false),
                Raised::Retired(_) => (None, true),
            };
            out.json(&json!({
                "code": code.as_str(),
                "title": info.title,
                "severity": info.severity.as_str(),
                "retired": retired,
                "meaning": info.meaning,
                "example": example,
                "remedy": info.remedy,
            }));
        }
        CheckFormat::Sarif => {
            out.fail("--explain: SARIF is a format of findings; use text or json");
            return Exit::Usage;
        }
    }
    Exit::Ok
}

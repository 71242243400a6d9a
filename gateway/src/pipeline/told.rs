//! Findings in the log: each when it comes up, and how many went.
//!
//! Invariant: one that says the same of the same place is told once, however often it is found again. A change writes so many lines and no
//! more, the worst first: tens of thousands of notes would hold up what they are about.

use std::{collections::HashSet, sync::Arc};

use config_model::diagnostic::{Diagnostic, Diagnostics, Severity};

use super::merge::without_common_ends;

/// Findings that one change writes to the log.
const MOST: usize = 500;

/// What the log has been told.
#[derive(Debug, Default)]
pub(super) struct Told(Diagnostics);

impl Told {
    /// Tells what is new in these findings, and counts what they no longer have.
    pub(super) fn follow(&mut self, findings: &Diagnostics) {
        let (before, now) = without_common_ends(self.0.shared(), findings.shared(), Arc::ptr_eq);
        let (known, kept) = (addresses(before), addresses(now));
        // One that is found anew is another finding with the same words.
        let mut gone: HashSet<String> = before
            .iter()
            .filter(|finding| !kept.contains(&address(finding)))
            .map(ToString::to_string)
            .collect();
        let mut news: Vec<(String, &Diagnostic)> = Vec::new();
        let mut said = HashSet::new();
        for finding in now.iter().filter(|finding| !known.contains(&address(finding))) {
            let line = finding.to_string();
            if !gone.remove(&line) && said.insert(line.clone()) {
                news.push((line, finding));
            }
        }
        news.sort_by_key(|(_, finding)| finding.severity);
        for (line, finding) in news.iter().take(MOST) {
            write(line, finding);
        }
        if let Some(more) = news.len().checked_sub(MOST).filter(|more| *more > 0) {
            tracing::warn!(more, "further findings: /diagnostics and limen check have all of them");
        }
        if !gone.is_empty() {
            tracing::info!(resolved = gone.len(), remaining = findings.len(), "findings resolved");
        }
        self.0 = findings.clone();
    }
}

/// What tells a finding from every other while both are held.
fn address(finding: &Arc<Diagnostic>) -> usize {
    Arc::as_ptr(finding).addr()
}

fn addresses(findings: &[Arc<Diagnostic>]) -> HashSet<usize> {
    findings.iter().map(address).collect()
}

fn write(line: &str, finding: &Diagnostic) {
    let code = finding.code.as_str();
    // An absent hint is no field of the line.
    let hint = finding.hint.as_deref();
    // The level of the line says how bad it is.
    let text = line.split_once(' ').map_or(line, |(_severity, rest)| rest);
    match finding.severity {
        Severity::Error => tracing::error!(code, hint, "{text}"),
        Severity::Warning => tracing::warn!(code, hint, "{text}"),
        Severity::Info => tracing::info!(code, hint, "{text}"),
    }
}

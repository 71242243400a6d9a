//! Collects the findings about one resource.
//!
//! Invariant: an error rejects the resource, as admission would; a warning never does.

use std::collections::BTreeSet;

use super::names;
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics, Effect},
    meta::Resource,
    scalar::Duration,
};

/// Most findings that are kept for one resource; a list of a million wrong hosts is one mistake.
const MAX_FINDINGS: usize = 100;

/// The findings about one resource, being made.
pub(super) struct Check<'a, T> {
    pub(super) resource: &'a Resource<T>,
    out: &'a mut Diagnostics,
    count: usize,
    rejected: bool,
}

impl<'a, T> Check<'a, T> {
    /// Begins with the rules that hold for every kind.
    pub(super) fn new(resource: &'a Resource<T>, out: &'a mut Diagnostics) -> Check<'a, T> {
        let mut check = Check { resource, out, count: 0, rejected: false };
        check.annotations();
        check
    }

    /// Admission refuses this.
    pub(super) fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(Diagnostic::new(Code::SCHEMA, message).at(path).rejected());
    }

    /// Admission warns of this.
    pub(super) fn warn(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(Diagnostic::new(Code::SCHEMA_WARNING, message).at(path));
    }

    /// The API has deprecated this field.
    pub(super) fn deprecated(&mut self, path: impl Into<String>, instead: &str) {
        self.push(Diagnostic::new(Code::DEPRECATED, format!("the field is deprecated; {instead}")).at(path));
    }

    /// Any finding, about this resource.
    pub(super) fn push(&mut self, finding: Diagnostic) {
        // What rejects the resource must be said once, however late it comes.
        let rejects = finding.effect == Effect::Rejected;
        if self.count >= MAX_FINDINGS && (self.rejected || !rejects) {
            return;
        }
        self.count += 1;
        self.rejected |= rejects;
        self.out.push(finding.about(&self.resource.key, &self.resource.origin));
    }

    fn annotations(&mut self) {
        for (name, value) in &self.resource.meta.annotations {
            let path = format!("metadata.annotations.{name}");
            match name.as_str() {
                "istio.io/dry-run"
                    if !matches!(
                        value.as_str(),
                        "true"
                            | "false"
                            | "1"
                            | "0"
                            | "t"
                            | "f"
                            | "T"
                            | "F"
                            | "TRUE"
                            | "FALSE"
                            | "True"
                            | "False"
                    ) =>
                {
                    self.error(path, format!("{value:?} is not a boolean"));
                }
                "internal.istio.io/parents" | "internal.istio.io/always-reject" => {
                    self.error(path, "the annotation is reserved for Istio itself");
                }
                _ => {}
            }
        }
    }

    /// A duration of at least one millisecond, in whole milliseconds.
    pub(super) fn duration(&mut self, path: &str, value: Option<Duration>) {
        let Some(value) = value else { return };
        if value < Duration::from_millis(1) {
            self.error(path, format!("duration {value} is below one millisecond"));
        } else if value.as_std().subsec_nanos() % 1_000_000 != 0 {
            self.error(path, format!("duration {value} is not in whole milliseconds"));
        }
    }

    /// `exportTo`: no duplicates, `*` and `~` alone, names of namespaces.
    pub(super) fn export_to(&mut self, list: &[String], allows_nobody: bool) {
        let own = &self.resource.key.namespace;
        let mut seen = BTreeSet::new();
        for (index, entry) in list.iter().enumerate() {
            let path = format!("spec.exportTo[{index}]");
            let meant = if entry == "." { own.as_str() } else { entry.as_str() };
            if !seen.insert(meant.to_owned()) {
                self.error(path, format!("{entry:?} is listed twice"));
                continue;
            }
            match entry.as_str() {
                "*" | "~" if list.len() > 1 => self.error(path, format!("{entry:?} must stand alone")),
                "~" if !allows_nobody => self.error(path, "\"~\" is allowed for a ServiceEntry only"),
                "*" | "~" | "." => {}
                name if !names::is_label(name) => {
                    self.error(path, format!("{name:?} is not the name of a namespace"))
                }
                _ => {}
            }
        }
    }

    /// Label keys and values, as Kubernetes allows them, without wildcards.
    pub(super) fn labels<'l>(
        &mut self,
        path: &str,
        labels: impl IntoIterator<Item = (&'l String, &'l String)>,
    ) {
        for (key, value) in labels {
            if !names::is_label_key(key) {
                self.error(path, format!("{key:?} is not a valid label name"));
            } else if !names::is_label_value(value) {
                self.error(path, format!("{value:?} is not a valid value for label {key:?}"));
            }
        }
    }
}

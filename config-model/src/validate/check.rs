//! Collects the findings about one resource.
//!
//! Invariant: an error rejects the resource, as admission would; a warning never does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Arguments, Display},
};

use super::names;
use crate::{
    annotation::{self, Annotations, Loss, Problem},
    diagnostic::{Code, Diagnostic, Diagnostics, Effect, Severity},
    meta::{Kind, Resource},
    scalar::Duration,
};

/// Most findings that are kept for one resource; a list of a million wrong hosts is one mistake.
const MAX_FINDINGS: usize = 100;

/// The path of a field, which is written out for a finding and else costs nothing.
pub(super) type At<'p> = Arguments<'p>;

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
    pub(super) fn error(&mut self, path: impl Display, message: impl Into<String>) {
        self.push(Diagnostic::new(Code::SCHEMA, message).at(path.to_string()).rejected());
    }

    /// Admission refuses this, and the way out is worth a word.
    pub(super) fn refuse(&mut self, path: impl Display, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Diagnostic::new(Code::SCHEMA, message).at(path.to_string()).hint(hint).rejected());
    }

    /// Admission warns of this.
    pub(super) fn warn(&mut self, path: impl Display, message: impl Into<String>) {
        self.push(Diagnostic::new(Code::SCHEMA_WARNING, message).at(path.to_string()));
    }

    /// The API has deprecated this field.
    pub(super) fn deprecated(&mut self, path: impl Display, message: impl Into<String>) {
        self.push(
            Diagnostic::new(Code::DEPRECATED, format!("Deprecated: {}", message.into())).at(path.to_string()),
        );
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

    /// Whether something was found that rejects the resource.
    pub(super) fn is_rejected(&self) -> bool {
        self.rejected
    }

    fn annotations(&mut self) {
        for name in self.resource.meta.annotations.keys() {
            let message = match name.as_str() {
                // It is this kind's own, and looked at there.
                "istio.io/dry-run" if self.resource.key.kind == Kind::AuthorizationPolicy => continue,
                "istio.io/dry-run" => format!("unsupported annotation {name}, please remove the annotation"),
                "internal.istio.io/webhook-always-reject" => format!("{name:?} annotation found, rejecting"),
                "internal.istio.io/parents" | "internal.istio.io/parent-namespace" => {
                    format!("{name:?} annotation found, this may not be set by users")
                }
                _ => continue,
            };
            self.error(format!("metadata.annotations.{name}"), message);
        }
        self.policies();
    }

    /// What asks for policies. Without one that protects, the resource is not served: it would let in whom it was to keep out.
    fn policies(&mut self) {
        let annotations = &self.resource.meta.annotations;
        let kind = self.resource.key.kind;
        if !matches!(kind, Kind::VirtualService | Kind::Gateway) {
            for name in annotations.keys().filter(|name| name.starts_with(annotation::PREFIX)) {
                let message =
                    format!("{name} has no effect on a {kind}: it is for VirtualServices and Gateways");
                let finding = Diagnostic::new(Code::ANNOTATION, message).severity(Severity::Warning);
                self.push(finding.at(format!("metadata.annotations.{name}")));
            }
            return;
        }
        for Problem { name, message, hint, loss } in Annotations::read(annotations).1 {
            let finding =
                Diagnostic::new(Code::ANNOTATION, message).at(format!("metadata.annotations.{name}"));
            let finding = Diagnostic { hint, ..finding };
            self.push(match loss {
                Loss::Protection => finding.rejected(),
                Loss::Service => finding,
                Loss::Nothing => finding.severity(Severity::Warning),
            });
        }
    }

    /// A duration of at least one millisecond, in whole milliseconds (Istio: ValidateDuration).
    pub(super) fn duration(&mut self, path: impl Display, value: Option<Duration>) {
        let Some(value) = value else { return };
        if value < Duration::from_millis(1) {
            self.error(path, format!("duration must be greater than 1ms, not {value}"));
        } else if value.as_std().subsec_nanos() % 1_000_000 != 0 {
            self.error(path, format!("only durations to ms precision are supported, not {value}"));
        }
    }

    /// A list or map of at most so many members; a rule of the schema.
    pub(super) fn at_most(&mut self, path: impl Display, count: usize, limit: usize) {
        if count > limit {
            self.error(path, format!("must have at most {limit} items, not {count}"));
        }
    }

    /// A text of at most so many characters; a rule of the schema.
    pub(super) fn at_most_long(&mut self, path: impl Display, text: &str, limit: usize) {
        if text.len() > limit && text.chars().count() > limit {
            self.error(path, format!("may not be longer than {limit} characters"));
        }
    }

    /// `exportTo`: no duplicates, `*` and `~` alone, names of namespaces (Istio: validateExportTo).
    pub(super) fn export_to(&mut self, list: &[String], allows_nobody: bool) {
        let own = self.resource.key.namespace.clone();
        let mut seen = BTreeSet::new();
        for (index, entry) in list.iter().enumerate() {
            let path = format!("spec.exportTo[{index}]");
            let meant = if entry == "." { own.as_str() } else { entry.as_str() };
            if !seen.insert(meant) {
                let message = match entry.as_str() {
                    "." => format!("duplicate entries in exportTo: . and current namespace {own}"),
                    entry => format!("duplicate entries in exportTo for entry {entry}"),
                };
                self.error(path, message);
                continue;
            }
            match entry.as_str() {
                "*" if list.len() > 1 => self
                    .error(path, "cannot have both public (*) and non-public exportTo values for a resource"),
                "~" if !allows_nobody => {
                    self.error(path, "exportTo ~ (none) is not allowed for Istio configuration objects");
                }
                "~" if list.len() > 1 => {
                    self.error(path, "cannot export service entry to no one (~) and someone");
                }
                "*" | "~" | "." => {}
                name if !names::is_label(name) => {
                    self.error(
                        path,
                        format!(
                            "only .,*, or a valid DNS 1123 label is allowed as exportTo entry, not {name:?}"
                        ),
                    );
                }
                _ => {}
            }
        }
    }

    /// Label keys and values, as Kubernetes allows them.
    pub(super) fn labels(&mut self, path: impl Display, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            if !names::is_label_key(key) {
                self.error(&path, format!("invalid tag key: {key:?}"));
            } else if !names::is_label_value(value) {
                self.error(format!("{path}.{key}"), format!("invalid tag value: {value:?}"));
            }
        }
    }

    /// Labels that select: no star, no empty key, values of at most 63 characters.
    pub(super) fn selector(&mut self, path: impl Display, labels: &BTreeMap<String, String>, most: usize) {
        self.at_most(&path, labels.len(), most);
        for (key, value) in labels {
            if key.is_empty() {
                self.error(&path, format!("empty key is not supported in selector: \"{key}={value}\""));
            }
            if key.contains('*') || value.contains('*') {
                self.error(&path, format!("wildcard is not supported in selector: \"{key}={value}\""));
            }
            self.at_most_long(format_args!("{path}.{key}"), value, 63);
        }
    }
}

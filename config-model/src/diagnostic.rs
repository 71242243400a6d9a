//! Findings: what is wrong, how badly, where, and what to do next.
//!
//! Invariant: a [`Code`] is a row of one table, so a finding cannot carry a number that is not explained; a retired number
//! keeps its row. Whether a resource is served depends on [`Effect`] alone, never on the severity.

mod code;
mod page;

use std::{fmt, sync::Arc};

pub use code::{Code, CodeInfo, Raised};
pub use page::{index, page};

use crate::meta::{Origin, ResourceKey};

/// How bad a finding is. Orders from worst to mildest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something probably does not do what was meant.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// Lower case, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

impl fmt::Display for Severity {
    /// Capitalised, as `istioctl analyze` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Error => "Error",
            Severity::Warning => "Warning",
            Severity::Info => "Info",
        })
    }
}

/// What a finding does to its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[must_use]
pub enum Effect {
    /// The resource is left out; an earlier accepted version goes on.
    Rejected,
    /// The resource is served.
    Served,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of finding.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// What it does to the resource.
    pub effect: Effect,
    /// The resource, when it is known.
    pub resource: Option<ResourceKey>,
    /// Where the field (or the document) is.
    pub origin: Option<Origin>,
    /// Path of the field, e.g. `spec.http[0].route[0].destination.host`; empty for the whole document.
    pub path: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A finding with the code's own severity, that leaves its resource served.
    pub fn new(code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            severity: code.info().severity,
            effect: Effect::Served,
            resource: None,
            origin: None,
            path: String::new(),
            message: message.into(),
            hint: None,
        }
    }

    /// Names the resource and where it was written.
    #[must_use]
    pub fn about(mut self, resource: &ResourceKey, origin: &Origin) -> Diagnostic {
        self.resource = Some(resource.clone());
        self.origin = Some(origin.clone());
        self
    }

    /// Names the field.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Diagnostic {
        self.path = path.into();
        self
    }

    /// Says where it is when no resource is known.
    #[must_use]
    pub fn from_origin(mut self, origin: Origin) -> Diagnostic {
        self.origin = Some(origin);
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// Uses another severity than the code's own.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Diagnostic {
        self.severity = severity;
        self
    }

    /// Makes the resource be left out.
    #[must_use]
    pub fn rejected(mut self) -> Diagnostic {
        self.effect = Effect::Rejected;
        self
    }
}

impl fmt::Display for Diagnostic {
    /// One line, as `istioctl analyze` prints it, with the field path at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.severity, self.code)?;
        match (&self.resource, &self.origin) {
            (Some(resource), Some(origin)) => write!(f, " ({resource} {origin})")?,
            (Some(resource), None) => write!(f, " ({resource})")?,
            (None, Some(origin)) => write!(f, " ({origin})")?,
            (None, None) => {}
        }
        write!(f, " {}", self.message)?;
        if !self.path.is_empty() {
            write!(f, " ({})", self.path)?;
        }
        Ok(())
    }
}

/// Findings in the order they were made, until sorted. A finding is shared by its copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Arc<Diagnostic>>);

/// Walks over findings.
pub type Iter<'a> =
    std::iter::Map<std::slice::Iter<'a, Arc<Diagnostic>>, fn(&Arc<Diagnostic>) -> &Diagnostic>;

impl Diagnostics {
    /// No findings.
    pub fn new() -> Diagnostics {
        Diagnostics::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(Arc::new(diagnostic));
    }

    /// Adds those of another list, which are shared with it.
    pub fn share(&mut self, other: &Diagnostics) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Adds those of another list that are not here yet.
    pub fn add_new(&mut self, other: Diagnostics) {
        for finding in other.0 {
            if !self.0.contains(&finding) {
                self.0.push(finding);
            }
        }
    }

    /// Sorts by file, line and column, then by resource, code and path: the same input gives the same output.
    pub fn sort(&mut self) {
        let key = |d: &Diagnostic| (d.code, d.severity);
        self.0.sort_by(|a, b| {
            a.origin
                .cmp(&b.origin)
                .then_with(|| a.resource.cmp(&b.resource))
                .then_with(|| key(a).cmp(&key(b)))
                .then_with(|| a.path.cmp(&b.path))
                .then_with(|| a.message.cmp(&b.message))
        });
    }

    /// The findings.
    pub fn iter(&self) -> Iter<'_> {
        self.0.iter().map(|diagnostic| diagnostic)
    }

    /// The findings, each to be kept without a copy of it.
    pub fn shared(&self) -> &[Arc<Diagnostic>] {
        &self.0
    }

    /// The findings, to be changed in place.
    pub(crate) fn shared_mut(&mut self) -> &mut [Arc<Diagnostic>] {
        &mut self.0
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|d| d.severity == severity).count()
    }

    /// Whether any is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, iter: I) {
        self.0.extend(iter.into_iter().map(Arc::new));
    }
}

impl Extend<Arc<Diagnostic>> for Diagnostics {
    fn extend<I: IntoIterator<Item = Arc<Diagnostic>>>(&mut self, iter: I) {
        self.0.extend(iter);
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(iter: I) -> Diagnostics {
        Diagnostics(iter.into_iter().map(Arc::new).collect())
    }
}

impl FromIterator<Arc<Diagnostic>> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Arc<Diagnostic>>>(iter: I) -> Diagnostics {
        Diagnostics(iter.into_iter().collect())
    }
}

impl IntoIterator for Diagnostics {
    type Item = Arc<Diagnostic>;
    type IntoIter = std::vec::IntoIter<Arc<Diagnostic>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Kind;

    #[test]
    fn a_line_reads_as_istioctl_prints_it() {
        let key = ResourceKey::new(Kind::VirtualService, "default", "reviews");
        let finding = Diagnostic::new(Code::REFERENCE_NOT_FOUND, "Referenced host not found: \"x\"")
            .about(&key, &Origin::new("bookinfo.yaml", 12, 3))
            .at("spec.http[0].route[0].destination.host");
        assert_eq!(
            finding.to_string(),
            "Error [IST0101] (VirtualService default/reviews bookinfo.yaml:12) Referenced host not found: \"x\" \
             (spec.http[0].route[0].destination.host)"
        );
    }

    #[test]
    fn findings_sort_by_place() {
        let at = |line| Diagnostic::new(Code::SCHEMA, "m").from_origin(Origin::new("a", line, 1));
        let mut all: Diagnostics = [at(3), at(1)].into_iter().collect();
        all.sort();
        assert_eq!(all.iter().map(|d| d.origin.as_ref().unwrap().line).collect::<Vec<_>>(), [1, 3]);
        assert!(all.has_errors());
    }
}

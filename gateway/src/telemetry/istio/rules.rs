//! What a Telemetry changes of Istio's metrics: which are told, and with which labels.
//!
//! Invariant: a request pays for the expressions that its configuration has, and for nothing else here: names and labels are changed when
//! metrics are read. Texts of requests become labels only where the configuration asks for them, and of one target only so many.

use super::labels::{Pairs, UNKNOWN};
use crate::telemetry::{access_log::Entry, condition::Condition, names};
use std::{borrow::Cow, collections::BTreeMap};

/// Longest value of a label that an expression makes, in bytes.
const LONGEST: usize = 256;

/// What is told of each of [`names::ISTIO`], in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// By metric.
    pub metrics: [Rule; names::ISTIO.len()],
    /// The same of what comes in to a workload; `None`: as of all else.
    pub inbound: Option<Box<[Rule; names::ISTIO.len()]>>,
    /// Expressions that make labels of requests.
    pub expressions: Vec<Condition>,
}

/// What is told of one metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// It is not told at all.
    pub disabled: bool,
    /// Changes of its labels, by name.
    pub labels: BTreeMap<String, Change>,
}

/// A change of one label.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is left out.
    Removed,
    /// It is this text.
    Fixed(String),
    /// It is the value of the expression of this index.
    Made(usize),
}

impl Rules {
    /// Those of what comes in to a workload, or of all else.
    pub(super) fn of(&self, inbound: bool) -> &[Rule; names::ISTIO.len()] {
        self.inbound.as_deref().filter(|_| inbound).unwrap_or(&self.metrics)
    }

    fn each(&self) -> impl Iterator<Item = &Rule> {
        self.of(false).iter().chain(self.of(true))
    }

    /// Whether series are told with these labels as with the others'.
    pub(super) fn has_labels_of(&self, other: &Rules) -> bool {
        let labels = |rule: &Rule| rule.labels.clone();
        self.expressions == other.expressions && self.each().map(labels).eq(other.each().map(labels))
    }

    /// Whether several series may be told as one.
    pub(super) fn merge(&self) -> bool {
        self.each().any(|rule| !rule.labels.is_empty())
    }
}

impl Rule {
    /// The labels with which a series is told, as Prometheus reads them.
    pub(super) fn labels(&self, own: &Pairs<'_>, values: Option<&Values>) -> String {
        let mut text = String::with_capacity(own.len() * 40);
        if self.labels.is_empty() {
            own.iter().for_each(|(name, value)| write(&mut text, name, value));
            return text;
        }
        let changed = |change: &Change| match change {
            Change::Removed => None,
            Change::Fixed(text) => Some(text.clone()),
            Change::Made(index) => {
                let made = values.and_then(|values| values.texts.get(*index));
                Some(made.map_or(UNKNOWN, |text| text).to_owned())
            }
        };
        for (name, value) in own {
            match self.labels.get(*name).map(changed) {
                Some(None) => {}
                Some(Some(value)) => write(&mut text, name, &value),
                None => write(&mut text, name, value),
            }
        }
        // Istio's own labels are not put on metrics that do not have them (istio_stats.cc: `tag_overrides_`).
        let added = self.labels.iter().filter(|(name, _)| !names::HTTP_LABELS.contains(&name.as_str()));
        for (name, change) in added {
            if let Some(value) = changed(change) {
                write(&mut text, name, &value);
            }
        }
        text
    }
}

/// One label behind those that there are.
fn write(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    let escaped = match value.contains(['\\', '"', '\n']) {
        false => Cow::Borrowed(value),
        true => value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into(),
    };
    for part in [name, "=\"", &escaped, "\""] {
        text.push_str(part);
    }
}

/// The expressions of one configuration.
#[derive(Debug)]
pub struct Expressions {
    /// Tells configurations apart.
    pub(super) id: u64,
    pub(super) all: Vec<Condition>,
}

impl Expressions {
    /// What they make of a request or a connection.
    #[must_use]
    pub fn of(&self, entry: &Entry<'_>) -> Values {
        let texts = self.all.iter().map(|expression| {
            // Envoy: what cannot be evaluated is unknown.
            let mut text = expression.text(entry).unwrap_or_else(|| UNKNOWN.to_owned());
            if text.len() > LONGEST {
                let whole = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
                text.truncate(whole.unwrap_or_default());
            }
            text.into_boxed_str()
        });
        Values { id: self.id, texts: texts.collect() }
    }
}

/// What the expressions of one configuration made of a request or a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Values {
    pub(super) id: u64,
    pub(super) texts: Box<[Box<str>]>,
}

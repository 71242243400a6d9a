//! One span, as it goes to a collector of either kind.
//!
//! Invariant: made of a request that is over, and never changed after that; text from clients is bounded here.

use super::context::{SpanId, TraceId};
use std::{borrow::Cow, time::SystemTime};

/// Longest text in an attribute, in bytes, but for the path, which has a limit of its own.
const LONGEST: usize = 4096;

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Kind {
    /// The gateway was asked.
    Server,
    /// The gateway asked an upstream.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
}

/// A span that is over.
#[derive(Clone, Debug)]
pub(in crate::telemetry) struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    /// The parent is another process' span.
    pub(super) remote_parent: bool,
    /// W3C's state of other vendors, as it came.
    pub(super) state: String,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    pub(super) attributes: Attributes,
    /// Whether the call counts as failed.
    pub(super) failed: bool,
}

/// Attributes, each name once.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Attributes(Vec<(Cow<'static, str>, Value)>);

impl Attributes {
    /// None yet, and room for as many as a request mostly has.
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(32))
    }

    /// Adds a text; nothing where there is none.
    pub(super) fn text<'v>(&mut self, name: &'static str, value: impl Into<Cow<'v, str>>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.push((Cow::Borrowed(name), Value::Text(bounded(value))));
        }
    }

    /// Adds a text, `-` for none (Envoy: `valueOrDefault`).
    pub(super) fn text_or_dash(&mut self, name: &'static str, value: &str) {
        self.text(name, if value.is_empty() { "-" } else { value });
    }

    /// Adds a number.
    pub(super) fn number(&mut self, name: &'static str, value: impl TryInto<i64>) {
        self.0.push((Cow::Borrowed(name), Value::Number(value.try_into().unwrap_or(i64::MAX))));
    }

    /// Sets what the configuration names, which may be a name that is there.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        let value = Value::Text(bounded(value.into()));
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((Cow::Owned(name.to_owned()), value)),
        }
    }

    /// All of them, and what they are made of.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (Cow<'static, str>, Value)> {
        self.0.into_iter()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

/// A text of its own, of which too much is left out.
fn bounded(value: Cow<'_, str>) -> String {
    match value {
        Cow::Borrowed(value) => cut(value, LONGEST).to_owned(),
        Cow::Owned(mut value) => {
            value.truncate(cut(&value, LONGEST).len());
            value
        }
    }
}

/// The beginning of a text, at most so many bytes.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once_and_no_text_without_end() {
        let mut attributes = Attributes::default();
        attributes.text("a", "1");
        attributes.text("nothing", "");
        attributes.set("a", &"é".repeat(4000));
        attributes.set("b", "2");
        let all: Vec<_> = attributes.iter().collect();
        assert_eq!(all.len(), 2);
        assert!(matches!(all[0], ("a", Value::Text(text)) if text.len() == LONGEST));
        assert_eq!(cut("aé", 2), "a");
    }
}

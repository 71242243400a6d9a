//! What this version does with each field: honours it, has no effect on a gateway, not yet, or refuses it.
//!
//! Invariant: one row a field in [`table`]; the README's table, the warnings of `check` and the did-you-mean of the parser are
//! all made from it. A row covers everything below its field.

pub mod table;

use std::{
    collections::{BTreeMap, HashMap},
    sync::OnceLock,
};

use crate::{
    diagnostic::{Code, Diagnostic},
    mesh::ProxyHeaders,
    meta::Kind,
};

/// What is done with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Support {
    /// It does what Istio's gateway does.
    Honoured,
    /// Istio's gateway does nothing with it either; why.
    NoEffectOnGateway(&'static str),
    /// A sidecar does what Istio's does. A gateway does nothing with it, as Istio's; why.
    OfSidecars(&'static str),
    /// It has no effect here yet; what is missing.
    NotYet(&'static str),
    /// It will not be honoured; why.
    Refused(&'static str),
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The kind.
    pub kind: Kind,
    /// Path with `[]` for list members, e.g. `spec.http[].timeout`. `path=VALUE` is about one value of the field.
    pub path: &'static str,
    /// What is done with it.
    pub support: Support,
    /// Names of the fields directly below that share this row.
    pub below: &'static [&'static str],
}

/// All rows, in the order of the API.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    table::ROWS.iter().flat_map(|rows| rows.iter())
}

/// What is done with a field (pattern as in [`Row::path`]), by its own row or that of the nearest field above it.
pub fn of(kind: Kind, pattern: &str) -> Option<Support> {
    let mut pattern = pattern;
    loop {
        if let Some(row) = rows().find(|row| row.kind == kind && row.path == pattern) {
            return Some(row.support);
        }
        pattern = pattern.rsplit_once('.')?.0.trim_end_matches("[]");
    }
}

/// Whether a finding says of a field that a gateway does nothing with it, where a sidecar does.
pub fn is_of_sidecars(finding: &Diagnostic) -> bool {
    let Some(resource) = finding.resource.as_ref().filter(|_| finding.code == Code::NO_EFFECT) else {
        return false;
    };
    if let Some((_, field)) = finding.path.split_once("proxyHeaders.") {
        return ProxyHeaders::OF_SIDECARS.contains(&field);
    }
    let pattern = pattern_of(&finding.path);
    let of_value = |row: &Row| row.path.split_once('=').is_some_and(|(path, _)| path == pattern);
    let mut of_values = rows().filter(|row| row.kind == resource.kind && of_value(row));
    matches!(of(resource.kind, &pattern), Some(Support::OfSidecars(_)))
        || of_values.any(|row| {
            // The message names the value.
            let value = row.path.rsplit('=').next().unwrap_or_default();
            matches!(row.support, Support::OfSidecars(_)) && finding.message.contains(value)
        })
}

/// The table for the README, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| Kind | Field | Status |\n|---|---|---|\n");
    for row in rows() {
        let status = match row.support {
            Support::Honoured => "honoured".to_owned(),
            Support::NoEffectOnGateway(why) => format!("no effect on a gateway: {why}"),
            Support::OfSidecars(why) => format!("honoured by a sidecar; no effect on a gateway: {why}"),
            Support::NotYet(what) => format!("not yet: {what}"),
            Support::Refused(why) => format!("refused: {why}"),
        };
        let path = row.path.strip_prefix("spec.").unwrap_or(row.path);
        text.push_str(&format!("| {} | `{path}` | {status} |\n", row.kind));
    }
    text
}

/// A path with its list indexes taken out: `spec.http[3].match` → `spec.http[].match`.
pub fn pattern_of(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    let mut skipping = false;
    for c in path.chars() {
        match c {
            '[' => {
                skipping = true;
                pattern.push('[');
            }
            ']' => {
                skipping = false;
                pattern.push(']');
            }
            _ if skipping && c.is_ascii_digit() => {}
            _ => pattern.push(c),
        }
    }
    pattern
}

/// The names of the fields directly below a path pattern.
pub fn fields_below(kind: Kind, parent: &str) -> impl Iterator<Item = &'static str> {
    let mut node = Some(tree(kind));
    for step in parent.split('.') {
        let step = step.strip_suffix("[]").unwrap_or(step);
        node = node.and_then(|node| node.below.get(step));
    }
    node.into_iter().flat_map(|node| node.below.keys().copied())
}

/// A field as the parser walks over it: says what to report, and whether to look below.
pub(crate) struct Node {
    support: Option<Support>,
    values: Vec<(&'static str, Support)>,
    below: BTreeMap<&'static str, Node>,
}

impl Node {
    fn new() -> Node {
        Node { support: None, values: Vec::new(), below: BTreeMap::new() }
    }

    /// The field of that name below this one.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        self.below.get(name)
    }

    /// Whether use of this field (with a value, when it is a text) gives no finding.
    pub(crate) fn is_silent(&self, value: Option<&str>) -> bool {
        self.said(value).is_none_or(|(support, _)| support == Support::Honoured)
    }

    /// What is done with this field, and the value that this is about.
    fn said(&self, value: Option<&str>) -> Option<(Support, Option<&'static str>)> {
        let of_value =
            value.and_then(|value| self.values.iter().find(|(known, _)| known.eq_ignore_ascii_case(value)));
        match of_value {
            Some((value, support)) => Some((*support, Some(value))),
            None => Some((self.support?, None)),
        }
    }

    /// The finding that use of this field gives (with a value, when it is a text), or `None`.
    pub(crate) fn finding(&self, name: &str, value: Option<&str>) -> Option<Diagnostic> {
        let (support, value) = self.said(value)?;
        let what = value.map_or_else(|| name.to_owned(), |value| format!("{name}: {value}"));
        match support {
            Support::Honoured => None,
            Support::NoEffectOnGateway(why) | Support::OfSidecars(why) => {
                Some(Diagnostic::new(Code::NO_EFFECT, format!("{what} has no effect on a gateway: {why}")))
            }
            Support::NotYet(what_not) => Some(Diagnostic::new(
                Code::NOT_YET_HONOURED,
                format!("{what} is not yet honoured: {what_not}"),
            )),
            Support::Refused(why) => {
                Some(Diagnostic::new(Code::REFUSED, format!("{what} is refused: {why}")).rejected())
            }
        }
    }
}

/// The rows of a kind as a tree, built once.
pub(crate) fn tree(kind: Kind) -> &'static Node {
    static TREES: OnceLock<HashMap<Kind, Node>> = OnceLock::new();
    static EMPTY: OnceLock<Node> = OnceLock::new();
    let trees = TREES.get_or_init(|| {
        let mut trees: HashMap<Kind, Node> = HashMap::new();
        for row in rows() {
            let (path, value) = match row.path.split_once('=') {
                Some((path, value)) => (path, Some(value)),
                None => (row.path, None),
            };
            let mut node = trees.entry(row.kind).or_insert_with(Node::new);
            for step in path.split('.') {
                node = node.below.entry(step.strip_suffix("[]").unwrap_or(step)).or_insert_with(Node::new);
            }
            match value {
                Some(value) => node.values.push((value, row.support)),
                None => node.support = Some(row.support),
            }
            for name in row.below {
                node.below.entry(name).or_insert_with(Node::new);
            }
        }
        trees
    });
    trees.get(&kind).unwrap_or_else(|| EMPTY.get_or_init(Node::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_found_from_below() {
        let mut seen = std::collections::BTreeSet::new();
        for row in rows() {
            assert!(seen.insert((row.kind, row.path)), "{} {}", row.kind, row.path);
        }
        assert_eq!(of(Kind::VirtualService, "spec.http[].match[].uri"), Some(Support::Honoured));
        assert_eq!(
            of(Kind::VirtualService, "spec.http[].redirect.uri"),
            of(Kind::VirtualService, "spec.http[].redirect")
        );
        assert_eq!(of(Kind::VirtualService, "nothing"), None);
    }

    #[test]
    fn patterns_and_names_below() {
        assert_eq!(pattern_of("spec.http[12].match[0].uri"), "spec.http[].match[].uri");
        let names: Vec<_> = fields_below(Kind::VirtualService, "spec.http[].match[]").collect();
        assert!(names.contains(&"ignoreUriCase") && !names.contains(&"route"), "{names:?}");
        assert!(markdown().contains("| VirtualService | `http[].match[].uri` | honoured |"));
    }
}

//! Finds the line and column of a field, when a finding needs it.
//!
//! Invariant: loading pays nothing for positions. A document is scanned again only for the findings about it, once for all
//! of them. What cannot be found keeps the position of its nearest parent that can.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Span};

use crate::{
    diagnostic::Diagnostics,
    meta::{Origin, Source},
};

/// Moves every finding that names a field from the start of its document to that field.
pub fn place(diagnostics: &mut Diagnostics) {
    // Findings about one document stand together, so one index at a time is kept.
    let mut current: Option<((usize, usize, usize), Index)> = None;
    for diagnostic in diagnostics.iter_mut() {
        if diagnostic.path.is_empty() {
            continue;
        }
        let Some(origin) = &diagnostic.origin else { continue };
        let Some(source) = origin.source() else { continue };
        let identity = (source.text.as_ptr().addr(), source.range.start, source.range.end);
        if current.as_ref().is_none_or(|(of, _)| *of != identity) {
            current = Some((identity, Index::new(source.document())));
        }
        let Some((_, index)) = &current else { continue };
        if let Some(position) = position(index, source, &diagnostic.path) {
            diagnostic.origin = Some(origin.at(position.0, position.1));
        }
    }
}

/// Line and column (from 1) of the field `path` in the document that `origin` points into, or of its nearest parent.
pub fn locate(origin: &Origin, path: &str) -> Option<(u32, u32)> {
    let source = origin.source()?;
    position(&Index::new(source.document()), source, path)
}

fn position(index: &Index, source: &Source, path: &str) -> Option<(u32, u32)> {
    let full = match &*source.prefix {
        "" => path.to_owned(),
        prefix => format!("{prefix}.{path}"),
    };
    let (line, column) = index.find(&full)?;
    // saphyr counts lines from 1 and columns from 0.
    let line = u32::try_from(line).ok()?.checked_add(source.first_line)?.checked_sub(1)?;
    Some((line, u32::try_from(column).ok()?.checked_add(1)?))
}

/// The nodes of one document with their positions, in one list so that no depth can overflow the stack.
struct Index {
    nodes: Vec<Node>,
}

struct Node {
    line: usize,
    column: usize,
    kind: NodeKind,
}

enum NodeKind {
    Scalar,
    Alias(usize),
    Sequence(Vec<usize>),
    Mapping(Vec<Entry>),
}

struct Entry {
    key: String,
    /// Line and column of the key.
    at: (usize, usize),
    value: usize,
}

/// A collection that is being read.
struct Open {
    node: usize,
    /// Key that waits for its value, in a mapping.
    key: Option<(String, (usize, usize))>,
}

impl Index {
    /// Reads as far as the text can be read.
    fn new(text: &str) -> Index {
        let mut nodes: Vec<Node> = Vec::new();
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        let mut open: Vec<Open> = Vec::new();
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            let (kind, anchor, text) = match event {
                Event::Scalar(value, _, anchor, _) => (NodeKind::Scalar, anchor, Some(value)),
                Event::Alias(anchor) => {
                    (NodeKind::Alias(anchors.get(&anchor).copied().unwrap_or(usize::MAX)), 0, None)
                }
                Event::SequenceStart(anchor, _) => (NodeKind::Sequence(Vec::new()), anchor, None),
                Event::MappingStart(anchor, _) => (NodeKind::Mapping(Vec::new()), anchor, None),
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    continue;
                }
                _ => continue,
            };
            let id = nodes.len();
            let collection = matches!(kind, NodeKind::Sequence(_) | NodeKind::Mapping(_));
            let position = start(&span);
            nodes.push(Node { line: position.0, column: position.1, kind });
            if anchor != 0 {
                anchors.insert(anchor, id);
            }
            if let Some(parent) = open.last_mut() {
                attach(&mut nodes, parent, id, text.as_deref(), position);
            }
            if collection {
                open.push(Open { node: id, key: None });
            }
        }
        Index { nodes }
    }

    /// The position of the deepest part of `path` that exists.
    fn find(&self, path: &str) -> Option<(usize, usize)> {
        let mut node = self.nodes.first()?;
        let mut found = (node.line, node.column);
        let mut rest = path;
        while !rest.is_empty() {
            if let NodeKind::Alias(target) = node.kind {
                let Some(target) = self.nodes.get(target) else { break };
                node = target;
            }
            let step = match &node.kind {
                NodeKind::Mapping(entries) => {
                    member(entries, rest).map(|(entry, after)| (Some(entry.at), entry.value, after))
                }
                NodeKind::Sequence(items) => item(items, rest).map(|(id, after)| (None, id, after)),
                NodeKind::Scalar | NodeKind::Alias(_) => None,
            };
            let Some((key_position, id, after)) = step else { break };
            let Some(child) = self.nodes.get(id) else { break };
            node = child;
            found = key_position.unwrap_or((child.line, child.column));
            rest = after;
        }
        Some(found)
    }
}

fn start(span: &Span) -> (usize, usize) {
    (span.start.line(), span.start.col())
}

fn attach(nodes: &mut [Node], parent: &mut Open, id: usize, text: Option<&str>, position: (usize, usize)) {
    match (nodes.get_mut(parent.node).map(|node| &mut node.kind), parent.key.take()) {
        (Some(NodeKind::Sequence(items)), _) => items.push(id),
        (Some(NodeKind::Mapping(entries)), Some((key, at))) => entries.push(Entry { key, at, value: id }),
        (Some(NodeKind::Mapping(_)), None) => {
            parent.key = Some((text.unwrap_or_default().to_owned(), position))
        }
        _ => {}
    }
}

/// The entry whose key begins `rest` and is followed by a separator, and what follows it. Keys may contain dots themselves
/// (labels), so the longest wins.
fn member<'e, 'p>(entries: &'e [Entry], rest: &'p str) -> Option<(&'e Entry, &'p str)> {
    let matching = entries.iter().filter_map(|entry| {
        let after = rest.strip_prefix(entry.key.as_str())?;
        match after.strip_prefix('.') {
            Some(after) => Some((entry, after)),
            None if after.is_empty() || after.starts_with('[') => Some((entry, after)),
            None => None,
        }
    });
    matching.max_by_key(|(entry, _)| entry.key.len())
}

/// The member that `[3]` names.
fn item<'a>(items: &[usize], rest: &'a str) -> Option<(usize, &'a str)> {
    let (number, after) = rest.strip_prefix('[')?.split_once(']')?;
    let id = items.get(number.parse::<usize>().ok()?)?;
    Some((*id, after.strip_prefix('.').unwrap_or(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let index = Index::new("a:\n  b:\n  - c: 1\n    d.e/f: &x {g: [1, 2]}\n  - *x\n");
        assert_eq!(index.find("a.b[0].c"), Some((3, 4)));
        assert_eq!(index.find("a.b[0].d.e/f.g[1]"), Some((4, 22)));
        assert_eq!(index.find("a.b[1].g"), Some((4, 15)));
        // A missing field is reported at its parent.
        assert_eq!(index.find("a.b[0].missing"), Some((3, 4)));
        assert_eq!(index.find("a.b[7]"), Some((2, 2)));
    }
}

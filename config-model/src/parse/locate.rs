//! Finds the line and column of a field, when a finding needs it.
//!
//! Invariant: loading pays nothing for positions. A document is scanned again only for the findings about it, once for all
//! of them. What cannot be found keeps the position of its nearest parent that can.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use saphyr_parser::{Event, Marker, Parser};

use crate::{
    diagnostic::{Diagnostic, Diagnostics},
    meta::{Origin, Source},
};

/// Moves every finding that names a field from the start of its document to that field. A finding that has been moved stays.
pub fn place(diagnostics: &mut Diagnostics) {
    let mut by_document: BTreeMap<usize, Vec<&mut Arc<Diagnostic>>> = BTreeMap::new();
    for diagnostic in diagnostics.shared_mut() {
        let Some(origin) = &diagnostic.origin else { continue };
        let Some(source) = origin.source() else { continue };
        // A document as a whole is where it begins; a member of a `List` is looked for.
        if diagnostic.path.is_empty() && source.prefix.is_empty() || origin.end().is_some() {
            continue;
        }
        by_document.entry(source.text.as_ptr().addr()).or_default().push(diagnostic);
    }
    for of_one in by_document.into_values() {
        let first = of_one.first().and_then(|diagnostic| diagnostic.origin.as_ref()?.source().cloned());
        let Some(text) = first else { continue };
        let index = Index::new(text.document());
        for diagnostic in of_one {
            let Some(origin) = &diagnostic.origin else { continue };
            let found = origin.source().and_then(|source| position(&index, source, &diagnostic.path));
            if let Some(found) = found {
                let placed = origin.at_field(found.start, found.end);
                Arc::make_mut(diagnostic).origin = Some(placed);
            }
        }
    }
}

/// Line and column (from 1) of the field `path` in the document that `origin` points into, or of its nearest parent.
pub fn locate(origin: &Origin, path: &str) -> Option<(u32, u32)> {
    let source = origin.source()?;
    position(&Index::new(source.document()), source, path).map(|found| found.start)
}

/// A field in the file: lines and columns from 1, the end just behind it.
struct Found {
    start: (u32, u32),
    end: (u32, u32),
}

fn position(index: &Index<'_>, source: &Source, path: &str) -> Option<Found> {
    let full = match (&*source.prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, path) => format!("{prefix}.{path}"),
    };
    let (start, end) = index.find(&full)?;
    let in_file = |place: Place| {
        let line = place.line.checked_add(source.first_line)?.checked_sub(1)?;
        Some((line, place.column.checked_add(1)?))
    };
    Some(Found { start: in_file(start)?, end: in_file(end)? })
}

/// A place in a document, as saphyr counts: lines from 1, columns from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    line: u32,
    column: u32,
}

impl Place {
    fn of(marker: &Marker) -> Place {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Place { line: number(marker.line()), column: number(marker.col()) }
    }

    fn next(self) -> Place {
        Place { column: self.column.saturating_add(1), ..self }
    }
}

/// The nodes of one document with their positions, in one list so that no depth can overflow the stack.
struct Index<'t> {
    nodes: Vec<Node>,
    lines: Vec<&'t str>,
}

struct Node {
    start: Place,
    end: Place,
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
    start: Place,
    end: Place,
    value: usize,
}

/// A collection that is being read.
struct Open {
    node: usize,
    /// Key that waits for its value, in a mapping.
    key: Option<Key>,
}

struct Key {
    text: String,
    start: Place,
    end: Place,
}

impl<'t> Index<'t> {
    /// Reads as far as the text can be read.
    fn new(document: &'t str) -> Index<'t> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        let mut open: Vec<Open> = Vec::new();
        for event in Parser::new_from_str(document) {
            let Ok((event, span)) = event else { break };
            let (start, end) = (Place::of(&span.start), Place::of(&span.end));
            let (kind, anchor, text) = match event {
                Event::Scalar(value, _, anchor, _) => (NodeKind::Scalar, anchor, Some(value)),
                Event::Alias(anchor) => {
                    (NodeKind::Alias(anchors.get(&anchor).copied().unwrap_or(usize::MAX)), 0, None)
                }
                Event::SequenceStart(anchor, _) => (NodeKind::Sequence(Vec::new()), anchor, None),
                Event::MappingStart(anchor, _) => (NodeKind::Mapping(Vec::new()), anchor, None),
                Event::SequenceEnd | Event::MappingEnd => {
                    let closed = open.pop().and_then(|open| nodes.get_mut(open.node));
                    if let Some(node) = closed {
                        node.end = end;
                    }
                    continue;
                }
                _ => continue,
            };
            let id = nodes.len();
            let collection = matches!(kind, NodeKind::Sequence(_) | NodeKind::Mapping(_));
            nodes.push(Node { start, end, kind });
            if anchor != 0 {
                anchors.insert(anchor, id);
            }
            if let Some(parent) = open.last_mut() {
                let key = Key { text: text.map(Into::into).unwrap_or_default(), start, end };
                attach(&mut nodes, parent, id, key);
            }
            if collection {
                open.push(Open { node: id, key: None });
            }
        }
        Index { nodes, lines: document.split('\n').collect() }
    }

    /// Begin and end of the deepest part of `path` that exists: a member of a mapping from its key to its value, as far as that is one line.
    fn find(&self, path: &str) -> Option<(Place, Place)> {
        let mut node = self.nodes.first()?;
        let mut found = (node.start, node.start.next());
        let mut rest = path;
        while !rest.is_empty() {
            node = self.behind(node);
            let step = match &node.kind {
                NodeKind::Mapping(entries) => self
                    .member(entries, rest, 0)
                    .map(|(entry, after)| (Some((entry.start, entry.end)), entry.value, after)),
                NodeKind::Sequence(items) => item(items, rest).map(|(id, after)| (None, id, after)),
                NodeKind::Scalar | NodeKind::Alias(_) => None,
            };
            let Some((key, id, after)) = step else { break };
            let Some(child) = self.nodes.get(id) else { break };
            node = child;
            rest = after;
            let (start, least) = key.unwrap_or((child.start, child.start.next()));
            let whole = rest.is_empty() && child.end.line == start.line && child.end > least;
            found = (start, if whole { child.end } else { least });
        }
        let (start, end) = found;
        Some((start, self.without_blanks(end).max(start.next())))
    }

    /// A quoted text ends, for the scanner, where the next token begins.
    fn without_blanks(&self, end: Place) -> Place {
        let line = end.line.checked_sub(1).and_then(|index| self.lines.get(usize::try_from(index).ok()?));
        // Characters are counted from the left: not worth it, for each of many findings, in a file that is one line.
        let line = line.filter(|line| line.len() <= MAX_LINE);
        let before = line.map(|line| line.chars().take(usize::try_from(end.column).unwrap_or(usize::MAX)));
        let written = before.map(|before| before.collect::<String>().trim_end().chars().count());
        let column = written.and_then(|count| u32::try_from(count).ok()).unwrap_or(end.column);
        Place { column: column.min(end.column), ..end }
    }

    /// The node that an alias stands for, or the node itself.
    fn behind<'i>(&'i self, node: &'i Node) -> &'i Node {
        match node.kind {
            NodeKind::Alias(target) => self.nodes.get(target).unwrap_or(node),
            _ => node,
        }
    }

    /// The entry whose key begins `rest` and is followed by a separator, and what follows it. Keys may contain dots themselves
    /// (labels), so the longest wins. What a mapping has not may come from one that is merged into it (`<<`).
    fn member<'i, 'p>(
        &'i self,
        entries: &'i [Entry],
        rest: &'p str,
        depth: usize,
    ) -> Option<(&'i Entry, &'p str)> {
        let matching = entries.iter().filter_map(|entry| {
            // A key is written as it is, or as `["key"]`.
            let quoted = || rest.strip_prefix("[\"")?.strip_prefix(entry.key.as_str())?.strip_prefix("\"]");
            let after = quoted().or_else(|| rest.strip_prefix(entry.key.as_str()))?;
            match after.strip_prefix('.') {
                Some(after) => Some((entry, after)),
                None if after.is_empty() || after.starts_with('[') => Some((entry, after)),
                None => None,
            }
        });
        let own = matching.max_by_key(|(entry, _)| entry.key.len());
        if own.is_some() || depth > MERGES {
            return own;
        }
        let merged = |id: usize| match &self.behind(self.nodes.get(id)?).kind {
            NodeKind::Mapping(entries) => self.member(entries, rest, depth + 1),
            _ => None,
        };
        entries.iter().filter(|entry| entry.key == "<<").find_map(|entry| {
            match &self.behind(self.nodes.get(entry.value)?).kind {
                NodeKind::Sequence(items) => items.iter().find_map(|id| merged(*id)),
                _ => merged(entry.value),
            }
        })
    }
}

/// Bytes of a line up to which the end of a field is made exact.
const MAX_LINE: usize = 4096;

/// Mappings merged into mappings are followed this deep; aliases cannot form a circle, but a long way is not worth walking.
const MERGES: usize = 8;

fn attach(nodes: &mut [Node], parent: &mut Open, id: usize, written: Key) {
    match (nodes.get_mut(parent.node).map(|node| &mut node.kind), parent.key.take()) {
        (Some(NodeKind::Sequence(items)), _) => items.push(id),
        (Some(NodeKind::Mapping(entries)), Some(Key { text, start, end })) => {
            entries.push(Entry { key: text, start, end, value: id });
        }
        (Some(NodeKind::Mapping(_)), None) => parent.key = Some(written),
        _ => {}
    }
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

    /// `line:column-line:column`, lines and columns from 1.
    fn found(text: &str, path: &str) -> String {
        let (start, end) = Index::new(text).find(path).unwrap();
        format!("{}:{}-{}:{}", start.line, start.column + 1, end.line, end.column + 1)
    }

    #[test]
    fn fields_are_found() {
        let text = "a:\n  b:\n  - c: 1\n    d.e/f: &x {g: [1, 2]}\n  - *x\n";
        assert_eq!(found(text, "a.b[0].c"), "3:5-3:9");
        assert_eq!(found(text, "a.b[0].d.e/f.g[1]"), "4:23-4:24");
        assert_eq!(found(text, "a.b[0].d.e/f.g"), "4:16-4:25");
        assert_eq!(found(text, "a.b[0][\"d.e/f\"].g"), "4:16-4:25");
        assert_eq!(found(text, "a.b[1].g"), "4:16-4:25");
        // A collection over several lines is pointed at by its key, or by its first character.
        assert_eq!(found(text, "a.b"), "2:3-2:4");
        assert_eq!(found(text, "a.b[0]"), "3:5-3:6");
        // A missing field is reported at its parent.
        assert_eq!(found(text, "a.b[0].missing"), "3:5-3:6");
        assert_eq!(found(text, "a.b[7]"), "2:3-2:4");
        assert_eq!(found(text, "z"), "1:1-1:2");
    }

    #[test]
    fn columns_count_characters_and_quotes_belong_to_the_field() {
        assert_eq!(found("ä: {ö: 'ü', \"k\": \"v\" } # c", "ä.ö"), "1:5-1:11");
        assert_eq!(found("ä: {ö: 'ü', \"k\": \"v\" } # c", "ä.k"), "1:13-1:21");
        assert_eq!(found("{\n  \"a\": {\n    \"b\": [\n      {\"c\": null}\n]}}", "a.b[0].c"), "4:8-4:17");
        assert_eq!(found("a: some text   # note\nb: 1\r\nc: 2", "a"), "1:1-1:13");
        assert_eq!(found("a: some text   # note\nb: 1\r\nc: 2", "c"), "3:1-3:5");
        assert_eq!(found("a:\nb: |\n  x\nc: 1", "a"), "1:1-1:2");
        assert_eq!(found("a:\nb: |\n  x\nc: 1", "b"), "2:1-2:2");
    }

    #[test]
    fn merged_fields_are_found_where_they_are_written() {
        let text = "base: &b {host: x}\nmore: &m {port: 1}\na: {<<: [*m, *b], name: n}\nc: {<<: *b}\n";
        assert_eq!(found(text, "a.host"), "1:11-1:18");
        assert_eq!(found(text, "a.port"), "2:11-2:18");
        assert_eq!(found(text, "c.host"), "1:11-1:18");
        assert_eq!(found(text, "c.missing"), "4:1-4:2");
    }
}

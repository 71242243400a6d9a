//! Splits a stream at its document markers, by lines alone.
//!
//! Invariant: ranges are in order and do not overlap. A line that begins with `---` or `...` ends every YAML construct (YAML 1.2
//! §9.1.2), so splitting there keeps one broken document from hiding the others. This module must not interpret anything else.

use std::ops::Range;

/// One document of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    /// Line of its first line, from 1.
    pub(super) first_line: u32,
}

/// The documents that hold more than comments and directives.
pub(super) fn documents(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut start_line = 1_u32;
    let mut has_content = false;
    let mut offset = 0;
    let mut line_number = 0_u32;
    for line in text.split_inclusive('\n') {
        line_number = line_number.saturating_add(1);
        let begin = offset;
        offset += line.len();
        match marker(line) {
            Some(Marker::Start { content }) => {
                if has_content {
                    pieces.push(Piece { range: start..begin, first_line: start_line });
                }
                (start, start_line, has_content) = (begin, line_number, content);
            }
            Some(Marker::End) => {
                if has_content {
                    pieces.push(Piece { range: start..begin, first_line: start_line });
                }
                (start, start_line, has_content) = (offset, line_number.saturating_add(1), false);
            }
            None => has_content = has_content || is_content(line),
        }
    }
    if has_content {
        pieces.push(Piece { range: start..text.len(), first_line: start_line });
    }
    pieces
}

enum Marker {
    /// `---`, with or without content after it.
    Start { content: bool },
    /// `...`.
    End,
}

fn marker(line: &str) -> Option<Marker> {
    let (rest, start) = match (line.strip_prefix("---"), line.strip_prefix("...")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return None,
    };
    if !rest.is_empty() && !rest.starts_with([' ', '\t', '\r', '\n']) {
        return None;
    }
    Some(if start { Marker::Start { content: is_content(rest) } } else { Marker::End })
}

fn is_content(line: &str) -> bool {
    let trimmed = line.trim();
    !trimmed.is_empty() && !trimmed.starts_with('#') && !line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(&str, u32)> {
        documents(text).into_iter().map(|piece| (&text[piece.range], piece.first_line)).collect()
    }

    #[test]
    fn markers_split_and_lines_stay_true() {
        assert_eq!(
            split("a: 1\n---\nb: 2\n--- # note\nc: 3"),
            [("a: 1\n", 1), ("---\nb: 2\n", 2), ("--- # note\nc: 3", 4)]
        );
        assert_eq!(split("a: 1\n...\n# c\n---\nb: 2\n"), [("a: 1\n", 1), ("---\nb: 2\n", 4)]);
        assert_eq!(split("%YAML 1.2\n---\na: 1\r\n---\r\nb: 2"), [("---\na: 1\r\n", 2), ("---\r\nb: 2", 4)]);
    }

    #[test]
    fn nothing_but_comments_is_no_document() {
        assert_eq!(split("---\n# a\n---\n\n---"), []);
        assert_eq!(split("a: |\n  ---\n  x\n----\n"), [("a: |\n  ---\n  x\n----\n", 1)]);
    }
}

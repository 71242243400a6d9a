//! Bounds on a document before anything is built from it: nesting, and what aliases expand to.
//!
//! Invariant: what passes here costs time and memory in proportion to its size. It may refuse a document that is merely
//! absurd (hundreds of unclosed brackets in a text), never accept one that blows up.

use saphyr_parser::{Event, Parser};

/// Deepest nesting that is read; serde_yaml itself stops at 128, but only after a scan that is quadratic in the depth.
const MAX_DEPTH: usize = 256;
/// Most nodes (plus text in units of 64 bytes) that the aliases of one document may stand for.
const MAX_EXPANSION: usize = 200_000;

/// Why a document is refused, or `None`.
pub(super) fn refusal(text: &str) -> Option<String> {
    if text.contains('\0') {
        return Some("the document holds a NUL byte".to_owned());
    }
    if !is_surely_flat(text) && depth_bound(text) > MAX_DEPTH {
        return Some(format!("the document is nested deeper than {MAX_DEPTH} levels"));
    }
    if has_anchor_and_alias(text) { expansion_refusal(text) } else { None }
}

/// Whether there are too few brackets, and too few indicators in any line, for more depth than is read: so it is with nearly every document, and
/// counting bytes is cheap.
fn is_surely_flat(text: &str) -> bool {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    // An indicator is two bytes.
    brackets <= MAX_DEPTH && text.split('\n').all(|line| line.len() <= 2 * MAX_DEPTH)
}

/// An upper estimate of the nesting that scanners see: brackets that stay open, and block indicators in one line. Brackets in
/// texts count too, since telling them apart would take a scanner.
fn depth_bound(text: &str) -> usize {
    let mut open = 0_usize;
    let mut deepest = 0_usize;
    for line in text.lines() {
        let mut compact = 0_usize;
        let mut rest = line.trim_start();
        while let Some(after) =
            ["- ", "? ", ": ", "-\t", "?\t"].iter().find_map(|indicator| rest.strip_prefix(indicator))
        {
            compact += 1;
            rest = after.trim_start();
        }
        deepest = deepest.max(compact);
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => continue,
            }
            deepest = deepest.max(open);
        }
    }
    deepest
}

/// Whether an `&name` and a `*name` stand where YAML could read them as anchor and alias.
fn has_anchor_and_alias(text: &str) -> bool {
    let at_token_start = |sign: u8| {
        let mut before = b'\n';
        let mut bytes = text.bytes().peekable();
        while let Some(byte) = bytes.next() {
            let opens =
                before.is_ascii_whitespace() || matches!(before, b'[' | b'{' | b',' | b':' | b'-' | b'?');
            let named = bytes
                .peek()
                .is_some_and(|next| !next.is_ascii_whitespace() && !matches!(next, b'"' | b'\'' | b'.'));
            if byte == sign && opens && named {
                return true;
            }
            before = byte;
        }
        false
    };
    text.contains('&') && text.contains('*') && at_token_start(b'&') && at_token_start(b'*')
}

/// Adds up what every alias stands for, without building it.
fn expansion_refusal(text: &str) -> Option<String> {
    // Size of each finished anchor; anchors that are still open, with the size counted when they began.
    let mut sizes: Vec<Option<usize>> = Vec::new();
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut total = 0_usize;
    let mut expanded = 0_usize;
    for event in Parser::new_from_str(text) {
        // What saphyr cannot read, serde_yaml will report; aliases before the error are counted.
        let Ok((event, _)) = event else { break };
        match event {
            Event::Scalar(value, _, anchor, _) => {
                let size = 1 + value.len() / 64;
                total = total.saturating_add(size);
                finish(&mut sizes, anchor, size);
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, total));
                total = total.saturating_add(1);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, before)) = open.pop() {
                    finish(&mut sizes, anchor, total.saturating_sub(before));
                }
            }
            Event::Alias(anchor) => {
                let Some(size) = sizes.get(anchor).copied().flatten() else {
                    return Some("an alias refers to a node that contains it".to_owned());
                };
                total = total.saturating_add(size);
                expanded = expanded.saturating_add(size);
                if expanded > MAX_EXPANSION {
                    return Some("the aliases of the document expand to more than it may hold".to_owned());
                }
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }
    None
}

fn finish(sizes: &mut Vec<Option<usize>>, anchor: usize, size: usize) {
    // Anchor numbers count up from 1, so the table is no longer than the document has anchors.
    if anchor == 0 {
        return;
    }
    if sizes.len() <= anchor {
        sizes.resize(anchor + 1, None);
    }
    if let Some(slot) = sizes.get_mut(anchor) {
        *slot = Some(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_documents_pass() {
        assert_eq!(refusal("hosts: [\"*\"]\nurl: /a?b=1&c=2\n"), None);
        assert_eq!(refusal("a: &x {b: 1}\nc: *x\nd: *x\n"), None);
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let before = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 9].join(", ")));
        }
        assert!(refusal(&bomb).unwrap().contains("expand"));
        assert!(refusal("a: &a [*a]").unwrap().contains("contains it"));
        assert!(refusal(&"[".repeat(1000)).unwrap().contains("nested"));
        assert!(refusal(&"- ".repeat(1000)).unwrap().contains("nested"));
        assert!(refusal("a: \0").unwrap().contains("NUL"));
        let deepest = |open: &str| (1..1000).find(|depth| refusal(&open.repeat(*depth)).is_some());
        assert_eq!(["[", "{", "[\n", "- ", "? "].map(deepest), [Some(MAX_DEPTH + 1); 5]);
    }
}

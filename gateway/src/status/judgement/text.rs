//! Findings in words, for conditions and Events.
//!
//! Invariant: a text is cut between characters, and says how much it leaves out.

use std::fmt::Write as _;

use config_model::diagnostic::Diagnostic;

/// Longest text of a condition, in bytes; what is longer ends with how many findings are left out.
const LONGEST: usize = 1024;

/// A finding without its resource, which is known where this is read.
pub(super) fn sentence(finding: &Diagnostic) -> String {
    let mut text = format!("[{}] {}", finding.code, finding.message);
    if !finding.path.is_empty() {
        // Writing to a string cannot fail.
        let _written = write!(text, " ({})", finding.path);
    }
    text
}

/// Findings as the text of a condition.
pub(super) fn text<'a>(findings: impl Iterator<Item = &'a Diagnostic>) -> String {
    let (mut text, mut left_out) = (String::new(), 0_usize);
    for sentence in findings.map(sentence) {
        if text.len() + sentence.len() > LONGEST && !text.is_empty() {
            left_out += 1;
            continue;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(shortened(&sentence, LONGEST));
    }
    if left_out > 0 {
        let _written = write!(text, "; and {left_out} more");
    }
    text
}

/// At most this many bytes of a text, cut between characters.
pub(in crate::status) fn shortened(text: &str, bytes: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= bytes).last();
    text.get(..end.unwrap_or(0)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use config_model::diagnostic::Code;

    use super::*;

    #[test]
    fn a_long_text_ends_with_how_much_is_left_out() {
        let finding = |n| Diagnostic::new(Code::SCHEMA, format!("{n}: {}", "ü".repeat(200)));
        let findings: Vec<Diagnostic> = (0..9).map(finding).collect();
        let text = text(findings.iter());
        assert!(text.len() < LONGEST + 20 && text.ends_with("; and 7 more"), "{text}");
        assert_eq!(shortened("aü", 2), "a");
    }
}

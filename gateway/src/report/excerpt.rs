//! The written line that a finding is about, with a caret below the field.
//!
//! Invariant: for people at a terminal only; no control character of the file reaches it, and a long line is cut around the field.

use config_model::meta::Origin;

use super::findings::Paint;

/// Most characters of a line that are shown.
const WIDTH: usize = 100;

/// Two lines, or nothing when the text of the file is not known.
#[must_use]
pub(super) fn excerpt(origin: &Origin, sgr: &str, paint: Paint) -> String {
    let Some(text) = origin.line_text() else { return String::new() };
    let line: Vec<char> =
        text.trim_end().chars().map(|c| if c.is_control() || is_direction(c) { ' ' } else { c }).collect();
    let index = |column: u32| usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX).min(line.len());
    let start = index(origin.column);
    let end = match origin.end() {
        Some((line, column)) if line == origin.line => index(column),
        _ => start,
    };
    // A third of the width stays before the field, for its surroundings.
    let from = if line.len() <= WIDTH { 0 } else { start.saturating_sub(WIDTH / 3) };
    let to = line.len().min(from + WIDTH);
    let shown: String = line.get(from..to).unwrap_or_default().iter().collect();
    let (left, right) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
    let number = origin.line.to_string();
    let blank = " ".repeat(number.len());
    let before = " ".repeat(start - from + left.chars().count());
    let carets = "^".repeat(end.min(to).saturating_sub(start).max(1));
    let bar = paint.paint("34", "|");
    format!(
        "  {} {bar} {left}{shown}{right}\n  {blank} {bar} {before}{}\n",
        paint.paint("34", &number),
        paint.paint(sgr, &carets)
    )
}

/// Marks that turn the direction of writing: a terminal would show another order than what is read.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use config_model::parse::parse;

    use super::*;

    /// The excerpt of the first finding about a file.
    fn shown(text: &str) -> String {
        let parsed = parse("a.yaml", text);
        let finding = parsed.diagnostics.iter().next().unwrap();
        excerpt(finding.origin.as_ref().unwrap(), "31", Paint::Plain)
    }

    const HEAD: &str =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n";

    #[test]
    fn the_field_is_underlined() {
        assert_eq!(
            shown(&format!("{HEAD}  hosts: [a.example]\n  htp: here\n")),
            "  6 |   htp: here\n    |   ^^^^^^^^^\n"
        );
        assert_eq!(shown(&format!("{HEAD}  htp:\n  - x\n")), "  5 |   htp:\n    |   ^^^\n");
    }

    #[test]
    fn a_syntax_error_is_pointed_at() {
        let shown = shown("kind: x\na: ]\n");
        assert!(shown.starts_with("  2 | a: ]\n    |    ^\n"), "{shown}");
    }

    #[test]
    fn a_long_line_is_cut_and_nothing_strange_gets_through() {
        let filler = "x: y\u{202e}, ".repeat(60);
        let shown = shown(&format!("{HEAD}  http: [{{{filler}\u{7f}zzz: 1, {filler}}}]\n"));
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH + 10), "{shown}");
        assert!(!shown.contains(['\u{202e}', '\u{7f}']), "{shown}");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: hunter2!}\n";
        assert_eq!(shown(secret), "");
        assert_eq!(shown("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: [hunter2\n"), "");
    }
}

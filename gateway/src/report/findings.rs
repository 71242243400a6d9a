//! Findings as text and JSON.
//!
//! Invariant: the shapes are an interface that programs read; a field is added, never renamed.

use config_model::diagnostic::{Diagnostic, Diagnostics, Severity};
use serde::{Deserialize, Serialize};

use super::excerpt::excerpt;

/// All findings of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The findings, by file and line.
    pub findings: Vec<Finding>,
    /// Resources that were read.
    pub resources: usize,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Istio's number, or one of ours.
    pub code: String,
    /// `error`, `warning` or `info`.
    pub severity: String,
    /// `VirtualService default/reviews`.
    pub resource: Option<String>,
    /// File, as it was named.
    pub file: Option<String>,
    /// Line of the field, from 1; of the document when the finding is about all of it.
    pub line: Option<u32>,
    /// Column, from 1, in characters.
    #[serde(default)]
    pub column: Option<u32>,
    /// Field path; empty for the whole document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Findings {
    /// The findings of one configuration.
    #[must_use]
    pub fn new(diagnostics: &Diagnostics, resources: usize) -> Findings {
        Findings { findings: diagnostics.iter().map(Finding::new).collect(), resources }
    }
}

impl Finding {
    fn new(diagnostic: &Diagnostic) -> Finding {
        Finding {
            code: diagnostic.code.as_str().to_owned(),
            severity: diagnostic.severity.as_str().to_owned(),
            resource: diagnostic.resource.as_ref().map(ToString::to_string),
            file: diagnostic.origin.as_ref().map(|origin| origin.file.to_string()),
            line: diagnostic.origin.as_ref().map(|origin| origin.line).filter(|line| *line > 0),
            column: diagnostic.origin.as_ref().filter(|origin| origin.line > 0).map(|origin| origin.column),
            path: diagnostic.path.clone(),
            message: diagnostic.message.clone(),
            hint: diagnostic.hint.clone(),
        }
    }
}

/// Whether escape sequences for colour are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Paint {
    /// Plain text.
    Plain,
    /// With colour.
    Colour,
}

impl Paint {
    /// Text in an SGR colour, where colour is wanted.
    #[must_use]
    pub fn paint(self, sgr: &str, text: &str) -> String {
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Colour => format!("\x1b[{sgr}m{text}\x1b[0m"),
        }
    }
}

/// How much text a finding gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Detail {
    /// One line, as `istioctl analyze` prints it: for whatever reads lines.
    Line,
    /// The written line with the field underlined, and what to do, below it: for people.
    Excerpt,
}

/// Each finding on its line, with as much below it as `detail` says.
#[must_use]
pub fn text(diagnostics: &Diagnostics, detail: Detail, paint: Paint) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let line = printable(&diagnostic.to_string());
        let head = diagnostic.severity.to_string();
        let sgr = match diagnostic.severity {
            Severity::Error => "31",
            Severity::Warning => "33",
            Severity::Info => "36",
        };
        out.push_str(&paint.paint(sgr, &head));
        out.push_str(line.strip_prefix(&head).unwrap_or(&line));
        out.push('\n');
        if detail == Detail::Line {
            continue;
        }
        if let Some(origin) = &diagnostic.origin {
            out.push_str(&excerpt(origin, sgr, paint));
        }
        if let Some(hint) = &diagnostic.hint {
            out.push_str(&format!("    {} {}\n", paint.paint("34", "="), printable(hint)));
        }
    }
    out
}

/// A message may quote what was written: one finding stays one line, and no escape sequence gets to a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use config_model::{
        diagnostic::Code,
        meta::{Kind, Origin, ResourceKey},
        parse::parse,
    };
    use serde_json::json;

    use super::*;

    fn one() -> Diagnostics {
        let key = ResourceKey::new(Kind::VirtualService, "default", "reviews");
        let finding = Diagnostic::new(Code::REFERENCE_NOT_FOUND, "Referenced host not found: \"x\u{1b}[2J\"")
            .about(&key, &Origin::new("bookinfo.yaml", 12, 3))
            .at("spec.http[0].route[0].destination.host")
            .hint("add the Service");
        [finding].into_iter().collect()
    }

    #[test]
    fn json_has_the_fields_that_programs_read() {
        let shown = serde_json::to_value(Findings::new(&one(), 7)).unwrap();
        assert_eq!(shown["resources"], 7);
        let finding = &shown["findings"][0];
        assert_eq!(finding["code"], "IST0101");
        assert_eq!(finding["severity"], "error");
        assert_eq!(finding["resource"], "VirtualService default/reviews");
        assert_eq!((&finding["file"], &finding["line"]), (&json!("bookinfo.yaml"), &json!(12)));
        assert_eq!(finding["column"], 3);
        assert_eq!(finding["path"], "spec.http[0].route[0].destination.host");
        assert_eq!(finding["hint"], "add the Service");
    }

    #[test]
    fn a_line_is_a_line_and_no_escape_gets_through() {
        let shown = text(&one(), Detail::Line, Paint::Plain);
        assert!(shown.starts_with("Error [IST0101] (VirtualService default/reviews bookinfo.yaml:12) "));
        assert_eq!((shown.lines().count(), shown.contains('\u{1b}')), (1, false));
        assert!(text(&one(), Detail::Line, Paint::Colour).starts_with("\u{1b}[31mError\u{1b}[0m [IST0101]"));
    }

    #[test]
    fn people_see_the_field_and_what_to_do() {
        let text_of_file =
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:\n  servrs: 1\n";
        let shown = text(&parse("a.yaml", text_of_file).diagnostics, Detail::Excerpt, Paint::Plain);
        let (first, below) = shown.split_once('\n').unwrap();
        assert!(first.starts_with("Warning [LIM0003] (Gateway default/a a.yaml:5) "), "{shown}");
        assert_eq!(below, "  5 |   servrs: 1\n    |   ^^^^^^^^^\n    = did you mean \"servers\"?\n");
    }
}

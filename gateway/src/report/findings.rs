//! Findings as text, JSON and SARIF.
//!
//! Invariant: the shapes are an interface that programs read; a field is added, never renamed.

use std::collections::BTreeMap;

use config_model::diagnostic::{Code, Diagnostic, Diagnostics, Severity};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
    /// Line, from 1.
    pub line: Option<u32>,
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
            line: diagnostic.origin.as_ref().map(|origin| origin.line),
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

/// One line for each finding, as `istioctl analyze` prints them.
#[must_use]
pub fn text(diagnostics: &Diagnostics, paint: Paint) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        // A message may quote what was written: one finding stays one line, and no escape sequence gets to a terminal.
        let line: String =
            diagnostic.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let head = diagnostic.severity.to_string();
        let sgr = match diagnostic.severity {
            Severity::Error => "31",
            Severity::Warning => "33",
            Severity::Info => "36",
        };
        out.push_str(&paint.paint(sgr, &head));
        out.push_str(line.strip_prefix(&head).unwrap_or(&line));
        out.push('\n');
    }
    out
}

/// SARIF 2.1.0, for code scanning.
#[must_use]
pub fn sarif(diagnostics: &Diagnostics, version: &str) -> Value {
    let mut rules: BTreeMap<Code, Value> = BTreeMap::new();
    let mut results = Vec::new();
    for diagnostic in diagnostics {
        let info = diagnostic.code.info();
        rules.entry(diagnostic.code).or_insert_with(|| {
            json!({
                "id": diagnostic.code.as_str(),
                "name": info.title,
                "defaultConfiguration": {"level": level(info.severity)},
            })
        });
        let mut text = diagnostic.message.clone();
        if !diagnostic.path.is_empty() {
            text.push_str(&format!(" ({})", diagnostic.path));
        }
        if let Some(hint) = &diagnostic.hint {
            text.push_str(&format!(". {hint}"));
        }
        let mut result = json!({
            "ruleId": diagnostic.code.as_str(),
            "level": level(diagnostic.severity),
            "message": {"text": text},
        });
        if let (Some(origin), Some(result)) = (&diagnostic.origin, result.as_object_mut()) {
            let place = json!([{"physicalLocation": {
                "artifactLocation": {"uri": &*origin.file},
                "region": {"startLine": origin.line.max(1), "startColumn": origin.column.max(1)},
            }}]);
            result.insert("locations".to_owned(), place);
        }
        results.push(result);
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "limen",
                "version": version,
                "rules": rules.into_values().collect::<Vec<_>>(),
            }},
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

#[cfg(test)]
mod tests {
    use config_model::meta::{Kind, Origin, ResourceKey};

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
        assert_eq!(finding["path"], "spec.http[0].route[0].destination.host");
        assert_eq!(finding["hint"], "add the Service");
    }

    #[test]
    fn a_line_is_a_line_and_no_escape_gets_through() {
        let shown = text(&one(), Paint::Plain);
        assert!(shown.starts_with("Error [IST0101] (VirtualService default/reviews bookinfo.yaml:12) "));
        assert_eq!((shown.lines().count(), shown.contains('\u{1b}')), (1, false));
        assert!(text(&one(), Paint::Colour).starts_with("\u{1b}[31mError\u{1b}[0m [IST0101]"));
    }

    #[test]
    fn sarif_names_rule_and_place() {
        let shown = sarif(&one(), "1.0.0");
        let result = &shown["runs"][0]["results"][0];
        assert_eq!((&result["ruleId"], &result["level"]), (&json!("IST0101"), &json!("error")));
        assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 12);
        assert_eq!(shown["runs"][0]["tool"]["driver"]["rules"][0]["name"], "ReferencedResourceNotFound");
    }
}

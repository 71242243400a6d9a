//! Findings in SARIF 2.1.0, the format that code scanning services read.
//!
//! Invariant: valid by the published schema (OASIS, sarif-schema-2.1.0.json): what it requires is there, and every position counts
//! from 1. Lists each rule that a result names, once, with its page.

use std::collections::BTreeMap;

use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics, Severity, page},
    meta::Origin,
};
use serde_json::{Map, Value, json};

/// All findings as one run.
#[must_use]
pub fn sarif(diagnostics: &Diagnostics, version: &str) -> Value {
    let mut codes: Vec<Code> = diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let indexes: BTreeMap<Code, usize> =
        codes.iter().enumerate().map(|(index, code)| (*code, index)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "limen",
                "version": version,
                "rules": codes.iter().map(|code| rule(*code)).collect::<Vec<_>>(),
            }},
            // Columns count characters, not the UTF-16 units that are the format's default.
            "columnKind": "unicodeCodePoints",
            "results": diagnostics.iter().map(|diagnostic| result(diagnostic, &indexes)).collect::<Vec<_>>(),
        }],
    })
}

fn rule(code: Code) -> Value {
    let info = code.info();
    let page = page(code);
    let mut rule = json!({
        "id": code.as_str(),
        "name": info.title,
        "shortDescription": {"text": first_sentence(info.meaning)},
        "fullDescription": {"text": info.meaning},
        "help": {"text": info.remedy, "markdown": page},
        "defaultConfiguration": {"level": level(info.severity)},
    });
    if let (Some(number), Some(rule)) = (code.as_str().strip_prefix("IST"), rule.as_object_mut()) {
        let uri = format!("https://istio.io/latest/docs/reference/config/analysis/ist{number}/");
        rule.insert("helpUri".to_owned(), uri.into());
    }
    rule
}

fn result(diagnostic: &Diagnostic, indexes: &BTreeMap<Code, usize>) -> Value {
    let mut text = diagnostic.message.clone();
    if !diagnostic.path.is_empty() {
        text.push_str(&format!(" ({})", diagnostic.path));
    }
    if let Some(hint) = &diagnostic.hint {
        text.push_str(&format!(". {hint}"));
    }
    let mut location = Map::new();
    // An object of a cluster is in no file: its name says where it is.
    let object = diagnostic.origin.as_ref().and_then(Origin::object);
    if let Some(origin) = diagnostic.origin.as_ref().filter(|_| object.is_none()) {
        let place = json!({"artifactLocation": {"uri": uri(&origin.file)}, "region": region(origin)});
        location.insert("physicalLocation".to_owned(), place);
    }
    let resource = diagnostic.resource.as_ref().map(ToString::to_string);
    if let Some(resource) = &resource {
        let place = json!([{"fullyQualifiedName": resource, "kind": "resource"}]);
        location.insert("logicalLocations".to_owned(), place);
    }
    // What stays the same when lines are added above: services follow a result from one run to the next by it.
    let identity = format!("{} {} {}", diagnostic.code, resource.unwrap_or_default(), diagnostic.path);
    let mut result = json!({
        "ruleId": diagnostic.code.as_str(),
        "level": level(diagnostic.severity),
        "message": {"text": text},
        "partialFingerprints": {"codeResourceField/v1": identity},
    });
    if let Some(result) = result.as_object_mut() {
        if let Some(index) = indexes.get(&diagnostic.code) {
            result.insert("ruleIndex".to_owned(), (*index).into());
        }
        if let Some((uid, version)) = object {
            result.insert("properties".to_owned(), json!({"uid": uid, "resourceVersion": version}));
        }
        if !location.is_empty() {
            result.insert("locations".to_owned(), Value::Array(vec![Value::Object(location)]));
        }
    }
    result
}

fn region(origin: &Origin) -> Value {
    let mut region = json!({"startLine": origin.line.max(1), "startColumn": origin.column.max(1)});
    if let (Some((line, column)), Some(region)) = (origin.end(), region.as_object_mut()) {
        region.insert("endLine".to_owned(), line.into());
        region.insert("endColumn".to_owned(), column.into());
    }
    region
}

/// A path as a URI reference (RFC 3986 §4.1): relative paths stay relative, to the root of what is scanned.
fn uri(path: &str) -> String {
    let relative = path.strip_prefix("./").unwrap_or(path);
    let mut uri = String::from(if relative.starts_with('/') { "file://" } else { "" });
    for byte in relative.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

fn first_sentence(text: &str) -> &str {
    text.find(". ").and_then(|end| text.get(..=end)).unwrap_or(text)
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
    use config_model::{
        meta::{Kind, ResourceKey},
        parse::parse,
    };

    use super::*;

    /// What the schema requires of the objects that are used here, and the ranges that it gives.
    fn assert_valid(log: &Value) {
        let text = |value: &Value| assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{value}");
        let level = |value: &Value| {
            assert!(["none", "note", "warning", "error"].contains(&value.as_str().unwrap()), "{value}");
        };
        assert_eq!(log["version"], "2.1.0");
        for run in log["runs"].as_array().unwrap() {
            assert!(["utf16CodeUnits", "unicodeCodePoints"].contains(&run["columnKind"].as_str().unwrap()));
            let driver = &run["tool"]["driver"];
            text(&driver["name"]);
            let rules = driver["rules"].as_array().unwrap();
            let mut ids: Vec<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
            ids.dedup();
            assert_eq!(ids.len(), rules.len());
            for rule in rules {
                text(&rule["name"]);
                for message in ["shortDescription", "fullDescription", "help"] {
                    text(&rule[message]["text"]);
                }
                level(&rule["defaultConfiguration"]["level"]);
                assert!(
                    rule["helpUri"].is_null() || rule["helpUri"].as_str().unwrap().starts_with("https://")
                );
            }
            for result in run["results"].as_array().unwrap() {
                text(&result["message"]["text"]);
                level(&result["level"]);
                let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
                assert_eq!(rules[index]["id"], result["ruleId"]);
                for location in result["locations"].as_array().into_iter().flatten() {
                    let place = &location["physicalLocation"];
                    if place.is_null() {
                        text(&location["logicalLocations"][0]["fullyQualifiedName"]);
                        continue;
                    }
                    let uri = place["artifactLocation"]["uri"].as_str().unwrap();
                    assert!(
                        uri.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%:".contains(&b)),
                        "{uri}"
                    );
                    for (name, number) in place["region"].as_object().unwrap() {
                        assert!(number.as_u64().unwrap() >= 1, "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn sarif_names_rule_and_place() {
        let key = ResourceKey::new(Kind::VirtualService, "default", "reviews");
        let finding = Diagnostic::new(Code::REFERENCE_NOT_FOUND, "Referenced host not found: \"x\"")
            .about(&key, &Origin::new("my conf/bookinfo.yaml", 12, 3))
            .at("spec.http[0].route[0].destination.host")
            .hint("add the Service");
        let nowhere = Diagnostic::new(Code::LISTENER_NOT_BOUND, "port 80 is taken");
        let shown = sarif(&[finding, nowhere].into_iter().collect(), "1.0.0");
        assert_valid(&shown);
        let result = &shown["runs"][0]["results"][0];
        assert_eq!((&result["ruleId"], &result["level"]), (&json!("IST0101"), &json!("error")));
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "my%20conf/bookinfo.yaml");
        assert_eq!((&place["region"]["startLine"], &place["region"]["startColumn"]), (&json!(12), &json!(3)));
        assert_eq!(shown["runs"][0]["tool"]["driver"]["rules"][0]["name"], "ReferencedResourceNotFound");
        assert!(shown["runs"][0]["results"][1]["locations"].is_null());
    }

    #[test]
    fn an_object_of_a_cluster_is_named_and_in_no_file() {
        let key = ResourceKey::new(Kind::Gateway, "shop", "door");
        let origin = Origin::of_object("u-1", "7", 3);
        let finding = Diagnostic::new(Code::SERVER_DROPPED, "m").about(&key, &origin);
        let shown = sarif(&[finding].into_iter().collect(), "1.0.0");
        assert_valid(&shown);
        let result = &shown["runs"][0]["results"][0];
        let place = &result["locations"][0];
        assert_eq!(place["logicalLocations"][0]["fullyQualifiedName"], "Gateway shop/door");
        assert!(place["physicalLocation"].is_null());
        assert_eq!(result["properties"], json!({"uid": "u-1", "resourceVersion": "7"}));
    }

    #[test]
    fn the_region_is_the_field() {
        let text =
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {servrs: 1}\n";
        let shown = sarif(&parse("/etc/a.yaml", text).diagnostics, "1.0.0");
        assert_valid(&shown);
        let place = &shown["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "file:///etc/a.yaml");
        assert_eq!(place["region"], json!({"startLine": 4, "startColumn": 8, "endLine": 4, "endColumn": 17}));
    }

    #[test]
    fn every_code_makes_a_valid_rule() {
        let all: Diagnostics = Code::TABLE.iter().map(|info| Diagnostic::new(info.code, "m")).collect();
        assert_valid(&sarif(&all, "1.0.0"));
        assert_valid(&sarif(&Diagnostics::new(), "1.0.0"));
    }
}

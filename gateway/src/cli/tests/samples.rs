//! `deploy/samples/invalid`: a file a code, which raises that code and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use config_model::diagnostic::{Code, Raised};

use super::*;

fn samples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples/invalid")
}

#[test]
fn each_raises_exactly_its_code() {
    let mut wrong = Vec::new();
    for info in Code::TABLE.iter().filter(|info| matches!(info.raised, Raised::ByFile(_))) {
        let code = info.code.as_str();
        let file = samples().join(format!("{code}.yaml"));
        let ran = limen(&["check", &file.to_string_lossy(), "--output", "json"]);
        let json = ran.json();
        let findings = json["findings"].as_array().unwrap();
        let raised: BTreeSet<&str> = findings.iter().map(|f| f["code"].as_str().unwrap()).collect();
        let text = fs::read_to_string(&file).unwrap();
        let placed = findings.iter().all(|finding| is_placed(finding, &text));
        if raised != BTreeSet::from([code]) || !placed {
            wrong.push(format!("{code}: {}", ran.out));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether line and column are those of the field that the path names. The first line is a comment: a finding there has lost its place.
fn is_placed(finding: &Value, text: &str) -> bool {
    let place = |name: &str| usize::try_from(finding[name].as_u64().unwrap()).unwrap();
    let (line, column) = (place("line"), place("column"));
    let written: String = text.lines().nth(line - 1).unwrap().chars().skip(column - 1).collect();
    // The key that stands there, which may hold dots, ends the path.
    let key = written.split(':').next().unwrap().trim_matches(['"', '\'']);
    let path = finding["path"].as_str().unwrap();
    line > 1 && (path.is_empty() || path.ends_with(']') || (!key.is_empty() && path.ends_with(key)))
}

#[test]
fn no_sample_is_without_a_code() {
    let wanted: BTreeSet<String> = Code::TABLE
        .iter()
        .filter(|info| matches!(info.raised, Raised::ByFile(_)))
        .map(|info| format!("{}.yaml", info.code))
        .collect();
    let there: BTreeSet<String> = fs::read_dir(samples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(there, wanted);
}

/// What no file raises is only what the table says so of, and for these reasons.
#[test]
fn codes_without_a_sample_are_few() {
    let without: BTreeMap<&str, Raised> = Code::TABLE
        .iter()
        .filter(|info| !matches!(info.raised, Raised::ByFile(_)))
        .map(|info| (info.code.as_str(), info.raised))
        .collect();
    // The file system, the running process; then what no check raises.
    for code in ["LIM0007", "LIM0030"] {
        assert!(matches!(without.get(code), Some(Raised::Elsewhere(_))), "{code}");
    }
    assert!(without.len() <= 7, "{without:?}");
}

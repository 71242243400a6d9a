//! Whatever stands in a file, reading and validating it ends with findings, never with a panic.

use std::{fs, path::Path};

use config_model::{parse::parse, set::ResourceSet, validate::validate};
use proptest::prelude::*;

#[path = "../fuzz/laws.rs"]
mod laws;

/// One of each kind that has rules, to be damaged.
const VALID: &str = include_str!("valid/one-of-each.yaml");

#[test]
fn the_valid_sample_has_no_error() {
    let parsed = parse("a.yaml", VALID);
    let (_, diagnostics) =
        validate(parsed.resources.into_iter().fold(ResourceSet::new(), |mut set, resource| {
            assert!(set.insert(resource).is_none());
            set
        }));
    let all: Vec<String> = parsed.diagnostics.iter().chain(&diagnostics).map(ToString::to_string).collect();
    assert!(
        parsed.failed.is_empty() && !diagnostics.has_errors() && !parsed.diagnostics.has_errors(),
        "{all:#?}"
    );
    assert!(!all.iter().any(|line| line.contains("LIM0003")), "{all:#?}");
}

/// Inputs that have broken a law once.
#[test]
fn what_failed_once_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    type Law = fn(&[u8]);
    let laws: [(&str, Law); 3] = [("yaml", laws::yaml), ("regex", laws::regex), ("host", laws::host)];
    for (name, law) in laws {
        for entry in fs::read_dir(folder.join(name)).into_iter().flatten() {
            law(&fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn documents_that_are_slow_to_scan_end_soon() {
    let started = std::time::Instant::now();
    for unit in [
        "&a ", "!a ", "? \n", "- \n", "a\n", "\"\n", "[a, ", "*a ", "| \n", "'", "a: &a\n", "{a: b},", "a,",
        "- - -\n", "\t", "%\n", "a: 'x\n",
    ] {
        let text = unit.repeat((512 << 10) / unit.len());
        for text in [text.clone(), format!("a: [{text}"), format!("a: \"{text}")] {
            parse("a.yaml", text);
        }
    }
    // Unoptimised, and with all of the test suite beside it; a quadratic scan would take hours.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        laws::yaml(&bytes);
    }

    #[test]
    fn any_text_of_yaml_signs(text in "[-:?\\[\\]{}&*!|>'\"%@`#,a1 \\n\\t.<~]{0,200}") {
        laws::yaml(text.as_bytes());
    }

    #[test]
    fn damaged_resources(at in 0..VALID.len(), length in 0_usize..40, insert in "[-:\\[\\]{}&*'\"#a19 \\n~.%/]{0,12}") {
        let mut bytes = VALID.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, insert.bytes());
        laws::yaml(&bytes);
    }

    #[test]
    fn swapped_values(from in 0_usize..200, to in 0_usize..200) {
        // Values in places that are not theirs: every field gets to see wrong types.
        let lines: Vec<&str> = VALID.lines().collect();
        let value = |line: &str| line.split_once(": ").map(|(_, value)| value.to_owned());
        let (Some(source), Some(target)) = (lines.get(from % lines.len()), lines.get(to % lines.len())) else { return Ok(()) };
        let (Some(new), Some((key, _))) = (value(source), target.split_once(": ")) else { return Ok(()) };
        let text: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(index, line)| if index == to % lines.len() { format!("{key}: {new}") } else { (*line).to_owned() })
            .collect();
        laws::yaml(text.join("\n").as_bytes());
    }

    #[test]
    fn any_regex(pattern in "\\PC{0,60}") {
        laws::regex(pattern.as_bytes());
    }

    #[test]
    fn any_regex_of_its_signs(pattern in "[a-c0-3(){}\\[\\]|*+?.^$\\\\pLdwbBAzQE:<>=!iP, -]{0,40}") {
        laws::regex(pattern.as_bytes());
    }

    #[test]
    fn any_host(text in "[a-cA*./:\\[\\]0-9-]{0,30}") {
        laws::host(text.as_bytes());
    }
}

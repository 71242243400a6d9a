//! Files that must be refused or warned of: each begins with the findings it must raise, and raises no other error.
//!
//! A line `# expects: CODE LINE PATH` stands for one finding; the path may be left out.

use std::{fs, path::Path};

use config_model::{diagnostic::Severity, parse::parse, set::ResourceSet, validate::validate};

#[test]
fn every_sample_raises_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let parsed = parse(&name, &text);
        let mut set = ResourceSet::new();
        set.extend(parsed.resources);
        let (_, of_validation) = validate(set);
        let findings: Vec<_> = parsed.diagnostics.into_iter().chain(of_validation).collect();
        let shown: Vec<String> = findings
            .iter()
            .map(|d| {
                format!("{} {} {}", d.code, d.origin.as_ref().map_or(0, |origin| origin.line), d.path)
                    .trim()
                    .to_owned()
            })
            .collect();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# expects: ")).collect();
        assert!(!expected.is_empty(), "{name} expects nothing");
        for wanted in &expected {
            assert!(shown.iter().any(|line| line == wanted), "{name}: no {wanted:?} among {shown:#?}");
        }
        let errors = findings.iter().zip(&shown).filter(|(finding, _)| finding.severity == Severity::Error);
        for (finding, line) in errors {
            assert!(expected.contains(&line.as_str()), "{name}: unexpected {finding}");
        }
        count += 1;
    }
    assert!(count >= 15, "only {count} samples");
}

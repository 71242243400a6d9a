//! The Bookinfo sample is a newcomer's first configuration: with each of its variants dropped in, and with every pair that
//! its README calls good together, nothing is left to be said about it by the checks of this crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where its expectation does, in helper functions too"
)]

use std::fs;
use std::path::{Path, PathBuf};

use config_model::diagnostic::{Code, Diagnostic};
use config_model::parse::parse;
use config_model::set::ResourceSet;
use config_model::validate::validate;

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples")
}

/// The text of each finding.
fn findings(variants: &[&str]) -> Vec<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(samples().join("bookinfo"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    assert!(files.len() >= 6, "{files:?}");
    files.extend(variants.iter().map(|variant| samples().join("bookinfo-variants").join(variant)));

    let mut set = ResourceSet::new();
    let mut said = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let parsed = parse(&name, fs::read(&file).unwrap());
        assert!(parsed.ignored.is_empty(), "{name}: {:?}", parsed.ignored);
        said.extend(parsed.diagnostics.iter().map(ToString::to_string));
        let twice = set.extend(parsed.resources);
        assert!(twice.is_empty(), "{name} repeats {twice:?}");
    }
    let (_, diagnostics) = validate(set);
    // Istio's sample asks for the prefixes `/static` and `/api/v1/products`, which is worth the note that it gets.
    let noted = |finding: &&Diagnostic| finding.code != Code::PREFIX_WITHIN_NAME;
    said.extend(diagnostics.iter().filter(noted).map(ToString::to_string));
    said
}

#[test]
fn the_sample_as_it_is_needs_no_remark() {
    assert_eq!(findings(&[]), Vec::<String>::new());
}

#[test]
fn every_variant_drops_in_beside_the_base() {
    for variant in ["80-20.yaml", "jason-v2.yaml"] {
        assert_eq!(findings(&[variant]), Vec::<String>::new(), "{variant}");
        for fault in ["delay.yaml", "abort.yaml"] {
            // What this build does not honour is the build's shortcoming, and no mistake in the file.
            let mut said = findings(&[variant, fault]);
            said.retain(|finding| !finding.contains("[LIM0010]"));
            assert_eq!(said, Vec::<String>::new(), "{variant} and {fault}");
        }
    }
}

/// The Secret is made on the spot by make-tls.sh; without it, its absence is the one thing that may be said.
#[test]
fn the_tls_variant_lacks_nothing_but_its_secret() {
    for finding in findings(&["tls.yaml"]) {
        assert!(finding.contains("bookinfo-credential"), "{finding}");
    }
}

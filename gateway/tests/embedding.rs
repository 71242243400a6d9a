//! The pages about embedding quote the programs in `examples`, word for word, and name each other's files rightly.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise ends the test"
)]

use std::{fs, path::Path};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of a page that are Rust.
fn quoted(page: &str) -> Vec<String> {
    let parts: Vec<&str> = page.split("```").collect();
    let blocks = parts.iter().skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix("rust\n")).map(|code| code.trim_end().to_owned()).collect()
}

#[test]
fn what_pages_quote_is_in_the_program_that_they_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = root.join("docs/embedding");
    let mut programs = Vec::new();
    for entry in fs::read_dir(&pages).unwrap() {
        let path = entry.unwrap().path();
        let page = read(&path);
        let Some((_, rest)) = page.split_once("](../../examples/") else {
            assert!(quoted(&page).is_empty(), "{} quotes no program that it names", path.display());
            continue;
        };
        let name = rest.split_once(')').unwrap().0.to_owned();
        let program = read(&root.join("examples").join(&name));
        let quoted = quoted(&page);
        assert!(!quoted.is_empty(), "{} quotes nothing", path.display());
        for code in quoted {
            assert!(program.contains(&code), "{} quotes what {name} has not:\n{code}", path.display());
        }
        programs.push(name);
    }
    programs.sort();
    let mut all: Vec<String> = fs::read_dir(root.join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    all.sort();
    assert_eq!(programs, all, "each program has its page");
}

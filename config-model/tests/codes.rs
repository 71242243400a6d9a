//! The pages of the codes are the table's: this test fails when they differ, and `LIMEN_UPDATE=1` rewrites them.

use std::{collections::BTreeMap, fs, path::Path};

use config_model::diagnostic::{Code, index, page};

const GENERATED: &str =
    "<!-- generated from the table of codes: LIMEN_UPDATE=1 cargo test -p config-model --test codes -->\n";

#[test]
fn every_code_has_its_page_and_no_page_is_stale() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/codes");
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    wanted.insert("README.md".to_owned(), format!("{GENERATED}{}", index()));
    for info in Code::TABLE {
        wanted.insert(format!("{}.md", info.code), format!("{GENERATED}{}", page(info.code)));
    }
    if std::env::var_os("LIMEN_UPDATE").is_some() {
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &wanted {
            fs::write(folder.join(name), text).unwrap();
        }
        return;
    }
    let written: BTreeMap<String, String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    assert!(written.keys().eq(wanted.keys()), "{:?} are not the pages of the table", written.keys());
    for (name, text) in &wanted {
        assert!(written[name] == *text, "{name} is not what the table says");
    }
}

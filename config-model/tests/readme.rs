//! The README's support table is the program's own: this test fails when they differ, and `LIMEN_UPDATE=1` rewrites it.

const BEGIN: &str =
    "<!-- support table: generated, LIMEN_UPDATE=1 cargo test -p config-model --test readme -->\n";
const END: &str = "<!-- end of support table -->";

#[test]
fn the_support_table_is_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (head, rest) = readme.split_once(BEGIN).expect("the table's first marker");
    let (table, tail) = rest.split_once(END).expect("the table's last marker");
    let wanted = format!("{}\n", config_model::support::markdown().trim_end());
    if std::env::var_os("LIMEN_UPDATE").is_some() {
        std::fs::write(path, format!("{head}{BEGIN}{wanted}{END}{tail}")).unwrap();
    } else {
        assert!(table == wanted, "the support table in README.md is not what support::markdown() gives");
    }
}

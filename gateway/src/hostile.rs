//! Whatever a stranger sends, it is read in one way and never ends in a panic.

use std::{fs, path::Path};

use proptest::prelude::*;

use crate::laws;

type Law = fn(&[u8]);

const LAWS: [(&str, Law); 5] = [
    ("http1", laws::http1),
    ("client_hello", laws::client_hello),
    ("proxy_header", laws::proxy_header),
    ("path", laws::path),
    ("names", laws::names),
];

/// Where fuzzing begins, and what has broken a law once.
#[test]
fn seeds_and_what_failed_once_hold() {
    let mut seen = 0;
    for (name, law) in LAWS {
        for folder in ["seeds", "regressions"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(name);
            for entry in fs::read_dir(folder).into_iter().flatten() {
                law(&fs::read(entry.unwrap().path()).unwrap());
                seen += 1;
            }
        }
    }
    assert!(seen >= 15, "{seen} inputs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_keep_the_laws(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        LAWS.iter().for_each(|(_, law)| law(&bytes));
    }

    /// Damaged seeds come further than bytes of chance.
    #[test]
    fn damaged_seeds_keep_the_laws(which in 0_usize..5, seed in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), by in any::<u8>()) {
        let (name, law) = LAWS[which];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let mut seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        let mut bytes = fs::read(seed.get(&seeds)).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = by;
        law(&bytes);
    }
}

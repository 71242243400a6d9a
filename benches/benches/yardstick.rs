//! Work that never changes: what the others are measured by, where only ratios within one run can be compared.
//!
//! Invariant: nothing of Limen is in it. Strings are made, put in order and looked up, which takes of everything that the others take:
//! allocations, comparisons and hashes, compiled as they are.

use criterion::{Criterion, criterion_group, criterion_main};
use std::{
    collections::{BTreeMap, HashMap},
    hint::black_box,
};

fn work(count: usize) -> usize {
    let names: Vec<String> = (0..count).map(|n| format!("name-{}", n * 7919 % 1000)).collect();
    let ordered: BTreeMap<&str, usize> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let hashed: HashMap<&str, usize> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    names.iter().filter_map(|name| Some(ordered.get(name.as_str())? + hashed.get(name.as_str())?)).sum()
}

fn yardstick(criterion: &mut Criterion) {
    criterion.bench_function("yardstick", |b| b.iter(|| black_box(work(black_box(100)))));
}

criterion_group!(benches, yardstick);
criterion_main!(benches);

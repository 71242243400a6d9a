//! What choosing one of 1,000 endpoints costs by each policy. The promise: below 100 ns for two choices, below 200 ns by
//! a hash.

use criterion::{Criterion, criterion_group, criterion_main};
use routing::{
    balance::{self, EndpointSet, LoadView, Turn, configured},
    cluster::{Address, Endpoint, LbPolicy},
};
use std::{
    hint::black_box,
    sync::atomic::{AtomicU32, Ordering},
};

struct InFlight(Vec<AtomicU32>);

impl LoadView for InFlight {
    fn active(&self, index: usize) -> u32 {
        self.0.get(index).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

fn pick(c: &mut Criterion) {
    let endpoints: Vec<Endpoint> = (0..1000_u32)
        .map(|n| {
            let [_, _, high, low] = n.to_be_bytes();
            Endpoint::at(Address::Ip(([10, 0, high, low], 80).into()))
        })
        .collect();
    let load = InFlight(endpoints.iter().map(|_| AtomicU32::new(1)).collect());
    for (name, policy) in [
        ("least_request", LbPolicy::LeastRequest),
        ("round_robin", LbPolicy::RoundRobin),
        ("random", LbPolicy::Random),
        ("ring_hash", LbPolicy::RingHash { minimum: 1024 }),
        ("maglev", LbPolicy::Maglev { size: 65_537 }),
    ] {
        let set = EndpointSet::build(policy, 0, &endpoints, |_, endpoint| configured(endpoint));
        let mut state = 7_u64;
        let mut draw = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        };
        c.bench_function(&format!("pick/{name}/1000"), |b| {
            b.iter(|| {
                let hash = draw();
                let turn = Turn { cursor: hash, hash: Some(hash), attempt: 0 };
                black_box(balance::pick(policy, &set, &load, &mut draw, turn))
            });
        });
    }
}

criterion_group!(benches, pick);
criterion_main!(benches);

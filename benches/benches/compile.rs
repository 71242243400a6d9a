//! What a change costs: reading and compiling 1,000 VirtualServices from nothing, compiling them again after one of
//! them changed, and the swap that makes the result live.

use arc_swap::ArcSwap;
use config_model::{
    parse::parse,
    set::ResourceSet,
    validate::{Validated, validate},
};
use criterion::{Criterion, criterion_group, criterion_main};
use routing::compile::{Compiler, Identity, compile};
use std::{hint::black_box, sync::Arc};

const SERVICES: usize = 1_000;

fn base() -> String {
    "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: istio-system}\nspec:\n  \
     selector: {istio: ingressgateway}\n  servers:\n    - port: {number: 80, name: http, protocol: HTTP}\n      \
     hosts: ['*.example.com']\n"
        .to_owned()
}

fn service(n: usize, timeout: u32) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs-{n}, namespace: default}}\n\
         spec:\n  hosts: [h{n}.example.com]\n  gateways: [istio-system/public]\n  http:\n    \
         - match: [{{uri: {{prefix: /api/}}}}, {{uri: {{regex: '/items/[0-9]+'}}}}]\n      timeout: {timeout}s\n      \
         route: [{{destination: {{host: s{n}}}}}]\n    - route: [{{destination: {{host: s{n}}}}}]\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: default}}\n\
         spec: {{selector: {{app: s{n}}}, clusterIP: 10.0.{}.{}, ports: [{{name: http, port: 80}}]}}\n",
        n / 250,
        n % 250 + 1,
    )
}

/// All resources, and the same with the one VirtualService changed: the others keep their identity, as in a reload.
fn inputs() -> (String, Validated, Validated) {
    let text: String = std::iter::once(base()).chain((0..SERVICES).map(|n| service(n, 1))).collect();
    let mut set = ResourceSet::new();
    set.extend(parse("all.yaml", &text).resources);
    let mut changed = set.clone();
    for resource in parse("one.yaml", service(SERVICES / 2, 2)).resources {
        changed.insert(resource);
    }
    (text, validate(set).0, validate(changed).0)
}

fn change(criterion: &mut Criterion) {
    let (text, before, after) = inputs();
    let identity = Identity::default();
    let mut compiler = Compiler::new(identity.clone());
    let (compiled, _) = compiler.compile(&before);
    let mut group = criterion.benchmark_group("1,000 VirtualServices");
    group.sample_size(20);
    group.bench_function("parse", |b| b.iter(|| black_box(parse("all.yaml", &text))));
    group.bench_function("compile from nothing", |b| b.iter(|| black_box(compile(&before, &identity))));
    group.bench_function("compile after one change", |b| {
        let mut turn = [&after, &before].into_iter().cycle();
        b.iter(|| turn.next().map(|next| black_box(compiler.compile(next))));
    });
    let live = ArcSwap::from_pointee(compile(&before, &identity).0);
    let next = Arc::new(compiled);
    group.bench_function("swap", |b| b.iter(|| live.store(black_box(Arc::clone(&next)))));
    group.bench_function("pin", |b| b.iter(|| black_box(live.load_full())));
    group.finish();
}

criterion_group!(benches, change);
criterion_main!(benches);

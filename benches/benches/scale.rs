//! What a state of the configuration costs from its resources to what is served, at 10,000 VirtualServices with 5 routes each, 5,000
//! Services and 50,000 endpoints: all of it, after one VirtualService has changed, and after one endpoint has.
//!
//! Run as a test it builds a hundredth of that.

use std::{hint::black_box, sync::Arc};

use arc_swap::ArcSwap;
use config_model::{parse::parse, set::AnyResource};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gateway::{
    pipeline::{Builder, Built},
    settings::Settings,
    source::Loaded,
};

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GATEWAY: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: istio-system}\nspec:\n  \
     selector: {istio: ingressgateway}\n  servers:\n    - port: {number: 80, name: http, protocol: HTTP}\n      \
     hosts: ['*.example.com']\n";

fn virtual_service(n: usize, services: usize, first: &str) -> String {
    let rules: String = [first, "/p1/", "/p2/", "/p3/", "/p4/"]
        .iter()
        .enumerate()
        .map(|(rule, prefix)| {
            let to = (n + rule) % services;
            format!(
                "    - match: [{{uri: {{prefix: {prefix}}}}}]\n      route: [{{destination: {{host: s{to}, port: {{number: 80}}}}}}]\n"
            )
        })
        .collect();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs-{n}, namespace: default}}\n\
         spec:\n  hosts: [h{n}.example.com]\n  gateways: [istio-system/public]\n  http:\n{rules}"
    )
}

fn service(n: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: default}}\n\
         spec: {{selector: {{app: s{n}}}, clusterIP: 240.0.0.1, ports: [{{name: http, port: 80}}]}}\n"
    )
}

fn slice(n: usize, last: &str) -> String {
    let address = |at: usize| format!("10.{}.{}.{at}", n / 250, n % 250);
    let endpoints: String = (1..10).map(|at| format!("{{addresses: [{}]}}, ", address(at))).collect();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: s{n}-1, namespace: default, labels: {{kubernetes.io/service-name: s{n}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{endpoints}{{addresses: [{last}]}}]\n"
    )
}

fn read(text: &str) -> Vec<AnyResource> {
    let parsed = parse("all.yaml", text);
    assert!(parsed.failed.is_empty(), "{:?}", parsed.diagnostics);
    parsed.resources
}

/// A state, and the same with another resource in the place of the one with its key.
fn states(hosts: usize) -> (Loaded, impl Fn(&str) -> Loaded) {
    let services = hosts / 2;
    let mut resources = read(GATEWAY);
    for n in 0..hosts {
        resources.extend(read(&virtual_service(n, services, "/p0/")));
    }
    for n in 0..services {
        resources.extend(read(&(service(n) + &slice(n, "10.200.0.1"))));
    }
    let all = Loaded { resources, ..Loaded::default() };
    let before = all.clone();
    let with = move |text: &str| {
        let mut loaded = before.clone();
        for new in read(text) {
            if let Some(old) = loaded.resources.iter_mut().find(|old| old.key() == new.key()) {
                *old = new;
            }
        }
        loaded
    };
    (all, with)
}

fn scale(criterion: &mut Criterion) {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let hosts = if measuring { 10_000 } else { 100 };
    let (all, with) = states(hosts);
    let identity = Settings::default().identity();
    let mut group = criterion.benchmark_group(format!("{hosts} VirtualServices, {} endpoints", hosts * 5));
    group.sample_size(20);
    group.bench_function("from nothing", |b| {
        b.iter_batched(
            || Builder::new(identity.clone()),
            |mut builder| (builder.build(&all), builder),
            BatchSize::PerIteration,
        );
    });
    for (name, text) in [
        ("after one VirtualService", virtual_service(hosts / 2, hosts / 2, "/changed/")),
        ("after one endpoint", slice(hosts / 4, "10.200.0.2")),
    ] {
        let changed = with(&text);
        let mut builder = Builder::new(identity.clone());
        let _first: Built = builder.build(&all);
        let mut turn = [&changed, &all].into_iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| turn.next().map(|next| black_box(builder.build(next))));
        });
    }
    let mut builder = Builder::new(identity);
    let live = ArcSwap::from_pointee(builder.build(&all).compiled);
    let next = Arc::new(builder.build(&with(&slice(0, "10.200.0.2"))).compiled);
    group.bench_function("swap", |b| b.iter(|| live.store(black_box(Arc::clone(&next)))));
    group.finish();
}

criterion_group!(benches, scale);
criterion_main!(benches);

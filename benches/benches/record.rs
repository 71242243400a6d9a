//! What counting one request costs, and reading 10,000 series. The promise: below 100 ns, and below 20 ms.

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::telemetry::{
    Flags, Identity, Metrics,
    istio::{Principals, RequestProtocol, Sample, Target},
};
use routing::cluster::{ClusterSpec, Workload};
use std::{hint::black_box, sync::Arc, time::Duration};

fn sample(code: u16) -> Sample {
    Sample {
        protocol: RequestProtocol::Http,
        code,
        grpc_status: None,
        flags: Flags::default(),
        duration: Duration::from_millis(7),
        request_bytes: 412,
        response_bytes: 5183,
    }
}

fn targets(metrics: &Metrics, count: usize) -> Vec<Arc<Target>> {
    (0..count)
        .map(|n| {
            let cluster = ClusterSpec::new(&format!("service-{n}.shop.svc.cluster.local"), 80, "");
            let workload = Workload { name: format!("service-{n}-v1"), ..Workload::default() };
            metrics.istio.workload(&cluster, &Arc::new(workload), Principals::default())
        })
        .collect()
}

fn record(c: &mut Criterion) {
    let Ok(metrics) = Metrics::new(Identity::default(), "bench") else { return };
    let target = targets(&metrics, 1);
    for (name, codes) in [("record/one outcome", 200..201), ("record/eight outcomes", 200..208)] {
        let samples: Vec<Sample> = codes.map(sample).collect();
        let mut turn = samples.iter().cycle();
        c.bench_function(name, |b| {
            b.iter(|| {
                if let (Some(target), Some(sample)) = (target.first(), turn.next()) {
                    metrics.istio.record(black_box(target), black_box(sample));
                }
            });
        });
    }
}

fn scrape(c: &mut Criterion) {
    let Ok(metrics) = Metrics::new(Identity::default(), "bench") else { return };
    // Each makes a counter and three histograms of 22 lines.
    let targets = targets(&metrics, 150);
    for target in &targets {
        metrics.istio.record(target, &sample(200));
    }
    c.bench_function("scrape/10,050 series", |b| b.iter(|| black_box(metrics.encode())));
}

criterion_group!(benches, record, scrape);
criterion_main!(benches);

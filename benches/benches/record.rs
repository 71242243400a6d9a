//! What counting one request costs, writing its line of the access log, and reading 10,000 series. The promise: counting below 100 ns,
//! reading below 20 ms.

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::telemetry::{
    Flags, Identity, Metrics,
    access_log::{Entry, Format},
    istio::{Principals, RequestProtocol, Sample, Target},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use routing::cluster::{Address, ClusterSpec, Workload};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, SystemTime},
};

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

fn lines(c: &mut Criterion) {
    let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    };
    let request = headers(&[
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("x-forwarded-for", "10.0.0.9"),
        ("x-request-id", "b3f1c2d4-5e6f-4a1b-9c8d-7e6f5a4b3c2d"),
    ]);
    let response = headers(&[("content-type", "text/html"), ("x-envoy-upstream-service-time", "2")]);
    let upstream = Address::Ip(([10, 1, 0, 1], 9080).into());
    let entry = Entry {
        start: SystemTime::now(),
        duration: Duration::from_millis(14),
        method: "GET",
        path: "/productpage?u=normal",
        upstream_path: "/productpage?u=normal",
        authority: "shop.example.com",
        protocol: "HTTP/1.1",
        response_code: 200,
        details: "via_upstream",
        bytes_sent: 5183,
        response: Some(&response),
        upstream_host: Some(&upstream),
        upstream_cluster: "outbound|9080||productpage.default.svc.cluster.local",
        upstream_local: Some(([10, 1, 0, 7], 40000).into()),
        downstream_local: Some(([10, 1, 0, 7], 8080).into()),
        downstream_remote: Some(([10, 0, 0, 9], 5000).into()),
        ..Entry::empty(&request)
    };
    let mut line = Vec::with_capacity(1024);
    for (name, format) in [("log line/text", Format::istio_text()), ("log line/JSON", Format::istio_json())] {
        let Ok(format) = format else { return };
        c.bench_function(name, |b| {
            b.iter(|| {
                line.clear();
                format.write(black_box(&entry), &mut line);
                line.len()
            });
        });
    }
}

criterion_group!(benches, record, lines, scrape);
criterion_main!(benches);

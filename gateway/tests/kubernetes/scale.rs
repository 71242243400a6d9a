//! A cluster with many resources behind the API server double: how soon the first state is served, how soon a change of an endpoint is
//! live, and what memory it takes.
//!
//! Small by default; `LIMEN_SCALE=10000` with `LIMEN_BIN` naming a release build prints the figures that are published
//! (`benches/load/scale.sh`). The double shares the machine, so the gateway is started twice: the first time the double writes its lists,
//! the second time it has them; what this process (the double, and who asks for the first answer) takes besides is printed.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    chain::Limen,
    double::{ALL, Double, Gone},
    harness::{GATEWAY, Upstream},
    measure::{cpu, memory, scale, until},
};

/// Endpoints of each Service.
const ENDPOINTS: usize = 10;

fn object(api_version: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object =
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "default"}});
    let fields = rest.as_object().unwrap().clone();
    for (field, value) in fields {
        match (field.as_str(), object.get_mut(&field)) {
            ("metadata", Some(metadata)) => {
                metadata.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            }
            _ => {
                object[field] = value;
            }
        }
    }
    object
}

fn virtual_service(n: usize, services: usize) -> Value {
    let to =
        |n: usize| json!([{"destination": {"host": format!("s{}", n % services), "port": {"number": 80}}}]);
    let mut rules: Vec<Value> = (1..5)
        .map(|rule| json!({"match": [{"uri": {"prefix": format!("/p{rule}/")}}], "route": to(n + rule)}))
        .collect();
    rules.push(json!({"route": to(n)}));
    let hosts = json!([format!("h{n}.example.com")]);
    let spec = json!({"hosts": hosts, "gateways": ["istio-system/public"], "http": rules});
    object("networking.istio.io/v1", "VirtualService", &format!("vs-{n}"), json!({"spec": spec}))
}

/// The endpoints of a Service. Those of the first are where this port is; nobody asks the others.
fn slice(n: usize, port: u16) -> Value {
    let endpoint = |at: usize| {
        let pod = format!("s{n}-{at}");
        let address = match n {
            0 => "127.0.0.1".to_owned(),
            _ => format!("10.{}.{}.{}", n / 250, n % 250, at + 1),
        };
        json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", n % 100), "zone": "zone-a", "targetRef": {"kind": "Pod", "name": pod, "namespace": "default"}})
    };
    let endpoints: Vec<Value> = (0..if n == 0 { 1 } else { ENDPOINTS }).map(endpoint).collect();
    let labels = json!({"labels": {"kubernetes.io/service-name": format!("s{n}")}});
    let rest = json!({"metadata": labels, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}]});
    object("discovery.k8s.io/v1", "EndpointSlice", &format!("s{n}-1"), rest)
}

fn service(n: usize) -> Value {
    let spec = json!({"clusterIP": "240.0.0.1", "selector": {"app": format!("s{n}")},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    object("v1", "Service", &format!("s{n}"), json!({"spec": spec}))
}

fn pod(n: usize, at: usize) -> Value {
    let labels =
        json!({"labels": {"app": format!("s{n}"), "version": "v1", "pod-template-hash": "5d6b7c9f8d"}});
    object("v1", "Pod", &format!("s{n}-{at}"), json!({"metadata": labels}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_cluster_is_served_and_followed() {
    let hosts = scale();
    let services = (hosts / 2).max(1);
    let cache = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(Upstream::start);
    let double = Double::start(ALL).await;
    double.apply(GATEWAY);
    for n in 0..hosts {
        double.put(virtual_service(n, services));
    }
    for n in 0..services {
        double.put(service(n));
        double.put(slice(n, if n == 0 { one.port } else { 8080 }));
        (0..ENDPOINTS).for_each(|at| double.put(pod(n, at)));
    }
    // What was before is in the lists, and need not be told again.
    double.compact(Gone::Event);
    block_in_place(|| {
        // A status that is written changes a list.
        let first = Limen::start_as(&double, cache.path(), "{}", &["--status-writer", "off"]);
        first.ready();
        drop(first);
        let (begin, before) = (Instant::now(), cpu(std::process::id()));
        let limen = Limen::start(&double, cache.path());
        until(limen.port, "h0.example.com", "/", "one /");
        let (took, id) = (begin.elapsed(), limen.child.id());
        let ours = cpu(std::process::id()).saturating_sub(before);
        let endpoints = services * ENDPOINTS;
        println!(
            "{hosts} VirtualServices, {services} Services, {endpoints} endpoints and pods: first answer after {took:.2?} and {:.2?} of CPU ({ours:.2?} more for the double and who asks), {:?} MiB resident and at most",
            cpu(id),
            memory(id)
        );
        for (port, body) in [(two.port, "two /"), (one.port, "one /"), (two.port, "two /")] {
            let (before, others) = (cpu(id), cpu(std::process::id()));
            let begin = Instant::now();
            double.put(slice(0, port));
            let put = begin.elapsed();
            until(limen.port, "h0.example.com", "/", body);
            let (took, ours) = (begin.elapsed(), cpu(std::process::id()).saturating_sub(others));
            std::thread::park_timeout(std::time::Duration::from_millis(300));
            println!(
                "an endpoint: live after {took:.0?} ({put:.0?} until the double had it, {ours:.0?} of CPU for the double and who asks), {:.1?} of CPU",
                cpu(id).saturating_sub(before)
            );
        }
        let mut moved = virtual_service(0, services);
        moved["spec"]["http"][4]["rewrite"] = json!({"uri": "/moved"});
        let before = cpu(id);
        double.put(moved);
        let took = until(limen.port, "h0.example.com", "/", "two /moved");
        std::thread::park_timeout(std::time::Duration::from_millis(300));
        println!(
            "a VirtualService: live after {took:.0?} (100 ms of it to let changes end), {:.1?} of CPU",
            cpu(id).saturating_sub(before)
        );
        println!("{:?} MiB resident and at most", memory(id));
    });
}

//! What metrics say of requests and connections: Istio's labels from what the configuration knows.

use super::*;
use crate::telemetry::istio::{RequestProtocol, Sample};
use routing::cluster::ClusterSpec;

/// The series of a metric that has all of these labels, without its name.
fn series(gateway: &TestGateway, metric: &str, labels: &[&str]) -> Option<String> {
    let text = String::from_utf8(gateway.metrics.encode()).unwrap();
    let of_metric = text.lines().filter_map(|line| line.strip_prefix(metric)).map(str::to_owned);
    let mut found = of_metric.filter(|line| labels.iter().all(|label| line.contains(label)));
    let first = found.next();
    assert_eq!(found.next(), None, "more than one {metric} with {labels:?}");
    first
}

/// The same, when it is there: counters are written after the client has its answer.
async fn soon(gateway: &TestGateway, metric: &str, labels: &[&str]) -> String {
    let found = async {
        loop {
            match series(gateway, metric, labels) {
                Some(line) => return line,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| {
        panic!("no {metric} with {labels:?} in {}", String::from_utf8_lossy(&gateway.metrics.encode()))
    })
}

fn value(line: &str) -> f64 {
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// A Service of one pod, which a ReplicaSet made.
fn pod_service(at: SocketAddr) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: reviews, namespace: shop}}
spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80, targetPort: 9080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: reviews-1, namespace: shop, labels: {{kubernetes.io/service-name: reviews}}}}
addressType: IPv4
ports: [{{name: http, port: {}}}]
endpoints: [{{addresses: [{}], targetRef: {{kind: Pod, name: reviews-v2-77c4f-x1, namespace: shop}}}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: reviews-v2-77c4f-x1
  generateName: reviews-v2-77c4f-
  namespace: shop
  labels: {{app: reviews, version: v2, pod-template-hash: 77c4f}}
  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: reviews-v2-77c4f, controller: true}}]
",
        at.port(),
        at.ip()
    )
}

const TO_POD: &str = "  - name: main\n    route: [{destination: {host: reviews.shop.svc.cluster.local, port: {number: 80}}}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_those_of_the_wire_head_and_framing_included() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    let (mut requests, mut responses) = (0, 0);
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    for (number, request) in [
        "GET /a HTTP/1.1\r\nHost: a.example\r\nX-Long:    spaces count\r\n\r\n",
        "POST /b HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\n\r\n",
        "POST /c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    ]
    .into_iter()
    .enumerate()
    {
        client.write_all(request.as_bytes()).await.unwrap();
        requests += request.len();
        responses += response(&mut client).await.len();
        // Nothing of the next is sent before this one is counted.
        let count = format!("}} {}", number + 1);
        soon(&gateway, "istio_requests_total", &["response_code=\"200\"", &count]).await;
    }
    for (metric, bytes) in [("istio_request_bytes_sum", requests), ("istio_response_bytes_sum", responses)] {
        let line = soon(&gateway, metric, &["response_code=\"200\""]).await;
        assert_eq!(value(&line), bytes as f64, "{line}");
    }
}

/// All bytes of one response with a length or in chunks.
async fn response(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let whole = match length {
                Some(length) => body.len() >= length,
                None => body.ends_with("0\r\n\r\n"),
            };
            if whole {
                return bytes;
            }
        }
        let read = tokio::time::timeout(PATIENCE, client.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_counted_for_the_workload_that_answered() {
    let up = echo().await;
    let gateway = gateway(&(config(TO_POD, &[], "HTTP") + &pod_service(up))).await;
    assert_eq!(gateway.get("/a").await.0, 200);
    let line = soon(&gateway, "istio_requests_total", &["response_code=\"200\""]).await;
    for label in [
        "reporter=\"source\"",
        "destination_workload=\"reviews-v2\"",
        "destination_workload_namespace=\"shop\"",
        "destination_app=\"reviews\"",
        "destination_version=\"v2\"",
        "destination_service=\"reviews.shop.svc.cluster.local\"",
        "destination_service_name=\"reviews\"",
        "destination_service_namespace=\"shop\"",
        "destination_canonical_service=\"reviews\"",
        "destination_canonical_revision=\"v2\"",
        "destination_principal=\"unknown\"",
        "destination_cluster=\"Kubernetes\"",
        "request_protocol=\"http\"",
        "response_flags=\"-\"",
    ] {
        assert!(line.contains(label), "{label} is not in {line}");
    }
    let nowhere = "GET / HTTP/1.1\r\nHost: nobody.example\r\nConnection: close\r\n\r\n";
    assert_eq!(gateway.send(nowhere).await.0, 404);
    let unknown = ["response_code=\"404\"", "destination_service=\"unknown\"", "response_flags=\"NR\""];
    soon(&gateway, "istio_requests_total", &unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_go_on_when_the_pods_are_others_of_the_same_workload() {
    let first = pod_service(echo().await);
    let gateway = gateway(&(config(TO_POD, &[], "HTTP") + &first)).await;
    assert_eq!(gateway.get("/a").await.0, 200);
    let of_workload = ["destination_workload=\"reviews-v2\""];
    soon(&gateway, "istio_requests_total", &of_workload).await;
    let second = pod_service(echo().await).replace("77c4f-x1", "77c4f-x2");
    publish(&gateway.cell, &gateway.registry, &(config(TO_POD, &[], "HTTP") + &second)).await;
    // Read before anybody asks again, which must not begin the series anew.
    assert_eq!(value(&soon(&gateway, "istio_requests_total", &of_workload).await), 1.0);
    assert_eq!(gateway.get("/a").await.0, 200);
    while value(&soon(&gateway, "istio_requests_total", &of_workload).await) < 2.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_finds_no_endpoint_is_counted_for_its_service() {
    let gateway = gateway(&config(FORWARD, &[], "HTTP")).await;
    assert_eq!(gateway.get("/a").await.0, 503);
    let line = soon(&gateway, "istio_requests_total", &["response_flags=\"UH\""]).await;
    for label in [
        "destination_service=\"up.example\"",
        "destination_service_name=\"up.example\"",
        "destination_service_namespace=\"default\"",
        "destination_workload=\"unknown\"",
        "destination_canonical_revision=\"latest\"",
        "destination_cluster=\"unknown\"",
    ] {
        assert!(line.contains(label), "{label} is not in {line}");
    }
}

#[tokio::test]
async fn ten_thousand_hosts_come_and_go_and_their_series_with_them() {
    let metrics = Metrics::new(Identity::default(), "test").unwrap();
    let registry = Registry::new(Arc::new(SystemResolver::new()), Handle::current());
    let count = || {
        let text = String::from_utf8(metrics.encode()).unwrap();
        text.lines().filter(|line| line.starts_with("istio_requests_total{")).count()
    };
    let sample = |code| Sample {
        protocol: RequestProtocol::Http,
        code,
        grpc_status: None,
        flags: Default::default(),
        duration: Duration::ZERO,
        request_bytes: 1,
        response_bytes: 1,
    };
    let round = |round: usize| {
        let compiled: routing::compile::Clusters = (0..10_000)
            .map(|n| routing::cluster::Cluster {
                spec: Arc::new(ClusterSpec::new(&format!("h{n}.r{round}.example"), 80, "")),
                endpoints: Arc::from([routing::cluster::Endpoint::at(routing::cluster::Address::Ip(
                    ([10, 0, 0, 1], 80).into(),
                ))]),
            })
            .map(|cluster| (cluster.spec.name.clone(), Arc::new(cluster)))
            .collect();
        for cluster in registry.reconcile(&Arc::new(compiled)).values() {
            let endpoint = &cluster.endpoints().all[0];
            metrics.istio.record(endpoint.target(&cluster.spec, &metrics.istio), &sample(200));
        }
    };
    for n in 0..3 {
        round(n);
    }
    // Nobody has read them meanwhile: of two of the three rounds most are forgotten all the same.
    let unread = count();
    assert!((10_000..=20_100).contains(&unread), "{unread}");
    assert_eq!(count(), 10_000, "what is gone was told once more");
    registry.reconcile(&Arc::default());
    assert_eq!(count(), 10_000);
    assert_eq!(count(), 0);
}

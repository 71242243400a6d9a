//! What is seen of a running gateway: logs in files and at a collector, and its metrics.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs,
    sync::{Arc, Mutex},
};

use boring::ssl::{SslConnector, SslMethod};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response, body::Bytes, body::Frame, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value::Value, logs::v1::LogRecord,
};
use prost::Message;

use crate::harness::*;

fn one_service(up: &Upstream) -> String {
    GATEWAY.to_owned() + &virtual_service("up", "") + &service("up", &[up.port])
}

#[test]
fn a_rotated_log_is_opened_anew_on_sighup_and_no_line_is_lost() {
    let up = Upstream::start("up");
    let limen = Limen::start(&[("all.yaml", &one_service(&up))]);
    let asked = |path: &str| assert_eq!(get(limen.port, "up.example.com", path).unwrap().status, 200);
    asked("/before");
    eventually("the first line", || limen.access_log().contains("/before").then_some(()));
    let (log, old) = (limen.logs.path().join("access.log"), limen.logs.path().join("access.log.1"));
    fs::rename(&log, &old).unwrap();
    asked("/between");
    eventually("a line in the file of old", || {
        fs::read_to_string(&old).unwrap().contains("/between").then_some(())
    });
    limen.signal("HUP");
    eventually("a new file", || log.exists().then_some(()));
    asked("/after");
    eventually("a line in the new file", || limen.access_log().contains("/after").then_some(()));
    let (old, new) = (fs::read_to_string(&old).unwrap(), limen.access_log());
    assert!(old.contains("/before") && !old.contains("/after"), "{old}");
    assert!(!new.contains("/before") && !new.contains("/between"), "{new}");
}

/// A Gateway of two ports for HTTP, and one that passes TLS for one name on.
fn ports(logged: u16, silent: u16, passed: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: public, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{name: a, protocol: HTTP, number: {logged}}}, hosts: ['*.example.com']}}
  - {{port: {{name: b, protocol: HTTP, number: {silent}}}, hosts: ['*.example.com']}}
  - {{port: {{name: c, protocol: TLS, number: {passed}}}, hosts: [up.example.com], tls: {{mode: PASSTHROUGH}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: passed, namespace: default}}
spec:
  hosts: [up.example.com]
  gateways: [istio-system/public]
  tls: [{{match: [{{sniHosts: [up.example.com]}}], route: [{{destination: {{host: up}}}}]}}]
"
    )
}

#[test]
fn ports_are_left_out_of_the_log_and_connections_without_a_server_are_in_it() {
    let up = Upstream::start("up");
    let [logged, silent, passed] = [free_port(), free_port(), free_port()];
    let all = ports(logged, silent, passed) + &virtual_service("up", "") + &service("up", &[up.port]);
    let limen = Limen::start_with(&[("all.yaml", &all)], &["--access-log-except", &silent.to_string()]);
    assert_eq!(get(silent, "up.example.com", "/silent").unwrap().status, 200);
    assert_eq!(get(logged, "up.example.com", "/logged").unwrap().status, 200);
    let connector = SslConnector::builder(SslMethod::tls()).unwrap().build();
    assert!(
        connector.connect("other.example.com", connect(passed).unwrap()).is_err(),
        "no server is for that name"
    );
    let line = eventually("a line of the connection", || {
        limen.access_log().lines().find(|line| line.contains("other.example.com")).map(str::to_owned)
    });
    assert!(line.contains(" NR filter_chain_not_found "), "{line}");
    let log = eventually("the other line", || Some(limen.access_log()).filter(|log| log.contains("/logged")));
    assert!(!log.contains("/silent"), "{log}");
}

/// Takes logs by gRPC on a port of its own, for as long as the test runs.
fn collector() -> (u16, Arc<Mutex<Vec<LogRecord>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let all = taken.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let all = all.clone();
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let all = all.clone();
                    async move {
                        assert!(request.uri().path().ends_with("LogsService/Export"), "{}", request.uri());
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let message = ExportLogsServiceRequest::decode(body.slice(5..)).unwrap();
                        let scopes = message.resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
                        all.lock().unwrap().extend(scopes.flat_map(|scope| scope.log_records));
                        let mut trailers = hyper::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
                        let frames = frames.map(Ok::<_, Infallible>);
                        Ok::<_, Infallible>(Response::new(StreamBody::new(futures::stream::iter(frames))))
                    }
                });
                tokio::spawn(async move {
                    let serving = auto::Builder::new(TokioExecutor::new());
                    drop(serving.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
    });
    (port, taken)
}

fn text(value: Option<&opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    match value.and_then(|value| value.value.clone()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("no text: {other:?}"),
    }
}

#[test]
fn records_of_requests_go_to_a_collector_as_the_configuration_says() {
    let up = Upstream::start("up");
    let (port, taken) = collector();
    let more = format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: logs, namespace: istio-system}}
spec:
  hosts: [logs.example]
  resolution: STATIC
  ports: [{{number: 4317, name: grpc, protocol: GRPC}}]
  endpoints: [{{address: 127.0.0.1, ports: {{grpc: {port}}}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
    - name: otel
      envoyOtelAls:
        service: logs.example
        port: 4317
        logFormat: {{text: '%REQ(:PATH)% %RESPONSE_CODE%', labels: {{host: '%REQ(:AUTHORITY)%'}}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {{name: logs, namespace: istio-system}}
spec:
  accessLogging:
  - providers: [{{name: otel}}]
    filter: {{expression: 'response.code == 200 && request.url_path != \"/quiet\"'}}
"
    );
    let limen = Limen::start_without_log(&[("all.yaml", &(one_service(&up) + &more))], &[]);
    for path in ["/quiet", "/told"] {
        assert_eq!(get(limen.port, "up.example.com", path).unwrap().status, 200);
    }
    let record = eventually("a record", || taken.lock().unwrap().first().cloned());
    assert_eq!(text(record.body.as_ref()), "/told 200");
    let host = record.attributes.iter().find(|pair| pair.key == "host").unwrap();
    assert_eq!(text(host.value.as_ref()), "up.example.com");
    assert!(record.time_unix_nano > 0);
    assert!(limen.access_log().is_empty());
}

#[test]
fn every_metric_of_a_running_gateway_is_on_the_page_and_a_telemetry_changes_them() {
    let up = Upstream::start("up");
    let limen = Limen::start(&[("all.yaml", &one_service(&up))]);
    for path in ["/a", "/b"] {
        assert_eq!(get(limen.port, "up.example.com", path).unwrap().status, 200);
    }
    let read = || get(limen.admin, "localhost", "/stats/prometheus").unwrap().body;
    let found = |text: &str, parts: &[&str]| {
        text.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    };
    let text = eventually("both to be counted", || {
        Some(read()).filter(|text| found(text, &["istio_requests_total{", "} 2"]).is_some())
    });
    let page = include_str!("../../docs/metrics.md");
    let on_page: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let told: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(told.len() > 25, "{told:?}");
    assert!(told.is_subset(&on_page), "not on the page: {:?}", told.difference(&on_page));

    let telemetry = "---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: metrics, namespace: istio-system}
spec:
  metrics:
  - overrides:
    - {match: {metric: REQUEST_DURATION}, disabled: true}
    - match: {metric: REQUEST_COUNT}
      tagOverrides: {path: {value: request.url_path}, response_flags: {operation: REMOVE}}
";
    limen.write("all.yaml", &(one_service(&up) + telemetry));
    let line = eventually("the label", || {
        assert_eq!(get(limen.port, "up.example.com", "/labelled").unwrap().status, 200);
        found(&read(), &["istio_requests_total{", "path=\"/labelled\""])
    });
    assert!(!line.contains("response_flags"), "{line}");
    let text = read();
    assert!(!text.contains("istio_request_duration_milliseconds"), "{text}");
    assert!(found(&text, &["istio_request_bytes_count{", "response_flags=\"-\""]).is_some(), "{text}");
}

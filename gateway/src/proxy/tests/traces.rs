//! Traces from a client's headers to a collector over real sockets: OTLP over gRPC and HTTP, and Zipkin.

use super::*;
use crate::settings::TraceDecision;
use crate::telemetry::{
    Plans, Tracing,
    collectors::Collectors,
    export::Exported,
    node::Node,
    plan::{Ground, Side, traces},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;
use std::sync::Mutex;

/// What a collector was sent: path, headers, body.
type Sent = (String, hyper::HeaderMap, Bytes);

/// Takes everything that it is sent, over HTTP/1 and HTTP/2; or never answers.
struct Collector {
    address: SocketAddr,
    sent: Arc<Mutex<Vec<Sent>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    Hangs,
}

async fn collector(mood: Mood) -> Collector {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let all = sent.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let all = all.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let all = all.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let grpc =
                        parts.headers.get("content-type").is_some_and(|kind| kind == "application/grpc");
                    let body = body.collect().await.unwrap().to_bytes();
                    all.lock().unwrap().push((parts.uri.path().to_owned(), parts.headers, body));
                    if mood == Mood::Hangs {
                        std::future::pending::<()>().await;
                    }
                    let mut trailers = hyper::HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    let frames =
                        grpc.then(|| [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)]);
                    let frames = frames.into_iter().flatten().map(Ok::<_, Infallible>);
                    let body = UnsyncBoxBody::new(StreamBody::new(futures::stream::iter(
                        frames.collect::<Vec<_>>(),
                    )));
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                drop(auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
            });
        }
    });
    Collector { address, sent }
}

impl Collector {
    async fn eventually<T>(&self, what: &str, find: impl Fn(&[Sent]) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = find(&self.sent.lock().unwrap()) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    /// At least so many spans, by OTLP.
    async fn spans(&self, count: usize) -> Vec<Span> {
        self.eventually("spans", |sent| {
            let all: Vec<Span> = sent.iter().flat_map(otlp).collect();
            (all.len() >= count).then_some(all)
        })
        .await
    }
}

fn otlp((path, _, body): &Sent) -> Vec<Span> {
    let grpc = path.starts_with("/opentelemetry.proto.collector.trace.v1.TraceService/");
    let message = if grpc { body.slice(5..) } else { body.clone() };
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn attribute(span: &Span, name: &str) -> String {
    let found: Vec<_> = span.attributes.iter().filter(|pair| pair.key == name).collect();
    assert!(found.len() <= 1, "{name} is there twice");
    match found.first().and_then(|pair| pair.value.as_ref()?.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        None => String::new(),
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A provider, and the share of requests that are traced.
fn mesh(provider: &str, percent: &str) -> String {
    let mesh = format!(
        "{{extensionProviders: [{{name: c, {provider}}}], defaultProviders: {{tracing: [c]}}, defaultConfig: {{tracing: {{sampling: {percent}, \
         customTags: {{tenant: {{header: {{name: x-tenant}}}}, stage: {{literal: {{value: test}}}}}}}}}}}}"
    );
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: \"{mesh}\"\n"
    )
}

const GRPC: &str = "opentelemetry: {service: collector.example, port: 80}";
const HTTP: &str = "opentelemetry: {service: collector.example, port: 80, http: {path: /v1/traces, timeout: 3s, headers: [{name: x-key, value: k}]}}";
const ZIPKIN: &str = "zipkin: {service: collector.example, port: 80}";

struct Traced {
    gateway: TestGateway,
    exported: Metrics,
    _collectors: Collectors,
}

/// A gateway that traces as its MeshConfig says.
async fn traced(yaml: &str) -> Traced {
    traced_by(yaml, TraceDecision::Client).await
}

async fn traced_by(yaml: &str, decision: TraceDecision) -> Traced {
    let gateway = gateway(yaml).await;
    let parsed = config_model::parse::parse("test.yaml", yaml);
    let mut set = config_model::set::ResourceSet::default();
    parsed.resources.into_iter().for_each(|r| drop(set.insert(r)));
    let (validated, _) = config_model::validate::validate(set);
    let identity = routing::compile::Identity::default();
    let (compiled, _) = routing::compile::compile(&validated, &identity);
    let node = Node {
        namespace: identity.namespace,
        labels: identity.labels,
        pod: "gw-1".to_owned(),
        domain: identity.domain,
        ..Node::default()
    };
    let ground = Ground { validated: &validated, compiled: &compiled, node: &node, environment: &|_| None };
    let (plan, findings) = traces(&ground, Side::Client);
    assert!(findings.is_empty(), "{findings:?}");
    let metrics = Metrics::new(Identity::default(), "test").unwrap();
    let exported = Exported::register(&metrics).unwrap();
    let courier = Arc::new(Caller::new(gateway.cell.clone()));
    let dropped = metrics.access_log_dropped.clone();
    let mut collectors = Collectors::new(courier, exported, dropped, Handle::current());
    let tracing = Tracing { decision, ..collectors.tracing([plan]).into_iter().next().unwrap() };
    let telemetry = Arc::new(Plans { tracing, ..Plans::default() });
    gateway.cell.publish(Snapshot { telemetry, ..Snapshot::clone(&gateway.cell.load()) });
    Traced { gateway, exported: metrics, _collectors: collectors }
}

fn with(up: &[SocketAddr], collector: &Collector, protocol: &str, mesh: &str) -> String {
    config(FORWARD, up, "HTTP") + &service("collector", collector.address, protocol) + mesh
}

fn get(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a.example\r\nUser-Agent: test/1\r\n{headers}Connection: close\r\n\r\n"
    )
}

/// The value that the upstream was sent.
fn told<'b>(body: &'b str, name: &str) -> Option<&'b str> {
    body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_request_has_a_span_of_each_side_by_grpc_and_by_http() {
    for (provider, protocol) in [(GRPC, "GRPC"), (HTTP, "HTTP")] {
        let collector = collector(Mood::Takes).await;
        let up = echo().await;
        let traced = traced(&with(&[up], &collector, protocol, &mesh(provider, "100"))).await;
        let path = format!("/shop?q={}", "x".repeat(400));
        let (status, _, body) = traced.gateway.send(&get(&path, "x-tenant: t1\r\n")).await;
        assert_eq!(status, 200);
        let spans = collector.spans(2).await;
        let [client, server] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((client.kind(), server.kind()), (SpanKind::Client, SpanKind::Server));
        assert_eq!(client.trace_id, server.trace_id);
        assert_eq!((&client.parent_span_id, server.parent_span_id.len()), (&server.span_id, 0));
        assert_eq!(
            told(&body, "traceparent").unwrap(),
            format!("00-{}-{}-01", hex(&client.trace_id), hex(&client.span_id))
        );
        assert_eq!(told(&body, "x-request-id").unwrap().as_bytes()[14], b'9');
        assert_eq!(told(&body, "x-envoy-decorator-operation"), Some("up.example:80/*"));
        assert_eq!(
            (server.name.as_str(), client.name.as_str()),
            ("up.example:80/*", "router outbound|80||up.example egress")
        );
        for (span, name, want) in [
            (server, "component", "proxy"),
            (server, "node_id", "router~~gw-1.istio-system~istio-system.svc.cluster.local"),
            (server, "guid:x-request-id", told(&body, "x-request-id").unwrap()),
            (server, "http.url", &format!("http://a.example{}", &path[..256])),
            (server, "http.method", "GET"),
            (server, "user_agent", "test/1"),
            (server, "http.protocol", "HTTP/1.1"),
            (server, "peer.address", "127.0.0.1"),
            (server, "http.status_code", "200"),
            (server, "response_flags", "-"),
            (server, "upstream_cluster", "outbound|80||up.example"),
            (server, "istio.namespace", "istio-system"),
            (server, "istio.canonical_revision", "latest"),
            (server, "tenant", "t1"),
            (server, "stage", "test"),
            (server, "http.request.method", "GET"),
            (server, "http.response.status_code", "200"),
            (server, "url.path", "/shop"),
            (server, "url.scheme", "http"),
            (server, "server.address", "a.example"),
            (server, "client.address", "127.0.0.1"),
            (server, "error", ""),
            (client, "upstream_address", &up.to_string()),
            (client, "http.protocol", "HTTP/1.1"),
            (client, "http.status_code", "200"),
            (client, "upstream_cluster.name", "outbound|80||up.example"),
            (client, "network.peer.port", &up.port().to_string()),
            (client, "tenant", "t1"),
            (client, "retry.count", ""),
        ] {
            assert_eq!(attribute(span, name), want, "{name}");
        }
        assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
        assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
        let (path, headers, _) = collector.sent.lock().unwrap()[0].clone();
        match protocol {
            "GRPC" => {
                assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                assert_eq!(headers["te"].to_str().unwrap(), "trailers");
            }
            _ => assert_eq!((path.as_str(), headers["x-key"].to_str().unwrap()), ("/v1/traces", "k")),
        }
        let counted = async {
            loop {
                let text = String::from_utf8(traced.exported.encode()).unwrap();
                if text.contains("limen_telemetry_exported_total{signal=\"traces\"} 2") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zipkin_is_sent_its_json() {
    let collector = collector(Mood::Takes).await;
    let traced = traced(&with(&[echo().await], &collector, "HTTP", &mesh(ZIPKIN, "100"))).await;
    let (_, _, body) = traced.gateway.send(&get("/shop", "")).await;
    let (path, json) = collector
        .eventually("spans", |sent| sent.first().map(|(path, _, body)| (path.clone(), body.clone())))
        .await;
    assert_eq!(path, "/api/v2/spans");
    let spans: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let (client, server) = (&spans[0], &spans[1]);
    assert_eq!((client["kind"].as_str(), server["kind"].as_str()), (Some("CLIENT"), Some("SERVER")));
    assert_eq!(client["parentId"], server["id"]);
    assert_eq!(server["localEndpoint"]["serviceName"], "istio-ingressgateway.istio-system");
    assert_eq!(server["tags"]["http.url"], "http://a.example/shop");
    assert_eq!(server["tags"]["http.status_code"], "200");
    assert!(
        server["timestamp"].as_u64().unwrap() > 1_600_000_000_000_000
            && server["duration"].as_u64() > Some(0)
    );
    assert_eq!(told(&body, "x-b3-traceid"), server["traceId"].as_str());
    assert_eq!(told(&body, "x-b3-spanid"), client["id"].as_str());
    assert_eq!(told(&body, "x-b3-parentspanid"), server["id"].as_str());
    assert_eq!(told(&body, "x-b3-sampled"), Some("1"));
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Headers of the request; then the trace, `-` for a new one, and the decision that the upstream is told, by W3C and B3: `None` for
/// nothing of ours.
type Case<'c> = (String, Option<(&'c str, u8)>, Option<(&'c str, u8)>);

#[tokio::test(flavor = "multi_thread")]
async fn contexts_are_carried_on_and_decisions_are_heard() {
    let w3c = |flags: &str| format!("traceparent: 00-{TRACE}-{SPAN}-{flags}\r\ntracestate: a=b\r\n");
    let multi = |sampled: &str| format!("x-b3-traceid: {TRACE}\r\nx-b3-spanid: {SPAN}\r\n{sampled}");
    let single = |rest: &str| format!("b3: {TRACE}-{SPAN}{rest}\r\n");
    // The columns of a collector of OTLP and of Zipkin, at 100 and at 0 percent.
    let cases: [(&str, &str, Vec<Case<'_>>); 3] = [
        (
            GRPC,
            "100",
            vec![
                (String::new(), Some(("-", 1)), None),
                (w3c("01"), Some((TRACE, 1)), None),
                (w3c("00"), Some((TRACE, 0)), None),
                ("traceparent: 00-zz-1-00\r\n".to_owned(), Some(("-", 1)), None),
                (multi("x-b3-sampled: 0\r\n"), Some((TRACE, 0)), Some((TRACE, 0))),
                (multi(""), Some((TRACE, 1)), Some((TRACE, 1))),
                (single("-1"), Some((TRACE, 1)), Some((TRACE, 1))),
                ("b3: 0\r\n".to_owned(), Some(("-", 0)), Some(("-", 0))),
            ],
        ),
        (
            GRPC,
            "0.001",
            vec![
                (String::new(), Some(("-", 0)), None),
                (w3c("01"), Some((TRACE, 1)), None),
                (multi("x-b3-flags: 1\r\n"), Some((TRACE, 1)), Some((TRACE, 1))),
                ("x-client-trace-id: mine\r\n".to_owned(), Some(("-", 1)), None),
            ],
        ),
        (
            ZIPKIN,
            "0.001",
            vec![
                (String::new(), None, Some(("-", 0))),
                (multi("x-b3-sampled: 1\r\n"), None, Some((TRACE, 1))),
                (multi(""), None, Some((TRACE, 0))),
                (single("-d"), None, Some((TRACE, 1))),
                ("b3: 1\r\n".to_owned(), None, Some(("-", 1))),
                (w3c("01"), Some((TRACE, 1)), Some((TRACE, 1))),
                ("x-client-trace-id: mine\r\n".to_owned(), None, Some(("-", 1))),
            ],
        ),
    ];
    for (provider, percent, cases) in cases {
        let collector = collector(Mood::Takes).await;
        let protocol = if provider == GRPC { "GRPC" } else { "HTTP" };
        let traced = traced(&with(&[echo().await], &collector, protocol, &mesh(provider, percent))).await;
        for (headers, w3c, b3) in cases {
            let (_, _, body) = traced.gateway.send(&get("/x", &headers)).await;
            let place = format!("{provider} {percent} {headers:?}: {body}");
            let said = told(&body, "traceparent").map(|value| {
                let parts: Vec<&str> = value.split('-').collect();
                assert_ne!(parts[2], SPAN, "a span of its own: {place}");
                (parts[1].to_owned(), parts[3].parse::<u8>().unwrap())
            });
            check(said, w3c, &place);
            let said = match told(&body, "b3") {
                Some(value) => {
                    let parts: Vec<&str> = value.split('-').collect();
                    assert_ne!(parts[1], SPAN, "a span of its own: {place}");
                    Some((parts[0].to_owned(), parts[2].parse::<u8>().unwrap()))
                }
                None => told(&body, "x-b3-traceid")
                    .map(|trace| (trace.to_owned(), told(&body, "x-b3-sampled").unwrap().parse().unwrap())),
            };
            check(said, b3, &place);
            if headers.contains("tracestate") {
                assert_eq!(told(&body, "tracestate"), Some("a=b"), "{place}");
            }
        }
    }
}

fn check(said: Option<(String, u8)>, want: Option<(&str, u8)>, place: &str) {
    match (said, want) {
        (Some((trace, sampled)), Some((wanted, decision))) => {
            assert_eq!(sampled, decision, "{place}");
            match wanted {
                "-" => assert!(trace.len() == 32 && trace != TRACE, "{place}"),
                wanted => assert_eq!(trace, wanted, "{place}"),
            }
        }
        (said, want) => assert_eq!(said.is_some(), want.is_some(), "{place}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_yes_needs_the_gateways_where_envoy_is_followed() {
    for (provider, protocol, percent, flags, want) in [
        (GRPC, "GRPC", "0", "01", "00"),
        (GRPC, "GRPC", "100", "01", "01"),
        (GRPC, "GRPC", "100", "00", "00"),
        (ZIPKIN, "HTTP", "0", "01", "01"),
    ] {
        let collector = collector(Mood::Takes).await;
        let yaml = with(&[echo().await], &collector, protocol, &mesh(provider, percent));
        let traced = traced_by(&yaml, TraceDecision::Both).await;
        let headers = format!("traceparent: 00-{TRACE}-{SPAN}-{flags}\r\n");
        let (_, _, body) = traced.gateway.send(&get("/x", &headers)).await;
        let said = told(&body, "traceparent").unwrap();
        assert!(said.starts_with(&format!("00-{TRACE}-")), "the trace goes on: {said}");
        assert!(said.ends_with(&format!("-{want}")), "{provider} at {percent} %, {flags}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_a_context_passes_as_it_came() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    let headers = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\nb3: {TRACE}-{SPAN}-1\r\n");
    let (_, _, body) = gateway.send(&get("/x", &headers)).await;
    assert_eq!(told(&body, "traceparent").unwrap(), format!("00-{TRACE}-{SPAN}-01"));
    assert_eq!(told(&body, "b3").unwrap(), format!("{TRACE}-{SPAN}-1"));
    assert_eq!(told(&body, "x-envoy-decorator-operation"), None);
    let (_, _, body) = gateway.send(&get("/x", "")).await;
    assert_eq!((told(&body, "traceparent"), told(&body, "x-b3-traceid")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_traced_requests_is_the_one_that_was_asked_for() {
    let collector = collector(Mood::Takes).await;
    let up = plays(&[OK]).await;
    let traced = traced(&with(&[up.address], &collector, "GRPC", &mesh(GRPC, "25"))).await;
    let mut stream = TcpStream::connect(traced.gateway.address).await.unwrap();
    const ALL: usize = 800;
    let served = async {
        let mut buffer = [0; 4096];
        for _ in 0..ALL {
            stream.write_all(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nok") {
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0);
                answer.extend_from_slice(&buffer[..read]);
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    let requests = up.got();
    let decision = |request: &String| {
        let request = request.to_ascii_lowercase();
        let value = |name: &str| request.lines().find_map(|l| l.strip_prefix(name)).unwrap().to_owned();
        let (id, parent) = (value("x-request-id: "), value("traceparent: "));
        // The request's id and its context say the same.
        assert_eq!(id.as_bytes()[14] == b'9', parent.ends_with("-01"), "{id} {parent}");
        parent.ends_with("-01")
    };
    let sampled = requests.iter().filter(|request| decision(request)).count();
    // Five standard deviations of a binomial distribution.
    assert!((140..=260).contains(&sampled), "{sampled} of {ALL}");
    let spans = collector.spans(2 * sampled).await;
    assert_eq!(spans.len(), 2 * sampled, "no span of a request that is not traced");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_a_span_and_replies_of_our_own_have_one() {
    let collector = collector(Mood::Takes).await;
    let rules = "  - match: [{uri: {exact: /direct}}]\n    directResponse: {status: 418}\n  - retries: {attempts: 1, backoff: 1ms, retryOn: connect-failure}\n    \
        route: [{destination: {host: up.example, port: {number: 80}}}]\n";
    let yaml = config(rules, &[nobody().await], "HTTP")
        + &service("collector", collector.address, "GRPC")
        + &mesh(GRPC, "100");
    let traced = traced(&yaml).await;
    assert_eq!(traced.gateway.get("/retried").await.0, 503);
    let spans = collector.spans(3).await;
    let [first, second, server] = &spans[..] else { panic!("{spans:?}") };
    for attempt in [first, second] {
        assert_eq!(attempt.parent_span_id, server.span_id);
        assert_eq!(attribute(attempt, "response_flags"), "UF");
        assert_eq!(attribute(attempt, "error.reason"), "remote connection failure");
        assert_eq!(attribute(attempt, "http.status_code"), "0");
        assert_eq!(attempt.status.as_ref().unwrap().code(), StatusCode::Error);
    }
    assert_ne!(first.span_id, second.span_id);
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    assert_eq!(
        (attribute(first, "retry.count"), attribute(second, "retry.count")),
        (String::new(), "1".to_owned())
    );
    assert_eq!(
        (attribute(server, "http.status_code"), attribute(server, "error")),
        ("503".to_owned(), "true".to_owned())
    );
    assert_eq!(attribute(server, "response_flags"), "UF,URX");

    assert_eq!(traced.gateway.get("/direct").await.0, 418);
    let spans = collector.spans(4).await;
    assert_eq!((spans[3].name.as_str(), spans[3].kind()), ("vs:80/direct", SpanKind::Server));
    traced.gateway.send("GET /none HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n").await;
    let spans = collector.spans(5).await;
    assert_eq!(spans[4].name, "egress b.example");
    assert_eq!(
        (attribute(&spans[4], "http.status_code"), attribute(&spans[4], "response_flags")),
        ("404".to_owned(), "NR".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_is_away_slows_nobody() {
    let hanging = collector(Mood::Hangs).await;
    let away = Collector { address: nobody().await, sent: Arc::default() };
    for collector in [hanging, away] {
        let traced = traced(&with(&[echo().await], &collector, "GRPC", &mesh(GRPC, "100"))).await;
        let began = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(traced.gateway.get("/x").await.0, 200);
        }
        // The collector is given seconds; a request that waited for it once would show.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
}

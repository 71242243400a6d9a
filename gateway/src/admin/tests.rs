//! The endpoints over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Mutex,
};

use serde_json::Value;

use super::*;
use crate::{
    cli,
    listener::BindOptions,
    pipeline::{
        Pipeline, Step,
        testing::{GATEWAY, Recorder, pipeline_with, virtual_service},
    },
    proxy::{GatewayProxy, HttpHandler},
    snapshot::Snapshot,
    source::fixed::Fixed,
};

/// Shows up nowhere.
const SECRET: &str = "---
apiVersion: v1
kind: Secret
metadata: {name: hidden, namespace: istio-system}
stringData: {tls.key: swordfish}
";

struct Rig {
    admin: Arc<Admin>,
    address: SocketAddr,
    pipeline: Pipeline,
    recorder: Recorder,
    level: Arc<Mutex<String>>,
    _stop: watch::Sender<bool>,
}

fn rig(surface: Surface) -> Rig {
    let config = [GATEWAY, &virtual_service("shop", "shop.example", 301), SECRET].concat();
    rig_with(surface, "a.yaml", &config)
}

fn rig_with(surface: Surface, file: &str, config: &str) -> Rig {
    rig_on(surface, (file, config), BindOptions::default())
}

fn rig_on(surface: Surface, (file, config): (&str, &str), bind: BindOptions) -> Rig {
    let metrics = Arc::new(Metrics::new(Default::default(), "test").unwrap());
    let snapshots = Arc::new(SnapshotCell::default());
    let proxy = GatewayProxy::new(snapshots.clone(), metrics.clone(), None);
    let listeners = ListenerManager::new(
        snapshots.clone(),
        Arc::new(HttpHandler::new(proxy, 1)),
        bind,
        std::time::Duration::ZERO,
    );
    let (source, _handle) = Fixed::yaml(file, config);
    let (pipeline, recorder, status) = pipeline_with(source, &metrics);
    let level = Arc::new(Mutex::new(String::new()));
    let seen = level.clone();
    let admin = Arc::new(Admin {
        status,
        snapshots,
        listeners,
        drain: Arc::new(DrainController::new()),
        metrics,
        level: LevelHandle::new(move |filter| {
            *seen.lock().unwrap() = filter.to_owned();
            Ok(())
        }),
        access: Access::Local,
        history: History::default(),
        port_map: [(80, 8080)].into(),
        started: Instant::now(),
        was_ready: false.into(),
    });
    let bound = Bound::new(SocketAddr::from(([127, 0, 0, 1], 0)), surface).unwrap();
    let address = bound.address().unwrap();
    let (stop, stopped) = watch::channel(false);
    let _thread = spawn(admin.clone(), vec![bound], stopped).unwrap();
    Rig { admin, address, pipeline, recorder, level, _stop: stop }
}

impl Rig {
    fn ask(&self, method: &str, target: &str, host: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn get(&self, target: &str) -> (u16, String) {
        self.ask("GET", target, "localhost:15000")
    }

    fn json(&self, target: &str) -> Value {
        let (status, body) = self.get(target);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn readiness_follows_the_first_configuration_and_the_drain() {
    let mut rig = rig(Surface::Status);
    assert_eq!(rig.get("/healthz/ready").0, 503);
    assert_eq!(rig.pipeline.step().await, Step::Published);
    assert_eq!(rig.get("/healthz/ready").0, 200);
    rig.admin.drain.start();
    assert_eq!(rig.get("/healthz/ready"), (503, "draining\n".to_owned()));
    assert_eq!(rig.get("/config_dump").0, 404, "the status port shows nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_task_has_died_is_answered_with_503() {
    let config = [GATEWAY, &virtual_service("shop", "shop.example", 301)].concat();
    let bind = BindOptions { ports: [(80, 0)].into(), ..BindOptions::default() };
    let mut rig = rig_on(Surface::Status, ("a.yaml", &config), bind);
    assert_eq!(rig.pipeline.step().await, Step::Published);
    let listeners = rig.recorder.last().compiled.listeners.clone();
    rig.admin.snapshots.publish(Snapshot { generation: 1, listeners, ..Snapshot::default() });
    let running = rig.admin.listeners.clone();
    let following = tokio::spawn(async move { running.run(2).await });
    let answers = |wants: (u16, &str)| {
        let began = Instant::now();
        while rig.get("/healthz/ready") != (wants.0, format!("{}\n", wants.1)) {
            assert!(began.elapsed().as_secs() < 20, "{:?}", rig.get("/healthz/ready"));
            std::thread::yield_now();
        }
    };
    answers((200, "ready"));
    rig.admin.listeners.lose_a_loop();
    answers((503, "a task of a listener has died"));
    following.abort();
    answers((503, "nobody opens and closes listeners any more"));
}

#[tokio::test]
async fn what_is_in_force_is_shown_and_no_secret_is() {
    let mut rig = rig(Surface::Admin);
    assert_eq!(rig.get("/config_dump").0, 503);
    assert_eq!(rig.json("/server_info")["state"], "INITIALIZING");
    assert_eq!(rig.pipeline.step().await, Step::Published);
    let dump = rig.json("/config_dump");
    let section = |dump: &Value, name: &str| {
        let name = format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump");
        dump["configs"].as_array().unwrap().iter().find(|config| config["@type"] == name.as_str()).cloned()
    };
    assert!(section(&dump, "Endpoints").is_none(), "only where include_eds asks for it");
    let routes = section(&dump, "Routes").unwrap();
    let routes = &routes["dynamic_route_configs"][0]["route_config"];
    assert_eq!(routes["@type"], "type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
    let host = &routes["virtual_hosts"][0];
    assert_eq!((&host["name"], &host["domains"][0]), (&"shop.example:80".into(), &"shop.example".into()));
    assert_eq!(
        host["routes"][0]["metadata"]["filter_metadata"]["istio"]["config"],
        "/apis/networking.istio.io/v1alpha3/namespaces/default/virtual-service/shop"
    );
    let listeners = section(&rig.json("/config_dump?include_eds"), "Listeners").unwrap();
    let listener = &listeners["dynamic_listeners"][0]["active_state"]["listener"];
    assert_eq!(
        listener["address"]["socket_address"],
        serde_json::json!({"address": "0.0.0.0", "port_value": 80})
    );
    let filter = &listener["filter_chains"][0]["filters"][0];
    assert_eq!(filter["name"], "envoy.filters.network.http_connection_manager");
    assert_eq!(filter["typed_config"]["rds"]["route_config_name"], routes["name"]);
    assert!(rig.json("/server_info")["node"]["id"].as_str().unwrap().starts_with("router~"));
    assert_eq!(rig.json("/config_dump?table=listeners")[0]["port"], 80);
    let answer = rig.json("/explain?url=http%3A%2F%2Fshop.example%3A8080%2F");
    assert_eq!((&answer["verdict"], &answer["response"]["status"]), (&"redirect".into(), &301.into()));
    assert_eq!(rig.get("/explain?url=ftp://x").0, 400);
    assert_eq!(rig.json("/diagnostics")["resources"], 3);
    assert_eq!(rig.json("/server_info")["state"], "LIVE");
    for path in [
        "/",
        "/graph",
        "/generations",
        "/config_dump",
        "/clusters",
        "/listeners?format=json",
        "/certs",
        "/diagnostics",
    ] {
        let (status, body) = rig.get(path);
        assert_eq!(status, 200, "{path}");
        assert!(!body.contains("swordfish"), "{path}");
    }
}

#[test]
fn what_changes_something_takes_post_and_a_local_name() {
    let rig = rig(Surface::Admin);
    assert_eq!(rig.get("/drain").0, 405);
    assert_eq!(rig.ask("POST", "/drain", "evil.example").0, 403);
    assert_eq!(rig.admin.drain.state(), DrainState::Live);
    assert_eq!(rig.ask("POST", "/logging?level=debug", "127.0.0.1").0, 200);
    assert_eq!(*rig.level.lock().unwrap(), "debug");
    let evil = "localhost\r\norigin: http://evil.example";
    assert_eq!(rig.ask("POST", "/drain", evil).0, 403);
    assert_eq!(rig.ask("POST", "/logging", "[::1]:15000").0, 400);
    assert_eq!(rig.ask("POST", "/drain", "127.0.0.1:15000").0, 200);
    assert_eq!(rig.admin.drain.state(), DrainState::Draining);
    assert_eq!(rig.json("/server_info")["state"], "DRAINING");
    assert_eq!(rig.ask("POST", "/quitquitquit", "localhost").0, 200);
    assert_eq!(rig.admin.drain.state(), DrainState::Quitting);
}

#[tokio::test]
async fn metrics_are_on_their_port_alone() {
    let mut rig = rig(Surface::Metrics);
    assert_eq!(rig.pipeline.step().await, Step::Published);
    let (status, body) = rig.get("/stats/prometheus");
    assert_eq!(status, 200);
    assert!(body.contains("limen_config_synchronized 1") && body.contains("istio_build"), "{body}");
    assert_eq!(rig.get("/server_info").0, 404);
}

#[tokio::test]
async fn diagnostics_are_those_of_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let text = [GATEWAY, &virtual_service("shop", "shop.example", 999), "---\nkind: [\n"].concat();
    std::fs::write(&file, &text).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments =
        ["limen", "check", "--output", "json", &file.to_string_lossy()].map(std::ffi::OsString::from);
    let _failed = cli::main(arguments, &mut cli::Output::new(&mut out, &mut err, cli::Reader::Program));
    let mut rig = rig_with(Surface::Admin, &file.to_string_lossy(), &text);
    assert_eq!(rig.pipeline.step().await, Step::Published);
    let served = rig.json("/diagnostics");
    assert_eq!(served["findings"].as_array().unwrap().len(), 2, "{served}");
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), served);
}

/// Clusters and endpoints, read as `istioctl proxy-config cluster` and `endpoint` read them; certificates without their keys.
#[tokio::test]
async fn istioctl_finds_its_fields() {
    let config = [
        GATEWAY,
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example]
  gateways: [door]
  http:
  - match: [{uri: {exact: /a}, headers: {x: {exact: y}}}]
    route:
    - {destination: {host: far.example}, weight: 90}
    - {destination: {host: far.example, subset: v2}, weight: 10}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far}
spec:
  hosts: [far.example]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.9, locality: r/z, labels: {v: '2'}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: far}
spec: {host: far.example, subsets: [{name: v2, labels: {v: '2'}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: safe, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [safe.example], tls: {mode: SIMPLE, credentialName: pair}}
---
apiVersion: v1
kind: Secret
metadata: {name: pair, namespace: istio-system}
stringData: {tls.key: swordfish, tls.crt: \"-----BEGIN CERTIFICATE-----\\nQQ==\\n-----END CERTIFICATE-----\\nswordfish\"}
",
    ]
    .concat();
    let mut rig = rig_with(Surface::Admin, "a.yaml", &config);
    assert_eq!(rig.pipeline.step().await, Step::Published);
    let (status, text) = rig.get("/config_dump?include_eds");
    assert_eq!(status, 200);
    let dump: Value = serde_json::from_str(&text).unwrap();
    let configs = dump["configs"].as_array().unwrap();
    let of = |name: &str| configs.iter().find(|c| c["@type"].as_str().unwrap().contains(name)).unwrap();
    let clusters = of("ClustersConfigDump")["dynamic_active_clusters"].as_array().unwrap();
    let v2 =
        clusters.iter().map(|c| &c["cluster"]).find(|c| c["name"] == "outbound|80|v2|far.example").unwrap();
    assert_eq!(
        v2["metadata"]["filter_metadata"]["istio"]["config"],
        "/apis/networking.istio.io/v1alpha3/namespaces/default/destination-rule/far"
    );
    let routes = &of("RoutesConfigDump")["dynamic_route_configs"];
    let route = &routes.as_array().unwrap().iter().find(|r| r["route_config"]["name"] == "http.80").unwrap()
        ["route_config"]["virtual_hosts"][0]["routes"][0];
    assert_eq!(route["match"]["path"], "/a");
    assert_eq!(route["match"]["headers"][0]["string_match"]["exact"], "y");
    assert_eq!(route["route"]["weighted_clusters"]["clusters"][1]["weight"], 10);
    assert!(of("EndpointsConfigDump")["dynamic_endpoint_configs"].is_array());
    let secret = &of("SecretsConfigDump")["dynamic_active_secrets"][0];
    assert_eq!(secret["name"], "kubernetes://istio-system/pair");
    let pair = &secret["secret"]["tls_certificate"];
    assert_eq!(pair["private_key"]["inline_bytes"], "W3JlZGFjdGVkXQ==", "[redacted]");
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let chain = STANDARD.decode(pair["certificate_chain"]["inline_bytes"].as_str().unwrap()).unwrap();
    let chain = String::from_utf8(chain).unwrap();
    assert!(chain.contains("QQ==") && !chain.contains("swordfish"), "{chain}");
    assert!(!text.contains("swordfish"));
    assert!(rig.json("/clusters?format=json")["cluster_statuses"].is_array());
    assert_eq!(rig.json("/certs")["certificates"], serde_json::json!([]), "no such pair can be loaded");
}

#[test]
fn an_address_for_others_asks_for_the_token() {
    let rig = rig(Surface::Admin);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "sesame").unwrap();
    let far: SocketAddr = "0.0.0.0:15000".parse().unwrap();
    let request = |token: Option<&str>| {
        let mut request = http::Request::get("/server_info").header("host", "gateway.example");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(()).unwrap()
    };
    let mut admin = Admin {
        status: rig.admin.status.clone(),
        snapshots: rig.admin.snapshots.clone(),
        listeners: rig.admin.listeners.clone(),
        drain: rig.admin.drain.clone(),
        metrics: rig.admin.metrics.clone(),
        level: LevelHandle::new(|_| Ok(())),
        access: Access::Local,
        history: History::default(),
        port_map: BTreeMap::new(),
        started: Instant::now(),
        was_ready: false.into(),
    };
    admin.access = Access::new(far, Some(&file)).unwrap();
    let ask = |admin: &Admin, token| answer::answer(admin, Surface::Admin, &request(token)).status().as_u16();
    assert_eq!((ask(&admin, None), ask(&admin, Some("x")), ask(&admin, Some("sesame"))), (401, 401, 200));
    admin.access = Access::new(far, None).unwrap();
    assert_eq!(ask(&admin, Some("sesame")), 401, "without a token file nobody gets in");
}

#[tokio::test]
async fn the_page_has_what_it_asks_for() {
    let mut rig = rig(Surface::Admin);
    assert_eq!(rig.get("/graph").0, 503);
    assert_eq!(rig.pipeline.step().await, Step::Published);
    let mut stream = TcpStream::connect(rig.address).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(
        page.to_lowercase().contains("content-security-policy: default-src 'none'; script-src 'sha256-"),
        "{page}"
    );
    let graph = rig.json("/graph");
    assert_eq!(graph["servers"][0]["gateway"], "default/door");
    let rule = &graph["tables"][0]["hosts"][0]["rules"][0];
    assert_eq!((&rule["virtual_service"], &rule["action"]), (&"default/shop".into(), &"redirect 301".into()));
    assert_eq!(rule["file"], "a.yaml");
    let told = rig.json("/generations");
    let first = &told["generations"][0];
    assert_eq!((&first["generation"], &first["added"]["count"]), (&1.into(), &3.into()), "{told}");
    assert_eq!((&first["changed"]["count"], &first["removed"]["count"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn events_arrive_while_the_connection_is_open() {
    let mut rig = rig(Surface::Admin);
    assert_eq!(rig.pipeline.step().await, Step::Published);
    let sample = crate::telemetry::istio::Sample {
        protocol: crate::telemetry::istio::RequestProtocol::Http,
        code: 200,
        grpc_status: None,
        flags: Default::default(),
        duration: std::time::Duration::from_millis(7),
        request_bytes: 1,
        response_bytes: 1,
    };
    let metrics = &rig.admin.metrics.istio;
    metrics.record(metrics.nowhere(), &sample);
    let mut stream = std::io::BufReader::new(TcpStream::connect(rig.address).unwrap());
    write!(stream.get_mut(), "GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut next = || {
        loop {
            let mut line = String::new();
            assert!(std::io::BufRead::read_line(&mut stream, &mut line).unwrap() > 0, "the stream ended");
            if let Some(event) = line.strip_prefix("data: ") {
                return serde_json::from_str::<Value>(event).unwrap();
            }
        }
    };
    let first = next();
    let service = &first["services"]["unknown"];
    assert_eq!(service["codes"]["200"], 1, "{first}");
    assert_eq!(service["buckets"][2], 0, "5 ms");
    assert_eq!(service["buckets"][3], 1, "10 ms");
    let built = rig.admin.status.built().unwrap();
    let rule = crate::report::table::each_chain(&built.compiled)
        .flat_map(|(_, _, chain)| chain.table.hosts().iter().flat_map(|(_, host)| host.routes()))
        .next()
        .unwrap();
    rule.taken.count(503, 3);
    let told = loop {
        let event = next();
        if let Some(told) = event["rules"].as_array().unwrap().first() {
            break told.clone();
        }
    };
    assert_eq!(told["virtual_service"], *rule.origin.virtual_service, "{told}");
    assert_eq!(told["classes"], serde_json::json!([0, 0, 0, 0, 0, 1]));
    assert_eq!(
        (&told["buckets"][2], &told["buckets"][3], &told["buckets"][19]),
        (&0.into(), &1.into(), &1.into())
    );
    metrics.record(metrics.nowhere(), &sample);
    while next()["services"]["unknown"]["codes"]["200"] != 2 {}
}

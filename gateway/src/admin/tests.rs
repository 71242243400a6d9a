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
        testing::{GATEWAY, pipeline_with, virtual_service},
    },
    proxy::{GatewayProxy, HttpHandler},
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
    level: Arc<Mutex<String>>,
    _stop: watch::Sender<bool>,
}

fn rig(surface: Surface) -> Rig {
    let config = [GATEWAY, &virtual_service("shop", "shop.example", 301), SECRET].concat();
    rig_with(surface, "a.yaml", &config)
}

fn rig_with(surface: Surface, file: &str, config: &str) -> Rig {
    let metrics = Arc::new(Metrics::new(Default::default(), "test").unwrap());
    let snapshots = Arc::new(SnapshotCell::default());
    let proxy = GatewayProxy::new(snapshots.clone(), metrics.clone(), None);
    let listeners = ListenerManager::new(
        snapshots.clone(),
        Arc::new(HttpHandler::new(proxy, 1)),
        BindOptions::default(),
        std::time::Duration::ZERO,
    );
    let (source, _handle) = Fixed::yaml(file, config);
    let (pipeline, _recorder, status) = pipeline_with(source, &metrics);
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
        port_map: [(80, 8080)].into(),
        started: Instant::now(),
        was_ready: false.into(),
    });
    let bound = Bound::new(SocketAddr::from(([127, 0, 0, 1], 0)), surface).unwrap();
    let address = bound.address().unwrap();
    let (stop, stopped) = watch::channel(false);
    let _thread = spawn(admin.clone(), vec![bound], stopped).unwrap();
    Rig { admin, address, pipeline, level, _stop: stop }
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

#[tokio::test]
async fn what_is_in_force_is_shown_and_no_secret_is() {
    let mut rig = rig(Surface::Admin);
    assert_eq!(rig.get("/config_dump").0, 503);
    assert_eq!(rig.json("/server_info")["state"], "INITIALIZING");
    assert_eq!(rig.pipeline.step().await, Step::Published);
    let dump = rig.json("/config_dump");
    assert_eq!(dump["hosts"][0]["domain"], "shop.example");
    assert_eq!(rig.json("/config_dump?table=listeners")[0]["port"], 80);
    let answer = rig.json("/explain?url=http%3A%2F%2Fshop.example%3A8080%2F");
    assert_eq!((&answer["verdict"], &answer["response"]["status"]), (&"redirect".into(), &301.into()));
    assert_eq!(rig.get("/explain?url=ftp://x").0, 400);
    assert_eq!(rig.json("/diagnostics")["resources"], 3);
    assert_eq!(rig.json("/server_info")["state"], "LIVE");
    for path in ["/", "/config_dump", "/clusters", "/listeners?format=json", "/certs", "/diagnostics"] {
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

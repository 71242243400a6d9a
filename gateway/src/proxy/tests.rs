//! The request path over real sockets: configuration as users write it, listeners on port 0, upstreams in process.

mod actions;
mod annotated;
mod bodies;
mod connections;
mod details;
mod differential;
mod failures;
mod filters;
mod heads;
mod hostile;
mod metrics;
mod mirrors;
mod overload;
mod policies;
mod protocols;
mod resumption;
mod retries;
mod security;
mod tcp;
mod timeouts;
mod traces;
mod upstream_tls;
mod upstreams;
mod values;
mod wrapped;

use super::*;
use crate::{
    edge::{EdgeConfig, EdgeFlags},
    jwt::store::{KeyStore, Pace},
    listener::{BindOptions, BoundAddress, ListenerManager},
    policy::{Chain, Given, Limits, builtin},
    runtime::{Registry, registry::FIRST_RESOLUTION, resolver::SystemResolver},
    snapshot::Snapshot,
    telemetry::{
        Identity,
        access_log::{Format, Target},
    },
    testing::{Act, FORWARD, PATIENCE, Upstream, config, nobody, read_request, service},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::JoinHandle,
};

struct TestGateway {
    manager: ListenerManager,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    log: PathBuf,
    cell: Arc<SnapshotCell>,
    registry: Registry,
    serving: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn publish(cell: &SnapshotCell, registry: &Registry, yaml: &str) {
    let parsed = config_model::parse::parse("test.yaml", yaml);
    assert!(!parsed.diagnostics.has_errors(), "{:?}", parsed.diagnostics);
    let mut set = config_model::set::ResourceSet::default();
    parsed.resources.into_iter().for_each(|r| drop(set.insert(r)));
    let (validated, diagnostics) = config_model::validate::validate(set);
    assert!(
        diagnostics.iter().all(|d| d.effect != config_model::diagnostic::Effect::Rejected),
        "{diagnostics:?}"
    );
    let (compiled, diagnostics) =
        routing::compile::compile(&validated, &routing::compile::Identity::default());
    let clusters = registry.reconcile(&compiled.clusters);
    registry.settle(&clusters, FIRST_RESOLUTION).await;
    let calls = Arc::default();
    let means = builtin::Means {
        keys: &KeyStore::new(Handle::current(), Pace::default(), None),
        metrics: &Arc::new(
            builtin::SecurityMetrics::register(&Metrics::new(Identity::default(), "test").unwrap()).unwrap(),
        ),
        limits: &Limits::default(),
        service: &|provider| ask::service(&calls, &clusters, provider),
    };
    let (policies, gate) =
        (Given::default().among(&builtin::configured(&compiled, &means)), builtin::gate(&compiled, &means));
    let policies = if policies.is_empty() { cell.load().policies.clone() } else { policies };
    cell.publish(Snapshot {
        generation: cell.load().generation + 1,
        listeners: compiled.listeners.clone(),
        clusters,
        diagnostics: Arc::new(diagnostics),
        policies,
        gate,
        edge: Arc::new(EdgeConfig::new(validated.mesh(), &EdgeFlags::default())),
        ..Snapshot::default()
    });
}

async fn gateway(yaml: &str) -> TestGateway {
    gateway_with(yaml, Registry::new(Arc::new(SystemResolver::new()), Handle::current())).await
}

async fn gateway_with(yaml: &str, registry: Registry) -> TestGateway {
    start(yaml, registry, Chain::new()).await
}

async fn start(yaml: &str, registry: Registry, policies: Chain) -> TestGateway {
    let cell = Arc::new(SnapshotCell::default());
    cell.publish(Snapshot { policies, ..Snapshot::default() });
    publish(&cell, &registry, yaml).await;
    let metrics = Arc::new(Metrics::new(Identity::default(), "test").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let target = Target::File(log.as_path().into());
    let access_log =
        AccessLog::start(Format::istio_text().unwrap(), &target, metrics.access_log_dropped.clone()).unwrap();
    let proxy = GatewayProxy::new(cell.clone(), metrics.clone(), Some(Arc::new(access_log)));
    let handler = Arc::new(HttpHandler::new(proxy, 1));
    let address = Some("127.0.0.1".parse().unwrap());
    let bind = BindOptions { address, ports: BTreeMap::from([(80, 0)]), ..BindOptions::default() };
    let manager = ListenerManager::new(cell.clone(), handler, bind, Duration::from_millis(100));
    let snapshot = cell.load();
    assert!(!snapshot.listeners.is_empty(), "{:?}", snapshot.diagnostics);
    assert!(manager.prepare(&snapshot.listeners).is_empty());
    let serving = tokio::spawn({
        let manager = manager.clone();
        async move { manager.run(1).await }
    });
    let bound = async {
        while !manager.all_bound() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, bound).await.unwrap();
    let address = match manager.bound().into_values().next().unwrap() {
        BoundAddress::Tcp(address) => SocketAddr::from(([127, 0, 0, 1], address.port())),
        BoundAddress::Unix(path) => panic!("bound {path:?}"),
    };
    TestGateway { address, manager, metrics, log, cell, registry, serving, _folder: folder }
}

impl TestGateway {
    /// Sends bytes and reads until the gateway closes.
    async fn raw(&self, request: &str) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await.unwrap();
            String::from_utf8_lossy(&response).into_owned()
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("the gateway answers and closes")
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")).await
    }

    async fn send(&self, request: &str) -> (u16, String, String) {
        let text = self.raw(request).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    /// The first line of the access log that contains `what`.
    async fn line(&self, what: &str) -> String {
        let found = async {
            loop {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                if let Some(line) = text.lines().find(|l| l.contains(what)) {
                    return line.to_owned();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no line with {what}"))
    }
}

/// Says what it was asked: request line, then headers in order of arrival.
async fn echo() -> SocketAddr {
    Upstream::echo().await.address()
}

/// Reads a head, writes `answer`, then echoes what comes until the other side closes, or closes itself.
async fn scripted(answer: &'static str, then_echo: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(b) => head.push(b),
                        Err(_) => return,
                    }
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                if !then_echo {
                    return;
                }
                let mut buffer = [0; 1024];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => stream.write_all(&buffer[..n]).await.unwrap(),
                    }
                }
            });
        }
    });
    address
}

const OK: Act = Act::OK;
const HANG: Act = Act::SayAndHang("");
const LEAVE: Act = Act::SayAndLeave("");

/// An upstream and the requests that it got, each as text with its body.
struct Player {
    address: SocketAddr,
    upstream: Upstream,
}

impl Player {
    fn got(&self) -> Vec<String> {
        self.upstream.seen().iter().map(|seen| seen.text().to_owned()).collect()
    }
}

/// Plays one act for each request that it has read whole, the last one for all that follow.
async fn plays(acts: &[Act]) -> Player {
    let upstream = Upstream::plays(acts).await;
    Player { address: upstream.address(), upstream }
}

/// A client's connection that speaks HTTP/2.
async fn http2(gateway: &TestGateway) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

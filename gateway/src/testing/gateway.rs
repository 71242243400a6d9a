//! A gateway in this process.

use super::{Answer, PATIENCE, eventually};
use crate::{
    Exit, Gateway, GatewayBuilder, GatewayHandle, Signals,
    settings::AccessLogFormat,
    source::{Loaded, Source, fixed},
};
use async_trait::async_trait;
use bytes::Bytes;
use config_model::diagnostic::{Diagnostics, Severity};
use http::{HeaderValue, Request, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

/// A gateway that serves on loopback, on ports that the system chose, from YAML given as text.
///
/// It is Istio's ingress gateway by its labels (`istio: ingressgateway`), has a thread of its own, drains at once, and ends when it is
/// dropped. See [`testing`](super) for an example.
pub struct TestGateway {
    handle: GatewayHandle,
    feed: mpsc::UnboundedSender<(Loaded, oneshot::Sender<()>)>,
    log: Log,
    serving: Option<thread::JoinHandle<io::Result<Exit>>>,
}

impl TestGateway {
    /// Starts one, and returns when it serves.
    ///
    /// # Panics
    /// When the configuration has errors, or the gateway does not start.
    pub async fn start(yaml: &str) -> TestGateway {
        TestGateway::with(yaml, |gateway| gateway).await
    }

    /// Starts one that `change` has its say about: policies, settings, a wrapped proxy.
    ///
    /// # Panics
    /// When the configuration has errors, or the gateway does not start.
    pub async fn with(yaml: &str, change: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> TestGateway {
        let (feed, states) = mpsc::unbounded_channel();
        let (taken, _) = oneshot::channel();
        assert!(feed.send((fixed::read("test.yaml", yaml), taken)).is_ok());
        let log = Log::default();
        let builder = Gateway::builder()
            .source(Feed { states, taken: None })
            .bind(Ipv4Addr::LOCALHOST)
            .any_ports()
            .signals(Signals::Ignore)
            .access_log(AccessLogFormat::Text, log.clone())
            .with(|settings| {
                settings.threads = 1;
                settings.access_log = Some(AccessLogFormat::Off);
                settings.min_drain_time = Duration::ZERO;
                settings.drain_time = Duration::from_secs(5);
            });
        let builder = change(builder);
        let gateway = tokio::task::spawn_blocking(move || builder.build()).await.unwrap();
        let gateway = gateway.unwrap_or_else(|error| panic!("the gateway does not start: {error}"));
        let handle = gateway.handle();
        none_wrong(&handle.findings());
        let serving = Some(thread::spawn(move || gateway.run()));
        let gateway = TestGateway { handle, feed, log, serving };
        timeout(PATIENCE, gateway.handle.ready()).await.expect("every listener accepts");
        gateway
    }

    /// Replaces the configuration, and returns when it is in force.
    ///
    /// # Panics
    /// When it has errors.
    pub async fn configure(&self, yaml: &str) {
        let findings = self.try_configure(yaml).await;
        none_wrong(&findings);
    }

    /// Replaces the configuration by one that may have errors, and returns what was found when it is in force.
    pub async fn try_configure(&self, yaml: &str) -> Arc<Diagnostics> {
        let (taken, done) = oneshot::channel();
        assert!(self.feed.send((fixed::read("test.yaml", yaml), taken)).is_ok(), "nobody reads");
        timeout(PATIENCE, done).await.expect("the configuration is taken up").expect("it is read");
        self.handle.findings()
    }

    /// By which it is looked at and ended.
    #[must_use]
    pub fn handle(&self) -> &GatewayHandle {
        &self.handle
    }

    /// Where the port `port` of Gateways is served.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        self.handle.address(port).unwrap_or_else(|| panic!("no listener on port {port}"))
    }

    /// Gets what the URL names: its host goes into `Host`, its port (80 where it has none) says which listener is asked.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub async fn get(&self, url: &str) -> Answer {
        self.send(Request::get(url).body("").expect("a URL")).await
    }

    /// Sends a request with an absolute URL over HTTP/1.1, on a connection of its own.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub async fn send(&self, request: Request<impl Into<Bytes>>) -> Answer {
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().expect("an absolute URL").clone();
        let host = HeaderValue::from_str(authority.as_str()).expect("a host");
        parts.headers.entry(header::HOST).or_insert(host);
        let target = parts.uri.path_and_query().cloned();
        parts.uri = target.unwrap_or(PathAndQuery::from_static("/")).into();
        let exchange = async {
            let stream = self.connect(authority.port_u16().unwrap_or(80)).await;
            let (mut client, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
            tokio::spawn(connection);
            let request = Request::from_parts(parts, Full::new(body.into()));
            let (parts, body) = client.send_request(request).await.expect("an answer").into_parts();
            let body = body.collect().await.expect("a whole answer").to_bytes();
            Answer { status: parts.status, headers: parts.headers, body }
        };
        timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    /// Sends bytes to the port `port` of Gateways, and reads until the gateway closes.
    ///
    /// # Panics
    /// When it does not.
    pub async fn raw(&self, port: u16, bytes: impl AsRef<[u8]>) -> String {
        let exchange = async {
            let mut stream = self.connect(port).await;
            stream.write_all(bytes.as_ref()).await.expect("the gateway reads");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("the gateway closes in order");
            String::from_utf8_lossy(&answer).into_owned()
        };
        timeout(PATIENCE, exchange).await.expect("the gateway answers and closes")
    }

    /// A connection to the port `port` of Gateways.
    ///
    /// # Panics
    /// When nothing is there.
    pub async fn connect(&self, port: u16) -> TcpStream {
        TcpStream::connect(self.address(port)).await.expect("the gateway accepts")
    }

    /// The first line of the access log, in Istio's text, that contains `what`, once it is there.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn log_line(&self, what: &str) -> String {
        let find = || self.log.text().lines().find(|line| line.contains(what)).map(str::to_owned);
        eventually(&format!("a line with {what}"), find).await
    }

    /// All metrics in Prometheus' text format. They are counted a moment after the client has its answer: [`eventually`].
    #[must_use]
    pub fn metrics(&self) -> String {
        self.handle.metrics()
    }

    /// Drains it, and returns how that ended.
    pub async fn stop(mut self) -> Exit {
        self.handle.drain();
        let serving = self.serving.take().expect("it is stopped once");
        let ended = tokio::task::spawn_blocking(move || serving.join()).await.unwrap();
        ended.expect("no panic").expect("it served")
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.handle.quit();
    }
}

fn none_wrong(findings: &Diagnostics) {
    let wrong: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(wrong.is_empty(), "the configuration has errors: {wrong:#?}");
}

/// A source that is told each state, and tells when it was taken up: that is when the next is asked for.
struct Feed {
    states: mpsc::UnboundedReceiver<(Loaded, oneshot::Sender<()>)>,
    taken: Option<oneshot::Sender<()>>,
}

#[async_trait]
impl Source for Feed {
    fn describe(&self) -> String {
        "a test".to_owned()
    }

    async fn next(&mut self) -> Option<Loaded> {
        if let Some(taken) = self.taken.take() {
            // The first state is waited for otherwise.
            let _ = taken.send(());
        }
        let (state, taken) = self.states.recv().await?;
        self.taken = Some(taken);
        Some(state)
    }
}

/// Lines of the access log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

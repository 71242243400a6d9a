//! The edge over real sockets: port 0, a handler that answers each request with what it knows of the connection.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use boring::{
    hash::MessageDigest,
    pkey::PKey,
    ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion},
    x509::X509,
};
use config_model::{
    diagnostic::Severity, istio::gateway::ServerTlsMode, kubernetes::Secret, scalar::SecretBytes,
};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora_core::{
    apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp},
    protocols::{Stream, http::ServerSession},
    server::ShutdownWatch,
};
use pingora_http::ResponseHeader;
use routing::{
    host::HostIndex,
    listener::{
        Bind, CertificateSource, Chains, ClientAuth, ClientRoots, FilterChain, Listener, ListenerKey,
        Listeners, ServerTls, TcpRoute, TlsVersion,
    },
    table::RouteTable,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use super::*;
use crate::{
    drain::DrainController,
    edge::ConnectionLimits,
    shutdown::{DrainTimes, Exit, drained},
    tls::test_keys::{Secrets, ecdsa, rsa},
};

mod lifecycle;
mod limits;
mod matched;
mod protocols;
mod tls;

const PATIENCE: Duration = Duration::from_secs(20);

struct Live {
    state: Mutex<(Listeners, Arc<Certificates>)>,
    edge: Arc<EdgeConfig>,
    generation: watch::Sender<u64>,
}

impl Live {
    fn new(listeners: Listeners, secrets: &Secrets) -> Arc<Live> {
        Live::with(listeners, secrets, EdgeConfig::default())
    }

    fn with(listeners: Listeners, secrets: &Secrets, edge: EdgeConfig) -> Arc<Live> {
        let (state, generation) = (Mutex::default(), watch::Sender::new(0));
        let live = Live { state, edge: Arc::new(edge), generation };
        live.publish(listeners, secrets);
        Arc::new(live)
    }

    fn publish(&self, listeners: Listeners, secrets: &Secrets) {
        let (certificates, _) = Certificates::build(&listeners, secrets, &self.state.lock().unwrap().1);
        *self.state.lock().unwrap() = (listeners, Arc::new(certificates));
        self.generation.send_modify(|generation| *generation += 1);
    }
}

impl ListenerSource for Live {
    fn listeners(&self) -> Listeners {
        self.state.lock().unwrap().0.clone()
    }

    fn listener(&self, key: &ListenerKey) -> Option<LiveListener> {
        let state = self.state.lock().unwrap();
        let (listener, certificates) = (state.0.get(key)?.clone(), state.1.clone());
        Some(LiveListener { listener, certificates, edge: self.edge.clone() })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

/// Answers `sni=… tls=… port=… draining=…`.
struct Answer;

#[async_trait]
impl HttpServerApp for Answer {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !matches!(session.read_request().await, Ok(true)) {
            return None;
        }
        let info = connection::of_digest(session.digest()?)?.clone();
        if *shutdown.borrow() {
            session.set_keepalive(None);
        }
        let body = format!(
            "client={} sni={} tls={} port={} draining={}",
            info.client.as_ref().map_or("-", |client| client.subject.as_str()),
            info.sni.as_deref().unwrap_or("-"),
            info.tls,
            info.bound_port,
            info.draining()
        );
        let status = info.refusal().map_or(200, Flaw::status);
        let mut head = ResponseHeader::build(status, None).ok()?;
        head.insert_header("content-length", body.len()).ok()?;
        session.write_response_header(Box::new(head)).await.ok()?;
        session.write_response_body(body.into(), true).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()?;
        info.request_finished();
        reusable.map(|stream| ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

struct Handler(Arc<Answer>);

#[async_trait]
impl ConnectionHandler for Handler {
    async fn serve(&self, stream: Stream, _info: Arc<ConnectionInfo>, shutdown: ShutdownWatch) {
        self.0.process_new(stream, &shutdown).await;
    }

    /// Says whose route it is, and what it was told.
    async fn tunnel(&self, client: Client, info: Arc<ConnectionInfo>, route: Arc<TcpRoute>) {
        let mut stream = client.into_stream();
        let mut said = [0; 5];
        let _ = stream.read_exact(&mut said).await;
        let of = route.virtual_service().unwrap_or("-");
        let about = format!("{of} sni={:?} tls={} ", info.sni, info.tls);
        let _ = stream.write_all(&[about.as_bytes(), &said].concat()).await;
        let _ = stream.flush().await;
    }
}

fn key(port: u16) -> ListenerKey {
    ListenerKey { bind: Bind::Any, port }
}

fn chain(server: &str, tls: Option<ServerTls>) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        gateway: "default/gw".into(),
        server: server.into(),
        server_port: 443,
        mode: tls.as_ref().map(|_| ServerTlsMode::Simple),
        tls: tls.map(Arc::new),
        tcp: None,
        table: Arc::new(RouteTable::new("http.443", [])),
        policies: None,
    })
}

fn http(ports: &[u16]) -> Listeners {
    let listener = |port: &u16| {
        let chains = Chains::Http(chain("http", None));
        (key(*port), Arc::new(Listener::of_gateway(key(*port), chains)))
    };
    ports.iter().map(listener).collect()
}

fn https(servers: &[(&str, &[&str])]) -> Listeners {
    asking(servers, None)
}

/// Servers that ask clients for certificates.
fn asking(servers: &[(&str, &[&str])], client: Option<&ClientAuth>) -> Listeners {
    let mut chains = HostIndex::new();
    for (host, secrets) in servers {
        let source = |name: &&str| CertificateSource::Secret { namespace: "ns".into(), name: (*name).into() };
        let tls = ServerTls {
            certificates: secrets.iter().map(source).collect(),
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            groups: Vec::new(),
            client: client.cloned(),
        };
        chains.insert(host, chain(host, Some(tls)));
    }
    BTreeMap::from([(key(443), Arc::new(Listener::of_gateway(key(443), Chains::Tls(chains))))])
}

fn start(live: &Arc<Live>, grace: Duration) -> ListenerManager {
    let bind = BindOptions { ports: (1..=9000).map(|port| (port, 0)).collect(), ..BindOptions::default() };
    let manager = ListenerManager::new(live.clone(), Arc::new(Handler(Arc::new(Answer))), bind, grace);
    let running = manager.clone();
    tokio::spawn(async move { running.run(2).await });
    manager
}

async fn eventually<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = probe() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("did not happen in time")
}

async fn address(manager: &ListenerManager, port: u16) -> SocketAddr {
    eventually(|| match manager.bound().get(&key(port)) {
        Some(BoundAddress::Tcp(address)) => Some(SocketAddr::from(([127, 0, 0, 1], address.port()))),
        _ => None,
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = tokio::task::spawn_blocking(work);
    tokio::time::timeout(PATIENCE, work).await.expect("the peer hangs").expect("the peer panicked")
}

fn ask(stream: &mut (impl Read + Write)) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains("draining=") || !seen.ends_with(b"e") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            break;
        }
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap()
}

fn tls_client(
    to: SocketAddr,
    name: Option<&str>,
    sigalgs: Option<&str>,
) -> Result<SslStream<TcpStream>, String> {
    tls_client_with(to, name, sigalgs, None)
}

fn tls_client_with(
    to: SocketAddr,
    name: Option<&str>,
    sigalgs: Option<&str>,
    own: Option<&Secret>,
) -> Result<SslStream<TcpStream>, String> {
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    // In TLS 1.3 a refusal would show at the first read only, and the signatures are chosen in another way.
    builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    builder.set_alpn_protos(b"\x08http/1.1").unwrap();
    if let Some(own) = own {
        builder.set_certificate(&X509::from_pem(own.get("tls.crt").unwrap()).unwrap()).unwrap();
        builder.set_private_key(&PKey::private_key_from_pem(own.get("tls.key").unwrap()).unwrap()).unwrap();
    }
    if let Some(sigalgs) = sigalgs {
        builder.set_sigalgs_list(sigalgs).unwrap();
    }
    let mut configuration = builder.build().configure().unwrap().verify_hostname(false);
    configuration.set_use_server_name_indication(name.is_some());
    let socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    configuration.connect(name.unwrap_or("none"), socket).map_err(|error| error.to_string())
}

fn certificate_name(stream: &SslStream<TcpStream>) -> String {
    let certificate = stream.ssl().peer_certificate().unwrap();
    certificate.subject_alt_names().unwrap().iter().next().unwrap().dnsname().unwrap().to_owned()
}

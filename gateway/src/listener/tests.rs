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
use config_model::kubernetes::Secret;
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
    async fn tunnel(&self, mut stream: Stream, info: Arc<ConnectionInfo>, route: Arc<TcpRoute>) {
        let mut said = [0; 5];
        let _ = stream.read_exact(&mut said).await;
        let about = format!("{} sni={:?} tls={} ", route.virtual_service(), info.sni, info.tls);
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
        tls: tls.map(Arc::new),
        tcp: None,
        table: Arc::new(RouteTable::new("http.443", [])),
    })
}

fn http(ports: &[u16]) -> Listeners {
    let listener = |port: &u16| {
        let chains = Chains::Http(chain("http", None));
        (key(*port), Arc::new(Listener { key: key(*port), chains }))
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
    BTreeMap::from([(key(443), Arc::new(Listener { key: key(443), chains: Chains::Tls(chains) }))])
}

fn start(live: &Arc<Live>, grace: Duration) -> ListenerManager {
    let bind = BindOptions { address: None, ports: (1..=9000).map(|port| (port, 0)).collect() };
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

#[tokio::test(flavor = "multi_thread")]
async fn a_name_gets_its_own_certificate_and_an_unknown_one_is_closed() {
    let secrets = Secrets::default().with("a", ecdsa("a.example")).with("b", rsa("*.b.example"));
    let live = Live::new(
        https(&[("a.example", &["a"]), ("*.b.example", &["b"]), ("c.example", &["missing"])]),
        &secrets,
    );
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    blocking(move || {
        for (name, certificate) in [("A.example", "a.example"), ("x.b.example", "*.b.example")] {
            let mut stream = tls_client(to, Some(name), None).unwrap();
            assert_eq!(certificate_name(&stream), certificate);
            let sni = name.to_ascii_lowercase();
            let answer = ask(&mut stream);
            assert!(
                answer.ends_with(&format!("sni={sni} tls=true port={} draining=false", to.port())),
                "{answer}"
            );
        }
        for refused in [Some("other.example"), Some("c.example"), None] {
            assert!(tls_client(to, refused, None).is_err(), "{refused:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_key_types_are_chosen_by_what_the_client_can_check() {
    let secrets = Secrets::default().with("rsa", rsa("rsa.example")).with("ec", ecdsa("ec.example"));
    let live = Live::new(https(&[("a.example", &["rsa", "ec"])]), &secrets);
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    blocking(move || {
        let modern = tls_client(to, Some("a.example"), None).unwrap();
        assert_eq!(certificate_name(&modern), "ec.example");
        let old = tls_client(to, Some("a.example"), Some("rsa_pkcs1_sha256:rsa_pss_rsae_sha256")).unwrap();
        assert_eq!(certificate_name(&old), "rsa.example");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go_and_an_open_connection_stays() {
    let none = Secrets::default();
    let live = Live::new(http(&[80]), &none);
    let manager = start(&live, Duration::from_secs(3600));
    let first = address(&manager, 80).await;
    let mut open = blocking(move || {
        let mut open = TcpStream::connect(first).unwrap();
        assert!(ask(&mut open).ends_with("draining=false"));
        open
    })
    .await;
    assert_eq!(manager.connections_by_listener().get(&key(80)), Some(&1));

    assert!(manager.prepare(&http(&[80, 81])).is_empty());
    live.publish(http(&[80, 81]), &none);
    let second = address(&manager, 81).await;
    assert!(manager.all_bound());
    let mut open = blocking(move || {
        ask(&mut TcpStream::connect(second).unwrap());
        assert!(ask(&mut open).ends_with("draining=false"));
        open
    })
    .await;

    live.publish(http(&[81]), &none);
    eventually(|| (!manager.bound().contains_key(&key(80))).then_some(())).await;
    blocking(move || {
        eventually_refused(first);
        let answer = ask(&mut open);
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        assert!(answer.ends_with("draining=true"), "{answer}");
        assert_eq!(open.read(&mut [0]).unwrap(), 0);
    })
    .await;
    manager.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_of_a_retired_listener_is_closed_after_its_grace() {
    let none = Secrets::default();
    let live = Live::new(http(&[80, 81]), &none);
    let manager = start(&live, Duration::from_millis(20));
    let (first, second) = (address(&manager, 80).await, address(&manager, 81).await);
    let (mut retired, silent, mut stays) = blocking(move || {
        let mut connections = (
            TcpStream::connect(first).unwrap(),
            TcpStream::connect(first).unwrap(),
            TcpStream::connect(second).unwrap(),
        );
        ask(&mut connections.0);
        ask(&mut connections.2);
        connections
    })
    .await;
    live.publish(http(&[81]), &none);
    blocking(move || {
        for mut closed in [&retired, &silent] {
            assert_eq!(closed.read(&mut [0]).unwrap(), 0);
        }
        assert!(ask(&mut stays).ends_with("draining=false"));
        let _ = retired.flush();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_clients_are_closed() {
    let mut listeners = http(&[80]);
    listeners.extend(https(&[("a.example", &["a"])]));
    let short = Duration::from_millis(500);
    let limits =
        EdgeLimits { handshake: short, first_byte: short, request_head: short, ..EdgeLimits::default() };
    let edge = EdgeConfig { limits, ..EdgeConfig::default() };
    let live = Live::with(listeners, &Secrets::default().with("a", ecdsa("a.example")), edge);
    let manager = start(&live, Duration::ZERO);
    let (plain, tls) = (address(&manager, 80).await, address(&manager, 443).await);
    blocking(move || {
        let reads = |to: SocketAddr, bytes: &[u8]| {
            let mut socket = TcpStream::connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(bytes).unwrap();
            let mut seen = String::new();
            let _ = socket.read_to_string(&mut seen);
            seen
        };
        for (to, bytes) in
            [(plain, &b""[..]), (plain, b"PRI * HTTP"), (tls, b""), (tls, &[22, 3, 1, 0, 90, 1])]
        {
            assert_eq!(reads(to, bytes), "", "{bytes:?}");
        }
        let half_a_head = reads(plain, b"GET / HTTP/1.1\r\nhost: a\r\nx: ");
        assert!(half_a_head.starts_with("HTTP/1.1 408 "), "{half_a_head}");
        let mut secure = tls_client(tls, Some("a.example"), None).unwrap();
        secure.write_all(b"GET / HT").unwrap();
        let mut seen = String::new();
        let _ = secure.read_to_string(&mut seen);
        assert!(seen.starts_with("HTTP/1.1 408 "), "{seen}");
    })
    .await;
    manager.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge_is_served_in_the_clear() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let socket = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let request =
            http::Request::get(format!("http://{to}/")).body(http_body_util::Empty::<bytes::Bytes>::new());
        let response = client.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"client=- sni=- tls=false"), "{body:?}");
    }
    // Retired: GOAWAY, and the connection ends by itself.
    live.publish(Listeners::new(), &Secrets::default());
    tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_agreed_on_in_the_handshake() {
    let live = Live::new(https(&[("a.example", &["a"])]), &Secrets::default().with("a", ecdsa("a.example")));
    let manager = start(&live, Duration::ZERO);
    let socket = tokio::net::TcpStream::connect(address(&manager, 443).await).await.unwrap();
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_alpn_protos(b"\x08http/1.1\x02h2").unwrap();
    let ssl = builder.build().configure().unwrap().verify_hostname(false).into_ssl("a.example").unwrap();
    let mut stream = pingora_core::tls::tokio_ssl::SslStream::new(ssl, socket).unwrap();
    std::pin::Pin::new(&mut stream).connect().await.unwrap();
    // The client would rather have HTTP/1.1; the order is the server's.
    assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://a.example/").body(http_body_util::Empty::<bytes::Bytes>::new());
    let body =
        client.send_request(request.unwrap()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"client=- sni=a.example tls=true"), "{body:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_a_failure_that_heals() {
    let taken = std::net::TcpListener::bind(("::", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let live = Live::new(http(&[80]), &Secrets::default());
    let bind = BindOptions { address: None, ports: BTreeMap::from([(80, port)]) };
    let manager =
        ListenerManager::new(live.clone(), Arc::new(Handler(Arc::new(Answer))), bind, Duration::ZERO);
    assert_eq!(manager.prepare(&live.listeners()).len(), 1);
    let running = manager.clone();
    tokio::spawn(async move { running.run(1).await });
    assert_eq!(manager.failures().len(), 1);
    assert!(!manager.all_bound());
    drop(taken);
    assert_eq!(address(&manager, 80).await.port(), port);
    assert!(manager.failures().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_accepts_for_a_while_and_ends_with_the_last_connection() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let controller = Arc::new(DrainController::new());
    let times = DrainTimes { min: Duration::from_millis(1500), max: PATIENCE };
    let ending = spawn_drained(controller.clone(), manager.clone(), times);
    let mut busy = blocking(move || {
        let mut busy = TcpStream::connect(to).unwrap();
        busy.write_all(b"GET / HT").unwrap();
        busy
    })
    .await;
    eventually(|| (manager.connections() == 1).then_some(())).await;
    controller.start();
    blocking(move || {
        let answer = ask(&mut TcpStream::connect(to).unwrap());
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        eventually_refused(to);
    })
    .await;
    assert!(!ending.is_finished(), "a request is being read");
    blocking(move || {
        busy.write_all(b"TP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("draining=true"), "{answer}");
    })
    .await;
    assert_eq!(tokio::time::timeout(PATIENCE, ending).await.unwrap().unwrap(), Exit::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_when_its_time_is_up_or_when_told_to_quit() {
    for quit in [false, true] {
        let live = Live::new(http(&[80]), &Secrets::default());
        let manager = start(&live, Duration::ZERO);
        let to = address(&manager, 80).await;
        let _half_a_head = blocking(move || {
            let mut socket = TcpStream::connect(to).unwrap();
            socket.write_all(b"GET / HT").unwrap();
            socket
        })
        .await;
        eventually(|| (manager.connections() == 1).then_some(())).await;
        let max = if quit { Duration::from_secs(3600) } else { Duration::from_millis(50) };
        let controller = Arc::new(DrainController::new());
        let ending =
            spawn_drained(controller.clone(), manager.clone(), DrainTimes { min: Duration::ZERO, max });
        controller.start();
        if quit {
            controller.quit();
        }
        let exit = tokio::time::timeout(PATIENCE, ending).await.unwrap().unwrap();
        assert_eq!(exit, if quit { Exit::Quit } else { Exit::TimeUp(1) });
    }
}

fn spawn_drained(
    controller: Arc<DrainController>,
    manager: ListenerManager,
    times: DrainTimes,
) -> tokio::task::JoinHandle<Exit> {
    tokio::spawn(async move { drained(&controller, &manager, times).await })
}

fn eventually_refused(to: SocketAddr) {
    let began = std::time::Instant::now();
    while TcpStream::connect(to).is_ok() {
        assert!(began.elapsed() < PATIENCE, "still accepting");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_a_limit_are_closed_and_make_room_when_they_end() {
    for connections in [
        ConnectionLimits { total: Some(2), ..ConnectionLimits::default() },
        ConnectionLimits { per_listener: Some(2), ..ConnectionLimits::default() },
        ConnectionLimits { per_client: Some(2), ..ConnectionLimits::default() },
    ] {
        let edge = EdgeConfig { connections, ..EdgeConfig::default() };
        let live = Live::with(http(&[80]), &Secrets::default(), edge);
        let manager = start(&live, Duration::ZERO);
        let to = address(&manager, 80).await;
        let counting = manager.clone();
        blocking(move || {
            let open = || {
                let mut socket = TcpStream::connect(to).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                let served = socket.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").is_ok()
                    && socket.read(&mut [0; 64]).is_ok_and(|count| count > 0);
                served.then_some(socket)
            };
            let first = open().unwrap();
            let _second = open().unwrap();
            assert!(open().is_none(), "{connections:?}");
            assert_eq!(counting.refused(), 1);
            drop(first);
            let begin = std::time::Instant::now();
            while open().is_none() {
                assert!(begin.elapsed() < PATIENCE, "{connections:?}");
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_is_told_to_calm_down() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let seen = blocking(move || {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut reading = socket.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let _ = reading.read_to_end(&mut seen);
            seen
        });
        for _ in 0..5000 {
            if socket.write_all(b"\0\0\x08\x06\0\0\0\0\0calmdown").is_err() {
                break;
            }
        }
        reader.join().unwrap()
    })
    .await;
    // GOAWAY, last stream any, ENHANCE_YOUR_CALM.
    let goaway = seen.windows(17).find(|frame| frame[3] == 7);
    assert_eq!(goaway.map(|frame| frame[13..17].to_vec()), Some(vec![0, 0, 0, 11]), "{seen:?}");
    manager.none_left().await;
}

/// What is asked of clients, with authorities from the Secret `ca-cacert`.
fn mutual(required: bool) -> ClientAuth {
    ClientAuth {
        required,
        roots: ClientRoots::Secret { namespace: "ns".into(), name: "ca".into() },
        crl: None,
        names: Vec::new(),
        spki: Vec::new(),
        hashes: Vec::new(),
        any_issuer: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_asked_who_they_are_and_only_the_right_ones_get_in() {
    let (friend, stranger) = (ecdsa("friend.example"), ecdsa("stranger.example"));
    let mut authorities = Secret::default();
    authorities.data.insert("ca.crt".into(), friend.data["tls.crt"].clone());
    let certificate = X509::from_pem(friend.get("tls.crt").unwrap()).unwrap();
    let digest = certificate.digest(MessageDigest::sha256()).unwrap();
    let hash: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    let secrets = Secrets::default().with("a", ecdsa("a.example")).with("ca-cacert", authorities);
    let named = |name: &str| ClientAuth { names: vec![name.into()], ..mutual(true) };
    let pinned = |hash: &str| ClientAuth { hashes: vec![hash.into()], ..mutual(true) };
    let nowhere = ClientAuth { roots: ClientRoots::Nowhere, ..mutual(false) };
    // Who asks; whether the friend, a stranger and somebody without a certificate get in.
    for (auth, friend_in, stranger_in, nobody_in) in [
        (mutual(true), true, false, false),
        (mutual(false), true, false, true),
        (ClientAuth { any_issuer: true, ..mutual(true) }, true, true, false),
        (named("friend.example"), true, false, false),
        (named("other.example"), false, false, false),
        (pinned(&hash), true, false, false),
        (pinned("00"), false, false, false),
        (nowhere, false, false, false),
    ] {
        let live = Live::new(asking(&[("a.example", &["a"])], Some(&auth)), &secrets);
        let manager = start(&live, Duration::ZERO);
        let to = address(&manager, 443).await;
        let (friend, stranger) = (friend.clone(), stranger.clone());
        blocking(move || {
            for (own, gets_in, subject) in [
                (Some(&friend), friend_in, "client=CN=friend.example "),
                (Some(&stranger), stranger_in, "client=CN=stranger.example "),
                (None, nobody_in, "client=- "),
            ] {
                match tls_client_with(to, Some("a.example"), None, own) {
                    Ok(mut stream) => {
                        let answer = ask(&mut stream);
                        assert!(gets_in && answer.contains(subject), "{auth:?} {subject} {answer}");
                    }
                    Err(error) => assert!(!gets_in, "{auth:?} {subject} {error}"),
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_http_go_where_their_route_says() {
    let route = Arc::new(TcpRoute::new("default/vs".into(), Vec::new()));
    let mut listeners = http(&[80]);
    let tcp = FilterChain { tcp: Some(route.clone()), ..FilterChain::clone(&chain("tcp", None)) };
    let plain = Listener { key: key(80), chains: Chains::Http(Arc::new(tcp.clone())) };
    listeners.insert(key(80), Arc::new(plain));
    let mut tls = HostIndex::new();
    tls.insert("passed.example", Arc::new(tcp));
    listeners.insert(key(443), Arc::new(Listener { key: key(443), chains: Chains::Tls(tls) }));
    let live = Live::new(listeners, &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let (plain, tls) = (address(&manager, 80).await, address(&manager, 443).await);
    blocking(move || {
        let said = |to: SocketAddr, bytes: &[u8]| {
            let mut socket = TcpStream::connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(bytes).unwrap();
            let mut seen = Vec::new();
            let _ = socket.read_to_end(&mut seen);
            String::from_utf8_lossy(&seen).into_owned()
        };
        assert_eq!(said(plain, b"\0\x01abc"), "default/vs sni=None tls=false \0\x01abc");
        let hello = crate::tls::test_keys::client_hello("passed.example");
        let answer = said(tls, &hello);
        assert!(
            answer.starts_with("default/vs sni=Some(\"passed.example\") tls=false \x16\x03\x01"),
            "{answer:?}"
        );
        assert_eq!(said(tls, &crate::tls::test_keys::client_hello("other.example")), "");
    })
    .await;
}

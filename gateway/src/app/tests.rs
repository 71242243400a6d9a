//! Gateways as programs have them: served in each of the ways there are, and ended.

use super::*;
use crate::{
    Surface,
    policy::{Answer, Policy, RequestView},
    settings::AccessLogFormat,
    source::fixed::Fixed,
    testing::{Act, FORWARD, TestGateway, Upstream, config, eventually},
};
use pingora_core::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, configuration::ServerConf};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Mutex,
};

const HELLO: &str = "  - directResponse: {status: 200, body: {string: hello}}\n";

fn quiet() -> GatewayBuilder {
    Gateway::builder()
        .yaml(&config(HELLO, &[], "HTTP"))
        .bind(Ipv4Addr::LOCALHOST)
        .any_ports()
        .signals(Signals::Ignore)
        .with(|settings| {
            settings.threads = 1;
            settings.access_log = Some(AccessLogFormat::Off);
            settings.min_drain_time = Duration::ZERO;
        })
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

fn refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_on_the_programs_runtime_until_it_is_drained() {
    let gateway = quiet().build().unwrap();
    let handle = gateway.handle();
    let address = handle.address(80).unwrap();
    assert_eq!((handle.generation(), handle.surface(Surface::Admin)), (1, None));
    let serving = tokio::spawn(gateway.serve());
    handle.ready().await;
    let answer = tokio::task::spawn_blocking(move || get(address, "/")).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    handle.drain();
    assert_eq!(serving.await.unwrap(), Exit::Drained);
    assert!(refused(address));
}

#[tokio::test]
async fn one_that_is_dropped_closes_its_ports_also_on_a_runtime() {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let gateway = quiet().surfaces(local, local, local).build().unwrap();
    let handle = gateway.handle();
    let ports = [handle.address(80), handle.surface(Surface::Status), handle.surface(Surface::Admin)];
    drop(gateway);
    for port in ports {
        eventually("a closed port", || refused(port.unwrap()).then_some(())).await;
    }
}

#[test]
fn surfaces_answer_where_they_were_asked_for() {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let own = prometheus::IntCounter::new("shop_orders_total", "Orders.").unwrap();
    let gateway = quiet().surfaces(local, local, local).collector(own.clone()).build().unwrap();
    own.inc();
    let handle = gateway.handle();
    let serving = std::thread::spawn(move || gateway.run());
    let metrics = get(handle.surface(Surface::Metrics).unwrap(), "/stats/prometheus");
    assert!(metrics.contains("shop_orders_total 1"), "{metrics}");
    assert!(metrics.contains("limen_config_generation 1"), "{metrics}");
    assert!(handle.metrics().contains("shop_orders_total 1"));
    let ready = || get(handle.surface(Surface::Status).unwrap(), "/healthz/ready");
    while !ready().starts_with("HTTP/1.1 200 ") {
        std::thread::yield_now();
    }
    handle.quit();
    assert_eq!(serving.join().unwrap().unwrap(), Exit::Quit);
}

#[test]
fn what_keeps_it_from_starting_is_one_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let error = quiet().with(|settings| settings.status = Some(taken)).build().unwrap_err();
    assert!(error.to_string().starts_with(&format!("{taken} cannot be bound: ")), "{error}");
    let own = prometheus::IntCounter::new("istio_build", "Not ours.").unwrap();
    let error = quiet().collector(own).build().unwrap_err();
    assert!(error.to_string().starts_with("metrics: "), "{error}");
    let error = quiet().access_log(AccessLogFormat::Custom("%NOT_AN_OPERATOR%".into()), std::io::sink());
    assert!(error.build().unwrap_err().to_string().starts_with("access log format: "));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn all_lines_of_a_log_are_with_the_program_when_the_gateway_has_ended() {
    let lines = Lines::default();
    let format = AccessLogFormat::Custom("%REQ(:PATH)% %RESPONSE_CODE%\n".into());
    let gateway = quiet().access_log(format, lines.clone()).build().unwrap();
    let handle = gateway.handle();
    let serving = std::thread::spawn(move || gateway.run());
    for path in ["/a", "/b"] {
        get(handle.address(80).unwrap(), path);
    }
    handle.drain();
    assert_eq!(serving.join().unwrap().unwrap(), Exit::Drained);
    assert_eq!(String::from_utf8(lines.0.lock().unwrap().clone()).unwrap(), "/a 200\n/b 200\n");
}

#[test]
fn a_source_of_the_programs_is_followed() {
    let (source, states) = Fixed::yaml("first.yaml", &config(HELLO, &[], "HTTP"));
    let gateway = quiet().source(source).build().unwrap();
    let handle = gateway.handle();
    let serving = std::thread::spawn(move || gateway.run());
    states.set_yaml("second.yaml", &config(&HELLO.replace("hello", "again"), &[], "HTTP"));
    let address = handle.address(80).unwrap();
    let begin = std::time::Instant::now();
    while !get(address, "/").ends_with("again") {
        assert!(begin.elapsed() < Duration::from_secs(20), "the second state is not served");
    }
    assert_eq!(handle.generation(), 2);
    handle.quit();
    assert_eq!(serving.join().unwrap().unwrap(), Exit::Quit);
}

/// Tells a server to go when the test does.
struct Word(Mutex<Option<tokio::sync::oneshot::Receiver<()>>>);

#[async_trait::async_trait]
impl ShutdownSignalWatch for Word {
    async fn recv(&self) -> ShutdownSignal {
        let word = self.0.lock().unwrap().take();
        let _said = word.unwrap().await;
        ShutdownSignal::GracefulTerminate
    }
}

/// A request that is under way when the server is told to go is answered, and the port is closed to others meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_service_in_a_server_of_pingoras() {
    // With work stealing, as is the default: a server without would leave handles to ended runtimes to the threads of other tests.
    let upstream = Upstream::plays(&[Act::SayAndDrip("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")]).await;
    let gateway = quiet().yaml(&config(FORWARD, &[upstream.address()], "HTTP")).build().unwrap();
    let handle = gateway.handle();
    let address = handle.address(80).unwrap();
    let (tell, word) = tokio::sync::oneshot::channel();
    let server = std::thread::spawn(move || {
        let conf = ServerConf {
            grace_period_seconds: Some(1),
            graceful_shutdown_timeout_seconds: Some(5),
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        server.bootstrap();
        server.add_service(gateway.into_service());
        server.run(RunArgs { shutdown_signal: Box::new(Word(Mutex::new(Some(word)))) });
    });
    let client = tokio::task::spawn_blocking(move || get(address, "/"));
    eventually("the request at its upstream", || upstream.seen().first().cloned()).await;
    tell.send(()).unwrap();
    let answer = client.await.unwrap();
    assert!(answer.ends_with("xxxxxxxxx"), "{answer}");
    tokio::task::spawn_blocking(move || server.join()).await.unwrap().unwrap();
    assert!(refused(address));
}

/// A policy that cannot judge: refused, counted, and by its name.
#[tokio::test]
async fn a_policy_that_breaks_is_counted() {
    struct Broken;
    impl Policy for Broken {
        type State = ();
        async fn on_request(&self, (): &mut (), _: &mut RequestView<'_>) -> Answer {
            Err(crate::policy::Failure::new("the store is closed"))
        }
    }
    let gateway = TestGateway::with(&config(HELLO, &[], "HTTP"), |gateway| gateway.policy(Broken)).await;
    for _ in 0..3 {
        let answer = gateway.get("http://a.example/").await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (503, ""));
    }
    let metrics = gateway.metrics();
    assert!(metrics.contains("limen_policy_failures_total{policy=\"Broken\"} 3"), "{metrics}");
}

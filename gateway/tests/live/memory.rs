//! What connections cost, and whether that comes back. The numbers that are promised are a release build's:
//! `benches/load/memory.sh` runs the large ones on it; here a small one is held to the same, with room for a build without
//! optimisation.

use crate::{harness::*, keys::*};
use boring::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

/// Resident memory, in bytes.
fn resident(id: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A gateway that answers by itself, on a plain port and on one with TLS.
struct Answering {
    limen: Limen,
    tls: u16,
    _keys: tempfile::TempDir,
}

impl Answering {
    fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let pair = Pair::alone("a.example.com");
        let path = |name: &str| keys.path().join(name);
        fs::write(path("cert.pem"), pair.certificate()).unwrap();
        fs::write(path("key.pem"), pair.key()).unwrap();
        let tls = free_port();
        let config = format!(
            "{GATEWAY}    - port: {{number: {tls}, name: https, protocol: HTTPS}}
      hosts: [a.example.com]
      tls: {{mode: SIMPLE, serverCertificate: {}, privateKey: {}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a, namespace: default}}
spec:
  hosts: [a.example.com]
  gateways: [istio-system/public]
  http: [{{directResponse: {{status: 200}}}}]
",
            path("cert.pem").display(),
            path("key.pem").display()
        );
        let further = ["--threads", "2", "--access-log", "off"];
        let limen = Limen::start_with(&[("all.yaml", &config)], &further);
        Self { limen, tls, _keys: keys }
    }

    fn plain(&self) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.limen.port)).unwrap();
        ask(&mut stream);
        stream
    }

    fn secured(&self) -> SslStream<TcpStream> {
        let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        let ssl = builder.build().configure().unwrap().verify_hostname(false);
        let mut stream =
            ssl.connect("a.example.com", TcpStream::connect(("127.0.0.1", self.tls)).unwrap()).unwrap();
        ask(&mut stream);
        stream
    }

    fn resident(&self) -> u64 {
        resident(self.limen.child.id())
    }
}

fn ask(stream: &mut (impl Read + Write)) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n").unwrap();
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer).unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..count]));
}

/// Bytes that one more idle connection takes, of `count`.
fn each<T>(gateway: &Answering, count: u64, mut open: impl FnMut(&Answering) -> T) -> u64 {
    // What the first ones make for all is not theirs.
    let warm: Vec<T> = (0..64).map(|_| open(gateway)).collect();
    let before = gateway.resident();
    let opened: Vec<T> = (0..count).map(|_| open(gateway)).collect();
    let cost = gateway.resident().saturating_sub(before) / count;
    drop((warm, opened));
    cost
}

/// Opens and closes so many connections, some at one time, each with a request.
fn churn(gateway: &Answering, count: u64) {
    const AT_ONE_TIME: u64 = 16;
    let port = gateway.limen.port;
    let client = |_| {
        thread::spawn(move || {
            for _ in 0..count / AT_ONE_TIME {
                ask(&mut TcpStream::connect(("127.0.0.1", port)).unwrap());
            }
        })
    };
    let clients: Vec<_> = (0..AT_ONE_TIME).map(client).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

/// The lowest of some looks: memory is given back a moment later.
fn settled(gateway: &Answering, most: u64) -> u64 {
    let begin = std::time::Instant::now();
    let mut lowest = gateway.resident();
    while lowest > most && begin.elapsed() < PATIENCE {
        thread::park_timeout(Duration::from_millis(200));
        lowest = lowest.min(gateway.resident());
    }
    lowest
}

#[test]
fn idle_connections_are_cheap() {
    let gateway = Answering::start();
    let plain = each(&gateway, 1000, Answering::plain);
    let tls = each(&gateway, 500, Answering::secured);
    println!("an idle connection takes {plain} bytes, with TLS {tls}");
    assert!(plain <= 24 << 10, "plain: {plain}");
    assert!(tls <= 48 << 10, "TLS: {tls}");
}

#[test]
fn memory_comes_back_after_connections() {
    let gateway = Answering::start();
    churn(&gateway, 800);
    let before = gateway.resident();
    churn(&gateway, 8000);
    let after = settled(&gateway, before + before / 5);
    assert!(after <= before + before / 5, "{before} bytes, then {after}");
}

/// On a release build: `benches/load/memory.sh`.
#[test]
#[ignore = "takes minutes, and its numbers are a release build's"]
fn the_promised_numbers() {
    let gateway = Answering::start();
    let start = gateway.resident();
    let plain = each(&gateway, 4000, Answering::plain);
    let tls = each(&gateway, 2000, Answering::secured);
    println!("idle connection: plain {plain} bytes, TLS {tls} bytes");
    let gateway = Answering::start();
    let fresh = gateway.resident();
    churn(&gateway, 100_000);
    let after = settled(&gateway, fresh + fresh / 5);
    println!("resident: {start} and {fresh} bytes at the start, {after} after 100,000 connections");
    assert!(plain <= 20 << 10, "plain: {plain}");
    assert!(tls <= 40 << 10, "TLS: {tls}");
    assert!(after <= fresh + fresh / 5, "{fresh} bytes, then {after}");
}

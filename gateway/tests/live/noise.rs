//! Bytes of chance, and good ones damaged, on every type of port: nothing panics, and good clients are served.
//!
//! Bounded here; `LIMEN_NOISE_SECONDS` makes it as long as one likes (`gateway/tests/tools/noise`), `LIMEN_NOISE_RATE` as slow: so many
//! connections a second. The seed is printed, and `LIMEN_NOISE_SEED` plays it again.

use std::{
    env,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use boring::ssl::{SslConnector, SslMethod, SslVerifyMode};
use fastrand::Rng;

use crate::{harness::*, keys::*};

const SEEDS: [&[u8]; 10] = [
    b"GET /a HTTP/1.1\r\nHost: up.example.com\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: up.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n",
    b"POST http://up.example.com/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: up.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n\x81\x05hello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x84\x41\x88\xb9\x58\xd3\x3f\x89\x62\xbb\0\0\x08\x06\0\0\0\0\0calmdown\0\0\x04\x08\0\0\0\0\0\0\0\x01\0",
    include_bytes!("../../fuzz/seeds/client_hello/one"),
    include_bytes!("../../fuzz/seeds/client_hello/two"),
    include_bytes!("../../fuzz/seeds/proxy_header/v1"),
    include_bytes!("../../fuzz/seeds/proxy_header/v2"),
    b"",
];

/// What one client sends.
fn noise(random: &mut Rng) -> Vec<u8> {
    let mut bytes = SEEDS[random.usize(..SEEDS.len())].to_vec();
    if random.u8(..3) == 0 {
        bytes.extend_from_slice(SEEDS[random.usize(..SEEDS.len())]);
    }
    for _ in 0..random.u8(..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            2 => {
                let some: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
                bytes.splice(at..at, some);
            }
            3 if at < bytes.len() => bytes[at] = random.u8(..),
            _ if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            _ => {}
        }
    }
    if random.u8(..4) == 0 {
        bytes.extend((0..random.usize(..5000)).map(|_| random.u8(..)));
    }
    bytes
}

/// Sends it in pieces, and goes away in one of the ways in which clients do.
fn send(stream: &mut (impl Read + Write), socket: &TcpStream, bytes: &[u8], random: &mut Rng) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(random.usize(1..=rest.len()));
        if stream.write_all(piece).is_err() {
            return;
        }
        rest = after;
    }
    let _gone = stream.flush();
    match random.u8(..3) {
        0 => {}
        1 => {
            let _gone = socket.shutdown(Shutdown::Write);
            let _silence = stream.read(&mut [0; 1024]);
        }
        _ => {
            let _silence = stream.read(&mut [0; 1024]);
        }
    }
}

/// At one time.
const CLIENTS: u64 = 4;

fn config(up: u16, [tls, passed, tcp]: [u16; 3]) -> String {
    let secret = Pair::alone("up.example.com").secret("istio-system", "edge", &[]);
    let more = format!(
        r#"{secret}---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: more, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
    - {{port: {{number: {tls}, name: https, protocol: HTTPS}}, hosts: ["*.example.com"], tls: {{mode: SIMPLE, credentialName: edge}}}}
    - {{port: {{number: {passed}, name: tls, protocol: TLS}}, hosts: ["*.example.com"], tls: {{mode: PASSTHROUGH}}}}
    - {{port: {{number: {tcp}, name: tcp, protocol: TCP}}, hosts: ["*"]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: more, namespace: istio-system}}
spec:
  hosts: ["*.example.com"]
  gateways: [more]
  http: [{{route: [{{destination: {{host: up.default.svc.cluster.local}}}}]}}]
  tls: [{{match: [{{port: {passed}, sniHosts: ["*.example.com"]}}], route: [{{destination: {{host: up.default.svc.cluster.local}}}}]}}]
  tcp: [{{match: [{{port: {tcp}}}], route: [{{destination: {{host: up.default.svc.cluster.local}}}}]}}]
"#
    );
    [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up]), more].concat()
}

fn secure(port: u16) -> Option<boring::ssl::SslStream<TcpStream>> {
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_alpn_protos(b"\x02h2\x08http/1.1").unwrap();
    let socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(20))).ok()?;
    builder.build().configure().unwrap().verify_hostname(false).connect("up.example.com", socket).ok()
}

#[test]
#[allow(clippy::print_stdout, reason = "the seed, to play a failure again")]
fn noise_on_every_port_panics_nothing() {
    let up = Upstream::start("up");
    let extra = [free_port(), free_port(), free_port()];
    let config = config(up.port, extra);
    // A second gateway expects PROXY headers on all of its ports.
    let gateways = [
        Limen::start(&[("all.yaml", &config)]),
        Limen::start_with(
            &[(
                "all.yaml",
                &[GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port])].concat(),
            )],
            &["--proxy-protocol-from", "0.0.0.0/0"],
        ),
    ];
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("LIMEN_NOISE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = number("LIMEN_NOISE_SECONDS");
    let pause =
        number("LIMEN_NOISE_RATE").map(|rate| Duration::from_secs(CLIENTS) / u32::try_from(rate).unwrap());
    println!("LIMEN_NOISE_SEED={seed}");
    let begin = Instant::now();
    let ports = [gateways[0].port, extra[0], extra[1], extra[2], gateways[1].port];
    let clients = |which: u64| {
        let mut random = Rng::with_seed(seed ^ which);
        let mut sent = 0;
        while seconds.map_or(sent < 150, |most| begin.elapsed().as_secs() < most) {
            sent += 1;
            if let Some(pause) = pause {
                thread::park_timeout(pause);
            }
            let bytes = noise(&mut random);
            if random.u8(..8) == 0 {
                if let Some(mut stream) = secure(extra[0]) {
                    let socket = stream.get_ref().try_clone().unwrap();
                    send(&mut stream, &socket, &bytes, &mut random);
                }
                continue;
            }
            let port = ports[random.usize(..ports.len())];
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let socket = stream.try_clone().unwrap();
            send(&mut stream, &socket, &bytes, &mut random);
        }
        sent
    };
    let sent: u64 = thread::scope(|scope| {
        let running: Vec<_> = (0..CLIENTS).map(|which| scope.spawn(move || clients(which))).collect();
        running.into_iter().map(|one| one.join().unwrap()).sum()
    });
    println!("{sent} connections");
    for gateway in &gateways {
        let log = gateway.process_log();
        assert!(!log.contains("panicked"), "seed {seed}: {log}");
        let ready = get(gateway.status, "localhost", "/healthz/ready").unwrap();
        assert_eq!(ready.status, 200, "seed {seed}");
    }
    for port in [gateways[0].port, extra[2]] {
        let served = get(port, "up.example.com", "/after").unwrap();
        assert_eq!((served.status, served.body.as_str()), (200, "up /after"), "seed {seed}");
    }
    let mut behind = Client::connect(gateways[1].port).unwrap();
    behind.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").unwrap();
    assert_eq!(behind.get("up.example.com", "/after").unwrap().status, 200, "seed {seed}");
}

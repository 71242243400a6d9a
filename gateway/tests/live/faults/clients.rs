//! Clients that flood, stall, send too much, or leave.

use super::*;
use gateway::testing::Fault;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// A frame of HTTP/2 (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const SETTINGS: u8 = 4;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
/// Flags of header frames: no other follows; no body follows.
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const END_STREAM: u8 = 1;

/// A request's header block: a method by its index (2: GET, 3: POST), `http`, `/`, and the authority.
fn head(method: u8) -> Vec<u8> {
    let authority = b"up.example.com";
    [&[0x80 | method, 0x86, 0x84, 0x41, authority.len() as u8], &authority[..]].concat()
}

/// A connection that has said its preface and these settings, by identifier.
pub(crate) fn speaks_http2(port: u16, settings: &[(u16, u32)]) -> TcpStream {
    let mut stream = connect(port).unwrap();
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &settings)];
    stream.write_all(&hello.concat()).unwrap();
    stream
}

/// Frames up to the end of the connection: kind, flags, stream and payload.
fn frames_of(stream: &mut TcpStream) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return frames;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).is_err() {
            return frames;
        }
        let on = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push((head[3], head[4], on, payload));
    }
}

fn goaway(frames: &[(u8, u8, u32, Vec<u8>)]) -> Option<u32> {
    let last = frames.iter().rfind(|(kind, ..)| *kind == GOAWAY)?;
    Some(u32::from_be_bytes(last.3.get(4..8)?.try_into().unwrap()))
}

#[test]
fn ten_thousand_streams_that_are_reset_at_once_reach_hardly_anybody() {
    let runtime = Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::echo());
    let mut scene = Scene::before(runtime, peer.address(), "", "", &[]);
    let seen = peer.seen().len();
    let mut stream = speaks_http2(scene.limen.port, &[]);
    let begin = Instant::now();
    for n in 0..10_000_u32 {
        let id = 2 * n + 1;
        let both = [
            frame(HEADERS, END_HEADERS | END_STREAM, id, &head(2)),
            frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()),
        ];
        if stream.write_all(&both.concat()).is_err() {
            break;
        }
    }
    let frames = frames_of(&mut stream);
    assert_eq!(goaway(&frames), Some(11), "ENHANCE_YOUR_CALM");
    let asked = peer.seen().len() - seen;
    println!("measured: rapid reset: GOAWAY after {:?}, {asked} requests went upstream", begin.elapsed());
    assert!(asked < 100, "{asked}");
    scene.ends();
}

#[test]
fn floods_of_every_kind_end_their_own_connection() {
    let runtime = Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::echo());
    let mut scene = Scene::before(runtime, peer.address(), "", "", &[]);
    let opens = |stream: u32| frame(HEADERS, END_HEADERS, stream, &head(3));
    type Nth = fn(u32) -> Vec<u8>;
    let flood: [(&str, Nth); 6] = [
        ("PING", |_| frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", |_| frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", |_| frame(2, 0, 1, &[0, 0, 0, 3, 1])),
        ("empty DATA", |_| frame(0, 0, 1, &[])),
        // Each makes the server reset a stream of its own accord.
        ("MadeYouReset", |n| {
            let id = 2 * n + 3;
            [frame(HEADERS, END_HEADERS, id, &head(3)), frame(8, 0, id, &[0; 4])].concat()
        }),
        ("CONTINUATION", |n| match n {
            0 => frame(HEADERS, 0, 3, &head(2)),
            _ => frame(9, 0, 3, &[0x40, 1, b'x', 1, b'y']),
        }),
    ];
    for (name, one) in flood {
        let seen = peer.seen().len();
        let mut stream = speaks_http2(scene.limen.port, &[]);
        stream.write_all(&opens(1)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut sent = 0;
        for n in 0..100_000 {
            // Answers are read by nobody: who floods does not wait for them.
            if stream.write_all(&one(n)).is_err() {
                break;
            }
            sent += 1;
        }
        let _rest = frames_of(&mut stream);
        println!("measured: a flood of {name} ended after at most {sent} frames");
        assert!(sent < 100_000, "{name} goes on for ever");
        assert!(peer.seen().len() - seen < 1200, "{name}: {}", peer.seen().len() - seen);
    }
    scene.ends();
}

#[test]
fn a_tunnel_lives_while_it_speaks_and_ends_on_both_sides() {
    let up = Upstream::start("up");
    let scene = Scene::before(
        Runtime::new().unwrap(),
        ([127, 0, 0, 1], up.port).into(),
        "",
        "",
        &["--stream-idle-timeout=1s"],
    );
    let settled = scene.proxy.open();
    let opens = || {
        let mut tunnel = Client::connect(scene.limen.port).unwrap();
        let upgrade =
            "GET /ws HTTP/1.1\r\nHost: up.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        tunnel.send(upgrade.as_bytes()).unwrap();
        assert_eq!(tunnel.receive().unwrap().status, 101);
        tunnel
    };
    // Three times as long as it may be silent.
    let (mut tunnel, begin) = (opens(), Instant::now());
    while begin.elapsed() < Duration::from_secs(3) {
        tunnel.send(b"ping").unwrap();
        assert_eq!(tunnel.read_exact(4).unwrap(), b"ping");
        thread::park_timeout(Duration::from_millis(200));
    }
    let silent = Instant::now();
    assert!(tunnel.read_exact(1).is_err());
    assert!(
        silent.elapsed() >= Duration::from_millis(800) && silent.elapsed() < PATIENCE / 2,
        "{:?}",
        silent.elapsed()
    );
    eventually("its other side to end", || (scene.proxy.open() <= settled).then_some(()));
    // One side dies, then the other.
    let mut tunnel = opens();
    scene.proxy.set(Fault::ResetAfter(0));
    tunnel.send(b"ping").unwrap();
    let mut after = Vec::new();
    while let Ok(byte) = tunnel.read_exact(1) {
        after.extend(byte);
    }
    assert!(after.is_empty(), "{}", String::from_utf8_lossy(&after));
    scene.proxy.set(Fault::None);
    let tunnel = opens();
    drop(tunnel);
    eventually("what the client left to end", || (scene.proxy.open() <= settled).then_some(()));
    scene.heals();
}

#[test]
fn a_header_that_unpacks_to_megabytes_costs_none() {
    let runtime = Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::echo());
    let mut scene = Scene::before(runtime, peer.address(), "", "", &[]);
    let seen = peer.seen().len();
    let (before, _) = crate::measure::memory(scene.limen.child.id());
    for _ in 0..20 {
        let mut stream = speaks_http2(scene.limen.port, &[]);
        // `x: aaa…` into the table, and then again by its index, a byte each time.
        let value = "a".repeat(3900);
        let length = [0x7f, 0xbd, 0x1d];
        let mut block = [&head(2)[..], &[0x40, 1, b'x'], &length, value.as_bytes()].concat();
        assert_eq!(127 + 0x3d + (0x1d << 7), 3900, "the length as HPACK writes it");
        block.extend([0xbe; 11_000]);
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).unwrap();
        // Answered 431, or reset: whichever, that is all.
        loop {
            let mut first = [0; 9];
            if stream.read_exact(&mut first).is_err() {
                break;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, first[0], first[1], first[2]]) as usize];
            stream.read_exact(&mut payload).unwrap();
            if matches!(first[3], HEADERS | RST_STREAM | GOAWAY) {
                break;
            }
        }
    }
    assert_eq!(peer.seen().len(), seen, "nothing of it went upstream");
    let (after, most) = crate::measure::memory(scene.limen.child.id());
    println!("measured: 20 header blocks that unpack to 43 MB each: {before} MiB before, {most} at the most");
    assert!(most < before + 20, "{before} MiB before, {after} after, {most} at the most");
    scene.ends();
}

#[test]
fn large_heads_of_many_cost_little() {
    let mut scene = Scene::start("", "");
    let (before, _) = crate::measure::memory(scene.limen.child.id());
    let head = format!("GET / HTTP/1.1\r\nHost: up.example.com\r\nX: {}", "x".repeat(1 << 20));
    let held: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(scene.limen.port).unwrap();
            // It is answered and closed before all of it is sent.
            let _refused = stream.write_all(head.as_bytes());
            stream
        })
        .collect();
    let (after, most) = crate::measure::memory(scene.limen.child.id());
    println!("measured: 200 heads of 1 MiB: {before} MiB before, {most} at the most");
    assert!(most < before + 20, "{before} MiB before, {after} after, {most} at the most");
    drop(held);
    scene.ends();
}

#[test]
fn streams_that_stall_are_ended_and_so_is_an_idle_connection() {
    let flags = ["--stream-idle-timeout=1s", "--request-timeout=1s", "--idle-timeout=1s"];
    let runtime = Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::echo());
    let mut scene = Scene::before(runtime, peer.address(), "", "", &flags);
    // A window of nothing: what is answered cannot be sent. A body that does not come. Silence.
    for (settings, flags, method) in [(&[(4, 0)][..], END_HEADERS | END_STREAM, 2), (&[][..], END_HEADERS, 3)]
    {
        let mut stream = speaks_http2(scene.limen.port, settings);
        stream.write_all(&frame(HEADERS, flags, 1, &head(method))).unwrap();
        let begin = Instant::now();
        let frames = frames_of(&mut stream);
        // By whichever frame, or none: the connection is closed, and what it held upstream.
        assert!(begin.elapsed() < PATIENCE / 2, "{:?}: {frames:?}", begin.elapsed());
    }
    let mut idle = speaks_http2(scene.limen.port, &[]);
    let frames = frames_of(&mut idle);
    assert_eq!(goaway(&frames), Some(0), "{frames:?}");
    scene.ends();
}

#[test]
fn a_client_that_leaves_is_followed_upstream_at_once() {
    // Takes whatever comes and says nothing, but to the scene.
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = taken.clone();
    let hangs = listening(move |stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        while let Some(head) = request_head(&mut reader) {
            if head.contains("/hung") {
                count.fetch_add(1, Ordering::SeqCst);
                let _ended = std::io::copy(&mut reader, &mut std::io::sink());
                return;
            }
            let _left = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let runtime = Runtime::new().unwrap();
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let begins =
        runtime.block_on(Peer::plays(&[gateway::testing::Act::OK, gateway::testing::Act::SayAndHang(begun)]));
    let mut slowest = Duration::ZERO;
    for (upstream, path) in [(([127, 0, 0, 1], hangs).into(), "/hung"), (begins.address(), "/begun")] {
        let scene = Scene::before(Runtime::new().unwrap(), upstream, "", "", &[]);
        for request in [
            format!("GET {path} HTTP/1.1\r\nHost: up.example.com\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nHost: up.example.com\r\nContent-Length: 3\r\n\r\nabc"),
            format!("POST {path} HTTP/1.1\r\nHost: up.example.com\r\nContent-Length: 100000\r\n\r\nabc"),
        ] {
            for by_reset in [false, true] {
                // An upload that is cut off has not been read whole by who plays acts.
                if path == "/begun" && request.contains("100000") {
                    continue;
                }
                let before = taken.load(Ordering::SeqCst);
                let mut client = Client::connect(scene.limen.port).unwrap();
                client.send(request.as_bytes()).unwrap();
                if path == "/begun" {
                    // The head, and what there is of the body: then it hangs.
                    let mut said = Vec::new();
                    while !said.ends_with(b"abc") {
                        said.extend(client.read_exact(1).unwrap());
                    }
                } else {
                    eventually("the request to be upstream", || {
                        (taken.load(Ordering::SeqCst) > before).then_some(())
                    });
                }
                assert!(scene.proxy.open() > 0);
                if by_reset {
                    socket2::SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
                }
                let begin = Instant::now();
                drop(client);
                while scene.proxy.open() > 0 {
                    assert!(begin.elapsed() < PATIENCE, "{request}: it goes on upstream");
                    thread::park_timeout(Duration::from_millis(1));
                }
                slowest = slowest.max(begin.elapsed());
            }
        }
        eventually("its line", || scene.limen.access_log().contains(" DC ").then_some(()));
        if path == "/hung" {
            scene.heals();
        }
    }
    println!("measured: a client that leaves: the slowest was followed upstream after {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

/// A connection from another address of this machine's.
fn from_elsewhere(port: u16) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[test]
fn one_client_cannot_take_the_connections_of_others() {
    let runtime = Runtime::new().unwrap();
    let upstream = runtime.block_on(Peer::echo()).address();
    let mut scene = Scene::before(runtime, upstream, "", "", &["--max-connections-per-client=8"]);
    let asks = |mut stream: TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: up.example.com\r\n\r\n").ok()?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).ok()?;
        (&status == b"HTTP/1.1 200").then_some(stream)
    };
    let held: Vec<TcpStream> =
        (0..60).filter_map(|_| from_elsewhere(scene.limen.port).ok().and_then(asks)).collect();
    assert_eq!(held.len(), 8, "of sixty from one address");
    assert!(scene.metric("limen_connections_refused_total") >= 52.0);
    drop(held);
    eventually("room for it again", || from_elsewhere(scene.limen.port).ok().and_then(asks));
    scene.ends();
}

#[test]
fn a_flood_of_handshakes_leaves_others_their_turn() {
    let secure = free_port();
    let server = format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: secure, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
    - {{port: {{number: {secure}, name: https, protocol: HTTPS}}, hosts: ['*.example.com'], tls: {{mode: SIMPLE, credentialName: edge}}}}
"
    );
    let more = crate::keys::Pair::rsa("up.example.com").secret("istio-system", "edge", &[]) + &server;
    let mut scene = Scene::start("", &more);
    eventually("the handshake to be possible", || crate::keys::shown(secure, "up.example.com"));
    let begin = Instant::now();
    let flood = || {
        let mut count = 0;
        while begin.elapsed() < Duration::from_secs(3) {
            count += usize::from(crate::keys::shown(secure, "up.example.com").is_some());
        }
        count
    };
    let shaken: usize = thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(flood)).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    println!("measured: {shaken} full RSA handshakes in three seconds beside the canary");
    assert!(shaken > 10, "that was no flood: {shaken}");
    scene.ends();
}

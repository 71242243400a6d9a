//! Limits as an operator sets them: by flag, and by MeshConfig's profile for edges.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::atomic::Ordering,
    time::Instant,
};

use crate::harness::*;

fn gateway(more: &str, flags: &[&str]) -> (Limen, Upstream) {
    let up = Upstream::start("up");
    let config =
        [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port]), more.to_owned()].concat();
    (Limen::start_with(&[("all.yaml", &config)], flags), up)
}

fn mesh(text: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {text}\n"
    )
}

/// What an HTTP/2 server says of itself: its settings, and the window that it opens for the connection.
fn settings(port: u16) -> (Vec<(u16, u32)>, u32) {
    let mut client = Client::connect(port).unwrap();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let (mut found, mut window) = (Vec::new(), None);
    loop {
        let head = client.read_exact(9).unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let body = client.read_exact(length).unwrap();
        let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        match (head[3], head[4] & 1) {
            (4, 0) => {
                for at in (0..length).step_by(6) {
                    found.push((u16::from_be_bytes([body[at], body[at + 1]]), word(at + 2)));
                }
            }
            (8, _) => window = Some(65_535 + word(0)),
            _ => {}
        }
        if let (Some(window), false) = (window, found.is_empty()) {
            return (found, window);
        }
    }
}

fn status(limen: &Limen, request: &str) -> u16 {
    let mut client = Client::connect(limen.port).unwrap();
    client.send(request.as_bytes()).unwrap();
    client.receive().unwrap().status
}

const HEAD: &str = "Host: up.example.com\r\n";

#[test]
fn each_flag_is_a_limit() {
    let flags = [
        "--max-concurrent-streams=7",
        "--h2-stream-window=70000",
        "--h2-connection-window=200000",
        "--max-header-bytes=2000",
        "--max-headers=5",
        "--underscores=refuse",
        "--http10=allow",
        "--trace=allow",
        "--bare-lf=allow",
        "--request-headers-timeout=1s",
        "--request-timeout=1s",
        "--idle-timeout=1s",
        "--first-byte-timeout=1s",
    ];
    // Accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = virtual_service("hung", "") + &service("hung", &[silent.local_addr().unwrap().port()]);
    let (limen, _up) = gateway(&hung, &flags);
    let (found, window) = settings(limen.port);
    assert!(
        found.contains(&(3, 7)) && found.contains(&(4, 70_000)) && found.contains(&(6, 2000)),
        "{found:?}"
    );
    assert_eq!(window, 200_000);
    let long = "a".repeat(2000);
    for (request, wants) in [
        (format!("GET / HTTP/1.1\r\n{HEAD}\r\n"), 200),
        (format!("GET / HTTP/1.1\r\n{HEAD}X: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\n{HEAD}{}\r\n", "x: 1\r\n".repeat(5)), 431),
        (format!("GET / HTTP/1.1\r\n{HEAD}x_y: 1\r\n\r\n"), 400),
        (format!("GET / HTTP/1.0\r\n{HEAD}\r\n"), 200),
        (format!("TRACE / HTTP/1.1\r\n{HEAD}\r\n"), 200),
        ("GET / HTTP/1.1\nHost: up.example.com\n\n".to_owned(), 200),
        ("GET / HTTP/1.1\r\nHost: up".to_owned(), 408),
        ("POST / HTTP/1.1\r\nHost: hung.example.com\r\nContent-Length: 9\r\n\r\nabc".to_owned(), 408),
    ] {
        let begin = Instant::now();
        assert_eq!(status(&limen, &request), wants, "{request:?}");
        assert!(wants != 408 || begin.elapsed().as_millis() >= 900, "{request:?}");
    }
    // Silent from the beginning, and silent after a request: closed without a word.
    let mut quiet = Client::connect(limen.port).unwrap();
    assert!(quiet.read_exact(1).is_err());
    assert_eq!(quiet.get("up.example.com", "/").map(|r| r.status).unwrap_or(0), 0);
    let mut idle = Client::connect(limen.port).unwrap();
    assert_eq!(idle.get("up.example.com", "/").unwrap().status, 200);
    let begin = Instant::now();
    assert!(idle.read_exact(1).is_err());
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
}

#[test]
fn connections_have_three_limits() {
    for flag in ["--max-connections=3", "--max-connections-per-listener=3", "--max-connections-per-client=3"]
    {
        let (limen, _up) = gateway("", &[flag]);
        let kept: Vec<_> = eventually("three connections", || {
            let mut three: Vec<_> = (0..3).map(|_| Client::connect(limen.port).unwrap()).collect();
            three.iter_mut().all(|one| one.get("up.example.com", "/").is_ok()).then_some(three)
        });
        assert!(get(limen.port, "up.example.com", "/").is_err(), "{flag}");
        drop(kept);
        eventually("room", || get(limen.port, "up.example.com", "/").ok());
    }
}

#[test]
fn the_edge_profile_holds_for_a_running_gateway() {
    let (limen, _up) = gateway(&mesh("defaultConfig: {connectionSettings: {profile: EDGE}}"), &[]);
    let (found, window) = settings(limen.port);
    assert!(found.contains(&(3, 100)) && found.contains(&(4, 65_536)), "{found:?}");
    assert_eq!(window, 1 << 20);
    assert_eq!(status(&limen, &format!("GET / HTTP/1.1\r\n{HEAD}x_y: 1\r\n\r\n")), 400);
    assert_eq!(status(&limen, &format!("GET /a%2Fb HTTP/1.1\r\n{HEAD}\r\n")), 307);
    assert_eq!(get(limen.port, "up.example.com", "/a//b").unwrap().body, "up /a/b");
}

#[test]
fn mesh_config_says_what_it_has_no_field_for_in_proxy_metadata() {
    let mesh = mesh("defaultConfig: {proxyMetadata: {LIMEN_MAX_HEADERS: '3', LIMEN_MEMORY_LIMIT: '1Gi'}}");
    let (limen, _up) = gateway(&mesh, &[]);
    assert_eq!(status(&limen, &format!("GET / HTTP/1.1\r\n{HEAD}a: 1\r\nb: 1\r\nc: 1\r\n\r\n")), 431);
}

#[test]
fn a_process_short_of_descriptors_sheds_and_recovers() {
    let (limen, _up) =
        gateway("", &["--file-limit=60", "--shed-connections-at=100", "--shed-requests-at=90"]);
    assert_eq!(get(limen.port, "up.example.com", "/").unwrap().status, 200);
    let mut held = Vec::new();
    let shed = eventually("a 503", || {
        held.extend(Client::connect(limen.port));
        let response = get(limen.port, "up.example.com", "/shed").ok()?;
        (response.status == 503).then_some(response)
    });
    assert_eq!((shed.header("retry-after"), shed.header("connection")), (Some("1"), Some("close")));
    drop(held);
    eventually("enough again", || {
        get(limen.port, "up.example.com", "/").ok().filter(|response| response.status == 200)
    });
    eventually("its line", || limen.access_log().contains("\" 503 OM ").then_some(()));
}

#[test]
fn a_client_that_closes_its_side_gives_up_its_request() {
    let (limen, up) = gateway("", &[]);
    let mut client = TcpStream::connect(("127.0.0.1", limen.port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(format!("GET /slow HTTP/1.1\r\n{HEAD}\r\n").as_bytes()).unwrap();
    eventually("the request to be upstream", || {
        (up.slow_in_flight.load(Ordering::SeqCst) == 1).then_some(())
    });
    client.shutdown(Shutdown::Write).unwrap();
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).unwrap();
    assert!(seen.is_empty(), "{}", String::from_utf8_lossy(&seen));
    eventually("the line", || limen.access_log().contains(" DC ").then_some(()));
}

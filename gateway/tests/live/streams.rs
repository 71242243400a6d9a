//! Bodies that no buffer could hold, through every action of a rule: memory stays what it was.

use crate::harness::{Client, GATEWAY, Limen, PATIENCE, eventually, service, virtual_service};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Of each body.
const LENGTH: u64 = 1 << 30;
/// That the process may grow by: buffers of connections, a retry's 64 KiB, a mirror's 1 MiB, and what the allocator keeps.
const GROWTH: u64 = 48 << 20;
const CHUNK: usize = 64 << 10;

/// Takes any body and says how long it was; answers `/source` with a long one.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(stream: TcpStream) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().ok()?;
            }
            if line.trim_end().is_empty() {
                break;
            }
        }
        let read = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).ok()?;
        if first.contains("/source") {
            writer
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes())
                .ok()?;
            std::io::copy(&mut std::io::repeat(b'x').take(LENGTH), &mut writer).ok()?;
        } else {
            let body = read.to_string();
            writer
                .write_all(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
                )
                .ok()?;
        }
    }
}

/// The most memory that a process ever had resident, in bytes.
fn peak(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn long_bodies_pass_every_action_at_constant_memory() {
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let rule = "      timeout: 60s
      retries: {attempts: 2, perTryTimeout: 50s, retryOn: '5xx,reset'}
      rewrite: {authority: inner.example.com}
      mirror: {host: hung}
      headers: {request: {set: {x-a: a}}, response: {set: {x-b: b}}}
      corsPolicy: {allowOrigins: [{exact: 'http://o'}]}
      fault: {delay: {fixedDelay: 1ms, percentage: {value: 100}}}";
    let yaml = virtual_service("app", rule)
        + &service("app", &[upstream()])
        + &service("hung", &[hung.local_addr().unwrap().port()]);
    let gateway = Limen::start(&[("gateway.yaml", GATEWAY), ("app.yaml", &yaml)]);
    let id = gateway.child.id();
    let mut client = Client::connect(gateway.port).unwrap();
    let warm = eventually("the route to be in force", || {
        client.get("app.example.com", "/warm").ok().filter(|r| r.status == 200)
    });
    assert_eq!(warm.header("x-b"), Some("b"));
    let before = peak(id);

    let begin = Instant::now();
    let head = format!("POST /sink HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.send(head.as_bytes()).unwrap();
    let chunk = vec![b'x'; CHUNK];
    for _ in 0..LENGTH / CHUNK as u64 {
        client.send(&chunk).unwrap();
    }
    let response = client.receive().unwrap();
    assert_eq!((response.status, response.body), (200, LENGTH.to_string()));

    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /source HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n").unwrap();
    let got = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert!(got > LENGTH && got < LENGTH + 4096, "{got}");
    assert!(begin.elapsed() < Duration::from_secs(60));

    let growth = peak(id).saturating_sub(before);
    assert!(growth < GROWTH, "grew by {growth} bytes");
}

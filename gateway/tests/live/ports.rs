//! Ports that come, go, and cannot be had, while a gateway runs.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
};

use crate::harness::*;

/// A Gateway whose servers are these; each takes `*.example.com`.
fn gateway(servers: &[String]) -> String {
    let servers: String = servers
        .iter()
        .enumerate()
        .map(|(index, port)| {
            format!("  - {{port: {{name: http-{index}, protocol: HTTP, {port}, hosts: ['*.example.com']}}\n")
        })
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: public, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
{servers}"
    )
}

fn on(port: u16) -> String {
    format!("number: {port}}}")
}

fn served(port: u16) -> bool {
    get(port, "up.example.com", "/").is_ok_and(|response| response.status == 200)
}

#[test]
fn ports_come_and_go_and_nobody_else_notices() {
    let up = Upstream::start("up");
    let (first, second, third) = (free_port(), free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gw.sock");
    let unix = format!("number: 0}}, bind: 'unix://{}'", path.display());
    let rest = virtual_service("up", "") + &service("up", &[up.port]);
    let limen = Limen::start(&[("gateway.yaml", &gateway(&[on(first), on(second)])), ("rest.yaml", &rest)]);
    let ask = || {
        let mut stream = UnixStream::connect(&path)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: up.example.com\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    assert!(served(first) && served(second) && !served(third) && ask().is_err());
    let mut stays = Client::connect(first).unwrap();
    let mut goes = Client::connect(second).unwrap();
    for client in [&mut stays, &mut goes] {
        assert_eq!(client.get("up.example.com", "/").unwrap().status, 200);
    }

    limen.write("gateway.yaml", &gateway(&[on(first), on(third), unix]));
    eventually("the new port", || served(third).then_some(()));
    eventually("the unix socket", || ask().ok().filter(|answer| answer.starts_with("HTTP/1.1 200 ")));
    eventually("the old port to be closed", || {
        TcpStream::connect(("127.0.0.1", second)).is_err().then_some(())
    });
    // By drain and not by reset: who has a connection is answered once more, and told to go.
    let last = goes.get("up.example.com", "/last").unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    let kept = stays.get("up.example.com", "/").unwrap();
    assert_eq!((kept.status, kept.header("connection")), (200, None));

    limen.write("gateway.yaml", &gateway(&[on(second)]));
    eventually("the port that comes back", || served(second).then_some(()));
    eventually("the unix socket to be closed", || ask().is_err().then_some(()));
    assert_eq!(get(limen.status, "localhost", "/healthz/ready").unwrap().status, 200);
}

#[test]
fn a_port_that_cannot_be_had_is_said_and_tried_again() {
    let up = Upstream::start("up");
    let (good, later) = (free_port(), free_port());
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let bad = taken.local_addr().unwrap().port();
    let rest = virtual_service("up", "") + &service("up", &[up.port]);
    let limen = Limen::spawn(&[("gateway.yaml", &gateway(&[on(good), on(bad)])), ("rest.yaml", &rest)], &[]);
    // The other port serves, and the process is not ready and says why.
    eventually("the good port", || served(good).then_some(()));
    let ready = || get(limen.status, "localhost", "/healthz/ready").unwrap();
    assert_eq!((ready().status, ready().body.as_str()), (503, "not every listener is bound\n"));
    let finding = || {
        let all = get(limen.admin, "localhost", "/diagnostics").unwrap().body;
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        let found = all["findings"].as_array().unwrap().iter().find(|one| one["code"] == "LIM0030")?;
        found["message"].as_str().map(str::to_owned)
    };
    let said = finding().unwrap();
    assert!(said.contains(&bad.to_string()), "{said}");
    assert!(limen.process_log().contains(&bad.to_string()), "{}", limen.process_log());
    drop(taken);
    eventually("the port that was given up", || served(bad).then_some(()));
    eventually("readiness", || (ready().status == 200).then_some(()));
    assert_eq!(finding(), None);

    // Once ready it stays so: a later port that cannot be bound must not take the others out of service.
    let _taken = TcpListener::bind(("127.0.0.1", later)).unwrap();
    limen.write("gateway.yaml", &gateway(&[on(good), on(later)]));
    eventually("the finding", finding);
    assert_eq!(ready().status, 200);
    assert!(served(good));
}

//! A change of the configuration never cuts a connection and never fails a request.

use crate::harness::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

#[test]
fn the_next_request_follows_an_edit() {
    let up = Upstream::start("up");
    let base = [GATEWAY.to_owned(), service("up", &[up.port])].concat();
    let limen = Limen::start(&[("base.yaml", &base), ("up.yaml", &virtual_service("up", ""))]);
    let mut client = Client::connect(limen.port).unwrap();
    assert_eq!(client.get("up.example.com", "/a").unwrap().body, "up /a");
    limen.write("up.yaml", &virtual_service("up", "      rewrite: {uri: /edited/}"));
    eventually("the edit", || {
        (client.get("up.example.com", "/a").unwrap().body == "up /edited/a").then_some(())
    });
    std::fs::remove_file(limen.folder.path().join("up.yaml")).unwrap();
    eventually("the deletion", || (client.get("up.example.com", "/a").unwrap().status == 404).then_some(()));
}

#[test]
fn a_broken_update_keeps_the_last_accepted_version() {
    let up = Upstream::start("up");
    let base = [GATEWAY.to_owned(), service("up", &[up.port])].concat();
    let limen = Limen::start(&[("base.yaml", &base), ("up.yaml", &virtual_service("up", ""))]);
    limen.write("up.yaml", &virtual_service("up", "      timeout: not-a-duration"));
    eventually("the finding", || {
        let diagnostics = get(limen.admin, "localhost", "/diagnostics").unwrap().body;
        diagnostics.contains("default/up").then_some(())
    });
    assert_eq!(get(limen.port, "up.example.com", "/a").unwrap().body, "up /a");
}

#[test]
fn fifty_changes_a_second_fail_nothing() {
    let up = Upstream::start("up");
    let base = [GATEWAY.to_owned(), service("up", &[up.port]), virtual_service("up", "")].concat();
    let limen = Limen::start(&[("base.yaml", &base)]);

    let mut socket = Client::connect(limen.port).unwrap();
    socket
        .send(
            b"GET /ws HTTP/1.1\r\nHost: up.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    assert_eq!(socket.receive().unwrap().status, 101);

    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served, port) = (stop.clone(), served.clone(), limen.port);
            thread::spawn(move || {
                let mut client = Client::connect(port).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let response = client.get("up.example.com", "/load").expect("a kept connection was cut");
                    assert_eq!((response.status, response.body.as_str()), (200, "up /load"));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    let begin = Instant::now();
    for change in 0..500_u32 {
        limen.write(
            "changing.yaml",
            &[
                virtual_service("other", &format!("      timeout: {}s", change + 1)),
                service("other", &[40_000 + (change % 1000) as u16]),
            ]
            .concat(),
        );
        socket.send(b"ping").unwrap();
        assert_eq!(socket.read_exact(4).unwrap(), b"ping", "the WebSocket died at change {change}");
        let due = Duration::from_millis(20) * (change + 1);
        thread::park_timeout(due.saturating_sub(begin.elapsed()));
    }
    eventually("the last change", || {
        let dump = get(limen.admin, "localhost", "/config_dump").unwrap().body;
        dump.contains("other.default.svc.cluster.local").then_some(())
    });
    // So fast a series is taken up in few steps; these are each seen live before the next, under the same load.
    for change in 0..20_u32 {
        limen.write(
            "seen.yaml",
            &virtual_service("seen", &format!("      directResponse: {{status: {}}}", 210 + change))
                .replace("- route: [{destination: {host: seen}}]", "-"),
        );
        eventually("each change", || {
            (get(limen.port, "seen.example.com", "/").unwrap().status == 210 + change as u16).then_some(())
        });
        socket.send(b"ping").unwrap();
        assert_eq!(socket.read_exact(4).unwrap(), b"ping", "the WebSocket died at swap {change}");
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    assert!(served.load(Ordering::Relaxed) > 500, "hardly any load: {served:?}");
}

//! An orderly end: SIGTERM loses no request that was accepted, and a second signal waits for none.

use crate::harness::*;
use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

#[test]
fn sigterm_during_slow_requests_loses_none() {
    let up = Upstream::start("up");
    let config = [GATEWAY.to_owned(), service("up", &[up.port]), virtual_service("up", "")].concat();
    let mut limen = Limen::start(&[("all.yaml", &config)]);
    let port = limen.port;
    let clients: Vec<_> = (0..100)
        .map(|_| thread::spawn(move || get(port, "up.example.com", "/slow").map(|r| (r.status, r.body))))
        .collect();
    eventually("all slow requests to be upstream", || {
        (up.slow_in_flight.load(Ordering::SeqCst) == 100).then_some(())
    });
    limen.signal("TERM");
    eventually("readiness to fail", || {
        get(limen.status, "localhost", "/healthz/ready").map_or(Some(()), |r| (r.status == 503).then_some(()))
    });
    for client in clients {
        assert_eq!(client.join().unwrap().unwrap(), (200, "up /slow".to_owned()));
    }
    let status = eventually("the process to end", || limen.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", limen.process_log());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let up = Upstream::start("up");
    let config = [GATEWAY.to_owned(), service("up", &[up.port]), virtual_service("up", "")].concat();
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let hung = up.slow_in_flight.load(Ordering::SeqCst);
        let mut limen = Limen::start(&[("all.yaml", &config)]);
        let mut client = Client::connect(limen.port).unwrap();
        client.send(b"GET /hung HTTP/1.1\r\nHost: up.example.com\r\n\r\n").unwrap();
        eventually("the request to be upstream", || {
            (up.slow_in_flight.load(Ordering::SeqCst) > hung).then_some(())
        });
        limen.signal(first);
        eventually("readiness to fail", || {
            let ready = get(limen.status, "localhost", "/healthz/ready");
            ready.is_ok_and(|response| response.status == 503).then_some(())
        });
        assert!(limen.child.try_wait().unwrap().is_none(), "it waits for the request");
        let begin = Instant::now();
        limen.signal(second);
        let status = eventually("the process to end", || limen.child.try_wait().unwrap());
        // The drain would have taken 15 s.
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}: {}", begin.elapsed(), limen.process_log());
        assert_eq!(status.code(), Some(0), "{}", limen.process_log());
        assert!(client.receive().is_err(), "what was open is cut");
    }
}

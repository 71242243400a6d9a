//! An orderly end: SIGTERM loses no request that was accepted.

use crate::harness::*;
use std::{sync::atomic::Ordering, thread};

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

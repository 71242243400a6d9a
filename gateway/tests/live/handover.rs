//! One process takes the sockets of another, while clients keep coming.

use crate::harness::*;
use std::{
    fs,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// Ended when the test is.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Clients that ask on connections of their own, on ones that they keep, and over a unix socket.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<Result<(), String>>>,
}

impl Load {
    fn start(ports: [u16; 2], unix: &str) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |n: usize| {
            let (stop, served, unix) = (stop.clone(), served.clone(), unix.to_owned());
            let port = ports[n % ports.len()];
            thread::spawn(move || {
                let mut kept: Option<Client> = None;
                while !stop.load(Ordering::SeqCst) {
                    let response = match n % 3 {
                        0 => get(port, "up.example.com", "/"),
                        1 => by_unix(&unix),
                        _ => {
                            let mut client = match kept.take() {
                                Some(client) => client,
                                None => Client::connect(port).map_err(|e| format!("connect: {e}"))?,
                            };
                            let response = client.get("up.example.com", "/");
                            let closes = |r: &Response| {
                                r.header("connection")
                                    .is_some_and(|value| value.eq_ignore_ascii_case("close"))
                            };
                            if response.as_ref().is_ok_and(|r| !closes(r)) {
                                kept = Some(client);
                            }
                            response
                        }
                    };
                    match response {
                        Ok(response) if response.status == 200 => served.fetch_add(1, Ordering::SeqCst),
                        other => return Err(format!("client {n}: {other:?}")),
                    };
                }
                Ok(())
            })
        };
        let clients = (0..9).map(client).collect();
        Self { stop, served, clients }
    }

    /// Waits until so many more were served.
    fn more(&self, count: usize) {
        let before = self.served.load(Ordering::SeqCst);
        eventually("requests to be served", || {
            let failed = self.clients.iter().any(thread::JoinHandle::is_finished);
            (failed || self.served.load(Ordering::SeqCst) >= before + count).then_some(())
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        let failures: Vec<_> =
            self.clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
        assert_eq!(failures, Vec::<String>::new());
    }
}

fn by_unix(path: &str) -> std::io::Result<Response> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: up.example.com\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
    Ok(Response { status, headers: Vec::new(), body: String::new() })
}

#[test]
fn a_successor_takes_over_and_no_request_is_lost() {
    let up = Upstream::start("up");
    let second = free_port();
    let place = tempfile::tempdir().unwrap();
    let (unix, socket) = (place.path().join("gw.sock"), place.path().join("handover.sock"));
    let (unix, socket) = (unix.to_str().unwrap(), socket.to_str().unwrap());
    let gateway = format!(
        "{GATEWAY}    - port: {{number: {second}, name: other, protocol: HTTP}}
      hosts: ['*.example.com']
    - port: {{number: 0, name: unix, protocol: HTTP}}
      bind: unix://{unix}
      hosts: ['*.example.com']
"
    );
    let config = [gateway, service("up", &[up.port]), virtual_service("up", "")].concat();
    let mut limen = Limen::start_with(&[("all.yaml", &config)], &["--handover", socket]);
    let load = Load::start([limen.port, second], unix);
    load.more(100);

    // One that fails after it got the sockets: nothing changes.
    limen.write("wrong.yaml", "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: w}\nspec: {servers: [{hosts: []}]}\n");
    let mut strict = Ended(limen.again("strict.log", &["--strict"]));
    let status = eventually("the strict process to give up", || strict.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    load.more(100);
    assert!(limen.child.try_wait().unwrap().is_none(), "{}", limen.process_log());
    assert_eq!(get(limen.status, "localhost", "/healthz/ready").unwrap().status, 200);

    // One that starts: the first one goes, and nobody notices.
    let successor = Ended(limen.again("successor.log", &[]));
    let status = eventually("the first process to end", || limen.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", limen.process_log());
    load.more(100);
    let ready = eventually("readiness", || get(limen.status, "localhost", "/healthz/ready").ok());
    assert_eq!(ready.status, 200);

    // And a third one, on the socket of the second.
    let mut successor = successor;
    let _third = Ended(limen.again("third.log", &[]));
    let log = limen.logs.path().join("successor.log");
    let status = eventually("the second process to end", || successor.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", fs::read_to_string(log).unwrap());
    load.more(100);
    load.end();
}

#[test]
fn a_successor_that_never_gets_ready_does_not_hold_up_the_end() {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("next");
    let mut limen = Limen::start_with(&[("all.yaml", GATEWAY)], &["--handover", path.to_str().unwrap()]);
    let mut successor = eventually("the offer", || UnixStream::connect(&path).ok());
    successor.write_all(b"1\0").unwrap();
    // It has been given something: from here on its word is waited for.
    successor.read_exact(&mut [0; 2]).unwrap();
    limen.signal("TERM");
    let status = eventually("the process to end", || limen.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", limen.process_log());
}

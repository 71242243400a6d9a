//! A reload storm: one configuration after the other, each in force before the next, while requests and streams go on.
//!
//! Invariant: no answer but 200, no stream is cut, and the process is as large at the end as it was.

use super::*;
use bytes::Bytes;
use gateway::{settings::AccessLogFormat, testing::TestGateway};
use http::Request;
use std::sync::atomic::AtomicUsize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Hosts that are there all the time.
const HOSTS: usize = 50;
/// Clients with a connection of their own, and the requests that they send in a second, all together.
const CLIENTS: u32 = 8;
const RATE: u32 = 2000;

/// Turns into a tunnel that says back what it hears.
async fn tunnel() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.ok()?);
                }
                let switch =
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(switch).await.ok()?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok()
            });
        }
    });
    address
}

/// Says each message of a stream back, as gRPC's do.
async fn streaming() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.ok()?;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let head = http::Response::builder().header("content-type", "application/grpc");
                        let mut answer = respond.send_response(head.body(()).unwrap(), false).ok()?;
                        let mut body = request.into_body();
                        while let Some(Ok(piece)) = body.data().await {
                            body.flow_control().release_capacity(piece.len()).ok()?;
                            answer.send_data(piece, false).ok()?;
                        }
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        answer.send_trailers(trailers).ok()
                    });
                }
                Some(())
            });
        }
    });
    address
}

/// The configuration of that number; every tenth is broken where that is asked for.
fn configuration(number: usize, peers: [SocketAddr; 3], broken: bool) -> String {
    use gateway::testing::{config, service};
    let [up, tunnel, grpc] = peers;
    let rules = format!(
        "  - match: [{{uri: {{prefix: /ws}}}}]\n    route: [{{destination: {{host: tunnel.example, port: {{number: 80}}}}}}]
  - match: [{{uri: {{prefix: /grpc}}}}]\n    route: [{{destination: {{host: grpc.example, port: {{number: 80}}}}}}]
  - headers: {{response: {{set: {{x-version: '{number}'}}}}}}\n    timeout: {}s
    route: [{{destination: {{host: up.example, port: {{number: 80}}}}}}]\n",
        10 + number % 50
    );
    let mut yaml = config(&rules, &[up], "HTTP");
    yaml += &(service("tunnel", tunnel, "HTTP") + &service("grpc", grpc, "GRPC"));
    for host in 0..HOSTS {
        // One host comes and goes with each configuration.
        let host = if host == 0 { number % 1000 } else { 1000 + host };
        yaml += &format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: h{host}, namespace: default}}\n\
             spec: {{hosts: [h{host}.example], gateways: [gw], http: [{{route: [{{destination: {{host: up.example}}}}]}}]}}\n"
        );
    }
    if broken && number % 10 == 9 {
        yaml = yaml.replace("    timeout: ", "    retries: {attempts: -1}\n    timeout: ");
    }
    yaml
}

/// How often an answer took so many tenths of a millisecond; the last stands for all that took longer.
struct Times(Box<[u32]>);

impl Default for Times {
    fn default() -> Times {
        Times(vec![0; 20_000].into())
    }
}

impl Times {
    fn add(&mut self, took: Duration) {
        let last = self.0.len() - 1;
        self.0[usize::try_from(took.as_micros() / 100).map_or(last, |at| at.min(last))] += 1;
    }

    /// The 99th.
    fn percentile(&self) -> Duration {
        let mut left = self.0.iter().sum::<u32>() / 100;
        let slow = self.0.iter().rposition(|count| {
            let enough = *count > left;
            left = left.saturating_sub(*count);
            enough
        });
        Duration::from_micros(100) * u32::try_from(slow.unwrap_or(0)).unwrap()
    }
}

/// Resident memory in MiB, descriptors and threads of this process.
fn size() -> (u64, Footprint) {
    let id = std::process::id();
    (crate::measure::memory(id).0, Footprint::of(id))
}

/// Set in a process that has only the storm in it.
const ALONE: &str = "LIMEN_TEST_ALONE";

/// Runs a test of this file again in a process of its own: what is measured is what the process holds, and other tests hold theirs.
fn apart(test: &str) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("faults::storm::{test}"), "--include-ignored", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{test} is not the name of the test: {said}");
    said.lines().filter(|line| line.starts_with("measured: ")).for_each(|line| println!("{line}"));
}

async fn storm(test: &str, changes: usize, broken: bool) {
    if std::env::var_os(ALONE).is_none() {
        return apart(test);
    }
    let up = Upstream::start("up");
    let peers = [([127, 0, 0, 1], up.port).into(), tunnel().await, streaming().await];
    // Lines of its log would be kept in this process.
    let quiet = |gateway: gateway::GatewayBuilder| gateway.access_log(AccessLogFormat::Off, std::io::sink());
    let gateway = TestGateway::with(&configuration(0, peers, false), quiet).await;
    let port = gateway.address(80).port();

    let mut socket = TcpStream::connect(gateway.address(80)).await.unwrap();
    socket
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let stream = TcpStream::connect(gateway.address(80)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request =
        Request::post("http://a.example/grpc/S").header("content-type", "application/grpc").body(());
    let (answer, mut messages) = client.send_request(request.unwrap(), false).unwrap();
    let mut answered = answer.await.unwrap().into_body();

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let times: Arc<Mutex<Times>> = Arc::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (stop, served, times) = (stop.clone(), served.clone(), times.clone());
            thread::spawn(move || {
                let mut client = Client::connect(port).unwrap();
                let begin = Instant::now();
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let answer = client.get("a.example", "/load").expect("a kept connection was cut");
                    assert_eq!(answer.status, 200);
                    times.lock().unwrap().add(asked.elapsed());
                    served.fetch_add(1, Ordering::Relaxed);
                    count += 1;
                    let due = Duration::from_secs(1) * CLIENTS * count / RATE;
                    thread::park_timeout(due.saturating_sub(begin.elapsed()));
                }
            })
        })
        .collect();
    let warm = served.load(Ordering::Relaxed) + 1000;
    gateway::testing::eventually("load", || (served.load(Ordering::Relaxed) >= warm).then_some(())).await;
    let before = std::mem::take(&mut *times.lock().unwrap()).percentile();
    let (mut size_before, begin) = (size(), Instant::now());
    let first = served.load(Ordering::Relaxed);
    for number in 1..=changes {
        let yaml = configuration(number, peers, broken);
        if broken && number % 10 == 9 {
            assert!(gateway.try_configure(&yaml).await.has_errors());
            let shown = gateway.get("http://a.example/version").await;
            assert_eq!(shown.header("x-version"), Some(&*(number - 1).to_string()), "the last good one");
        } else {
            gateway.configure(&yaml).await;
        }
        let message = Bytes::from_static(b"\0\0\0\0\x04ping");
        messages.send_data(message.clone(), false).unwrap();
        let back = tokio::time::timeout(PATIENCE, answered.data()).await.expect("in time");
        let back = back.unwrap_or_else(|| panic!("the stream was cut at change {number}")).unwrap();
        assert_eq!(back, message);
        answered.flow_control().release_capacity(back.len()).unwrap();
        socket.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        socket.read_exact(&mut back).await.unwrap_or_else(|e| panic!("the tunnel at change {number}: {e}"));
        assert_eq!(&back, b"ping");
        if number % 100 == 0 || number == changes {
            let shown = gateway.get("http://a.example/version").await;
            assert_eq!(shown.status, 200);
            assert_eq!(shown.header("x-version"), Some(&*number.to_string()));
        }
        // What an allocator and caches take for good, they have by now.
        if number == changes / 5 {
            size_before = size();
        }
    }
    let took = begin.elapsed();
    let load = served.load(Ordering::Relaxed) - first;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let during = times.lock().unwrap().percentile();
    let (memory_before, held_before) = size_before;
    let (memory, held) = size();
    println!(
        "measured: reload storm{}: {changes} changes in {:.0} s beside {:.0} requests a second, all 200; 99th percentile \
         {:.1} ms, before {:.1}; {memory_before} MiB after a fifth of them, {memory} at the end, clients and upstreams included",
        if broken { ", every tenth broken" } else { "" },
        took.as_secs_f64(),
        load as f64 / took.as_secs_f64(),
        during.as_secs_f64() * 1e3,
        before.as_secs_f64() * 1e3,
    );
    assert!(memory < memory_before + 32, "{memory_before} MiB before, {memory} after");
    assert!(held.descriptors <= held_before.descriptors + SPARE, "{held_before:?} {held:?}");
    // A thread for blocking work may come; not one for each change.
    assert!(held.threads <= held_before.threads + 8, "{held_before:?} {held:?}");
    assert!(during < (2 * before).max(NOTICED), "{during:?}, before {before:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_changes_cut_nothing() {
    storm("hundreds_of_changes_cut_nothing", 300, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_changes_of_which_some_are_broken_cut_nothing() {
    storm("hundreds_of_changes_of_which_some_are_broken_cut_nothing", 200, true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make torture"]
async fn ten_thousand_changes_cut_nothing() {
    storm("ten_thousand_changes_cut_nothing", 10_000, false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make torture"]
async fn ten_thousand_changes_of_which_some_are_broken_cut_nothing() {
    storm("ten_thousand_changes_of_which_some_are_broken_cut_nothing", 10_000, true).await;
}

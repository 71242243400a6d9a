//! Upstreams that are away, silent, slow, cut off, or talk nonsense.

use super::*;
use bytes::Bytes;
use gateway::testing::{Fault, Upstream as Peer};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

const NO_RETRY: &str = "      retries: {attempts: 0}";
const SHORT: &str = "      retries: {attempts: 0}\n      timeout: 400ms";

#[test]
fn one_that_refuses_is_503_uf_at_once() {
    let scene = Scene::start("", "");
    scene.proxy.set(Fault::Refuse);
    eventually("nobody to listen", || connect(scene.proxy.address().port()).err());
    let begin = Instant::now();
    scene.fails("/refused", 503, "UF,URX");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    let body = scene.ask("/refused/2").unwrap().body;
    assert!(body.contains("remote connection failure"), "{body}");
    scene.heals();
}

#[test]
fn one_that_does_not_answer_to_who_connects_is_503_uf_after_the_connect_timeout() {
    let scene = Scene::start("", &destination_rule("up", "connectionPool: {tcp: {connectTimeout: 300ms}}"));
    scene.proxy.set(Fault::Gone);
    // What is pooled carries nothing either, and says so only by its silence: it is not waited for.
    let begin = eventually("a full queue", || {
        let begin = Instant::now();
        let address = scene.proxy.address();
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).err().map(|_| begin)
    });
    let mut fresh = 0;
    while fresh == 0 {
        // The connection from before may be asked first; its route has no time limit, so this client has.
        let stream = connect(scene.limen.port).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let path = format!("/gone/{fresh}");
        let answer = Client::over(stream).get("up.example.com", &path);
        fresh += usize::from(answer.is_ok_and(|answer| answer.status == 503));
        assert!(begin.elapsed() < PATIENCE, "never 503: {}", scene.limen.access_log());
    }
    eventually("its line", || {
        let log = scene.limen.access_log();
        log.lines().any(|line| line.contains(" 503 UF,URX ") && line.contains("/gone/")).then_some(())
    });
    scene.heals();
}

#[test]
fn one_that_never_answers_is_504_ut_and_its_connection_is_given_up() {
    let scene = Scene::start(SHORT, "");
    scene.proxy.set(Fault::StallAfter(0));
    let held = scene.proxy.open();
    for n in 0..5 {
        scene.fails(&format!("/silent/{n}"), 504, "UT");
    }
    scene.proxy.set(Fault::None);
    eventually("connections to be closed", || (scene.proxy.open() <= held + 1).then_some(()));
    scene.heals();
}

#[test]
fn a_slow_first_byte_is_waited_for_as_long_as_the_route_says() {
    let scene = Scene::start(SHORT, "");
    scene.proxy.set(Fault::Delay(Duration::from_millis(150)));
    assert_eq!(scene.ask("/below").unwrap().status, 200);
    scene.proxy.set(Fault::Delay(Duration::from_secs(2)));
    let begin = Instant::now();
    scene.fails("/above", 504, "UT");
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_millis(1900), "{took:?}");
    scene.heals();
}

#[test]
fn one_that_hangs_up_before_or_within_its_head_harms_its_own_request_only() {
    let scene = Scene::start(NO_RETRY, "");
    for (fault, path, status, flags) in [
        (Fault::CutAfter(0), "/ends", 503, "UC"),
        (Fault::ResetAfter(0), "/resets", 503, "UC"),
        (Fault::CutAfter(20), "/half", 502, "UPE"),
        (Fault::ResetAfter(20), "/half-reset", 502, "UPE"),
    ] {
        scene.proxy.set(fault);
        let before = scene.proxy.connections();
        scene.fails(path, status, flags);
        scene.proxy.set(Fault::None);
        assert_eq!(scene.ask("/next").unwrap().status, 200, "{path}");
        assert!(scene.proxy.connections() > before, "{path}: the broken connection was used again");
    }
    scene.heals();
}

#[test]
fn a_pooled_connection_that_ends_at_its_next_request_costs_no_get() {
    use gateway::testing::Act;
    let runtime = Runtime::new().unwrap();
    for (method, status) in [("GET", 200), ("POST", 503)] {
        let peer = runtime.block_on(Peer::plays(&[Act::OK, Act::SayAndLeave(""), Act::OK]));
        let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[peer.address().port()])];
        let limen = Limen::start_with(&[("all.yaml", &config.concat())], &["--threads=1"]);
        let mut client = Client::connect(limen.port).unwrap();
        assert_eq!(client.get("up.example.com", "/first").unwrap().status, 200);
        let request =
            format!("{method} /second HTTP/1.1\r\nHost: up.example.com\r\nContent-Length: 2\r\n\r\nhi");
        client.send(request.as_bytes()).unwrap();
        assert_eq!(client.receive().unwrap().status, status, "{method}");
        // What was sent and may have been done is not sent again, unless doing it twice is doing it once.
        assert_eq!(peer.seen().len(), if status == 200 { 3 } else { 2 }, "{method}");
        assert_eq!(client.get("up.example.com", "/next").unwrap().status, 200);
    }
}

#[test]
fn what_breaks_off_within_a_body_is_never_a_whole_one() {
    let runtime = Runtime::new().unwrap();
    let plays = |answer: &str| {
        let act = gateway::testing::Act::Say(Box::leak(answer.to_owned().into_boxed_str()));
        runtime.block_on(Peer::plays(&[act])).address()
    };
    let body = "x".repeat(5000);
    let answers = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n{body}\r\n0\r\n\r\n"),
    ];
    let peers: Vec<_> = answers.iter().map(|answer| plays(answer)).collect();
    for upstream in peers {
        let scene = Scene::before(Runtime::new().unwrap(), upstream, NO_RETRY, "", &[]);
        scene.proxy.set(Fault::ResetAfter(3000));
        let answer = scene.ask("/cut");
        assert!(answer.is_err(), "a whole answer: {answer:?}");
        eventually("its line", || {
            scene.limen.access_log().contains("/cut HTTP/1.1\" 200 UPE ").then_some(())
        });
        // The same for a client of HTTP/2, who is told by a reset of the stream.
        scene.proxy.set(Fault::None);
        assert_eq!(scene.ask("/whole").unwrap().body.len(), 5000);
        scene.proxy.set(Fault::ResetAfter(3000));
        scene.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", scene.limen.port)).await.unwrap();
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let request =
                http::Request::get("http://up.example.com/cut2").body(Empty::<Bytes>::new()).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.unwrap();
            assert!(body.is_err(), "a whole body");
        });
        scene.named("/cut2", 200, "UPE");
        scene.heals();
    }
}

#[test]
fn heads_without_end_cost_no_memory_and_are_502() {
    let scene = Scene::start(NO_RETRY, "");
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(300));
    let (before, _) = crate::measure::memory(scene.limen.child.id());
    for (fault, path) in [
        (Fault::Say(long.clone().into()), "/long"),
        (Fault::Say(many.into()), "/many"),
        (Fault::Repeat(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n")), "/1xx"),
        (Fault::Repeat(Bytes::from_static(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")), "/hints"),
        (Fault::Repeat(Bytes::from_static(b"HTTP/1.1 200 OK\r\nX: y\r\n")), "/fields"),
    ] {
        scene.proxy.set(fault);
        scene.fails(path, 502, "UPE");
    }
    scene.proxy.set(Fault::Say(long.into()));
    let again = |from: usize| {
        for n in from..from + 100 {
            assert_eq!(scene.ask(&format!("/again/{n}")).unwrap().status, 502);
        }
        crate::measure::memory(scene.limen.child.id())
    };
    // What an allocator keeps for such heads it has by then.
    let (warm, _) = again(0);
    let (after, most) = again(100);
    println!(
        "measured: heads of 1 MiB from an upstream: {before} MiB before, {warm} after 100, {after} after 200"
    );
    assert!(
        most < before + 40 && after <= warm + 8,
        "{before} MiB before, {warm} and {after} after, {most} at the most"
    );
    scene.heals();
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_no_tunnel() {
    let scene = Scene::start(NO_RETRY, "");
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nsecret";
    scene.proxy.set(Fault::Say(Bytes::from_static(switch.as_bytes())));
    let answer = scene.ask("/switch").unwrap();
    assert_eq!(answer.status, 502);
    assert!(!answer.body.contains("secret"), "{}", answer.body);
    scene.named("/switch", 502, "UPE");
    scene.heals();
}

#[test]
fn two_framings_or_a_bad_chunk_are_not_guessed_at() {
    let scene = Scene::start(NO_RETRY, "");
    for (n, answer) in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        scene.proxy.set(Fault::Say(Bytes::from_static(answer.as_bytes())));
        scene.fails(&format!("/framing/{n}"), 502, "UPE");
    }
    scene.proxy.set(Fault::Say(Bytes::from_static(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    )));
    let answer = scene.ask("/chunk");
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 502), "a bad chunk was read");
    scene.heals();
}

#[test]
fn a_host_that_is_gone_is_ejected_and_comes_back() {
    // Three of them, of which one vanishes: what was open to it carries nothing, and nobody answers to who connects.
    let runtime = Runtime::new().unwrap();
    let peers: Vec<_> = (0..2).map(|_| runtime.block_on(Peer::echo()).address()).collect();
    let upstream = runtime.block_on(Peer::echo()).address();
    let outlier = "connectionPool: {tcp: {connectTimeout: 200ms}}, outlierDetection: {consecutive5xxErrors: 2, \
                   interval: 500ms, baseEjectionTime: 2s, maxEjectionPercent: 50}";
    let slices: String = peers
        .iter()
        .enumerate()
        .map(|(n, peer)| {
            service("up", &[peer.port()])
                .split("---\n")
                .nth(2)
                .unwrap()
                .replace("name: up-0", &format!("name: up-more-{n}"))
        })
        .map(|slice| format!("---\n{slice}"))
        .collect();
    let more = destination_rule("up", outlier) + &slices;
    let scene = Scene::before(runtime, upstream, SHORT, &more, &[]);
    for n in 0..12 {
        assert_eq!(scene.ask(&format!("/spread/{n}")).unwrap().status, 200);
    }
    scene.proxy.set(Fault::Gone);
    let mut failed = 0;
    eventually("the ejection", || {
        failed += usize::from(scene.ask("/gone").unwrap().status != 200);
        scene.limen.process_log().contains("endpoint ejected").then_some(())
    });
    // Two say that it is gone. Who was asked between its ejection and this look may be another.
    assert!((2..=4).contains(&failed), "{failed} requests failed");
    for n in 0..20 {
        assert_eq!(scene.ask(&format!("/others/{n}")).unwrap().status, 200);
    }
    scene.proxy.set(Fault::None);
    eventually("its return", || scene.limen.process_log().contains("endpoint returned").then_some(()));
    scene.heals();
}

#[test]
fn a_mirror_that_is_gone_is_noticed_by_nobody() {
    let mirrored = "      mirror: {host: mirror}\n      mirrorPercentage: {value: 100}";
    let runtime = Runtime::new().unwrap();
    let upstream = runtime.block_on(Peer::echo()).address();
    let peer = runtime.block_on(Peer::echo()).address();
    let mirror = runtime.block_on(FaultProxy::before(peer));
    let scene =
        Scene::before(runtime, upstream, mirrored, &service("mirror", &[mirror.address().port()]), &[]);
    for fault in [Fault::Refuse, Fault::StallAfter(0), Fault::ResetAfter(0), Fault::Gone] {
        mirror.set(fault.clone());
        for n in 0..40 {
            let begin = Instant::now();
            assert_eq!(scene.ask(&format!("/main/{n}")).unwrap().status, 200, "{fault:?}");
            assert!(begin.elapsed() < Duration::from_secs(2), "{fault:?}: {:?}", begin.elapsed());
        }
    }
    mirror.set(Fault::None);
    // Copies that nobody answered are given up with their own time limits; a new configuration closes what they held.
    drop(scene);
}

#[test]
fn a_handshake_that_breaks_is_503_uf_and_says_tls() {
    let tls = destination_rule("up", "tls: {mode: SIMPLE, insecureSkipVerify: true}");
    let runtime = Runtime::new().unwrap();
    // The canary is in the clear; the victim's upstream would be, too.
    let upstream = runtime.block_on(Peer::echo()).address();
    let proxy = runtime.block_on(FaultProxy::before(upstream));
    let canary = Upstream::start("canary");
    let config = [
        GATEWAY.to_owned(),
        virtual_service("up", NO_RETRY),
        service("up", &[proxy.address().port()]),
        virtual_service("canary", ""),
        service("canary", &[canary.port]),
        tls,
    ];
    let limen = Limen::start(&[("all.yaml", &config.concat())]);
    let mut singing = Canary::start(limen.port);
    for (n, fault) in [
        Fault::None,
        Fault::CutAfter(0),
        Fault::ResetAfter(0),
        Fault::Say(Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        Fault::Say(Bytes::from_static(&[22, 3, 3, 0, 4, 2, 0, 0, 0])),
        // A handshake_failure alert.
        Fault::Say(Bytes::from_static(&[21, 3, 3, 0, 2, 2, 40])),
        Fault::Say(vec![0xa5; 4096].into()),
    ]
    .into_iter()
    .enumerate()
    {
        proxy.set(fault.clone());
        let path = format!("/tls/{n}");
        assert_eq!(get(limen.port, "up.example.com", &path).unwrap().status, 503, "{fault:?}");
        let line = eventually("its line", || {
            let log = limen.access_log();
            log.lines().find(|line| line.contains(&format!(" {path} "))).map(str::to_owned)
        });
        assert!(line.contains(" 503 UF "), "{fault:?}: {line}");
    }
    singing.end("broken handshakes");
}

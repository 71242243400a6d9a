//! What the machine gives and takes: descriptors, disks, pipes, processors, and signals.

use super::*;
use std::{io::Write, net::TcpStream, process::Command};

#[test]
fn a_process_at_its_limit_of_descriptors_sheds_and_recovers() {
    let up = Upstream::start("up");
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port])].concat();
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=100:100", "--"]).arg(binary());
    if Command::new("prlimit").arg("--version").output().is_err() {
        return say_loudly(
            "NOT TRIED: faults::process::a_process_at_its_limit_of_descriptors_sheds_and_recovers (no prlimit)",
        );
    }
    let mut limen = Limen::spawn_by(limited, &[("all.yaml", &config)], &[]);
    let ask = || get(limen.port, "up.example.com", "/").ok().filter(|answer| answer.status == 200);
    eventually("the first answer", ask);
    // More clients than the kernel gives descriptors for: who comes after them waits or is told to come back.
    let held: Vec<TcpStream> = (0..300).filter_map(|_| connect(limen.port).ok()).collect();
    assert!(held.len() > 100, "{}", held.len());
    eventually("its word", || limen.process_log().contains("file descriptors: ").then_some(()));
    assert!(limen.child.try_wait().unwrap().is_none(), "{}", limen.process_log());
    drop(held);
    eventually("enough again", ask);
    eventually("its word", || limen.process_log().contains("file descriptors: enough again").then_some(()));
    let log = limen.process_log();
    assert!(log.lines().count() < 60, "one line a second at most: {log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_crash_leaves_no_file_with_its_memory() {
    // A soft limit that is not the kernel's own: what the process does to it shows.
    let limited = |command: &str| {
        let mut limited = Command::new("prlimit");
        limited.args(["--core=4096:", "--"]).arg(command);
        limited
    };
    if !limited("true").status().is_ok_and(|tried| tried.success()) {
        return say_loudly(
            "NOT TRIED: faults::process::a_crash_leaves_no_file_with_its_memory (no prlimit, or no core at all here)",
        );
    }
    let config = [GATEWAY.to_owned(), virtual_service("up", "")].concat();
    for (flags, limit) in [(&[][..], "0"), (&["--core-dumps", "allow"], "4096")] {
        let limited = limited(&binary().to_string_lossy());
        let mut limen = Limen::spawn_by(limited, &[("all.yaml", &config)], flags);
        eventually("it to be ready", || {
            get(limen.status, "localhost", "/healthz/ready").ok().filter(|answer| answer.status == 200)
        });
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", limen.child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some(limit), "{core}");
        let crash = format!("-ABRT {}", limen.child.id());
        assert!(Command::new("kill").args(crash.split(' ')).status().unwrap().success());
        let end = limen.child.wait().unwrap();
        if limit == "0" {
            assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&end), "{end:?}");
        }
    }
}

/// A gateway whose access log goes there.
fn logging_to(target: &str) -> (Limen, Upstream) {
    let up = Upstream::start("up");
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port])].concat();
    let limen = Limen::start_without_log(&[("all.yaml", &config)], &["--access-log-file", target]);
    (limen, up)
}

fn dropped(limen: &Limen) -> f64 {
    let metrics = get(limen.admin, "localhost", "/stats/prometheus").unwrap().body;
    let lines = metrics.lines().filter(|line| line.starts_with("limen_access_log_dropped_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn requests_go_on_when_the_disk_is_full() {
    let (limen, _up) = logging_to("/dev/full");
    let mut client = Client::connect(limen.port).unwrap();
    for n in 0..300 {
        assert_eq!(client.get("up.example.com", &format!("/{n}")).unwrap().status, 200);
    }
    eventually("lines to be counted that were lost", || (dropped(&limen) > 0.0).then_some(()));
    let log = limen.process_log();
    assert!(log.contains("/dev/full"), "nothing says so: {log}");
    assert!(log.lines().count() < 40, "a line for each request: {log}");
}

#[test]
fn requests_go_on_when_nobody_reads_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Somebody has it open, and reads nothing.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let (limen, _up) = logging_to(pipe.to_str().unwrap());
    let mut client = Client::connect(limen.port).unwrap();
    let long = "x".repeat(4000);
    let begin = Instant::now();
    let mut asked = 0;
    while dropped(&limen) == 0.0 {
        for _ in 0..200 {
            assert_eq!(client.get("up.example.com", &format!("/{long}")).unwrap().status, 200);
            asked += 1;
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "none of {asked} lines was dropped");
    }
    assert_eq!(get(limen.status, "localhost", "/healthz/ready").unwrap().status, 200);
}

#[test]
#[ignore = "takes the processors from other tests: make torture"]
fn without_a_processor_to_itself_nobody_is_ejected() {
    // Twice as many threads that only burn as there are processors.
    let outlier = "outlierDetection: {consecutive5xxErrors: 3, interval: 200ms, baseEjectionTime: 5s, maxEjectionPercent: 100}";
    let mut scene = Scene::start("      timeout: 5s", &destination_rule("up", outlier));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(2, |count| count.get());
        for _ in 0..2 * processors {
            scope.spawn(|| {
                let mut number = 1_u64;
                while !stop.load(Ordering::Relaxed) {
                    number = std::hint::black_box(number.wrapping_mul(3));
                }
            });
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(4) {
            let answer = scene.ask("/starved").map(|answer| answer.status);
            let ready = get(scene.limen.status, "localhost", "/healthz/ready").map(|answer| answer.status);
            // What fails would keep the others burning for ever.
            if !matches!((&answer, &ready), (Ok(200), Ok(200))) {
                stop.store(true, Ordering::Relaxed);
                panic!("{answer:?} {ready:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!scene.limen.process_log().contains("ejected"), "{}", scene.limen.process_log());
    scene.ends();
}

#[test]
fn after_a_kill_the_ports_can_be_had_at_once() {
    let up = Upstream::start("up");
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port])].concat();
    let mut limen = Limen::start(&[("all.yaml", &config)]);
    let mut open: Vec<Client> = (0..20).map(|_| Client::connect(limen.port).unwrap()).collect();
    assert!(open.iter_mut().all(|client| client.get("up.example.com", "/").unwrap().status == 200));
    limen.signal("KILL");
    assert!(limen.child.wait().unwrap().code().is_none(), "it was killed");
    let begin = Instant::now();
    let mut successor = limen.again("again.log", &[]);
    let served = eventually("the same port to be served", || {
        get(limen.port, "up.example.com", "/")
            .ok()
            .filter(|answer| answer.status == 200)
            .map(|_| begin.elapsed())
    });
    println!("measured: after SIGKILL the next process served on the same port after {served:?}");
    successor.kill().unwrap();
    successor.wait().unwrap();
    assert!(served < Duration::from_secs(5), "{served:?}");
}

#[test]
fn sigterm_lets_streams_end_and_tells_who_stays() {
    let up = Upstream::start("up");
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port])].concat();
    // Long enough for streams to go on; short enough to see the end.
    let mut limen = Limen::start_with(&[("all.yaml", &config)], &["--drain-time", "4s"]);
    let mut tunnel = Client::connect(limen.port).unwrap();
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: up.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    tunnel.send(upgrade.as_bytes()).unwrap();
    assert_eq!(tunnel.receive().unwrap().status, 101);
    let mut kept = Client::connect(limen.port).unwrap();
    assert_eq!(kept.get("up.example.com", "/kept").unwrap().status, 200);
    limen.signal("TERM");
    eventually("readiness to fail", || {
        get(limen.status, "localhost", "/healthz/ready").map_or(Some(()), |r| (r.status == 503).then_some(()))
    });
    // Who comes meanwhile is served, and told to go; the tunnel goes on.
    let answer = kept.get("up.example.com", "/last").unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(get(limen.port, "up.example.com", "/meanwhile").unwrap().status, 200);
    tunnel.send(b"ping").unwrap();
    assert_eq!(tunnel.read_exact(4).unwrap(), b"ping");
    let status = eventually("the process to end", || limen.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", limen.process_log());
    assert!(tunnel.read_exact(1).is_err(), "cut when the time was up");
    // Nobody is there for whom it would have to wait: the end comes long before the time is up.
    let mut idle = Limen::start_with(&[("all.yaml", &config)], &["--drain-time", "60s"]);
    let begin = Instant::now();
    idle.signal("TERM");
    eventually("the idle process to end", || idle.child.try_wait().unwrap());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn secrets_are_in_no_log_dump_or_answer() {
    const CANARY: &str = "c4n4ry-5eed-of-a-secret";
    let up = Upstream::start("up");
    let pair = crate::keys::Pair::alone("up.example.com");
    let key = pair.key();
    let middle = key.lines().nth(1).unwrap().to_owned();
    let broken = crate::keys::secret(
        "istio-system",
        "broken",
        &[("tls.crt", CANARY), ("tls.key", CANARY), ("ca.crt", CANARY)],
    );
    let server = |name: &str, port: u16| {
        format!(
            "    - {{port: {{number: {port}, name: https-{name}, protocol: HTTPS}}, hosts: ['{name}.example.com'], tls: {{mode: SIMPLE, credentialName: {name}}}}}\n"
        )
    };
    let config = [
        GATEWAY.to_owned(),
        server("up", free_port()),
        server("broken", free_port()),
        pair.secret("istio-system", "up", &[]),
        broken,
        virtual_service("up", ""),
        service("up", &[up.port]),
        virtual_service("down", ""),
        service("down", &[free_port()]),
    ]
    .concat();
    let limen = Limen::start_with(&[("all.yaml", &config)], &["--log-level", "debug"]);
    let head = format!(
        "Host: HOST.example.com\r\nAuthorization: Bearer {CANARY}\r\nCookie: session={CANARY}\r\nX-Api-Key: {CANARY}\r\nProxy-Authorization: {CANARY}\r\n"
    );
    let mut said = String::new();
    for (host, line) in [
        ("up", "GET /a HTTP/1.1"),
        ("down", "GET /b HTTP/1.1"),
        ("nobody", "GET /c HTTP/1.1"),
        ("up", "GET  /malformed HTTP/1.1"),
        ("up", "GET /old HTTP/1.0"),
        ("up", "GET /cut HTTP/1.1\r\nX bad: 1"),
    ] {
        let mut stream = connect(limen.port).unwrap();
        let request = format!("{line}\r\n{}Connection: close\r\n\r\n", head.replace("HOST", host));
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _reset = std::io::Read::read_to_end(&mut stream, &mut answer);
        said.push_str(&String::from_utf8_lossy(&answer));
    }
    eventually("the lines", || limen.access_log().contains("/b HTTP/1.1").then_some(()));
    for path in [
        "/config_dump",
        "/certs",
        "/diagnostics",
        "/clusters",
        "/listeners",
        "/stats/prometheus",
        "/server_info",
        "/",
    ] {
        said.push_str(&get(limen.admin, "localhost", path).unwrap().body);
    }
    said.push_str(&limen.access_log());
    said.push_str(&limen.process_log());
    let check = Command::new(binary()).arg("check").arg(limen.folder.path()).output().unwrap();
    said.push_str(&String::from_utf8_lossy(&[check.stdout, check.stderr].concat()));
    assert!(said.len() > 5000 && said.contains("up.example.com"), "hardly anything was said: {said}");
    for secret in [CANARY, &middle] {
        let at =
            said.find(secret).map(|at| said[at.saturating_sub(300)..].chars().take(500).collect::<String>());
        assert_eq!(at, None);
    }
}

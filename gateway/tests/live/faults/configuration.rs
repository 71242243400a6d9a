//! Configurations that are broken, emptied, cut, or change without end, and certificates that do.

use super::*;
use crate::keys::{Pair, secured, shown};

#[test]
fn an_empty_list_of_endpoints_is_503_uh_and_the_next_one_serves_within_a_second() {
    let up = Upstream::start("up");
    let rest = [GATEWAY.to_owned(), virtual_service("up", "")].concat();
    let limen = Limen::start(&[("rest.yaml", &rest), ("up.yaml", &service("up", &[up.port]))]);
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        limen.write("up.yaml", &service("up", &[]));
        eventually("nobody to be there", || {
            get(limen.port, "up.example.com", "/none").ok().filter(|answer| answer.status == 503)
        });
        eventually("its line", || limen.access_log().contains("/none HTTP/1.1\" 503 UH ").then_some(()));
        let begin = Instant::now();
        limen.write("up.yaml", &service("up", &[up.port]));
        eventually("it to be back", || {
            get(limen.port, "up.example.com", "/").ok().filter(|answer| answer.status == 200)
        });
        slowest = slowest.max(begin.elapsed());
    }
    println!("measured: endpoints that come back serve after {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn an_endpoint_that_flaps_leaves_nothing_behind() {
    let (stays, flaps) = (Upstream::start("up"), Upstream::start("up"));
    let rest = [GATEWAY.to_owned(), virtual_service("up", "")].concat();
    let limen = Limen::start(&[("rest.yaml", &rest), ("up.yaml", &service("up", &[stays.port]))]);
    let mut client = Client::connect(limen.port).unwrap();
    let mut flap = |times: u32| {
        let begin = Instant::now();
        for n in 0..times {
            let there: &[u16] = if n % 2 == 0 { &[stays.port, flaps.port] } else { &[stays.port] };
            limen.write("up.yaml", &service("up", there));
            for _ in 0..5 {
                assert_eq!(client.get("up.example.com", "/flap").unwrap().status, 200);
            }
            let due = Duration::from_millis(50) * (n + 1);
            thread::park_timeout(due.saturating_sub(begin.elapsed()));
        }
    };
    flap(20);
    let id = limen.child.id();
    let (before, (memory, _)) = (Footprint::of(id), crate::measure::memory(id));
    flap(100);
    eventually("what was held to be given back", || {
        let now = Footprint::of(id);
        (now.descriptors <= before.descriptors + SPARE && now.threads <= before.threads).then_some(())
    });
    let (after, _) = crate::measure::memory(id);
    assert!(after <= memory + 8, "{memory} MiB before, {after} after");
}

#[test]
fn a_file_that_is_emptied_keeps_what_it_gave_until_it_is_deleted() {
    let up = Upstream::start("up");
    let base = [GATEWAY.to_owned(), service("up", &[up.port])].concat();
    let limen = Limen::start(&[("base.yaml", &base), ("up.yaml", &virtual_service("up", ""))]);
    let file = limen.folder.path().join("up.yaml");
    fs::write(&file, "").unwrap();
    eventually("the warning", || {
        let findings = get(limen.admin, "localhost", "/diagnostics").ok()?.body;
        (findings.contains("up.yaml") && findings.contains("is empty")).then_some(())
    });
    assert_eq!(get(limen.port, "up.example.com", "/a").unwrap().body, "up /a");
    fs::remove_file(&file).unwrap();
    eventually("the deletion", || {
        get(limen.port, "up.example.com", "/a").ok().filter(|answer| answer.status == 404)
    });
}

/// A gateway of one HTTPS server on this port.
fn https(port: u16, tls: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: public, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
    - {{port: {{number: {port}, name: https, protocol: HTTPS}}, hosts: ['*.example.com'], tls: {{{tls}}}}}
"
    )
}

#[test]
fn certificates_that_change_ten_times_a_second_fail_no_handshake() {
    let up = Upstream::start("up");
    let port = free_port();
    let rest = [
        https(port, "mode: SIMPLE, credentialName: edge"),
        virtual_service("up", ""),
        service("up", &[up.port]),
    ]
    .concat();
    let name = |n: usize| format!("n{n}.example.com");
    let secret = |n: usize| Pair::alone(&name(n)).secret("istio-system", "edge", &[]);
    let limen = Limen::start(&[("rest.yaml", &rest), ("secret.yaml", &secret(0))]);
    let stop = AtomicBool::new(false);
    let shaken = thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let answer = secured(port, "up.example.com", None)
                            .and_then(|mut client| client.get("up.example.com", "/"));
                        match answer {
                            Ok(answer) if answer.status == 200 => count += 1,
                            other => return Err(format!("{other:?}")),
                        }
                    }
                    Ok(count)
                })
            })
            .collect();
        let begin = Instant::now();
        let mut slowest = Duration::ZERO;
        for n in 1..=30_u32 {
            let written = Instant::now();
            limen.write("secret.yaml", &secret(n as usize));
            if n % 10 == 0 {
                eventually("the new certificate", || {
                    (shown(port, "up.example.com")? == name(n as usize)).then_some(())
                });
                slowest = slowest.max(written.elapsed());
            }
            let due = Duration::from_millis(100) * n;
            thread::park_timeout(due.saturating_sub(begin.elapsed()));
        }
        stop.store(true, Ordering::SeqCst);
        println!("measured: a certificate that changes is shown after {slowest:?}");
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        let counts: Result<Vec<usize>, String> =
            clients.into_iter().map(|client| client.join().unwrap()).collect();
        counts.map(|counts| counts.iter().sum::<usize>())
    });
    assert!(shaken.as_ref().is_ok_and(|count| *count > 20), "{shaken:?}");
}

#[test]
fn an_authority_that_is_removed_lets_nobody_in() {
    let up = Upstream::start("up");
    let port = free_port();
    let roots = Pair::authority("clients");
    let friend = roots.issue(&[("CN", "friend")], &[]);
    let server = Pair::alone("up.example.com");
    let rest = [
        https(port, "mode: MUTUAL, credentialName: edge"),
        virtual_service("up", ""),
        service("up", &[up.port]),
    ]
    .concat();
    let with = server.secret("istio-system", "edge", &[("ca.crt", &roots.certificate())]);
    let limen = Limen::start(&[("rest.yaml", &rest), ("secret.yaml", &with)]);
    let asks = |own: Option<&Pair>| {
        let mut client = secured(port, "up.example.com", own).ok()?;
        client.get("up.example.com", "/").ok().map(|answer| answer.status)
    };
    eventually("the friend to be let in", || (asks(Some(&friend)) == Some(200)).then_some(()));
    assert_eq!(asks(None), None);
    limen.write("secret.yaml", &server.secret("istio-system", "edge", &[]));
    // Whether the last good authority is kept or nobody is let in: who shows nothing never is.
    eventually("the finding", || {
        let findings = get(limen.admin, "localhost", "/diagnostics").ok()?.body;
        findings.contains("edge").then_some(())
    });
    for _ in 0..20 {
        assert_eq!(asks(None), None, "who shows no certificate got in");
        let stranger = Pair::authority("strangers").issue(&[("CN", "x")], &[]);
        assert_eq!(asks(Some(&stranger)), None, "a stranger got in");
    }
    fs::remove_file(limen.folder.path().join("secret.yaml")).unwrap();
    eventually("the deletion to be seen", || {
        let findings = get(limen.admin, "localhost", "/diagnostics").ok()?.body;
        (findings.contains("edge") && asks(None).is_none()).then_some(())
    });
    assert_eq!(get(limen.status, "localhost", "/healthz/ready").unwrap().status, 200);
}

#[test]
fn regexes_that_would_take_for_ever_are_refused_or_do_not() {
    let up = Upstream::start("up");
    let match_by = |name: &str, regex: &str| {
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}.example.com]
  gateways: [istio-system/public]
  http: [{{match: [{{uri: {{regex: '{regex}'}}}}], route: [{{destination: {{host: up}}}}]}}]
"
        )
    };
    let base = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port])].concat();
    let backtracking = match_by("slow", "/(a+)+b");
    let limen = Limen::start(&[("base.yaml", &base), ("slow.yaml", &backtracking)]);
    // Exponential for who goes back; one pass here.
    let begin = Instant::now();
    let answer = get(limen.port, "slow.example.com", &format!("/{}", "a".repeat(20_000))).unwrap();
    assert_eq!(answer.status, 404);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let (before, _) = crate::measure::memory(limen.child.id());
    limen.write("bomb.yaml", &match_by("bomb", "/((((a{100}){100}){100}){100})"));
    limen.write("huge.yaml", &match_by("huge", &format!("/{}", "(a|b)?".repeat(200_000))));
    for name in ["default/bomb", "default/huge"] {
        eventually("the finding", || {
            let findings = get(limen.admin, "localhost", "/diagnostics").ok()?.body;
            findings.contains(name).then_some(())
        });
    }
    assert_eq!(get(limen.port, "up.example.com", "/").unwrap().status, 200);
    let (after, most) = crate::measure::memory(limen.child.id());
    println!("measured: regexes of a bomb's kind: {before} MiB before, {after} after, {most} at the most");
    assert!(after < before + 64, "{before} MiB before, {after} after");
}

#[test]
#[ignore = "takes a minute: make torture"]
fn five_thousand_hosts_with_certificates_are_served_soon_and_found_at_once() {
    const HOSTS: usize = 5000;
    let up = Upstream::start("up");
    let port = free_port();
    let mut config = service("up", &[up.port]);
    let mut servers = String::from(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: istio-system}\n\
         spec:\n  selector: {istio: ingressgateway}\n  servers:\n",
    );
    for n in 0..HOSTS {
        servers.push_str(&format!(
            "  - {{port: {{number: {port}, name: https-{n}, protocol: HTTPS}}, hosts: [up{n}.example.com], tls: {{mode: SIMPLE, credentialName: c{n}}}}}\n"
        ));
        config += &Pair::alone(&format!("up{n}.example.com")).secret("istio-system", &format!("c{n}"), &[]);
        config += &virtual_service(&format!("up{n}"), "").replace(&format!("{{host: up{n}}}"), "{host: up}");
    }
    let begin = Instant::now();
    let limen = Limen::spawn(&[("all.yaml", &(config + &servers))], &[]);
    while get(limen.status, "localhost", "/healthz/ready").map_or(0, |answer| answer.status) != 200 {
        assert!(begin.elapsed() < Duration::from_secs(120), "{}", limen.process_log());
        thread::park_timeout(Duration::from_millis(50));
    }
    let started = begin.elapsed();
    let shake = |n: usize| {
        let begin = Instant::now();
        assert_eq!(shown(port, &format!("up{n}.example.com")), Some(format!("up{n}.example.com")));
        begin.elapsed()
    };
    let times: Vec<_> = (0..200).map(|n| shake(n * (HOSTS / 200))).collect();
    println!(
        "measured: {HOSTS} hosts with a certificate each: ready {:.1} s after the start of a debug build, a handshake's 99th percentile {:.1} ms",
        started.as_secs_f64(),
        percentile(&times).as_secs_f64() * 1e3
    );
    let answer = secured(port, "up4999.example.com", None).unwrap().get("up4999.example.com", "/").unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "up /"));
    assert!(percentile(&times) < NOTICED, "{:?}", percentile(&times));
}

//! Attacks of the security matrix against the built binary; what counts is what the upstream saw.

use std::io::{Read, Write};

use crate::{
    faults::clients::{END_HEADERS, END_STREAM, HEADERS, frame, speaks_http2},
    harness::*,
    keys::{Pair, secured, secured_as},
};

/// `deny` of paths for the whole gateway.
fn deny(paths: &str) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: deny, namespace: istio-system}}
spec: {{action: DENY, rules: [{{to: [{{operation: {{paths: [{paths}]}}}}]}}]}}
"
    )
}

fn gateway(rule: &str, more: &str, flags: &[&str]) -> (Limen, Upstream) {
    let up = Upstream::start("up");
    let config =
        [GATEWAY.to_owned(), virtual_service("up", rule), service("up", &[up.port]), more.to_owned()];
    (Limen::start_with(&[("all.yaml", &config.concat())], flags), up)
}

/// Everything that comes back for these bytes.
fn raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = connect(port).unwrap();
    stream.write_all(bytes).unwrap();
    let mut all = Vec::new();
    let _reset = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// The path of a literal that is not in HPACK's static table, for a GET of the victim's.
fn head_of(path: &[u8]) -> Vec<u8> {
    let authority = b"up.example.com";
    let length = |text: &[u8]| u8::try_from(text.len()).unwrap();
    [&[0x82, 0x86, 0x04, length(path)], path, &[0x01, length(authority)], authority].concat()
}

/// What a request of HTTP/2 with this header block got: the payload of its answer's frames; none when it was reset.
fn by_http2(port: u16, block: &[u8]) -> Option<Vec<u8>> {
    let mut stream = speaks_http2(port, &[]);
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, block)).unwrap();
    let mut answer = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        match (head[3], head[8]) {
            (0 | 1, 1) => {
                answer.extend(payload);
                if head[4] & END_STREAM != 0 {
                    return Some(answer);
                }
            }
            (3, 1) | (7, _) => return None,
            _ => {}
        }
    }
}

#[test]
fn what_is_judged_is_what_goes_on() {
    let (limen, _up) = gateway("", &deny("/admin, /admin/*"), &[]);
    for path in [
        "/admin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/..;/admin",
        "/%61dmin",
        "/%2561dmin",
        "/admin%2f",
        "/%2fadmin",
        "/\\admin",
        "/admin/",
        "/ADMIN",
        "/admin#x",
        "/admin?x",
        "/admin%20",
        "/admin.",
        "/%c0%ae%c0%ae/admin",
        "/..%2fadmin",
        "/admin;x=1",
        "/x%5cadmin",
        "/x/%2e%2e/admin",
        "/admin/../admin",
        "/a/b/../../admin/x",
        "/admin%00",
        "/x/.%2e/admin",
        "/admin/%2e",
        "http://up.example.com/admin",
    ] {
        let answer = raw(
            limen.port,
            format!("GET {path} HTTP/1.1\r\nHost: up.example.com\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        let two = by_http2(limen.port, &head_of(path.as_bytes()));
        // `up PATH` is the upstream's word for what it was asked.
        for said in [Some(answer), two.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())] {
            let Some(asked) = said.as_deref().and_then(|said| said.split_once("up /")).map(|(_, path)| path)
            else {
                continue;
            };
            let asked = asked.split(['?', '#']).next().unwrap().trim_end();
            assert!(asked != "admin" && !asked.starts_with("admin/"), "{path} went on as /{asked}");
        }
    }
    // It is no wall against everything.
    assert_eq!(get(limen.port, "up.example.com", "/admins").unwrap().status, 200);
    assert_eq!(get(limen.port, "up.example.com", "/admin").unwrap().status, 403);
    assert!(by_http2(limen.port, &head_of(b"/admins")).is_some());
}

#[test]
fn a_denied_path_is_no_tunnel_and_an_override_is_no_method() {
    let (limen, _up) = gateway("", &deny("/ws"), &[]);
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: up.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = Client::connect(limen.port).unwrap();
    client.send(upgrade.as_bytes()).unwrap();
    assert_eq!(client.receive().unwrap().status, 403);
    let answer = raw(
        limen.port,
        b"GET /head HTTP/1.1\r\nHost: up.example.com\r\nX-HTTP-Method-Override: DELETE\r\nX-Method-Override: PUT\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.contains("GET /head HTTP/1.1"), "{answer}");
}

#[test]
fn http2_brings_nothing_that_http1_could_read_differently() {
    let (limen, up) = gateway("", "", &[]);
    let good = head_of(b"/head");
    assert!(by_http2(limen.port, &good).is_some_and(|answer| !answer.is_empty()));
    let field = |name: &[u8], value: &[u8]| {
        let length = |text: &[u8]| u8::try_from(text.len()).unwrap();
        [&[0x00, length(name)], name, &[length(value)], value].concat()
    };
    let smuggled =
        b"a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: up.example.com\r\n\r\n";
    for (name, value) in [
        (&b"x"[..], &smuggled[..]),
        (b"x", b"a\nb"),
        (b"x", b"a\0b"),
        (b"x: y\r\nz", b"a"),
        (b"x y", b"a"),
        (b"X-Upper", b"a"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"keep-alive"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"content-length", b"5"),
        (b":path", b"/twice"),
        (b":evil", b"1"),
        (b":protocol", b"websocket"),
        (b"", b"a"),
    ] {
        let answer = by_http2(limen.port, &[&good[..], &field(name, value)].concat());
        let seen = answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        for wrong in ["evil", "chunked", "twice", "websocket", "x y", "x: y", "gzip"] {
            assert!(!seen.contains(wrong), "{:?}: {seen}", String::from_utf8_lossy(name));
        }
    }
    for path in [&b"/a b"[..], b"/a\r\nX: y", b"/a\0", b"a", b"", b"http://evil/"] {
        let answer = by_http2(limen.port, &head_of(path));
        let seen = answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        assert!(!seen.contains("up /"), "{:?}: {seen}", String::from_utf8_lossy(path));
    }
    assert_eq!(get(limen.port, "up.example.com", "/after").unwrap().body, "up /after");
    drop(up);
}

#[test]
fn a_location_says_this_host_and_one_line() {
    let redirecting = "
    - port: {number: 80, name: http-redirect, protocol: HTTP}
      hosts: [safe.example.com]
      tls: {httpsRedirect: true}
";
    let up = Upstream::start("up");
    let redirect = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: moved, namespace: default}
spec:
  hosts: [moved.example.com]
  gateways: [istio-system/public]
  http: [{redirect: {authority: new.example.com}}]
";
    let config = [
        GATEWAY,
        redirecting,
        &virtual_service("safe", "").replace("{host: safe}", "{host: up}"),
        redirect,
        &service("up", &[up.port]),
    ]
    .concat();
    let limen = Limen::start(&[("all.yaml", &config)]);
    for (host, begins) in
        [("safe.example.com", "https://safe.example.com/"), ("moved.example.com", "http://new.example.com/")]
    {
        for path in [
            "//evil.test",
            "//evil.test/%2e%2e",
            "/\\evil.test",
            "/%0d%0aSet-Cookie:%20a=b",
            "/%0aX:y",
            "/@evil.test",
        ] {
            let answer = raw(
                limen.port,
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
            );
            let (head, _) = answer.split_once("\r\n\r\n").unwrap();
            let head = head.to_ascii_lowercase();
            assert!(!head.contains("\r\nset-cookie") && !head.contains("\r\nx:"), "{path}: {head}");
            if let Some(location) = head.lines().find_map(|line| line.strip_prefix("location: ")) {
                assert!(location.starts_with(begins), "{path}: {location}");
            } else {
                assert!(head.starts_with("http/1.1 400"), "{path}: {head}");
            }
        }
    }
}

#[test]
fn what_may_be_cached_is_asked_for_each_time() {
    let port = listening(|stream| {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = std::io::BufReader::new(stream);
        let mut count = 0;
        while request_head(&mut reader).is_some() {
            count += 1;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=600\r\nETag: \"a\"\r\nContent-Length: 1\r\n\r\n{count}"
            );
            writer.write_all(answer.as_bytes()).unwrap();
        }
    });
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[port])].concat();
    let limen = Limen::start_with(&[("all.yaml", &config)], &["--threads=1"]);
    let mut client = Client::connect(limen.port).unwrap();
    for wants in ["1", "2", "3"] {
        assert_eq!(client.get("up.example.com", "/cacheable").unwrap().body, wants);
    }
}

#[test]
fn answers_tell_no_version_and_refusals_are_alike() {
    let (limen, _up) = gateway("", &deny("/denied"), &[]);
    for (host, line, status) in [
        ("up.example.com", "GET /denied HTTP/1.1", 403),
        ("nobody.example.com", "GET / HTTP/1.1", 404),
        ("up.example.com", "GET / HTTP/1.0", 426),
        ("up.example.com", "GET  / HTTP/1.1", 400),
        ("up.example.com", "TRACE / HTTP/1.1", 405),
    ] {
        let answer =
            raw(limen.port, format!("{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        let lower = answer.to_ascii_lowercase();
        for word in ["limen", "pingora", "0.1.0", "0.9.", "rust", "envoy/1"] {
            assert!(!lower.contains(word), "{word}: {answer}");
        }
    }
    // Which hosts there are is not told by how one of them is refused.
    let refusal = |host: &str| {
        let answer = get(limen.port, host, "/").unwrap();
        (answer.status, answer.body, answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(refusal("nobody.example.com"), refusal("other.test"));
}

#[test]
fn hosts_paths_and_methods_without_end_make_no_metrics_without_end() {
    let (limen, _up) = gateway("", "", &[]);
    let mut client = Client::connect(limen.port).unwrap();
    let mut ask = |n: usize| {
        for host in [format!("h{n}.example.com"), format!("h{n}.test"), "up.example.com".to_owned()] {
            client
                .send(
                    format!("M{n} /p{n}?q={n} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: u{n}\r\n\r\n")
                        .replace(&format!("M{n}"), "PROPFIND")
                        .as_bytes(),
                )
                .unwrap();
            let _status = client.receive().unwrap().status;
        }
    };
    let series = || get(limen.admin, "localhost", "/stats/prometheus").unwrap().body.lines().count();
    (0..10).for_each(&mut ask);
    eventually("both to be counted", || (series() > 50).then_some(()));
    let before = series();
    let (memory, _) = crate::measure::memory(limen.child.id());
    (10..3000).for_each(&mut ask);
    let (after, _) = crate::measure::memory(limen.child.id());
    assert!(series() <= before + 40, "{before} series before, {} after", series());
    assert!(after < memory + 16, "{memory} MiB before, {after} after");
}

#[test]
fn lines_of_the_log_are_the_gateways_own() {
    let (limen, _up) = gateway("", "", &[]);
    let nasty = "a\x1b[31mb\"c\\d";
    let request = format!(
        "GET /x HTTP/1.1\r\nHost: up.example.com\r\nUser-Agent: {}\r\nX-Request-Id: {}\r\nConnection: close\r\n\r\n",
        nasty.replace('\x1b', ""),
        "r\"],\"evil\":\"1"
    );
    assert!(raw(limen.port, request.as_bytes()).starts_with("HTTP/1.1 200 "));
    let _refused = raw(
        limen.port,
        format!("GET /y HTTP/1.1\r\nHost: up.example.com\r\nUser-Agent: {nasty}\r\n\r\n").as_bytes(),
    );
    let _encoded =
        raw(limen.port, b"GET /z%0a%1b%5b31m HTTP/1.1\r\nHost: up.example.com\r\nConnection: close\r\n\r\n");
    eventually("three lines", || (limen.access_log().lines().count() >= 3).then_some(()));
    for line in limen.access_log().lines() {
        assert!(line.starts_with('['), "{line:?}");
        assert!(line.bytes().all(|byte| byte >= 0x20), "{line:?}");
    }
    assert!(limen.process_log().bytes().all(|byte| byte >= 0x20 || byte == b'\n' || byte == b'\t'));
}

/// A gateway of one port with these HTTPS servers, by name and settings; each has a certificate for all of them.
fn https(port: u16, servers: &[(&str, &str)], authority: &Pair) -> (Limen, Upstream) {
    let up = Upstream::start("up");
    let mut config = "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
"
    .to_owned();
    for (name, mode) in servers {
        config += &format!(
            "    - {{port: {{number: {port}, name: https-{name}, protocol: HTTPS}}, hosts: [{name}.example.com], tls: {{mode: {mode}, credentialName: same}}}}\n"
        );
    }
    config +=
        &Pair::alone("*.example.com").secret("istio-system", "same", &[("ca.crt", &authority.certificate())]);
    for (name, _) in servers {
        config += &virtual_service(name, "").replace(&format!("{{host: {name}}}"), "{host: up}");
    }
    config += &service("up", &[up.port]);
    (Limen::start(&[("all.yaml", &config)]), up)
}

#[test]
fn a_connection_of_http2_is_no_way_to_a_server_that_asks_who_one_is() {
    let port = free_port();
    let (_limen, _up) = https(port, &[("a", "SIMPLE"), ("c", "MUTUAL")], &Pair::authority("clients"));
    // The first byte of the answer's head on one connection, shaken hands for `a`, with streams for others. 0x88: `:status 200`.
    let mut client = secured_as(port, "a.example.com", |builder| {
        builder.set_alpn_protos(b"\x02h2").unwrap();
    })
    .unwrap();
    client.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat()).unwrap();
    for (at, (host, let_in)) in
        [("a.example.com", true), ("c.example.com", false), ("a.example.com", true)].into_iter().enumerate()
    {
        let stream = u32::try_from(2 * at + 1).unwrap();
        let length = u8::try_from(host.len()).unwrap();
        let block = [&[0x82, 0x87, 0x84, 0x01, length], host.as_bytes()].concat();
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).unwrap();
        let answered = loop {
            let head = client.read_exact(9).unwrap();
            let payload =
                client.read_exact(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize).unwrap();
            if head[3] == HEADERS && u32::from(head[8]) == stream {
                break payload[0];
            }
        };
        assert_eq!(answered == 0x88, let_in, "{host}: {answered:#x}");
    }
}

#[test]
fn clients_whose_certificates_are_not_whole_are_not_let_in() {
    let port = free_port();
    let root = Pair::authority("clients");
    let (limen, _up) = https(port, &[("c", "MUTUAL")], &root);
    let between = root.below("between");
    let leaf = between.issue(&[("CN", "leaf")], &[]);
    let asks = |own: &Pair, chain: &[&Pair]| {
        let mut client = secured_as(port, "c.example.com", |builder| {
            builder.set_certificate(&own.certificate).unwrap();
            builder.set_private_key(&own.key).unwrap();
            for one in chain {
                builder.add_extra_chain_cert(one.certificate.clone()).unwrap();
            }
        })
        .ok()?;
        client.get("c.example.com", "/").ok().map(|answer| answer.status)
    };
    assert_eq!(asks(&root.issue(&[("CN", "friend")], &[]), &[]), Some(200));
    assert_eq!(asks(&leaf, &[&between]), Some(200));
    // One between is missing; it was good until yesterday; it is good from tomorrow; a stranger has the same name.
    assert_eq!(asks(&leaf, &[]), None);
    assert_eq!(asks(&root.issue_dated("old", (-9, -1)), &[]), None);
    assert_eq!(asks(&root.issue_dated("young", (1, 9)), &[]), None);
    assert_eq!(asks(&Pair::authority("clients").issue(&[("CN", "friend")], &[]), &[]), None);
    // A leaf is no authority for another.
    let forged = leaf.issue(&[("CN", "forged")], &[]);
    assert_eq!(asks(&forged, &[&leaf, &between]), None);
    // Twenty of them, one below the other: whichever, and nothing breaks.
    let mut chain = vec![root.below("0")];
    for n in 1..20 {
        let next = chain.last().unwrap().below(&n.to_string());
        chain.push(next);
    }
    let deep = chain.last().unwrap().issue(&[("CN", "deep")], &[]);
    let _either = asks(&deep, &chain.iter().rev().collect::<Vec<_>>());
    assert_eq!(asks(&root.issue(&[("CN", "friend")], &[]), &[]), Some(200));
    assert!(!limen.process_log().contains("panicked"), "{}", limen.process_log());
    let mut nobody = secured(port, "c.example.com", None);
    assert!(nobody.as_mut().map_or(true, |client| client.get("c.example.com", "/").is_err()));
}

#[test]
fn what_traces_carry_is_bounded_as_all_fields_are() {
    let (limen, _up) = gateway("", "", &[]);
    for (length, wants) in [(8 << 10, 200), (64 << 10, 431)] {
        let answer = raw(
            limen.port,
            format!(
                "GET /x HTTP/1.1\r\nHost: up.example.com\r\nBaggage: a={}\r\nConnection: close\r\n\r\n",
                "b".repeat(length)
            )
            .as_bytes(),
        );
        assert!(answer.starts_with(&format!("HTTP/1.1 {wants} ")), "{length}: {answer:.100}");
    }
}

#[test]
fn a_body_that_would_unpack_to_a_thousand_times_its_size_goes_on_as_it_came() {
    use gateway::testing::Upstream as Peer;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        packer.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 80_000, "{}", bomb.len());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::echo());
    let config =
        [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[peer.address().port()])].concat();
    let limen = Limen::start(&[("all.yaml", &config)]);
    let (before, _) = crate::measure::memory(limen.child.id());
    for _ in 0..10 {
        let head = format!(
            "POST /bomb HTTP/1.1\r\nHost: up.example.com\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            bomb.len()
        );
        assert!(raw(limen.port, &[head.as_bytes(), &bomb].concat()).starts_with("HTTP/1.1 200 "));
    }
    for seen in peer.seen() {
        assert_eq!(seen.header("content-length"), Some(&*bomb.len().to_string()));
        assert_eq!(seen.header("content-encoding"), Some("gzip"));
    }
    let (_, most) = crate::measure::memory(limen.child.id());
    assert!(most < before + 16, "{before} MiB before, {most} at the most");
}

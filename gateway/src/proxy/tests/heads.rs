//! Heads on their way: what is refused, what is rewritten, and replies that are ours.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn rewrites_and_header_operations_reach_the_upstream_and_the_client() {
    let rules = "  - match: [{uri: {prefix: /api/}}]
    rewrite: {uri: /v1/, authority: inner.example}
    headers:
      request: {set: {x-set: s}, add: {x-add: a}, remove: [x-gone]}
      response: {set: {x-resp: r}, remove: [x-up]}
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
    let gateway = gateway(&config(rules, &[echo().await], "HTTP")).await;
    let (status, head, body) = gateway
        .send(
            "GET /api/./x?q=1 HTTP/1.1\r\nHost: a.example\r\nX-Gone: 1\r\nX-Envoy-Retry-On: 5xx\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert_eq!(status, 200);
    assert!(body.starts_with("GET /v1/x?q=1\n"), "{body}");
    for wanted in [
        "host: inner.example\n",
        "x-set: s\n",
        "x-add: a\n",
        "x-forwarded-for: 192.0.2.1,127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-envoy-original-path: /api/x?q=1\n",
        "x-envoy-attempt-count: 1\n",
        "x-request-id: ",
    ] {
        assert!(body.contains(wanted), "{wanted:?} in {body}");
    }
    assert!(!body.contains("x-gone") && !body.contains("retry-on"), "{body}");
    for wanted in ["server: istio-envoy", "x-resp: r", "x-envoy-upstream-service-time: "] {
        assert!(head.contains(wanted), "{wanted:?} in {head}");
    }
    assert!(!head.contains("x-up:") && !head.contains("keep-alive: timeout"), "{head}");
    let line = gateway.line("/api/x?q=1").await;
    assert!(line.contains("\"GET /api/x?q=1 HTTP/1.1\" 200 - via_upstream "), "{line}");
    assert!(line.contains("\"inner.example\" \"127.0.0.1:"), "{line}");
    let metrics = String::from_utf8(gateway.metrics.encode()).unwrap();
    let series = metrics.lines().find(|l| l.starts_with("istio_requests_total{")).unwrap();
    for label in ["destination_service=\"up.example\"", "response_code=\"200\"", "response_flags=\"-\""] {
        assert!(series.contains(label), "{label} in {series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_fixed_replies_are_ours() {
    let rules = "  - match: [{uri: {exact: /r}}]
    redirect: {uri: /new, redirectCode: 308}
    headers: {response: {set: {x-resp: r}}}
  - directResponse: {status: 418, body: {string: short and stout}}
";
    let gateway = gateway(&config(rules, &[nobody().await], "HTTP")).await;
    let (status, head, _) = gateway.get("/r").await;
    assert_eq!(status, 308);
    assert!(head.contains("location: http://a.example/new") && head.contains("x-resp: r"), "{head}");
    let (status, head, body) = gateway.get("/").await;
    assert_eq!((status, &*body), (418, "short and stout"));
    assert!(head.contains("content-type: text/plain") && head.contains("content-length: 15"), "{head}");
    let (status, head, body) =
        gateway.send("HEAD / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status, &*body), (418, ""));
    assert!(head.contains("content-length: 15"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_others_could_read_differently_are_refused() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    for (request, wants) in [
        ("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n", 426),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\nConnection: close\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a.example\n\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ] {
        assert_eq!(gateway.send(request).await.0, wants, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_all_served_and_a_waiting_body_is_asked_for() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    let both = gateway
        .raw(
            "GET /first HTTP/1.1\r\nHost: a.example\r\n\r\n\
             GET /second HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert!(both.contains("GET /first\n") && both.contains("GET /second\n"), "{both}");

    let text = gateway
        .raw(
            "POST /c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\
             Connection: close\r\n\r\nhi",
        )
        .await;
    assert!(text.starts_with("HTTP/1.1 100 ") && text.contains("POST /c\n"), "{text}");
    assert!(!text.contains("expect: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_reaches_the_upstream_as_its_path() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    for (target, wants) in
        [("http://a.example/x?q=1", "GET /x?q=1\n"), ("http://a.example/y/../z", "GET /z\n")]
    {
        let (status, _, body) = gateway.get(target).await;
        assert_eq!(status, 200);
        assert!(body.starts_with(wants) && body.contains("host: a.example\n"), "{target}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_head_behind_a_good_request_is_answered_in_its_turn() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    let heads = "GET /first HTTP/1.1\r\nHost: a.example\r\n\r\nGET /second HTTP/1.1\r\nHost: a.example\r\nX : y\r\n\r\n";
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(heads.as_bytes()).await.unwrap();
    let mut answers = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answers)).await.unwrap().unwrap();
    let statuses: Vec<&str> =
        answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "400"], "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_can_read_every_reply_of_ours() {
    let rules = "  - match: [{uri: {prefix: /direct}}]
    directResponse: {status: 403, body: {string: no}}
    headers: {response: {set: {content-type: text/html, x-resp: r}}}
  - redirect: {uri: /new}
";
    let gateway = gateway(&config(rules, &[nobody().await], "HTTP")).await;
    for (path, code, message) in [("/direct", "7", Some("no")), ("/redirect", "2", None)] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let (status, head, body) = gateway.send(&request).await;
        assert_eq!((status, &*body), (200, ""));
        assert!(head.contains("content-type: application/grpc\r\n"), "{head}");
        assert!(head.contains(&format!("grpc-status: {code}\r\n")), "{head}");
        assert_eq!(head.contains("grpc-message: no"), message.is_some(), "{head}");
        assert!(head.contains("content-length: 0"), "{head}");
        assert_eq!(head.contains("x-resp: r"), path == "/direct", "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_responses_are_in_lower_case_and_a_kept_connection_is_not_spoken_of() {
    let rules = "  - match: [{uri: {exact: /ours}}]
    directResponse: {status: 200, body: {string: hi}}
"
    .to_owned()
        + FORWARD;
    const UP: Act = Act::Say(
        "HTTP/1.1 200 OK\r\nContent-Type: Text/Plain\r\nX-Mixed-Case: V\r\nSet-Cookie: A=B\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = gateway(&config(&rules, &[plays(&[UP]).await.address], "HTTP")).await;
    let text = gateway
        .raw(
            "GET /theirs HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n\
             GET /ours HTTP/1.1\r\nHost: a.example\r\n\r\n\
             GET /last HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        )
        .await;
    let heads: Vec<&str> = text.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    assert_eq!(heads.len(), 3, "{text}");
    for (at, head) in heads.iter().enumerate() {
        let (head, body) = head.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), 2, "{text}");
        for line in head.lines() {
            let (name, _) = line.split_once(": ").unwrap();
            assert_eq!(name, name.to_ascii_lowercase(), "{line}");
        }
        assert_eq!(head.contains("connection: close"), at == 2, "{head}");
        assert_eq!(head.contains("connection: "), at == 2, "{head}");
    }
    assert!(heads[0].contains("content-type: Text/Plain\r\nx-mixed-case: V\r\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_says_of_itself_is_mesh_configuration() {
    let rules = "  - match: [{uri: {exact: /local}}]
    directResponse: {status: 200}
  - match: [{uri: {prefix: /api/}}]
    timeout: 9s
    rewrite: {uri: /v1/, authority: inner.example}
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
    let with = |mesh: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: '{mesh}'\n"
        )
    };
    let request = "GET /api/x HTTP/1.1\r\nHost: a.example\r\nX-Request-Id: mine\r\nX-Forwarded-Host: first.example\r\n\
                   X-Forwarded-Port: 99\r\nConnection: close\r\n\r\n";
    let yaml = config(rules, &[echo().await], "HTTP");

    // All that can be turned off; asked of Envoy 1.40.
    let quiet = with(
        "{defaultConfig: {proxyHeaders: {requestId: {disabled: true}, server: {disabled: true}, attemptCount: {disabled: true}, \
         envoyDebugHeaders: {disabled: true}}}}",
    );
    let gateway = gateway(&(yaml.clone() + &quiet)).await;
    let (_, head, body) = gateway.send(request).await;
    assert!(head.contains("server: upstream/1") && !head.contains("x-envoy"), "{head}");
    assert!(body.contains("x-request-id: mine\n"), "{body}");
    assert!(
        body.contains("x-forwarded-port: 99\n") && body.contains("x-forwarded-host: first.example\n"),
        "{body}"
    );
    let said: Vec<&str> = body.lines().filter(|line| line.starts_with("x-envoy-")).collect();
    assert_eq!(said, ["x-envoy-external-address: 127.0.0.1"]);
    let (_, head, _) = gateway.get("/local").await;
    assert!(!head.contains("server:"), "{head}");

    // All that can be turned on, and a name.
    let loud = with(
        "{defaultConfig: {proxyHeaders: {server: {value: edge}, xForwardedHost: {enabled: true}, xForwardedPort: {enabled: true}}}}",
    );
    let gateway = super::gateway(&(yaml.clone() + &loud)).await;
    let (_, head, body) = gateway.send(request).await;
    assert!(head.contains("server: edge\r\n") && head.contains("x-envoy-upstream-service-time: "), "{head}");
    assert!(body.contains("x-forwarded-host: first.example,a.example\n"), "{body}");
    assert!(body.contains(&format!("x-forwarded-port: {}\n", gateway.address.port())), "{body}");
    assert!(
        body.contains("x-envoy-original-host: a.example\n") && !body.contains("x-request-id: mine"),
        "{body}"
    );
    let (_, head, _) = gateway.get("/local").await;
    assert!(head.contains("server: edge\r\n"), "{head}");

    // A trusted proxy's word stays, and what it saw last is not said twice.
    let trusting = with(
        "{defaultConfig: {gatewayTopology: {numTrustedProxies: 1}, proxyHeaders: {xForwardedHost: {enabled: true}, \
         xForwardedPort: {enabled: true}}}}",
    );
    let gateway = super::gateway(&(yaml + &trusting)).await;
    let (_, _, body) = gateway.send(&request.replace("first.example", "first.example, a.example")).await;
    assert!(body.contains("x-forwarded-port: 99\n"), "{body}");
    assert!(body.contains("x-forwarded-host: first.example, a.example\n"), "{body}");
}

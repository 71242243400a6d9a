//! Header values and targets as they arrive. What is wanted was asked of Envoy 1.40 with the same rules and requests.

use super::*;

const RULES: &str = "  - match: [{uri: {exact: /values}}]
    name: the-route
    headers:
      request:
        remove: [x-gone]
        set:
          x-copy: '%REQ(x-m)%'
          x-none: '%REQ(nope)%'
          x-some: 'a=%REQ(nope)%;'
          x-old: '[%REQ(x-o)%][%REQ(x-gone)%]'
          x-o: new
          x-pct: 100%%
          x-proto: '%PROTOCOL%'
          x-peer: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'
          x-line: '%REQ(:METHOD)% %REQ(:path)% %REQ(:authority)% %REQ(:scheme)%'
          x-host: '[%UPSTREAM_HOST%]'
          x-code: '%RESPONSE_CODE%'
          x-route: '%ROUTE_NAME%'
          x-try: '%UPSTREAM_REQUEST_ATTEMPT_COUNT%'
          x-year: '%START_TIME(%Y)%'
        add: {user-agent: more, x-m: more}
      response:
        set:
          x-was: '%REQ(x-o)% %REQ(:path)%'
          x-up2: '%RESP(x-up)%'
          x-up: changed
          x-status: '%RESPONSE_CODE%'
          x-from: '%UPSTREAM_HOST%'
          x-details: '%RESPONSE_CODE_DETAILS%'
    route: [{destination: {host: up.example, port: {number: 80}}}]
  - match: [{uri: {prefix: /out/}}]
    rewrite: {uri: /in/, authority: in.example}
    headers: {response: {set: {x-was: '%REQ(:path)% %REQ(:authority)%'}}}
    route: [{destination: {host: up.example, port: {number: 80}}}]
  - match: [{uri: {prefix: /gone}}]
    rewrite: {uriRegexRewrite: {match: '^/gone(.*)$', rewrite: '\\1'}}
    route: [{destination: {host: up.example, port: {number: 80}}}]
  - match: [{uri: {exact: /page}}]
    directResponse: {status: 200, body: {string: <p>}}
    headers: {response: {add: {content-type: text/html}, set: {content-length: '99', x-said: '%REQ(x-m)% %RESPONSE_CODE%'}}}
  - match: [{uri: {exact: /plain}}]
    directResponse: {status: 200, body: {string: hi}}
    headers: {response: {remove: [content-type]}}
  - match: [{uri: {exact: /moved}}]
    redirect: {uri: new}
    headers: {response: {add: {x-to: '%RESP(location)%'}}}
";

async fn asked(gateway: &TestGateway, target: &str) -> (String, String) {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: a.example\r\nUser-Agent: test\r\nX-M: hello\r\nX-O: old\r\nX-Gone: 1\r\n\
         X-Envoy-Original-Host: evil\r\nConnection: close\r\n\r\n"
    );
    let (_, head, body) = gateway.send(&request).await;
    (head, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_made_for_each_request() {
    let up = echo().await;
    let gateway = gateway(&config(RULES, &[up], "HTTP")).await;
    let (head, body) = asked(&gateway, "/values?q=1").await;
    for wanted in [
        "x-copy: hello\n",
        "x-some: a=;\n",
        "x-old: [old][]\n",
        "x-o: new\n",
        "x-pct: 100%\n",
        "x-proto: HTTP/1.1\n",
        "x-peer: 127.0.0.1\n",
        "x-line: GET /values?q=1 a.example http\n",
        "x-host: []\n",
        "x-code: 0\n",
        "x-route: the-route\n",
        "x-try: 1\n",
        "x-year: 20",
        "user-agent: test,more\n",
        "x-m: hello\nx-m: more\n",
    ] {
        assert!(body.contains(wanted), "{wanted:?} in {body}");
    }
    assert!(!body.contains("x-none") && !body.contains("evil") && !body.contains("x-gone"), "{body}");
    for wanted in [
        "x-was: new /values?q=1\r\n",
        "x-up2: 1\r\n",
        "x-up: changed\r\n",
        "x-status: 200\r\n",
        "x-details: via_upstream\r\n",
        &format!("x-from: {up}\r\n"),
    ] {
        assert!(head.contains(wanted), "{wanted:?} in {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_leaves_word_of_what_was_asked() {
    let gateway = gateway(&config(RULES, &[echo().await], "HTTP")).await;
    let (head, body) = asked(&gateway, "/out/1?q").await;
    assert!(body.starts_with("GET /in/1?q\n"), "{body}");
    for wanted in
        ["host: in.example\n", "x-envoy-original-host: a.example\n", "x-envoy-original-path: /out/1?q\n"]
    {
        assert!(body.contains(wanted), "{wanted:?} in {body}");
    }
    assert!(head.contains("x-was: /in/1?q in.example\r\n"), "{head}");
    let (_, body) = asked(&gateway, "/gone?q").await;
    assert!(body.starts_with("GET /gone?q\n") && !body.contains("original-path"), "{body}");
    let (_, body) = asked(&gateway, "/gone/x").await;
    assert!(body.starts_with("GET /x\n"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_on_replies_of_ours_stop_at_their_frame() {
    let gateway = gateway(&config(RULES, &[nobody().await], "HTTP")).await;
    let (head, body) = asked(&gateway, "/page").await;
    assert_eq!(head.matches("content-type: ").count(), 1, "{head}");
    for wanted in ["content-type: text/html\r\n", "content-length: 3\r\n", "x-said: hello 0"] {
        assert!(head.contains(wanted), "{wanted:?} in {head}");
    }
    assert_eq!(body, "<p>");
    let (head, _) = asked(&gateway, "/plain").await;
    assert!(head.contains("content-type: text/plain\r\n"), "{head}");
    let (head, _) = asked(&gateway, "/moved").await;
    for wanted in ["location: http://a.example/new\r\n", "x-to: http://a.example/new"] {
        assert!(head.contains(wanted), "{wanted:?} in {head}");
    }
}

const FACTS: &str = "  - match: [{uri: {prefix: /facts}}]
    headers:
      request: {set: {x-q: '%BYTES_RECEIVED%|%BYTES_SENT%|%UPSTREAM_PROTOCOL%|%RESPONSE_FLAGS_LONG%|%RESP(:STATUS)%|%UPSTREAM_REMOTE_PORT%|%DOWNSTREAM_TLS_VERSION%|%DOWNSTREAM_PEER_ISSUER%|%RESPONSE_DURATION%|%QUERY_PARAM(a)%|%PATH(NQ)%', x-i: '%STREAM_ID%=%REQ(x-request-id)%|%CONNECTION_ID%|%UPSTREAM_HOSTS_ATTEMPTED%', x-none: '%DYNAMIC_METADATA(a:b)%%FILTER_STATE(x)%'}}
      response: {set: {x-s: '%BYTES_RECEIVED%|%BYTES_SENT%|%UPSTREAM_PROTOCOL%|%RESPONSE_FLAGS_LONG%|%RESP(:STATUS)%|%UPSTREAM_REMOTE_PORT%|%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%|%QUERY_PARAM(a)%|%PATH(NQ:ORIG)%', x-a: '%UPSTREAM_HOSTS_ATTEMPTED%|%UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT%|%UPSTREAM_TLS_VERSION%|%RESPONSE_TRAILERS_BYTES%|%CONNECTION_ID%'}}
    rewrite: {uri: /new}
    route: [{destination: {host: up.example, port: {number: 80}}}]
  - match: [{uri: {prefix: /dead}}]
    headers: {response: {set: {x-s: '%UPSTREAM_TRANSPORT_FAILURE_REASON%|%RESPONSE_FLAGS_LONG%|%UPSTREAM_HOST%|%RESPONSE_CODE%|%RESP(:STATUS)%|%UPSTREAM_PROTOCOL%'}}}
    retries: {attempts: 0}
    route: [{destination: {host: dead.example, port: {number: 80}}}]
";

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_those_of_envoy() {
    let (up, dead) = (echo().await, nobody().await);
    let gateway = gateway(&(config(FACTS, &[up], "HTTP") + &service("dead", dead, "HTTP"))).await;
    let (_, head, body) = gateway
        .send(
            "POST /facts/1?a=1%202 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        )
        .await;
    assert!(body.contains("x-q: 0|0||-||||||1 2|/facts/1\n"), "{body}");
    assert!(!body.contains("x-none"), "{body}");
    let port = up.port();
    assert!(head.contains(&format!("x-s: 5|0|http/1.1|-|200|{port}|127.0.0.1|1 2|/facts/1\r\n")), "{head}");
    assert!(head.contains(&format!("x-a: 127.0.0.1:{port}|127.0.0.1||0|")), "{head}");
    let ids = body.lines().find_map(|line| line.strip_prefix("x-i: ")).unwrap();
    let (stream, rest) = ids.split_once('=').unwrap();
    let mut rest = rest.split('|');
    assert!(stream.len() == 36 && rest.next() == Some(stream), "{ids}");
    let connection = rest.next().unwrap();
    assert!(connection.parse::<u64>().is_ok() && rest.next() == Some(""), "{ids}");
    assert!(head.contains(&format!("|0|{connection}\r\n")), "one connection has one number: {head}");
    let (status, head, _) = gateway.get("/dead").await;
    assert_eq!(status, 503);
    let wants =
        format!("x-s: delayed_connect_error:_connection_refused|upstreamconnectionfailure|{dead}|0|503|\r\n");
    assert!(head.contains(&wants), "{wants:?} in {head}");
}

//! Faults and CORS on live requests.

use super::*;

const ROUTE: &str = "    route: [{destination: {host: up.example, port: {number: 80}}}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_delays_then_aborts_and_is_flagged() {
    let rules = format!(
        "  - match: [{{uri: {{prefix: /both}}}}]
    timeout: 100ms
    fault: {{delay: {{fixedDelay: 250ms, percentage: {{value: 100}}}}, abort: {{httpStatus: 555, percentage: {{value: 100}}}}}}
    headers: {{response: {{set: {{x-resp: r}}}}}}
{ROUTE}  - match: [{{uri: {{prefix: /delay}}}}]
    timeout: 100ms
    fault: {{delay: {{fixedDelay: 250ms, percent: 100}}}}
{ROUTE}  - match: [{{uri: {{prefix: /grpc}}}}]
    fault: {{abort: {{grpcStatus: UNAVAILABLE, percentage: {{value: 100}}}}}}
{ROUTE}  - fault: {{abort: {{httpStatus: 500}}}}
{ROUTE}"
    );
    let up = plays(&[OK]).await;
    let gateway = gateway(&config(&rules, &[up.address], "HTTP")).await;
    let began = Instant::now();
    let (status, head, body) = gateway.get("/both").await;
    assert_eq!((status, &*body), (555, "fault filter abort"));
    assert!(began.elapsed() >= Duration::from_millis(250));
    assert!(head.contains("x-resp: r") && head.contains("content-type: text/plain"), "{head}");
    assert!(gateway.line("/both").await.contains(" 555 DI,FI fault_filter_abort "));
    assert_eq!(up.got().len(), 0);
    // The delay is no part of the route's time.
    assert_eq!(gateway.get("/delay").await.0, 200);
    assert!(gateway.line("/delay").await.contains(" 200 DI via_upstream "));
    let (status, head, body) = gateway.get("/grpc").await;
    assert_eq!((status, &*body), (200, "fault filter abort"), "{head}");
    assert_eq!(gateway.get("/never").await.0, 200);

    let mut client = http2(&gateway).await;
    for (path, code) in [("/grpc", "14"), ("/both", "2")] {
        let request = Request::post(format!("http://a.example{path}"))
            .header("content-type", "application/grpc")
            .body(Full::default())
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], code);
        assert_eq!(response.headers()["grpc-message"], "fault filter abort");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_answers_preflights_and_marks_responses() {
    let rules = format!(
        "  - corsPolicy: {{allowOrigins: [{{exact: 'http://a'}}], allowMethods: [GET, POST], allowHeaders: [x-a],
                 exposeHeaders: [x-b], maxAge: 60s, allowCredentials: true}}
    headers: {{response: {{set: {{x-resp: r, access-control-allow-origin: rule}}}}}}
{ROUTE}"
    );
    const ANY: Act =
        Act::Say("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok");
    let up = plays(&[ANY]).await;
    let gateway = gateway(&config(&rules, &[up.address], "HTTP")).await;
    let ask = async |line: &str, origin: &str| {
        let text = format!(
            "{line} HTTP/1.1\r\nHost: a.example\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\nConnection: close\r\n\r\n"
        );
        gateway.send(&text).await
    };
    let (status, head, body) = ask("OPTIONS /pre", "http://a").await;
    assert_eq!((status, &*body), (200, ""));
    for wanted in [
        "access-control-allow-origin: http://a\r\n",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: get,post",
        "access-control-allow-headers: x-a",
        "access-control-max-age: 60",
    ] {
        assert!(head.contains(wanted), "{wanted} in {head}");
    }
    assert!(!head.contains("x-resp"), "{head}");
    assert!(gateway.line("/pre").await.contains(" 200 - cors_response "));
    assert_eq!(up.got().len(), 0);

    let (_, head, body) = ask("GET /real", "http://a").await;
    assert_eq!(body, "ok");
    assert!(
        head.contains("access-control-allow-origin: http://a\r\n") && head.contains("x-resp: r"),
        "{head}"
    );
    assert!(head.contains("access-control-expose-headers: x-b"), "{head}");

    for line in ["OPTIONS /other", "GET /other"] {
        let (_, head, _) = ask(line, "http://evil").await;
        assert!(head.contains("access-control-allow-origin: rule\r\n"), "{head}");
    }
    assert_eq!(up.got().len(), 3);
}

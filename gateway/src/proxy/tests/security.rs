//! Istio's security API on live requests: tokens, rules, and providers that are asked over HTTP and gRPC.

use super::*;
use crate::jwt::testing::{TestKey, jwks};
use serde_json::json;

fn policy(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: istio-system}}\nspec: {spec}\n"
    )
}

fn provider(kind: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    extensionProviders:\n    - name: ask\n      {kind}: {{service: authz.example, port: 80{more}}}\n"
    )
}

const ASK: &str = "{action: CUSTOM, provider: {name: ask}, rules: [{to: [{operation: {paths: ['/ask*']}}]}]}";

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{headers}Connection: close\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_let_in_and_refuse() {
    let rules = "{rules: [{to: [{operation: {paths: ['/open/*'], methods: [GET]}}]}]}";
    let yaml = config(FORWARD, &[echo().await], "HTTP")
        + &policy("AuthorizationPolicy", "allow", rules)
        + &policy(
            "AuthorizationPolicy",
            "deny",
            "{action: DENY, rules: [{to: [{operation: {paths: [/open/never]}}]}]}",
        );
    let gateway = gateway(&yaml).await;
    assert_eq!(gateway.get("/open/a?b").await.0, 200);
    let (status, head, body) = gateway.get("/open/never").await;
    assert_eq!((status, &*body), (403, "RBAC: access denied"));
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert_eq!(gateway.get("/closed").await.0, 403);
    let line = gateway.line("/open/never").await;
    assert!(
        line.contains("rbac_access_denied_matched_policy[ns[istio-system]-policy[deny]-rule[0]]"),
        "{line}"
    );
    let line = gateway.line("/closed").await;
    assert!(line.contains("403 - rbac_access_denied_matched_policy[none]"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_checked_and_their_claims_route() {
    let key = TestKey::ed25519("k");
    let rules = "  - match: [{headers: {'@request.auth.claims.group': {exact: staff}}}]
    directResponse: {status: 202}
"
    .to_owned()
        + FORWARD;
    let spec = format!(
        "{{jwtRules: [{{issuer: A, jwks: '{}', outputClaimToHeaders: [{{header: x-sub, claim: sub}}]}}]}}",
        jwks(&[&key])
    );
    let yaml = config(&rules, &[echo().await], "HTTP")
        + &policy("RequestAuthentication", "tokens", &spec)
        + &policy(
            "AuthorizationPolicy",
            "known",
            "{rules: [{from: [{source: {requestPrincipals: ['A/*']}}]}]}",
        );
    let gateway = gateway(&yaml).await;
    let bearer =
        |claims: serde_json::Value| format!("Authorization: Bearer {}\r\n", key.token("EdDSA", &claims));

    let good = bearer(json!({"iss": "A", "sub": "me"}));
    let (status, _, body) = gateway.send(&request("/p", &format!("{good}X-Sub: evil\r\n"))).await;
    assert_eq!(status, 200);
    assert!(
        body.contains("x-sub: me") && !body.contains("evil") && !body.contains("authorization"),
        "{body}"
    );
    let staff = bearer(json!({"iss": "A", "sub": "me", "group": ["staff"]}));
    assert_eq!(gateway.send(&request("/p", &staff)).await.0, 202);

    let (status, head, body) = gateway.send(&request("/p?q=1", &bearer(json!({"iss": "A", "exp": 1})))).await;
    assert_eq!((status, &*body), (401, "Jwt is expired"));
    let challenge = "www-authenticate: bearer realm=\"http://a.example/p?q=1\", error=\"invalid_token\"";
    assert!(head.contains(challenge), "{head}");
    let line = gateway.line("/p?q=1").await;
    assert!(line.contains("401 - jwt_authn_access_denied{Jwt_is_expired}"), "{line}");

    let (status, _, body) = gateway.send(&request("/none", "X-Sub: evil\r\n")).await;
    assert_eq!((status, &*body), (403, "RBAC: access denied"), "no token, no principal");
    let token = key.token("EdDSA", &json!({"iss": "A", "sub": "me"}));
    let (status, _, body) = gateway.send(&request(&format!("/p?a=%20&access_token={token}"), "")).await;
    assert_eq!(status, 200);
    assert!(body.starts_with("GET /p?a=%20\n"), "{body}");
    let wrong = TestKey::ed25519("k").token("EdDSA", &json!({"iss": "A"}));
    let (status, _, body) = gateway.send(&request("/p", &format!("Authorization: Bearer {wrong}\r\n"))).await;
    assert_eq!((status, &*body), (401, "Jwt verification fails"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_asked_over_http() {
    const ACTS: &[Act] = &[
        Act::Say(
            "HTTP/1.1 200 OK\r\nx-user: me\r\nx-other: 1\r\nx-seen: yes\r\nx-envoy-auth-headers-to-remove: x-gone\r\nContent-Length: 0\r\n\r\n",
        ),
        Act::Say("HTTP/1.1 302 Found\r\nlocation: /login\r\nx-no: 1\r\nContent-Length: 2\r\n\r\nno"),
        Act::Say("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
    ];
    let asked = plays(ACTS).await;
    let lists = ", pathPrefix: /check, includeRequestHeadersInCheck: [x-a], includeAdditionalHeadersInCheck: {x-key: s}, \
         headersToUpstreamOnAllow: [x-user], headersToDownstreamOnAllow: [x-seen], headersToDownstreamOnDeny: [x-nothing], \
         statusOnError: '503'";
    let yaml = config(FORWARD, &[echo().await], "HTTP")
        + &service("authz", asked.address, "HTTP")
        + &provider("envoyExtAuthzHttp", lists)
        + &policy("AuthorizationPolicy", "ask", ASK);
    let gateway = gateway(&yaml).await;
    let headers = "X-A: 1\r\nX-B: 2\r\nX-User: evil\r\nX-Gone: 1\r\n";
    let (status, head, body) = gateway.send(&request("/ask?q=1", headers)).await;
    assert_eq!(status, 200);
    assert!(body.contains("x-user: me") && !body.contains("evil") && !body.contains("x-gone"), "{body}");
    assert!(!body.contains("x-other") && head.contains("x-seen: yes"), "{head}{body}");
    let question = asked.got()[0].to_ascii_lowercase();
    assert!(question.starts_with("get /check/ask?q=1 http/1.1\r\n"), "{question}");
    for (line, there) in [("host: a.example", true), ("x-a: 1", true), ("x-key: s", true), ("x-b", false)] {
        assert_eq!(question.contains(line), there, "{line}: {question}");
    }

    let (status, head, body) = gateway.get("/ask/2").await;
    assert_eq!((status, &*body), (302, "no"));
    assert!(head.contains("location: /login") && !head.contains("x-no"), "{head}");
    let line = gateway.line("/ask/2").await;
    assert!(line.contains("302 UAEX ext_authz_denied"), "{line}");
    assert_eq!(gateway.get("/ask/3").await.0, 503);
    let line = gateway.line("/ask/3").await;
    assert!(line.contains("503 UAEX ext_authz_error"), "{line}");
    assert_eq!(gateway.get("/other").await.0, 200);
    assert_eq!(asked.got().len(), 3, "what no rule matches is not asked about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_open() {
    let asked = plays(&[LEAVE]).await;
    let yaml = config(FORWARD, &[echo().await], "HTTP")
        + &service("authz", asked.address, "HTTP")
        + &provider("envoyExtAuthzHttp", ", failOpen: true")
        + &policy("AuthorizationPolicy", "ask", ASK);
    assert_eq!(gateway(&yaml).await.get("/ask").await.0, 200);
    let slow = plays(&[HANG]).await;
    let yaml = config(FORWARD, &[echo().await], "HTTP")
        + &service("authz", slow.address, "HTTP")
        + &provider("envoyExtAuthzHttp", ", timeout: 0.05s")
        + &policy("AuthorizationPolicy", "ask", ASK);
    assert_eq!(gateway(&yaml).await.get("/ask").await.0, 403);
}

/// A field of a message of protobuf.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
}

fn number(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3], value].concat()
}

fn option(name: &str, value: &str) -> Vec<u8> {
    field(2, &field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat()))
}

/// A gRPC server that gives one answer after the other, and the last again and again; what it was asked.
async fn grpc(answers: Vec<Vec<u8>>) -> (SocketAddr, Arc<std::sync::Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<std::sync::Mutex<Vec<Vec<u8>>>> = Arc::default();
    let (answers, noted) = (Arc::new(answers), asked.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answers, noted) = (answers.clone(), noted.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (answers, noted) = (answers.clone(), noted.clone());
                async move {
                    assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let at = {
                        let mut noted = noted.lock().unwrap();
                        noted.push(body.to_vec());
                        (noted.len() - 1).min(answers.len() - 1)
                    };
                    let length = u32::try_from(answers[at].len()).unwrap().to_be_bytes();
                    let data = Bytes::from([&[0], length.as_slice(), &answers[at]].concat());
                    let mut trailers = ::http::HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    let frames = [Ok::<_, Infallible>(Frame::data(data)), Ok(Frame::trailers(trailers))];
                    let body = StreamBody::new(futures::stream::iter(frames));
                    let response = Response::builder().header("content-type", "application/grpc").body(body);
                    Ok::<_, Infallible>(response.unwrap())
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_asked_over_grpc() {
    let ok = [field(1, b""), field(3, &[option("x-user", "me"), field(5, b"x-gone")].concat())].concat();
    let status = field(1, &number(1, &[0x91, 0x03]));
    let no = field(2, &[status, option("x-why", "so"), field(3, b"no")].concat());
    let denied = [field(1, &number(1, &[7])), no].concat();
    let (address, asked) = grpc(vec![ok, denied, vec![0xff]]).await;
    let yaml = config(FORWARD, &[echo().await], "HTTP")
        + &service("authz", address, "GRPC")
        + &provider("envoyExtAuthzGrpc", "")
        + &policy("AuthorizationPolicy", "ask", ASK);
    let gateway = gateway(&yaml).await;
    let (status, _, body) = gateway.send(&request("/ask?q", "X-Gone: 1\r\nX-A: 1\r\nX-A: 2\r\n")).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("x-user: me") && !body.contains("x-gone"), "{body}");
    let question = String::from_utf8_lossy(&asked.lock().unwrap()[0]).into_owned();
    for part in ["127.0.0.1", ":path", "/ask?q", ":authority", "a.example", "x-a", "1,2", "HTTP/1.1"] {
        assert!(question.contains(part), "{part}: {question:?}");
    }
    let (status, head, body) = gateway.get("/ask/2").await;
    assert_eq!((status, &*body), (401, "no"));
    assert!(head.contains("x-why: so"), "{head}");
    assert_eq!(gateway.get("/ask/3").await.0, 403);
    let line = gateway.line("/ask/3").await;
    assert!(line.contains("403 UAEX ext_authz_error"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_refused_is_closed() {
    let up = scripted("", true).await;
    let yaml = |rule: &str| {
        config(FORWARD, &[up], "TCP")
            .replace("protocol: HTTP}", "protocol: TCP}")
            .replace("  http:\n  - name: main\n    route:", "  tcp:\n  - route:")
            + &policy("AuthorizationPolicy", "deny", rule)
    };
    let refused =
        gateway(&yaml("{action: DENY, rules: [{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}]}")).await;
    assert_eq!(refused.raw("").await, "");
    let line = refused.line("rbac").await;
    assert!(
        line.contains("rbac_access_denied_matched_policy[ns[istio-system]-policy[deny]-rule[0]]"),
        "{line}"
    );
    let open = gateway(&yaml("{action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}")).await;
    let mut stream = TcpStream::connect(open.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\nhello").await.unwrap();
    let mut answer = [0; 5];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"hello");
}

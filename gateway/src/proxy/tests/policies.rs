//! Policies on live requests: order, what each hook may do, and what becomes of a policy that breaks.

use super::*;
use crate::policy::{
    Answer, Chain, Claim, Claims, CompleteView, Failure, Hooks, Origin as From, Policy, Reply, RequestView,
    ResponseView, RouteView, UpstreamView, Verdict,
};
use ::http::{HeaderName, HeaderValue, StatusCode, header, uri::PathAndQuery};
use std::{collections::BTreeMap, sync::Mutex};

type Diary = Arc<Mutex<Vec<String>>>;

/// Notes each of its hooks, and answers where it is told to.
struct Note {
    name: &'static str,
    diary: Diary,
    ends: Option<&'static str>,
}

impl Note {
    fn hook(&self, calls: &mut u32, hook: &str) -> Answer {
        *calls += 1;
        self.diary.lock().unwrap().push(format!("{}.{hook} {calls}", self.name));
        match self.ends {
            Some(end) if end == hook => Ok(Verdict::Respond(
                Reply::text(StatusCode::IM_A_TEAPOT, format!("{} at {hook}", self.name))
                    .header(HeaderName::from_static("x-by"), HeaderValue::from_static("one"))
                    .header(HeaderName::from_static("x-by"), HeaderValue::from_static("two"))
                    .header(header::CONTENT_LENGTH, HeaderValue::from_static("9999"))
                    .header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
                    .details("teapot"),
            )),
            Some(end) if end.strip_prefix("break ") == Some(hook) => Err(Failure::new("on purpose")),
            Some(end) if end.strip_prefix("panic ") == Some(hook) => panic!("on purpose"),
            _ => Ok(Verdict::Continue),
        }
    }
}

impl Policy for Note {
    type State = u32;

    fn name(&self) -> &str {
        self.name
    }

    async fn on_request(&self, calls: &mut u32, _: &mut RequestView<'_>) -> Answer {
        tokio::task::yield_now().await;
        self.hook(calls, "request")
    }

    async fn on_route(&self, calls: &mut u32, request: &mut RouteView<'_>) -> Answer {
        tokio::task::yield_now().await;
        let route = request.route().map_or_else(|| "none".to_owned(), |route| route.to_string());
        self.diary.lock().unwrap().push(route);
        self.hook(calls, "route")
    }

    fn on_upstream(&self, calls: &mut u32, attempt: &mut UpstreamView<'_>) -> Answer {
        let number = HeaderValue::from(attempt.attempt());
        attempt.insert_header(HeaderName::from_static("x-attempt"), number)?;
        self.hook(calls, "upstream")
    }

    fn on_response(&self, calls: &mut u32, response: &mut ResponseView<'_>) -> Answer {
        let name = HeaderValue::from_static(self.name);
        response.append_header(HeaderName::from_static("x-passed"), name)?;
        self.hook(calls, "response")
    }

    fn on_complete(&self, calls: &mut u32, exchange: &CompleteView<'_>) {
        let status = exchange.outcome().status.map_or(0, |status| status.as_u16());
        let _ = self.hook(calls, &format!("complete {status}"));
    }
}

async fn noted(
    rules: &str,
    up: &Player,
    a: Option<&'static str>,
    b: Option<&'static str>,
) -> (TestGateway, Diary) {
    let diary = Diary::default();
    let note = |name, ends| Note { name, diary: diary.clone(), ends };
    let chain = Chain::new().then(note("A", a)).then(note("B", b));
    let registry = Registry::new(Arc::new(SystemResolver::new()), Handle::current());
    (start(&config(rules, &[up.address], "HTTP"), registry, chain).await, diary)
}

/// What the diary has once the exchange is over, which the client may learn a moment before the policies do.
async fn entries(diary: &Diary, last: &str) -> Vec<String> {
    let over = async {
        while !diary.lock().unwrap().last().is_some_and(|entry| entry.starts_with(last)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.unwrap_or_else(|_| panic!("{:?}", diary.lock().unwrap()));
    diary.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_in_order_and_responses_the_other_way() {
    let up = plays(&[OK]).await;
    let (gateway, diary) = noted(FORWARD, &up, None, None).await;
    let (status, head, body) = gateway.get("/").await;
    assert_eq!((status, &*body), (200, "ok"));
    let passed: Vec<_> = head.lines().filter(|line| line.starts_with("x-passed")).collect();
    assert_eq!(passed, ["x-passed: b", "x-passed: a"]);
    assert!(up.got()[0].to_ascii_lowercase().contains("x-attempt: 1"), "{:?}", up.got());
    let route = "default/vs http[0] \"main\"";
    assert_eq!(
        entries(&diary, "A.complete").await,
        [
            "A.request 1",
            "B.request 1",
            route,
            "A.route 2",
            route,
            "B.route 2",
            "A.upstream 3",
            "B.upstream 3",
            "B.response 4",
            "A.response 4",
            "B.complete 200 5",
            "A.complete 200 5",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_seen_and_the_response_once() {
    let rules = "  - retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}\n    route: [{destination: {host: up.example, port: {number: 80}}}]\n";
    let up = plays(&[Act::Say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), OK]).await;
    let (gateway, diary) = noted(rules, &up, None, None).await;
    assert_eq!(gateway.get("/").await.0, 200);
    let entries = entries(&diary, "A.complete").await;
    let count = |what: &str| entries.iter().filter(|entry| entry.contains(what)).count();
    assert_eq!((count("A.upstream"), count("A.response"), count("A.complete")), (2, 1, 1), "{entries:?}");
    assert!(up.got()[1].to_ascii_lowercase().contains("x-attempt: 2"));
}

/// Wherever a policy ends a request, the reply is its own, and passes those that had let the request in.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_ends_a_request_wherever_it_is_given() {
    for (end, passes) in [
        ("request", ["a"].as_slice()),
        ("route", &["b", "a"]),
        ("upstream", &["b", "a"]),
        ("response", &["a"]),
    ] {
        let up = plays(&[OK]).await;
        let (gateway, diary) = noted(FORWARD, &up, None, Some(end)).await;
        let (status, head, body) = gateway.get("/").await;
        assert_eq!((status, body), (418, format!("B at {end}")), "{head}");
        let passed = head.lines().filter_map(|line| line.strip_prefix("x-passed: "));
        assert_eq!(passed.collect::<Vec<_>>(), passes, "{end}");
        for header in ["x-by: one", "x-by: two", "content-type: text/plain", "server: istio-envoy"] {
            assert!(head.contains(header), "{end}: {header} in {head}");
        }
        assert!(!head.contains("9999") && !head.contains("chunked"), "{head}");
        assert!(gateway.line("teapot").await.contains(" 418 "), "{end}");
        assert_eq!(up.got().len(), usize::from(end == "response"), "{end}");
        let entries = entries(&diary, "A.complete").await;
        assert_eq!(
            entries.iter().any(|entry| entry.starts_with("B.complete 418")),
            end != "request",
            "{entries:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_breaks_lets_nothing_through() {
    for end in [
        "break request",
        "break route",
        "break upstream",
        "break response",
        "panic request",
        "panic route",
        "panic upstream",
        "panic response",
    ] {
        let up = plays(&[OK]).await;
        let (gateway, _) = noted(FORWARD, &up, Some(end), None).await;
        let (status, head, body) = gateway.get("/").await;
        assert_eq!((status, &*body), (503, ""), "{end}: {head}");
        assert!(gateway.line("policy_failed{A}").await.contains(" 503 "), "{end}");
        assert!(!head.contains("purpose"), "{head}");
        assert_eq!(up.got().len(), usize::from(end.ends_with(" response")), "{end}");
    }
}

/// What the gateway itself answers passes the policies, and is theirs to judge before it is decided.
#[tokio::test(flavor = "multi_thread")]
async fn local_replies_pass_the_policies() {
    let rules = "  - {match: [{uri: {prefix: /away}}], redirect: {uri: /there}}
  - {match: [{uri: {prefix: /said}}], directResponse: {status: 203, body: {string: said}}}
  - {match: [{uri: {prefix: /down}}], route: [{destination: {host: gone.example}}]}
";
    let up = plays(&[OK]).await;
    let (gateway, diary) = noted(rules, &up, None, None).await;
    for (path, want) in [("/away", 301), ("/said", 203), ("/down", 503), ("/nowhere", 404)] {
        let (status, head, _) = gateway.get(path).await;
        assert_eq!(status, want, "{path}");
        assert!(head.contains("x-passed: b\r\nx-passed: a"), "{path}: {head}");
    }
    assert!(entries(&diary, "A.complete 404").await.iter().any(|entry| entry == "none"));
    let (denied, _) = noted(rules, &up, Some("route"), None).await;
    for path in ["/away", "/said", "/down", "/nowhere"] {
        assert_eq!(denied.get(path).await.0, 418, "{path}");
    }
}

/// What a policy knows of a request, and what it may change before it is routed.
struct Steer;

impl Policy for Steer {
    type State = ();
    const HOOKS: Hooks = Hooks::REQUEST.and(Hooks::RESPONSE);

    async fn on_request(&self, (): &mut (), request: &mut RequestView<'_>) -> Answer {
        let client = request.client();
        assert_eq!(
            (client.is_tls(), client.certificate().is_none(), client.peer().ip()),
            (false, true, client.ip())
        );
        assert_eq!(
            (request.gateway(), request.server(), request.scheme().as_str()),
            ("default/gw", "http", "http")
        );
        assert_eq!(request.headers()[header::HOST], request.authority());
        for name in [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
            assert!(request.remove_header(name.clone()).is_err(), "{name}");
            assert!(request.insert_header(name.clone(), HeaderValue::from_static("1")).is_err(), "{name}");
        }
        match request.path().to_owned().as_str() {
            "/claims" => request.set_claims(Claims::new(BTreeMap::from([(
                "group".into(),
                Claim::List([Claim::Text("staff".into())].into()),
            )]))),
            "/target" => request.set_path_and_query(PathAndQuery::from_static("/moved?a=b")),
            "/host" => request.set_authority(&"me@b.example:8080".parse()?),
            "/header" => {
                request
                    .insert_header(HeaderName::from_static("x-group"), HeaderValue::from_static("beta"))?;
                request.remove_header(HeaderName::from_static("x-secret"))?;
            }
            _ => {}
        }
        request.extensions_mut().insert(7_u8);
        Ok(Verdict::Continue)
    }

    fn on_response(&self, (): &mut (), response: &mut ResponseView<'_>) -> Answer {
        assert_eq!(response.extensions_mut().get(), Some(&7_u8));
        assert_eq!(response.origin(), From::Upstream);
        if let Some(route) = response.route() {
            assert_eq!(route.labels()["team"], "shop");
            assert_eq!(route.annotations().get("limen.dev/note").map(String::as_str), Some("n"));
            let name = HeaderValue::from_str(route.name().unwrap_or("none"))?;
            response.insert_header(HeaderName::from_static("x-route"), name)?;
        }
        Ok(Verdict::Continue)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_changes_is_what_rules_and_upstreams_see() {
    let to = "route: [{destination: {host: up.example, port: {number: 80}}}]";
    let rules = format!(
        "  - {{name: staff, match: [{{headers: {{'@request.auth.claims.group': {{exact: staff}}}}}}], {to}}}
  - {{name: moved, match: [{{uri: {{exact: /moved}}, queryParams: {{a: {{exact: b}}}}}}], {to}}}
  - {{name: beta, match: [{{headers: {{x-group: {{exact: beta}}}}, withoutHeaders: {{x-secret: {{}}}}}}], {to}}}
  - {{name: other, {to}}}
"
    );
    let up = echo().await;
    let config = config(&rules, &[up], "HTTP").replace("hosts: [a.example]", "hosts: [a.example, b.example]").replace(
        "metadata: {name: vs, namespace: default}",
        "metadata: {name: vs, namespace: default, labels: {team: shop}, annotations: {limen.dev/note: n}}",
    );
    let registry = Registry::new(Arc::new(SystemResolver::new()), Handle::current());
    let gateway = start(&config, registry, Chain::new().then(Steer)).await;
    for (path, route, said) in [
        ("/claims", "staff", "GET /claims"),
        ("/target", "moved", "GET /moved?a=b"),
        ("/host", "other", "host: b.example:8080"),
        ("/header", "beta", "x-group: beta"),
        ("/", "other", "host: a.example"),
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nX-Secret: s\r\nConnection: close\r\n\r\n");
        let (status, head, body) = gateway.send(&request).await;
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("x-route: {route}")), "{path}: {head}");
        assert!(body.contains(said), "{path}: {body}");
        assert_eq!(body.contains("x-secret"), path != "/header", "{path}: {body}");
    }
}

/// A body that a request brings is left in its framing, whether it is answered or forwarded.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_keep_their_framing() {
    let up = plays(&[OK]).await;
    // What was not read of a request that is answered ends its connection, and is no request of its own.
    for (end, statuses) in [(None, ["200", "200"].as_slice()), (Some("request"), &["418"])] {
        let (gateway, _) = noted(FORWARD, &up, end, None).await;
        let post = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello";
        let last = "GET /last HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        let answers = gateway.raw(&format!("{post}{last}")).await;
        let got: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(got, statuses, "{answers}");
    }
    assert!(up.got()[0].ends_with("hello"), "{:?}", up.got());
}

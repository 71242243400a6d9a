//! What a policy gets to know of a request at each hook, on a connection with a client certificate and a verified token.

use super::*;
use crate::{
    jwt::testing::{TestKey, jwks},
    testing::{Act, TestGateway, Upstream, config, eventually},
    tls::test_keys::{Authority, Validity, ecdsa},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use boring::ssl::{SslConnector, SslMethod, SslVerifyMode};
use http::{HeaderName, HeaderValue, StatusCode};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
};

/// Notes what each hook knows.
#[derive(Clone, Default)]
struct Curious(Arc<Mutex<Vec<String>>>);

fn who(client: Client<'_>) -> String {
    let certificate = client.certificate();
    let names = certificate.map(|own| (own.uris.clone(), own.dns.clone(), own.subject.clone()));
    format!("{} tls={} sni={:?} {names:?}", client.ip(), client.is_tls(), client.server_name())
}

fn group(claims: Option<&Claims>) -> String {
    let path = ClaimPath::parse("@request.auth.claims.group").unwrap();
    format!("{:?}", claims.and_then(|claims| claims.get(&path)))
}

fn rule(route: Option<RouteInfo<'_>>) -> String {
    route.map_or_else(
        || "no rule".to_owned(),
        |route| {
            format!("{route} of {} {:?} {:?}", route.virtual_service(), route.labels(), route.annotations())
        },
    )
}

impl Curious {
    fn note(&self, hook: &str, client: Client<'_>, claims: Option<&Claims>, more: &str) {
        self.0.lock().unwrap().push(format!("{hook}: {} {} {more}", who(client), group(claims)));
    }
}

impl Policy for Curious {
    type State = ();

    async fn on_request(&self, (): &mut (), request: &mut RequestView<'_>) -> Answer {
        let more = format!("{} {} {}", request.gateway(), request.server(), request.scheme());
        self.note("request", request.client(), request.claims(), &more);
        Ok(Verdict::Continue)
    }

    async fn on_route(&self, (): &mut (), request: &mut RouteView<'_>) -> Answer {
        self.note("route", request.client(), request.claims(), &rule(request.route()));
        Ok(Verdict::Continue)
    }

    fn on_upstream(&self, (): &mut (), attempt: &mut UpstreamView<'_>) -> Answer {
        let more = format!("{} {} {:?}", rule(attempt.route()), attempt.cluster(), attempt.endpoint());
        self.note("upstream", attempt.client(), attempt.claims(), &more);
        Ok(Verdict::Continue)
    }

    fn on_response(&self, (): &mut (), response: &mut ResponseView<'_>) -> Answer {
        self.note("response", response.client(), response.claims(), &rule(response.route()));
        Ok(Verdict::Continue)
    }

    fn on_complete(&self, (): &mut (), exchange: &CompleteView<'_>) {
        let more = format!("{} {}", rule(exchange.route()), exchange.outcome().cluster);
        self.note("complete", exchange.client(), exchange.claims(), &more);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hook_knows_the_client_its_claims_and_the_rule() {
    const RULES: &str = "  - name: main\n    match: [{name: staff, headers: {'@request.auth.claims.group': {exact: staff}}}]\n    route: [{destination: {host: up.example, port: {number: 80}}}]\n";
    let (upstream, authority, key) =
        (Upstream::plays(&[Act::OK]).await, Authority::new("clients"), TestKey::ed25519("k"));
    let own = ecdsa("a.example");
    let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
    let yaml = config(RULES, &[upstream.address()], "HTTP")
        .replace(
            "port: {number: 80, name: http, protocol: HTTP}\n    hosts: ['*']",
            "port: {number: 443, name: https, protocol: HTTPS}\n    hosts: ['*']\n    tls: {mode: MUTUAL, credentialName: own}",
        )
        .replace(
            "metadata: {name: vs, namespace: default}",
            "metadata: {name: vs, namespace: default, labels: {team: shop}, annotations: {limen.dev/note: n}}",
        )
        + &format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: own, namespace: istio-system}}\ndata: {{tls.crt: {}, tls.key: {}, ca.crt: {}}}\n",
            encoded(own.get("tls.crt").unwrap()),
            encoded(own.get("tls.key").unwrap()),
            encoded(&authority.pem())
        )
        + &format!(
            "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: tokens, namespace: istio-system}}\nspec: {{jwtRules: [{{issuer: A, jwks: '{}'}}]}}\n",
            jwks(&[&key])
        );
    let curious = Curious::default();
    let (first, last) = (Curious::default(), curious.clone());
    let early = first.clone();
    let gateway = TestGateway::with(&yaml, |gateway| {
        gateway
            .policies(Phase::Authn, &Chain::new().then(early))
            .policies(Phase::Authz, &Chain::new().then(last))
    })
    .await;
    let (certificate, private) =
        authority.issue(7, &["spiffe://mesh/ns/a/sa/b", "me.example"], Validity::Now);
    let token = key.token("EdDSA", &serde_json::json!({"iss": "A", "sub": "me", "group": "staff"}));
    let at = gateway.address(443);
    let answer = tokio::task::spawn_blocking(move || {
        let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_certificate(&certificate).unwrap();
        builder.set_private_key(&private).unwrap();
        let tls = builder.build().configure().unwrap().verify_hostname(false);
        let mut stream = tls.connect("a.example", TcpStream::connect(at).unwrap()).unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        // Closed without a farewell is closed all the same.
        let _ = stream.read_to_string(&mut answer);
        answer
    })
    .await
    .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let over = || curious.0.lock().unwrap().iter().any(|note| note.starts_with("complete")).then_some(());
    eventually("the end of the exchange", over).await;
    let notes = curious.0.lock().unwrap().clone();
    assert_eq!(notes.len(), 5, "{notes:#?}");
    let client = "127.0.0.1 tls=true sni=Some(\"a.example\") Some(([\"spiffe://mesh/ns/a/sa/b\"], [\"me.example\"], \"CN=spiffe://mesh/ns/a/sa/b\"))";
    let known = "Some(Text(\"staff\"))";
    let rule =
        "default/vs http[0] \"main.staff\" of default/vs {\"team\": \"shop\"} {\"limen.dev/note\": \"n\"}";
    let cluster = "outbound|80||up.example";
    for (note, more) in notes.iter().zip([
        "default/gw https https".to_owned(),
        rule.to_owned(),
        format!("{rule} {cluster} Some({})", upstream.address()),
        rule.to_owned(),
        format!("{rule} {cluster}"),
    ]) {
        let (_, said) = note.split_once(": ").unwrap();
        assert_eq!(said, format!("{client} {known} {more}"), "{note}");
    }
    // Before tokens are judged nobody is known by one.
    assert!(first.0.lock().unwrap()[0].contains(" None default/gw"), "{:?}", first.0.lock().unwrap());
}

/// A view's own words are for the log only: the client gets what the policy said, and the header that it set.
#[tokio::test]
async fn a_policy_by_itself_sees_and_answers() {
    struct Refuse;
    impl Policy for Refuse {
        type State = bool;
        const HOOKS: Hooks = Hooks::REQUEST.and(Hooks::RESPONSE);
        async fn on_request(&self, seen: &mut bool, request: &mut RequestView<'_>) -> Answer {
            *seen = true;
            match request.path() {
                "/no" => Ok(Verdict::Respond(Reply::new(StatusCode::FORBIDDEN))),
                _ => Ok(Verdict::Continue),
            }
        }
        fn on_response(&self, seen: &mut bool, response: &mut ResponseView<'_>) -> Answer {
            let value = HeaderValue::from_static(if *seen { "yes" } else { "no" });
            response.insert_header(HeaderName::from_static("x-seen"), value)?;
            Ok(Verdict::Continue)
        }
    }
    let chain = Chain::new().then(Refuse);
    let get = |path: &str| http::Request::get(path).body(()).unwrap();
    let refused = crate::testing::Pass::of(&chain, get("/no")).request().await;
    assert_eq!(refused.unwrap().status(), StatusCode::FORBIDDEN);
    let mut pass = crate::testing::Pass::of(&chain, get("/yes"));
    assert!(pass.request().await.is_none() && pass.route().await.is_none() && pass.upstream().is_none());
    let mut response = crate::testing::ok();
    assert!(pass.response(&mut response).is_none());
    assert_eq!(response.headers["x-seen"], "yes");
    pass.complete(&response);
}

//! A proxy of a program's own around the gateway's: it hands on what [`GatewayProxy::CALLBACKS`] lists and nothing else, and requests
//! fare as they do without it.

use super::*;
use crate::{
    policy::{BodyAccess, BodyFilter, BodyPolicy, Failure, Flow, Phase, Policy, ResponseView, UpstreamView},
    testing::{Answer, TestGateway, eventually},
};
use std::{collections::BTreeMap, result::Result as Either, sync::Mutex};

type Called = Arc<Mutex<BTreeMap<&'static str, u32>>>;

/// Hands on, and counts what it hands on.
struct Wrapper {
    inner: GatewayProxy,
    called: Called,
}

impl Wrapper {
    fn note(&self, callback: &'static str) {
        *self.called.lock().unwrap().entry(callback).or_default() += 1;
    }
}

/// The gateway's state of a request beside the program's.
struct Both {
    gateway: <GatewayProxy as ProxyHttp>::CTX,
    seen: u32,
}

#[async_trait]
impl ProxyHttp for Wrapper {
    type CTX = Both;

    fn new_ctx(&self) -> Both {
        self.note("new_ctx");
        Both { gateway: self.inner.new_ctx(), seen: 0 }
    }

    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        self.note("init_downstream_modules");
        self.inner.init_downstream_modules(modules);
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Both) -> Result<()> {
        self.note("early_request_filter");
        ctx.seen += 1;
        self.inner.early_request_filter(session, &mut ctx.gateway).await
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Both) -> Result<bool> {
        self.note("request_filter");
        self.inner.request_filter(session, &mut ctx.gateway).await
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Both) -> Result<Box<HttpPeer>> {
        self.note("upstream_peer");
        self.inner.upstream_peer(session, &mut ctx.gateway).await
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Both,
    ) -> Result<()> {
        self.note("connected_to_upstream");
        self.inner.connected_to_upstream(session, reused, peer, fd, digest, &mut ctx.gateway).await
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Both,
    ) -> Result<()> {
        self.note("upstream_request_filter");
        self.inner.upstream_request_filter(session, head, &mut ctx.gateway).await
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Both,
    ) -> Result<()> {
        self.note("request_body_filter");
        self.inner.request_body_filter(session, body, end, &mut ctx.gateway).await
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Both,
    ) -> Result<()> {
        self.note("upstream_response_filter");
        self.inner.upstream_response_filter(session, head, &mut ctx.gateway).await
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Both,
    ) -> Result<()> {
        self.note("response_filter");
        self.inner.response_filter(session, head, &mut ctx.gateway).await?;
        head.insert_header("x-wrapped", ctx.seen.to_string())?;
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Both,
    ) -> Result<Option<Duration>> {
        self.note("response_body_filter");
        self.inner.response_body_filter(session, body, end, &mut ctx.gateway)
    }

    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        trailers: &mut ::http::HeaderMap,
        ctx: &mut Both,
    ) -> Result<Option<Bytes>> {
        self.note("response_trailer_filter");
        self.inner.response_trailer_filter(session, trailers, &mut ctx.gateway).await
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Both,
        e: Box<Error>,
    ) -> Box<Error> {
        self.note("fail_to_connect");
        self.inner.fail_to_connect(session, peer, &mut ctx.gateway, e)
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        ctx: &mut Both,
        client_reused: bool,
    ) -> Box<Error> {
        self.note("error_while_proxy");
        self.inner.error_while_proxy(peer, session, e, &mut ctx.gateway, client_reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Both) -> FailToProxy {
        self.note("fail_to_proxy");
        self.inner.fail_to_proxy(session, e, &mut ctx.gateway).await
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Both) {
        self.note("logging");
        self.inner.logging(session, e, &mut ctx.gateway).await;
    }

    fn suppress_error_log(&self, session: &Session, ctx: &Both, e: &Error) -> bool {
        self.note("suppress_error_log");
        self.inner.suppress_error_log(session, &ctx.gateway, e)
    }

    fn suppress_proxy_warn_log(
        &self,
        session: &Session,
        ctx: &Both,
        e: &Error,
        what: ProxyWarnLogContext,
    ) -> bool {
        self.note("suppress_proxy_warn_log");
        self.inner.suppress_proxy_warn_log(session, &ctx.gateway, e, what)
    }
}

/// Names of the functions in the block that begins with this line.
fn functions(source: &str, block: &str) -> Vec<String> {
    let (_, body) = source.split_once(block).unwrap_or_else(|| panic!("no {block:?}"));
    let body = body.split_once("\n}\n").unwrap().0;
    let functions = body.lines().filter_map(|line| {
        let line = line.strip_prefix("    ")?;
        let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        Some(rest.split(['(', '<']).next()?.to_owned())
    });
    functions.collect()
}

/// What is published is what there is: neither the implementation nor this wrapper has more or less.
#[test]
fn the_published_callbacks_are_those_of_the_implementation() {
    let implemented = functions(include_str!("../../proxy.rs"), "impl ProxyHttp for GatewayProxy {");
    assert_eq!(implemented, GatewayProxy::CALLBACKS);
    assert_eq!(
        functions(include_str!("wrapped.rs"), "impl ProxyHttp for Wrapper {"),
        GatewayProxy::CALLBACKS
    );
    let page = include_str!("../../../docs/embedding/wrapping.md");
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    assert_eq!(listed.map(|(name, _)| name).collect::<Vec<_>>(), GatewayProxy::CALLBACKS);
}

/// Upper case both ways, so that it can be seen that bodies pass the hooks.
struct Shout;

impl Policy for Shout {
    type State = ();
}

impl BodyPolicy for Shout {
    fn request_body(&self, (): &mut (), _: &UpstreamView<'_>) -> BodyAccess {
        BodyAccess::inspect(Shout)
    }

    fn response_body(&self, (): &mut (), _: &ResponseView<'_>) -> BodyAccess {
        BodyAccess::inspect(Shout)
    }
}

impl BodyFilter for Shout {
    fn piece(&mut self, piece: Bytes, _: bool) -> Either<Flow, Failure> {
        Ok(Flow::Pass(piece.to_ascii_uppercase().into()))
    }
}

async fn asked(gateway: &TestGateway) -> Vec<(u16, String)> {
    let brief = |answer: Answer| (answer.status.as_u16(), answer.text());
    let mut answers = Vec::new();
    for path in ["/plain", "/again", "/said", "/away", "/gone", "/broken", "/nowhere-at-all"] {
        answers.push(brief(gateway.get(&format!("http://a.example{path}")).await));
    }
    let post = Request::post("http://a.example/plain").body("hello").unwrap();
    answers.push(brief(gateway.send(post).await));
    answers.push(brief(gateway.get("http://unknown.example/").await));
    let grpc = trailers(gateway.address(80)).await;
    answers.push((200, grpc));
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes";
    answers.push((101, gateway.raw(80, upgrade).await.rsplit("\r\n").next().unwrap().to_owned()));
    answers
}

/// Asks over HTTP/2 and gives the response's trailer.
async fn trailers(at: SocketAddr) -> String {
    let stream = TcpStream::connect(at).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request =
        Request::post("http://a.example/grpc").header("te", "trailers").body(Full::new(Bytes::new()));
    let mut body = client.send_request(request.unwrap()).await.unwrap().into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(trailers) = frame.unwrap().into_trailers() {
            return format!("{:?}", trailers.get("x-end"));
        }
    }
    "none".to_owned()
}

/// Answers with a body and a trailer, over HTTP/2.
async fn trailing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|_: Request<hyper::body::Incoming>| async {
                let end = ::http::HeaderMap::from_iter([(
                    ::http::HeaderName::from_static("x-end"),
                    ::http::HeaderValue::from_static("yes"),
                )]);
                let frames = [Ok(Frame::data(Bytes::from_static(b"a"))), Ok(Frame::trailers(end))];
                Ok::<_, Infallible>(Response::new(StreamBody::new(futures::stream::iter(
                    frames.map(|frame: Either<_, Infallible>| frame),
                ))))
            });
            let connection = async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            };
            tokio::spawn(connection);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_fare_alike_with_a_wrapper_that_hands_on_the_published_callbacks() {
    const BUSY: Act = Act::Say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    const ACTS: &[Act] = &[
        Act::OK,
        Act::OK,
        BUSY,
        Act::OK,
        Act::SayAndLeave("HTTP/1.1 200 OK\r\nBad"),
        Act::Say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npost"),
        Act::SayAndLeave(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nother",
        ),
    ];
    let to = |name: &str| format!("route: [{{destination: {{host: {name}.example, port: {{number: 80}}}}}}]");
    let rules = format!(
        "  - {{match: [{{uri: {{prefix: /said}}}}], directResponse: {{status: 203, body: {{string: said}}}}}}
  - {{match: [{{uri: {{prefix: /away}}}}], redirect: {{uri: /there}}}}
  - {{match: [{{uri: {{prefix: /gone}}}}], {}}}
  - {{match: [{{uri: {{prefix: /grpc}}}}], {}}}
  - {{match: [{{uri: {{prefix: /broken}}}}], retries: {{attempts: 0}}, {}}}
  - {{match: [{{uri: {{prefix: /nowhere}}}}], fault: {{abort: {{httpStatus: 418, percentage: {{value: 100}}}}}}, {}}}
  - retries: {{attempts: 2, retryOn: 5xx, backoff: 1ms}}
    {}
",
        to("gone"),
        to("trailing"),
        to("up"),
        to("up"),
        to("up")
    );
    let (called, mut fared) = (Called::default(), Vec::new());
    for wrapped in [false, true] {
        let up = Upstream::plays(ACTS).await;
        let yaml = config(&rules, &[up.address()], "HTTP")
            + &service("gone", nobody().await, "HTTP")
            + &service("trailing", trailing().await, "HTTP2");
        let called = called.clone();
        let gateway = TestGateway::with(&yaml, move |gateway| {
            let gateway = gateway.policies(Phase::Last, &Chain::new().then_with_bodies(Shout));
            match wrapped {
                true => gateway.wrap(|inner| Wrapper { inner, called }),
                false => gateway,
            }
        })
        .await;
        let answer = gateway.get("http://a.example/first").await;
        assert_eq!(answer.header("x-wrapped"), wrapped.then_some("1"), "{answer:?}");
        fared.push(asked(&gateway).await);
        assert!(up.seen().iter().any(|seen| seen.body() == "HELLO"), "{:?}", up.seen());
    }
    assert_eq!(fared[1], fared[0]);
    let statuses: Vec<_> = fared[0].iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 200, 203, 301, 503, 502, 418, 200, 404, 200, 101], "{:?}", fared[0]);
    assert_eq!(fared[0][9].1, "Some(\"yes\")", "the trailer");
    let all = || {
        let called = called.lock().unwrap();
        GatewayProxy::CALLBACKS.iter().all(|callback| called.contains_key(callback)).then_some(())
    };
    // The list has nothing that is never called. A warning is rare, and its switch is not asked for here.
    called.lock().unwrap().entry("suppress_proxy_warn_log").or_default();
    eventually(&format!("all callbacks: {:?}", called.lock().unwrap()), all).await;
}

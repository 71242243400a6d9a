//! One request's way past policies, without any socket.

use crate::{
    listener::ConnectionInfo,
    policy::{
        Arrival, Chain, Client, CompleteView, Exchange, Hooks, Origin, Outcome, Reply, RequestView,
        ResponseView, RouteView, Run, UpstreamView, Verdict, Way,
    },
    telemetry::Flags,
};
use http::{Request, Response, request, response, uri::Scheme};
use routing::{listener::FilterChain, table::RouteTable};
use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

/// A request that passes the hooks of a chain one by one, as a gateway would call them: to test a policy by itself, and to measure it.
///
/// No rule takes the request, its client is `192.0.2.1` on a plain-text connection, and bodies do not pass; for all of that there is
/// [`TestGateway`](super::TestGateway).
///
/// # Examples
/// ```
/// use gateway::{
///     policy::{Answer, Chain, Policy, Reply, RequestView, Verdict},
///     testing::Pass,
/// };
/// use http::{Request, StatusCode};
///
/// struct NoPosts;
///
/// impl Policy for NoPosts {
///     type State = ();
///
///     async fn on_request(&self, _: &mut (), request: &mut RequestView<'_>) -> Answer {
///         match request.method().as_str() {
///             "POST" => Ok(Verdict::Respond(Reply::new(StatusCode::METHOD_NOT_ALLOWED))),
///             _ => Ok(Verdict::Continue),
///         }
///     }
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let chain = Chain::new().then(NoPosts);
/// let get = Request::get("/").body(()).unwrap();
/// assert!(Pass::of(&chain, get).request().await.is_none());
/// let post = Request::post("/").body(()).unwrap();
/// assert_eq!(Pass::of(&chain, post).request().await.unwrap().status(), 405);
/// # });
/// ```
pub struct Pass {
    run: Run,
    parts: request::Parts,
    authority: String,
}

/// The connection and the server of every such request.
static CONNECTION: LazyLock<ConnectionInfo> =
    LazyLock::new(|| ConnectionInfo::imagined(SocketAddr::from(([192, 0, 2, 1], 40_000))));
static SERVER: LazyLock<Arc<FilterChain>> = LazyLock::new(|| {
    Arc::new(FilterChain {
        gateway: "default/gw".into(),
        server: "http".into(),
        server_port: 80,
        mode: None,
        tls: None,
        tcp: None,
        policies: None,
        table: Arc::new(RouteTable::new("80", [])),
    })
});

impl Pass {
    /// A request that has passed none yet.
    #[must_use]
    pub fn of(chain: &Chain, request: Request<()>) -> Pass {
        let (parts, ()) = request.into_parts();
        let authority = parts.uri.authority().map_or("a.example", |authority| authority.as_str());
        let authority = authority.to_owned();
        Pass { run: Run::new(chain, SERVER.clone()), parts, authority }
    }

    /// `on_request`: what ends the request, if anything does.
    pub async fn request(&mut self) -> Option<Reply> {
        let Run { way, shared } = &mut self.run;
        let exchange = Exchange { scheme: Scheme::HTTP, client: client(), shared };
        let arrival = Arrival { parts: &mut self.parts, authority: &mut self.authority, exchange };
        reply(way.on_request(&mut RequestView::new(arrival)).await)
    }

    /// `on_route`, where no rule takes the request.
    pub async fn route(&mut self) -> Option<Reply> {
        let Run { way, shared } = &mut self.run;
        if !way.has(Hooks::ROUTE) {
            return None;
        }
        let exchange = Exchange { scheme: Scheme::HTTP, client: client(), shared };
        let arrival = Arrival { parts: &mut self.parts, authority: &mut self.authority, exchange };
        reply(way.on_route(&mut RouteView::new(arrival, None)).await)
    }

    /// `on_upstream`, the first attempt.
    #[must_use]
    pub fn upstream(&mut self) -> Option<Reply> {
        let (parts, run) = (&mut self.parts, &mut self.run);
        hook(run, Hooks::UPSTREAM, |way, exchange| {
            way.on_upstream(&mut UpstreamView {
                parts,
                exchange,
                route: None,
                cluster: "",
                endpoint: None,
                attempt: 1,
                has_body: false,
            })
        })
    }

    /// `on_response`: what takes the place of the response, if anything does; otherwise it is as policies left it.
    #[must_use]
    pub fn response(&mut self, response: &mut response::Parts) -> Option<Reply> {
        let (request, run) = (&self.parts, &mut self.run);
        hook(run, Hooks::RESPONSE, |way, exchange| {
            way.on_response(&mut ResponseView {
                parts: response,
                request,
                exchange,
                route: None,
                origin: Origin::Upstream,
                has_body: false,
            })
        })
    }

    /// `on_complete`, after such a response.
    pub fn complete(&mut self, response: &response::Parts) {
        let (request, run) = (&self.parts, &mut self.run);
        let outcome = Outcome {
            status: Some(response.status),
            headers: Some(&response.headers),
            flags: Flags::default(),
            details: "via_upstream",
            cluster: "",
            attempts: 1,
            duration: Duration::ZERO,
            received: 0,
            sent: 0,
        };
        let _nothing_to_answer = hook(run, Hooks::COMPLETE, |way, exchange| {
            way.on_complete(&CompleteView { request, exchange, route: None, outcome });
            Verdict::Continue
        });
    }

    /// The head of the request, as policies left it.
    #[must_use]
    pub fn head(&self) -> &request::Parts {
        &self.parts
    }
}

/// The head of an empty response, for [`Pass::response`].
#[must_use]
pub fn ok() -> response::Parts {
    Response::new(()).into_parts().0
}

fn client() -> Client<'static> {
    Client::new(&CONNECTION, None)
}

fn hook(run: &mut Run, hook: Hooks, call: impl FnOnce(&mut Way, Exchange<'_>) -> Verdict) -> Option<Reply> {
    let Run { way, shared } = run;
    if !way.has(hook) {
        return None;
    }
    reply(call(way, Exchange { scheme: Scheme::HTTP, client: client(), shared }))
}

fn reply(verdict: Verdict) -> Option<Reply> {
    match verdict {
        Verdict::Continue => None,
        Verdict::Respond(reply) => Some(reply),
    }
}

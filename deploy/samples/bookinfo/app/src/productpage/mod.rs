//! The productpage service: the web page, its login and static files, and the JSON API beside it.
//!
//! A backend that fails never fails the page: its place says so. Who is signed in is known from the session cookie
//! alone; a client's own `end-user` header is dropped, or anybody could ask to be routed as somebody else.

mod assets;
mod history;
mod html;
mod page;
mod picture;
mod session;

use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::client::{Backend, CallError, Client, propagated};
use crate::model::{BookDetails, BookRatings, BookReviews, Identity};
use crate::reply::{self, Reply};
use history::History;
use session::User;

/// A call that takes longer is given up; reviews is asked twice.
const DEADLINE: Duration = Duration::from_secs(3);
const REVIEWS_ATTEMPTS: usize = 2;

const HTML: &str = "text/html; charset=utf-8";

/// The one book of the shop.
pub(crate) struct Book {
    pub(crate) id: u32,
    pub(crate) title: &'static str,
    pub(crate) summary: &'static str,
}

const BOOK: Book = Book {
    id: 0,
    title: "The Comedy of Errors",
    summary: "Antipholus of Syracuse steps off a ship in Ephesus and is greeted by everybody as an old friend, scolded \
              by a wife he has never met and dunned for a gold chain he never bought. His twin, lost at sea when both \
              were children, has lived there all along; so has the twin of his servant. One day is enough for \
              everything to go wrong, and for all of it to be put right.",
};

/// Whom the page asks.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) details: Backend,
    pub(crate) reviews: Backend,
    pub(crate) ratings: Backend,
    /// Whether the three are reached through a gateway; the picture shows it.
    pub(crate) through_gateway: bool,
}

#[derive(Debug)]
pub(crate) struct ProductPage {
    identity: Identity,
    client: Client,
    backends: Backends,
    history: History,
}

#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Home,
    Page,
    Login,
    Logout,
    Asset(&'a str),
    Products,
    Product(u32),
    ProductReviews(u32),
    ProductRatings(u32),
    Health,
    Unknown,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Self {
        if let Some(name) = path.strip_prefix("/static/") {
            return Self::Asset(name);
        }
        if let Some(rest) = path.strip_prefix("/api/v1/products/") {
            let (id, below) = rest.split_once('/').map_or((rest, None), |(id, below)| (id, Some(below)));
            return match (id.parse(), below) {
                (Ok(id), None) => Self::Product(id),
                (Ok(id), Some("reviews")) => Self::ProductReviews(id),
                (Ok(id), Some("ratings")) => Self::ProductRatings(id),
                _ => Self::Unknown,
            };
        }
        match path {
            "/" => Self::Home,
            "/productpage" => Self::Page,
            "/login" => Self::Login,
            "/logout" => Self::Logout,
            "/api/v1/products" => Self::Products,
            "/health" => Self::Health,
            _ => Self::Unknown,
        }
    }
}

impl ProductPage {
    pub(crate) fn new(identity: Identity, client: Client, backends: Backends) -> Self {
        Self { identity, client, backends, history: History::default() }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) async fn respond(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Reply {
        let route = Route::of(path);
        if (&route, method) == (&Route::Login, &Method::POST) {
            return sign_in(body);
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return reply::method_not_allowed(match route {
                Route::Login => "GET, HEAD, POST",
                _ => "GET, HEAD",
            });
        }
        match route {
            Route::Home => redirect("/productpage"),
            Route::Page => self.page(headers).await,
            Route::Login => html(page::login_form(None)),
            Route::Logout => with_cookie(redirect("/productpage"), HeaderValue::from_static(session::FORGET)),
            Route::Asset(name) => assets::serve(name),
            Route::Products => reply::json(
                StatusCode::OK,
                &json!([{ "id": BOOK.id, "title": BOOK.title, "descriptionHtml": html::escaped(BOOK.summary).to_string() }]),
            ),
            Route::Product(id) => {
                api(id, self.ask::<BookDetails>(&self.backends.details, "details", id, headers)).await
            }
            Route::ProductReviews(id) => {
                api(id, self.ask::<BookReviews>(&self.backends.reviews, "reviews", id, headers)).await
            }
            Route::ProductRatings(id) => {
                api(id, self.ask::<BookRatings>(&self.backends.ratings, "ratings", id, headers)).await
            }
            Route::Health => reply::healthy("Product page"),
            Route::Unknown => reply::not_found(),
        }
    }

    async fn page(&self, headers: &HeaderMap) -> Reply {
        let user = User::of(headers);
        let (details, reviews) = tokio::join!(
            self.ask::<BookDetails>(&self.backends.details, "details", BOOK.id, headers),
            self.ask_reviews(headers),
        );
        let answered = reviews.as_ref().ok().map(|reviews| reviews.served_by.version.as_str());
        let recent = self.history.note(answered);
        html(page::product_page(&page::View {
            book: &BOOK,
            user: user.as_ref(),
            productpage: &self.identity,
            details: &details,
            reviews: &reviews,
            through_gateway: self.backends.through_gateway,
            request_id: headers.get("x-request-id").and_then(|id| id.to_str().ok()),
            recent: &recent,
        }))
    }

    async fn ask_reviews(&self, headers: &HeaderMap) -> Result<BookReviews, CallError> {
        let mut answer = self.ask(&self.backends.reviews, "reviews", BOOK.id, headers).await;
        for _ in 1..REVIEWS_ATTEMPTS {
            if answer.is_err() {
                answer = self.ask(&self.backends.reviews, "reviews", BOOK.id, headers).await;
            }
        }
        answer
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        backend: &Backend,
        service: &str,
        id: u32,
        headers: &HeaderMap,
    ) -> Result<T, CallError> {
        let path = format!("/{service}/{id}");
        self.client.get(backend, &path, &outgoing(headers), DEADLINE).await
    }
}

/// The headers of a call on behalf of this request: `end-user` is the session's user, or absent.
fn outgoing(headers: &HeaderMap) -> HeaderMap {
    let mut outgoing = propagated(headers);
    outgoing.remove("end-user");
    if let Some(value) = User::of(headers).and_then(|user| user.header_value()) {
        outgoing.insert("end-user", value);
    }
    outgoing
}

async fn api<T: serde::Serialize>(id: u32, answer: impl Future<Output = Result<T, CallError>>) -> Reply {
    if id != BOOK.id {
        return reply::error(StatusCode::NOT_FOUND, "no such book");
    }
    match answer.await {
        Ok(answer) => reply::json(StatusCode::OK, &answer),
        Err(error) => reply::error(error.status(), &error.to_string()),
    }
}

fn sign_in(body: &[u8]) -> Reply {
    match User::from_form(body) {
        Ok(user) => with_cookie(redirect("/productpage"), user.cookie()),
        Err(reason) => {
            let mut reply = html(page::login_form(Some(reason)));
            *reply.status_mut() = StatusCode::BAD_REQUEST;
            reply
        }
    }
}

fn html(body: String) -> Reply {
    let mut reply = reply::with_type(StatusCode::OK, HTML, body);
    let headers = reply.headers_mut();
    // A page shows who answered this one request: a stored copy would lie.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; form-action 'self'; frame-ancestors 'none'"),
    );
    reply
}

fn redirect(to: &'static str) -> Reply {
    let mut reply = reply::with_type(StatusCode::FOUND, HTML, "");
    reply.headers_mut().insert(LOCATION, HeaderValue::from_static(to));
    reply
}

fn with_cookie(mut reply: Reply, cookie: HeaderValue) -> Reply {
    reply.headers_mut().insert(SET_COOKIE, cookie);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use hyper::header::COOKIE;

    /// Every backend is a port that nobody listens on.
    async fn alone() -> ProductPage {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let dead = |service| Backend::direct(service, vec![address.into()]);
        let backends = Backends {
            details: dead("details"),
            reviews: dead("reviews"),
            ratings: dead("ratings"),
            through_gateway: false,
        };
        let identity = Identity { service: "productpage".into(), version: "v1".into(), pod: "pp".into() };
        ProductPage::new(identity, Client::new(), backends)
    }

    async fn text(reply: Reply) -> String {
        String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    async fn get(page: &ProductPage, path: &str) -> Reply {
        page.respond(&Method::GET, path, &HeaderMap::new(), b"").await
    }

    #[test]
    fn paths_lead_where_the_gateway_sends_them() {
        for (path, route) in [
            ("/productpage", Route::Page),
            ("/productpage/", Route::Unknown),
            ("/static/style.css", Route::Asset("style.css")),
            ("/api/v1/products", Route::Products),
            ("/api/v1/products/0", Route::Product(0)),
            ("/api/v1/products/12/reviews", Route::ProductReviews(12)),
            ("/api/v1/products/0/ratings", Route::ProductRatings(0)),
            ("/api/v1/products/0/else", Route::Unknown),
            ("/api/v1/products/-1", Route::Unknown),
            ("/api/v1/products/", Route::Unknown),
            ("/nope", Route::Unknown),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[tokio::test]
    async fn the_page_stands_when_every_backend_is_down() {
        let page = alone().await;
        let reply = get(&page, "/productpage").await;
        assert_eq!(reply.status(), StatusCode::OK);
        let text = text(reply).await;
        assert!(text.contains("Sorry, product reviews are currently unavailable"), "{text}");
        assert!(text.contains("Sorry, product details are currently unavailable"), "{text}");
        assert!(text.contains(BOOK.title), "{text}");
    }

    #[tokio::test]
    async fn the_api_says_what_failed_and_knows_one_book() {
        let page = alone().await;
        assert_eq!(get(&page, "/api/v1/products/0/reviews").await.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(get(&page, "/api/v1/products/1").await.status(), StatusCode::NOT_FOUND);
        let products = text(get(&page, "/api/v1/products").await).await;
        assert!(products.contains("The Comedy of Errors"), "{products}");
    }

    #[tokio::test]
    async fn signing_in_sets_the_cookie_and_signing_out_takes_it_away() {
        let page = alone().await;
        let none = HeaderMap::new();
        let reply = page.respond(&Method::POST, "/login", &none, b"username=jason&passwd=x").await;
        assert_eq!(reply.status(), StatusCode::FOUND);
        assert_eq!(reply.headers().get(LOCATION).unwrap(), "/productpage");
        let cookie = reply.headers().get(SET_COOKIE).unwrap().to_str().unwrap().to_owned();
        assert!(cookie.starts_with("session=jason;") && cookie.contains("HttpOnly"), "{cookie}");

        let gone = get(&page, "/logout").await;
        assert!(gone.headers().get(SET_COOKIE).unwrap().to_str().unwrap().contains("Max-Age=0"));
        let refused = page.respond(&Method::POST, "/login", &none, b"username=").await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn a_login_name_is_text_and_never_markup() {
        let page = alone().await;
        let mut headers = HeaderMap::new();
        let name = "session=%3Cscript%3Ealert(1)%3C%2Fscript%3E%22%27";
        headers.insert(COOKIE, HeaderValue::from_static(name));
        let text = text(page.respond(&Method::GET, "/productpage", &headers, b"").await).await;
        assert!(!text.contains("<script>alert"), "{text}");
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;"), "{text}");
    }

    #[test]
    fn the_signed_in_user_travels_and_a_claimed_one_does_not() {
        let mut headers = HeaderMap::new();
        headers.insert("end-user", HeaderValue::from_static("root"));
        headers.insert("x-request-id", HeaderValue::from_static("7"));
        assert_eq!(outgoing(&headers).get("end-user"), None);
        headers.insert(COOKIE, HeaderValue::from_static("a=b; session=jason"));
        assert_eq!(outgoing(&headers).get("end-user").unwrap(), "jason");
        assert_eq!(outgoing(&headers).get("x-request-id").unwrap(), "7");
        assert_eq!(outgoing(&headers).get(COOKIE), None);
    }

    #[tokio::test]
    async fn what_changes_nothing_is_not_posted() {
        let page = alone().await;
        let reply = page.respond(&Method::POST, "/productpage", &HeaderMap::new(), b"").await;
        assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}

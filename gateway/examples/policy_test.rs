//! How a policy is tested: by itself, in a gateway with real sockets, and with an upstream that misbehaves.
//!
//! The policy allows each client so many requests in all. `cargo run -p gateway --features testing --example policy_test -- FOLDER` serves with it.

use std::{
    collections::HashMap,
    error::Error,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use gateway::{
    Gateway,
    policy::{Answer, Hooks, Policy, Reply, RequestView, ResponseView, Verdict},
};
use http::{HeaderName, HeaderValue, StatusCode};

const LEFT: HeaderName = HeaderName::from_static("x-quota-left");

/// So many requests for each client.
struct Quota {
    most: u32,
    used: Mutex<HashMap<IpAddr, u32>>,
}

impl Quota {
    fn new(most: u32) -> Quota {
        Quota { most, used: Mutex::default() }
    }
}

impl Policy for Quota {
    /// Requests that the client has left.
    type State = u32;
    const HOOKS: Hooks = Hooks::REQUEST.and(Hooks::RESPONSE);

    async fn on_request(&self, left: &mut u32, request: &mut RequestView<'_>) -> Answer {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used = used.entry(request.client().ip()).or_default();
        if *used >= self.most {
            return Ok(Verdict::Respond(Reply::text(StatusCode::TOO_MANY_REQUESTS, "that was the last")));
        }
        *used += 1;
        *left = self.most - *used;
        Ok(Verdict::Continue)
    }

    fn on_response(&self, left: &mut u32, response: &mut ResponseView<'_>) -> Answer {
        response.insert_header(LEFT, HeaderValue::from(*left))?;
        Ok(Verdict::Continue)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: policy_test FOLDER")?;
    let _exit = Gateway::builder().folder(folder).port(80, 8080).policy(Quota::new(1000)).build()?.run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::{
        policy::Chain,
        testing::{Act, FORWARD, Pass, TestGateway, Upstream, config, ok},
    };
    use http::Request;

    #[tokio::test]
    async fn by_itself() {
        let chain = Chain::new().then(Quota::new(1));
        let mut first = Pass::of(&chain, Request::new(()));
        assert!(first.request().await.is_none());
        let mut response = ok();
        assert!(first.response(&mut response).is_none());
        assert_eq!(response.headers[LEFT], "0");
        let second = Pass::of(&chain, Request::new(())).request().await;
        assert_eq!(second.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    }

    #[tokio::test]
    async fn in_a_gateway() {
        let upstream = Upstream::echo().await;
        let yaml = config(FORWARD, &[upstream.address()], "HTTP");
        let gateway = TestGateway::with(&yaml, |gateway| gateway.policy(Quota::new(2))).await;
        for left in ["1", "0"] {
            let answer = gateway.get("http://a.example/").await;
            assert_eq!((answer.status.as_u16(), answer.header("x-quota-left")), (200, Some(left)));
        }
        let answer = gateway.get("http://a.example/late").await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (429, "that was the last"));
        assert_eq!(upstream.seen().len(), 2, "what is refused goes nowhere");
        assert!(gateway.log_line("/late").await.contains(" 429 "));
    }

    #[tokio::test]
    async fn with_an_upstream_that_misbehaves() {
        for (act, status) in [(Act::SayAndReset(""), 503), (Act::SayAndLeave("not HTTP"), 502)] {
            let upstream = Upstream::plays(&[act]).await;
            let yaml = config(FORWARD, &[upstream.address()], "HTTP");
            let gateway = TestGateway::with(&yaml, |gateway| gateway.policy(Quota::new(2))).await;
            let answer = gateway.get("http://a.example/").await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-quota-left")),
                (status, Some("1")),
                "{act:?}"
            );
        }
    }
}

//! Puts each visitor into group `a` or `b` and keeps it there by a cookie; rules route by the header `x-group`.
//!
//! `cargo run -p gateway --features testing --example ab_cookie -- FOLDER` serves the folder's configuration on port 8080 for the port 80 of
//! Gateways. A rule for the second group: `match: [{headers: {x-group: {exact: b}}}]`.

use std::error::Error;

use gateway::{
    Gateway,
    policy::{Answer, Chain, Hooks, Phase, Policy, RequestView, ResponseView, Verdict},
};
use http::{HeaderName, HeaderValue, header};

const GROUP: HeaderName = HeaderName::from_static("x-group");

/// A group of visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    A,
    B,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::A => "a",
            Group::B => "b",
        }
    }

    /// What a cookie says.
    fn of(cookies: &str) -> Option<Group> {
        cookies.split(';').find_map(|cookie| match cookie.trim().split_once('=')? {
            ("group", "a") => Some(Group::A),
            ("group", "b") => Some(Group::B),
            _ => None,
        })
    }
}

/// `share`: how many of 100 new visitors come into group `b`.
struct Assign {
    share: u8,
}

impl Policy for Assign {
    /// The group of a visitor that had none.
    type State = Option<Group>;
    const HOOKS: Hooks = Hooks::REQUEST.and(Hooks::RESPONSE);

    async fn on_request(&self, assigned: &mut Self::State, request: &mut RequestView<'_>) -> Answer {
        let mut cookies = request.headers().get_all(header::COOKIE).iter();
        let group = cookies.find_map(|cookies| Group::of(cookies.to_str().ok()?)).unwrap_or_else(|| {
            let group = if fastrand::u8(..100) < self.share { Group::B } else { Group::A };
            *assigned.insert(group)
        });
        // In place of what the client may have sent: rules trust it.
        request.insert_header(GROUP, HeaderValue::from_static(group.name()))?;
        Ok(Verdict::Continue)
    }

    fn on_response(&self, assigned: &mut Self::State, response: &mut ResponseView<'_>) -> Answer {
        if let Some(group) = assigned {
            let cookie = format!("group={}; Path=/; Max-Age=2592000; SameSite=Lax; HttpOnly", group.name());
            response.append_header(header::SET_COOKIE, HeaderValue::try_from(cookie)?)?;
        }
        Ok(Verdict::Continue)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: ab_cookie FOLDER")?;
    let policies = Chain::new().then(Assign { share: 10 });
    let gateway =
        Gateway::builder().folder(folder).port(80, 8080).policies(Phase::Last, &policies).build()?;
    let _exit = gateway.run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::testing::{Answer, TestGateway, config};
    use http::Request;

    const RULES: &str = "  - match: [{headers: {x-group: {exact: b}}}]
    directResponse: {status: 200, body: {string: new}}
  - directResponse: {status: 200, body: {string: old}}
";

    async fn ask(gateway: &TestGateway, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get("http://a.example/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        gateway.send(request.body("").unwrap()).await
    }

    #[tokio::test]
    async fn a_visitor_stays_where_it_was_put() {
        for (share, page, cookie) in [(0, "old", "group=a"), (100, "new", "group=b")] {
            let yaml = config(RULES, &[], "HTTP");
            let gateway = TestGateway::with(&yaml, |gateway| gateway.policy(Assign { share })).await;
            let first = ask(&gateway, &[("x-group", "other")]).await;
            assert_eq!(first.text(), page);
            let set = first.header("set-cookie").unwrap();
            assert!(set.starts_with(&format!("{cookie}; ")), "{set}");
            let again = ask(&gateway, &[("cookie", &format!("lang=en; {cookie}"))]).await;
            assert_eq!((&*again.text(), again.header("set-cookie")), (page, None));
        }
    }

    #[tokio::test]
    async fn an_earlier_choice_outlives_another_share_and_nonsense_does_not_count() {
        let yaml = config(RULES, &[], "HTTP");
        let gateway = TestGateway::with(&yaml, |gateway| gateway.policy(Assign { share: 0 })).await;
        assert_eq!(ask(&gateway, &[("cookie", "group=b")]).await.text(), "new");
        let odd = ask(&gateway, &[("cookie", "group=z; groups=b")]).await;
        assert_eq!((&*odd.text(), odd.header("set-cookie").is_some()), ("old", true));
    }
}

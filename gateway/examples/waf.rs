//! Refuses requests in which a forbidden word occurs: in the path and query, and in bodies of any length, as they stream.
//!
//! `cargo run -p gateway --features testing --example waf -- FOLDER` serves the folder's configuration on port 8080 for the port 80 of Gateways.

use std::{error::Error, sync::Arc};

use bytes::{Bytes, BytesMut};
use gateway::{
    Gateway,
    policy::{
        Answer, BodyAccess, BodyFilter, BodyPolicy, Chain, Failure, Flow, Hooks, Phase, Policy, Reply,
        RequestView, UpstreamView, Verdict,
    },
};
use http::StatusCode;
use memchr::memmem::Finder;

/// The words, ready to be looked for.
#[derive(Clone)]
struct Words(Arc<[Finder<'static>]>);

impl Words {
    fn new(words: &[&'static str]) -> Words {
        Words(words.iter().map(|word| Finder::new(*word)).collect())
    }

    fn occur_in(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|word| word.find(bytes).is_some())
    }

    /// How much of a word may be at the end of a piece whose rest is in the next.
    fn overlap(&self) -> usize {
        self.0.iter().map(|word| word.needle().len().saturating_sub(1)).max().unwrap_or(0)
    }
}

fn forbidden() -> Reply {
    Reply::text(StatusCode::FORBIDDEN, "refused").details("waf_word")
}

struct Waf(Words);

impl Policy for Waf {
    type State = ();
    const HOOKS: Hooks = Hooks::REQUEST;

    async fn on_request(&self, (): &mut (), request: &mut RequestView<'_>) -> Answer {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        Ok(if self.0.occur_in(target.as_bytes()) { Verdict::Respond(forbidden()) } else { Verdict::Continue })
    }
}

impl BodyPolicy for Waf {
    fn request_body(&self, (): &mut (), _: &UpstreamView<'_>) -> BodyAccess {
        BodyAccess::inspect(Search { words: self.0.clone(), held: BytesMut::new() })
    }
}

/// One body on its way. What may be the beginning of a word is held back until it is known not to be one, and nothing else is.
struct Search {
    words: Words,
    held: BytesMut,
}

impl BodyFilter for Search {
    fn piece(&mut self, piece: Bytes, last: bool) -> Result<Flow, Failure> {
        self.held.extend_from_slice(&piece);
        if self.words.occur_in(&self.held) {
            return Ok(Flow::Respond(forbidden()));
        }
        let keep = if last { 0 } else { self.words.overlap().min(self.held.len()) };
        let pass = self.held.split_to(self.held.len() - keep).freeze();
        Ok(if pass.is_empty() && !last { Flow::Hold } else { Flow::Pass(pass) })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: waf FOLDER")?;
    let words = Words::new(&["<script", "UNION SELECT", "/etc/passwd"]);
    let policies = Chain::new().then_with_bodies(Waf(words));
    let gateway =
        Gateway::builder().folder(folder).port(80, 8080).policies(Phase::Last, &policies).build()?;
    let _exit = gateway.run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::testing::{FORWARD, TestGateway, Upstream, config};
    use http::Request;

    async fn guarded(upstream: &Upstream) -> TestGateway {
        let policies = Chain::new().then_with_bodies(Waf(Words::new(&["evil", "dragon"])));
        let yaml = config(FORWARD, &[upstream.address()], "HTTP");
        TestGateway::with(&yaml, |gateway| gateway.policies(Phase::Last, &policies)).await
    }

    #[tokio::test]
    async fn what_has_no_word_arrives_whole() {
        let upstream = Upstream::echo().await;
        let gateway = guarded(&upstream).await;
        let long = "dragoevi".repeat(100_000);
        for body in ["", "d", "drago", "an evi", &long] {
            let request = Request::post("http://a.example/p").body(body.to_owned()).unwrap();
            assert_eq!(gateway.send(request).await.status, 200);
            assert_eq!(upstream.seen().last().unwrap().body(), body);
        }
    }

    #[tokio::test]
    async fn a_word_is_found_wherever_it_is_and_however_it_is_cut() {
        let gateway = guarded(&Upstream::echo().await).await;
        assert_eq!(gateway.get("http://a.example/evil?q").await.status, 403);
        let request = Request::post("http://a.example/").body(format!("{}dragon", "x".repeat(300_000)));
        assert_eq!(gateway.send(request.unwrap()).await.status, 403);
        for cut in 0..=4 {
            let (one, other) = "evil".split_at(cut);
            let (one, other) = (format!("a{one}"), format!("{other}b"));
            let head = "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
            let answer = gateway.raw(80, format!("{head}{}{}0\r\n\r\n", chunk(&one), chunk(&other))).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{cut}: {answer}");
        }
        assert!(gateway.log_line(" 403 ").await.contains("waf_word"));
    }

    #[test]
    fn nothing_but_a_possible_beginning_is_held_back() {
        let mut search = Search { words: Words::new(&["evil"]), held: BytesMut::new() };
        let mut pass = |piece: &'static str, last| match search.piece(piece.into(), last).unwrap() {
            Flow::Pass(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Flow::Hold => "-".to_owned(),
            Flow::Respond(reply) => reply.status().to_string(),
        };
        assert_eq!([pass("abc", false), pass("def", false), pass("", true)], ["-", "abc", "def"]);
    }
}

//! Watches: events from a version on, bookmarks, and the ways in which they end.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Body, Event, Gone, State,
    answer::{Ask, refusal, status},
};

/// Where a watch is.
struct Watching {
    ask: Ask,
    state: Arc<Mutex<State>>,
    changes: watch::Receiver<u64>,
    version: u64,
    epoch: u64,
    bookmarks: u64,
    pending: Vec<Bytes>,
    ended: bool,
}

pub(super) fn stream(state: Arc<Mutex<State>>, changes: watch::Receiver<u64>, ask: Ask) -> Response<Body> {
    let version = ask.number("resourceVersion").unwrap_or(0);
    let (epoch, bookmarks, expired, gone) = {
        let state = state.lock().unwrap();
        (state.epoch, state.bookmarks, version < state.compacted, state.gone)
    };
    if expired && gone == Gone::Status {
        return refusal(410, "Expired", "too old resource version");
    }
    let mut watching =
        Watching { ask, state, changes, version, epoch, bookmarks, pending: Vec::new(), ended: false };
    if expired {
        watching.end(&status(410, "Expired", "too old resource version"));
    }
    let frames = futures::stream::unfold(watching, |mut watching| async move {
        let piece = watching.piece().await?;
        Some((piece.map(Frame::data), watching))
    });
    let body = StreamBody::new(frames.boxed()).boxed_unsync();
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

impl Watching {
    fn end(&mut self, status: &Value) {
        self.pending.push(line("ERROR", status));
        self.ended = true;
    }

    async fn piece(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        loop {
            if !self.pending.is_empty() {
                tokio::task::yield_now().await;
                return Some(Ok(self.pending.remove(0)));
            }
            if self.ended {
                return None;
            }
            if self.collect() {
                return Some(Err(std::io::Error::other("the connection is cut")));
            }
            if self.pending.is_empty() && !self.ended {
                self.changes.changed().await.ok()?;
            }
        }
    }

    /// Takes what happened since; true when the watch is to be cut.
    fn collect(&mut self) -> bool {
        let shared = Arc::clone(&self.state);
        let state = shared.lock().unwrap();
        if state.epoch != self.epoch {
            return true;
        }
        if self.version < state.compacted {
            // A stream that is open has seen everything: only one that lags is cut off.
            self.version = state.compacted;
        }
        let begin = state.events.partition_point(|event| event.version <= self.version);
        let news: Vec<Event> = state.events[begin..].to_vec();
        for event in news {
            self.version = event.version;
            if event.plural == self.ask.of.plural && self.ask.wants(&event.object) {
                let text = line(event.kind, &self.ask.shown(&event.object, false));
                if state.slow {
                    let (head, tail) = (text.slice(..text.len() / 2), text.slice(text.len() / 2..));
                    self.pending.extend([head, tail]);
                } else {
                    self.pending.push(text);
                }
            }
        }
        if state.bookmarks != self.bookmarks {
            self.bookmarks = state.bookmarks;
            self.version = state.version;
            if self.ask.query.get("allowWatchBookmarks").is_some_and(|allowed| allowed == "true") {
                let kind = if self.ask.metadata_only { "PartialObjectMetadata" } else { self.ask.of.kind };
                let bookmark = json!({"kind": kind, "apiVersion": "v1",
                    "metadata": {"resourceVersion": state.version.to_string(), "creationTimestamp": null}});
                self.pending.push(line("BOOKMARK", &bookmark));
            }
        }
        false
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

//! Which of several gateways writes: the one that holds a Lease.
//!
//! Invariant: whoever holds it renews it well before it expires, and counts itself out before another may take it. Whether a lease of
//! another has expired is measured here, from when it was last seen to change: clocks of two machines are never compared. (As
//! client-go's leaderelection does.)

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    api::{Failure, bounded},
    metrics::{Metrics, Outcome},
};

/// How long a lease lasts.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// Others may take a lease that was not renewed for this long; whole seconds, at least one.
    pub lasts: Duration,
    /// It is renewed, and looked at by those who wait, this often.
    pub renew: Duration,
    /// Whoever could not renew it for this long writes no more.
    pub give_up: Duration,
    /// Where it may not be had at all, it is asked for this often.
    pub refused: Duration,
}

impl Default for Term {
    fn default() -> Term {
        Term {
            lasts: Duration::from_secs(15),
            renew: Duration::from_secs(5),
            give_up: Duration::from_secs(10),
            refused: Duration::from_secs(60),
        }
    }
}

/// One candidate.
pub(super) struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    term: Term,
    metrics: Metrics,
    /// The lease of another as it was last seen, and since when.
    seen: Option<(Option<String>, Instant)>,
    /// The lease as it was last written here, and when.
    held: Option<(Lease, Instant)>,
    /// What was logged last, so that it is not logged again.
    told: Option<String>,
}

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Attempt {
    Held,
    /// Another has it.
    Taken,
}

impl Election {
    pub(super) fn new(
        client: Client,
        namespace: &str,
        name: String,
        identity: String,
        term: Term,
        metrics: Metrics,
    ) -> Election {
        let api = Api::namespaced(client, namespace);
        Election { api, name, identity, term, metrics, seen: None, held: None, told: None }
    }

    /// Waits until the lease is held.
    pub(super) async fn win(&mut self) {
        loop {
            let wait = match self.attempt().await {
                Ok(Attempt::Held) => {
                    self.told = None;
                    self.metrics.set_leader(true);
                    tracing::info!(
                        lease = self.name,
                        identity = self.identity,
                        "status of resources is written by this process"
                    );
                    return;
                }
                Ok(Attempt::Taken) => {
                    self.told = None;
                    self.term.renew
                }
                Err(failure) => {
                    self.tell(&failure);
                    if matches!(failure, Failure::Refused(_)) { self.term.refused } else { self.term.renew }
                }
            };
            sleep(wait).await;
        }
    }

    /// Renews the lease until it is lost.
    pub(super) async fn keep(&mut self) {
        while let Some((_, since)) = &self.held {
            let deadline = *since + self.term.give_up;
            sleep(self.term.renew).await;
            if timeout_at(deadline, self.renew()).await != Ok(Attempt::Held) {
                break;
            }
        }
        self.held = None;
        self.seen = None;
        self.metrics.set_leader(false);
        tracing::warn!(lease = self.name, "status of resources is not written by this process any more");
    }

    async fn renew(&mut self) -> Attempt {
        loop {
            match self.attempt().await {
                Ok(attempt) => return attempt,
                Err(failure) => self.tell(&failure),
            }
            sleep(self.term.renew / 5).await;
        }
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub(super) async fn release(&mut self) {
        let Some((mut lease, _)) = self.held.take() else { return };
        self.metrics.set_leader(false);
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(now());
        }
        if let Err(failure) = self.write(&lease).await {
            tracing::debug!(lease = self.name, "not given back: {failure}");
        }
    }

    fn tell(&mut self, failure: &Failure) {
        let text = failure.to_string();
        if self.told.as_ref() != Some(&text) {
            tracing::warn!(
                lease = self.name,
                "status of resources is not written: the lease cannot be had: {text}"
            );
            self.told = Some(text);
        }
    }

    /// Takes, renews, or sees that it is another's.
    async fn attempt(&mut self) -> Result<Attempt, Failure> {
        let attempt = self.attempt_uncounted().await;
        self.metrics.count_lease(match &attempt {
            Ok(Attempt::Held) => Outcome::Written,
            Ok(Attempt::Taken) | Err(Failure::Conflict) => Outcome::Conflict,
            Err(Failure::Refused(_)) => Outcome::Refused,
            Err(_) => Outcome::Failed,
        });
        match attempt {
            // Somebody else was faster; who, the next look will tell.
            Err(Failure::Conflict) => Ok(Attempt::Taken),
            attempt => attempt,
        }
    }

    async fn attempt_uncounted(&mut self) -> Result<Attempt, Failure> {
        let begun = Instant::now();
        let Some(found) = bounded(self.api.get_opt(&self.name)).await? else {
            let lease = self.wanted(None);
            let created = bounded(self.api.create(&PostParams::default(), &lease)).await?;
            self.held = Some((created, begun));
            return Ok(Attempt::Held);
        };
        let spec = found.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or("");
        if !holder.is_empty() && holder != self.identity {
            let lasts = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
            let lasts = lasts.map_or(self.term.lasts, Duration::from_secs);
            let version = found.metadata.resource_version.clone();
            match &self.seen {
                Some((seen, since)) if *seen == version => {
                    if since.elapsed() < lasts {
                        return Ok(Attempt::Taken);
                    }
                }
                _ => {
                    self.seen = Some((version, begun));
                    return Ok(Attempt::Taken);
                }
            }
        }
        let lease = self.wanted(Some(found));
        let written = self.write(&lease).await?;
        // Counted from before the request: to others the lease may begin as early.
        self.held = Some((written, begun));
        Ok(Attempt::Held)
    }

    /// The version that it was made from is in it: the server refuses it when somebody else was faster.
    async fn write(&self, lease: &Lease) -> Result<Lease, Failure> {
        bounded(self.api.replace(&self.name, &PostParams::default(), lease)).await
    }

    /// The lease as it is to be.
    fn wanted(&self, found: Option<Lease>) -> Lease {
        let (metadata, before) = match found {
            Some(found) => (found.metadata, found.spec.unwrap_or_default()),
            None => {
                let name = Some(self.name.clone());
                (ObjectMeta { name, ..ObjectMeta::default() }, LeaseSpec::default())
            }
        };
        let mine = before.holder_identity.as_deref() == Some(&self.identity);
        let taken = before.lease_transitions.unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.term.lasts.as_secs().max(1)).ok(),
            acquire_time: if mine { before.acquire_time } else { Some(now()) },
            renew_time: Some(now()),
            // The first holder is no transition.
            lease_transitions: Some(match &before.holder_identity {
                Some(_) if !mine => taken.saturating_add(1),
                _ => taken,
            }),
            ..before
        };
        Lease { metadata, spec: Some(spec) }
    }
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::telemetry;

    /// One lease of an API server, without sockets, so that time can be paused.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        lease: Option<Value>,
        version: u64,
        /// Answers with this status to everything.
        failing: Option<u16>,
    }

    impl Server {
        fn answer(&self, method: &http::Method, body: Value) -> (u16, Value) {
            let mut state = self.0.lock().unwrap();
            let now = state.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
            match (state.failing, method.as_str(), now) {
                (Some(code), ..) => (code, json!({})),
                (None, "GET", None) => (404, json!({})),
                (None, "GET", Some(_)) => (200, state.lease.clone().unwrap()),
                (None, "POST", Some(_)) => (409, json!({})),
                (None, "PUT", now) if now.as_ref() != Some(&body["metadata"]["resourceVersion"]) => {
                    (409, json!({}))
                }
                _ => {
                    state.version += 1;
                    let mut lease = body;
                    lease["metadata"]["resourceVersion"] = json!(state.version.to_string());
                    state.lease = Some(lease.clone());
                    (200, lease)
                }
            }
        }

        fn fail(&self, status: Option<u16>) {
            self.0.lock().unwrap().failing = status;
        }

        fn spec(&self) -> Value {
            self.0.lock().unwrap().lease.as_ref().unwrap()["spec"].clone()
        }

        fn candidate(&self, identity: &str) -> Election {
            let server = self.clone();
            let service = tower::service_fn(move |request: http::Request<Body>| {
                let server = server.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let (code, mut answer) =
                        server.answer(&head.method, serde_json::from_slice(&body).unwrap_or_default());
                    if code >= 300 {
                        let reasons = [(404, "NotFound"), (403, "Forbidden"), (409, "Conflict")];
                        let reason = reasons
                            .iter()
                            .find(|(of, _)| *of == code)
                            .map_or("InternalError", |(_, reason)| reason);
                        answer = json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code});
                    }
                    let answer = http::Response::builder()
                        .status(code)
                        .body(Body::from(answer.to_string().into_bytes()));
                    Ok::<_, tower::BoxError>(answer?)
                }
            });
            let metrics =
                Metrics::register(&telemetry::Metrics::new(Default::default(), "test").unwrap()).unwrap();
            let client = Client::new(service, "default");
            Election::new(client, "istio-system", "limen".into(), identity.into(), Term::default(), metrics)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_holds_it_as_long_as_it_renews_and_another_waits_for_its_end() {
        let server = Server::default();
        let (mut one, mut two) = (server.candidate("one"), server.candidate("two"));
        one.win().await;
        assert_eq!(
            (&server.spec()["holderIdentity"], &server.spec()["leaseTransitions"]),
            (&json!("one"), &json!(0))
        );
        tokio::select! {
            () = one.keep() => panic!("it renews"),
            () = two.win() => panic!("it is held"),
            () = sleep(300 * SECOND) => {}
        }
        let renewed = server.spec()["renewTime"].clone();
        // The first has died.
        let begin = Instant::now();
        two.win().await;
        let waited = begin.elapsed();
        assert!(
            waited > 9 * SECOND && waited <= 20 * SECOND,
            "{waited:?}: 15 s after it was last seen to change"
        );
        let spec = server.spec();
        assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&json!("two"), &json!(1)));
        assert!(!renewed.is_null() && spec["leaseDurationSeconds"] == 15);
        // Should it wake up again, it sees that it is another's.
        timeout(6 * SECOND, one.keep()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_taken_at_the_next_look() {
        let server = Server::default();
        let (mut one, mut two) = (server.candidate("one"), server.candidate("two"));
        one.win().await;
        assert!(timeout(7 * SECOND, two.win()).await.is_err());
        one.release().await;
        assert_eq!(server.spec()["holderIdentity"], "");
        timeout(6 * SECOND, two.win()).await.unwrap();
        one.release().await;
        assert_eq!(server.spec()["holderIdentity"], "two", "what is not held is not given back");
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_stops_before_another_may_begin() {
        let server = Server::default();
        let mut one = server.candidate("one");
        one.win().await;
        server.fail(Some(500));
        let begin = Instant::now();
        one.keep().await;
        assert!(begin.elapsed() <= 10 * SECOND, "{:?}", begin.elapsed());
        server.fail(None);
        timeout(6 * SECOND, one.win()).await.unwrap();
        assert_eq!(server.spec()["leaseTransitions"], 0, "it is its own still");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_take_it_at_once_one_has_it() {
        let server = Server::default();
        let (mut one, mut two) = (server.candidate("one"), server.candidate("two"));
        tokio::join!(async { assert!(timeout(SECOND, one.win()).await.is_ok()) }, async {
            assert!(timeout(SECOND, two.win()).await.is_err());
        });
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forbidden_is_asked_for_again_after_a_while() {
        let server = Server::default();
        server.fail(Some(403));
        let mut one = server.candidate("one");
        assert!(timeout(300 * SECOND, one.win()).await.is_err());
        let asked = one.metrics.lease_refusals();
        assert!((5..=6).contains(&asked), "once a minute: {asked}");
        server.fail(None);
        timeout(61 * SECOND, one.win()).await.unwrap();
    }
}

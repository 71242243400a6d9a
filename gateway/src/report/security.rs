//! What policies say of a request that somebody wonders about.
//!
//! Invariant: the rules are the ones that serve requests. What is not known here, a provider's answer or keys that would have to be
//! fetched, is said and taken for good.

use super::{answer::ResponsePart, explain::Question};
use crate::jwt::{self, KeySet};
use routing::{
    authn::{Failure, KeySource},
    authz::{Connection, Facts, Peer, Policies, Rules, Verdict},
    claims::Claims,
    compile::Compiled,
    listener::{Direction, FilterChain, Listener},
    request::RequestHead,
};
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use super::explain::Transport;

/// What policies say.
#[derive(Default)]
pub(super) struct Judged {
    /// Claims of the tokens that were shown.
    pub(super) claims: Option<Claims>,
    /// That it is refused.
    pub(super) denial: Option<Denial>,
    /// What is not known here.
    pub(super) note: Option<String>,
}

/// A refusal.
pub(super) struct Denial {
    /// The answer; `None`: the connection is closed.
    pub(super) response: Option<ResponsePart>,
    /// By whom, and why.
    pub(super) reason: String,
}

pub(super) fn of_connection(
    compiled: &Compiled,
    question: &Question,
    (listener, chain): (&Listener, &FilterChain),
) -> Judged {
    let mut judged = Judged::default();
    if listener.direction == Direction::Outbound {
        return judged;
    }
    let beside = listener.direction == Direction::Inbound;
    let connection = connection(question, listener, beside.then_some(chain));
    let facts = Facts { connection: &connection, request: None };
    judge(&mut judged, &compiled.authorization.tcp, &facts);
    if let Some(denial) = &mut judged.denial {
        denial.response = None;
    }
    judged
}

pub(super) fn of_request(
    compiled: &Compiled,
    question: &Question,
    (listener, chain): (&Listener, &FilterChain),
    head: &RequestHead<'_>,
) -> Judged {
    let mut judged = Judged::default();
    // What a workload asks of others its own policies do not see.
    if listener.direction == Direction::Outbound {
        return judged;
    }
    match tokens(compiled, head) {
        Ok((claims, unchecked)) => {
            judged.claims = claims;
            judged.note = unchecked.then(|| {
                "the token's signature is not checked here: its issuer's keys would have to be fetched"
                    .to_owned()
            });
        }
        Err(failure) => {
            judged.denial = Some(denial(
                failure.status(),
                failure.message(),
                format!("a RequestAuthentication refuses the token: {}", failure.message()),
            ));
            return judged;
        }
    }
    let claims = judged.claims.take();
    let connection = connection(question, listener, Some(chain));
    let head = RequestHead { claims: claims.as_ref(), ..*head };
    judge(
        &mut judged,
        &compiled.authorization.http,
        &Facts { connection: &connection, request: Some(&head) },
    );
    judged.claims = claims;
    judged
}

/// Of a client that shows its certificate where the server asks for one.
fn connection<'q>(
    question: &'q Question,
    listener: &Listener,
    chain: Option<&FilterChain>,
) -> Connection<'q> {
    let asked = chain.and_then(|chain| chain.tls.as_ref()).is_some_and(|tls| tls.client.is_some());
    let shown = question.client_certificate.as_ref().filter(|_| asked);
    let sni = match &question.transport {
        Transport::Tls(name) => name.as_deref(),
        Transport::Plain | Transport::Tcp => None,
    };
    Connection {
        peer: shown.map(|shown| Peer { uris: &shown.uris, dns: &shown.dns, subject: &shown.subject }),
        source: question.client_ip,
        remote: question.client_ip,
        port: if listener.direction == Direction::Inbound { question.port } else { listener.key.port },
        sni,
        ..Connection::default()
    }
}

/// The claims of the tokens, and whether a signature was not checked.
fn tokens(compiled: &Compiled, head: &RequestHead<'_>) -> Result<(Option<Claims>, bool), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut unchecked = false;
    let verified = compiled.authentication.judge(head, |_, rule, token| match &rule.keys {
        KeySource::Inline(json) => jwt::verify(rule, &KeySet::parse(json), &token.text, now),
        KeySource::Remote(_) | KeySource::Discovery(_) => {
            unchecked = true;
            jwt::trust(rule, &token.text, now)
        }
    })?;
    let claims = verified.and_then(|(_, mut verified)| verified.pop()).map(|token| token.claims);
    Ok((claims, unchecked))
}

fn judge(judged: &mut Judged, policies: &Policies, facts: &Facts<'_>) {
    match policies.provider(facts) {
        Err(rule) => {
            let reason = format!(
                "AuthorizationPolicy {} rule {} matches, and its provider cannot be asked",
                rule.policy(),
                rule.index()
            );
            judged.denial = Some(denial(403, "RBAC: access denied", reason));
            return;
        }
        Ok(Some(provider)) => {
            judged.note = Some(format!(
                "provider {:?} is asked first; what it answers is not known here",
                &*provider.name
            ));
        }
        Ok(None) => {}
    }
    let reason = match policies.decide(facts).verdict {
        Verdict::Allowed => return,
        Verdict::Denied(Some(rule)) => {
            format!("AuthorizationPolicy {} rule {} denies it", rule.policy(), rule.index())
        }
        Verdict::Denied(None) => no_rule(policies.allow.enforced(), facts),
    };
    judged.denial = Some(denial(403, "RBAC: access denied", reason));
}

/// What each ALLOW rule misses.
fn no_rule(rules: Option<&Rules>, facts: &Facts<'_>) -> String {
    let rules = rules.map(Rules::all).unwrap_or_default();
    let why = rules.iter().map(|rule| {
        let (policy, index) = (rule.name().policy(), rule.name().index());
        match rule.obstacle(facts) {
            Some(obstacle) => format!("{policy} rule {index} wants {obstacle}"),
            None => format!("{policy} allows nothing"),
        }
    });
    let why: Vec<_> = why.take(5).collect();
    format!("no rule of an ALLOW policy matches: {}", why.join("; "))
}

fn denial(status: u16, body: &str, reason: String) -> Denial {
    let response =
        ResponsePart { status, headers: BTreeMap::new(), body: body.to_owned(), flags: "-".to_owned() };
    Denial { response: Some(response), reason }
}

//! RequestAuthentications: tokens are checked, their claims put before rules, and what upstreams see of them.
//!
//! Invariant: headers that only verified tokens may bring are taken from every request. Of several good tokens the claims of the
//! one that was verified last hold, as in Envoy.

use super::{
    super::{Answer, Failure as Broken, Hooks, Policy, Reply, RequestHead, RequestView, Verdict},
    SecurityMetrics, facts,
};
use crate::jwt::{
    self, Verified,
    store::{KeyStore, Keys},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header, uri::PathAndQuery};
use routing::authn::{Authentication, Failure, Place, without_parameter};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Most bytes of the path that a refusal repeats (Envoy: `MaximumUriLength`).
const REALM: usize = 256;

/// The rules, with the keys of their issuers.
pub(super) struct Tokens {
    rules: Arc<Authentication>,
    keys: Vec<Arc<Keys>>,
    metrics: Arc<SecurityMetrics>,
}

/// A token that is taken out of the request.
enum Removal {
    Header(HeaderName),
    Parameter(String),
}

impl Tokens {
    pub(super) fn new(rules: Arc<Authentication>, store: &KeyStore, metrics: Arc<SecurityMetrics>) -> Self {
        let keys = rules.rules().iter().map(|rule| store.keys(&rule.keys, rule.timeout)).collect();
        Self { rules, keys, metrics }
    }

    /// The tokens that let the request in, in the order in which they were verified.
    fn judge(
        &self,
        request: &RequestHead<'_>,
        now: u64,
    ) -> Result<Vec<(Verified, Option<Removal>)>, Failure> {
        let judged = self.rules.judge(&facts::head(request), |index, rule, token| {
            let keys = self.keys.get(index).ok_or(Failure::NoKeys)?.now();
            let verified = jwt::verify(rule, &keys, &token.text, now)?;
            let removal = match token.place {
                _ if rule.forward => None,
                Place::Header(name) => Some(Removal::Header(name.clone())),
                Place::Parameter(name) => Some(Removal::Parameter(name.to_owned())),
                Place::Cookie => None,
            };
            Ok((verified, removal))
        })?;
        Ok(judged.map_or_else(Vec::new, |(_, verified)| verified))
    }
}

impl Policy for Tokens {
    type State = ();

    const HOOKS: Hooks = Hooks::REQUEST;

    fn name(&self) -> &str {
        "authentication"
    }

    async fn on_request(&self, _: &mut (), request: &mut RequestView<'_>) -> Answer {
        for name in self.rules.reserved() {
            // What is not a policy's to change, such as Host, no claim can be passed on in either.
            let _protected = request.remove_header(name.clone());
        }
        if is_preflight(request) {
            return Ok(Verdict::Continue);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        match self.judge(request, now) {
            Ok(verified) => {
                for (token, removal) in verified {
                    pass_on(request, token, removal)?;
                }
                Ok(Verdict::Continue)
            }
            Err(failure) => {
                self.metrics.token_refused.inc();
                Ok(Verdict::Respond(refusal(request, failure)))
            }
        }
    }
}

fn pass_on(request: &mut RequestView<'_>, token: Verified, removal: Option<Removal>) -> Result<(), Broken> {
    for (name, value) in token.headers {
        let _protected = request.append_header(name, value);
    }
    match removal {
        None => {}
        Some(Removal::Header(name)) => request.remove_header(name)?,
        Some(Removal::Parameter(name)) => {
            let target = match without_parameter(request.query().unwrap_or_default(), &name) {
                Some(query) => format!("{}?{query}", request.path()),
                None => request.path().to_owned(),
            };
            request.set_path_and_query(PathAndQuery::try_from(target)?);
        }
    }
    request.set_claims(token.claims);
    Ok(())
}

/// A browser asks before it sends anything that identifies anybody (Istio: bypassCorsPreflight).
fn is_preflight(request: &RequestHead<'_>) -> bool {
    let says = |name| request.headers().get(name).is_some_and(|value| !value.is_empty());
    *request.method() == Method::OPTIONS
        && says(header::ORIGIN)
        && says(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer of Envoy's filter.
fn refusal(request: &RequestHead<'_>, failure: Failure) -> Reply {
    let status = if failure.status() == 403 { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    let target = target.get(..REALM).unwrap_or(target);
    let error = if failure == Failure::Missing { "" } else { ", error=\"invalid_token\"" };
    let challenge = format!("Bearer realm=\"{}://{}{target}\"{error}", request.scheme(), request.authority());
    let reply = Reply::text(status, failure.message())
        .details(format!("jwt_authn_access_denied{{{}}}", failure.message().replace(' ', "_")));
    match HeaderValue::from_str(&challenge) {
        Ok(challenge) => reply.header(header::WWW_AUTHENTICATE, challenge),
        Err(_) => reply,
    }
}

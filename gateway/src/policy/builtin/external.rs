//! AuthorizationPolicies of the action CUSTOM: a provider is asked (Envoy: ext_authz).
//!
//! Invariant: a provider that gives no answer in time, or none that can be read, has not let the request in, unless the mesh
//! configuration says so of it.

mod grpc;
mod http;
mod message;

pub(super) use grpc::ask_of_connection;

use self::http as over_http;
use super::{
    super::{Answer, Hooks, Policy, Reply, RequestView, ResponseView, Verdict},
    SecurityMetrics, authorization, facts,
};
use crate::telemetry::Flag;
use ::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use futures::future::BoxFuture;
use routing::authz::{
    Authorization,
    provider::{Protocol, Provider},
};
use std::sync::Arc;

/// Somebody who answers.
pub trait Service: Send + Sync + 'static {
    /// Asks. The request's target is in absolute form.
    fn call(&self, request: Request<Bytes>) -> Calling<'_>;
}

/// An answer on its way.
pub type Calling<'a> = BoxFuture<'a, Result<Response<Bytes>, CallError>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CallError(String);

impl CallError {
    /// With these words, for the log.
    #[must_use]
    pub fn new(why: impl Into<String>) -> CallError {
        CallError(why.into())
    }
}

/// What a provider has decided.
#[derive(Debug)]
enum Decision {
    /// The request goes on, with these changes.
    Allow(Changes),
    /// It ends, so.
    Deny(Reply),
}

/// What a provider changes about what it lets in.
#[derive(Debug, Default)]
struct Changes {
    set: Vec<(HeaderName, HeaderValue)>,
    /// Only where the request has such a header.
    append: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
    /// Another path, with its query.
    target: Option<String>,
    /// Another authority.
    authority: Option<String>,
    set_parameters: Vec<(String, String)>,
    remove_parameters: Vec<String>,
    to_client: Vec<(HeaderName, HeaderValue)>,
}

/// The rules, and who is asked about what they match.
pub(super) struct External {
    rules: Arc<Authorization>,
    service: Option<Arc<dyn Service>>,
    metrics: Arc<SecurityMetrics>,
}

impl External {
    pub(super) fn new(
        rules: Arc<Authorization>,
        service: Option<Arc<dyn Service>>,
        metrics: Arc<SecurityMetrics>,
    ) -> Self {
        Self { rules, service, metrics }
    }

    async fn ask(&self, provider: &Provider, request: &RequestView<'_>) -> Result<Decision, CallError> {
        let service = self.service.as_ref().ok_or_else(|| CallError::new("there is nobody to ask"))?;
        let asked = async {
            match &provider.protocol {
                Protocol::Http(check) => over_http::ask(&**service, provider, check, request).await,
                Protocol::Grpc => grpc::ask(&**service, provider, request).await,
            }
        };
        tokio::time::timeout(provider.timeout, asked)
            .await
            .map_err(|_| CallError::new("no answer in time"))?
    }

    fn without_answer(&self, provider: &Provider, error: &CallError) -> Verdict {
        self.metrics.asked_failed.inc();
        tracing::debug!(provider = &*provider.name, %error, open = provider.fail_open, "a provider gives no answer");
        if provider.fail_open {
            return Verdict::Continue;
        }
        let status = StatusCode::from_u16(provider.status_on_error).unwrap_or(StatusCode::FORBIDDEN);
        let reply = Reply::new(status).details("ext_authz_error").flag(Flag::UnauthorizedExternalService);
        Verdict::Respond(reply)
    }
}

impl Policy for External {
    /// Headers for the client.
    type State = Vec<(HeaderName, HeaderValue)>;

    const HOOKS: Hooks = Hooks::REQUEST.and(Hooks::RESPONSE);

    fn name(&self) -> &str {
        "external authorization"
    }

    async fn on_request(&self, to_client: &mut Self::State, request: &mut RequestView<'_>) -> Answer {
        let asked = facts::with(request, |facts| {
            self.rules.http.provider(facts).map(Option::<&Arc<Provider>>::cloned).map_err(Clone::clone)
        });
        let provider = match asked {
            Ok(None) => return Ok(Verdict::Continue),
            Ok(Some(provider)) => provider,
            Err(rule) => {
                self.metrics.denied.inc();
                return Ok(Verdict::Respond(authorization::denied(Some(&rule))));
            }
        };
        match self.ask(&provider, request).await {
            Ok(Decision::Allow(mut changes)) => {
                self.metrics.asked_allowed.inc();
                *to_client = std::mem::take(&mut changes.to_client);
                changes.apply(request);
                Ok(Verdict::Continue)
            }
            Ok(Decision::Deny(reply)) => {
                self.metrics.asked_denied.inc();
                Ok(Verdict::Respond(
                    reply.details("ext_authz_denied").flag(Flag::UnauthorizedExternalService),
                ))
            }
            Err(error) => Ok(self.without_answer(&provider, &error)),
        }
    }

    fn on_response(&self, to_client: &mut Self::State, response: &mut ResponseView<'_>) -> Answer {
        for (name, value) in to_client.drain(..) {
            let _protected = response.append_header(name, value);
        }
        Ok(Verdict::Continue)
    }
}

impl Changes {
    /// What is not a policy's to change stays as it is.
    fn apply(self, request: &mut RequestView<'_>) {
        for name in self.remove {
            let _protected = request.remove_header(name);
        }
        for (name, value) in self.set {
            let _protected = request.insert_header(name, value);
        }
        for (name, value) in self.append {
            // Joined to what is there (Envoy: `appendCopy`).
            if let Some(before) = request.headers().get(&name) {
                let joined = [before.as_bytes(), b",", value.as_bytes()].concat();
                if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                    let _protected = request.insert_header(name, joined);
                }
            }
        }
        if let Some(target) = self.target.and_then(|target| target.parse().ok()) {
            request.set_path_and_query(target);
        }
        if let Some(authority) = self.authority.and_then(|authority| authority.parse().ok()) {
            request.set_authority(&authority);
        }
        if !(self.set_parameters.is_empty() && self.remove_parameters.is_empty()) {
            let query = over_http::edit_query(request.query(), &self.set_parameters, &self.remove_parameters);
            let target = format!("{}{query}", request.path());
            if let Ok(target) = target.parse() {
                request.set_path_and_query(target);
            }
        }
    }
}

//! A service that is asked who may do what (`ext_authz`), as the mesh configuration describes it.

use crate::cluster::ClusterName;
use http::{HeaderName, HeaderValue};
use std::{sync::Arc, time::Duration};

use super::TextMatch;

/// The service.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Name, as policies have it.
    pub name: Arc<str>,
    /// Where it is.
    pub cluster: ClusterName,
    /// Its host: what it is addressed as.
    pub host: Arc<str>,
    /// Time for an answer.
    pub timeout: Duration,
    /// Let in what it gives no answer for.
    pub fail_open: bool,
    /// Status where it gives no answer.
    pub status_on_error: u16,
    /// How it is asked.
    pub protocol: Protocol,
}

/// How a provider is asked.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// Over HTTP.
    Http(Box<HttpCheck>),
    /// Over gRPC.
    Grpc,
}

/// What of a request and of the answer passes through.
#[derive(Clone, Debug, Default)]
pub struct HttpCheck {
    /// In front of the path.
    pub path_prefix: Box<str>,
    /// Headers of the request that it gets to see, besides those that it always does.
    pub sees: Names,
    /// Headers that it gets besides; they win over the request's.
    pub adds: Box<[(HeaderName, HeaderValue)]>,
    /// Headers of its answer that go upstream.
    pub to_upstream: Names,
    /// Headers of its refusal that the client gets; empty: all but Host.
    pub to_client_on_deny: Names,
    /// Headers of its answer that the client gets with the response.
    pub to_client_on_allow: Names,
}

/// Names of headers: exact, prefix or suffix, in any case.
#[derive(Clone, Debug, Default)]
pub struct Names(Box<[TextMatch]>);

impl Names {
    /// From a list of the mesh configuration.
    pub(crate) fn new(list: &[String]) -> Self {
        Self(list.iter().map(|name| TextMatch::value(name, "")).collect())
    }

    /// Whether a name is among them.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|text| text.is_match_in_any_case(name.as_str().as_bytes()))
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

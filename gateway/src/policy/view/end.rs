//! The exchange when it is over.

use super::{
    super::{Claims, Client},
    head::Exchange,
    route::RouteInfo,
};
use crate::telemetry::Flags;
use http::{Extensions, HeaderMap, StatusCode, request::Parts};
use routing::route::Route;
use std::time::Duration;

/// What came of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Status that the client got; `None`: none.
    pub status: Option<StatusCode>,
    /// Headers that the client got.
    pub headers: Option<&'a HeaderMap>,
    /// Response flags.
    pub flags: Flags,
    /// Response code details.
    pub details: &'a str,
    /// Istio's name of the cluster that the request was for; empty: none.
    pub cluster: &'a str,
    /// Attempts that were begun.
    pub attempts: u32,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
}

/// An exchange that is over.
#[derive(Debug)]
pub struct CompleteView<'a> {
    pub(crate) request: &'a Parts,
    pub(crate) exchange: Exchange<'a>,
    pub(crate) route: Option<&'a Route>,
    pub(crate) outcome: Outcome<'a>,
}

impl<'a> CompleteView<'a> {
    /// What came of it.
    #[must_use]
    pub fn outcome(&self) -> &Outcome<'a> {
        &self.outcome
    }

    /// The head of the request, as it was let in.
    #[must_use]
    pub fn request(&self) -> &'a Parts {
        self.request
    }

    /// The rule; `None`: none took the request.
    #[must_use]
    pub fn route(&self) -> Option<RouteInfo<'a>> {
        self.route.map(RouteInfo::of)
    }

    /// Who sent the request.
    #[must_use]
    pub fn client(&self) -> Client<'a> {
        self.exchange.client
    }

    /// The claims of a token that a policy has verified.
    #[must_use]
    pub fn claims(&self) -> Option<&Claims> {
        self.exchange.shared.claims.as_ref()
    }

    /// What policies left for one another about this request, by type.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.exchange.shared.extensions
    }
}

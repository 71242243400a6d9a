//! The request with its rule, and an attempt at sending it.

use super::{
    super::{Claims, Client},
    head::{Arrival, Exchange, Protected, RequestHead, is_protected},
};
use config_model::{
    annotation::{Annotations, Setting},
    meta::ResourceKey,
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, request::Parts};
use routing::route::{Route, RouteOrigin};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::{Deref, DerefMut},
};

/// The rule that took a request.
#[derive(Clone, Copy, Debug)]
pub struct RouteInfo<'a>(&'a RouteOrigin);

impl<'a> RouteInfo<'a> {
    pub(crate) fn of(route: &'a Route) -> RouteInfo<'a> {
        RouteInfo(&route.origin)
    }

    /// `namespace/name` of the VirtualService.
    #[must_use]
    pub fn virtual_service(&self) -> &'a str {
        &self.0.virtual_service
    }

    /// Name of the rule, and of its match behind a dot, where they have any.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.0.name.as_deref()
    }

    /// Index of the rule in `spec.http`.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.0.index
    }

    /// Index in that rule's `match`.
    #[must_use]
    pub fn match_index(&self) -> u32 {
        self.0.match_index
    }

    /// `namespace/name` of the VirtualService that the rule was delegated to.
    #[must_use]
    pub fn delegate(&self) -> Option<&'a str> {
        self.0.delegate.as_deref().map(|delegate| &*delegate.virtual_service)
    }

    /// Index of the delegate's rule in its `spec.http`.
    #[must_use]
    pub fn delegate_index(&self) -> Option<u32> {
        self.0.delegate.as_deref().map(|delegate| delegate.index)
    }

    /// Labels of the VirtualService; of the one that delegates, where one does.
    #[must_use]
    pub fn labels(&self) -> &'a BTreeMap<String, String> {
        &self.0.metadata.labels
    }

    /// Annotations of the VirtualService, but for the copy of itself that `kubectl apply` keeps there.
    #[must_use]
    pub fn annotations(&self) -> &'a BTreeMap<String, String> {
        &self.0.metadata.annotations
    }
}

impl std::fmt::Display for RouteInfo<'_> {
    /// The rule's identity: `default/shop http[2].match[1] "name"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A request whose rule is known.
#[derive(Debug)]
pub struct RouteView<'a> {
    head: RequestHead<'a>,
    route: Option<&'a Route>,
}

impl<'a> RouteView<'a> {
    pub(crate) fn new(arrival: Arrival<'a>, route: Option<&'a Route>) -> RouteView<'a> {
        RouteView { head: RequestHead(arrival), route }
    }

    /// What an annotation asks for, and whose it is.
    pub(crate) fn annotated<'s, T>(
        &'s self,
        of: impl Fn(&'s Annotations) -> Option<&'s Setting<T>>,
    ) -> Option<(&'s ResourceKey, &'s T)> {
        self.head.0.exchange.annotated(self.route, of)
    }

    /// The rule; `None`: no rule takes the request, which will be answered 404, or sent to https.
    #[must_use]
    pub fn route(&self) -> Option<RouteInfo<'a>> {
        self.route.map(RouteInfo::of)
    }
}

impl<'a> Deref for RouteView<'a> {
    type Target = RequestHead<'a>;

    fn deref(&self) -> &RequestHead<'a> {
        &self.head
    }
}

impl<'a> DerefMut for RouteView<'a> {
    fn deref_mut(&mut self) -> &mut RequestHead<'a> {
        &mut self.head
    }
}

/// One attempt: the head as it is about to be sent, and to whom.
#[derive(Debug)]
pub struct UpstreamView<'a> {
    pub(crate) parts: &'a mut Parts,
    pub(crate) exchange: Exchange<'a>,
    pub(crate) route: Option<&'a Route>,
    pub(crate) cluster: &'a str,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) attempt: u32,
    pub(crate) has_body: bool,
}

impl<'a> UpstreamView<'a> {
    /// What an annotation asks for, and whose it is.
    pub(crate) fn annotated<'s, T>(
        &'s self,
        of: impl Fn(&'s Annotations) -> Option<&'s Setting<T>>,
    ) -> Option<(&'s ResourceKey, &'s T)> {
        self.exchange.annotated(self.route, of)
    }

    /// Number of the attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether a body follows.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.has_body
    }

    /// Istio's name of the cluster: `outbound|80|v1|reviews.default.svc.cluster.local`.
    #[must_use]
    pub fn cluster(&self) -> &'a str {
        self.cluster
    }

    /// Address of the endpoint; `None`: a unix socket.
    #[must_use]
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint
    }

    /// The rule.
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

    /// What policies leave for one another about this request, by type.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.exchange.shared.extensions
    }

    /// Method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// Path and query, as the rule rewrote them.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    /// Headers, as the rule left them.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Sets a header of this attempt in place of all others of its name.
    ///
    /// # Errors
    /// [`Protected`]: the header is not a policy's to change.
    pub fn insert_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        if is_protected(&name) {
            return Err(Protected(name));
        }
        self.parts.headers.insert(name, value);
        Ok(())
    }

    /// Takes all headers of a name from this attempt.
    ///
    /// # Errors
    /// [`Protected`]: the header is not a policy's to change.
    pub fn remove_header(&mut self, name: HeaderName) -> Result<(), Protected> {
        if is_protected(&name) {
            return Err(Protected(name));
        }
        self.parts.headers.remove(name);
        Ok(())
    }
}

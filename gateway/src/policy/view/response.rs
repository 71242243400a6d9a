//! The response on its way out.

use super::{
    super::{Claims, Client},
    head::{Exchange, Protected, is_protected},
    route::RouteInfo,
};
use config_model::{
    annotation::{Annotations, Setting},
    meta::ResourceKey,
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, request, response::Parts};
use routing::route::Route;

/// Who made a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An upstream.
    Upstream,
    /// The gateway: a rule's redirect or fixed reply, a policy's reply, or an error.
    Gateway,
}

/// A response about to be sent to the client.
#[derive(Debug)]
pub struct ResponseView<'a> {
    pub(crate) parts: &'a mut Parts,
    pub(crate) request: &'a request::Parts,
    pub(crate) exchange: Exchange<'a>,
    pub(crate) route: Option<&'a Route>,
    pub(crate) origin: Origin,
    pub(crate) has_body: bool,
}

impl<'a> ResponseView<'a> {
    /// What an annotation asks for, and whose it is.
    pub(crate) fn annotated<'s, T>(
        &'s self,
        of: impl Fn(&'s Annotations) -> Option<&'s Setting<T>>,
    ) -> Option<(&'s ResourceKey, &'s T)> {
        self.exchange.annotated(self.route, of)
    }

    /// Who made it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether a body may follow that policies can see.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.has_body
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The head of the request, as it was let in.
    #[must_use]
    pub fn request(&self) -> &'a request::Parts {
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

    /// `namespace/name` of the Gateway that the request came in by.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.exchange.shared.server.gateway
    }

    /// What policies leave for one another about this request, by type.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.exchange.shared.extensions
    }

    /// Sets a header in place of all others of its name.
    ///
    /// # Errors
    /// [`Protected`]: the header is not a policy's to change.
    pub fn insert_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        editable(&name)?;
        self.parts.headers.insert(name, value);
        Ok(())
    }

    /// Adds a header beside others of its name.
    ///
    /// # Errors
    /// [`Protected`]: the header is not a policy's to change.
    pub fn append_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        editable(&name)?;
        self.parts.headers.append(name, value);
        Ok(())
    }

    /// Takes all headers of a name away.
    ///
    /// # Errors
    /// [`Protected`]: the header is not a policy's to change.
    pub fn remove_header(&mut self, name: HeaderName) -> Result<(), Protected> {
        editable(&name)?;
        self.parts.headers.remove(name);
        Ok(())
    }
}

fn editable(name: &HeaderName) -> Result<(), Protected> {
    if is_protected(name) { Err(Protected(name.clone())) } else { Ok(()) }
}

//! The request on its way in.

use super::super::{Claims, Client};
use config_model::{
    annotation::{Annotations, Setting},
    meta::ResourceKey,
};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use routing::{annotated::effective, listener::FilterChain, route::Route};
use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// A header that a policy may not change: the edge's, or of one hop only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header {0} is not a policy's to change")]
pub struct Protected(pub HeaderName);

/// Headers that say where a message ends, how its connection goes on, or whom it is for.
pub(crate) fn is_protected(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::CONNECTION
            | header::UPGRADE
            | header::TE
            | header::TRAILER
            | header::EXPECT
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// What an exchange has from its beginning, and what policies share about it.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) client: Client<'a>,
    pub(crate) shared: &'a mut Shared,
}

impl Exchange<'_> {
    /// What an annotation of the rule's VirtualService, or else of the Gateway, asks for, and whose it is.
    pub(crate) fn annotated<'s, T>(
        &'s self,
        route: Option<&'s Route>,
        of: impl Fn(&'s Annotations) -> Option<&'s Setting<T>>,
    ) -> Option<(&'s ResourceKey, &'s T)> {
        let rule = route.and_then(|route| route.origin.metadata.policies.as_deref());
        effective(rule, self.shared.server.policies.as_deref(), of)
    }
}

/// A request that is being let in.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) parts: &'a mut Parts,
    pub(crate) authority: &'a mut String,
    pub(crate) exchange: Exchange<'a>,
}

/// What the policies of one request share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) server: Arc<FilterChain>,
    pub(crate) claims: Option<Claims>,
    pub(super) extensions: Extensions,
}

impl Shared {
    pub(crate) fn new(server: Arc<FilterChain>) -> Shared {
        Shared { server, claims: None, extensions: Extensions::new() }
    }
}

/// The head of a request, and who sends it.
#[derive(Debug)]
pub struct RequestHead<'a>(pub(super) Arrival<'a>);

impl<'a> RequestHead<'a> {
    /// Method, as sent.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.0.parts.method
    }

    /// Path and query; the path is in its normal form.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0.parts.uri
    }

    /// The path in its normal form, without query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.parts.uri.path()
    }

    /// What follows the first `?`, undecoded.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.0.parts.uri.query()
    }

    /// Version of HTTP that the client speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.parts.version
    }

    /// All headers; `Host` is there whatever the version, and is the authority.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.parts.headers
    }

    /// `Host` or `:authority`, as sent, port included.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority
    }

    /// The scheme that the client spoke, to us or to a trusted proxy in front.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.0.exchange.scheme
    }

    /// Who sends it.
    #[must_use]
    pub fn client(&self) -> Client<'a> {
        self.0.exchange.client
    }

    /// `namespace/name` of the Gateway that the request came in by.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.0.exchange.shared.server.gateway
    }

    /// Name of that Gateway's server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.0.exchange.shared.server.server
    }

    /// The claims of a token that a policy has verified; `None`: nobody has verified one.
    #[must_use]
    pub fn claims(&self) -> Option<&Claims> {
        self.0.exchange.shared.claims.as_ref()
    }

    /// What policies leave for one another about this request, by type.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.0.exchange.shared.extensions
    }

    /// What policies leave for one another about this request, by type.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.0.exchange.shared.extensions
    }

    /// Sets a header in place of all others of its name. Rules and upstreams see it.
    ///
    /// # Errors
    /// [`Protected`]: the header is not a policy's to change.
    pub fn insert_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        self.edit(name, |headers, name| drop(headers.insert(name, value)))
    }

    /// Adds a header beside others of its name.
    ///
    /// # Errors
    /// [`Protected`]: the header is not a policy's to change.
    pub fn append_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        self.edit(name, |headers, name| {
            headers.append(name, value);
        })
    }

    /// Takes all headers of a name away.
    ///
    /// # Errors
    /// [`Protected`]: the header is not a policy's to change.
    pub fn remove_header(&mut self, name: HeaderName) -> Result<(), Protected> {
        self.edit(name, |headers, name| drop(headers.remove(name)))
    }

    fn edit(
        &mut self,
        name: HeaderName,
        edit: impl FnOnce(&mut HeaderMap, HeaderName),
    ) -> Result<(), Protected> {
        if is_protected(&name) {
            return Err(Protected(name));
        }
        edit(&mut self.0.parts.headers, name);
        Ok(())
    }
}

/// A request that is not routed yet.
#[derive(Debug)]
pub struct RequestView<'a>(RequestHead<'a>);

impl<'a> RequestView<'a> {
    pub(crate) fn new(arrival: Arrival<'a>) -> RequestView<'a> {
        RequestView(RequestHead(arrival))
    }

    /// Puts the claims of a token there that was verified, in place of others. Rules that match on
    /// `@request.auth.claims` see them.
    pub fn set_claims(&mut self, claims: Claims) {
        self.0.0.exchange.shared.claims = Some(claims);
    }

    /// Gives the request another target: rules and upstreams see it as if the client had sent it. It is taken as it is, and not
    /// normalised again.
    pub fn set_path_and_query(&mut self, target: PathAndQuery) {
        self.0.0.parts.uri = Uri::from(target);
    }

    /// Gives the request another authority, `Host` with it: rules and upstreams see it as if the client had sent it.
    pub fn set_authority(&mut self, authority: &Authority) {
        // What an authority is made of any header takes, but for user information, which is not part of a Host.
        let host = match authority.port() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_owned(),
        };
        if let Ok(value) = HeaderValue::from_str(&host) {
            self.0.0.parts.headers.insert(header::HOST, value);
            *self.0.0.authority = host;
        }
    }
}

impl<'a> Deref for RequestView<'a> {
    type Target = RequestHead<'a>;

    fn deref(&self) -> &RequestHead<'a> {
        &self.0
    }
}

impl<'a> DerefMut for RequestView<'a> {
    fn deref_mut(&mut self) -> &mut RequestHead<'a> {
        &mut self.0
    }
}

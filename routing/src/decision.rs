//! What a lookup answers. Borrows from the table; making one allocates nothing.

use crate::action::{redirect::Redirect, reply::DirectReply};
use crate::route::{Forward, Route};
use crate::table::VirtualHost;
use std::sync::Arc;

/// What is to be done with one request.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum Decision<'t> {
    /// Send it upstream.
    Forward {
        /// Virtual host that took it.
        host: &'t Arc<VirtualHost>,
        /// Rule that took it; clone the `Arc` to keep it beyond the table's borrow.
        route: &'t Arc<Route>,
        /// The rule's action.
        forward: &'t Forward,
    },
    /// Redirect it.
    Redirect {
        /// Virtual host that took it.
        host: &'t Arc<VirtualHost>,
        /// Rule that took it.
        route: &'t Arc<Route>,
        /// The rule's action.
        redirect: &'t Redirect,
    },
    /// Answer it.
    Reply {
        /// Virtual host that took it.
        host: &'t Arc<VirtualHost>,
        /// Rule that took it.
        route: &'t Arc<Route>,
        /// The rule's action.
        reply: &'t DirectReply,
    },
    /// The virtual host is for TLS only: 301 to the same URL with https, before any rule.
    RequireTls {
        /// Virtual host that took it.
        host: &'t Arc<VirtualHost>,
    },
    /// 404 with flag NR.
    NotFound(NotFound<'t>),
}

impl<'t> Decision<'t> {
    /// The rule that took the request; `None`: none did, or its host is for TLS only.
    #[must_use]
    pub fn route(&self) -> Option<&'t Arc<Route>> {
        match self {
            Self::Forward { route, .. } | Self::Redirect { route, .. } | Self::Reply { route, .. } => {
                Some(route)
            }
            Self::RequireTls { .. } | Self::NotFound(_) => None,
        }
    }
}

/// Why nothing took a request.
#[derive(Clone, Copy, Debug)]
pub enum NotFound<'t> {
    /// No virtual host has this authority.
    Host,
    /// The virtual host has no rule for it; a broader host is never tried (Envoy: one host, chosen once).
    Route(&'t Arc<VirtualHost>),
}

//! One attribute compared with one value, and the lists of them that rules have.
//!
//! Invariant: what is missing matches nothing, so that a `not` list holds for it. A predicate of requests holds for no connection.

use super::{Facts, Template, TextMatch};
use crate::{
    claims::{Claim, ClaimPath},
    header::HeaderKey,
    request::RequestHead,
};
use ipnet::IpNet;
use std::{fmt, net::IpAddr};

/// One attribute compared with one value.
#[derive(Clone, Debug)]
pub(crate) enum Predicate {
    /// A name in the peer's certificate.
    Peer(TextMatch),
    /// The connection's other end.
    Source(IpNet),
    /// The client.
    Remote(IpNet),
    /// This end's address.
    Destination(IpNet),
    /// This end's port.
    Port(u16),
    /// Server name.
    Sni(TextMatch),
    /// What some filter of Envoy's has set: nothing here does.
    Metadata,
    /// Authority, in any case.
    Host(TextMatch),
    /// Method.
    Method(TextMatch),
    /// Path without query.
    Path(TextMatch),
    /// Path without query, by a template.
    Template(Template),
    /// A header.
    Header(HeaderKey, TextMatch),
    /// Issuer and subject of a token.
    Principal(TextMatch, TextMatch),
    /// A claim: its text, or one of its list.
    Claim(ClaimPath, TextMatch),
}

impl Predicate {
    /// Whether only requests have this attribute.
    pub(crate) fn is_of_requests(&self) -> bool {
        match self {
            Self::Peer(_)
            | Self::Source(_)
            | Self::Remote(_)
            | Self::Destination(_)
            | Self::Port(_)
            | Self::Sni(_)
            | Self::Metadata => false,
            Self::Host(_)
            | Self::Method(_)
            | Self::Path(_)
            | Self::Template(_)
            | Self::Header(..)
            | Self::Principal(..)
            | Self::Claim(..) => true,
        }
    }

    fn is_match(&self, facts: &Facts<'_>) -> bool {
        let connection = facts.connection;
        match self {
            Self::Peer(text) => connection.peer.is_some_and(|peer| peer.any(|name| text.is_match(name))),
            Self::Source(network) => contains(network, connection.source),
            Self::Remote(network) => contains(network, connection.remote),
            Self::Destination(network) => contains(network, connection.destination),
            Self::Port(port) => connection.port == *port,
            Self::Sni(text) => text.is_match(connection.sni.unwrap_or_default().as_bytes()),
            Self::Metadata => false,
            _ => facts.request.is_some_and(|head| self.is_match_of_request(head)),
        }
    }

    fn is_match_of_request(&self, head: &RequestHead<'_>) -> bool {
        match self {
            Self::Host(text) => text.is_match_in_any_case(head.authority.as_bytes()),
            Self::Method(text) => text.is_match(head.method.as_bytes()),
            Self::Path(text) => text.is_match(head.path.as_bytes()),
            Self::Template(template) => template.is_match(head.path),
            Self::Header(key, text) => key.any(head, |value| text.is_match(value)),
            Self::Principal(issuer, subject) => {
                let holds =
                    |name: &str, text: &TextMatch| match head.claims.and_then(|claims| claims.named(name)) {
                        Some(Claim::Text(claim)) => text.is_match(claim.as_bytes()),
                        _ => false,
                    };
                holds("iss", issuer) && holds("sub", subject)
            }
            Self::Claim(path, text) => {
                let claim = head.claims.and_then(|claims| claims.get(path));
                claim.is_some_and(|claim| claim.any_text(|value| text.is_match(value.as_bytes())))
            }
            Self::Peer(_)
            | Self::Source(_)
            | Self::Remote(_)
            | Self::Destination(_)
            | Self::Port(_)
            | Self::Sni(_)
            | Self::Metadata => false,
        }
    }
}

/// An address of the other family is in no network, but one of IPv4 that came in as IPv6 is itself.
fn contains(network: &IpNet, address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| network.contains(&address.to_canonical()))
}

/// A list of a rule: any of its predicates, or none of them.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    /// The attribute, as conditions name it.
    pub(crate) attribute: Box<str>,
    /// Compared with each of these.
    pub(crate) any: Box<[Predicate]>,
    /// Holds when none of them does.
    pub(crate) negated: bool,
}

impl Test {
    pub(crate) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.any.iter().any(|predicate| predicate.is_match(facts)) != self.negated
    }
}

impl fmt::Display for Test {
    /// As in `source.ip not in [10.0.0.0/8]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (attribute, is) = (&self.attribute, if self.negated { "not in" } else { "in" });
        write!(f, "{attribute} {is} [")?;
        for (index, predicate) in self.any.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match predicate {
                Predicate::Peer(text)
                | Predicate::Sni(text)
                | Predicate::Host(text)
                | Predicate::Method(text)
                | Predicate::Path(text)
                | Predicate::Header(_, text)
                | Predicate::Claim(_, text) => write!(f, "{comma}{text}")?,
                Predicate::Source(network) | Predicate::Remote(network) | Predicate::Destination(network) => {
                    write!(f, "{comma}{network}")?;
                }
                Predicate::Port(port) => write!(f, "{comma}{port}")?,
                Predicate::Template(template) => write!(f, "{comma}{template}")?,
                Predicate::Principal(issuer, subject) => write!(f, "{comma}{issuer}/{subject}")?,
                Predicate::Metadata => write!(f, "{comma}?")?,
            }
        }
        f.write_str("]")
    }
}

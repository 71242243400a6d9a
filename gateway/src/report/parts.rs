//! Parts of an answer about one request, made of what was compiled.
//!
//! Invariant: values of headers that carry credentials are not shown.

use super::answer::{CandidatePart, DelegatePart, HeaderChanges, ListenerPart, ResponsePart, RoutePart};
use http::{HeaderMap, HeaderName, HeaderValue};
use routing::{
    action::headers::{Direction, HeaderOps, HeaderText, NoFacts},
    explain::{Candidate, Explanation},
    listener::{FilterChain, Listener},
    route::RouteOrigin,
};
use std::sync::Arc;

pub(super) fn listener_part(
    listener: &Listener,
    port: u16,
    chain: Option<&Arc<FilterChain>>,
) -> ListenerPart {
    ListenerPart {
        name: listener.name(),
        port,
        gateway: chain.map(|chain| chain.gateway.to_string()).filter(|name| !name.is_empty()),
        server: chain.map(|chain| chain.server.to_string()),
        tls_mode: chain.and_then(|chain| Some(chain.mode?.as_str().to_owned())),
    }
}

pub(super) fn route_part(origin: &RouteOrigin) -> RoutePart {
    RoutePart {
        virtual_service: origin.virtual_service.to_string(),
        name: origin.name.as_ref().map(ToString::to_string),
        index: origin.index,
        match_index: origin.match_index,
        delegate: delegate_part(origin),
    }
}

fn delegate_part(origin: &RouteOrigin) -> Option<DelegatePart> {
    origin.delegate.as_deref().map(|delegate| DelegatePart {
        virtual_service: delegate.virtual_service.to_string(),
        index: delegate.index,
        match_index: delegate.match_index,
    })
}

pub(super) fn candidate(candidate: &Candidate) -> CandidatePart {
    CandidatePart {
        virtual_service: candidate.origin.virtual_service.to_string(),
        index: candidate.origin.index,
        match_index: candidate.origin.match_index,
        delegate: delegate_part(&candidate.origin),
        matched: candidate.matched,
        reason: candidate.reason.clone(),
    }
}

pub(super) fn shadowed(explanation: &Explanation) -> Vec<CandidatePart> {
    explanation.shadowed.iter().filter_map(|at| explanation.candidates.get(*at)).map(candidate).collect()
}

pub(super) fn reply(
    status: u16,
    location: Option<&str>,
    body: (&[u8], Option<&'static str>),
    operations: &HeaderOps,
) -> ResponsePart {
    let (body, content_type) = body;
    let mut headers = HeaderMap::new();
    if let Some(value) = location.and_then(|location| HeaderValue::from_str(location).ok()) {
        headers.insert(http::header::LOCATION, value);
    }
    operations.apply(&mut headers, Direction::Response, &NoFacts);
    if let Some(content_type) = content_type {
        headers.entry(http::header::CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
    }
    ResponsePart {
        status,
        headers: headers.iter().map(|(name, value)| (name.to_string(), shown(name, value))).collect(),
        body: String::from_utf8_lossy(body).into_owned(),
        flags: "-".to_owned(),
    }
}

pub(super) fn changes(operations: &HeaderOps) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    let mut block = Some(operations);
    while let Some(operations) = block {
        let pairs = |pairs: &[(HeaderName, HeaderText)]| -> Vec<_> {
            pairs.iter().map(|(name, text)| (name.to_string(), shown_text(name, text))).collect()
        };
        changes.remove.extend(operations.remove.iter().map(ToString::to_string));
        changes.set.extend(pairs(&operations.set));
        changes.add.extend(pairs(&operations.add));
        block = operations.then.as_deref();
    }
    changes
}

/// A value that is made for each request is shown as it is written.
fn shown_text(name: &HeaderName, text: &HeaderText) -> String {
    match text.literal() {
        Some(value) => shown(name, value),
        None => text.to_string(),
    }
}

/// A value for people; one that may be a credential stays hidden.
fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    let secret = [
        http::header::AUTHORIZATION.as_str(),
        http::header::PROXY_AUTHORIZATION.as_str(),
        http::header::COOKIE.as_str(),
        http::header::SET_COOKIE.as_str(),
        "x-api-key",
    ];
    if secret.contains(&name.as_str()) {
        return "[redacted]".to_owned();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let operations = HeaderOps {
            set: [
                (
                    http::header::AUTHORIZATION,
                    HeaderText::Literal(HeaderValue::from_static("Bearer hunter2")),
                ),
                (HeaderName::from_static("x-env"), HeaderText::Literal(HeaderValue::from_static("prod"))),
            ]
            .into(),
            ..HeaderOps::default()
        };
        let shown = changes(&operations);
        assert_eq!(shown.set["authorization"], "[redacted]");
        assert_eq!(shown.set["x-env"], "prod");
    }
}

//! Every response that does not come from an upstream.
//!
//! Invariant: this is the only writer of such responses. A gRPC client gets a gRPC status (Envoy: `sendLocalReply`),
//! the rule's response operations apply, HEAD gets the length without the body.

use super::{ctx::Ctx, edge, facts::Stage, heads::edit_response, policies, response};
use crate::{policy, telemetry::Flag};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::http::{ServerSession as HttpSession, date::get_cached_date};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use routing::action::reply::DirectReply;
use std::borrow::Cow;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// Whether the rule's operations, and what else it says about responses, are for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operations {
    Apply,
    Skip,
}

/// A response of our own.
#[derive(Debug)]
pub(super) struct LocalReply {
    status: u16,
    body: Bytes,
    content_type: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    grpc_status: Option<u8>,
    operations: Operations,
    flag: Option<Flag>,
    details: Cow<'static, str>,
    close: bool,
}

impl LocalReply {
    pub(super) fn empty(status: u16, details: &'static str) -> Self {
        Self::text(status, String::new(), details)
    }

    pub(super) fn text(status: u16, body: String, details: impl Into<Cow<'static, str>>) -> Self {
        let content_type = (!body.is_empty()).then_some("text/plain");
        Self {
            status,
            body: body.into(),
            content_type,
            headers: Vec::new(),
            grpc_status: None,
            operations: Operations::Apply,
            flag: None,
            details: details.into(),
            close: false,
        }
    }

    /// A redirect. A location that no header can hold, which only a request's own bytes can make, is a bad request.
    pub(super) fn redirect(status: u16, location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(value) => Self::empty(status, "direct_response").headers(vec![(header::LOCATION, value)]),
            Err(_) => Self::empty(400, "invalid_path"),
        }
    }

    /// The fixed reply of a rule.
    pub(super) fn direct(reply: &DirectReply) -> Self {
        Self {
            body: Bytes::copy_from_slice(&reply.body),
            content_type: reply.content_type(),
            ..Self::empty(reply.status, "direct_response")
        }
    }

    /// The reply of a policy. What it says about framing is not its to say.
    pub(super) fn policy(reply: policy::Reply) -> Self {
        let policy::Reply { status, headers, body, details, flag, grpc_status, in_place } = reply;
        let mut named: Option<HeaderName> = None;
        let headers = headers.into_iter().filter_map(|(name, value)| {
            // The second and following values of a name come without it.
            named = name.or(named.take());
            named.clone().filter(|name| !policy::is_protected(name)).map(|name| (name, value))
        });
        Self {
            body,
            headers: headers.collect(),
            flag,
            grpc_status,
            operations: if in_place { Operations::Skip } else { Operations::Apply },
            // Of what it stands for the log tells already.
            ..Self::text(status.as_u16(), String::new(), if in_place { Cow::Borrowed("") } else { details })
        }
    }

    /// With these headers.
    pub(super) fn headers(self, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self { headers, ..self }
    }

    /// With this status for a client that speaks gRPC, whatever the HTTP status.
    pub(super) fn grpc_status(self, code: u8) -> Self {
        Self { grpc_status: Some(code), ..self }
    }

    /// As if no rule had anything to say about it.
    pub(super) fn without_operations(self) -> Self {
        Self { operations: Operations::Skip, ..self }
    }

    /// With a response flag.
    pub(super) fn flag(self, flag: Flag) -> Self {
        Self { flag: Some(flag), ..self }
    }

    /// And the connection ends with it.
    pub(super) fn close(self) -> Self {
        Self { close: true, ..self }
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }
}

/// To a request that the process has no room for (Envoy's overload manager; it gives no time to come back at).
pub(super) fn overloaded() -> LocalReply {
    LocalReply::text(503, "envoy overloaded".to_owned(), "overload")
        .headers(vec![(header::RETRY_AFTER, HeaderValue::from_static("1"))])
        .flag(Flag::Overloaded)
        .close()
}

/// Whether this head begins what the client asked for, so that no reply of ours can come behind it. A 101 does: the rest is a tunnel's.
pub(super) fn begins(head: &ResponseHeader) -> bool {
    !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
}

/// Writes a reply and notes it for the log.
///
/// # Errors
/// When the client is gone.
pub(super) async fn write(session: &mut Session, ctx: &mut Ctx, reply: LocalReply) -> Result<()> {
    note(ctx, &reply);
    if ctx.sent.is_none() {
        let request = session.req_header();
        edge::keep_for_response(request, &request.headers, ctx);
    }
    if reply.close {
        session.set_keepalive(None);
    }
    let (mut head, mut body) = compose(reply, ctx)?;
    while let Some(other) = policies::finish(session.req_header(), &mut head, &mut body, ctx) {
        note(ctx, &other);
        (head, body) = compose(other, ctx)?;
    }
    let empty = body.is_empty() || session.req_header().method == Method::HEAD;
    if let (true, HttpSession::H2(stream)) = (empty, session.as_downstream_mut()) {
        // A gRPC client takes a status without messages only from the frame that ends the stream ("Trailers-Only");
        // the engine would end it with an empty DATA frame after the head.
        return stream.write_response_header(Box::new(head), true);
    }
    session.write_response_header(Box::new(head), empty).await?;
    if !empty {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

fn note(ctx: &mut Ctx, reply: &LocalReply) {
    if !reply.details.is_empty() {
        ctx.details = reply.details.clone();
    }
    if let Some(flag) = reply.flag {
        ctx.flags.insert(flag);
    }
}

/// Head and body of a reply, as the client's protocol has them.
fn compose(reply: LocalReply, ctx: &mut Ctx) -> Result<(ResponseHeader, Bytes)> {
    let mut head = ResponseHeader::build(if ctx.grpc { 200 } else { reply.status }, Some(8))?;
    let mut body = reply.body;
    let status = reply.grpc_status.unwrap_or_else(|| grpc_status(reply.status));
    // RFC 9110 §8.6: a 1xx or 204 has no length; a 304 would speak of another body.
    let has_length = ctx.grpc || !matches!(reply.status, 100..=199 | 204 | 304);
    let overloaded = reply.details.ends_with("{overflow}");
    if ctx.grpc {
        ctx.grpc_status = Some(status);
    }
    let grpc = ctx.grpc;
    edit_response(&mut head, |parts| {
        let headers = &mut parts.headers;
        headers.extend(reply.headers);
        headers.insert(header::DATE, get_cached_date());
        match reply.operations {
            Operations::Apply => response::finish(headers, ctx, Stage::Local(parts.status.as_u16())),
            Operations::Skip => response::sign(headers, ctx),
        }
        if grpc {
            // What a gRPC client cannot read would be no answer at all.
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
            if !body.is_empty()
                && let Ok(message) = HeaderValue::from_str(&grpc_message(&std::mem::take(&mut body)))
            {
                headers.insert(GRPC_MESSAGE, message);
            }
        } else if let Some(kind) = reply.content_type {
            // After the operations, whatever they did to it: only a type that they gave stays (asked of Envoy 1.40).
            headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        }
        if has_length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if overloaded && ctx.heads().debug {
            headers.insert(OVERLOADED, HeaderValue::from_static("true"));
        }
    });
    Ok((head, body))
}

/// gRPC's mapping of HTTP statuses, as Envoy has it.
fn grpc_status(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// gRPC's percent-encoding: everything but printable ASCII without `%`.
fn grpc_message(body: &[u8]) -> String {
    let mut out = String::with_capacity(body.len());
    for b in body {
        match b {
            0x20..=0x7e if *b != b'%' => out.push(char::from(*b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_grpc_says() {
        assert_eq!(grpc_message("100% \u{e9}\n".as_bytes()), "100%25 %C3%A9%0A");
    }

    #[test]
    fn a_location_that_cannot_be_a_header_is_a_bad_request() {
        assert_eq!(LocalReply::redirect(301, "http://a/\r\nx: y").status(), 400);
    }
}

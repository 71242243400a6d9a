//! A response that a policy gives in place of the upstream's.
//!
//! Invariant: says what is meant, not how it is written: gRPC clients get a gRPC status, HEAD gets no body, and the length is
//! whoever writes it to count.

use crate::telemetry::Flag;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::borrow::Cow;

/// A response of a policy's own.
///
/// A client that speaks gRPC gets the status as gRPC has it, with the body as its message.
///
/// # Examples
/// ```
/// use gateway::policy::Reply;
/// use http::{HeaderValue, StatusCode, header};
///
/// let reply = Reply::text(StatusCode::TOO_MANY_REQUESTS, "slow down")
///     .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
///     .details("too_many_of_one_client");
/// assert_eq!(reply.status(), StatusCode::TOO_MANY_REQUESTS);
/// ```
#[derive(Debug)]
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) details: Cow<'static, str>,
    pub(crate) flag: Option<Flag>,
    pub(crate) grpc_status: Option<u8>,
    /// It stands in place of a response that was finished: its headers are all that it has, and the log tells of the other.
    pub(crate) in_place: bool,
}

impl Reply {
    /// Without a body.
    #[must_use]
    pub fn new(status: StatusCode) -> Reply {
        Reply {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            details: Cow::Borrowed("policy"),
            flag: None,
            grpc_status: None,
            in_place: false,
        }
    }

    /// With a body of plain text.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<Cow<'static, str>>) -> Reply {
        let body = match body.into() {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        };
        Reply::new(status).body(HeaderValue::from_static("text/plain"), body)
    }

    /// With this body, which is of this type.
    #[must_use]
    pub fn body(mut self, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
        self.headers.insert(header::CONTENT_TYPE, content_type);
        self.body = body.into();
        self
    }

    /// With this header, in addition to others of its name. Length and framing are not the policy's: they are written over.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Reply {
        self.headers.append(name, value);
        self
    }

    /// With these response code details, for the access log: what in the policy said so, without blanks.
    #[must_use]
    pub fn details(mut self, details: impl Into<Cow<'static, str>>) -> Reply {
        self.details = details.into();
        self
    }

    /// With this response flag.
    #[must_use]
    pub fn flag(mut self, flag: Flag) -> Reply {
        self.flag = Some(flag);
        self
    }

    /// With this gRPC status for clients that speak gRPC; otherwise it is what gRPC makes of the HTTP status.
    #[must_use]
    pub fn grpc_status(mut self, status: u8) -> Reply {
        self.grpc_status = Some(status);
        self
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Another body in place of a finished response's, with its status and these of its headers.
    pub(crate) fn in_place(status: StatusCode, headers: HeaderMap, body: Bytes) -> Reply {
        Reply { headers, body, in_place: true, ..Reply::new(status) }
    }

    /// What a request gets whose policy broke (Envoy: a Wasm filter that fails closed).
    pub(crate) fn broken(name: &str) -> Reply {
        Reply::new(StatusCode::SERVICE_UNAVAILABLE).details(format!("policy_failed{{{name}}}"))
    }
}

//! The one map from what went wrong to what the client gets: status, body, response flag (Envoy's); and to what retry
//! policies make of it.
//!
//! Invariant: no other place turns an error into a status. What an upstream or the operating system said about a
//! failure goes to the log; the client sees Envoy's fixed words only.

use super::reply::LocalReply;
use crate::{listener::Flaw, runtime::NoAnswer, telemetry::Flag};
use http::Version;
use pingora_error::{Error, ErrorSource, ErrorType};
use routing::action::retry::Reset;
use std::borrow::Cow;

/// A reason of our own not to have a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The destination names a cluster that does not exist.
    NoCluster,
    /// No endpoint may be picked.
    NoHealthyUpstream,
    /// The name that the request asks for stands for no address that it may go to.
    NameNotResolved,
    /// The route's timeout ran out.
    RouteTimeout,
    /// The time of one attempt ran out before its response began.
    PerTryTimeout,
    /// The response was one that the rule asks to try again for.
    RetriedResponse,
    /// The upstream cannot be verified as its DestinationRule asks.
    UntrustedUpstream,
    /// A limit of the cluster is reached.
    Overflow,
    /// A policy has answered in place of the upstream.
    Policy,
}

impl Cause {
    const ALL: [Self; 9] = [
        Self::NoCluster,
        Self::NoHealthyUpstream,
        Self::NameNotResolved,
        Self::RouteTimeout,
        Self::PerTryTimeout,
        Self::RetriedResponse,
        Self::UntrustedUpstream,
        Self::Overflow,
        Self::Policy,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::NoCluster => "cluster_not_found",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::NameNotResolved => "dns_resolution_failure",
            Self::RouteTimeout => "response_timeout",
            Self::PerTryTimeout => "upstream_per_try_timeout",
            Self::RetriedResponse => "retried_response",
            Self::UntrustedUpstream => "untrusted_upstream",
            Self::Overflow => "overflow",
            Self::Policy => "policy",
        }
    }

    /// As an error for Pingora to carry; not retried unless whoever gets it says so.
    pub(super) fn error(self) -> Box<Error> {
        let mut e = Error::new(ErrorType::Custom(self.name()));
        e.as_up();
        e
    }

    /// As an error with something to say in the log.
    pub(super) fn explain(self, why: impl Into<String>) -> Box<Error> {
        let mut e = Error::explain(ErrorType::Custom(self.name()), why.into());
        e.as_up();
        e
    }

    /// The cause that an error carries.
    pub(super) fn of(e: &Error) -> Option<Self> {
        match e.root_etype() {
            ErrorType::Custom(name) => Self::ALL.into_iter().find(|c| c.name() == *name),
            _ => None,
        }
    }
}

/// What becomes of a failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// 0: there is nobody to answer.
    status: u16,
    /// Or, of a reset, its reason.
    body: Cow<'static, str>,
    reset: bool,
    pub(super) flag: Option<Flag>,
    pub(super) details: String,
    /// What is logged of the transport's own words.
    pub(super) transport: Option<String>,
}

impl Failure {
    fn new(status: u16, body: &'static str, flag: Flag, details: &str) -> Self {
        let details = details.into();
        Self { status, body: body.into(), flag: Some(flag), details, transport: None, reset: false }
    }

    /// One that Envoy has no flag for, without a body.
    fn own(status: u16, details: &str) -> Self {
        Self { flag: None, ..Self::new(status, "", Flag::UpstreamRemoteReset, details) }
    }

    /// A stream that ended before its response began, in Envoy's words.
    fn reset(status: u16, flag: Flag, reason: &'static str) -> Self {
        let details = format!("upstream_reset_before_response_started{{{}}}", reason.replace(' ', "_"));
        Self { status, body: Cow::Borrowed(reason), flag: Some(flag), details, transport: None, reset: true }
    }

    /// The body, after `attempts`.
    fn body(&self, attempts: u32) -> String {
        let reason = &self.body;
        let latest = if attempts > 1 { "retried and the latest " } else { "" };
        match self.reset {
            true => format!(
                "upstream connect error or disconnect/reset before headers. {latest}reset reason: {reason}"
            ),
            false => reason.to_string(),
        }
    }

    /// Why, in Envoy's words.
    pub(super) fn reason(&self) -> &str {
        if self.reset || self.body.is_empty() { &self.body } else { &self.details }
    }

    /// The same where the response had begun. A connection of HTTP/1 that ends before the body does is an error of the
    /// protocol then, whichever way it ended (asked of Envoy 1.40).
    pub(super) fn after_start(self, upstream: Option<Version>) -> Self {
        let terminated = self.flag == Some(Flag::UpstreamConnectionTermination);
        match upstream {
            Some(version) if terminated && version < Version::HTTP_2 => {
                Self::reset(502, Flag::UpstreamProtocolError, "protocol error")
            }
            _ => self,
        }
    }

    /// The details where the response had begun.
    pub(super) fn details_after_start(self) -> String {
        if self.reset {
            return self.details.replacen("_before_response_started", "_after_response_started", 1);
        }
        self.details
    }

    /// The reply after `attempts`; `None` when there is nobody to answer.
    pub(super) fn reply(&self, attempts: u32) -> Option<LocalReply> {
        (self.status > 0).then(|| LocalReply::text(self.status, self.body(attempts), self.details.clone()))
    }
}

/// What an attempt that failed was to a retry policy; `None`: nothing that another attempt could help.
///
/// `head_sent`: the request's head had gone out.
pub(super) fn reset(e: &Error, head_sent: bool) -> Option<Reset> {
    use ErrorType as T;
    match Cause::of(e) {
        Some(
            Cause::NoCluster
            | Cause::NoHealthyUpstream
            | Cause::NameNotResolved
            | Cause::RouteTimeout
            | Cause::Overflow,
        ) => return None,
        // The response was judged already.
        Some(Cause::RetriedResponse | Cause::Policy) => return None,
        Some(Cause::PerTryTimeout) => return Some(Reset::AfterRequest),
        Some(Cause::UntrustedUpstream) => return Some(Reset::ConnectFailure),
        None => {}
    }
    if e.esource() != &ErrorSource::Upstream {
        return None;
    }
    Some(match e.root_etype() {
        T::ConnectTimedout
        | T::ConnectRefused
        | T::ConnectNoRoute
        | T::ConnectError
        | T::BindError
        | T::SocketError
        | T::ConnectProxyFailure
        | T::InvalidCert
        | T::TLSHandshakeFailure
        | T::TLSHandshakeTimedout
        | T::HandshakeError
        | T::TLSWantX509Lookup => Reset::ConnectFailure,
        // The engine marks so what the upstream says it did not look at: REFUSED_STREAM, and streams beyond a GOAWAY.
        T::H2Error if e.retry() => Reset::RefusedStream,
        T::WriteError | T::WriteTimedout | T::ConnectionClosed if !head_sent => Reset::BeforeRequest,
        _ => Reset::AfterRequest,
    })
}

/// What a failed attempt says about its endpoint.
pub(super) fn no_answer(e: &Error) -> NoAnswer {
    match Cause::of(e) {
        Some(Cause::UntrustedUpstream) => NoAnswer::Connection,
        Some(Cause::RouteTimeout | Cause::PerTryTimeout) => NoAnswer::Timeout,
        Some(
            Cause::Overflow
            | Cause::NoCluster
            | Cause::NoHealthyUpstream
            | Cause::NameNotResolved
            | Cause::RetriedResponse
            | Cause::Policy,
        ) => NoAnswer::Ours,
        None if is_timeout(e) => NoAnswer::Timeout,
        None => NoAnswer::Connection,
    }
}

/// Whether an upstream was waited for in vain, by a limit that the attempt was given.
pub(super) fn is_timeout(e: &Error) -> bool {
    use ErrorType as T;
    let timeout = matches!(
        e.root_etype(),
        T::ConnectTimedout | T::TLSHandshakeTimedout | T::ReadTimedout | T::WriteTimedout
    );
    timeout && e.esource() == &ErrorSource::Upstream
}

/// Classifies an error; `flaw`: what the client's message was refused for.
pub(super) fn classify(e: &Error, flaw: Option<Flaw>) -> Failure {
    use ErrorType as T;
    if let Some(flaw) = flaw {
        return Failure::new(flaw.status(), flaw.body(), Flag::DownstreamProtocolError, flaw.details());
    }
    let timed_out =
        |details| Failure::new(504, "upstream request timeout", Flag::UpstreamRequestTimeout, details);
    match Cause::of(e) {
        Some(Cause::NoCluster) => {
            return Failure::new(503, "", Flag::NoClusterFound, Cause::NoCluster.name());
        }
        Some(Cause::NoHealthyUpstream) => {
            let details = Cause::NoHealthyUpstream.name();
            return Failure::new(503, "no healthy upstream", Flag::NoHealthyUpstream, details);
        }
        // Envoy: its dynamic forward proxy.
        Some(cause @ Cause::NameNotResolved) => {
            return Failure::new(503, "DNS resolution failure", Flag::DnsResolutionFailed, cause.name());
        }
        Some(cause @ (Cause::RouteTimeout | Cause::PerTryTimeout)) => return timed_out(cause.name()),
        Some(Cause::UntrustedUpstream) => return connection(e, "TLS_error:CERTIFICATE_VERIFY_FAILED"),
        Some(Cause::Overflow) => return Failure::reset(503, Flag::UpstreamOverflow, "overflow"),
        // The policy's own reply goes out; this is what stands for it.
        Some(Cause::Policy) => return Failure::own(503, Cause::Policy.name()),
        Some(Cause::RetriedResponse) | None => {}
    }
    let root = e.root_etype();
    match (e.esource(), root) {
        (ErrorSource::Downstream, T::InvalidHTTPHeader | T::InvalidH2 | T::H1Error | T::H2Error) => {
            Failure::new(400, "Bad Request", Flag::DownstreamProtocolError, "http1.codec_error")
        }
        (ErrorSource::Downstream, T::ReadTimedout) => {
            Failure::new(408, "stream timeout", Flag::StreamIdleTimeout, "stream_idle_timeout")
        }
        (ErrorSource::Downstream, _) => {
            Failure::new(0, "", Flag::DownstreamConnectionTermination, "downstream_remote_disconnect")
        }
        (ErrorSource::Upstream, T::ConnectTimedout) => {
            Failure::reset(503, Flag::UpstreamConnectionFailure, "connection timeout")
        }
        (ErrorSource::Upstream, T::ConnectRefused) => {
            connection(e, "delayed_connect_error:_Connection_refused")
        }
        (ErrorSource::Upstream, T::ConnectNoRoute) => {
            connection(e, "delayed_connect_error:_No_route_to_host")
        }
        (ErrorSource::Upstream, T::InvalidCert) => connection(e, "TLS_error:CERTIFICATE_VERIFY_FAILED"),
        (
            ErrorSource::Upstream,
            T::TLSHandshakeFailure | T::TLSHandshakeTimedout | T::HandshakeError | T::TLSWantX509Lookup,
        ) => connection(e, "TLS_error:handshake_failure"),
        (ErrorSource::Upstream, T::ConnectError | T::BindError | T::SocketError | T::ConnectProxyFailure) => {
            connection(e, "delayed_connect_error")
        }
        (ErrorSource::Upstream, T::ReadTimedout | T::WriteTimedout) => timed_out(Cause::RouteTimeout.name()),
        // The engine's word for a chunk that is none.
        (
            ErrorSource::Upstream,
            T::InvalidHTTPHeader | T::H1Error | T::InvalidH2 | T::H2Downgrade | T::Custom("InvalidChunk"),
        ) => Failure::reset(502, Flag::UpstreamProtocolError, "protocol error"),
        (ErrorSource::Upstream, T::ConnectionClosed | T::ReadError) if broke_off(e) => {
            Failure::reset(502, Flag::UpstreamProtocolError, "protocol error")
        }
        (ErrorSource::Upstream, T::ReadError) if said(e, "stream error received") => {
            Failure::reset(503, Flag::UpstreamRemoteReset, "remote reset")
        }
        (ErrorSource::Upstream, T::ReadError) if said(e, "stream error detected") => {
            Failure::reset(502, Flag::UpstreamProtocolError, "protocol error")
        }
        (ErrorSource::Upstream, T::H2Error) => Failure::reset(503, Flag::UpstreamRemoteReset, "remote reset"),
        (ErrorSource::Upstream, _) => {
            Failure::reset(503, Flag::UpstreamConnectionTermination, "connection termination")
        }
        (ErrorSource::Internal | ErrorSource::Unset, kind) => {
            Failure::own(if let T::HTTPStatus(status) = kind { *status } else { 500 }, "internal_error")
        }
    }
}

/// Who ended a stream of HTTP/2 while its body was read the engine tells in words only, too (h2's `Error`).
fn said(e: &Error, words: &str) -> bool {
    e.to_string().contains(words)
}

/// Whether a head had begun when the connection ended. The engine says so in words only.
fn broke_off(e: &Error) -> bool {
    let said = e.to_string();
    said.split_once("bytes already read: ").is_some_and(|(_, count)| !count.starts_with('0'))
}

fn connection(e: &Error, transport: &str) -> Failure {
    let mut failure = Failure::reset(503, Flag::UpstreamConnectionFailure, "remote connection failure");
    // Envoy: the transport's reason is for the log only (`hide_transport_failure_reason_in_response_body`).
    failure.details =
        format!("upstream_reset_before_response_started{{remote_connection_failure|{transport}}}");
    // What failed in TLS only the library can tell; a connection that was refused has been told.
    let said = e.context.as_ref().filter(|_| transport.starts_with("TLS_error"));
    failure.transport = Some(match said {
        Some(said) => format!("{transport}: {}", said.as_str()),
        None => transport.to_owned(),
    });
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(kind: ErrorType) -> Box<Error> {
        let mut e = Error::new(kind);
        e.as_up();
        e
    }

    #[test]
    fn each_failure_has_envoys_status_and_flag() {
        for (e, status, flag, body) in [
            (Cause::NoCluster.error(), 503, "NC", ""),
            (Cause::NoHealthyUpstream.error(), 503, "UH", "no healthy upstream"),
            (Cause::NameNotResolved.error(), 503, "DF", "DNS resolution failure"),
            (Cause::RouteTimeout.error(), 504, "UT", "upstream request timeout"),
            (
                upstream(ErrorType::ConnectRefused),
                503,
                "UF",
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
            ),
            (
                upstream(ErrorType::ConnectTimedout),
                503,
                "UF",
                "upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
            ),
            (
                upstream(ErrorType::ConnectionClosed),
                503,
                "UC",
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            ),
            (
                upstream(ErrorType::ReadError),
                503,
                "UC",
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            ),
            (
                upstream(ErrorType::H2Error),
                503,
                "UR",
                "upstream connect error or disconnect/reset before headers. reset reason: remote reset",
            ),
            (
                upstream(ErrorType::InvalidHTTPHeader),
                502,
                "UPE",
                "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
            ),
            (upstream(ErrorType::ReadTimedout), 504, "UT", "upstream request timeout"),
            (Cause::PerTryTimeout.error(), 504, "UT", "upstream request timeout"),
        ] {
            let got = classify(&e, None);
            assert_eq!((got.status, &*got.body(1)), (status, body), "{e}");
            assert_eq!(got.flag.map(Flag::as_str), Some(flag), "{e}");
        }
    }

    #[test]
    fn a_client_that_left_gets_no_reply() {
        let mut e = Error::new(ErrorType::WriteError);
        e.as_down();
        let got = classify(&e, None);
        assert!(got.reply(1).is_none());
        assert_eq!(got.flag, Some(Flag::DownstreamConnectionTermination));
        assert_eq!(reset(&e, true), None);
    }

    #[test]
    fn after_several_attempts_the_reason_is_the_latests() {
        let got = classify(&upstream(ErrorType::ConnectRefused), None);
        assert_eq!(
            got.body(3),
            "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure"
        );
        assert_eq!(
            got.details,
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
        assert_eq!(got.transport.as_deref(), Some("delayed_connect_error:_Connection_refused"));
    }

    #[test]
    fn retry_policies_are_told_what_it_was() {
        let mut refused = upstream(ErrorType::H2Error);
        refused.set_retry(true);
        for (e, head_sent, want) in [
            (upstream(ErrorType::ConnectRefused), false, Some(Reset::ConnectFailure)),
            (upstream(ErrorType::TLSHandshakeTimedout), false, Some(Reset::ConnectFailure)),
            (Cause::UntrustedUpstream.error(), false, Some(Reset::ConnectFailure)),
            (refused, true, Some(Reset::RefusedStream)),
            (upstream(ErrorType::H2Error), true, Some(Reset::AfterRequest)),
            (upstream(ErrorType::WriteError), false, Some(Reset::BeforeRequest)),
            (upstream(ErrorType::WriteError), true, Some(Reset::AfterRequest)),
            (upstream(ErrorType::ConnectionClosed), true, Some(Reset::AfterRequest)),
            (Cause::PerTryTimeout.error(), true, Some(Reset::AfterRequest)),
            (Cause::RouteTimeout.error(), true, None),
            (Cause::NoHealthyUpstream.error(), false, None),
            (Error::new(ErrorType::InternalError), true, None),
        ] {
            assert_eq!(reset(&e, head_sent), want, "{e}");
        }
    }
}

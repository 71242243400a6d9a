//! The one map from what went wrong to what the client gets: status, body, response flag (Envoy's).
//!
//! Invariant: no other place turns an error into a status. What an upstream or the operating system said about a
//! failure goes to the log; the client sees Envoy's fixed words only.

use super::reply::LocalReply;
use crate::{listener::Flaw, telemetry::Flag};
use pingora_error::{Error, ErrorSource, ErrorType};

/// A reason of our own not to have a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The destination names a cluster that does not exist.
    NoCluster,
    /// No endpoint may be picked.
    NoHealthyUpstream,
    /// The route's timeout ran out.
    RouteTimeout,
    /// The upstream cannot be verified as its DestinationRule asks.
    UntrustedUpstream,
}

impl Cause {
    const ALL: [Self; 4] =
        [Self::NoCluster, Self::NoHealthyUpstream, Self::RouteTimeout, Self::UntrustedUpstream];

    const fn name(self) -> &'static str {
        match self {
            Self::NoCluster => "cluster_not_found",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::RouteTimeout => "response_timeout",
            Self::UntrustedUpstream => "untrusted_upstream",
        }
    }

    /// As an error for Pingora to carry; never retried.
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
    body: String,
    pub(super) flag: Option<Flag>,
    pub(super) details: String,
    /// What is logged of the transport's own words.
    pub(super) transport: Option<String>,
}

impl Failure {
    fn new(status: u16, body: &str, flag: Flag, details: &str) -> Self {
        Self { status, body: body.into(), flag: Some(flag), details: details.into(), transport: None }
    }

    /// A stream that ended before its response began, in Envoy's words.
    fn reset(status: u16, flag: Flag, reason: &str, details: &str) -> Self {
        let body =
            format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
        let details = format!("upstream_reset_before_response_started{{{details}}}");
        Self { status, body, flag: Some(flag), details, transport: None }
    }

    /// The reply; `None` when there is nobody to answer.
    pub(super) fn reply(&self) -> Option<LocalReply> {
        (self.status > 0).then(|| LocalReply::text(self.status, self.body.clone(), self.details.clone()))
    }
}

/// Classifies an error; `out_of_time`: the route's timeout has run out; `flaw`: what the client's message was refused for.
pub(super) fn classify(e: &Error, out_of_time: bool, flaw: Option<Flaw>) -> Failure {
    use ErrorType as T;
    if let Some(flaw) = flaw {
        return Failure::new(flaw.status(), flaw.body(), Flag::DownstreamProtocolError, flaw.details());
    }
    let timed_out =
        || Failure::new(504, "upstream request timeout", Flag::UpstreamRequestTimeout, "response_timeout");
    match Cause::of(e) {
        Some(Cause::NoCluster) => {
            return Failure::new(503, "", Flag::NoClusterFound, Cause::NoCluster.name());
        }
        Some(Cause::NoHealthyUpstream) => {
            let details = Cause::NoHealthyUpstream.name();
            return Failure::new(503, "no healthy upstream", Flag::NoHealthyUpstream, details);
        }
        Some(Cause::RouteTimeout) => return timed_out(),
        Some(Cause::UntrustedUpstream) => return connection(e, "TLS_error:CERTIFICATE_VERIFY_FAILED"),
        None => {}
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
        (ErrorSource::Upstream, T::ConnectTimedout | T::TLSHandshakeTimedout) if out_of_time => timed_out(),
        (ErrorSource::Upstream, T::ConnectTimedout) => {
            Failure::reset(503, Flag::UpstreamConnectionFailure, "connection timeout", "connection_timeout")
        }
        (ErrorSource::Upstream, T::ConnectRefused) => {
            connection(e, "delayed connect error: Connection refused")
        }
        (ErrorSource::Upstream, T::ConnectNoRoute) => {
            connection(e, "delayed connect error: No route to host")
        }
        (ErrorSource::Upstream, T::InvalidCert) => connection(e, "TLS_error:CERTIFICATE_VERIFY_FAILED"),
        (
            ErrorSource::Upstream,
            T::TLSHandshakeFailure | T::TLSHandshakeTimedout | T::HandshakeError | T::TLSWantX509Lookup,
        ) => connection(e, "TLS_error:handshake failure"),
        (ErrorSource::Upstream, T::ConnectError | T::BindError | T::SocketError | T::ConnectProxyFailure) => {
            connection(e, "delayed connect error")
        }
        (ErrorSource::Upstream, T::ReadTimedout | T::WriteTimedout) => timed_out(),
        (ErrorSource::Upstream, T::InvalidHTTPHeader | T::H1Error | T::InvalidH2 | T::H2Downgrade) => {
            Failure::reset(502, Flag::UpstreamProtocolError, "protocol error", "protocol_error")
        }
        (ErrorSource::Upstream, T::H2Error) => {
            Failure::reset(503, Flag::UpstreamRemoteReset, "remote reset", "remote_reset")
        }
        (ErrorSource::Upstream, _) => Failure::reset(
            503,
            Flag::UpstreamConnectionTermination,
            "connection termination",
            "connection_termination",
        ),
        (ErrorSource::Internal | ErrorSource::Unset, T::HTTPStatus(status)) => Failure {
            status: *status,
            body: String::new(),
            flag: None,
            details: "internal_error".into(),
            transport: None,
        },
        (ErrorSource::Internal | ErrorSource::Unset, _) => Failure {
            status: 500,
            body: String::new(),
            flag: None,
            details: "internal_error".into(),
            transport: None,
        },
    }
}

fn connection(e: &Error, transport: &str) -> Failure {
    let reason = format!("remote connection failure, transport failure reason: {transport}");
    let mut failure =
        Failure::reset(503, Flag::UpstreamConnectionFailure, &reason, "remote_connection_failure");
    let said = e.context.as_ref().map(|c| format!("{transport}: {}", c.as_str()));
    failure.transport = Some(said.unwrap_or_else(|| transport.to_owned()));
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
            (Cause::RouteTimeout.error(), 504, "UT", "upstream request timeout"),
            (
                upstream(ErrorType::ConnectRefused),
                503,
                "UF",
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure reason: delayed connect error: Connection refused",
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
        ] {
            let got = classify(&e, false, None);
            assert_eq!((got.status, &*got.body), (status, body), "{e}");
            assert_eq!(got.flag.map(Flag::as_str), Some(flag), "{e}");
        }
    }

    #[test]
    fn a_client_that_left_gets_no_reply() {
        let mut e = Error::new(ErrorType::WriteError);
        e.as_down();
        let got = classify(&e, false, None);
        assert!(got.reply().is_none());
        assert_eq!(got.flag, Some(Flag::DownstreamConnectionTermination));
    }

    #[test]
    fn a_connect_that_outlives_the_route_is_the_routes_timeout() {
        assert_eq!(classify(&upstream(ErrorType::ConnectTimedout), true, None).status, 504);
    }
}

//! What can be wrong with a request, and what is answered.
//!
//! Invariant: one table of status, body and detail; Envoy's words where it has some.

/// What is wrong with a request's head or with the framing of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A line that ends with LF alone, or holds a bare CR.
    LineEnd,
    /// Not exactly method, target and version with one space between.
    RequestLine,
    /// A method that nobody defines.
    Method,
    /// TRACE, which shows a client's secrets to whoever reads the echo.
    Trace,
    /// CONNECT: this is no forward proxy.
    Connect,
    /// A target in no form that the method may have.
    Target,
    /// A version of HTTP that is not served.
    Version,
    /// A control character where none may be.
    Characters,
    /// A field without a name, or with something else than a token for it; a folded line.
    Field,
    /// A field name with an underscore, where these are refused.
    Underscore,
    /// No `Host`.
    MissingHost,
    /// Several `Host` fields.
    RepeatedHost,
    /// A `Host`, or an authority in the target, that is none.
    Authority,
    /// Several lengths, or one that is no number.
    BadLength,
    /// A length and a coding.
    LengthAndCoding,
    /// The coding is given twice, or is not the last.
    BadCoding,
    /// A coding under `chunked`, which nobody here can undo.
    UnknownCoding,
    /// `Connection` nominates a field that is not between neighbours.
    Nomination,
    /// The head is too long.
    TooLong,
    /// The head has too many fields.
    TooMany,
    /// A body in chunks that are none.
    Chunk,
    /// The head did not come in time.
    HeadTimeout,
    /// The body did not come in time.
    RequestTimeout,
}

impl Flaw {
    /// Status to answer with (Envoy's; 405 for TRACE, as nginx has it).
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::UnknownCoding => 501,
            Self::Version => 426,
            Self::TooLong | Self::TooMany => 431,
            Self::HeadTimeout | Self::RequestTimeout => 408,
            Self::Connect => 404,
            Self::Trace => 405,
            Self::LineEnd
            | Self::RequestLine
            | Self::Method
            | Self::Target
            | Self::Characters
            | Self::Field
            | Self::Underscore
            | Self::MissingHost
            | Self::RepeatedHost
            | Self::Authority
            | Self::BadLength
            | Self::LengthAndCoding
            | Self::BadCoding
            | Self::Nomination
            | Self::Chunk => 400,
        }
    }

    /// Body of the answer (Envoy's).
    pub(crate) fn body(self) -> &'static str {
        match self {
            Self::MissingHost | Self::Nomination | Self::Connect | Self::Trace => "",
            Self::HeadTimeout => "request header timeout",
            Self::RequestTimeout => "request timeout",
            _ => match self.status() {
                431 => "Request Header Fields Too Large",
                426 => "Upgrade Required",
                501 => "Not Implemented",
                _ => "Bad Request",
            },
        }
    }

    /// Detail for the log: Envoy's word where it has one.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Self::LineEnd => "http1.invalid_line_end",
            Self::RequestLine | Self::Method | Self::Field | Self::Chunk => "http1.codec_error",
            Self::Target => "http1.invalid_url",
            Self::Trace => "trace_rejected",
            Self::Connect => "route_not_found",
            Self::Version => "low_version",
            Self::Characters => "http1.invalid_characters",
            Self::Underscore => "http1.unexpected_underscore",
            Self::MissingHost | Self::Nomination => "missing_host_header",
            Self::RepeatedHost | Self::Authority => "http.invalid_authority",
            Self::BadLength => "http1.invalid_content_length",
            Self::LengthAndCoding => "http1.content_length_and_chunked_not_allowed",
            Self::BadCoding | Self::UnknownCoding => "http1.invalid_transfer_encoding",
            Self::TooLong => "http1.headers_too_large",
            Self::TooMany => "http1.too_many_headers",
            Self::HeadTimeout => "request_header_timeout",
            Self::RequestTimeout => "request_overall_timeout",
        }
    }

    /// Whether Envoy flags it `DPE`: what its codec refuses, not what a filter answers.
    pub(crate) fn is_codecs(self) -> bool {
        !matches!(
            self,
            Self::MissingHost
                | Self::Nomination
                | Self::Connect
                | Self::Trace
                | Self::HeadTimeout
                | Self::RequestTimeout
        )
    }
}

//! The protocol names of the API, and what family each belongs to.

use std::fmt;

/// A protocol by its API name; names are read without regard to case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each arm is the API's own protocol name")]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    HttpProxy,
    Https,
    Tls,
    Tcp,
    Mongo,
    Redis,
    Mysql,
    Udp,
}

impl Protocol {
    /// All protocols, for messages and tables.
    pub const ALL: [Protocol; 12] = [
        Protocol::Http,
        Protocol::Http2,
        Protocol::Grpc,
        Protocol::GrpcWeb,
        Protocol::HttpProxy,
        Protocol::Https,
        Protocol::Tls,
        Protocol::Tcp,
        Protocol::Mongo,
        Protocol::Redis,
        Protocol::Mysql,
        Protocol::Udp,
    ];

    /// The API's name, upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http => "HTTP",
            Protocol::Http2 => "HTTP2",
            Protocol::Grpc => "GRPC",
            Protocol::GrpcWeb => "GRPC-WEB",
            Protocol::HttpProxy => "HTTP_PROXY",
            Protocol::Https => "HTTPS",
            Protocol::Tls => "TLS",
            Protocol::Tcp => "TCP",
            Protocol::Mongo => "MONGO",
            Protocol::Redis => "REDIS",
            Protocol::Mysql => "MYSQL",
            Protocol::Udp => "UDP",
        }
    }

    /// The protocol of that name, without regard to case; `None` for a name that Istio does not know.
    pub fn parse(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(name))
    }

    /// Plaintext HTTP in any form: HTTP, HTTP2, GRPC, GRPC-WEB, HTTP_PROXY.
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb | Protocol::HttpProxy
        )
    }

    /// HTTPS or TLS: the server needs a `tls` block.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Tls)
    }

    /// Opaque TCP: TCP, MONGO, REDIS, MYSQL.
    pub fn is_tcp(self) -> bool {
        matches!(self, Protocol::Tcp | Protocol::Mongo | Protocol::Redis | Protocol::Mysql)
    }

    /// Whether the upstream side speaks HTTP/2 by the protocol's name alone.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::parse(&protocol.as_str().to_lowercase()), Some(protocol));
            assert!(
                u8::from(protocol.is_http()) + u8::from(protocol.is_tls()) + u8::from(protocol.is_tcp()) <= 1
            );
        }
        assert_eq!(Protocol::parse("HTTP3"), None);
    }
}

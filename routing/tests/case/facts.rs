//! What the operators of header values stand for in cases: one exchange of which everything is known.

use super::answer::Sent;
use routing::action::headers::format::{Fact, Facts, Field};

/// The exchange; its facts are constants.
pub(crate) struct Known<'a> {
    pub method: &'a str,
    pub scheme: &'a str,
    pub sent: &'a Sent,
    /// Whether the upstream has answered.
    pub answered: bool,
}

impl Facts for Known<'_> {
    fn request(&self, field: &Field) -> Option<&[u8]> {
        Some(match field {
            Field::Method => self.method.as_bytes(),
            Field::Scheme => self.scheme.as_bytes(),
            Field::Authority => self.sent.authority.as_bytes(),
            Field::Path => self.sent.path.as_bytes(),
            Field::Header(name) => self.sent.headers.get(name)?.as_bytes(),
        })
    }

    fn fact(&self, fact: &Fact, out: &mut Vec<u8>) {
        let text = match fact {
            Fact::StartTime(None) => "2026-01-02T03:04:05.678Z",
            Fact::StartTime(Some(pattern)) => pattern,
            Fact::Protocol => "HTTP/1.1",
            Fact::DownstreamRemoteAddress => "10.1.2.3:4567",
            Fact::DownstreamRemoteAddressWithoutPort => "10.1.2.3",
            Fact::UpstreamCluster => "outbound|80||a.default.svc.cluster.local",
            Fact::ResponseCode if self.answered => "200",
            Fact::ResponseCode => "0",
            Fact::UpstreamHost if self.answered => "10.0.0.1:80",
            _ => "",
        };
        out.extend_from_slice(text.as_bytes());
    }
}

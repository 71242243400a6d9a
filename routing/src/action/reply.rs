//! `directResponse`: a fixed reply.
//!
//! Invariant: the body is held once and shared by every request that gets it.

use std::sync::Arc;

/// A fixed reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectReply {
    /// Status, 200 to 599.
    pub status: u16,
    /// Body; may be empty.
    pub body: Arc<[u8]>,
}

impl DirectReply {
    /// The content type to send unless a response header operation gave one; `None` without a body (Envoy:
    /// `sendLocalReply` labels a body only).
    #[must_use]
    pub fn content_type(&self) -> Option<&'static str> {
        (!self.body.is_empty()).then_some("text/plain")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_body_has_a_type() {
        let reply = |body: &[u8]| DirectReply { status: 200, body: body.into() };
        assert_eq!(reply(b"hi").content_type(), Some("text/plain"));
        assert_eq!(reply(b"").content_type(), None);
    }
}

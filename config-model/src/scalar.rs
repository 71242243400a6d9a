//! The small values that fields hold, as types that cannot hold nonsense.
//!
//! Invariant: every type here has private fields and is made only by a checked constructor; its `Deserialize` goes
//! through that constructor, so a wrong value is an error at the path of its field. Nothing here knows a kind.

mod duration;
mod header_name;
mod host;
pub mod labels;
pub mod lenient;
pub mod list;
mod percent;
mod port;
mod protocol;
mod secret;
mod string_match;
mod timestamp;

use std::fmt;

pub use duration::Duration;
pub use header_name::HeaderName;
pub use host::{HostPattern, Hostname, ServerHost};
pub use percent::{Percent, Weight};
pub use port::PortNumber;
pub use protocol::Protocol;
pub use secret::SecretBytes;
pub use string_match::StringMatch;
pub use timestamp::Timestamp;

/// Why a text or number is not a value of a scalar type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidScalar {
    what: &'static str,
    got: String,
    wants: &'static str,
}

impl InvalidScalar {
    /// `got` is cut to 80 characters: a message must not repeat a megabyte of input.
    pub(crate) fn new(what: &'static str, got: impl fmt::Display, wants: &'static str) -> InvalidScalar {
        let mut got = got.to_string();
        if let Some((cut, _)) = got.char_indices().nth(80) {
            got.truncate(cut);
            got.push('…');
        }
        InvalidScalar { what, got, wants }
    }
}

impl fmt::Display for InvalidScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a valid {}: {}", self.got, self.what, self.wants)
    }
}

impl std::error::Error for InvalidScalar {}

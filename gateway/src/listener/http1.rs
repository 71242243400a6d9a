//! One strict reading of HTTP/1 message framing, on the bytes as they come and before the engine parses them.
//!
//! Invariant: what the engine gets is made of whole heads that every reader reads alike, and of bodies whose ends are
//! where this reading found them (RFC 9112 §§2.2, 3, 6.3, 7.1). Where the engine would be lenient, or would answer by
//! itself, the request ends here as a [`Flaw`], and the proxy answers it like any other: one shape, a line in the
//! access log, a count in the metrics. It must not change a byte of a good origin-form request.

mod authority;
mod chunked;
mod flaw;
mod head;
mod policy;
mod reader;

pub(crate) use authority::is_authority;
pub(crate) use chunked::Chunked;
pub(crate) use flaw::Flaw;
pub use policy::{HeadPolicy, Leniency, Underscores};
pub(crate) use reader::{Reader, Stop};

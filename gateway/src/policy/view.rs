//! What policies see of an exchange, hook by hook.
//!
//! Invariant: a view changes nothing that framing, routing or the edge rests on: length, transfer coding and hop-by-hop
//! headers are not a policy's, and the authority changes only in the one way that keeps `Host` equal to it.

mod end;
mod head;
mod response;
mod route;

pub use end::{CompleteView, Outcome};
pub use head::{Protected, RequestHead, RequestView};
pub use response::{Origin, ResponseView};
pub use route::{RouteInfo, RouteView, UpstreamView};

pub(super) use head::Shared;
pub(crate) use head::{Arrival, Exchange, is_protected};

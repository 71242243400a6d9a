//! Bodies, for the policies that ask for them.
//!
//! Invariant: who does not ask pays nothing. A body that is only looked at keeps its length, and every byte of it; one that may
//! change loses its `Content-Length`. What is beyond a limit goes to nobody.

use super::{Failure, Policy, Reply, ResponseView, UpstreamView};
use bytes::Bytes;
use std::fmt;

/// A policy that wants to see bodies: put into a chain by [`Chain::then_with_bodies`](super::Chain::then_with_bodies).
///
/// Bodies pass as they come, piece by piece, the requests' through the chain and the responses' back. Bodies are not offered where
/// there is none, of upgraded connections, and of responses to gRPC clients.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use gateway::policy::{
///     BodyAccess, BodyFilter, BodyPolicy, Failure, Flow, Policy, Reply, UpstreamView,
/// };
/// use http::StatusCode;
///
/// /// Refuses requests whose body speaks of dragons. Looks at single pieces only; see [`Whole`](super::Whole).
/// struct NoDragons;
///
/// impl Policy for NoDragons {
///     type State = ();
/// }
///
/// impl BodyPolicy for NoDragons {
///     fn request_body(&self, _: &mut (), _: &UpstreamView<'_>) -> BodyAccess {
///         BodyAccess::inspect(Search)
///     }
/// }
///
/// struct Search;
///
/// impl BodyFilter for Search {
///     fn piece(&mut self, piece: Bytes, _last: bool) -> Result<Flow, Failure> {
///         if piece.windows(6).any(|six| six == b"dragon") {
///             return Ok(Flow::Respond(Reply::text(StatusCode::FORBIDDEN, "here be dragons")));
///         }
///         Ok(Flow::Pass(piece))
///     }
/// }
/// ```
pub trait BodyPolicy: Policy {
    /// An attempt is about to be sent, whose request has a body. Asked again for each retry, for which the body begins anew.
    fn request_body(&self, state: &mut Self::State, attempt: &UpstreamView<'_>) -> BodyAccess {
        let _ = (state, attempt);
        BodyAccess::none()
    }

    /// A response is about to be sent that may have a body; `on_response` was called just before.
    fn response_body(&self, state: &mut Self::State, response: &ResponseView<'_>) -> BodyAccess {
        let _ = (state, response);
        BodyAccess::none()
    }
}

/// Sees one body of one request.
pub trait BodyFilter: Send + Sync + 'static {
    /// The next piece of the body; `last`: nothing follows, and the piece may be empty.
    ///
    /// # Errors
    /// Whatever keeps the filter from judging; the client gets 503, or, where the response has begun, its end.
    fn piece(&mut self, piece: Bytes, last: bool) -> Result<Flow, Failure>;
}

/// What becomes of a piece of a body.
#[derive(Debug)]
#[must_use]
pub enum Flow {
    /// These bytes go on: the piece, what stands for it, or all that was held back.
    Pass(Bytes),
    /// Nothing goes on for now: the filter keeps it. Not an answer to the last piece.
    Hold,
    /// The exchange ends with this reply. Where the response has begun it breaks off instead.
    Respond(Reply),
}

/// How a policy wants a body.
#[must_use]
pub struct BodyAccess {
    pub(super) filter: Option<Box<dyn BodyFilter>>,
    pub(super) limit: Option<u64>,
    pub(super) changes: bool,
}

impl BodyAccess {
    /// Not at all.
    pub fn none() -> BodyAccess {
        BodyAccess { filter: None, limit: None, changes: false }
    }

    /// To look at it: what the filter passes on is what it got, sooner or later.
    pub fn inspect(filter: impl BodyFilter) -> BodyAccess {
        BodyAccess { filter: Some(Box::new(filter)), limit: None, changes: false }
    }

    /// To change it: its length is not known before its end.
    pub fn transform(filter: impl BodyFilter) -> BodyAccess {
        BodyAccess { filter: Some(Box::new(filter)), limit: None, changes: true }
    }

    /// And only if it has no more than this many bytes. A longer request is answered 413, before anything is sent where its length
    /// is said; a longer response 500, or breaks off where it has begun.
    pub fn up_to(self, bytes: u64) -> BodyAccess {
        BodyAccess { limit: Some(bytes), ..self }
    }

    pub(super) fn is_none(&self) -> bool {
        self.filter.is_none() && self.limit.is_none()
    }
}

impl fmt::Debug for BodyAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyAccess")
            .field("filter", &self.filter.is_some())
            .field("limit", &self.limit)
            .field("changes", &self.changes)
            .finish()
    }
}

/// A filter that holds a body back until it is there as a whole. Give it a limit: [`BodyAccess::up_to`].
///
/// # Examples
/// ```
/// use gateway::policy::{BodyAccess, Flow, Reply, Whole};
/// use http::StatusCode;
///
/// let access = BodyAccess::inspect(Whole::new(|body| {
///     Ok(match std::str::from_utf8(&body) {
///         Ok(_) => Flow::Pass(body),
///         Err(_) => Flow::Respond(Reply::text(StatusCode::BAD_REQUEST, "not a text")),
///     })
/// }))
/// .up_to(64 * 1024);
/// # let _ = access;
/// ```
pub struct Whole<J> {
    held: Vec<u8>,
    judge: J,
}

impl<J> Whole<J>
where
    J: FnMut(Bytes) -> Result<Flow, Failure> + Send + Sync + 'static,
{
    /// A filter that asks `judge` once, with the whole body.
    #[must_use]
    pub fn new(judge: J) -> Whole<J> {
        Whole { held: Vec::new(), judge }
    }
}

impl<J> BodyFilter for Whole<J>
where
    J: FnMut(Bytes) -> Result<Flow, Failure> + Send + Sync + 'static,
{
    fn piece(&mut self, piece: Bytes, last: bool) -> Result<Flow, Failure> {
        if !last {
            self.held.extend_from_slice(&piece);
            return Ok(Flow::Hold);
        }
        let mut held = std::mem::take(&mut self.held);
        let body = if held.is_empty() {
            piece
        } else {
            held.extend_from_slice(&piece);
            Bytes::from(held)
        };
        (self.judge)(body)
    }
}

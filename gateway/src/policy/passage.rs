//! A body on its way through the filters that were asked for.
//!
//! Invariant: a filter gets all bytes, in order, and the last piece once. One that was to look only has passed on as many bytes
//! as it got, or the exchange ends.

use super::{BodyAccess, Failure, Flow, Reply, chain::guarded};
use bytes::Bytes;
use http::StatusCode;

/// Which body it is, for what is said about one that is too long (Envoy: the buffer filter's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Request,
    Response,
}

impl Body {
    pub(super) fn too_long(self) -> Reply {
        match self {
            Body::Request => Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large")
                .details("request_payload_too_large"),
            Body::Response => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
                .details("response_payload_too_large"),
        }
    }
}

/// What ends an exchange.
#[derive(Debug)]
pub(super) enum Ended {
    /// The reply of a policy.
    Answered(Box<Reply>),
    /// The filter of the policy of this name failed.
    Broken(Box<str>, Failure),
}

/// The filters of one body, in the order in which it passes them.
#[derive(Default)]
pub(crate) struct Passage(Vec<Step>);

struct Step {
    /// Name of the policy.
    name: Box<str>,
    access: BodyAccess,
    received: u64,
    passed: u64,
}

impl Passage {
    /// Adds what a policy asks for.
    pub(super) fn add(&mut self, name: &str, access: BodyAccess) {
        if !access.is_none() {
            self.0.push(Step { name: name.into(), access, received: 0, passed: 0 });
        }
    }

    /// Whether nobody asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the body may change its length.
    pub(crate) fn changes(&self) -> bool {
        self.0.iter().any(|step| step.access.changes)
    }

    /// The shortest of the limits.
    pub(super) fn limit(&self) -> Option<u64> {
        self.0.iter().filter_map(|step| step.access.limit).min()
    }

    /// Takes the next piece, and gives what goes on.
    ///
    /// # Errors
    /// What ends the exchange.
    pub(super) fn piece(&mut self, body: Body, piece: Bytes, last: bool) -> Result<Bytes, Ended> {
        let mut piece = piece;
        for step in &mut self.0 {
            if piece.is_empty() && !last {
                break;
            }
            step.received += piece.len() as u64;
            if step.access.limit.is_some_and(|limit| step.received > limit) {
                return Err(Ended::Answered(Box::new(body.too_long())));
            }
            piece = match step.pass(piece, last) {
                Ok(Flow::Pass(bytes)) => bytes,
                Ok(Flow::Hold) => Bytes::new(),
                Ok(Flow::Respond(reply)) => return Err(Ended::Answered(Box::new(reply))),
                Err(failure) => return Err(Ended::Broken(step.name.clone(), failure)),
            };
            step.passed += piece.len() as u64;
        }
        Ok(piece)
    }
}

impl Step {
    fn pass(&mut self, piece: Bytes, last: bool) -> Result<Flow, Failure> {
        let Some(filter) = &mut self.access.filter else { return Ok(Flow::Pass(piece)) };
        let flow = guarded(|| filter.piece(piece, last))??;
        match &flow {
            Flow::Hold if last => Err(Failure::new("the last piece of a body cannot be held back")),
            Flow::Pass(bytes)
                if last && !self.access.changes && self.passed + bytes.len() as u64 != self.received =>
            {
                Err(Failure::new("a body that was to be looked at has another length now"))
            }
            Flow::Pass(_) | Flow::Hold | Flow::Respond(_) => Ok(flow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BodyFilter, Whole};
    use super::*;

    /// Doubles every byte, or swallows one of the last.
    struct Doubles;
    impl BodyFilter for Doubles {
        fn piece(&mut self, piece: Bytes, _: bool) -> Result<Flow, Failure> {
            Ok(Flow::Pass(piece.iter().flat_map(|byte| [*byte; 2]).collect()))
        }
    }

    fn passage(steps: Vec<BodyAccess>) -> Passage {
        let mut passage = Passage::default();
        for step in steps {
            passage.add("p", step);
        }
        passage
    }

    fn whole() -> BodyAccess {
        BodyAccess::inspect(Whole::new(|body| Ok(Flow::Pass(body))))
    }

    fn all(passage: &mut Passage, pieces: &[&'static str]) -> Result<Vec<Bytes>, (u16, String)> {
        let last = pieces.len() - 1;
        let each = pieces.iter().enumerate().map(|(at, piece)| {
            let piece = passage.piece(Body::Request, Bytes::from_static(piece.as_bytes()), at == last);
            piece.map_err(|ended| match ended {
                Ended::Answered(reply) => (reply.status.as_u16(), reply.details.into_owned()),
                Ended::Broken(name, _) => (503, format!("policy_failed{{{name}}}")),
            })
        });
        each.collect()
    }

    #[test]
    fn what_is_held_goes_on_at_the_end() {
        let mut one = passage(vec![whole(), BodyAccess::transform(Doubles)]);
        assert!(one.changes());
        assert_eq!(all(&mut one, &["ab", "c", ""]), Ok(vec!["".into(), "".into(), "aabbcc".into()]));
        let mut other = passage(vec![BodyAccess::transform(Doubles), whole()]);
        assert_eq!(all(&mut other, &["ab", "c"]), Ok(vec!["".into(), "aabbcc".into()]));
        let mut short = passage(vec![whole()]);
        assert!(!short.changes());
        assert_eq!(all(&mut short, &["abc"]), Ok(vec!["abc".into()]));
    }

    #[test]
    fn a_body_beyond_a_limit_is_refused_at_its_first_byte_too_many() {
        let limited = |limit| passage(vec![BodyAccess::none().up_to(limit)]);
        assert_eq!(all(&mut limited(3), &["ab", "c"]), Ok(vec!["ab".into(), "c".into()]));
        let refused = Err((413, "request_payload_too_large".to_owned()));
        assert_eq!(all(&mut limited(2), &["ab", "c"]), refused);
        assert_eq!(passage(vec![whole().up_to(9), whole().up_to(4)]).limit(), Some(4));
        assert!(passage(vec![BodyAccess::none()]).is_empty());
    }

    #[test]
    fn who_was_to_look_only_may_not_change_the_length() {
        let mut grown = passage(vec![BodyAccess::inspect(Doubles)]);
        assert_eq!(all(&mut grown, &["a"]), Err((503, "policy_failed{p}".to_owned())));
        let mut kept = passage(vec![BodyAccess::inspect(Whole::new(|_| Ok(Flow::Hold)))]);
        assert_eq!(all(&mut kept, &["a"]), Err((503, "policy_failed{p}".to_owned())));
    }
}

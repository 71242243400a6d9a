//! A compiled route: what it matches, where it stands, what it does.
//!
//! Invariant: order is the vector's order in its virtual host; nothing in a route decides precedence.

use crate::action::{headers::HeaderPlan, redirect::Redirect, reply::DirectReply, rewrite::PathRewrite};
use crate::cluster::ClusterName;
use std::{sync::Arc, time::Duration};

/// Which rule of which resource a route came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOrigin {
    /// `namespace/name` of the VirtualService.
    pub virtual_service: Arc<str>,
    /// Name of the rule (and of the match, joined by `.`), where given.
    pub name: Option<Arc<str>>,
    /// Index in `spec.http`.
    pub index: u32,
    /// Index in that rule's `match`; 0 where the rule has none.
    pub match_index: u32,
}

/// What a rule does with a request it matched.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send it to a destination.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with a fixed reply.
    Reply(DirectReply),
}

/// One destination of a forwarding rule.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Cluster to send to; one that does not exist is answered 503 NC when it is chosen.
    pub cluster: ClusterName,
    /// Share, relative to the sum of all; entries of weight 0 are not compiled.
    pub weight: u32,
    /// Header operations and authority of this destination (and the rule's, in Istio's order).
    pub headers: HeaderPlan,
}

/// How a rule forwards.
#[derive(Clone, Debug)]
pub struct Forward {
    /// At least one, unless all weights were 0: then 503 NC.
    pub destinations: Box<[Destination]>,
    /// Sum of the weights.
    pub total_weight: u32,
    /// Path rewrite.
    pub rewrite: Option<PathRewrite>,
    /// Authority sent upstream instead of the client's (`rewrite.authority`; beats the header operations').
    pub authority: Option<Arc<str>>,
    /// Limit from the end of the request to the end of the response; `None`: no limit (Istio's default).
    pub timeout: Option<Duration>,
}

impl Forward {
    /// The destination for a value that is uniform over all of `u64`; `None` when there is none.
    #[must_use]
    pub fn pick(&self, entropy: u64) -> Option<&Destination> {
        if let [only] = &*self.destinations {
            return Some(only);
        }
        // Multiply-shift maps the whole range evenly on 0..total without a division.
        let mut ticket = ((u128::from(entropy) * u128::from(self.total_weight)) >> 64) as u64;
        self.destinations.iter().find(|d| {
            let w = u64::from(d.weight);
            let hit = ticket < w;
            ticket = ticket.saturating_sub(w);
            hit
        })
    }
}

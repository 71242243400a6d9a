//! One request's way through a chain.
//!
//! Invariant: a response passes exactly the policies whose `on_request` let the request in, each once, in the opposite order,
//! however it came about. A policy that fails is answered for with 503.

use super::{
    Answer, Chain, CompleteView, Hooks, Reply, RequestView, ResponseView, RouteView, UpstreamView, Verdict,
    chain::{Link, State},
    view::Shared,
};
use routing::listener::FilterChain;
use smallvec::SmallVec;
use std::sync::Arc;

/// The policies of one request, and what they share about it.
pub(crate) struct Run {
    pub(crate) way: Way,
    pub(crate) shared: Shared,
}

/// How far a request has come, and what each policy keeps about it.
pub(crate) struct Way {
    chain: Chain,
    states: SmallVec<[State; 4]>,
    /// Policies that let the request in.
    entered: usize,
    /// Policies that the response has still to pass.
    outward: usize,
}

impl Run {
    /// A request that has passed none yet, on this server.
    pub(crate) fn new(chain: &Chain, server: Arc<FilterChain>) -> Run {
        let states = chain.links().iter().map(|link| link.state()).collect();
        let way = Way { chain: chain.clone(), states, entered: 0, outward: 0 };
        Run { way, shared: Shared::new(server) }
    }
}

impl Way {
    pub(crate) async fn on_request(&mut self, view: &mut RequestView<'_>) -> Verdict {
        for (link, state) in self.chain.links().iter().zip(&mut self.states) {
            if link.hooks().has(Hooks::REQUEST)
                && let Verdict::Respond(reply) = settled(&**link, link.on_request(state, view).await)
            {
                return Verdict::Respond(reply);
            }
            self.entered += 1;
            self.outward += 1;
        }
        Verdict::Continue
    }

    pub(crate) async fn on_route(&mut self, view: &mut RouteView<'_>) -> Verdict {
        for (link, state) in self.chain.links().iter().zip(&mut self.states) {
            if link.hooks().has(Hooks::ROUTE)
                && let Verdict::Respond(reply) = settled(&**link, link.on_route(state, view).await)
            {
                return Verdict::Respond(reply);
            }
        }
        Verdict::Continue
    }

    pub(crate) fn on_upstream(&mut self, view: &mut UpstreamView<'_>) -> Verdict {
        for (link, state) in self.chain.links().iter().zip(&mut self.states) {
            if link.hooks().has(Hooks::UPSTREAM)
                && let Verdict::Respond(reply) = settled(&**link, link.on_upstream(state, view))
            {
                return Verdict::Respond(reply);
            }
        }
        Verdict::Continue
    }

    /// A reply that is given here is for the policies that are left.
    pub(crate) fn on_response(&mut self, view: &mut ResponseView<'_>) -> Verdict {
        while let Some(at) = self.outward.checked_sub(1) {
            self.outward = at;
            if let (Some(link), Some(state)) = (self.chain.links().get(at), self.states.get_mut(at))
                && link.hooks().has(Hooks::RESPONSE)
                && let Verdict::Respond(reply) = settled(&**link, link.on_response(state, view))
            {
                return Verdict::Respond(reply);
            }
        }
        Verdict::Continue
    }

    pub(crate) fn on_complete(&mut self, view: &CompleteView<'_>) {
        let entered = self.chain.links().iter().zip(&mut self.states).take(self.entered);
        for (link, state) in entered.rev() {
            if link.hooks().has(Hooks::COMPLETE) {
                link.on_complete(state, view);
            }
        }
    }

    /// Whether any policy has this hook.
    pub(crate) fn has(&self, hook: Hooks) -> bool {
        self.chain.has(hook)
    }
}

/// An answer, or what is answered in its place.
fn settled(link: &dyn Link, answer: Answer) -> Verdict {
    answer.unwrap_or_else(|failure| {
        tracing::warn!(policy = link.name(), %failure, "a policy could not judge: the request is refused");
        Verdict::Respond(Reply::broken(link.name()))
    })
}

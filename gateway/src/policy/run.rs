//! One request's way through a chain.
//!
//! Invariant: a response passes exactly the policies whose `on_request` let the request in, each once, in the opposite order,
//! however it came about. A policy that fails is answered for with 503.

use super::{
    Answer, Body, Chain, CompleteView, Hooks, Reply, RequestView, ResponseView, RouteView, UpstreamView,
    Verdict,
    chain::{Link, State},
    passage::{Ended, Passage},
    view::Shared,
};
use bytes::Bytes;
use http::header;
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
    /// Filters that the body of the attempt under way passes, and those of the response's.
    pub(crate) request: Passage,
    pub(crate) response: Passage,
}

impl Run {
    /// A request that has passed none yet, on this server.
    pub(crate) fn new(chain: &Chain, server: Arc<FilterChain>) -> Run {
        let states = chain.links().iter().map(|link| link.state()).collect();
        let (request, response) = (Passage::default(), Passage::default());
        let way = Way { chain: chain.clone(), states, entered: 0, outward: 0, request, response };
        Run { way, shared: Shared::new(server) }
    }

    /// A request that none of them had anything to say about before it was routed.
    pub(crate) fn routed(chain: &Chain, server: Arc<FilterChain>) -> Run {
        let mut run = Run::new(chain, server);
        run.way.entered = chain.links().len();
        run.way.outward = run.way.entered;
        run
    }
}

impl Way {
    pub(crate) async fn on_request(&mut self, view: &mut RequestView<'_>) -> Verdict {
        for (link, state) in self.chain.links().iter().zip(&mut self.states) {
            if link.hooks().has(Hooks::REQUEST)
                && let Verdict::Respond(reply) =
                    settled(&self.chain, &**link, link.on_request(state, view).await)
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
                && let Verdict::Respond(reply) =
                    settled(&self.chain, &**link, link.on_route(state, view).await)
            {
                return Verdict::Respond(reply);
            }
        }
        Verdict::Continue
    }

    pub(crate) fn on_upstream(&mut self, view: &mut UpstreamView<'_>) -> Verdict {
        self.request = Passage::default();
        for (link, state) in self.chain.links().iter().zip(&mut self.states) {
            if link.hooks().has(Hooks::UPSTREAM)
                && let Verdict::Respond(reply) = settled(&self.chain, &**link, link.on_upstream(state, view))
            {
                return Verdict::Respond(reply);
            }
            if view.has_body && link.hooks().has(Hooks::BODIES) {
                match link.request_body(state, view) {
                    Ok(access) => self.request.add(link.name(), access),
                    Err(failure) => return Verdict::Respond(self.chain.broken(link.name(), &failure)),
                }
            }
        }
        let said = view.headers().get(header::CONTENT_LENGTH);
        let said: Option<u64> = said.and_then(|length| length.to_str().ok()?.parse().ok());
        match self.request.limit() {
            Some(limit) if said.is_some_and(|said| said > limit) => {
                Verdict::Respond(Body::Request.too_long())
            }
            _ => Verdict::Continue,
        }
    }

    /// A reply that is given here is for the policies that are left.
    pub(crate) fn on_response(&mut self, view: &mut ResponseView<'_>) -> Verdict {
        while let Some(at) = self.outward.checked_sub(1) {
            self.outward = at;
            let (Some(link), Some(state)) = (self.chain.links().get(at), self.states.get_mut(at)) else {
                continue;
            };
            if link.hooks().has(Hooks::RESPONSE)
                && let Verdict::Respond(reply) = settled(&self.chain, &**link, link.on_response(state, view))
            {
                self.response = Passage::default();
                return Verdict::Respond(reply);
            }
            if view.has_body && link.hooks().has(Hooks::BODIES) {
                match link.response_body(state, view) {
                    Ok(access) => self.response.add(link.name(), access),
                    Err(failure) => {
                        self.response = Passage::default();
                        return Verdict::Respond(self.chain.broken(link.name(), &failure));
                    }
                }
            }
        }
        Verdict::Continue
    }

    /// The next piece of a body, and what goes on of it.
    ///
    /// # Errors
    /// The reply that ends the exchange.
    pub(crate) fn piece(&mut self, body: Body, piece: Bytes, last: bool) -> Result<Bytes, Box<Reply>> {
        let passage = match body {
            Body::Request => &mut self.request,
            Body::Response => &mut self.response,
        };
        let passed = passage.piece(body, piece, last).map_err(|ended| match ended {
            Ended::Answered(reply) => reply,
            Ended::Broken(name, failure) => Box::new(self.chain.broken(&name, &failure)),
        });
        if passed.is_err() {
            // The reply is none of what was to be filtered.
            self.response = Passage::default();
        }
        passed
    }

    pub(crate) fn on_complete(&mut self, view: &CompleteView<'_>) {
        let entered = self.chain.links().iter().zip(&mut self.states).take(self.entered);
        for (link, state) in entered.rev() {
            if link.hooks().has(Hooks::COMPLETE)
                && let Err(failure) = link.on_complete(state, view)
            {
                // It is over: there is nobody to answer.
                drop(self.chain.broken(link.name(), &failure));
            }
        }
    }

    /// Whether any policy has something to do at this hook, be it about a body.
    pub(crate) fn has(&self, hook: Hooks) -> bool {
        let hooks = match hook {
            Hooks::UPSTREAM | Hooks::RESPONSE => hook.and(Hooks::BODIES),
            _ => hook,
        };
        self.chain.has_any(hooks)
    }
}

/// An answer, or what is answered in its place.
fn settled(chain: &Chain, link: &dyn Link, answer: Answer) -> Verdict {
    answer.unwrap_or_else(|failure| Verdict::Respond(chain.broken(link.name(), &failure)))
}

//! Policies in order, whatever their types.
//!
//! Invariant: an empty chain is a null pointer; asking whether it is empty is all that it costs.

use super::{
    Answer, BodyAccess, BodyPolicy, CompleteView, Failure, Hooks, Policy, RequestView, ResponseView,
    RouteView, UpstreamView,
};
use std::{any::Any, fmt, future::Future, pin::Pin, sync::Arc};

/// What one policy keeps about one request.
pub(super) type State = Box<dyn Any + Send + Sync>;

/// An answer that may take its time.
pub(super) type Pending<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// A policy of any type.
pub(super) trait Link: Send + Sync {
    fn name(&self) -> &str;
    fn hooks(&self) -> Hooks;
    fn state(&self) -> State;
    fn on_request<'a>(&'a self, state: &'a mut State, request: &'a mut RequestView<'_>) -> Pending<'a>;
    fn on_route<'a>(&'a self, state: &'a mut State, request: &'a mut RouteView<'_>) -> Pending<'a>;
    fn on_upstream(&self, state: &mut State, attempt: &mut UpstreamView<'_>) -> Answer;
    fn on_response(&self, state: &mut State, response: &mut ResponseView<'_>) -> Answer;
    fn on_complete(&self, state: &mut State, exchange: &CompleteView<'_>);
    fn request_body(&self, state: &mut State, attempt: &UpstreamView<'_>) -> Result<BodyAccess, Failure>;
    fn response_body(&self, state: &mut State, response: &ResponseView<'_>) -> Result<BodyAccess, Failure>;
}

/// What a policy does about bodies.
struct Bodies<P: Policy> {
    request: fn(&P, &mut P::State, &UpstreamView<'_>) -> BodyAccess,
    response: fn(&P, &mut P::State, &ResponseView<'_>) -> BodyAccess,
}

/// A policy of one type, which may see bodies.
struct Linked<P: Policy> {
    policy: P,
    bodies: Option<Bodies<P>>,
}

/// Every state is made by the policy that gets it back.
fn own<P: Policy>(state: &mut State) -> Result<&mut P::State, Failure> {
    state.downcast_mut().ok_or_else(|| Failure::new("a state of another policy"))
}

impl<P: Policy> Link for Linked<P> {
    fn name(&self) -> &str {
        self.policy.name()
    }

    fn hooks(&self) -> Hooks {
        if self.bodies.is_some() { P::HOOKS.and(Hooks::BODIES) } else { P::HOOKS }
    }

    fn state(&self) -> State {
        // A type without size is boxed without an allocation.
        Box::new(P::State::default())
    }

    fn on_request<'a>(&'a self, state: &'a mut State, request: &'a mut RequestView<'_>) -> Pending<'a> {
        match own::<P>(state) {
            Ok(state) => Box::pin(self.policy.on_request(state, request)),
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }

    fn on_route<'a>(&'a self, state: &'a mut State, request: &'a mut RouteView<'_>) -> Pending<'a> {
        match own::<P>(state) {
            Ok(state) => Box::pin(self.policy.on_route(state, request)),
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }

    fn on_upstream(&self, state: &mut State, attempt: &mut UpstreamView<'_>) -> Answer {
        self.policy.on_upstream(own::<P>(state)?, attempt)
    }

    fn on_response(&self, state: &mut State, response: &mut ResponseView<'_>) -> Answer {
        self.policy.on_response(own::<P>(state)?, response)
    }

    fn on_complete(&self, state: &mut State, exchange: &CompleteView<'_>) {
        if let Ok(state) = own::<P>(state) {
            self.policy.on_complete(state, exchange);
        }
    }

    fn request_body(&self, state: &mut State, attempt: &UpstreamView<'_>) -> Result<BodyAccess, Failure> {
        match &self.bodies {
            Some(bodies) => Ok((bodies.request)(&self.policy, own::<P>(state)?, attempt)),
            None => Ok(BodyAccess::none()),
        }
    }

    fn response_body(&self, state: &mut State, response: &ResponseView<'_>) -> Result<BodyAccess, Failure> {
        match &self.bodies {
            Some(bodies) => Ok((bodies.response)(&self.policy, own::<P>(state)?, response)),
            None => Ok(BodyAccess::none()),
        }
    }
}

/// Policies in the order in which they see requests.
///
/// # Examples
/// ```
/// use gateway::policy::{Chain, Policy};
///
/// struct Nothing;
/// impl Policy for Nothing {
///     type State = ();
/// }
///
/// let chain = Chain::new().then(Nothing).then(Nothing);
/// assert_eq!(chain.names().collect::<Vec<_>>(), ["Nothing", "Nothing"]);
/// assert!(Chain::new().is_empty());
/// ```
#[derive(Clone, Default)]
pub struct Chain(Option<Arc<Links>>);

#[derive(Clone)]
struct Links {
    links: Vec<Arc<dyn Link>>,
    /// Hooks that any of them has.
    hooks: Hooks,
}

impl Chain {
    /// Without policies.
    #[must_use]
    pub const fn new() -> Chain {
        Chain(None)
    }

    /// With `policy` behind those that are there.
    #[must_use]
    pub fn then(self, policy: impl Policy) -> Chain {
        self.link(Linked { policy, bodies: None })
    }

    /// With `policy` behind those that are there, to which bodies are shown.
    #[must_use]
    pub fn then_with_bodies<P: BodyPolicy>(self, policy: P) -> Chain {
        let bodies = Bodies { request: P::request_body, response: P::response_body };
        self.link(Linked { policy, bodies: Some(bodies) })
    }

    fn link(self, link: impl Link + 'static) -> Chain {
        let hooks = link.hooks();
        self.append(vec![Arc::new(link)], hooks)
    }

    /// With the policies of `other` behind those that are there.
    #[must_use]
    pub fn followed_by(self, other: &Chain) -> Chain {
        match &other.0 {
            Some(other) => self.append(other.links.clone(), other.hooks),
            None => self,
        }
    }

    fn append(self, mut links: Vec<Arc<dyn Link>>, hooks: Hooks) -> Chain {
        let mut all =
            self.0.map_or_else(|| Links { links: Vec::new(), hooks: Hooks::NONE }, Arc::unwrap_or_clone);
        all.links.append(&mut links);
        all.hooks = all.hooks.and(hooks);
        Chain(Some(Arc::new(all)))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The names of the policies, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links().iter().map(|link| link.name())
    }

    pub(super) fn links(&self) -> &[Arc<dyn Link>] {
        self.0.as_ref().map_or(&[], |all| &all.links)
    }

    pub(super) fn has_any(&self, hooks: Hooks) -> bool {
        self.0.as_ref().is_some_and(|all| all.hooks.has_any(hooks))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

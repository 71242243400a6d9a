//! Policies in order, whatever their types.
//!
//! Invariant: an empty chain is a null pointer; asking whether it is empty is all that it costs.

use super::{
    Answer, CompleteView, Failure, Hooks, Policy, RequestView, ResponseView, RouteView, UpstreamView,
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
}

/// Every state is made by the policy that gets it back.
fn own<P: Policy>(state: &mut State) -> Result<&mut P::State, Failure> {
    state.downcast_mut().ok_or_else(|| Failure::new("a state of another policy"))
}

impl<P: Policy> Link for P {
    fn name(&self) -> &str {
        Policy::name(self)
    }

    fn hooks(&self) -> Hooks {
        P::HOOKS
    }

    fn state(&self) -> State {
        // A type without size is boxed without an allocation.
        Box::new(P::State::default())
    }

    fn on_request<'a>(&'a self, state: &'a mut State, request: &'a mut RequestView<'_>) -> Pending<'a> {
        match own::<P>(state) {
            Ok(state) => Box::pin(Policy::on_request(self, state, request)),
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }

    fn on_route<'a>(&'a self, state: &'a mut State, request: &'a mut RouteView<'_>) -> Pending<'a> {
        match own::<P>(state) {
            Ok(state) => Box::pin(Policy::on_route(self, state, request)),
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }

    fn on_upstream(&self, state: &mut State, attempt: &mut UpstreamView<'_>) -> Answer {
        Policy::on_upstream(self, own::<P>(state)?, attempt)
    }

    fn on_response(&self, state: &mut State, response: &mut ResponseView<'_>) -> Answer {
        Policy::on_response(self, own::<P>(state)?, response)
    }

    fn on_complete(&self, state: &mut State, exchange: &CompleteView<'_>) {
        if let Ok(state) = own::<P>(state) {
            Policy::on_complete(self, state, exchange);
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
        let hooks = Link::hooks(&policy);
        self.append(vec![Arc::new(policy)], hooks)
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

    pub(super) fn has(&self, hook: Hooks) -> bool {
        self.0.as_ref().is_some_and(|all| all.hooks.has(hook))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

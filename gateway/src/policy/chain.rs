//! Policies in order, whatever their types.
//!
//! Invariant: an empty chain is a null pointer; asking whether it is empty is all that it costs. A policy that panics has failed: its
//! request is refused, and nothing else is hurt.

use super::{
    Answer, BodyAccess, BodyPolicy, CompleteView, Failure, Failures, Hooks, Policy, Reply, RequestView,
    ResponseView, RouteView, UpstreamView, failure::tell,
};
use futures::FutureExt as _;
use std::{
    any::Any,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
};

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
    fn on_complete(&self, state: &mut State, exchange: &CompleteView<'_>) -> Result<(), Failure>;
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

impl<P: BodyPolicy> Linked<P> {
    fn with_bodies(policy: P) -> Self {
        let bodies = Bodies { request: P::request_body, response: P::response_body };
        Linked { policy, bodies: Some(bodies) }
    }
}

/// Every state is made by the policy that gets it back.
fn own<P: Policy>(state: &mut State) -> Result<&mut P::State, Failure> {
    state.downcast_mut().ok_or_else(|| Failure::new("a state of another policy"))
}

/// What a policy's code gives, unless it panics.
pub(super) fn guarded<R>(call: impl FnOnce() -> R) -> Result<R, Failure> {
    // What it leaves behind is its own state, which is not looked at again but by itself.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| Failure::panicked(&*panic))
}

async fn guarded_wait(answer: impl Future<Output = Answer> + Send) -> Answer {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| Err(Failure::panicked(&*panic)))
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
            Ok(state) => Box::pin(guarded_wait(self.policy.on_request(state, request))),
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }

    fn on_route<'a>(&'a self, state: &'a mut State, request: &'a mut RouteView<'_>) -> Pending<'a> {
        match own::<P>(state) {
            Ok(state) => Box::pin(guarded_wait(self.policy.on_route(state, request))),
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }

    fn on_upstream(&self, state: &mut State, attempt: &mut UpstreamView<'_>) -> Answer {
        let state = own::<P>(state)?;
        guarded(|| self.policy.on_upstream(state, attempt))?
    }

    fn on_response(&self, state: &mut State, response: &mut ResponseView<'_>) -> Answer {
        let state = own::<P>(state)?;
        guarded(|| self.policy.on_response(state, response))?
    }

    fn on_complete(&self, state: &mut State, exchange: &CompleteView<'_>) -> Result<(), Failure> {
        let state = own::<P>(state)?;
        guarded(|| self.policy.on_complete(state, exchange))
    }

    fn request_body(&self, state: &mut State, attempt: &UpstreamView<'_>) -> Result<BodyAccess, Failure> {
        match &self.bodies {
            Some(bodies) => {
                let state = own::<P>(state)?;
                guarded(|| (bodies.request)(&self.policy, state, attempt))
            }
            None => Ok(BodyAccess::none()),
        }
    }

    fn response_body(&self, state: &mut State, response: &ResponseView<'_>) -> Result<BodyAccess, Failure> {
        match &self.bodies {
            Some(bodies) => {
                let state = own::<P>(state)?;
                guarded(|| (bodies.response)(&self.policy, state, response))
            }
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
    /// Whether all of them have something to say only where an annotation asks for it.
    annotated: bool,
    /// What becomes of failures; `None`: they are told, and counted by nobody.
    failures: Option<Arc<Failures>>,
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
        self.link(Linked { policy, bodies: None }, false)
    }

    /// With `policy` behind those that are there, to which bodies are shown.
    #[must_use]
    pub fn then_with_bodies<P: BodyPolicy>(self, policy: P) -> Chain {
        self.link(Linked::with_bodies(policy), false)
    }

    /// With `policy` behind those that are there, which has nothing to say where neither the rule nor the server is annotated.
    pub(super) fn then_annotated<P: BodyPolicy>(self, policy: P) -> Chain {
        self.link(Linked::with_bodies(policy), true)
    }

    fn link(self, link: impl Link + 'static, annotated: bool) -> Chain {
        let hooks = link.hooks();
        let links = Links { links: vec![Arc::new(link)], hooks, annotated, failures: None };
        self.append(&links)
    }

    /// Whether all policies have something to say only where an annotation asks for it.
    pub(crate) fn is_annotated(&self) -> bool {
        self.0.as_ref().is_some_and(|all| all.annotated)
    }

    /// Whose failures are counted.
    #[must_use]
    pub fn counted(mut self, failures: &Arc<Failures>) -> Chain {
        if let Some(all) = &mut self.0 {
            Arc::make_mut(all).failures = Some(Arc::clone(failures));
        }
        self
    }

    /// What a request gets whose policy broke.
    pub(super) fn broken(&self, policy: &str, failure: &Failure) -> Reply {
        match self.0.as_ref().and_then(|all| all.failures.as_ref()) {
            Some(failures) => failures.note(policy, failure),
            None => {
                tell(policy, failure, 0);
                Reply::broken(policy)
            }
        }
    }

    /// With the policies of `other` behind those that are there.
    #[must_use]
    pub fn followed_by(self, other: &Chain) -> Chain {
        match &other.0 {
            Some(other) => self.append(other),
            None => self,
        }
    }

    fn append(self, other: &Links) -> Chain {
        let Some(all) = self.0 else { return Chain(Some(Arc::new(other.clone()))) };
        let mut all = Arc::unwrap_or_clone(all);
        all.links.extend(other.links.iter().cloned());
        all.hooks = all.hooks.and(other.hooks);
        all.annotated &= other.annotated;
        all.failures = all.failures.or_else(|| other.failures.clone());
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

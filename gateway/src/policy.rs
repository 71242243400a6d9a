//! The hooks by which a program that embeds the gateway has its say about requests: [`Policy`], and what it gets to see.
//!
//! ```text
//!  client ──► on_request ──► route lookup ──► on_route ──► fault, CORS ──► on_upstream (each attempt) ──► upstream
//!         A → B, may set claims        A → B, also where no rule matched        A → B
//!  client ◄── on_response ◄──────────────────────────────────────────────────────────────────────────── upstream
//!         B → A, also for the gateway's own replies; on_complete follows, B → A, once the exchange is over
//! ```
//!
//! Invariant: nothing here names the engine; a policy sees types of the `http` crate and of this module. What a policy
//! cannot answer is refused ([`Failure`]): a request is never let through because a policy broke. A gateway without policies
//! asks one question a hook, whether there are any.

mod annotated;
mod body;
#[doc(hidden)]
pub mod builtin;
mod chain;
mod client;
mod failure;
mod hooks;
mod order;
mod passage;
mod reply;
mod run;
#[cfg(test)]
mod tests;
mod view;

#[doc(hidden)]
pub use annotated::Limits;
pub use body::{BodyAccess, BodyFilter, BodyPolicy, Flow, Whole};
#[doc(hidden)]
pub use builtin::{CallError, Calling, Service, Subject};
pub use chain::Chain;
pub use client::Client;
pub use failure::Failure;
#[doc(hidden)]
pub use failure::Failures;
pub use hooks::Hooks;
pub use order::Phase;
#[doc(hidden)]
pub use order::{Configured, Given};
pub use reply::Reply;
pub use routing::claims::{Claim, ClaimPath, Claims};
pub use view::{
    CompleteView, Origin, Outcome, Protected, RequestHead, RequestView, ResponseView, RouteInfo, RouteView,
    UpstreamView,
};

pub(crate) use passage::Body;
pub(crate) use run::{Run, Way};
pub(crate) use view::{Arrival, Exchange, is_protected};

use std::future::{self, Future};

/// What becomes of a request, or of a response, after a policy has seen it.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It ends here, with this reply.
    Respond(Reply),
}

/// What a hook answers. An error fails closed: the client gets 503, and the policy's name and its error go to the log. A panic is
/// such an error too.
pub type Answer = Result<Verdict, Failure>;

/// Something that has its say about requests.
///
/// All hooks have a default that lets everything pass. Policies are put in order in a [`Chain`].
///
/// A response passes those policies whose `on_request` let the request in, in the opposite order. That is so for the
/// gateway's own replies too: a redirect, a 404, an upstream that cannot be reached. Requests whose head could not be read, or
/// was refused by the edge, meet no policy: there is nothing that could be trusted about them.
///
/// # Examples
/// ```
/// use gateway::policy::{Answer, Policy, Reply, RequestView, Verdict};
/// use http::StatusCode;
///
/// /// Lets in who knows the word.
/// struct Password(&'static str);
///
/// impl Policy for Password {
///     type State = ();
///
///     async fn on_request(&self, _: &mut (), request: &mut RequestView<'_>) -> Answer {
///         match request.headers().get("x-password") {
///             Some(word) if word == self.0 => Ok(Verdict::Continue),
///             _ => Ok(Verdict::Respond(Reply::text(StatusCode::UNAUTHORIZED, "say the word"))),
///         }
///     }
/// }
/// ```
pub trait Policy: Send + Sync + 'static {
    /// What it keeps about one request from hook to hook; `()` costs nothing.
    type State: Default + Send + Sync + 'static;

    /// The hooks that it has. A hook that is not named here is not called, and not paid for.
    const HOOKS: Hooks = Hooks::ALL;

    /// Its name in logs, and in the response code details of what it refuses.
    fn name(&self) -> &str {
        let name = std::any::type_name::<Self>();
        let plain = name.split_once('<').map_or(name, |(plain, _)| plain);
        plain.rsplit_once("::").map_or(plain, |(_, last)| last)
    }

    /// A request has come, and is not routed yet. Whoever verifies a token puts its claims here, for rules that match on
    /// `@request.auth.claims`.
    ///
    /// # Errors
    /// Whatever keeps the policy from judging; the client gets 503.
    fn on_request(
        &self,
        state: &mut Self::State,
        request: &mut RequestView<'_>,
    ) -> impl Future<Output = Answer> + Send {
        let _ = (state, request);
        future::ready(Ok(Verdict::Continue))
    }

    /// The rule is known that takes the request, or that none does.
    ///
    /// # Errors
    /// Whatever keeps the policy from judging; the client gets 503.
    fn on_route(
        &self,
        state: &mut Self::State,
        request: &mut RouteView<'_>,
    ) -> impl Future<Output = Answer> + Send {
        let _ = (state, request);
        future::ready(Ok(Verdict::Continue))
    }

    /// An attempt is about to be sent. Called again for each retry, with the head as the rule left it.
    ///
    /// # Errors
    /// Whatever keeps the policy from judging; the client gets 503, and no attempt follows.
    fn on_upstream(&self, state: &mut Self::State, attempt: &mut UpstreamView<'_>) -> Answer {
        let _ = (state, attempt);
        Ok(Verdict::Continue)
    }

    /// A response is about to be sent to the client. Called once; not for informational responses but 101.
    ///
    /// # Errors
    /// Whatever keeps the policy from judging; the client gets 503 in place of the response.
    fn on_response(&self, state: &mut Self::State, response: &mut ResponseView<'_>) -> Answer {
        let _ = (state, response);
        Ok(Verdict::Continue)
    }

    /// The exchange is over, well or not.
    fn on_complete(&self, state: &mut Self::State, exchange: &CompleteView<'_>) {
        let _ = (state, exchange);
    }
}

//! Gateways and upstreams in this process, for tests: ours, and those of programs that embed the gateway. Feature `testing`.
//!
//! A [`TestGateway`] is a gateway as any other, from [`Gateway::builder`](crate::Gateway::builder) on, with real sockets on loopback, on ports that the system
//! chose, and configuration from text. [`Upstream`]s are good or hostile as told, and keep what they saw. A
//! [`FaultProxy`] breaks what passes between the two, and [`Names`] answers for names. [`Pass`] leads one request past policies without any
//! socket.
//!
//! Invariant: nothing sleeps in the hope that it will be enough; what is waited for is asked for until it holds, or [`PATIENCE`] ends, with
//! a panic that says what it was. What breaks a promise panics: this is a test's own code.
//!
//! # Examples
//! ```
//! use gateway::{
//!     policy::{Answer, Policy, UpstreamView, Verdict},
//!     testing::{FORWARD, TestGateway, Upstream, config},
//! };
//! use http::{HeaderName, HeaderValue};
//!
//! struct Stamp;
//!
//! impl Policy for Stamp {
//!     type State = ();
//!
//!     fn on_upstream(&self, _: &mut (), attempt: &mut UpstreamView<'_>) -> Answer {
//!         attempt.insert_header(HeaderName::from_static("x-stamp"), HeaderValue::from_static("yes"))?;
//!         Ok(Verdict::Continue)
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let upstream = Upstream::echo().await;
//! let yaml = config(FORWARD, &[upstream.address()], "HTTP");
//! let gateway = TestGateway::with(&yaml, |gateway| gateway.policy(Stamp)).await;
//!
//! let answer = gateway.get("http://a.example/hello").await;
//! assert_eq!(answer.status, 200);
//! assert_eq!(upstream.seen()[0].header("x-stamp"), Some("yes"));
//! # });
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise ends the test"
)]

mod answer;
mod configuration;
mod faults;
mod gateway;
mod names;
mod pass;
#[cfg(test)]
mod tests;
mod upstream;

pub use answer::Answer;
pub use configuration::{FORWARD, config, service};
pub use faults::{Fault, FaultProxy};
pub use gateway::TestGateway;
pub use names::{Known, Names};
pub use pass::{Pass, ok};
#[cfg(test)]
pub(crate) use upstream::read_request;
pub use upstream::{Act, Seen, Upstream, nobody};

use std::time::Duration;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until the answer is there.
///
/// # Panics
/// When [`PATIENCE`] ends first.
pub async fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("gave up waiting for {what}"))
}

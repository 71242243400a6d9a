//! How it runs: a gateway that serves Istio's networking API on Pingora, as a library.
//!
//! A program makes one with [`Gateway::builder`], gives it a [source](source::Source) of configuration and
//! [policies](policy::Policy) of its own, and runs it by itself, on a runtime of the program's, or in a server of Pingora's.
//!
//! ```
//! use gateway::{Gateway, policy::{Answer, Policy, Reply, RequestView, Verdict}};
//! use http::StatusCode;
//!
//! /// Lets in who knows the word.
//! struct Password;
//!
//! impl Policy for Password {
//!     type State = ();
//!
//!     async fn on_request(&self, _: &mut (), request: &mut RequestView<'_>) -> Answer {
//!         match request.headers().get("x-password") {
//!             Some(word) if word == "friend" => Ok(Verdict::Continue),
//!             _ => Ok(Verdict::Respond(Reply::text(StatusCode::UNAUTHORIZED, "say the word"))),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let gateway = Gateway::builder().folder(folder).port(80, 8080).policy(Password).build()?;
//! # let handle = gateway.handle();
//! # handle.quit();
//! let exit = gateway.run()?; // until SIGTERM and the drain that follows
//! # let _ = exit;
//! # Ok(())
//! # }
//! ```
//!
//! What is stable is what these pages show; modules that they do not show belong to the `limen` binary.

#[doc(hidden)]
pub mod admin;
#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod drain;
#[doc(hidden)]
pub mod edge;
#[doc(hidden)]
pub mod handover;
#[doc(hidden)]
pub mod jwt;
#[doc(hidden)]
pub mod listener;
#[doc(hidden)]
pub mod pipeline;
pub mod policy;
#[doc(hidden)]
pub mod pressure;
#[doc(hidden)]
pub mod proxy;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod runtime;
pub mod settings;
#[doc(hidden)]
pub mod shutdown;
#[doc(hidden)]
pub mod snapshot;
pub mod source;
#[doc(hidden)]
pub mod status;
#[doc(hidden)]
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[doc(hidden)]
pub mod tls;

pub use admin::{Readiness, Surface};
pub use app::{Gateway, GatewayBuilder, GatewayHandle, GatewayService, Panics, Signals, StartError};
pub use cli::LevelHandle;
/// The types of configuration and findings, for sources that make their own.
pub use config_model;
pub use proxy::GatewayProxy;
pub use shutdown::Exit;

#[cfg(test)]
mod hostile;
/// What must hold for any bytes; also the bodies of the fuzz targets.
#[cfg(test)]
#[allow(unreachable_pub, reason = "public in the fuzz crate")]
#[path = "../fuzz/laws.rs"]
mod laws;
/// The README's program.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

//! What a request means: an immutable table compiled from validated resources, a lookup that says which rule a
//! request gets, and the pure transformations that the rule asks for.
//!
//! Invariant: nothing here knows a clock, a socket, a file, an environment variable or a random source; what varies
//! is an argument. A lookup allocates nothing and its cost does not grow with the number of hosts or routes.

pub mod action;
pub mod annotated;
pub mod authn;
pub mod authz;
pub mod balance;
pub mod claims;
pub mod cluster;
pub mod compile;
pub mod decision;
pub mod explain;
pub mod header;
pub mod host;
pub mod listener;
pub mod matcher;
pub mod path;
pub mod precedence;
pub mod query;
pub mod request;
pub mod route;
pub mod table;

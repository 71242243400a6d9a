#[path = "../../../src/listener/http1/authority.rs"]
mod authority;
#[path = "../../../src/listener/http1/chunked.rs"]
mod chunked;
#[path = "../../../src/listener/http1/flaw.rs"]
mod flaw;
#[path = "../../../src/listener/http1/head.rs"]
mod head;
#[path = "../../../src/listener/http1/policy.rs"]
mod policy;
#[path = "../../../src/listener/http1/reader.rs"]
mod reader;

pub(crate) use authority::is_authority;
pub(crate) use flaw::Flaw;
pub use policy::{HeadPolicy, Leniency, Underscores};
pub(crate) use reader::{Reader, Stop};

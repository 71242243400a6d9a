//! TLS termination: which server a ClientHello means, and with which certificate it is answered; and what upstreams
//! are verified against.
//!
//! Invariant: a certificate is parsed and matched with its key before it goes live; one that is missing or wrong takes down its
//! own server only, and not even that when an earlier good one is known. Key material is never printed.

mod acceptor;
mod certificates;
mod client;
pub mod client_hello;
mod crl;
mod der;
pub mod findings;
mod material;
mod ocsp;
mod problem;
mod revocation;
#[cfg(test)]
pub(crate) mod test_keys;
mod trust;
pub mod watch;

pub use certificates::{CertificateSummary, Certificates, SecretReader};
pub use client::{CertificateParts, ClientCertificate};
pub use material::MaterialError;
pub use problem::{CertificateProblem, Effect};
pub use revocation::Revocation;
pub use trust::{CredentialReader, Material, NoCredentials, Sources, Stamp, Trust};

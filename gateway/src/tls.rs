//! TLS termination: which server a ClientHello means, and with which certificate it is answered; and what upstreams
//! are verified against.
//!
//! Invariant: a certificate is parsed and matched with its key before it goes live; one that is missing or wrong takes down its
//! own server only, and not even that when an earlier good one is known. Key material is never printed.

mod certificates;
mod client;
pub mod client_hello;
mod crl;
pub mod findings;
mod material;
mod revocation;
#[cfg(test)]
pub(crate) mod test_keys;
mod trust;
pub mod watch;

pub use certificates::{CertificateProblem, CertificateSummary, Certificates, SecretReader};
pub use client::ClientCertificate;
pub use material::MaterialError;
pub use revocation::Revocation;
pub use trust::{CredentialReader, Material, NoCredentials, Sources, Stamp, Trust, WorkloadFiles};

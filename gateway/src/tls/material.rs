//! A certificate chain and its key, parsed and proven to belong together.
//!
//! Invariant: a [`CertifiedKey`] exists only if the key is the leaf's. Nothing here prints a key.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use config_model::kubernetes::Secret;
use pingora_core::tls::{
    error::ErrorStack,
    hash::{MessageDigest, hash},
    pkey::{Id, PKey, Private},
    x509::X509,
};
use routing::listener::CertificateSource;

use super::ocsp::{Says, Staple};

/// Largest PEM file that is read, bytes; a chain is a few kilobytes.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Key of a Secret for an OCSP response (Istio: `TLSSecretOcspStaple`).
const STAPLE: &str = "tls.ocsp-staple";

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaterialError {
    /// There is no such Secret.
    SecretNotFound,
    /// The Secret lacks a key, or has an empty one.
    SecretKey(&'static str),
    /// A file cannot be read.
    File(String),
    /// The chain is not PEM certificates.
    Certificate(String),
    /// The key is not a PEM private key.
    Key(String),
    /// The key is not the certificate's.
    Mismatch,
}

impl fmt::Display for MaterialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaterialError::SecretNotFound => f.write_str("the Secret does not exist"),
            MaterialError::SecretKey(key) => write!(f, "the Secret has no value for {key:?}"),
            MaterialError::File(reason) => f.write_str(reason),
            MaterialError::Certificate(reason) => {
                write!(f, "the certificate chain cannot be parsed: {reason}")
            }
            MaterialError::Key(reason) => write!(f, "the private key cannot be parsed: {reason}"),
            MaterialError::Mismatch => f.write_str("the private key does not belong to the certificate"),
        }
    }
}

/// Key type of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Rsa,
    /// Elliptic curve (and whatever else is not RSA): only for clients that can check it.
    Ecdsa,
}

/// A chain with its key.
pub(super) struct CertifiedKey {
    pub(super) leaf: X509,
    pub(super) intermediates: Vec<X509>,
    pub(super) key: PKey<Private>,
    pub(super) key_type: KeyType,
    /// What is told of its revocation; `None`: nothing was given, or nothing that could be sent.
    pub(super) staple: Option<Arc<Staple>>,
    /// SHA-256 over all of it, to tell whether anything changed.
    pub(super) fingerprint: [u8; 32],
}

impl fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertifiedKey").field("key_type", &self.key_type).finish_non_exhaustive()
    }
}

impl CertifiedKey {
    /// From PEM texts.
    pub(super) fn parse(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, MaterialError> {
        let chain =
            X509::stack_from_pem(certificate).map_err(|error| MaterialError::Certificate(reason(&error)))?;
        let mut chain = chain.into_iter();
        let leaf = chain.next().ok_or_else(|| MaterialError::Certificate("no certificate in it".into()))?;
        let key = PKey::private_key_from_pem(key).map_err(|error| MaterialError::Key(reason(&error)))?;
        let public = leaf.public_key().map_err(|error| MaterialError::Certificate(reason(&error)))?;
        if !public.public_eq(&key) {
            return Err(MaterialError::Mismatch);
        }
        let key_type = if key.id() == Id::RSA { KeyType::Rsa } else { KeyType::Ecdsa };
        let fingerprint = fingerprint(certificate, &key)?;
        let intermediates = chain.collect();
        Ok(CertifiedKey { leaf, intermediates, key, key_type, staple: None, fingerprint })
    }

    /// Takes up an OCSP response (DER); gives back what is to be said about it.
    pub(super) fn staple(&mut self, response: &[u8]) -> Option<String> {
        let staple = match Staple::parse(response, &self.leaf, SystemTime::now()) {
            Ok(staple) => staple,
            Err(why) => return Some(format!("{STAPLE} is not sent: {why}")),
        };
        let Ok(digest) = hash(MessageDigest::sha256(), &[&self.fingerprint, response].concat()) else {
            return Some(format!("{STAPLE} is not sent: no digest"));
        };
        self.fingerprint = digest.as_ref().try_into().unwrap_or(self.fingerprint);
        let revoked = staple.says == Says::Revoked;
        self.staple = Some(Arc::new(staple));
        revoked.then(|| format!("{STAPLE} says that the certificate is revoked"))
    }
}

/// What a source holds.
pub(super) struct Texts {
    /// Chain, PEM.
    pub(super) certificate: Vec<u8>,
    /// Private key, PEM.
    pub(super) key: Vec<u8>,
    /// OCSP response, DER.
    pub(super) staple: Option<Vec<u8>>,
}

/// Reads a source.
pub(super) fn read(
    source: &CertificateSource,
    secret: impl FnOnce(&str, &str) -> Option<Secret>,
) -> Result<Texts, MaterialError> {
    match source {
        CertificateSource::Secret { namespace, name } => {
            let secret = secret(namespace, name).ok_or(MaterialError::SecretNotFound)?;
            texts(&secret)
        }
        CertificateSource::Files { certificate, key } => {
            Ok(Texts { certificate: file(certificate)?, key: file(key)?, staple: None })
        }
    }
}

/// Istio's order (credentials/kube/secrets.go): `cert` and `key` first, else `tls.crt` and `tls.key`; never one of each.
fn texts(secret: &Secret) -> Result<Texts, MaterialError> {
    let generic = secret.get("cert").is_some() || secret.get("key").is_some();
    let names = if generic { ("cert", "key") } else { ("tls.crt", "tls.key") };
    // Of the second pair only, as its name says.
    let staple = secret.get(STAPLE).filter(|_| !generic).map(<[u8]>::to_vec);
    let value = |name: &'static str| {
        let bytes = secret.get(name).filter(|bytes| !bytes.is_empty());
        bytes.map(<[u8]>::to_vec).ok_or(MaterialError::SecretKey(name))
    };
    Ok(Texts { certificate: value(names.0)?, key: value(names.1)?, staple })
}

/// Where file-mounted workload certificates stand in place of those of Istio's agent.
fn mounted(path: &str) -> Option<&'static str> {
    match path.strip_prefix("/var/run/secrets/workload-spiffe-credentials/")? {
        "certificates.pem" => Some("/etc/certs/cert-chain.pem"),
        "private_key.pem" => Some("/etc/certs/key.pem"),
        "ca_certificates.pem" => Some("/etc/certs/root-cert.pem"),
        _ => None,
    }
}

/// Where a file is now.
pub(super) fn place(path: &str) -> &str {
    mounted(path).filter(|_| !Path::new(path).exists()).unwrap_or(path)
}

pub(super) fn file(path: &str) -> Result<Vec<u8>, MaterialError> {
    use std::io::Read;
    let failed = |error: std::io::Error| MaterialError::File(format!("{path}: {error}"));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(place(path)).map_err(failed)?;
    let count = opened.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if count as u64 > FILE_LIMIT {
        return Err(MaterialError::File(format!("{path}: larger than {FILE_LIMIT} bytes")));
    }
    Ok(bytes)
}

/// Over the key's public half: the private one goes nowhere, not even into a hash that is kept.
fn fingerprint(certificate: &[u8], key: &PKey<Private>) -> Result<[u8; 32], MaterialError> {
    let failed = |error: ErrorStack| MaterialError::Key(reason(&error));
    let mut text = certificate.to_vec();
    text.extend_from_slice(&key.public_key_to_der().map_err(failed)?);
    let digest = hash(MessageDigest::sha256(), &text).map_err(failed)?;
    digest.as_ref().try_into().map_err(|_| MaterialError::Key("no digest".into()))
}

/// BoringSSL's own words, without file names and numbers of its source.
fn reason(error: &ErrorStack) -> String {
    let first = error.errors().first().and_then(|error| error.reason());
    first.map_or_else(|| "unknown reason".to_owned(), |reason| reason.replace('_', " ").to_lowercase())
}

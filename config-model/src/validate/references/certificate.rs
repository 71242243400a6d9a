//! A certificate in a Secret, as far as it can be judged without cryptography.
//!
//! Invariant: nothing of a private key is read beyond whether there is one, and nothing of a value comes into a message.

use base64::Engine as _;
use x509_cert::{
    Certificate,
    der::{Decode, oid::ObjectIdentifier},
};

use crate::{kubernetes::Secret, scalar::Timestamp};

/// A certificate that expires within this many seconds is worth a word: 30 days.
const SOON: i64 = 30 * 24 * 3600;
const DAY: i64 = 24 * 3600;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// Signatures with MD5 or SHA-1.
const BROKEN: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
];
/// A key of 2048 bits takes more bytes than this, one of 1536 bits takes fewer.
const SHORT_RSA: usize = 256;

/// The chain of a Secret, or why there is none (Istio: secrets.go ExtractCertInfo).
///
/// # Errors
/// What is wrong with the Secret, as a sentence.
pub(super) fn chain(secret: &Secret) -> Result<Vec<Certificate>, String> {
    let has = |key: &str| secret.get(key).is_some_and(|value| !value.is_empty());
    let pem = [("cert", "key"), ("tls.crt", "tls.key")]
        .into_iter()
        .find(|(certificate, key)| has(certificate) && has(key))
        .and_then(|(certificate, _)| secret.get(certificate));
    let Some(pem) = pem else {
        let there = |key: &str| secret.get(key).is_some();
        return Err(match (there("cert") && there("key"), there("tls.crt") && there("tls.key")) {
            (true, _) => "found keys \"cert\" and \"key\", but they were empty".to_owned(),
            (_, true) => "found keys \"tls.crt\" and \"tls.key\", but they were empty".to_owned(),
            _ => "it has neither the keys tls.crt and tls.key nor cert and key".to_owned(),
        });
    };
    let chain: Vec<Certificate> = blocks(pem)
        .map(|der| der.as_deref().and_then(|der| Certificate::from_der(der).ok()))
        .collect::<Option<_>>()
        .ok_or("its certificate cannot be read as X.509")?;
    if chain.is_empty() { Err("its certificate is no PEM".to_owned()) } else { Ok(chain) }
}

/// Whether a Secret holds certificate authorities to judge clients by (Istio: secrets.go ExtractRoot).
pub(super) fn has_authority(secret: &Secret) -> bool {
    ["cacert", "ca.crt"].iter().any(|key| secret.get(key).is_some_and(|value| !value.is_empty()))
}

/// The certificates of a PEM text; `None` for one that is no base64.
fn blocks(pem: &[u8]) -> impl Iterator<Item = Option<Vec<u8>>> + '_ {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut rest = std::str::from_utf8(pem).unwrap_or_default();
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(BEGIN)?;
        let (body, after) = after.split_once(END)?;
        rest = after;
        let body: String = body.split_ascii_whitespace().collect();
        Some(base64::engine::general_purpose::STANDARD.decode(body).ok())
    })
}

/// What the dates of a certificate say at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dates {
    Good,
    /// It expires in so many days.
    Soon(i64),
    /// It has expired, or begins later.
    Bad,
}

/// Judges a chain by the certificate of it that is worst off; and says from when on the judgement may be another, if ever.
pub(super) fn dates(chain: &[Certificate], now: Timestamp) -> (Dates, Option<Timestamp>) {
    let (now, _) = now.unix();
    let until = next_change(chain, now).map(|at| Timestamp::from_unix(at, 0));
    (judge(chain, now), until)
}

/// The first moment after this one at which a certificate begins, ends, is about to end, or has a day less to go.
fn next_change(chain: &[Certificate], now: i64) -> Option<i64> {
    let moments = chain.iter().flat_map(|certificate| {
        let validity = &certificate.tbs_certificate.validity;
        let (begin, end) = (seconds(&validity.not_before), seconds(&validity.not_after));
        let left = end.saturating_sub(now);
        [begin, end.saturating_add(1), end - SOON + 1, (end - left.div_euclid(DAY) * DAY).saturating_add(1)]
    });
    moments.filter(|moment| *moment > now).min()
}

fn seconds(time: &x509_cert::time::Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

fn judge(chain: &[Certificate], now: i64) -> Dates {
    let validity = chain.iter().map(|certificate| &certificate.tbs_certificate.validity);
    let mut left = i64::MAX;
    for validity in validity {
        if seconds(&validity.not_before) > now || seconds(&validity.not_after) < now {
            return Dates::Bad;
        }
        left = left.min(seconds(&validity.not_after).saturating_sub(now));
    }
    if left < SOON { Dates::Soon(left / DAY) } else { Dates::Good }
}

/// Until when a certificate is valid.
pub(super) fn not_after(chain: &[Certificate]) -> Option<Timestamp> {
    let ends = chain.iter().map(|certificate| certificate.tbs_certificate.validity.not_after);
    let first = ends.map(|time| time.to_unix_duration().as_secs()).min()?;
    Some(Timestamp::from_unix(i64::try_from(first).ok()?, 0))
}

/// What makes the server's own certificate weak, if anything does.
pub(super) fn weakness(chain: &[Certificate]) -> Option<&'static str> {
    let certificate = chain.first()?;
    let key = &certificate.tbs_certificate.subject_public_key_info;
    if key.algorithm.oid == RSA && key.subject_public_key.raw_bytes().len() < SHORT_RSA {
        return Some("an RSA key of less than 2048 bits");
    }
    BROKEN.contains(&certificate.signature_algorithm.oid).then_some("a signature with MD5 or SHA-1")
}

//! Certificate revocation lists of upstreams' issuers.
//!
//! Invariant: as with Envoy's `crl`, every link of a chain needs a list of its issuer, signed by it and not outdated; a
//! chain that cannot be looked up is refused. Reads DER (X.690) with bounds, never panics on it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use boring::{hash::MessageDigest, sign::Verifier};
use pingora_core::tls::x509::{X509, X509Ref};
use std::{collections::HashSet, time::SystemTime};

use super::der::{BIT_STRING, Der, INTEGER, OID, SEQUENCE, time, timestamp};

/// Certificates in a chain, at most.
const LONGEST_CHAIN: usize = 16;

/// The lists of one file.
#[derive(Debug)]
pub struct Revocation {
    lists: Vec<List>,
    /// Roots that may have signed a list, and that end a chain.
    roots: Vec<X509>,
}

#[derive(Debug)]
struct List {
    /// Distinguished name, DER.
    issuer: Vec<u8>,
    /// `YYYYMMDDHHMMSSZ`, which compares as time does; `None`: never outdated.
    next_update: Option<String>,
    /// Serial numbers without leading zeros.
    revoked: HashSet<Vec<u8>>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    algorithm: Vec<u8>,
}

impl Revocation {
    /// The lists of a PEM text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(pem: &[u8], roots: Vec<X509>) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(pem).map_err(|_| "not PEM")?;
        let mut lists = Vec::new();
        for block in text.split("-----BEGIN X509 CRL-----").skip(1) {
            let body = block.split("-----END X509 CRL-----").next().unwrap_or_default();
            let body: String = body.split_whitespace().collect();
            let der = STANDARD.decode(body).map_err(|_| "a revocation list is not base64")?;
            lists.push(list(&der).ok_or("a revocation list cannot be parsed")?);
        }
        if lists.is_empty() {
            return Err("no revocation list in it");
        }
        Ok(Self { lists, roots })
    }

    /// Looks up a chain, leaf first, as the peer sent it.
    ///
    /// # Errors
    /// Why it must not be trusted.
    pub fn check(&self, chain: &[X509], now: SystemTime) -> Result<(), &'static str> {
        let now = timestamp(now);
        let mut certificate: &X509Ref = chain.first().ok_or("no certificate")?;
        for _ in 0..LONGEST_CHAIN {
            let issuer_name = certificate.issuer_name().to_der().map_err(|_| "an issuer without a name")?;
            let subject = certificate.subject_name().to_der().map_err(|_| "a certificate without a name")?;
            if issuer_name == subject {
                return Ok(());
            }
            let issuer = self.issuer(chain, certificate).ok_or("the issuer of a certificate is not known")?;
            self.look_up(certificate, issuer, &issuer_name, &now)?;
            certificate = issuer;
        }
        Err("a chain of certificates without an end")
    }

    fn issuer<'c>(&'c self, chain: &'c [X509], of: &X509Ref) -> Option<&'c X509Ref> {
        let name = of.issuer_name().to_der().ok()?;
        let signed = |by: &&X509| {
            by.subject_name().to_der().is_ok_and(|subject| subject == name)
                && by.public_key().is_ok_and(|key| of.verify(&key).unwrap_or(false))
        };
        chain.iter().chain(&self.roots).find(signed).map(|issuer| &**issuer)
    }

    fn look_up(
        &self,
        certificate: &X509Ref,
        issuer: &X509Ref,
        name: &[u8],
        now: &str,
    ) -> Result<(), &'static str> {
        let serial =
            certificate.serial_number().to_bn().map_err(|_| "a serial number that is none")?.to_vec();
        let mut error = "no revocation list of the certificate's issuer";
        for list in self.lists.iter().filter(|list| list.issuer == name) {
            if !list.is_signed_by(issuer) {
                error = "the revocation list is not signed by the issuer";
            } else if list.revoked.contains(&serial) {
                return Err("the certificate is revoked");
            } else if list.next_update.as_deref().is_some_and(|next| next < now) {
                error = "the revocation list is outdated";
            } else {
                return Ok(());
            }
        }
        Err(error)
    }
}

impl List {
    fn is_signed_by(&self, issuer: &X509Ref) -> bool {
        // RSA: 1.2.840.113549.1.1.x; ECDSA: 1.2.840.10045.4.3.x (RFC 5758, RFC 4055).
        let digest = match self.algorithm.as_slice() {
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => {
                MessageDigest::sha256()
            }
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => {
                MessageDigest::sha384()
            }
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => {
                MessageDigest::sha512()
            }
            _ => return false,
        };
        let Ok(key) = issuer.public_key() else { return false };
        let verified = Verifier::new(digest, &key)
            .and_then(|mut verifier| verifier.verify_oneshot(&self.signature, &self.signed));
        verified.unwrap_or(false)
    }
}

/// CertificateList (RFC 5280 §5.1).
fn list(der: &[u8]) -> Option<List> {
    let mut outer = Der(Der(der).expect(SEQUENCE)?.content);
    let signed = outer.expect(SEQUENCE)?;
    let algorithm = Der(outer.expect(SEQUENCE)?.content).expect(OID)?.content.to_vec();
    let (unused_bits, signature) = outer.expect(BIT_STRING)?.content.split_first()?;
    if *unused_bits != 0 {
        return None;
    }
    let mut inner = Der(signed.content);
    let mut value = inner.next()?;
    if value.tag == INTEGER {
        value = inner.next()?;
    }
    // The inner algorithm, which the outer one repeats.
    (value.tag == SEQUENCE).then_some(())?;
    let issuer = inner.expect(SEQUENCE)?.whole.to_vec();
    let _this_update = inner.next().and_then(|value| time(&value))?;
    let mut next = inner.next();
    let mut next_update = None;
    if let Some(at) = next.as_ref().and_then(time) {
        next_update = Some(at);
        next = inner.next();
    }
    let mut revoked = HashSet::new();
    if let Some(entries) = next.filter(|value| value.tag == SEQUENCE) {
        let mut entries = Der(entries.content);
        while !entries.0.is_empty() {
            let serial = Der(entries.expect(SEQUENCE)?.content).expect(INTEGER)?.content;
            let zeros = serial.iter().take_while(|byte| **byte == 0).count();
            revoked.insert(serial.get(zeros..)?.to_vec());
        }
    }
    Some(List {
        issuer,
        next_update,
        revoked,
        signed: signed.whole.to_vec(),
        signature: signature.to_vec(),
        algorithm,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_keys::{Authority, Validity};

    #[test]
    fn a_revoked_certificate_is_refused_and_the_others_are_not() {
        let authority = Authority::new("ca");
        let (good, _) = authority.issue(7, &["good.example"], Validity::Now);
        let (bad, _) = authority.issue(8, &["bad.example"], Validity::Now);
        let crl = authority.crl(&[8, 9], "20991231000000Z");
        let lists = Revocation::parse(&crl, vec![authority.certificate.clone()]).unwrap();
        let now = SystemTime::now();
        assert_eq!(lists.check(std::slice::from_ref(&good), now), Ok(()));
        assert_eq!(lists.check(&[bad], now), Err("the certificate is revoked"));
        assert_eq!(lists.check(&[], now), Err("no certificate"));
        let outdated =
            Revocation::parse(&authority.crl(&[], "20200101000000Z"), vec![authority.certificate.clone()]);
        assert_eq!(outdated.unwrap().check(&[good], now), Err("the revocation list is outdated"));
    }

    #[test]
    fn a_list_of_somebody_else_says_nothing() {
        let (authority, other) = (Authority::new("ca"), Authority::new("other"));
        let impostor = Authority::new("ca");
        let (leaf, _) = authority.issue(7, &["good.example"], Validity::Now);
        let roots = || vec![authority.certificate.clone()];
        let by = |who: &Authority| Revocation::parse(&who.crl(&[], "20991231000000Z"), roots()).unwrap();
        let now = SystemTime::now();
        assert_eq!(
            by(&other).check(std::slice::from_ref(&leaf), now),
            Err("no revocation list of the certificate's issuer")
        );
        assert_eq!(by(&impostor).check(&[leaf], now), Err("the revocation list is not signed by the issuer"));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        assert!(Revocation::parse(b"", Vec::new()).is_err());
        assert!(Revocation::parse(b"\xff", Vec::new()).is_err());
        let whole = Authority::new("ca").crl(&[8], "20991231000000Z");
        let text = String::from_utf8(whole).unwrap();
        let body: String = text.lines().filter(|l| !l.starts_with('-')).collect();
        let der = STANDARD.decode(body).unwrap();
        assert!(list(&der).is_some());
        for end in 0..der.len() {
            assert!(list(&der[..end]).is_none(), "cut at {end}");
        }
        for at in 0..der.len() {
            let mut broken = der.clone();
            broken[at] ^= 0xff;
            // Anything but a panic.
            let _whatever = list(&broken);
        }
    }
}

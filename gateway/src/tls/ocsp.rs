//! OCSP responses that are stapled to a certificate (RFC 6960): read far enough to know whose they are and until when they hold.
//!
//! Invariant: total on any bytes. What is stapled is for the certificate that is served and not outdated at that moment (Envoy:
//! `LENIENT_STAPLING`); its signature is the client's to check, who knows the issuer.

use std::time::SystemTime;

use pingora_core::tls::x509::X509Ref;

use super::der::{Der, ENUMERATED, INTEGER, OCTET_STRING, OID, SEQUENCE, time, timestamp};

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// `[0]`, explicit.
const TAG_0: u8 = 0xa0;
/// `good [0] IMPLICIT NULL` and `revoked [1] IMPLICIT SEQUENCE`.
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;

/// A response that may be stapled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Staple {
    /// DER, as it is sent.
    pub(super) response: Vec<u8>,
    /// `YYYYMMDDHHMMSSZ`, which compares as time does; `None`: holds until there is another.
    next_update: Option<String>,
    /// What it says of the certificate.
    pub(super) says: Says,
}

/// What a response says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// It is not revoked.
    Good,
    /// It is revoked. It is stapled all the same: that is what clients ask to know.
    Revoked,
}

impl Staple {
    /// The response for this certificate.
    ///
    /// # Errors
    /// Why it cannot be stapled, as the end of a sentence.
    pub(super) fn parse(response: &[u8], leaf: &X509Ref, now: SystemTime) -> Result<Staple, &'static str> {
        let serial =
            leaf.serial_number().to_bn().map_err(|_| "the certificate has no serial number")?.to_vec();
        let basic = basic(response)?;
        let (says, next_update) =
            single(basic, &serial).ok_or("it is not for this certificate, or no OCSP response")?;
        let staple = Staple { response: response.to_vec(), next_update, says: says? };
        if staple.holds(now) { Ok(staple) } else { Err("it is outdated") }
    }

    /// Whether it may still be sent.
    pub(super) fn holds(&self, now: SystemTime) -> bool {
        self.next_update.as_ref().is_none_or(|until| *until > timestamp(now))
    }
}

/// The BasicOCSPResponse of an OCSPResponse.
fn basic(response: &[u8]) -> Result<&[u8], &'static str> {
    const NOT: &str = "it is no OCSP response (DER)";
    let mut outer = Der(response);
    let mut whole = Der(outer.expect(SEQUENCE).ok_or(NOT)?.content);
    if whole.expect(ENUMERATED).ok_or(NOT)?.content != [0] {
        return Err("the responder answered with an error");
    }
    let bytes = whole.expect(TAG_0).ok_or(NOT)?.content;
    let mut bytes = Der(Der(bytes).expect(SEQUENCE).ok_or(NOT)?.content);
    if bytes.expect(OID).ok_or(NOT)?.content != BASIC || !outer.0.is_empty() {
        return Err(NOT);
    }
    Ok(bytes.expect(OCTET_STRING).ok_or(NOT)?.content)
}

type Single = (Result<Says, &'static str>, Option<String>);

/// The part about one serial number: what it says, and until when it holds.
fn single(basic: &[u8], serial: &[u8]) -> Option<Single> {
    let mut data = Der(Der(Der(basic).expect(SEQUENCE)?.content).expect(SEQUENCE)?.content);
    let mut value = data.next()?;
    if value.tag == TAG_0 {
        value = data.next()?;
    }
    // The responder's name or key, and when it answered.
    matches!(value.tag, 0xa1 | 0xa2).then_some(())?;
    let _produced_at = time(&data.next()?)?;
    let mut responses = Der(data.expect(SEQUENCE)?.content);
    while !responses.0.is_empty() {
        let mut one = Der(responses.expect(SEQUENCE)?.content);
        let mut id = Der(one.expect(SEQUENCE)?.content);
        id.expect(SEQUENCE)?;
        id.expect(OCTET_STRING)?;
        id.expect(OCTET_STRING)?;
        let number = id.expect(INTEGER)?.content;
        let status = one.next()?.tag;
        let _this_update = time(&one.next()?)?;
        let next_update = match one.next() {
            Some(value) if value.tag == TAG_0 => Some(time(&Der(value.content).next()?)?),
            _ => None,
        };
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        if number.get(zeros..)? == serial {
            let says = match status {
                GOOD => Ok(Says::Good),
                REVOKED => Ok(Says::Revoked),
                _ => Err("the responder does not know the certificate"),
            };
            return Some((says, next_update));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_keys::{Authority, Validity, der, staple};

    fn response(serial: &[u8], status: u8, next_update: &str) -> Vec<u8> {
        staple(serial, status, next_update)
    }

    #[test]
    fn a_response_is_for_one_certificate_and_for_a_time() {
        let (leaf, _) = Authority::new("ca").issue(0x1234, &["a.example"], Validity::Now);
        let now = SystemTime::now();
        let parse = |response: &[u8]| Staple::parse(response, &leaf, now).map(|staple| staple.says);
        let own = [0x12, 0x34];
        assert_eq!(parse(&response(&own, GOOD, "20991231000000Z")), Ok(Says::Good));
        assert_eq!(parse(&response(&own, GOOD, "")), Ok(Says::Good));
        assert_eq!(parse(&response(&own, REVOKED, "20991231000000Z")), Ok(Says::Revoked));
        assert_eq!(parse(&response(&own, GOOD, "20200102000000Z")), Err("it is outdated"));
        let unknown = Err("the responder does not know the certificate");
        assert_eq!(parse(&response(&own, 0x82, "")), unknown);
        let others = Err("it is not for this certificate, or no OCSP response");
        assert_eq!(parse(&response(&[1], GOOD, "")), others);
        assert_eq!(parse(b"hello"), Err("it is no OCSP response (DER)"));
        assert_eq!(
            parse(&der(SEQUENCE, &der(ENUMERATED, &[6]))),
            Err("the responder answered with an error")
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let (leaf, _) = Authority::new("ca").issue(8, &["a.example"], Validity::Now);
        let whole = response(&[8], GOOD, "20991231000000Z");
        let now = SystemTime::now();
        for end in 0..whole.len() {
            assert!(Staple::parse(&whole[..end], &leaf, now).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            // Anything but a panic.
            let _whatever = Staple::parse(&broken, &leaf, now);
        }
    }
}

//! A token as it is written: header, payload and signature (RFC 7515, RFC 7519).
//!
//! Invariant: what is read here is not yet believed. It is judged in the order of Envoy's library, so that the same token is refused
//! for the same reason.

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use routing::authn::Failure;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Base64url, padded or not, as Envoy's library takes it.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a token may be signed with (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each arm is the registered name")]
pub(super) enum Algorithm {
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

impl Algorithm {
    const ALL: [(&'static str, Algorithm); 13] = [
        ("ES256", Algorithm::Es256),
        ("ES384", Algorithm::Es384),
        ("ES512", Algorithm::Es512),
        ("HS256", Algorithm::Hs256),
        ("HS384", Algorithm::Hs384),
        ("HS512", Algorithm::Hs512),
        ("RS256", Algorithm::Rs256),
        ("RS384", Algorithm::Rs384),
        ("RS512", Algorithm::Rs512),
        ("PS256", Algorithm::Ps256),
        ("PS384", Algorithm::Ps384),
        ("PS512", Algorithm::Ps512),
        ("EdDSA", Algorithm::EdDsa),
    ];

    /// The algorithm of that registered name.
    fn parse(name: &str) -> Option<Algorithm> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Its registered name.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// A token that could be read.
#[derive(Debug)]
pub(super) struct Jwt<'t> {
    /// Header and payload as they were signed.
    pub(super) signed: &'t str,
    pub(super) algorithm: Algorithm,
    /// The key that it says it was signed with; empty: it does not say.
    pub(super) key_id: String,
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
    /// Seconds since 1970; 0: none.
    pub(super) not_before: u64,
    /// Seconds since 1970; 0: none.
    pub(super) expiry: u64,
    pub(super) payload: Map<String, Value>,
    /// The payload as it stands in the token.
    pub(super) payload_text: &'t str,
    pub(super) signature: Vec<u8>,
}

impl<'t> Jwt<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Jwt<'t>, Failure> {
        let mut parts = token.split('.');
        let sections = (parts.next(), parts.next(), parts.next(), parts.next());
        let (header_text, payload_text, signature) = match sections {
            (Some(header), Some(payload), Some(signature), None)
                if !header.is_empty() && !payload.is_empty() && !signature.is_empty() =>
            {
                (header, payload, signature)
            }
            _ => return Err(Failure::Form),
        };
        let signed = token.get(..header_text.len() + 1 + payload_text.len()).ok_or(Failure::Form)?;
        let header = object(&decode(header_text).ok_or(Failure::HeaderCoding)?).ok_or(Failure::HeaderJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Failure::NoAlgorithm)?;
        let algorithm = Algorithm::parse(algorithm).ok_or(Failure::Algorithm)?;
        let key_id = text(&header, "kid", Failure::KeyId)?;
        let payload = decode(payload_text).ok_or(Failure::PayloadCoding)?;
        let payload = object(&payload).ok_or(Failure::PayloadJson)?;
        let issuer = text(&payload, "iss", Failure::IssuerType)?;
        text(&payload, "sub", Failure::SubjectType)?;
        number(&payload, "iat", Failure::IssuedType, Failure::IssuedRange)?;
        let not_before = number(&payload, "nbf", Failure::NotBeforeType, Failure::NotBeforeRange)?;
        let expiry = number(&payload, "exp", Failure::ExpiryType, Failure::ExpiryRange)?;
        text(&payload, "jti", Failure::IdType)?;
        let audiences = audiences(&payload)?;
        let signature = decode(signature).ok_or(Failure::SignatureCoding)?;
        Ok(Jwt {
            signed,
            algorithm,
            key_id,
            issuer,
            audiences,
            not_before,
            expiry,
            payload,
            payload_text,
            signature,
        })
    }
}

/// Envoy's library reads over white space.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = match text.contains(|c: char| c.is_ascii_whitespace()) {
        true => Cow::Owned(text.split_ascii_whitespace().collect::<String>()),
        false => Cow::Borrowed(text),
    };
    BASE64.decode(text.as_bytes()).ok()
}

fn object(json: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(json).ok()
}

/// A text; empty where there is none.
fn text(map: &Map<String, Value>, name: &str, otherwise: Failure) -> Result<String, Failure> {
    match map.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(otherwise),
    }
}

/// A number without its fraction; 0 where there is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is not negative and below 2^63, checked on the same line"
)]
fn number(map: &Map<String, Value>, name: &str, kind: Failure, range: Failure) -> Result<u64, Failure> {
    match map.get(name) {
        None => Ok(0),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(value) if (0.0..9_223_372_036_854_775_808.0).contains(&value) => Ok(value as u64),
            _ => Err(range),
        },
        Some(_) => Err(kind),
    }
}

fn audiences(payload: &Map<String, Value>) -> Result<Vec<String>, Failure> {
    let list = match payload.get("aud") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    list.iter().map(|value| value.as_str().map(str::to_owned).ok_or(Failure::AudienceType)).collect()
}

//! What is passed on of a token that was verified: claims for rules, headers for upstreams.

use super::token::Jwt;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use routing::{
    authn::TokenRule,
    claims::{Claim, Claims},
};
use serde_json::{Map, Number, Value};

/// The claims as rules compare them. Those that are lists with spaces between become lists.
pub(super) fn claims(rule: &TokenRule, payload: Map<String, Value>) -> Claims {
    let parted = |name: &str| rule.space_delimited.iter().any(|known| **known == *name);
    let claims = payload.into_iter().map(|(name, value)| {
        let claim = match value {
            Value::String(text) if parted(&name) => Claim::List(
                text.split(' ')
                    .filter(|part| !part.is_empty())
                    .map(|part| Claim::Text(part.into()))
                    .collect(),
            ),
            value => claim(value),
        };
        (name.into(), claim)
    });
    Claims::new(claims.collect())
}

fn claim(value: Value) -> Claim {
    match value {
        Value::String(text) => Claim::Text(text.into()),
        Value::Array(list) => Claim::List(list.into_iter().map(claim).collect()),
        Value::Object(map) => {
            Claim::Object(map.into_iter().map(|(name, value)| (name.into(), claim(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Claim::Other,
    }
}

/// The headers that a rule passes a token on in. A claim that is missing, null or empty has none.
pub(super) fn headers(rule: &TokenRule, jwt: &Jwt<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let payload = rule.payload_header.iter().map(|name| (name, Some(jwt.payload_text.to_owned())));
    let claims =
        rule.claim_headers.iter().map(|claim| (&claim.header, at(&jwt.payload, &claim.path).and_then(text)));
    let all = payload.chain(claims).filter_map(|(name, text)| {
        let value = HeaderValue::from_bytes(text?.as_bytes()).ok()?;
        Some((name.clone(), value))
    });
    all.collect()
}

fn at<'v>(payload: &'v Map<String, Value>, path: &[Box<str>]) -> Option<&'v Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(payload.get(&**first)?, |value, name| value.as_object()?.get(&**name))
}

/// As Envoy writes it: lists and objects as base64 of their JSON.
fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number_text(number)?,
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => STANDARD.encode(value.to_string()),
    };
    (!text.is_empty()).then_some(text)
}

/// Whole numbers that are not negative without a point, all others with six digits behind it: Envoy knows doubles alone.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is whole, not negative and below 2^64, checked on the line before"
)]
fn number_text(number: &Number) -> Option<String> {
    let value = number.as_f64()?;
    if (0.0..18_446_744_073_709_551_616.0).contains(&value) && value.fract() == 0.0 {
        return Some((value as u64).to_string());
    }
    Some(format!("{value:.6}"))
}

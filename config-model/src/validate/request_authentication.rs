//! What admission demands of a RequestAuthentication (Istio: ValidateRequestAuthentication, and the schema).

use serde_json::Value;

use super::{attachment, check::Check};
use crate::{
    diagnostic::Diagnostics,
    istio::{RequestAuthentication, request_authentication::JwtRule},
    meta::Resource,
};

type Policy<'a> = Check<'a, RequestAuthentication>;

pub(super) fn check(resource: &Resource<RequestAuthentication>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    attachment::check(&mut check, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    check.at_most("spec.jwtRules", spec.jwt_rules.len(), 4096);
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        check_rule(&mut check, &format!("spec.jwtRules[{index}]"), rule);
    }
}

fn check_rule(check: &mut Policy<'_>, path: &str, rule: &JwtRule) {
    not_empty(check, &format!("{path}.audiences"), &rule.audiences, "audience must be non-empty string");
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        check.error(path, "issuer or jwksUri must be non-empty string");
    }
    if !rule.jwks_uri.is_empty() && !rule.jwks.is_empty() {
        check.error(path, "only one of jwks or jwksUri can be set");
    }
    check.at_most_long(format_args!("{path}.jwksUri"), &rule.jwks_uri, 2048);
    if !rule.jwks_uri.is_empty()
        && let Err(message) = address(&rule.jwks_uri)
    {
        check.error(format!("{path}.jwksUri"), message);
    }
    if !rule.jwks.is_empty() {
        keys(check, &format!("{path}.jwks"), &rule.jwks);
    }
    for (index, header) in rule.from_headers.iter().enumerate() {
        if header.name.is_empty() {
            let path = format!("{path}.fromHeaders[{index}]");
            check.error(path, "location header name must be non-empty string");
        }
    }
    not_empty(
        check,
        &format!("{path}.fromParams"),
        &rule.from_params,
        "location query must be non-empty string",
    );
    not_empty(
        check,
        &format!("{path}.fromCookies"),
        &rule.from_cookies,
        "cookie name must be non-empty string",
    );
    let claims = &rule.space_delimited_claims;
    check.at_most(format_args!("{path}.spaceDelimitedClaims"), claims.len(), 64);
    not_empty(check, &format!("{path}.spaceDelimitedClaims"), claims, "should be at least 1 character long");
    for (index, output) in rule.output_claim_to_headers.iter().enumerate() {
        let path = format!("{path}.outputClaimToHeaders[{index}]");
        if output.header.is_empty() || output.claim.is_empty() {
            check.error(path, "outputClaimToHeaders header and claim value must be non-empty string");
        } else if !output.header.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            check.error(
                format!("{path}.header"),
                format!("header name {} is not a valid header name", output.header),
            );
        }
    }
    check.duration(format_args!("{path}.timeout"), rule.timeout);
}

fn not_empty(check: &mut Policy<'_>, path: &str, list: &[String], message: &str) {
    for (index, _) in list.iter().enumerate().filter(|(_, value)| value.is_empty()) {
        check.error(format!("{path}[{index}]"), message);
    }
}

/// An address of the web, with a port that is one (Istio: ParseJwksURI).
fn address(text: &str) -> Result<(), String> {
    let uri: http::Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        other => return Err(format!("URI scheme {:?} is not supported", other.unwrap_or_default())),
    }
    let host = uri.host().unwrap_or_default();
    let ends = |authority: &http::uri::Authority| match authority.as_str().rsplit_once(host) {
        Some((_, "")) => true,
        Some((_, port)) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    };
    match uri.authority() {
        Some(authority) if !host.is_empty() && ends(authority) => Ok(()),
        _ => Err(format!("{text:?} has no host, or a port that is none")),
    }
}

/// A set of keys or a single one. Private keys are none of a verifier's business, and are warned of.
fn keys(check: &mut Policy<'_>, path: &str, text: &str) {
    let parsed = match serde_json::from_str::<Value>(text) {
        Ok(value) => value,
        // The message of the parser would not quote the text, which may hold a private key.
        Err(error) => return check.error(path, format!("jwks parse error: {error}")),
    };
    let single = std::slice::from_ref(&parsed);
    let keys = match (parsed.get("keys"), parsed.get("kty")) {
        (Some(Value::Array(keys)), _) => keys.as_slice(),
        (None, Some(_)) => single,
        _ => return check.error(path, "jwks parse error: neither a list of keys nor a key"),
    };
    for (index, key) in keys.iter().enumerate() {
        let kind = key.get("kty").and_then(Value::as_str);
        if !matches!(kind, Some("RSA" | "EC" | "OKP" | "oct")) {
            check.error(path, format!("jwks parse error: key {index} has no kty that is known"));
        } else if kind == Some("oct") || key.get("d").is_some() {
            check.warn(
                path,
                format!("jwks key at index {index} contains private key material; only public keys are used for verification"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    fn rule(rule: &str) -> Vec<String> {
        let head =
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a}\nspec: ";
        let mut found = findings(&format!("{head}{{jwtRules: [{rule}]}}\n"));
        found.retain(|line| !line.starts_with("LIM"));
        found.iter().map(|line| line.replace("spec.jwtRules[0]", "*")).collect()
    }

    #[test]
    fn what_is_taken() {
        for good in [
            "{issuer: a}",
            "{issuer: a, jwksUri: 'https://a.example/keys'}",
            "{jwks_uri: 'http://a.example:8080/keys'}",
            r#"{issuer: a, jwks: '{"keys": [{"kty": "RSA", "e": "AQAB", "n": "AA"}]}'}"#,
            r#"{issuer: a, jwks: '{"kty": "EC"}'}"#,
            "{issuer: a, fromHeaders: [{name: x}], fromParams: [p], fromCookies: [c], presence: REQUIRED}",
            "{issuer: a, outputPayloadToHeader: x, outputClaimToHeaders: [{header: x-a_b, claim: a.b}], timeout: 3s}",
            "{issuer: a, audiences: [b], forwardOriginalToken: true, spaceDelimitedClaims: [roles]}",
        ] {
            assert_eq!(rule(good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (bad, wants) in [
            ("{}", "!IST0106 *"),
            ("{issuer: a, audiences: ['']}", "!IST0106 *.audiences[0]"),
            ("{issuer: a, jwksUri: 'ftp://a'}", "!IST0106 *.jwksUri"),
            ("{issuer: a, jwksUri: 'https://a:99999/'}", "!IST0106 *.jwksUri"),
            ("{issuer: a, jwksUri: nowhere}", "!IST0106 *.jwksUri"),
            (r#"{issuer: a, jwksUri: 'https://a/', jwks: '{"keys": []}'}"#, "!IST0106 *"),
            ("{issuer: a, jwks: '{'}", "!IST0106 *.jwks"),
            ("{issuer: a, jwks: '{}'}", "!IST0106 *.jwks"),
            (r#"{issuer: a, jwks: '{"keys": [{"kty": "new"}]}'}"#, "!IST0106 *.jwks"),
            ("{issuer: a, fromHeaders: [{prefix: x}]}", "!IST0106 *.fromHeaders[0]"),
            ("{issuer: a, fromParams: ['']}", "!IST0106 *.fromParams[0]"),
            ("{issuer: a, fromCookies: ['']}", "!IST0106 *.fromCookies[0]"),
            ("{issuer: a, spaceDelimitedClaims: ['']}", "!IST0106 *.spaceDelimitedClaims[0]"),
            ("{issuer: a, outputClaimToHeaders: [{header: x}]}", "!IST0106 *.outputClaimToHeaders[0]"),
            (
                "{issuer: a, outputClaimToHeaders: [{header: 'x y', claim: c}]}",
                "!IST0106 *.outputClaimToHeaders[0].header",
            ),
            ("{issuer: a, timeout: 0s}", "!IST0106 *.timeout"),
        ] {
            assert_eq!(rule(bad), [wants], "{bad}");
        }
    }

    #[test]
    fn private_keys_are_warned_of() {
        for key in [r#"{"kty": "RSA", "d": "x"}"#, r#"{"kty": "oct", "k": "x"}"#] {
            let found = rule(&format!("{{issuer: a, jwks: '{{\"keys\": [{key}]}}'}}"));
            assert!(
                matches!(found.as_slice(), [line] if line.ends_with("*.jwks") && !line.starts_with('!')),
                "{found:?}"
            );
        }
    }
}

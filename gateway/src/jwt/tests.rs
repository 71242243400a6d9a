//! Tokens, good and bad in every way, and what their claims become.

use super::{
    testing::{TestKey, jwks},
    token::BASE64,
    *,
};
use base64::Engine as _;
use boring::{hash::hmac_sha256, nid::Nid};
use config_model::{parse::parse, set::ResourceSet, validate::validate};
use routing::{
    claims::ClaimPath,
    compile::{Identity, compile},
};
use serde_json::{Value, json};
use std::sync::OnceLock;

const NOW: u64 = 1_800_000_000;

/// Made once: a key of RSA takes its time.
fn key() -> &'static TestKey {
    static KEY: OnceLock<TestKey> = OnceLock::new();
    KEY.get_or_init(|| TestKey::rsa("k1"))
}

fn rule(text: &str) -> TokenRule {
    let policy = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: a, namespace: istio-system}}\nspec: {{jwtRules: [{text}]}}\n"
    );
    let parsed = parse("a.yaml", policy);
    assert!(parsed.failed.is_empty(), "{:?}", parsed.diagnostics);
    let mut set = ResourceSet::new();
    set.extend(parsed.resources);
    let (compiled, _) = compile(&validate(set).0, &Identity::default());
    compiled.authentication.rules()[0].clone()
}

fn set(keys: &[&TestKey]) -> Result<KeySet, Failure> {
    KeySet::parse(&jwks(keys))
}

fn judged(rule_text: &str, token: &str) -> Result<Verified, Failure> {
    verify(&rule(rule_text), &set(&[key()]), token, NOW)
}

fn failure(token: &str) -> Option<Failure> {
    judged("{issuer: A}", token).err()
}

fn payload(more: Value) -> Value {
    let mut payload = json!({"iss": "A", "sub": "s", "exp": NOW + 600});
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    payload
}

fn token(more: Value) -> String {
    key().token("RS256", &payload(more))
}

#[test]
fn every_algorithm() {
    let (p256, p384, p521) = (
        TestKey::ec("e2", Nid::X9_62_PRIME256V1),
        TestKey::ec("e3", Nid::SECP384R1),
        TestKey::ec("e5", Nid::SECP521R1),
    );
    let ed = TestKey::ed25519("ed");
    let keys = set(&[key(), &p256, &p384, &p521, &ed]);
    let rule = rule("{issuer: A}");
    for (key, algorithm) in [
        (key(), "RS256"),
        (key(), "RS384"),
        (key(), "RS512"),
        (key(), "PS256"),
        (key(), "PS384"),
        (key(), "PS512"),
        (&p256, "ES256"),
        (&p384, "ES384"),
        (&p521, "ES512"),
        (&ed, "EdDSA"),
    ] {
        let token = key.token(algorithm, &payload(json!({})));
        assert!(verify(&rule, &keys, &token, NOW).is_ok(), "{algorithm}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut damaged = BASE64.decode(signature).unwrap();
        damaged[3] ^= 1;
        let damaged = format!("{signed}.{}", BASE64.encode(&damaged));
        assert_eq!(verify(&rule, &keys, &damaged, NOW).err(), Some(Failure::Signature), "{algorithm}");
    }
}

#[test]
fn a_shared_secret() {
    let secret = b"a secret of thirty-two characters";
    let set = KeySet::parse(&json!({"keys": [{"kty": "oct", "k": BASE64.encode(secret)}]}).to_string());
    let part = |value: Value| BASE64.encode(value.to_string().as_bytes()).trim_end_matches('=').to_owned();
    let signed = format!("{}.{}", part(json!({"alg": "HS256"})), part(payload(json!({}))));
    let good = format!("{signed}.{}", BASE64.encode(hmac_sha256(secret, signed.as_bytes()).unwrap()));
    let rule = rule("{issuer: A}");
    assert!(verify(&rule, &set, &good, NOW).is_ok());
    let bad = format!("{signed}.{}", BASE64.encode(hmac_sha256(b"x", signed.as_bytes()).unwrap()));
    assert_eq!(verify(&rule, &set, &bad, NOW).err(), Some(Failure::Signature));
    assert_eq!(
        verify(&rule, &set, &token(json!({})), NOW).err(),
        Some(Failure::Signature),
        "RS256 by a secret"
    );
}

#[test]
fn times_have_a_minute_of_play() {
    for (claims, wants) in [
        (json!({"exp": NOW - 60}), None),
        (json!({"exp": NOW - 61}), Some(Failure::Expired)),
        (json!({"exp": NOW as f64 - 60.5}), Some(Failure::Expired)),
        (json!({"exp": 0}), None),
        (json!({"nbf": NOW + 60}), None),
        (json!({"nbf": NOW + 61}), Some(Failure::NotYetValid)),
        (json!({"exp": "x"}), Some(Failure::ExpiryType)),
        (json!({"exp": -1}), Some(Failure::ExpiryRange)),
        (json!({"exp": 1e30}), Some(Failure::ExpiryRange)),
        (json!({"nbf": -5}), Some(Failure::NotBeforeRange)),
        (json!({"iat": "x"}), Some(Failure::IssuedType)),
    ] {
        assert_eq!(failure(&token(claims.clone())), wants, "{claims}");
    }
}

#[test]
fn claims_have_types() {
    for (claims, wants) in [
        (json!({"iss": 5}), Failure::IssuerType),
        (json!({"sub": 5}), Failure::SubjectType),
        (json!({"jti": 5}), Failure::IdType),
        (json!({"aud": 5}), Failure::AudienceType),
        (json!({"aud": ["a", 5]}), Failure::AudienceType),
        (json!({"iss": "B"}), Failure::UnknownIssuer),
    ] {
        assert_eq!(failure(&token(claims.clone())), Some(wants), "{claims}");
    }
}

#[test]
fn forms_are_judged_in_order() {
    let good = token(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let part = |text: &str| BASE64.encode(text);
    for (token, wants) in [
        ("abc".to_owned(), Failure::Form),
        ("a.b".to_owned(), Failure::Form),
        ("a.b.c.d".to_owned(), Failure::Form),
        ("a..c".to_owned(), Failure::Form),
        ("..".to_owned(), Failure::Form),
        (String::new(), Failure::Form),
        ("!.b.c".to_owned(), Failure::HeaderCoding),
        (format!("{}.b.c", part("[1]")), Failure::HeaderJson),
        (format!("{}.b.c", part("{}")), Failure::NoAlgorithm),
        (format!("{}.b.c", part(r#"{"alg": "none"}"#)), Failure::Algorithm),
        (format!("{}.b.c", part(r#"{"alg": "RS256", "kid": 1}"#)), Failure::KeyId),
        (format!("{header}.e.{signature}"), Failure::PayloadCoding),
        (format!("{header}.{}.{signature}", part("[1]")), Failure::PayloadJson),
        (format!("{header}.{payload}.!"), Failure::SignatureCoding),
        (format!("{header}.{}.{signature}", part(r#"{"iss": "A"}"#)), Failure::Signature),
    ] {
        assert_eq!(failure(&token), Some(wants), "{token}");
    }
    assert_eq!(failure(&format!("{good}==")), None, "padding is no fault");
}

#[test]
fn audiences_and_anybodys_issuer() {
    let of =
        |aud: Value| judged("{issuer: A, audiences: ['https://shop/']}", &token(json!({"aud": aud}))).err();
    assert_eq!((of(json!("shop")), of(json!(["x", "http://shop"]))), (None, None));
    assert_eq!(of(json!("x")), Some(Failure::Audience));
    assert_eq!(judged("{issuer: A, audiences: [x]}", &token(json!({}))).err(), Some(Failure::Audience));
    let anybody = "{jwksUri: 'https://a.example/'}";
    assert!(judged(anybody, &token(json!({"iss": "whoever"}))).is_ok());
}

#[test]
fn keys_are_chosen_by_id_and_algorithm() {
    let other = TestKey::rsa("k2");
    let with = |keys: Value, token: &str| {
        let keys = KeySet::parse(&json!({ "keys": keys }).to_string());
        verify(&rule("{issuer: A}"), &keys, token, NOW).err()
    };
    let (own, of_other) = (key().jwk(), other.jwk());
    let altered = |name: &str, value: &str| {
        let mut jwk = own.clone();
        jwk[name] = value.into();
        jwk
    };
    let good = token(json!({}));
    let unnamed = key().token_of(&json!({"alg": "RS256"}), &payload(json!({})));
    assert_eq!(with(json!([of_other]), &good), Some(Failure::NoSuchKey));
    assert_eq!(with(json!([of_other, own]), &good), None);
    assert_eq!(with(json!([of_other, own]), &unnamed), None, "without a name every key is tried");
    assert_eq!(with(json!([of_other]), &unnamed), Some(Failure::Signature));
    assert_eq!(with(json!([altered("alg", "RS512")]), &good), Some(Failure::NoSuchKey));
    assert_eq!(with(json!([altered("alg", "RS256")]), &good), None);
    assert_eq!(with(json!([altered("alg", "ES256")]), &good), Some(Failure::NoKeys));
    assert_eq!(with(json!([altered("e", "Bw")]), &good), Some(Failure::NoKeys), "an unusual exponent");
    assert_eq!(with(json!([{"kty": "new"}, {"kty": "RSA"}, own]), &good), None, "the bad are left out");
    assert_eq!(with(json!([]), &good), Some(Failure::NoKeys));
    let mut impostor = of_other.clone();
    impostor["kid"] = "k1".into();
    assert_eq!(with(json!([impostor, own]), &good), None, "one name may be two keys'");
    let ed = TestKey::ed25519("k1").jwk();
    assert_eq!(with(json!([ed]), &good), Some(Failure::SignatureLength));
}

#[test]
fn claims_become_what_rules_compare() {
    let verified = judged(
        "{issuer: A, spaceDelimitedClaims: [roles]}",
        &token(json!({"scope": " read  write", "roles": "a b", "name": "a b", "n": 1, "o": {"l": ["x"]}})),
    )
    .unwrap();
    let shown = |path: &str| {
        let path = ClaimPath::parse(&format!("@request.auth.claims{path}")).unwrap();
        format!("{:?}", verified.claims.get(&path))
    };
    assert_eq!(shown("[scope]"), r#"Some(List([Text("read"), Text("write")]))"#);
    assert_eq!(shown("[roles]"), r#"Some(List([Text("a"), Text("b")]))"#);
    assert_eq!(shown("[name]"), r#"Some(Text("a b"))"#);
    assert_eq!(shown("[n]"), "Some(Other)");
    assert_eq!(shown("[o][l]"), r#"Some(List([Text("x")]))"#);
}

#[test]
fn headers_say_claims_as_envoy_does() {
    let names = ["s", "n", "f", "neg", "big", "b", "l", "o", "o.k", "null", "empty", "missing", "o.k.x"];
    let outputs: Vec<_> = names
        .iter()
        .map(|name| format!("{{header: x-{}, claim: '{name}'}}", name.replace('.', "-")))
        .collect();
    let claims = json!({"s": "té xt", "n": 5, "f": 1.5, "neg": -3, "big": 12_345_678_901_234_567_890_u64, "b": true,
        "l": ["a", 1, {"z": 1}], "o": {"k": "v"}, "null": null, "empty": ""});
    let text =
        format!("{{issuer: A, outputPayloadToHeader: X-P, outputClaimToHeaders: [{}]}}", outputs.join(", "));
    let token = token(claims);
    let verified = judged(&text, &token).unwrap();
    let shown: Vec<_> = verified
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let payload = token.split('.').nth(1).unwrap();
    assert_eq!(
        shown,
        [
            &format!("x-p: {payload}"),
            "x-s: té xt",
            "x-n: 5",
            "x-f: 1.500000",
            "x-neg: -3.000000",
            "x-big: 12345678901234567168",
            "x-b: true",
            "x-l: WyJhIiwxLHsieiI6MX1d",
            "x-o: eyJrIjoidiJ9",
            "x-o-k: v",
        ]
    );
}

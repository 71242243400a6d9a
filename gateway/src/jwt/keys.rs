//! The keys of an issuer (RFC 7517), and what they say of a signature.
//!
//! Invariant: a key that cannot be read is left out and the others stay, as in Envoy; a set without any is an error. Which keys are
//! tried is Envoy's rule: those whose `kid` and `alg` do not speak against the token's.

use super::token::{Algorithm, BASE64, Jwt};
use base64::Engine as _;
use boring::{
    bn::BigNum,
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    error::ErrorStack,
    hash::{MessageDigest, hash},
    hmac::Hmac,
    memcmp,
    nid::Nid,
    pkey::{PKey, Public},
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Verifier},
    x509::X509,
};
use routing::authn::Failure;
use serde_json::{Map, Value};

/// What an Ed25519 key begins with where it stands in DER (RFC 8410 §4).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Bytes of an Ed25519 signature.
const ED25519_SIGNATURE: usize = 64;

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    /// Empty: it has none.
    id: String,
    /// Empty: it is for any that its kind allows.
    algorithm: String,
    material: Material,
}

enum Material {
    Rsa(PKey<Public>),
    Ec(EcKey<Public>),
    Ed25519(PKey<Public>),
    Secret(Vec<u8>),
}

impl std::fmt::Debug for Material {
    /// Its kind: one of them is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Material::Rsa(_) => "Rsa",
            Material::Ec(_) => "Ec",
            Material::Ed25519(_) => "Ed25519",
            Material::Secret(_) => "Secret",
        })
    }
}

impl KeySet {
    /// Reads a set of keys: a list under `keys`, or certificates in PEM by the names of their keys.
    ///
    /// # Errors
    /// `NoKeys` when there is none that can be used.
    pub fn parse(json: &str) -> Result<KeySet, Failure> {
        let set: Map<String, Value> = serde_json::from_str(json).map_err(|_| Failure::NoKeys)?;
        let keys: Vec<Key> = match set.get("keys") {
            Some(Value::Array(list)) => list.iter().filter_map(|key| read(key.as_object()?)).collect(),
            Some(_) => Vec::new(),
            None => set.iter().filter_map(|(id, pem)| certificate(id, pem.as_str()?)).collect(),
        };
        if keys.is_empty() { Err(Failure::NoKeys) } else { Ok(KeySet(keys)) }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of the keys signed the token.
    pub(super) fn verify(&self, jwt: &Jwt<'_>) -> Result<(), Failure> {
        let mut failure = Failure::NoSuchKey;
        for key in &self.0 {
            let other_id = !jwt.key_id.is_empty() && !key.id.is_empty() && key.id != jwt.key_id;
            let other_algorithm = !key.algorithm.is_empty() && key.algorithm != jwt.algorithm.name();
            if other_id || other_algorithm {
                continue;
            }
            failure = Failure::Signature;
            if let (Material::Ed25519(_), true) = (&key.material, jwt.signature.len() != ED25519_SIGNATURE) {
                return Err(Failure::SignatureLength);
            }
            // What the library cannot verify is not verified.
            if key.material.verify(jwt).unwrap_or(false) {
                return Ok(());
            }
        }
        Err(failure)
    }
}

impl Material {
    fn verify(&self, jwt: &Jwt<'_>) -> Result<bool, ErrorStack> {
        let (signed, signature) = (jwt.signed.as_bytes(), jwt.signature.as_slice());
        let digest = digest(jwt.algorithm);
        match self {
            Material::Rsa(key) => {
                let mut verifier = Verifier::new(digest, key)?;
                match jwt.algorithm {
                    Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => {}
                    Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => {
                        verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                        verifier.set_rsa_mgf1_md(digest)?;
                    }
                    _ => return Ok(false),
                }
                verifier.verify_oneshot(signature, signed)
            }
            Material::Ec(key) => {
                let (r, s) = signature.split_at(signature.len() / 2);
                let signature =
                    EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
                signature.verify(&hash(digest, signed)?, key)
            }
            Material::Ed25519(key) => Verifier::new_without_digest(key)?.verify_oneshot(signature, signed),
            Material::Secret(secret) => {
                if !matches!(jwt.algorithm, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512) {
                    return Ok(false);
                }
                let mut hmac = Hmac::init(secret, &digest)?;
                hmac.update(signed)?;
                let wanted = hmac.finalize()?;
                Ok(wanted.len() == signature.len() && memcmp::eq(&wanted, signature))
            }
        }
    }
}

fn digest(algorithm: Algorithm) -> MessageDigest {
    match algorithm {
        Algorithm::Es384 | Algorithm::Hs384 | Algorithm::Rs384 | Algorithm::Ps384 => MessageDigest::sha384(),
        Algorithm::Es512 | Algorithm::Hs512 | Algorithm::Rs512 | Algorithm::Ps512 => MessageDigest::sha512(),
        Algorithm::Es256 | Algorithm::Hs256 | Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::EdDsa => {
            MessageDigest::sha256()
        }
    }
}

/// A key of a list; `None`: it is none, or none that is known.
fn read(key: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let algorithm = text("alg").unwrap_or_default().to_owned();
    let is_for =
        |prefixes: &[&str]| algorithm.is_empty() || prefixes.iter().any(|p| algorithm.starts_with(p));
    let bytes = |name: &str| BASE64.decode(text(name)?).ok();
    let number = |name: &str| BigNum::from_slice(&bytes(name)?).ok();
    let material = match text("kty")? {
        "RSA" if is_for(&["RS", "PS"]) => rsa(number("n")?, number("e")?)?,
        "EC" if is_for(&["ES"]) => {
            let curve = curve(text("crv").unwrap_or_default(), &algorithm)?;
            let group = EcGroup::from_curve_name(curve).ok()?;
            let point = EcKey::from_public_key_affine_coordinates(&group, &*number("x")?, &*number("y")?);
            Material::Ec(point.ok()?)
        }
        "OKP" if text("crv") == Some("Ed25519") && (algorithm.is_empty() || algorithm == "EdDSA") => {
            let raw = bytes("x").filter(|raw| raw.len() == 32)?;
            Material::Ed25519(PKey::public_key_from_der(&[&ED25519, raw.as_slice()].concat()).ok()?)
        }
        "oct" if is_for(&["HS256", "HS384", "HS512"]) => {
            Material::Secret(bytes("k").filter(|secret| !secret.is_empty())?)
        }
        _ => return None,
    };
    Some(Key { id: text("kid").unwrap_or_default().to_owned(), algorithm, material })
}

/// Exponents other than the usual ones are refused, as Envoy does: a large one makes verifying costly.
fn rsa(modulus: BigNum, exponent: BigNum) -> Option<Material> {
    let usual = [3_u32, 65537].into_iter().filter_map(|usual| BigNum::from_u32(usual).ok());
    if !usual.into_iter().any(|usual| usual == exponent) {
        return None;
    }
    PKey::from_rsa(Rsa::from_public_components(modulus, exponent).ok()?).ok().map(Material::Rsa)
}

/// The curve that is named, or that the algorithm implies; both must agree.
fn curve(name: &str, algorithm: &str) -> Option<Nid> {
    match (name, algorithm) {
        ("P-256" | "", "ES256") | ("P-256" | "", "") => Some(Nid::X9_62_PRIME256V1),
        ("P-384" | "", "ES384") | ("P-384", "") => Some(Nid::SECP384R1),
        ("P-521" | "", "ES512") | ("P-521", "") => Some(Nid::SECP521R1),
        _ => None,
    }
}

/// A certificate, whose key is RSA's (Envoy takes them for nothing else).
fn certificate(id: &str, pem: &str) -> Option<Key> {
    let key = X509::from_pem(pem.as_bytes()).ok()?.public_key().ok()?;
    let key = key.rsa().and_then(PKey::from_rsa).ok()?;
    (!id.is_empty()).then(|| Key {
        id: id.to_owned(),
        algorithm: String::new(),
        material: Material::Rsa(key),
    })
}

//! For tests: keys, and tokens signed with them.

use super::token::BASE64;
use base64::Engine as _;
use boring::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    hash::{MessageDigest, hash},
    nid::Nid,
    pkey::{Id, PKey, Private},
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Signer},
};
use serde_json::{Value, json};

/// A private key, and the name that tokens call it by.
pub(crate) struct TestKey {
    pub(crate) id: &'static str,
    key: PKey<Private>,
}

fn text(bytes: &[u8]) -> String {
    BASE64.encode(bytes).trim_end_matches('=').to_owned()
}

impl TestKey {
    pub(crate) fn rsa(id: &'static str) -> TestKey {
        TestKey { id, key: PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap() }
    }

    pub(crate) fn ec(id: &'static str, curve: Nid) -> TestKey {
        let group = EcGroup::from_curve_name(curve).unwrap();
        TestKey { id, key: PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap() }
    }

    pub(crate) fn ed25519(id: &'static str) -> TestKey {
        TestKey { id, key: PKey::generate(Id::ED25519).unwrap() }
    }

    /// The public half, as a member of a set.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match self.key.id() {
            Id::RSA => {
                let rsa = self.key.rsa().unwrap();
                json!({"kty": "RSA", "n": text(&rsa.n().to_vec()), "e": text(&rsa.e().to_vec())})
            }
            Id::EC => {
                let ec = self.key.ec_key().unwrap();
                let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
                let mut context = BigNumContext::new().unwrap();
                let point = ec.public_key();
                point.affine_coordinates_gfp(ec.group(), &mut x, &mut y, &mut context).unwrap();
                let curve = match ec.group().curve_name().unwrap() {
                    Nid::X9_62_PRIME256V1 => "P-256",
                    Nid::SECP384R1 => "P-384",
                    _ => "P-521",
                };
                json!({"kty": "EC", "crv": curve, "x": text(&x.to_vec()), "y": text(&y.to_vec())})
            }
            _ => {
                let mut raw = [0; 32];
                let raw = self.key.raw_public_key(&mut raw).unwrap();
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(raw)})
            }
        };
        jwk["kid"] = self.id.into();
        jwk
    }

    /// A token with this payload, which names this key.
    pub(crate) fn token(&self, algorithm: &str, payload: &Value) -> String {
        self.token_of(&json!({"alg": algorithm, "kid": self.id}), payload)
    }

    /// A token with this header, whose `alg` says how it is signed.
    pub(crate) fn token_of(&self, header: &Value, payload: &Value) -> String {
        let signed =
            format!("{}.{}", text(header.to_string().as_bytes()), text(payload.to_string().as_bytes()));
        let algorithm = header["alg"].as_str().unwrap();
        let digest = match algorithm.get(2..).unwrap() {
            "384" => MessageDigest::sha384(),
            "512" => MessageDigest::sha512(),
            _ => MessageDigest::sha256(),
        };
        let bytes = signed.as_bytes();
        let signature = match self.key.id() {
            Id::RSA => {
                let mut signer = Signer::new(digest, &self.key).unwrap();
                if algorithm.starts_with("PS") {
                    signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                    signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
                    signer.set_rsa_mgf1_md(digest).unwrap();
                }
                signer.sign_oneshot_to_vec(bytes).unwrap()
            }
            Id::EC => {
                let ec = self.key.ec_key().unwrap();
                let size = i32::try_from(ec.group().degree().div_ceil(8)).unwrap() as usize;
                let signature = EcdsaSig::sign(&hash(digest, bytes).unwrap(), &ec).unwrap();
                let padded = |number: Vec<u8>| [vec![0; size - number.len()], number].concat();
                [padded(signature.r().to_vec()), padded(signature.s().to_vec())].concat()
            }
            _ => Signer::new_without_digest(&self.key).unwrap().sign_oneshot_to_vec(bytes).unwrap(),
        };
        format!("{signed}.{}", text(&signature))
    }
}

/// The set of these keys.
pub(crate) fn jwks(keys: &[&TestKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

//! Certificates for tests: self-signed, made on the spot, for one name.

use std::collections::BTreeMap;

use boring::{
    asn1::Asn1Time,
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    x509::{X509, X509Name, extension::SubjectAlternativeName},
};
use config_model::{kubernetes::Secret, scalar::SecretBytes};

use super::SecretReader;

/// Secrets of one namespace by name.
#[derive(Default)]
pub(crate) struct Secrets(pub(crate) BTreeMap<String, Secret>);

impl SecretReader for Secrets {
    fn secret(&self, _namespace: &str, name: &str) -> Option<Secret> {
        self.0.get(name).cloned()
    }
}

impl Secrets {
    pub(crate) fn with(mut self, name: &str, secret: Secret) -> Secrets {
        self.0.insert(name.into(), secret);
        self
    }
}

pub(crate) fn ecdsa(name: &str) -> Secret {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    secret(name, PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap())
}

pub(crate) fn rsa(name: &str) -> Secret {
    secret(name, PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap())
}

fn secret(name: &str, key: PKey<Private>) -> Secret {
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(0x1234).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    let names = SubjectAlternativeName::new().dns(name).build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(&names).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let mut secret = Secret::default();
    secret.data.insert("tls.crt".into(), SecretBytes::new(builder.build().to_pem().unwrap()));
    secret.data.insert("tls.key".into(), SecretBytes::new(key.private_key_to_pem_pkcs8().unwrap()));
    secret
}

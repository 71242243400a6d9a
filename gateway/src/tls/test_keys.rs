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
    x509::{
        X509, X509Builder, X509Name,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};
use config_model::{
    kubernetes::{ConfigMap, Secret},
    scalar::SecretBytes,
};

use super::SecretReader;

/// Secrets of one namespace by name.
#[derive(Default)]
pub(crate) struct Secrets(pub(crate) BTreeMap<String, Secret>);

impl SecretReader for Secrets {
    fn secret(&self, _namespace: &str, name: &str) -> Option<Secret> {
        self.0.get(name).cloned()
    }

    fn config_map(&self, _namespace: &str, _name: &str) -> Option<ConfigMap> {
        None
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

/// A certificate authority of its own.
pub(crate) struct Authority {
    pub(crate) certificate: X509,
    key: PKey<Private>,
}

/// When a certificate is good.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Expired,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = ec_key();
        let certificate = build(name, None, &key, 1, Validity::Now, |builder| {
            builder.append_extension(&BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        });
        Self { certificate, key }
    }

    /// A leaf for these names (an address as an IP name, `scheme://` as a URI), with its key.
    pub(crate) fn issue(&self, serial: u32, names: &[&str], validity: Validity) -> (X509, PKey<Private>) {
        let key = ec_key();
        let certificate = build(names[0], Some(self), &key, serial, validity, |builder| {
            let mut alternatives = SubjectAlternativeName::new();
            for name in names {
                if name.contains("://") {
                    alternatives.uri(name);
                } else if name.parse::<std::net::IpAddr>().is_ok() {
                    alternatives.ip(name);
                } else {
                    alternatives.dns(name);
                }
            }
            let context = builder.x509v3_context(Some(&self.certificate), None);
            let extension = alternatives.build(&context).unwrap();
            builder.append_extension(&extension).unwrap();
        });
        (certificate, key)
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// A revocation list, PEM; the library can read none and write none, so this is DER by hand.
    pub(crate) fn crl(&self, serials: &[u8], next_update: &str) -> Vec<u8> {
        let algorithm = der(0x30, &der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]));
        let entry = |serial: &u8| der(0x30, &[der(0x02, &[*serial]), der(0x17, b"200101000000Z")].concat());
        let entries: Vec<u8> = serials.iter().flat_map(entry).collect();
        let mut inner = [der(0x02, &[1]), algorithm.clone()].concat();
        inner.extend(self.certificate.subject_name().to_der().unwrap());
        inner.extend(der(0x17, b"200101000000Z"));
        inner.extend(der(0x18, next_update.as_bytes()));
        if !serials.is_empty() {
            inner.extend(der(0x30, &entries));
        }
        let inner = der(0x30, &inner);
        let mut signer = boring::sign::Signer::new(MessageDigest::sha256(), &self.key).unwrap();
        signer.update(&inner).unwrap();
        let mut signature = vec![0];
        signature.extend(signer.sign_to_vec().unwrap());
        let whole = der(0x30, &[inner, algorithm, der(0x03, &signature)].concat());
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(whole);
        format!("-----BEGIN X509 CRL-----\n{body}\n-----END X509 CRL-----\n").into_bytes()
    }
}

/// One element of DER.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=127 => out.push(length as u8),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// An OCSP response (DER) as a responder builds it; its signature is none, for only clients look at it. `status` is the tag of the
/// answer; an empty `next_update` leaves that out.
pub(crate) fn staple(serial: &[u8], status: u8, next_update: &str) -> Vec<u8> {
    let at = |text: &str| der(0x18, text.as_bytes());
    let algorithm = der(0x30, &der(0x06, &[0x2b, 14, 3, 2, 26]));
    let hash = der(0x04, &[7; 20]);
    let id = der(0x30, &[algorithm.clone(), hash.clone(), hash.clone(), der(0x02, serial)].concat());
    let revoked_at = if status == 0xa1 { at("20200101000000Z") } else { Vec::new() };
    let next = if next_update.is_empty() { Vec::new() } else { der(0xa0, &at(next_update)) };
    let one = der(0x30, &[id, der(status, &revoked_at), at("20200101000000Z"), next].concat());
    let data = der(0x30, &[der(0xa2, &hash), at("20200101000000Z"), der(0x30, &one)].concat());
    let basic = der(0x30, &[data, algorithm, der(0x03, &[0, 1])].concat());
    let kind = der(0x06, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1]);
    let bytes = der(0x30, &[kind, der(0x04, &basic)].concat());
    der(0x30, &[der(0x0a, &[0]), der(0xa0, &bytes)].concat())
}

fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn build(
    name: &str,
    by: Option<&Authority>,
    key: &PKey<Private>,
    serial: u32,
    validity: Validity,
    extend: impl FnOnce(&mut X509Builder),
) -> X509 {
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(serial).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(by.map_or(&*subject, |by| by.certificate.subject_name())).unwrap();
    let (from, to) = match validity {
        Validity::Now => (Asn1Time::from_unix(0).unwrap(), Asn1Time::days_from_now(1).unwrap()),
        Validity::Expired => (Asn1Time::from_unix(0).unwrap(), Asn1Time::from_unix(86_400).unwrap()),
    };
    builder.set_not_before(&from).unwrap();
    builder.set_not_after(&to).unwrap();
    builder.set_pubkey(key).unwrap();
    extend(&mut builder);
    builder.sign(by.map_or(key, |by| &by.key), MessageDigest::sha256()).unwrap();
    builder.build()
}

/// What a client sends first.
pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    use boring::ssl::{SslConnector, SslMethod};
    struct Recorder(Vec<u8>);
    impl std::io::Read for Recorder {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::WouldBlock.into())
        }
    }
    impl std::io::Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let connector = SslConnector::builder(SslMethod::tls()).unwrap().build();
    match connector.connect(name, Recorder(Vec::new())) {
        Err(boring::ssl::HandshakeError::WouldBlock(half)) => half.get_ref().0.clone(),
        _ => panic!("the handshake cannot have ended"),
    }
}

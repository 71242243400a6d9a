//! Certificates made on the spot, the Secrets that hold them, and clients that show them.

use std::net::TcpStream;

use base64::{Engine, engine::general_purpose::STANDARD};
use boring::{
    asn1::Asn1Time,
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslStream, SslVerifyMode},
    x509::{
        X509, X509Name,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};

use crate::harness::*;

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

/// Days from now, from and until which a certificate is good.
pub(crate) type Days = (i64, i64);

/// Not so few that a word is said about it.
pub(crate) const GOOD: Days = (-1, 99);

impl Pair {
    /// An authority of its own.
    pub(crate) fn authority(name: &str) -> Pair {
        build(&[("CN", name)], &[], ec_key(), None, GOOD, Role::Authority)
    }

    /// A leaf with this subject and these names (`scheme://` is a URI), signed by this one.
    pub(crate) fn issue(&self, subject: &[(&str, &str)], names: &[&str]) -> Pair {
        build(subject, names, ec_key(), Some(self), GOOD, Role::Leaf)
    }

    /// An authority below this one.
    pub(crate) fn below(&self, name: &str) -> Pair {
        build(&[("CN", name)], &[], ec_key(), Some(self), GOOD, Role::Authority)
    }

    /// A leaf with this subject and other days, signed by this one.
    pub(crate) fn issue_dated(&self, name: &str, days: Days) -> Pair {
        build(&[("CN", name)], &[], ec_key(), Some(self), days, Role::Leaf)
    }

    /// A leaf for one DNS name that nobody vouches for.
    pub(crate) fn alone(name: &str) -> Pair {
        Pair::authority("nobody").issue(&[("CN", name)], &[name])
    }

    /// The same with an RSA key.
    pub(crate) fn rsa(name: &str) -> Pair {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        build(&[("CN", name)], &[name], key, Some(&Pair::authority("nobody")), GOOD, Role::Leaf)
    }

    /// The same with other days.
    pub(crate) fn dated(name: &str, days: Days) -> Pair {
        build(&[("CN", name)], &[name], ec_key(), Some(&Pair::authority("nobody")), days, Role::Leaf)
    }

    pub(crate) fn certificate(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    pub(crate) fn key(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }

    /// A Secret of the kind `tls.crt`, with further values.
    pub(crate) fn secret(&self, namespace: &str, name: &str, more: &[(&str, &str)]) -> String {
        let (certificate, key) = (self.certificate(), self.key());
        let own = [("tls.crt", certificate.as_str()), ("tls.key", key.as_str())];
        secret(namespace, name, &[&own, more].concat())
    }
}

/// A Secret with these values.
pub(crate) fn secret(namespace: &str, name: &str, values: &[(&str, &str)]) -> String {
    let data: String =
        values.iter().map(|(key, value)| format!("  {key}: \"{}\"\n", STANDARD.encode(value))).collect();
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n{data}"
    )
}

fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Authority,
    Leaf,
}

fn build(
    subject: &[(&str, &str)],
    names: &[&str],
    key: PKey<Private>,
    issuer: Option<&Pair>,
    (from, until): Days,
    role: Role,
) -> Pair {
    let mut name = X509Name::builder().unwrap();
    for (kind, value) in subject {
        name.append_entry_by_text(kind, value).unwrap();
    }
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(fastrand::u32(1..)).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(issuer.map_or(&name, |issuer| issuer.certificate.subject_name())).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let day = |days: i64| {
        let seconds = i64::try_from(now).unwrap() + days * 24 * 3600;
        Asn1Time::from_unix(seconds).unwrap()
    };
    builder.set_not_before(&day(from)).unwrap();
    builder.set_not_after(&day(until)).unwrap();
    builder.set_pubkey(&key).unwrap();
    if role == Role::Authority {
        builder.append_extension(&BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    }
    if !names.is_empty() {
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            if name.contains("://") {
                alternatives.uri(name);
            } else {
                alternatives.dns(name);
            }
        }
        let context = builder.x509v3_context(issuer.map(|issuer| &*issuer.certificate), None);
        let extension = alternatives.build(&context).unwrap();
        builder.append_extension(&extension).unwrap();
    }
    builder.sign(issuer.map_or(&key, |issuer| &issuer.key), MessageDigest::sha256()).unwrap();
    Pair { certificate: builder.build(), key }
}

/// A TLS client of the newest version, that does not ask who the server is.
pub(crate) fn secured(
    port: u16,
    name: &str,
    own: Option<&Pair>,
) -> std::io::Result<Client<SslStream<TcpStream>>> {
    secured_as(port, name, |builder| {
        if let Some(own) = own {
            builder.set_certificate(&own.certificate).unwrap();
            builder.set_private_key(&own.key).unwrap();
        }
    })
}

/// The same with further settings.
pub(crate) fn secured_as(
    port: u16,
    name: &str,
    settings: impl FnOnce(&mut SslConnectorBuilder),
) -> std::io::Result<Client<SslStream<TcpStream>>> {
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    settings(&mut builder);
    let ssl = builder.build().configure().unwrap().verify_hostname(false);
    ssl.connect(name, connect(port)?).map(Client::over).map_err(std::io::Error::other)
}

/// The first DNS name of the certificate that a server shows; `None` where the handshake fails.
pub(crate) fn shown(port: u16, name: &str) -> Option<String> {
    name_of(&secured(port, name, None).ok()?)
}

/// The same for a connection that is open.
pub(crate) fn name_of(client: &Client<SslStream<TcpStream>>) -> Option<String> {
    let certificate = client.stream().ssl().peer_certificate()?;
    let names = certificate.subject_alt_names()?;
    names.iter().find_map(|name| name.dnsname().map(str::to_owned))
}

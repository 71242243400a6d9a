//! Client certificates: what they are checked against, and what upstreams are told of them.
//!
//! Invariant: fails closed. A server that asks for certificates and cannot check them has no acceptor; a pin or a name that is
//! written is checked on every full handshake, and sessions are not resumed from one server to another.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boring::stack::Stack;
use http::HeaderValue;
use pingora_core::tls::{
    error::ErrorStack,
    hash::{MessageDigest, hash},
    ssl::{SslContextBuilder, SslRef, SslVerifyMode},
    x509::{
        GeneralNameRef, X509, X509Name, X509NameRef, X509Ref, X509StoreContextRef, store::X509StoreBuilder,
    },
};
use routing::listener::{ClientAuth, ClientRoots};

use super::{MaterialError, certificates::SecretReader, crl, material};

/// What the clients of a server are checked against.
pub(super) struct ClientTrust {
    auth: ClientAuth,
    roots: Vec<X509>,
    /// Issuer and serial number of revoked certificates, as they are encoded.
    revoked: HashSet<(Vec<u8>, Vec<u8>)>,
    /// Over all of it, to tell whether anything changed.
    pub(super) fingerprint: [u8; 32],
}

impl fmt::Debug for ClientTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTrust").field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl ClientTrust {
    /// Loads what the server names.
    ///
    /// # Errors
    /// `Certificate` when a text cannot be parsed; anything else when it is not there.
    pub(super) fn load(auth: &ClientAuth, from: &dyn SecretReader) -> Result<ClientTrust, MaterialError> {
        let (roots, mut revoked_pem) = match &auth.roots {
            ClientRoots::Nowhere if auth.any_issuer => (Vec::new(), Vec::new()),
            ClientRoots::Nowhere => {
                return Err(MaterialError::File("the server names no authority".to_owned()));
            }
            ClientRoots::File(path) => (material::file(path)?, Vec::new()),
            ClientRoots::ConfigMap { namespace, name } => {
                let map = from.config_map(namespace, name).ok_or(MaterialError::SecretNotFound)?;
                let text = ["ca.crt", "cacert"].into_iter().find_map(|key| map.data.get(key));
                (text.ok_or(MaterialError::SecretKey("ca.crt"))?.clone().into_bytes(), Vec::new())
            }
            // Istio: credentials/kube/secrets.go `GetCaCert`.
            ClientRoots::Secret { namespace, name } => {
                let secret = from
                    .secret(namespace, &format!("{name}-cacert"))
                    .or_else(|| from.secret(namespace, name))
                    .ok_or(MaterialError::SecretNotFound)?;
                let value = |keys: [&str; 2]| keys.into_iter().find_map(|key| secret.get(key));
                let roots = value(["cacert", "ca.crt"]).filter(|text| !text.is_empty());
                let roots = roots.ok_or(MaterialError::SecretKey("ca.crt"))?.to_vec();
                (roots, value(["crl", "ca.crl"]).unwrap_or_default().to_vec())
            }
        };
        if let Some(path) = &auth.crl {
            revoked_pem.extend(material::file(path)?);
        }
        let bad = |what: &str| MaterialError::Certificate(what.to_owned());
        let digest = {
            let text = [roots.as_slice(), b"\0", revoked_pem.as_slice()].concat();
            let digest = hash(MessageDigest::sha256(), &text).map_err(|_| bad("no digest"))?;
            digest.as_ref().try_into().map_err(|_| bad("no digest"))?
        };
        let roots = X509::stack_from_pem(&roots).map_err(|_| bad("the authorities"))?;
        if roots.is_empty() && !auth.any_issuer {
            return Err(bad("no authority in it"));
        }
        let revoked = crl::revoked(&revoked_pem).ok_or_else(|| bad("the revocation list"))?;
        Ok(ClientTrust { auth: auth.clone(), roots, revoked, fingerprint: digest })
    }

    /// Makes a server ask for certificates, and check them.
    pub(super) fn demand(self: &Arc<Self>, builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        let mut names = Stack::new()?;
        for root in &self.roots {
            store.add_cert(root.clone())?;
            names.push(X509Name::from_der(&root.subject_name().to_der()?)?)?;
        }
        builder.set_verify_cert_store(store.build())?;
        builder.set_client_ca_list(names);
        // Without it no session that bears a certificate is resumed (RFC 5246's OpenSSL rule); ticket keys are the context's own.
        builder.set_session_id_context(self.fingerprint.as_slice())?;
        let mode = if self.auth.required {
            SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT
        } else {
            SslVerifyMode::PEER
        };
        let trust = self.clone();
        builder.set_verify_callback(mode, move |good, context| trust.judges(good, context));
        Ok(())
    }

    /// Called for each certificate of the chain, the leaf last.
    fn judges(&self, good: bool, context: &mut X509StoreContextRef) -> bool {
        let Some(certificate) = context.current_cert() else { return good };
        if !good && !self.auth.any_issuer {
            return false;
        }
        if self.is_revoked(certificate) {
            return false;
        }
        context.error_depth() != 0 || (self.is_named(certificate) && self.is_pinned(certificate))
    }

    fn is_revoked(&self, certificate: &X509Ref) -> bool {
        if self.revoked.is_empty() {
            return false;
        }
        let serial = certificate.serial_number().to_bn().map(|number| number.to_vec());
        match (certificate.issuer_name().to_der(), serial) {
            (Ok(issuer), Ok(serial)) => self.revoked.contains(&(issuer, serial)),
            // What cannot be looked up is not good.
            _ => true,
        }
    }

    fn is_named(&self, certificate: &X509Ref) -> bool {
        let auth = &self.auth;
        if auth.names.is_empty() && auth.trust_domains.is_empty() {
            return true;
        }
        let names = certificate.subject_alt_names();
        let mut names = names.iter().flatten();
        names.any(|own| {
            let of_mesh = own.uri().is_some_and(|uri| auth.is_of_mesh(uri));
            of_mesh || name(own).is_some_and(|name| auth.names.contains(&name))
        })
    }

    fn is_pinned(&self, certificate: &X509Ref) -> bool {
        if self.auth.spki.is_empty() && self.auth.hashes.is_empty() {
            return true;
        }
        let key = certificate.public_key().and_then(|key| key.public_key_to_der());
        let spki = key.and_then(|der| hash(MessageDigest::sha256(), &der));
        let whole = certificate.digest(MessageDigest::sha256());
        spki.is_ok_and(|digest| self.auth.spki.contains(&base64(&digest)))
            || whole.is_ok_and(|digest| self.auth.hashes.contains(&hex(&digest)))
    }
}

fn name(name: &GeneralNameRef) -> Option<String> {
    let address = || match name.ipaddress()? {
        [a, b, c, d] => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
        bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
    };
    let text = name.dnsname().or_else(|| name.uri()).or_else(|| name.email());
    text.map(str::to_owned).or_else(address)
}

/// What one element of `x-forwarded-client-cert` says besides `By` and `Hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateParts {
    /// The subject.
    pub subject: bool,
    /// The certificate.
    pub cert: bool,
    /// It and those that it came with.
    pub chain: bool,
    /// DNS names.
    pub dns: bool,
    /// URI names.
    pub uri: bool,
}

impl CertificateParts {
    /// What Istio's gateways say.
    pub const OF_GATEWAY: CertificateParts =
        CertificateParts { subject: true, cert: true, chain: false, dns: true, uri: true };
}

/// A client's certificate, as far as others are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// One element of `x-forwarded-client-cert` (Envoy's format), with all parts that logs may tell of.
    pub forwarded: HeaderValue,
    /// The same with those that upstreams are told of.
    pub told: HeaderValue,
    /// URI names, of which the first is the workload's identity in a mesh.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Subject (RFC 2253).
    pub subject: String,
    /// Who signed it (RFC 2253).
    pub issuer: String,
    /// Serial number, in hexadecimal digits.
    pub serial: String,
}

impl ClientCertificate {
    /// Of a finished handshake; `None` when the client showed none. Upstreams are told these parts.
    #[must_use]
    pub fn of(ssl: &SslRef, wanted: CertificateParts) -> Option<ClientCertificate> {
        let certificate = ssl.peer_certificate()?;
        let names = certificate.subject_alt_names();
        let all = |of: fn(&GeneralNameRef) -> Option<&str>| -> Vec<String> {
            names.iter().flatten().filter_map(of).map(str::to_owned).collect()
        };
        let (uris, dns) = (all(|name| name.uri()), all(|name| name.dnsname()));
        let (subject, issuer) =
            (distinguished(certificate.subject_name()), distinguished(certificate.issuer_name()));
        let serial =
            certificate.serial_number().to_bn().map(|number| hex(&number.to_vec())).unwrap_or_default();
        let pem = |certificate: &X509Ref| Some(escaped(&String::from_utf8(certificate.to_pem().ok()?).ok()?));
        let own = pem(&certificate)?;
        let said = |wanted: CertificateParts| {
            let mut parts = Vec::new();
            let ours = ssl.certificate().and_then(X509Ref::subject_alt_names);
            if let Some(by) = ours.iter().flatten().find_map(|name| name.uri()) {
                parts.push(format!("By={}", visible(by)));
            }
            parts.push(format!("Hash={}", hex(&certificate.digest(MessageDigest::sha256()).ok()?)));
            if wanted.cert {
                parts.push(format!("Cert=\"{own}\""));
            }
            if wanted.chain {
                let shown = ssl.peer_cert_chain().into_iter().flatten().filter_map(pem);
                let others: String = shown.filter(|other| *other != own).collect();
                parts.push(format!("Chain=\"{own}{others}\""));
            }
            if wanted.subject {
                parts.push(format!("Subject=\"{subject}\""));
            }
            if wanted.uri && uris.is_empty() {
                parts.push("URI=".to_owned());
            }
            parts.extend(uris.iter().filter(|_| wanted.uri).map(|uri| format!("URI={}", visible(uri))));
            parts.extend(dns.iter().filter(|_| wanted.dns).map(|name| format!("DNS={}", visible(name))));
            HeaderValue::from_str(&parts.join(";")).ok()
        };
        let forwarded = said(CertificateParts::OF_GATEWAY)?;
        let told = if wanted == CertificateParts::OF_GATEWAY { forwarded.clone() } else { said(wanted)? };
        Some(ClientCertificate { forwarded, told, uris, dns, subject, issuer, serial })
    }
}

/// Envoy: `urlEncodedPemEncodedPeerCertificate`.
fn escaped(pem: &str) -> String {
    let mut out = String::with_capacity(pem.len() + pem.len() / 8);
    for c in pem.chars() {
        match c {
            '\n' => out.push_str("%0A"),
            ' ' => out.push_str("%20"),
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            c => out.push(c),
        }
    }
    out
}

/// What a header can hold as it is; an issuer may have signed anything.
fn visible(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return name.into();
    }
    let escape = |b: u8| match b {
        b' ' | b'!'..=b'~' => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    name.bytes().map(escape).collect()
}

/// The library's `XN_FLAG_RFC2253`, as Envoy says names: last first, what is special or no ASCII escaped.
const RFC_2253: i32 = 0x0111_0317;

fn distinguished(name: &X509NameRef) -> String {
    name.print_ex(RFC_2253).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked of Envoy 1.40.
    #[test]
    fn names_are_said_as_envoy_says_them() {
        let said = |entries: &[(&str, &str)]| {
            let mut builder = X509Name::builder().unwrap();
            for (kind, value) in entries {
                builder.append_entry_by_text(kind, value).unwrap();
            }
            distinguished(&builder.build())
        };
        for (entries, wants) in [
            (
                &[("C", "DE"), ("O", "A, B \"q\" \\ x"), ("CN", "cli")][..],
                r#"CN=cli,O=A\, B \"q\" \\ x,C=DE"#,
            ),
            (&[("O", "Müller €"), ("CN", "# lead ")], r"CN=\# lead\ ,O=M\C3\BCller \E2\82\AC"),
            (&[("O", "<a>;b")], r"O=\<a\>\;b"),
            (&[("CN", "tab\there\u{1}\u{7f}")], r"CN=tab\09here\01\7F"),
            (
                &[("UID", "u1"), ("serialNumber", "42"), ("emailAddress", "e@x")],
                "emailAddress=e@x,serialNumber=42,UID=u1",
            ),
            (&[], ""),
        ] {
            assert_eq!(said(entries), wants);
        }
    }

    #[test]
    fn a_name_that_no_header_can_hold_is_escaped() {
        assert_eq!(visible("spiffe://td/ns/a b"), "spiffe://td/ns/a b");
        assert_eq!(visible("a\r\nb: c"), "a%0D%0Ab: c");
        assert_eq!(visible("é"), "%C3%A9");
    }
}

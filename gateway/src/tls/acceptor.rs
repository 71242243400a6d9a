//! A server's TLS settings as acceptors of the library.
//!
//! Invariant: what a client is asked for and told is settled here, before its first byte: versions, ciphers, certificate, OCSP
//! response, trust in clients. Ticket keys are each acceptor's own; the library makes them at random, takes new ones every two days
//! and still knows the ones before.

use std::{sync::Arc, time::SystemTime};

use pingora_core::tls::{
    error::ErrorStack,
    ssl::{self, AlpnError, SslAcceptor, SslMethod, SslOptions, SslVerifyMode, SslVersion},
};
use routing::listener::{ServerTls, TlsVersion};

use super::{
    client::ClientTrust,
    client_hello::Signs,
    material::{CertifiedKey, KeyType},
};

/// What Envoy serves when a server names none: forward secrecy and AEAD only.
const DEFAULT_CIPHERS: &str = "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]:\
[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";

/// In order of our preference.
const ALPN: &[u8] = b"\x02h2\x08http/1.1";

/// One acceptor a key type. BoringSSL chooses between certificates only through callbacks; we know the client's signatures
/// before the handshake.
pub(super) struct Acceptors {
    rsa: Option<SslAcceptor>,
    ecdsa: Option<SslAcceptor>,
    /// Of all that they were made of.
    pub(super) fingerprints: Vec<[u8; 32]>,
}

impl Acceptors {
    /// Acceptors for these certificates; an error is said as the library says it.
    pub(super) fn new(
        tls: &ServerTls,
        keys: &[Arc<CertifiedKey>],
        client: Option<&Arc<ClientTrust>>,
        fingerprints: Vec<[u8; 32]>,
    ) -> Result<Acceptors, String> {
        // As in Istio, the first of a type wins.
        let of = |key_type: KeyType| {
            let key = keys.iter().find(|key| key.key_type == key_type);
            key.map(|key| acceptor(tls, key, client)).transpose().map_err(|error| error.to_string())
        };
        Ok(Acceptors { rsa: of(KeyType::Rsa)?, ecdsa: of(KeyType::Ecdsa)?, fingerprints })
    }

    /// The one for a client.
    pub(super) fn of(&self, signs: Signs) -> Option<&SslAcceptor> {
        match signs {
            Signs::Ecdsa => self.ecdsa.as_ref().or(self.rsa.as_ref()),
            // A client that does not list its signatures may still take an ECDSA certificate; better than none.
            Signs::Rsa => self.rsa.as_ref().or(self.ecdsa.as_ref()),
        }
    }
}

fn acceptor(
    tls: &ServerTls,
    key: &CertifiedKey,
    client: Option<&Arc<ClientTrust>>,
) -> Result<SslAcceptor, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    // The preset forbids the old versions by option, which would win over a server that asks for them.
    builder.clear_options(SslOptions::NO_TLSV1 | SslOptions::NO_TLSV1_1);
    builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
    builder.set_min_proto_version(Some(version(tls.min_version)))?;
    builder.set_max_proto_version(Some(version(tls.max_version)))?;
    let named = tls.cipher_suites.join(":");
    // Istio drops names that it does not know; when none is left the default holds.
    if named.is_empty() || builder.set_cipher_list(&named).is_err() {
        builder.set_cipher_list(DEFAULT_CIPHERS)?;
    }
    let groups = tls.groups.join(":");
    if !groups.is_empty() {
        builder.set_curves_list(&groups)?;
    }
    match client {
        Some(client) => client.demand(&mut builder)?,
        None => builder.set_verify(SslVerifyMode::NONE),
    }
    builder.set_certificate(&key.leaf)?;
    for intermediate in &key.intermediates {
        builder.add_extra_chain_cert(intermediate.clone())?;
    }
    builder.set_private_key(&key.key)?;
    if let Some(staple) = key.staple.clone() {
        // Called for clients that ask for it.
        builder.set_status_callback(move |ssl| {
            let holds = staple.holds(SystemTime::now());
            if holds {
                ssl.set_ocsp_status(&staple.response)?;
            }
            Ok(holds)
        })?;
    }
    builder.check_private_key()?;
    builder
        .set_alpn_select_callback(|_, client| ssl::select_next_proto(ALPN, client).ok_or(AlpnError::NOACK));
    Ok(builder.build())
}

fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::V1_0 => SslVersion::TLS1,
        TlsVersion::V1_1 => SslVersion::TLS1_1,
        TlsVersion::V1_2 => SslVersion::TLS1_2,
        TlsVersion::V1_3 => SslVersion::TLS1_3,
    }
}

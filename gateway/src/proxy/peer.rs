//! A cluster's endpoint as the engine dials it.
//!
//! Invariant: connections are shared only where cluster, protocol and trust are the same. TLS that cannot be verified
//! as its specification asks is not used: it fails closed.

use super::failure::Cause;
use crate::{runtime::Cluster, tls::Trust};
use pingora_core::{
    protocols::{Digest, tls::TlsRef},
    upstreams::peer::HttpPeer,
};
use pingora_error::Result;
use routing::{
    cluster::{Address, Endpoint, UpstreamProtocol, UpstreamTls},
    host::without_port,
};
use std::{any::Any, net::IpAddr, sync::Arc, time::Duration};

/// Streams on one HTTP/2 connection to an upstream before another is opened.
const H2_STREAMS: usize = 100;
/// How often a silent HTTP/2 connection to an upstream is asked whether it is alive.
const H2_PING: Duration = Duration::from_secs(60);

/// Whether the names of an upstream's certificate include one that is wanted; found at the handshake, kept with the
/// connection.
enum Names {
    Match,
    Differ,
}

/// The peer for one attempt. `authority` is what is sent upstream: server name where the specification has none.
///
/// # Errors
/// [`Cause::UntrustedUpstream`] where verification is asked for and impossible; [`Cause::NoHealthyUpstream`] for an
/// address that cannot be dialled.
pub(super) fn build(cluster: &Cluster, endpoint: &Endpoint, authority: &str) -> Result<HttpPeer> {
    let spec = &cluster.spec;
    let sni = spec.tls.as_ref().map(|tls| server_name(tls, authority)).unwrap_or_default();
    let mut peer = match &endpoint.address {
        Address::Ip(address) => HttpPeer::new(*address, spec.tls.is_some(), sni),
        Address::Unix(path) => HttpPeer::new_uds(path, spec.tls.is_some(), sni)?,
        // Views hold resolved addresses only.
        Address::Name(..) => return Err(Cause::NoHealthyUpstream.error()),
    };
    peer.group_key = cluster.pool_key;
    let options = &mut peer.options;
    options.connection_timeout = Some(spec.connect_timeout);
    options.total_connection_timeout = Some(spec.connect_timeout);
    options.idle_timeout = spec.idle_timeout;
    match spec.protocol {
        UpstreamProtocol::Http1 => options.set_http_version(1, 1),
        UpstreamProtocol::Http2 => {
            options.set_http_version(2, 2);
            options.max_h2_streams = H2_STREAMS;
            options.h2_ping_interval = Some(H2_PING);
        }
    }
    if let Some(tls) = &spec.tls {
        verification(&mut peer, tls, &cluster.trust)?;
    }
    Ok(peer)
}

/// Checks what [`build`] left to be checked after the handshake, on new and on pooled connections alike.
///
/// # Errors
/// [`Cause::UntrustedUpstream`] where the certificate bears none of the names, or nobody looked.
pub(super) fn verify_names(tls: Option<&UpstreamTls>, digest: Option<&Digest>) -> Result<()> {
    let Some(tls) = tls else { return Err(Cause::UntrustedUpstream.explain("TLS without a specification")) };
    if tls.insecure_skip_verify || tls.subject_alt_names.is_empty() {
        return Ok(());
    }
    match digest.and_then(|d| d.ssl_digest.as_ref()?.extension.get::<Names>()) {
        Some(Names::Match) => Ok(()),
        Some(Names::Differ) => Err(Cause::UntrustedUpstream.explain("none of the subject alternative names")),
        None => Err(Cause::UntrustedUpstream.explain("subject alternative names were not looked at")),
    }
}

fn verification(peer: &mut HttpPeer, tls: &UpstreamTls, trust: &Trust) -> Result<()> {
    if tls.insecure_skip_verify {
        peer.options.verify_cert = false;
        peer.options.verify_hostname = false;
        return Ok(());
    }
    match trust {
        Trust::System => {}
        Trust::Roots(roots) => peer.options.ca = Some(roots.clone()),
        Trust::Unavailable(why) => return Err(Cause::UntrustedUpstream.explain(&**why)),
    }
    if peer.sni.is_empty() {
        // The engine does not verify a connection without a server name at all.
        return Err(Cause::UntrustedUpstream.explain("no server name to verify: set tls.sni"));
    }
    peer.options.verify_cert = true;
    peer.options.verify_hostname = tls.subject_alt_names.is_empty();
    if !tls.subject_alt_names.is_empty() {
        let wanted = tls.subject_alt_names.clone();
        peer.options.upstream_tls_handshake_complete_hook = Some(Arc::new(move |ssl: &TlsRef| {
            let names = if has_any(ssl, &wanted) { Names::Match } else { Names::Differ };
            Some(Arc::new(names) as Arc<dyn Any + Send + Sync>)
        }));
    }
    Ok(())
}

fn server_name(tls: &UpstreamTls, authority: &str) -> String {
    match &tls.sni {
        Some(sni) => sni.to_string(),
        None => {
            let host = without_port(authority);
            // RFC 6066 §3: an address is not a server name.
            let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
            if literal { String::new() } else { host.to_owned() }
        }
    }
}

fn has_any(ssl: &TlsRef, wanted: &[Arc<str>]) -> bool {
    let Some(names) = ssl.peer_certificate().and_then(|c| c.subject_alt_names()) else { return false };
    names.iter().any(|name| {
        wanted.iter().any(|w| {
            name.dnsname().is_some_and(|n| dns_matches(n, w))
                || name.uri() == Some(&**w)
                || name.ipaddress().is_some_and(|ip| w.parse::<IpAddr>().is_ok_and(|w| octets(w) == ip))
        })
    })
}

/// Envoy's exact matcher of DNS names: a wildcard in the certificate stands for one label (RFC 6125 §6.4.3).
fn dns_matches(certificate: &str, wanted: &str) -> bool {
    if certificate.eq_ignore_ascii_case(wanted) {
        return true;
    }
    match (certificate.strip_prefix("*."), wanted.split_once('.')) {
        (Some(suffix), Some((label, rest))) => !label.is_empty() && suffix.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(sni: Option<&str>) -> UpstreamTls {
        UpstreamTls {
            sni: sni.map(Into::into),
            ca_file: None,
            subject_alt_names: vec![],
            insecure_skip_verify: false,
        }
    }

    #[test]
    fn the_server_name_is_the_specifications_or_the_authoritys_host() {
        assert_eq!(server_name(&tls(Some("a.example")), "b.example:443"), "a.example");
        assert_eq!(server_name(&tls(None), "b.example:443"), "b.example");
        assert_eq!(server_name(&tls(None), "10.0.0.1:443"), "");
        assert_eq!(server_name(&tls(None), "[::1]:443"), "");
    }

    #[test]
    fn verification_that_cannot_happen_refuses_the_connection() {
        let mut peer = HttpPeer::new("127.0.0.1:1", true, String::new());
        assert!(verification(&mut peer, &tls(None), &Trust::System).is_err());
        let mut peer = HttpPeer::new("127.0.0.1:1", true, "a.example".into());
        assert!(verification(&mut peer, &tls(None), &Trust::Unavailable("no such file".into())).is_err());
        assert!(verification(&mut peer, &tls(None), &Trust::System).is_ok());
        assert!(peer.options.verify_cert && peer.options.verify_hostname);
    }

    #[test]
    fn names_nobody_looked_at_do_not_match() {
        let mut asked = tls(Some("a.example"));
        asked.subject_alt_names = vec!["spiffe://x".into()];
        assert!(verify_names(Some(&asked), None).is_err());
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(dns_matches("*.example.com", "a.example.com"));
        assert!(!dns_matches("*.example.com", "a.b.example.com"));
        assert!(!dns_matches("*.example.com", "example.com"));
    }
}

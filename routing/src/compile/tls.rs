//! TLS settings of a server that terminates: where its certificates come from, and its bounds.
//!
//! Invariant: a Secret is looked for in the namespace of the gateway's pods and nowhere else. A server without a usable
//! certificate stays: its handshakes fail until it has one, and other servers are not affected.

use super::Identity;
use crate::listener::{CertificateSource, ClientAuth, ClientRoots, ServerTls, TlsVersion};
use config_model::{
    istio::{
        credential::{Credential, ServerCertificate},
        gateway::{CIPHER_SUITES, ServerTlsMode, ServerTlsSettings, TlsProtocol},
    },
    mesh::MeshConfig,
};

/// Compiles the settings of a server that terminates; what is wrong with its credentials comes as sentences.
pub(super) fn compile(
    settings: Option<&ServerTlsSettings>,
    mesh: &MeshConfig,
    identity: &Identity,
) -> (ServerTls, Vec<String>) {
    let none = ServerTlsSettings::default();
    let settings = settings.unwrap_or(&none);
    let mut problems = Vec::new();
    let client = client(settings, identity, &mut problems);
    // Bounds are for servers with certificates of the user's own (Istio: listener.go `BuildListenerTLSContext`).
    let (certificates, bounds, defaults) = if settings.mode == ServerTlsMode::IstioMutual {
        (vec![workload(identity)], &none, None)
    } else {
        (certificates(settings, identity, &mut problems), settings, mesh.tls_defaults.as_ref())
    };
    let min = match (version(bounds.min_protocol_version), defaults) {
        (Some(version), _) => version,
        (None, defaults) => {
            defaults.and_then(|d| version(d.min_protocol_version)).unwrap_or(TlsVersion::V1_2)
        }
    };
    let written = if bounds.cipher_suites.is_empty() {
        defaults.map(|d| d.cipher_suites.as_slice()).unwrap_or_default()
    } else {
        &bounds.cipher_suites
    };
    let tls = ServerTls {
        certificates,
        min_version: min,
        max_version: version(bounds.max_protocol_version).unwrap_or(TlsVersion::V1_3),
        cipher_suites: ciphers(written),
        groups: match &bounds.ecdh_curves[..] {
            [] => defaults.map(|d| d.ecdh_curves.clone()).unwrap_or_default(),
            written => written.to_vec(),
        },
        client,
    };
    (tls, problems)
}

/// Suites of mutual TLS within the mesh (Istio: authn/utils `SupportedCiphers`).
const MESH_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// The settings with which a sidecar ends the mesh's mutual TLS: the workload's own certificate, and one of the mesh's trust domains
/// asked for (Istio: authn/utils `BuildInboundTLS`; a gateway's `ISTIO_MUTUAL` asks for any that the mesh issued).
pub(super) fn of_mesh(mesh: &MeshConfig, identity: &Identity) -> ServerTls {
    let settings = ServerTlsSettings { mode: ServerTlsMode::IstioMutual, ..ServerTlsSettings::default() };
    let (mut tls, _) = compile(Some(&settings), mesh, identity);
    let bounds = mesh.mesh_mtls.as_ref();
    if bounds.is_some_and(|bounds| bounds.min_protocol_version == TlsProtocol::V1_3) {
        tls.min_version = TlsVersion::V1_3;
    }
    let written = bounds.map(|bounds| ciphers(&bounds.cipher_suites)).unwrap_or_default();
    tls.cipher_suites = if written.is_empty() { MESH_SUITES.map(str::to_owned).to_vec() } else { written };
    if let Some(client) = &mut tls.client {
        let all = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
        for domain in all.filter(|domain| !domain.is_empty()) {
            if !client.trust_domains.contains(domain) {
                client.trust_domains.push(domain.clone());
            }
        }
    }
    tls
}

fn certificates(
    settings: &ServerTlsSettings,
    identity: &Identity,
    problems: &mut Vec<String>,
) -> Vec<CertificateSource> {
    let named = settings.certificates();
    if named.is_empty() {
        problems.push("the server names no certificate: its handshakes fail".to_owned());
    }
    let mut found = Vec::new();
    for certificate in named {
        match certificate {
            ServerCertificate::Files { certificate, key, .. } => {
                found.push(CertificateSource::Files { certificate: certificate.into(), key: key.into() });
            }
            ServerCertificate::Reference { reference, .. } => match source(reference, identity) {
                Ok(source) => found.push(source),
                Err(why) => problems.push(format!("credential {reference:?} cannot be used: {why}")),
            },
        }
    }
    found
}

/// What the mode asks of clients (Istio: gateway.go `buildGatewayListenerTLSContext`).
fn client(
    settings: &ServerTlsSettings,
    identity: &Identity,
    problems: &mut Vec<String>,
) -> Option<ClientAuth> {
    let required = match settings.mode {
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual => true,
        ServerTlsMode::OptionalMutual => false,
        ServerTlsMode::Simple | ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
    };
    let roots = if settings.mode == ServerTlsMode::IstioMutual {
        Ok(ClientRoots::File(identity.workload.roots.clone()))
    } else {
        roots(settings, identity)
    };
    let roots = roots.unwrap_or_else(|why| {
        problems.push(format!("client certificates cannot be checked, so that none is good: {why}"));
        ClientRoots::Nowhere
    });
    Some(ClientAuth {
        required,
        roots,
        crl: (!settings.ca_crl.is_empty()).then(|| settings.ca_crl.as_str().into()),
        names: settings.subject_alt_names.clone(),
        trust_domains: Vec::new(),
        spki: settings.verify_certificate_spki.clone(),
        hashes: settings
            .verify_certificate_hash
            .iter()
            .map(|hash| hash.replace(':', "").to_ascii_lowercase())
            .collect(),
        any_issuer: settings.insecure_skip_verify,
    })
}

/// Istio: `caCertCredentialName`, else the Secret of the certificate, else the file.
fn roots(settings: &ServerTlsSettings, identity: &Identity) -> Result<ClientRoots, String> {
    let first = settings.credential_names.first();
    let reference = [&settings.ca_cert_credential_name, &settings.credential_name]
        .into_iter()
        .chain(first)
        .find(|name| !name.is_empty());
    let Some(reference) = reference else {
        return match settings.ca_certificates.as_str() {
            "" => Err("the server names no authority".to_owned()),
            path => Ok(ClientRoots::File(path.into())),
        };
    };
    match Credential::parse(reference, &identity.namespace) {
        Credential::ConfigMap { namespace, name } => {
            Ok(ClientRoots::ConfigMap { namespace: namespace.into(), name: name.into() })
        }
        Credential::Workload => Ok(ClientRoots::File(identity.workload.roots.clone())),
        Credential::Secret { namespace, name } if namespace == identity.namespace => {
            let name = name.strip_suffix("-cacert").unwrap_or(name).into();
            Ok(ClientRoots::Secret { namespace: namespace.into(), name })
        }
        other => Err(unusable(other, identity)),
    }
}

fn source(reference: &str, identity: &Identity) -> Result<CertificateSource, String> {
    match Credential::parse(reference, &identity.namespace) {
        Credential::Secret { namespace, name } if namespace == identity.namespace => {
            Ok(CertificateSource::Secret { namespace: namespace.into(), name: name.into() })
        }
        Credential::Workload => Ok(workload(identity)),
        other => Err(unusable(other, identity)),
    }
}

fn workload(identity: &Identity) -> CertificateSource {
    let files = &identity.workload;
    CertificateSource::Files { certificate: files.certificate.clone(), key: files.key.clone() }
}

/// Why a reference names nothing that a server can use.
fn unusable(credential: Credential<'_>, identity: &Identity) -> String {
    match credential {
        Credential::ConfigMap { .. } => "a ConfigMap holds no private key".to_owned(),
        Credential::Unknown { scheme } => format!("{scheme}:// is not a source of certificates here"),
        Credential::Secret { .. } | Credential::Workload => {
            format!("a Secret must be in the gateway's own namespace, {:?}", identity.namespace)
        }
    }
}

fn version(written: TlsProtocol) -> Option<TlsVersion> {
    match written {
        TlsProtocol::Auto => None,
        TlsProtocol::V1_0 => Some(TlsVersion::V1_0),
        TlsProtocol::V1_1 => Some(TlsVersion::V1_1),
        TlsProtocol::V1_2 => Some(TlsVersion::V1_2),
        TlsProtocol::V1_3 => Some(TlsVersion::V1_3),
    }
}

/// Unknown and repeated names are dropped (Istio: security.go `FilterCipherSuites`).
fn ciphers(written: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for name in written {
        let known = CIPHER_SUITES.contains(&name.as_str())
            || name == "ALL"
            || name.chars().next().is_some_and(|c| !c.is_ascii_alphanumeric());
        if known && !kept.contains(name) {
            kept.push(name.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::{identity, validated};
    use config_model::mesh::MeshTlsConfig;

    fn compiled(settings: ServerTlsSettings) -> (ServerTls, Vec<String>) {
        compile(Some(&settings), &MeshConfig::default(), &identity())
    }

    #[test]
    fn secrets_are_looked_for_at_home() {
        for (reference, name) in [
            ("cert", Some("cert")),
            ("istio-system/cert", Some("cert")),
            ("kubernetes://cert", Some("cert")),
            ("kubernetes://istio-system/cert", Some("cert")),
            ("kubernetes-gateway://istio-system/cert", Some("cert")),
            ("sds://cert", Some("cert")),
            ("shop/cert", None),
            ("kubernetes-gateway://shop/cert", None),
            ("configmap://istio-system/cert", None),
            ("invalid://cert", None),
        ] {
            let settings = ServerTlsSettings { credential_name: reference.into(), ..Default::default() };
            let (tls, problems) = compiled(settings);
            let found: Vec<_> = tls.certificates.iter().collect();
            match name {
                Some(name) => assert_eq!(
                    found,
                    [&CertificateSource::Secret { namespace: "istio-system".into(), name: name.into() }]
                ),
                None => assert!(found.is_empty() && problems.len() == 1, "{reference}"),
            }
        }
    }

    #[test]
    fn the_workloads_own_certificate_has_the_meshs_bounds() {
        let files = identity().workload;
        let own = CertificateSource::Files { certificate: files.certificate.clone(), key: files.key.clone() };
        let settings = ServerTlsSettings {
            mode: ServerTlsMode::IstioMutual,
            min_protocol_version: TlsProtocol::V1_0,
            cipher_suites: vec!["AES128-SHA".to_owned()],
            ..Default::default()
        };
        let mesh = MeshConfig {
            tls_defaults: Some(MeshTlsConfig { ecdh_curves: vec!["P-256".to_owned()], ..Default::default() }),
            ..Default::default()
        };
        let (tls, problems) = compile(Some(&settings), &mesh, &identity());
        assert_eq!((tls.certificates, problems), (vec![own.clone()], Vec::new()));
        assert_eq!((tls.min_version, tls.max_version), (TlsVersion::V1_2, TlsVersion::V1_3));
        assert!(tls.cipher_suites.is_empty() && tls.groups.is_empty());
        let roots = tls.client.unwrap().roots;
        assert_eq!(roots, ClientRoots::File(files.roots.clone()));

        let (tls, problems) = compiled(ServerTlsSettings {
            mode: ServerTlsMode::Mutual,
            credential_name: "builtin://".into(),
            ..Default::default()
        });
        assert_eq!((tls.certificates, problems), (vec![own], Vec::new()));
        assert_eq!(tls.client.unwrap().roots, ClientRoots::File(files.roots));
    }

    #[test]
    fn a_sidecar_asks_for_a_name_of_the_meshs_trust_domains() {
        let plain = of_mesh(&MeshConfig::default(), &identity());
        assert_eq!(plain.client.unwrap().trust_domains, ["cluster.local"]);
        assert_eq!((plain.min_version, plain.max_version), (TlsVersion::V1_2, TlsVersion::V1_3));
        assert_eq!(plain.cipher_suites, MESH_SUITES);
        let map = "apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomain: new.example
    trustDomainAliases: [old.example, new.example, '']
    meshMTLS: {minProtocolVersion: TLSV1_3, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, NOPE]}
";
        let (read, identity) = (validated(map), identity());
        let written = read.mesh();
        let tls = of_mesh(written, &identity);
        let client = tls.client.unwrap();
        assert_eq!((client.required, client.any_issuer), (true, false));
        assert_eq!(client.trust_domains, ["new.example", "old.example"]);
        assert_eq!(
            (tls.min_version, tls.cipher_suites),
            (TlsVersion::V1_3, vec!["ECDHE-RSA-AES128-GCM-SHA256".to_owned()])
        );
        // A gateway's are of any trust domain that the mesh's authority vouches for.
        let settings = ServerTlsSettings { mode: ServerTlsMode::IstioMutual, ..Default::default() };
        assert!(compile(Some(&settings), written, &identity).0.client.unwrap().trust_domains.is_empty());
    }

    #[test]
    fn bounds_default_to_1_2_and_1_3_and_ciphers_are_filtered() {
        let settings = ServerTlsSettings {
            server_certificate: "/c".into(),
            private_key: "/k".into(),
            cipher_suites: ["AES128-SHA", "NOPE", "AES128-SHA", "ALL"].map(str::to_owned).into(),
            ..Default::default()
        };
        let (tls, problems) = compiled(settings);
        assert_eq!((tls.min_version, tls.max_version), (TlsVersion::V1_2, TlsVersion::V1_3));
        assert_eq!(tls.cipher_suites, ["AES128-SHA", "ALL"]);
        assert!(problems.is_empty());
        assert_eq!(compiled(ServerTlsSettings::default()).1.len(), 1);
    }
}

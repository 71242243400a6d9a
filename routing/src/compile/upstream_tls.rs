//! The TLS settings of a DestinationRule as a cluster's.
//!
//! Invariant: what was demanded and cannot be done is an error, never less than was demanded.

use crate::cluster::{ClientIdentity, Roots, UpstreamTls};
use config_model::istio::{
    credential::{Credential, Misplaced},
    destination_rule::{ClientTlsMode, ClientTlsSettings},
};
use std::{collections::BTreeSet, sync::Arc};

/// Value of `caCertificates` for the system's store.
const SYSTEM: &str = "system";

/// What is asked for, and what the defaults are made of.
pub(super) struct Wanted<'a> {
    pub(super) settings: Option<&'a ClientTlsSettings>,
    /// Namespace of the DestinationRule.
    pub(super) rule_namespace: &'a str,
    /// Namespace of the gateway's pods.
    pub(super) gateway_namespace: &'a str,
    pub(super) trust_domain: &'a str,
    /// `subjectAltNames` of the ServiceEntry.
    pub(super) entry_names: &'a [String],
    /// Service accounts of the endpoints, `namespace/name`.
    pub(super) accounts: &'a BTreeSet<String>,
    /// Server name in the mesh.
    pub(super) default_sni: &'a str,
}

/// TLS towards those endpoints that are of the mesh (Istio: cluster_tls.go, auto mTLS): by their own word, where no rule
/// says anything.
pub(super) fn automatic(wanted: &Wanted<'_>) -> UpstreamTls {
    let settings = ClientTlsSettings { mode: ClientTlsMode::IstioMutual, ..ClientTlsSettings::default() };
    // Nothing of this mode can be refused.
    let made = compile(&Wanted { settings: Some(&settings), ..*wanted }).ok().flatten();
    made.unwrap_or_default()
}

/// TLS as asked for (Istio: cluster_tls.go); `None`: plain text.
///
/// # Errors
/// What cannot be done, as the beginning of a sentence.
pub(super) fn compile(wanted: &Wanted<'_>) -> Result<Option<UpstreamTls>, String> {
    let Some(tls) = wanted.settings else { return Ok(None) };
    let names = if tls.subject_alt_names.is_empty() { wanted.entry_names } else { &tls.subject_alt_names };
    let names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(name.as_str())).collect();
    let sni = text(&tls.sni);
    if tls.mode == ClientTlsMode::IstioMutual {
        let spiffe = |account: &String| {
            let (namespace, name) = account.split_once('/')?;
            Some(Arc::from(format!("spiffe://{}/ns/{namespace}/sa/{name}", wanted.trust_domain)))
        };
        let names =
            if names.is_empty() { wanted.accounts.iter().filter_map(spiffe).collect() } else { names };
        return Ok(Some(UpstreamTls {
            sni: sni.or_else(|| text(wanted.default_sni)),
            roots: Roots::Workload,
            identity: ClientIdentity::Workload,
            subject_alt_names: names,
            ..UpstreamTls::default()
        }));
    }
    let mutual = match tls.mode {
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => return Ok(None),
        ClientTlsMode::Simple => false,
        ClientTlsMode::Mutual => true,
    };
    let written = tls.credential_name.as_str();
    let credential = Credential::of_client(written, wanted.gateway_namespace, wanted.rule_namespace);
    let credential = credential.transpose().map_err(|misplaced| match misplaced {
        Misplaced::Elsewhere { home } => {
            format!("tls.credentialName {written:?} of another namespace than {home:?}")
        }
        Misplaced::OfUnknownKind => unknown_kind(written),
    })?;
    let roots = match credential {
        Some(Credential::Secret { namespace, name }) => {
            Roots::Secret { namespace: namespace.into(), name: name.into() }
        }
        Some(Credential::ConfigMap { namespace, name }) => {
            Roots::ConfigMap { namespace: namespace.into(), name: name.into() }
        }
        Some(Credential::Workload | Credential::Unknown { .. }) => return Err(unknown_kind(written)),
        None => match text(&tls.ca_certificates) {
            Some(path) if &*path != SYSTEM => Roots::File(path),
            Some(_) | None => Roots::System,
        },
    };
    let identity = match (mutual, credential) {
        (false, _) => ClientIdentity::None,
        (true, Some(Credential::Secret { namespace, name })) => {
            ClientIdentity::Secret { namespace: namespace.into(), name: name.into() }
        }
        (true, Some(_)) => {
            return Err("tls.mode MUTUAL with a ConfigMap, which cannot hold a private key".to_owned());
        }
        (true, None) => match (text(&tls.client_certificate), text(&tls.private_key)) {
            (Some(certificate), Some(key)) => ClientIdentity::Files { certificate, key },
            _ => return Err("tls.mode MUTUAL without a client certificate".to_owned()),
        },
    };
    Ok(Some(UpstreamTls {
        // Istio checks the name only where the rule names neither names nor a server name. Here a server name that is
        // written is checked too, unless names are: a certificate for somebody else is never what was meant.
        verify_host: tls.subject_alt_names.is_empty() && (sni.is_none() || names.is_empty()),
        sni,
        roots,
        identity,
        crl_file: text(&tls.ca_crl),
        subject_alt_names: names,
        insecure_skip_verify: tls.insecure_skip_verify.unwrap_or(false),
    }))
}

fn unknown_kind(written: &str) -> String {
    format!("tls.credentialName {written:?} of an unknown kind")
}

fn text(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| Arc::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(yaml: &str, entry: &[&str]) -> Result<Option<UpstreamTls>, String> {
        let settings: ClientTlsSettings = config_model::parse::value(yaml).unwrap();
        let entry: Vec<String> = entry.iter().map(|name| (*name).to_owned()).collect();
        compile(&Wanted {
            settings: Some(&settings),
            rule_namespace: "shop",
            gateway_namespace: "ingress",
            trust_domain: "td",
            entry_names: &entry,
            accounts: &BTreeSet::from(["shop/a".to_owned()]),
            default_sni: "outbound_.80_._.a",
        })
    }

    #[test]
    fn the_name_is_checked_unless_others_are_written() {
        let of = |yaml, entry: &[&str]| {
            let made = tls(yaml, entry).unwrap().unwrap();
            (made.verify_host, made.subject_alt_names.len())
        };
        assert_eq!(of("{mode: SIMPLE}", &[]), (true, 0));
        assert_eq!(of("{mode: SIMPLE, sni: x}", &[]), (true, 0));
        assert_eq!(of("{mode: SIMPLE, subjectAltNames: [a, b]}", &["c"]), (false, 2));
        assert_eq!(of("{mode: SIMPLE}", &["c"]), (true, 1), "Istio: both checks apply");
        assert_eq!(of("{mode: SIMPLE, sni: x}", &["c"]), (false, 1));
    }

    #[test]
    fn certificates_come_from_files_secrets_and_config_maps() {
        let made = tls(
            "{mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca, caCrl: /crl}",
            &[],
        )
        .unwrap()
        .unwrap();
        assert_eq!(made.identity, ClientIdentity::Files { certificate: "/c".into(), key: "/k".into() });
        assert_eq!((made.roots, made.crl_file.as_deref()), (Roots::File("/ca".into()), Some("/crl")));
        let secret = |name: &str| Roots::Secret { namespace: "ingress".into(), name: name.into() };
        let made = tls("{mode: MUTUAL, credentialName: kubernetes://cred}", &[]).unwrap().unwrap();
        assert_eq!(made.roots, secret("cred"));
        assert!(matches!(made.identity, ClientIdentity::Secret { .. }));
        let made = tls("{mode: SIMPLE, credentialName: cred}", &[]).unwrap().unwrap();
        assert_eq!((made.roots, made.identity), (secret("cred"), ClientIdentity::None));
        let made = tls("{mode: SIMPLE, credentialName: 'configmap://shop/ca'}", &[]).unwrap().unwrap();
        assert_eq!(made.roots, Roots::ConfigMap { namespace: "shop".into(), name: "ca".into() });
        assert_eq!(tls("{mode: SIMPLE, caCertificates: system}", &[]).unwrap().unwrap().roots, Roots::System);
        for refused in ["other/cred", "invalid://x", "configmap://other/x"] {
            assert!(
                tls(&format!("{{mode: SIMPLE, credentialName: '{refused}'}}"), &[]).is_err(),
                "{refused}"
            );
        }
        assert!(tls("{mode: MUTUAL, credentialName: 'configmap://ca'}", &[]).is_err());
    }

    #[test]
    fn the_mesh_is_known_by_the_accounts_of_its_endpoints() {
        let made = tls("{mode: ISTIO_MUTUAL}", &[]).unwrap().unwrap();
        assert_eq!(made.subject_alt_names, ["spiffe://td/ns/shop/sa/a".into()]);
        assert_eq!((made.sni.as_deref(), made.verify_host), (Some("outbound_.80_._.a"), false));
        let made = tls("{mode: ISTIO_MUTUAL, subjectAltNames: [x]}", &[]).unwrap().unwrap();
        assert_eq!(made.subject_alt_names, ["x".into()]);
        assert!(tls("{mode: DISABLE}", &[]).unwrap().is_none());
    }
}

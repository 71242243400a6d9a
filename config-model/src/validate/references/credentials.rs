//! The certificates that Gateways name: there, usable, in date, strong, and each for one Gateway.
//!
//! A credential is in the namespace of the gateway's pods (Istio: SecretAnalyzer), not in that of the resource that names it.

use std::collections::{BTreeMap, BTreeSet};

use super::{NAMED, Out, Scene, about, certificate, listed, missing, name_of, selector_text};
use crate::{
    diagnostic::{Code, Severity},
    istio::{
        Gateway,
        credential::{Credential, ServerCertificate},
        gateway::{ServerTlsMode, ServerTlsSettings},
    },
    kubernetes::Secret,
    meta::{Kind, Resource, ResourceKey},
    validate::deployment::Pods,
};

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    for gateway in scene.validated.gateways() {
        let namespace = match scene.deployment.pods(gateway, &scene.validated) {
            Pods::In(namespace) => namespace,
            Pods::None => {
                let finding = missing(gateway, "spec.selector", "selector", &selector_text(gateway));
                out.push(finding.hint("no pod has these labels; they are those of the gateway's Deployment"));
                continue;
            }
            Pods::Unknown => {
                let finding = missing(gateway, "spec.selector", "selector", &selector_text(gateway));
                let hint = "this gateway has other labels (--labels), and no pods are given: the Gateway is not served here";
                out.push(finding.severity(Severity::Info).hint(hint));
                continue;
            }
        };
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(tls) = server.tls.as_ref().filter(|tls| tls.mode.terminates()) else { continue };
            let path = format!("spec.servers[{index}].tls");
            for certificate in tls.certificates() {
                if let ServerCertificate::Reference { field, reference } = certificate {
                    server_certificate(scene, gateway, &format!("{path}.{field}"), reference, namespace, out);
                }
            }
            authority(scene, gateway, &path, tls, namespace, out);
        }
    }
    duplicates(scene, out);
}

/// A Secret by namespace and name.
fn secret<'a>(scene: &'a Scene<'_>, namespace: &str, name: &str) -> Option<&'a Secret> {
    let key = ResourceKey::new(Kind::Secret, namespace, name);
    scene.validated.secrets().get(&key).map(|secret| &secret.spec)
}

fn server_certificate(
    scene: &Scene<'_>,
    gateway: &Resource<Gateway>,
    path: &str,
    reference: &str,
    home: &str,
    out: Out<'_>,
) {
    let missing = |hint: String| missing(gateway, path, "credentialName", reference).hint(hint);
    let (namespace, name) = match Credential::parse(reference, home) {
        Credential::Secret { namespace, name } if namespace == home => (namespace, name),
        Credential::Secret { .. } => {
            out.push(missing(format!("a Secret must be in the namespace of the gateway's pods, {home:?}")));
            return;
        }
        Credential::ConfigMap { .. } => {
            out.push(missing("a ConfigMap can hold certificate authorities only; name a Secret".to_owned()));
            return;
        }
        Credential::Workload | Credential::Unknown { .. } => return,
    };
    let Some(secret) = secret(scene, namespace, name) else {
        let elsewhere = scene.validated.secrets().keys().find(|key| key.name == name);
        let also = elsewhere
            .map(|key| format!("; there is one of that name in {:?}", key.namespace))
            .unwrap_or_default();
        out.push(missing(format!(
            "the Secret must be in the namespace of the gateway's pods, {home:?}{also}"
        )));
        return;
    };
    let chain = match certificate::chain(secret) {
        Ok(chain) => chain,
        Err(reason) => {
            let message = format!(
                "The credential referenced by the Gateway {} in namespace {home} is invalid, which can cause the traffic not to \
                 work as expected: {reason}",
                gateway.key.name
            );
            let finding = about(gateway, Code::INVALID_CREDENTIAL, path, message);
            out.push(finding.hint("put the chain into tls.crt and its key into tls.key, both as PEM"));
            return;
        }
    };
    let until =
        certificate::not_after(&chain).map(|until| format!(" (valid until {until})")).unwrap_or_default();
    let (severity, what) = match scene.dates(&chain) {
        certificate::Dates::Good => (None, String::new()),
        certificate::Dates::Soon(days) => (Some(Severity::Warning), format!("expires in {days} days")),
        certificate::Dates::Bad => (Some(Severity::Error), "is expired or not yet valid".to_owned()),
    };
    if let Some(severity) = severity {
        let message = format!("the certificate of {reference:?} {what}{until}");
        let finding = about(gateway, Code::CERTIFICATE_EXPIRY, path, message).severity(severity);
        out.push(finding.hint("renew it; a Secret that changes is used at once, without a restart"));
    }
    if let Some(weakness) = certificate::weakness(&chain) {
        let message =
            format!("the certificate of {reference:?} has {weakness}, which clients refuse or should");
        out.push(about(gateway, Code::WEAK_TLS, path, message).hint("issue one with an ECDSA P-256 key"));
    }
}

/// For client authentication, a CA: named by itself, or with the (first) Secret (semantics of Istio's SDS names).
fn authority(
    scene: &Scene<'_>,
    gateway: &Resource<Gateway>,
    path: &str,
    tls: &ServerTlsSettings,
    home: &str,
    out: Out<'_>,
) {
    if !matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        return;
    }
    let has =
        |namespace: &str, name: &str| secret(scene, namespace, name).is_some_and(certificate::has_authority);
    let named = tls.ca_cert_credential_name.as_str();
    let (field, reference, found) = if named.is_empty() {
        let Some(ServerCertificate::Reference { field, reference }) = tls.certificates().into_iter().next()
        else {
            return;
        };
        let Credential::Secret { namespace, name } = Credential::parse(reference, home) else { return };
        let beside = format!("{name}-cacert");
        // Without its certificate the Secret has been said to be missing already.
        if namespace != home || secret(scene, namespace, name).is_none() {
            return;
        }
        (field, beside.clone(), has(namespace, &beside) || has(namespace, name))
    } else {
        let found = match Credential::parse(named, home) {
            Credential::Secret { namespace, name } => has(namespace, name),
            Credential::ConfigMap { namespace, name } => {
                let key = ResourceKey::new(Kind::ConfigMap, namespace, name);
                let config_map = scene.validated.config_maps().get(&key);
                config_map.is_some_and(|map| {
                    ["ca.crt", "cacert"].iter().any(|key| map.spec.data.contains_key(*key))
                })
            }
            Credential::Workload | Credential::Unknown { .. } => return,
        };
        ("caCertCredentialName".to_owned(), named.to_owned(), found)
    };
    if !found {
        let finding = missing(gateway, format!("{path}.{field}"), "CA", &reference);
        out.push(finding.hint(format!(
            "{} checks client certificates: put the CA into its key ca.crt",
            tls.mode.as_str()
        )));
    }
}

/// One certificate in several Gateways of the same pods (Istio: CertificateAnalyzer, IST0138).
fn duplicates(scene: &Scene<'_>, out: Out<'_>) {
    let mut uses: BTreeMap<String, Vec<(&Resource<Gateway>, String)>> = BTreeMap::new();
    for gateway in scene.validated.gateways() {
        let servers = gateway.spec.servers.iter().enumerate();
        for (index, tls) in servers.filter_map(|(index, server)| Some((index, server.tls.as_ref()?))) {
            for certificate in tls.certificates() {
                let (what, field) = match certificate {
                    ServerCertificate::Reference { field, reference } => (reference.to_owned(), field),
                    ServerCertificate::Files { field, certificate, key } => {
                        (format!("{certificate}\n{key}"), field)
                    }
                };
                uses.entry(what).or_default().push((gateway, format!("spec.servers[{index}].tls.{field}")));
            }
        }
    }
    for users in uses.values().filter(|users| users.len() > 1) {
        // There are few selectors, whatever the number of Gateways.
        let mut by_selector: BTreeMap<_, BTreeSet<&ResourceKey>> = BTreeMap::new();
        for (gateway, _) in users {
            by_selector.entry(selector(gateway)).or_default().insert(&gateway.key);
        }
        let mut said = BTreeSet::new();
        for (gateway, path) in users.iter().filter(|(gateway, _)| said.insert(&gateway.key)) {
            let own = selector(gateway);
            let nested =
                by_selector.iter().filter(|(others, _)| own.iter().all(|pair| others.contains(pair)));
            let mut others = nested.flat_map(|(_, keys)| keys).filter(|key| **key != &gateway.key).peekable();
            if others.peek().is_none() {
                continue;
            }
            let others = others.map(|key| format!("{}/{}", key.namespace, key.name));
            let message = format!(
                "Duplicate certificate in multiple gateways [{}] may cause 404s if clients re-use HTTP2 connections.",
                listed(std::iter::once(name_of(gateway)).chain(others.take(2 * NAMED)), " ")
            );
            let finding = about(gateway, Code::DUPLICATE_CERTIFICATE, path.as_str(), message);
            out.push(finding.hint("put the hosts of one certificate into one Gateway"));
        }
    }
}

/// The labels that a Gateway selects pods by; none is all pods.
fn selector(gateway: &Resource<Gateway>) -> Vec<(&String, &String)> {
    gateway.spec.selector.iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        diagnostic::Diagnostic,
        parse::parse,
        scalar::Timestamp,
        set::ResourceSet,
        validate::{Deployment, validate_for},
    };

    const VALID: &str = include_str!("../../../tests/certificates/p256-until-2126.pem");
    const EXPIRED: &str = include_str!("../../../tests/certificates/p256-until-2021.pem");
    const SHORT: &str = include_str!("../../../tests/certificates/rsa1024-until-2126.pem");

    fn at(text: &str, now: &str) -> Vec<String> {
        let parsed = parse("a.yaml", text);
        assert!(parsed.failed.is_empty(), "{:?}", parsed.diagnostics);
        let set = parsed.resources.into_iter().fold(ResourceSet::new(), |mut set, resource| {
            set.insert(resource);
            set
        });
        let now: Timestamp = now.parse().unwrap();
        let deployment = Deployment { now: Some(now), ..Deployment::default() };
        let (_, found) = validate_for(set, &deployment);
        let line = |d: &Diagnostic| {
            format!("{} {} {}", d.severity, d.code, d.path).replace("spec.servers[0].tls", "tls")
        };
        found.iter().map(line).collect()
    }

    fn now(text: &str) -> Vec<String> {
        at(text, "2027-01-01T00:00:00Z")
    }

    fn gateway(tls: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g}}\nspec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  - port: {{number: 443, name: https, protocol: HTTPS}}\n    hosts: [a.com]\n    tls: {tls}\n"
        )
    }

    fn secret(namespace: &str, name: &str, data: &[(&str, &str)]) -> String {
        let data: String = data
            .iter()
            .map(|(key, value)| format!("  {key}: |\n    {}\n", value.trim_end().replace('\n', "\n    ")))
            .collect();
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData:\n{data}"
        )
    }

    fn pair(namespace: &str, certificate: &str) -> String {
        secret(namespace, "c", &[("tls.crt", certificate), ("tls.key", "k")])
    }

    #[test]
    fn a_secret_is_looked_for_where_the_pods_are() {
        let named = gateway("{mode: SIMPLE, credentialName: c}");
        assert_eq!(now(&(named.clone() + &pair("istio-system", VALID))), Vec::<String>::new());
        assert_eq!(now(&(named.clone() + &pair("default", VALID))), ["Error IST0101 tls.credentialName"]);
        assert_eq!(
            now(&gateway("{mode: SIMPLE, credentialName: default/c}")),
            ["Error IST0101 tls.credentialName"]
        );
        assert_eq!(now(&gateway("{mode: SIMPLE, credentialName: 'builtin://'}")), Vec::<String>::new());
        // Pods that serve it say where; without any, nobody knows.
        let other = named.replace("ingressgateway", "other");
        assert_eq!(now(&other), ["Info IST0101 spec.selector"]);
        let pod =
            "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: x, labels: {istio: other}}\n";
        assert_eq!(now(&(other.clone() + pod)), ["Error IST0101 tls.credentialName"]);
        assert_eq!(now(&(other.clone() + pod + &pair("x", VALID))), Vec::<String>::new());
        assert_eq!(now(&(other + &pod.replace("other", "third"))), ["Error IST0101 spec.selector"]);
    }

    #[test]
    fn certificates_are_judged() {
        let named = gateway("{mode: SIMPLE, credentialName: c}");
        let with = |certificate: &str| now(&(named.clone() + &pair("istio-system", certificate)));
        assert_eq!(with(VALID), Vec::<String>::new());
        assert_eq!(with(EXPIRED), ["Error LIM0020 tls.credentialName"]);
        assert_eq!(with(SHORT), ["Warning LIM0021 tls.credentialName"]);
        assert_eq!(with("nonsense"), ["Error IST0161 tls.credentialName"]);
        assert_eq!(
            with("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
            ["Error IST0161 tls.credentialName"]
        );
        let empty = secret("istio-system", "c", &[("tls.crt", VALID)]);
        assert_eq!(now(&(named.clone() + &empty)), ["Error IST0161 tls.credentialName"]);
        let soon = named.clone() + &pair("istio-system", EXPIRED);
        assert_eq!(at(&soon, "2020-12-20T00:00:00Z"), ["Warning LIM0020 tls.credentialName"]);
        assert_eq!(at(&soon, "2020-06-01T00:00:00Z"), Vec::<String>::new());
        assert_eq!(at(&soon, "2019-06-01T00:00:00Z"), ["Error LIM0020 tls.credentialName"]);
    }

    #[test]
    fn client_authentication_needs_a_ca() {
        let named = gateway("{mode: MUTUAL, credentialName: c}");
        let server = [("tls.crt", VALID), ("tls.key", "k")];
        let alone = secret("istio-system", "c", &server);
        assert_eq!(now(&(named.clone() + &alone)), ["Error IST0101 tls.credentialName"]);
        let inside = secret("istio-system", "c", &[server[0], server[1], ("ca.crt", VALID)]);
        assert_eq!(now(&(named.clone() + &inside)), Vec::<String>::new());
        let beside = secret("istio-system", "c-cacert", &[("cacert", VALID)]);
        assert_eq!(now(&(named + &alone + &beside)), Vec::<String>::new());
        let own = gateway("{mode: MUTUAL, credentialName: c, caCertCredentialName: 'configmap://x/ca'}");
        assert_eq!(now(&(own.clone() + &alone)), ["Error IST0101 tls.caCertCredentialName"]);
        let map =
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca, namespace: x}\ndata: {ca.crt: x}\n";
        assert_eq!(now(&(own + &alone + map)), Vec::<String>::new());
    }

    #[test]
    fn one_certificate_for_several_gateways() {
        let first = gateway("{mode: SIMPLE, credentialName: c}");
        let second = first.replace("name: g", "name: h").replace("a.com", "b.com");
        let text = first.clone() + "---\n" + &second + &pair("istio-system", VALID);
        assert_eq!(now(&text), ["Warning IST0138 tls.credentialName", "Warning IST0138 tls.credentialName"]);
        let other =
            first + "---\n" + &second.replace("ingressgateway", "other") + &pair("istio-system", VALID);
        assert_eq!(now(&other), ["Info IST0101 spec.selector"]);
    }
}

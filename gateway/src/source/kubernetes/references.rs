//! The Secrets and ConfigMaps that resources name, as far as this gateway may read them.
//!
//! Invariant: nothing outside the namespace of the gateway's pod is named, and of Gateways only those count that select this pod.
//! Whether what is named is there and usable is for validation to say.

use std::collections::BTreeSet;

use config_model::{
    annotation::{Annotations, ERROR_PAGES},
    istio::{
        Gateway,
        credential::{Credential, ServerCertificate},
    },
    meta::{Kind, Metadata, ResourceKey},
    set::AnyResource,
};

use super::{Home, store::Part};

/// What these resources name.
pub(super) fn named<'a>(home: &Home, resources: impl Iterator<Item = &'a AnyResource>) -> BTreeSet<Part> {
    let mut parts = BTreeSet::new();
    for resource in resources {
        match resource {
            AnyResource::VirtualService(service) => texts(home, &service.key, &service.meta, &mut parts),
            AnyResource::Gateway(gateway) if selects(home, &gateway.spec) => {
                texts(home, &gateway.key, &gateway.meta, &mut parts);
                for tls in gateway.spec.servers.iter().filter_map(|server| server.tls.as_ref()) {
                    for certificate in tls.certificates() {
                        if let ServerCertificate::Reference { reference, .. } = certificate {
                            name(home, Credential::parse(reference, &home.namespace), &mut parts);
                        }
                    }
                    if !tls.ca_cert_credential_name.is_empty() {
                        let authority = Credential::parse(&tls.ca_cert_credential_name, &home.namespace);
                        name(home, authority, &mut parts);
                    }
                }
            }
            AnyResource::DestinationRule(rule) => {
                let whole = rule.spec.traffic_policy.iter();
                let subsets = rule.spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
                for policy in whole.chain(subsets) {
                    let ports = policy.port_level_settings.iter().filter_map(|port| port.tls.as_ref());
                    for tls in policy.tls.iter().chain(ports) {
                        let written = tls.credential_name.as_str();
                        if let Some(Ok(credential)) =
                            Credential::of_client(written, &home.namespace, &rule.key.namespace)
                        {
                            name(home, credential, &mut parts);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    parts
}

/// The ConfigMaps that annotations take texts from: of the resource's own namespace, which must be the gateway's to be read.
fn texts(home: &Home, key: &ResourceKey, metadata: &Metadata, parts: &mut BTreeSet<Part>) {
    if key.namespace != home.namespace || !metadata.annotations.contains_key(ERROR_PAGES) {
        return;
    }
    let (policies, _) = Annotations::read(&metadata.annotations);
    for (name, _) in routing::annotated::named(&policies) {
        parts.insert(Part::named(Kind::ConfigMap, &key.namespace, name));
    }
}

/// An empty selector is every pod's; where it also has to be in the pod's namespace, the compiler says so.
fn selects(home: &Home, gateway: &Gateway) -> bool {
    gateway.selector.iter().flatten().all(|(key, value)| home.labels.get(key) == Some(value))
}

fn name(home: &Home, credential: Credential<'_>, parts: &mut BTreeSet<Part>) {
    let Some(key) = credential.key().filter(|key| key.namespace == home.namespace && !key.name.is_empty())
    else {
        return;
    };
    if key.kind == Kind::Secret && !key.name.ends_with("-cacert") {
        // Istio: the authority of a credential may be in a Secret of its own beside it.
        parts.insert(Part::named(Kind::Secret, &key.namespace, &format!("{}-cacert", key.name)));
    }
    parts.insert(Part::Named(key));
}

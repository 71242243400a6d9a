//! ServiceEntries that describe one port of one host in two ways (Istio: ConflictingServiceEntryProtocolAnalyzer), and those whose
//! TCP ports have no address to be told by (Istio: ProtocolAddressesAnalyzer).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Out, Scene, about, listed, name_of, scopes};
use crate::{diagnostic::Code, istio::ServiceEntry, meta::Resource, scalar::PortNumber};

type Entries<'a> = Vec<(&'a Arc<Resource<ServiceEntry>>, String)>;

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    conflicts(scene, out);
    if !scene.validated.mesh().allocates_addresses() {
        scene.validated.service_entries().iter().for_each(|resource| opaque(resource, out));
    }
}

/// TCP needs an address to be told by, written or allocated. A gateway needs none: it is asked for the host.
fn opaque(resource: &Resource<ServiceEntry>, out: Out<'_>) {
    if !resource.spec.addresses.is_empty() || !resource.meta.allocated_addresses.is_empty() {
        return;
    }
    for (index, port) in resource.spec.ports.iter().enumerate() {
        if port.protocol.is_empty() || port.protocol.eq_ignore_ascii_case("TCP") {
            let message = "ServiceEntry addresses are required for this protocol.";
            let path = format!("spec.ports[{index}]");
            let finding = about(resource, Code::SERVICE_ENTRY_ADDRESSES, path, message);
            let hint = "sidecars tell TCP services apart by address; for a gateway alone it does not matter";
            out.push(finding.hint(hint));
        }
    }
}

fn conflicts(scene: &Scene<'_>, out: Out<'_>) {
    let mut index: BTreeMap<(&str, &str, PortNumber), Entries<'_>> = BTreeMap::new();
    for resource in scene.validated.service_entries() {
        for scope in scopes(&resource.spec.export_to, &resource.key.namespace) {
            for host in &resource.spec.hosts {
                for port in &resource.spec.ports {
                    let entry = (resource, port.protocol.to_ascii_uppercase());
                    index.entry((scope, host.as_str(), port.number)).or_default().push(entry);
                }
            }
        }
    }
    let mut said = BTreeSet::new();
    for ((scope, host, port), own) in &index {
        let everyone = index.get(&("*", host, *port)).filter(|_| *scope != "*");
        let all: Vec<_> = own.iter().chain(everyone.into_iter().flatten()).collect();
        let protocols: BTreeSet<&str> = all.iter().map(|(_, protocol)| protocol.as_str()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> = all.iter().map(|(resource, _)| name_of(resource)).collect();
        // One that contradicts itself is refused for that.
        if names.len() < 2 {
            continue;
        }
        let protocols: Vec<&str> = protocols.into_iter().collect();
        let message = format!(
            "Multiple ServiceEntries ({}) define the same host \"{host}\" and port {port} with conflicting protocols ({}).",
            listed(names, ", "),
            protocols.join(", ")
        );
        for (resource, _) in all {
            if said.insert(&resource.key) {
                let at =
                    resource.spec.ports.iter().position(|of_entry| of_entry.number == *port).unwrap_or(0);
                let path = format!("spec.ports[{at}]");
                let finding = about(resource, Code::CONFLICTING_SERVICE_ENTRIES, path, message.as_str());
                out.push(finding.hint("give the port the same protocol in each of them"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    #[test]
    fn one_port_two_protocols() {
        let entry = |name: &str, rest: &str| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{hosts: [a.com], resolution: DNS, {rest}}}\n"
            )
        };
        let http = "ports: [{number: 80, name: a, protocol: HTTP}]";
        let tls = "ports: [{number: 80, name: a, protocol: TLS}]";
        let both = ["IST0177 spec.ports[0]", "IST0177 spec.ports[0]"];
        assert_eq!(findings(&(entry("a", http) + &entry("b", tls))), both);
        assert_eq!(findings(&(entry("a", http) + &entry("b", &http.to_lowercase()))), Vec::<String>::new());
        let private = format!("exportTo: ['.'], {tls}");
        assert_eq!(findings(&(entry("a", http) + &entry("b", &private))), both);
        let other = format!("exportTo: [other], {tls}");
        let mine = format!("exportTo: ['.'], {http}");
        assert_eq!(findings(&(entry("a", &mine) + &entry("b", &other))), Vec::<String>::new());
    }
    #[test]
    fn addresses_that_sidecars_are_given() {
        let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec: {hosts: [a.com], resolution: DNS, ports: [{number: 80, name: a}]}\n";
        assert_eq!(findings(entry), ["IST0134 spec.ports[0]"]);
        let with = |metadata: &str| {
            findings(&format!(
                "{entry}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: 'defaultConfig: {{proxyMetadata: {{{metadata}}}}}'}}\n"
            ))
        };
        let capture = r#"ISTIO_META_DNS_CAPTURE: "true""#;
        let allocate = r#"ISTIO_META_DNS_AUTO_ALLOCATE: "true""#;
        assert_eq!(with(&format!("{capture}, {allocate}")), Vec::<String>::new());
        assert_eq!(with(capture).len() + with(allocate).len(), 2);
    }
}

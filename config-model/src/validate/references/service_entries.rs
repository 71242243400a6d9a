//! ServiceEntries that describe one port of one host in two ways (Istio: ConflictingServiceEntryProtocolAnalyzer).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Out, Scene, about, listed, name_of};
use crate::{diagnostic::Code, istio::ServiceEntry, meta::Resource, scalar::PortNumber};

type Entries<'a> = Vec<(&'a Arc<Resource<ServiceEntry>>, String)>;

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    let mut index: BTreeMap<(&str, &str, PortNumber), Entries<'_>> = BTreeMap::new();
    for resource in scene.validated.service_entries() {
        for scope in scopes(resource) {
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

fn scopes(resource: &Resource<ServiceEntry>) -> BTreeSet<&str> {
    let own = resource.key.namespace.as_str();
    let list = &resource.spec.export_to;
    if list.is_empty() || list.iter().any(|entry| entry == "*") {
        return BTreeSet::from(["*"]);
    }
    list.iter().map(|entry| if entry == "." { own } else { entry.as_str() }).collect()
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
}

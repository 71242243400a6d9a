//! Gateways that ask for the same port and host of the same pods (Istio: ConflictingGatewayAnalyzer, IST0145).
//!
//! Of a server that this gateway drops for that reason it is said where it is dropped; here is the rest: the one that it lost to,
//! servers that are merged although two Gateways claim one host, and Gateways of other pods.

use std::collections::{BTreeMap, BTreeSet};

use super::{NAMED, Out, Scene, about, listed, name_of, selector_text};
use crate::{
    diagnostic::{Code, Diagnostic},
    istio::{Gateway, gateway::Server},
    meta::Resource,
    scalar::{PortNumber, Protocol, labels::is_subset_of},
};

/// A server of a Gateway.
struct Claim<'a> {
    gateway: &'a Resource<Gateway>,
    /// Its place in the order of age, oldest first.
    age: usize,
    /// Whether this gateway serves it.
    ours: bool,
    /// Plain HTTP, which is merged with its like.
    plain: bool,
}

impl<'a> Claim<'a> {
    fn new(scene: &Scene<'_>, age: usize, gateway: &'a Resource<Gateway>, server: &Server) -> Claim<'a> {
        let protocol = Protocol::parse(&server.port.protocol);
        Claim {
            gateway,
            age,
            ours: scene.deployment.serves(gateway) && !scene.validated.is_rejected(&gateway.key),
            plain: server.tls.is_none() && protocol.is_some_and(Protocol::is_http),
        }
    }

    /// Both are this gateway's, and are more than plain HTTP: then the younger one is dropped, which is said there.
    fn is_dropped_for(&self, other: &Claim<'_>) -> bool {
        self.ours && other.ours && other.age < self.age && !(self.plain && other.plain)
    }
}

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    // Same port, bind and host string; whose pods they are is compared within such a group.
    let mut claims: BTreeMap<(Option<PortNumber>, &str, String), Vec<Claim<'_>>> = BTreeMap::new();
    for (age, gateway) in scene.validated.gateways().iter().enumerate() {
        for server in &gateway.spec.servers {
            for host in &server.hosts {
                let key = (server.port.number, server.bind.as_str(), normal(gateway, &host.to_string()));
                claims.entry(key).or_default().push(Claim::new(scene, age, gateway, server));
            }
        }
    }
    for (age, gateway) in scene.validated.gateways().iter().enumerate() {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let own = Claim::new(scene, age, gateway, server);
            let mut others: BTreeSet<String> = BTreeSet::new();
            for host in &server.hosts {
                let key = (server.port.number, server.bind.as_str(), normal(gateway, &host.to_string()));
                let of_others = claims.get(&key).into_iter().flatten().filter(|other| other.age != age);
                let conflicting = of_others
                    .filter(|other| !own.is_dropped_for(other) && share_pods(scene, gateway, other.gateway));
                others.extend(conflicting.take(NAMED).map(|other| name_of(other.gateway)));
            }
            if !others.is_empty() {
                out.push(finding(gateway, index, server, others));
            }
        }
    }
}

fn finding(
    gateway: &Resource<Gateway>,
    index: usize,
    server: &Server,
    others: BTreeSet<String>,
) -> Diagnostic {
    let hosts: Vec<String> = server.hosts.iter().map(ToString::to_string).collect();
    let port = server.port.number.map_or(0, PortNumber::get);
    let message = format!(
        "Conflict with gateways {} (workload selector {}, port {port}, hosts {}).",
        listed(others, ","),
        selector_text(gateway),
        hosts.join(",")
    );
    let finding = about(gateway, Code::CONFLICTING_GATEWAYS, format!("spec.servers[{index}].hosts"), message);
    finding.hint("keep the host in one of them, and let VirtualServices of all name that one")
}

/// `.` is the Gateway's own namespace, `*/` is none.
fn normal(gateway: &Resource<Gateway>, host: &str) -> String {
    match host.split_once('/') {
        Some((".", host)) => format!("{}/{host}", gateway.key.namespace),
        Some(("*", host)) => host.to_owned(),
        _ => host.to_owned(),
    }
}

/// Whether one pod serves both: equal selectors, or nested ones with a pod that both select.
fn share_pods(scene: &Scene<'_>, a: &Resource<Gateway>, b: &Resource<Gateway>) -> bool {
    let empty = BTreeMap::new();
    let (of_a, of_b) =
        (a.spec.selector.as_ref().unwrap_or(&empty), b.spec.selector.as_ref().unwrap_or(&empty));
    let nested = is_subset_of(of_a, of_b) || is_subset_of(of_b, of_a);
    let serves = |labels| is_subset_of(of_a, labels) && is_subset_of(of_b, labels);
    of_a == of_b
        || (nested
            && (serves(&scene.deployment.labels)
                || scene.validated.pods().values().any(|pod| serves(&pod.meta.labels))))
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    fn gateways(list: &[(&str, &str)]) -> Vec<String> {
        let text: String = list
            .iter()
            .enumerate()
            .map(|(index, (selector, server))| {
                format!(
                    "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g{index}}}\nspec:\n  selector: {selector}\n  servers:\n  - {{port: {{number: 80, name: http, protocol: HTTP}}, {server}}}\n"
                )
            })
            .collect();
        let mut found = findings(&text);
        found.retain(|line| line.starts_with("IST0145"));
        found
    }

    #[test]
    fn claims() {
        let (ours, theirs) = ("{istio: ingressgateway}", "{istio: other}");
        let both = ["IST0145 spec.servers[0].hosts", "IST0145 spec.servers[0].hosts"];
        assert_eq!(gateways(&[(ours, "hosts: [a.com]"), (ours, "hosts: [a.com, b.com]")]), both);
        assert_eq!(gateways(&[(ours, "hosts: [a.com]"), (ours, "hosts: ['*/a.com']")]), both);
        assert_eq!(gateways(&[(theirs, "hosts: [a.com]"), (theirs, "hosts: [a.com]")]), both);
        let none = Vec::<String>::new();
        assert_eq!(gateways(&[(ours, "hosts: [a.com]"), (theirs, "hosts: [a.com]")]), none);
        assert_eq!(gateways(&[(ours, "hosts: [a.com]"), (ours, "hosts: ['*.com']")]), none);
        assert_eq!(gateways(&[(ours, "hosts: [a.com]"), (ours, "hosts: [a.com], bind: 10.0.0.1")]), none);
        assert_eq!(
            gateways(&[
                (ours, "hosts: [a.com]"),
                ("{app: istio-ingressgateway, istio: ingressgateway}", "hosts: [a.com]")
            ]),
            both
        );
    }
}

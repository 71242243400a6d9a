//! Where rules of VirtualServices send to: hosts, ports and subsets that must be there, and delegates.

use super::{Out, Scene, about, missing, resolve_short_name};
use crate::{
    diagnostic::{Code, Diagnostic},
    istio::{VirtualService, virtual_service::Destination},
    meta::{Kind, Resource, ResourceKey},
    validate::check::At,
};

/// What one VirtualService sends to.
pub(super) fn of(scene: &Scene<'_>, resource: &Resource<VirtualService>, out: Out<'_>) {
    // Rules of one VirtualService tend to send to one place.
    let mut good: Option<&Destination> = None;
    each(resource, |path, destination, what| {
        if good == Some(destination) {
            return;
        }
        let before = out.len();
        if let Some(finding) = destination_of(scene, resource, path, destination, what) {
            out.push(finding);
        }
        if let Some(finding) = subset_of(scene, resource, path, destination, what) {
            out.push(finding);
        }
        if out.len() == before {
            good = Some(destination);
        }
    });
}

/// The VirtualServices whose rules others take. Istio says nothing here: the rule is dropped in silence.
pub(super) fn delegates(scene: &Scene<'_>, out: Out<'_>) {
    for (resource, _) in scene.virtual_services().filter(|(_, facts)| facts.delegates) {
        delegates_of(scene, resource, out);
    }
}

/// What a destination is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Route,
    Mirror,
}

/// Walks over all destinations with the paths of their fields.
fn each<'r>(resource: &'r Resource<VirtualService>, mut visit: impl FnMut(At<'_>, &'r Destination, Use)) {
    let spec = &resource.spec;
    for (rule, route) in spec.http.iter().enumerate() {
        let path = format_args!("spec.http[{rule}]");
        for (index, to) in route.route.iter().enumerate() {
            visit(format_args!("{path}.route[{index}].destination"), &to.destination, Use::Route);
        }
        if let Some(mirror) = &route.mirror {
            visit(format_args!("{path}.mirror"), mirror, Use::Mirror);
        }
        for (index, mirror) in route.mirrors.iter().enumerate() {
            visit(format_args!("{path}.mirrors[{index}].destination"), &mirror.destination, Use::Mirror);
        }
    }
    let tls = spec.tls.iter().map(|route| &route.route).enumerate().map(|(rule, to)| ("tls", rule, to));
    let tcp = spec.tcp.iter().map(|route| &route.route).enumerate().map(|(rule, to)| ("tcp", rule, to));
    for (kind, rule, routes) in tls.chain(tcp) {
        for (index, to) in routes.iter().enumerate() {
            visit(
                format_args!("spec.{kind}[{rule}].route[{index}].destination"),
                &to.destination,
                Use::Route,
            );
        }
    }
}

fn destination_of(
    scene: &Scene<'_>,
    resource: &Resource<VirtualService>,
    path: At<'_>,
    destination: &Destination,
    what: Use,
) -> Option<Diagnostic> {
    let (registry, own) = (scene.registry(), resource.key.namespace.as_str());
    let host = resolve_short_name(&destination.host, own, registry.domain);
    let Some(ports) = registry.ports(&host, own, &resource.spec.export_to) else {
        let what = if what == Use::Mirror { "mirror host" } else { "host" };
        let mut finding = missing(resource, format!("{path}.host"), what, destination.host.as_str());
        finding.hint = registry.hint(&host);
        return Some(finding);
    };
    let known = || ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match destination.port_number() {
        Some(port) if !ports.contains(&port) => {
            let hint = match ports.is_empty() {
                true => "it has no ports".to_owned(),
                false => format!("its ports are {}", known()),
            };
            let name = format!("{}:{port}", destination.host);
            Some(missing(resource, format!("{path}.port"), "host:port", &name).hint(hint))
        }
        None if ports.len() > 1 => {
            let message = format!(
                "This VirtualService routes to a service {:?} that exposes multiple ports [{}]. Specifying a port in the \
                 destination is required to disambiguate.",
                destination.host.as_str(),
                known()
            );
            let hint = format!("add port.number: one of {}", known());
            Some(about(resource, Code::PORT_REQUIRED, format!("{path}.host"), message).hint(hint))
        }
        _ => None,
    }
}

fn subset_of(
    scene: &Scene<'_>,
    resource: &Resource<VirtualService>,
    path: At<'_>,
    destination: &Destination,
    what: Use,
) -> Option<Diagnostic> {
    let host = resolve_short_name(&destination.host, &resource.key.namespace, scene.domain());
    if destination.subset.is_empty() || scene.registry().has_subset(&host, &destination.subset) {
        return None;
    }
    let what = if what == Use::Mirror { "mirror" } else { "host" };
    let what = format!("{what}+subset in destinationrule");
    let name = format!("{}+{}", destination.host, destination.subset);
    let finding = missing(resource, format!("{path}.subset"), &what, &name);
    Some(finding.hint(format!("define the subset in a DestinationRule for {host}")))
}

fn delegates_of(scene: &Scene<'_>, resource: &Resource<VirtualService>, out: Out<'_>) {
    for (index, route) in resource.spec.http.iter().enumerate() {
        let Some(delegate) = &route.delegate else { continue };
        let own = &resource.key.namespace;
        let namespace = if delegate.namespace.is_empty() { own } else { &delegate.namespace };
        let key = ResourceKey::new(Kind::VirtualService, namespace.as_str(), delegate.name.as_str());
        if !scene.validated.contains(&key) {
            let message = format!("Delegate VirtualService not found: \"{namespace}/{}\"", delegate.name);
            let path = format!("spec.http[{index}].delegate");
            out.push(about(resource, Code::DELEGATE_NOT_FOUND, path, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{VS, findings};

    fn to(destination: &str, rest: &str) -> Vec<String> {
        let vs = format!("{VS}  hosts: [a.com]\n  http:\n  - route: [{{destination: {destination}}}]\n");
        let mut found = findings(&format!("{vs}{rest}"));
        found.retain(|line| line.contains("http[0]"));
        found.into_iter().map(|line| line.replace("spec.http[0].route[0].destination", "to")).collect()
    }

    const SERVICES: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n\
        ---\napiVersion: v1\nkind: Service\nmetadata: {name: two, namespace: x}\nspec: {ports: [{name: a, port: 80}, {name: b, port: 81}]}\n\
        ---\napiVersion: v1\nkind: Service\nmetadata: {name: hidden, namespace: x, annotations: {networking.istio.io/exportTo: '.'}}\nspec: {ports: [{port: 80}]}\n\
        ---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: w, namespace: x}\nspec: {hosts: ['*.wild.com'], ports: [{number: 443, name: tls, protocol: TLS}]}\n\
        ---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: p, namespace: x}\nspec: {hosts: [private.com], exportTo: ['.'], ports: [{number: 443, name: tls, protocol: TLS}]}\n\
        ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {host: s, subsets: [{name: v1}]}\n";

    #[test]
    fn hosts_ports_and_subsets() {
        for (destination, finds) in [
            ("{host: s}", vec![]),
            ("{host: s.default.svc.cluster.local, port: {number: 80}}", vec![]),
            ("{host: t}", vec!["IST0101 to.host"]),
            ("{host: s, port: {number: 81}}", vec!["IST0101 to.port"]),
            ("{host: two.x.svc.cluster.local}", vec!["IST0112 to.host"]),
            ("{host: two.x.svc.cluster.local, port: {number: 81}}", vec![]),
            ("{host: hidden.x.svc.cluster.local}", vec!["IST0101 to.host"]),
            ("{host: a.wild.com}", vec![]),
            ("{host: wild.com}", vec!["IST0101 to.host"]),
            ("{host: private.com}", vec!["IST0101 to.host"]),
            ("{host: s, subset: v1}", vec![]),
            ("{host: s, subset: v2}", vec!["IST0101 to.subset"]),
        ] {
            assert_eq!(to(destination, SERVICES), finds, "{destination}");
        }
    }

    #[test]
    fn delegates() {
        let text = format!("{VS}  hosts: [a.com]\n  http:\n  - delegate: {{name: nope}}\n");
        assert_eq!(findings(&text), ["LIM0014 spec.http[0].delegate"]);
    }
}

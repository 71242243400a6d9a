//! What admission demands of a WorkloadEntry, alone or in a ServiceEntry (Istio: validateWorkloadEntry, and the schema).

use super::{
    check::{At, Check},
    names,
};
use crate::{diagnostic::Diagnostics, istio::WorkloadEntry, meta::Resource};

/// What an address may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// IP addresses and unix sockets: resolution STATIC.
    Addresses,
    /// IP addresses and names: resolution DNS.
    Names,
    /// All of them: it is not known what the entry will be for.
    Any,
    /// All of them, or none: the template of entries that register themselves.
    AnyOrNone,
}

pub(super) fn check(resource: &Resource<WorkloadEntry>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    check_entry(&mut check, format_args!("spec"), &resource.spec, Takes::Any);
}

pub(super) fn check_entry<T>(check: &mut Check<'_, T>, path: At<'_>, entry: &WorkloadEntry, takes: Takes) {
    address(check, path, entry, takes);
    check.at_most(format_args!("{path}.ports"), entry.ports.len(), 128);
    for name in entry.ports.keys() {
        if name.len() > 62 || !names::is_label(name) {
            check.error(format!("{path}.ports.{name}"), format!("invalid port name: {name}"));
        }
    }
    check.at_most(format_args!("{path}.labels"), entry.labels.len(), 256);
    check.labels(format_args!("{path}.labels"), &entry.labels);
    for (field, text, limit) in [
        ("address", &entry.address, 256),
        ("network", &entry.network, 2048),
        ("locality", &entry.locality, 2048),
        ("serviceAccount", &entry.service_account, 253),
    ] {
        check.at_most_long(format_args!("{path}.{field}"), text, limit);
    }
}

fn address<T>(check: &mut Check<'_, T>, path: At<'_>, entry: &WorkloadEntry, takes: Takes) {
    let address = entry.address.as_str();
    let at = format_args!("{path}.address");
    if address.is_empty() {
        match (takes, entry.network.is_empty()) {
            (Takes::AnyOrNone, _) => {}
            (_, true) => check.error(path, "address is required"),
            // Names are resolved, so there must be one.
            (Takes::Names, false) => {
                check.error(path, "endpoint address \"\" is not a valid FQDN or an IP address");
            }
            (_, false) => check.warn(path, format!("address is unset with network {:?}", entry.network)),
        }
    } else if let Some(socket) = address.strip_prefix("unix://") {
        if takes == Takes::Names {
            let message = format!("endpoint address {address:?} is not a valid FQDN or an IP address");
            check.refuse(at, message, "a unix socket needs resolution STATIC");
            return;
        }
        if !names::is_unix_address(socket) {
            check.error(at, format!("{socket} is not an absolute path to a file"));
        }
        if !entry.ports.is_empty() {
            check.error(format!("{path}.ports"), format!("unix endpoint {address} must not include ports"));
        }
    } else if !names::is_ip(address) {
        if takes == Takes::Addresses {
            let message = format!("endpoint address {address:?} is not a valid IP address");
            check.refuse(at, message, "use resolution DNS for names");
        } else if !names::is_dns_name(address) {
            check.error(at, format!("endpoint address {address:?} is not a valid FQDN or an IP address"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    #[test]
    fn entries() {
        let head = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a}\nspec: ";
        for (spec, finds) in [
            ("{address: 1.2.3.4, ports: {http: 80}, labels: {a: b}}", vec![]),
            ("{address: a.com}", vec![]),
            ("{address: 'unix:///a/b'}", vec![]),
            ("{address: 'unix://@a'}", vec![]),
            ("{}", vec!["!IST0106 spec"]),
            ("{network: n}", vec!["IST0133 spec"]),
            ("{address: a_b}", vec!["!IST0106 spec.address"]),
            ("{address: 'unix://a'}", vec!["!IST0106 spec.address"]),
            ("{address: 'unix:///a/'}", vec!["!IST0106 spec.address"]),
            ("{address: 'unix:///a', ports: {http: 80}}", vec!["!IST0106 spec.ports"]),
            ("{address: 1.2.3.4, ports: {a_b: 80}}", vec!["!IST0106 spec.ports.a_b"]),
            ("{address: 1.2.3.4, labels: {a: '*'}}", vec!["!IST0106 spec.labels.a"]),
        ] {
            assert_eq!(findings(&format!("{head}{spec}\n")), finds, "{spec}");
        }
        let long = format!("{head}{{address: 1.2.3.4, serviceAccount: {}}}\n", "a".repeat(254));
        assert_eq!(findings(&long), ["!IST0106 spec.serviceAccount"]);
    }
}

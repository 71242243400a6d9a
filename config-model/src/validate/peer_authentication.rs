//! What admission demands of a PeerAuthentication (Istio: ValidatePeerAuthentication). It has no effect on a gateway.

use super::{attachment, check::Check};
use crate::{diagnostic::Diagnostics, istio::PeerAuthentication, meta::Resource};

pub(super) fn check(resource: &Resource<PeerAuthentication>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.labels.is_empty());
    if !selects && !spec.port_level_mtls.is_empty() {
        let message = "mesh/namespace peer authentication cannot have port level mTLS";
        check.refuse("spec.portLevelMtls", message, "add a selector with the labels of the pods");
    }
    for port in spec.port_level_mtls.keys() {
        if !(1..=65535).contains(port) {
            check.error(format!("spec.portLevelMtls.{port}"), "port must be in range 1..65535");
        }
    }
    attachment::selector(&mut check, spec.selector.as_ref());
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    #[test]
    fn what_is_refused() {
        let head = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: ";
        for (spec, wants) in [
            ("{mtls: {mode: STRICT}}", vec![]),
            ("{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: DISABLE}, '81': {}}}", vec![]),
            ("{portLevelMtls: {8080: {mode: DISABLE}}}", vec!["!IST0106 spec.portLevelMtls"]),
            (
                "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {}}}",
                vec!["!IST0106 spec.portLevelMtls.0"],
            ),
            ("{selector: {matchLabels: {a: 'b*'}}}", vec!["!IST0106 spec.selector.matchLabels"]),
        ] {
            let mut found = findings(&format!("{head}{spec}\n"));
            // That it has no effect on a gateway.
            found.retain(|line| !line.starts_with("LIM"));
            assert_eq!(found, wants, "{spec}");
        }
    }
}

//! `exportTo`: which namespaces may see a resource.
//!
//! Invariant: what counts is the namespace of the gateway's pods, never that of a Gateway resource (Istio:
//! push_context.go `VirtualServicesForGateway`).

use std::collections::BTreeSet;

/// How a resource reaches the gateway's namespace. Orders as VirtualServices are considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub(super) enum Reach {
    /// Private to the namespace that both are in.
    Private,
    /// Exported to the gateway's namespace by name.
    Named,
    /// Exported to everyone.
    Public,
    /// Not visible.
    Hidden,
}

/// How a resource of namespace `own` reaches namespace `proxy`; an empty list is the mesh's default.
pub(super) fn reach<S: AsRef<str>>(export_to: &[S], default: &[String], own: &str, proxy: &str) -> Reach {
    let export = exports(export_to, default, own);
    if export.contains("*") {
        Reach::Public
    } else if !export.contains(proxy) {
        Reach::Hidden
    } else if own == proxy {
        Reach::Private
    } else {
        Reach::Named
    }
}

/// The namespaces of an `exportTo`, `.` resolved; `*` stays, `~` is nobody.
pub(super) fn exports<'a, S: AsRef<str>>(
    export_to: &'a [S],
    default: &'a [String],
    own: &'a str,
) -> BTreeSet<&'a str> {
    let resolve = |entry: &'a str| match entry.trim() {
        "." => Some(own),
        "~" | "" => None,
        other => Some(other),
    };
    if export_to.is_empty() {
        default.iter().filter_map(|entry| resolve(entry)).collect()
    } else {
        export_to.iter().filter_map(|entry| resolve(entry.as_ref())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_namespace_decides() {
        let everyone = vec!["*".to_owned()];
        let of = |list: &[&str], own| reach(list, &everyone, own, "ingress");
        assert_eq!(of(&[], "shop"), Reach::Public);
        assert_eq!(of(&["."], "shop"), Reach::Hidden);
        assert_eq!(of(&["."], "ingress"), Reach::Private);
        assert_eq!(of(&["ingress", "x"], "shop"), Reach::Named);
        assert_eq!(of(&["~"], "ingress"), Reach::Hidden);
        assert_eq!(of(&[".", "*"], "shop"), Reach::Public);
        assert_eq!(reach::<&str>(&[], &[".".to_owned()], "shop", "ingress"), Reach::Hidden);
    }
}

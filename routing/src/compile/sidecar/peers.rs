//! Whether the workload beside a sidecar takes mutual TLS, plain text, or both (PeerAuthentication).
//!
//! Invariant: the narrower policy beats the wider (port, workload, namespace, mesh), of equals the oldest; `UNSET` is what the wider says,
//! and where nobody says anything both are taken (Istio: policy_applier.go `ComposePeerAuthentication`).

use crate::compile::Identity;
use config_model::{
    istio::{
        PeerAuthentication,
        peer_authentication::{MutualTls, MutualTlsMode},
    },
    meta::Resource,
    scalar::labels::is_subset_of,
    validate::Validated,
};
use std::{collections::BTreeMap, sync::Arc};

/// What is asked of who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Mode {
    /// TLS is not ended here.
    Disable,
    /// A certificate of the mesh, or plain text.
    Permissive,
    /// A certificate of the mesh.
    Strict,
}

/// What is asked on each port of the workload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Peers {
    mode: Mode,
    ports: BTreeMap<u16, Mode>,
}

impl Peers {
    /// Of the policies that are for the workload.
    pub(super) fn new(input: &Validated, identity: &Identity) -> Self {
        let root = input.mesh().root_namespace.as_str();
        let mut all: Vec<_> = input.set().peer_authentications().values().collect();
        all.sort_by(|a, b| a.age().cmp(&b.age()));
        let of = |namespace: &str, selected: bool| -> Option<&Arc<Resource<PeerAuthentication>>> {
            let found = all.iter().find(|policy| {
                let labels = policy.spec.selector.as_ref().map(|selector| &selector.labels);
                let labels = labels.filter(|labels| !labels.is_empty());
                policy.key.namespace == namespace
                    && labels.is_some() == selected
                    && labels.is_none_or(|labels| is_subset_of(labels, &identity.labels))
            });
            found.copied()
        };
        let own = identity.namespace.as_str();
        let elsewhere = own != root;
        let of_workload = elsewhere.then(|| of(own, true)).flatten();
        let levels = [of(root, false), elsewhere.then(|| of(own, false)).flatten(), of_workload];
        let mode = levels
            .into_iter()
            .flatten()
            .fold(Mode::Permissive, |outer, policy| mode(policy.spec.mtls, outer));
        let ports = of_workload.into_iter().flat_map(|policy| &policy.spec.port_level_mtls);
        let ports = ports.filter_map(|(port, mtls)| {
            Some((u16::try_from(*port).ok().filter(|port| *port > 0)?, self::mode(Some(*mtls), mode)))
        });
        Self { mode, ports: ports.collect() }
    }

    /// What is asked on a port of the workload; `None`: on one that nobody names.
    pub(super) fn on(&self, port: Option<u16>) -> Mode {
        port.and_then(|port| self.ports.get(&port)).copied().unwrap_or(self.mode)
    }

    /// The ports that are named.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }
}

fn mode(written: Option<MutualTls>, outer: Mode) -> Mode {
    match written.unwrap_or_default().mode {
        MutualTlsMode::Unset => outer,
        MutualTlsMode::Disable => Mode::Disable,
        MutualTlsMode::Permissive => Mode::Permissive,
        MutualTlsMode::Strict => Mode::Strict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::validated;

    fn policy(namespace: &str, name: &str, day: u8, spec: &str) -> String {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2024-01-{day:02}T00:00:00Z'}}\nspec: {{{spec}}}\n"
        )
    }

    fn peers(policies: &[String]) -> Peers {
        let labels = [("app".to_owned(), "a".to_owned())].into();
        let identity = Identity { namespace: "shop".into(), labels, ..Identity::default() };
        Peers::new(&validated(&policies.concat()), &identity)
    }

    #[test]
    fn the_narrower_says_and_unset_asks_the_wider() {
        assert_eq!(peers(&[]).on(None), Mode::Permissive);
        let mesh = policy("istio-system", "mesh", 1, "mtls: {mode: STRICT}");
        assert_eq!(peers(std::slice::from_ref(&mesh)).on(Some(80)), Mode::Strict);
        let namespace = policy("shop", "ns", 1, "mtls: {mode: DISABLE}");
        assert_eq!(peers(&[mesh.clone(), namespace.clone()]).on(None), Mode::Disable);
        let unset = policy("shop", "ns", 1, "mtls: {mode: UNSET}");
        assert_eq!(peers(&[mesh.clone(), unset]).on(None), Mode::Strict);
        let workload = policy(
            "shop",
            "w",
            3,
            "selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}, 81: {mode: UNSET}}",
        );
        let all = peers(&[mesh.clone(), namespace.clone(), workload.clone()]);
        assert_eq!(
            [None, Some(80), Some(81), Some(82)].map(|port| all.on(port)),
            [Mode::Strict, Mode::Disable, Mode::Strict, Mode::Strict]
        );
        assert_eq!(all.ports().collect::<Vec<_>>(), [80, 81]);
        let older = policy("shop", "x", 2, "selector: {matchLabels: {app: a}}, mtls: {mode: PERMISSIVE}");
        assert_eq!(peers(&[workload, older]).on(Some(80)), Mode::Permissive);
        let of_others = policy("shop", "o", 1, "selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}");
        let elsewhere = policy("other", "e", 1, "mtls: {mode: STRICT}");
        assert_eq!(peers(&[of_others, elsewhere]).on(None), Mode::Permissive);
    }
}

//! The values of Istio's labels.
//!
//! Invariant: a label that is not known is `unknown`, but for a revision, which is `latest` (istio_stats.cc). Made when metrics are
//! read, never for a request.

use super::{
    series::{Outcome, RequestProtocol},
    target::{Place, Principals},
};
use crate::telemetry::{flags::Flags, identity::Identity, names};
use std::borrow::Cow;

pub(super) const UNKNOWN: &str = "unknown";
const LATEST: &str = "latest";

/// Labels that all metrics have; the first of each list of names.
pub(super) const COMMON: usize = 20;

/// What a series says besides where its requests went.
pub(super) enum Told {
    /// Requests of one outcome: all labels.
    Requests(Outcome),
    /// Connections with these flags: no status.
    Connections(Flags),
    /// Messages of gRPC: the common ones alone.
    Messages,
}

/// Names and values of labels.
pub(super) type Pairs<'p> = Vec<(&'static str, Cow<'p, str>)>;

/// Labels of series, for one gateway.
pub(super) struct Labels<'i> {
    identity: &'i Identity,
}

impl<'i> Labels<'i> {
    pub(super) fn of(identity: &'i Identity) -> Self {
        Self { identity }
    }

    /// Names and values, in the order of [`names::HTTP_LABELS`].
    pub(super) fn pairs<'p>(&'p self, place: &'p Place, told: &Told) -> Pairs<'p> {
        let mut pairs = Vec::with_capacity(names::HTTP_LABELS.len());
        let mut labels = names::HTTP_LABELS.into_iter();
        for (name, value) in labels.by_ref().take(COMMON).zip(self.common(place)) {
            pairs.push((name, Cow::Borrowed(value)));
        }
        let (protocol, code, grpc, flags) = match told {
            Told::Messages => return pairs,
            Told::Requests(outcome) => {
                let grpc = outcome.grpc_status().map(|status| status.to_string()).unwrap_or_default();
                (outcome.protocol(), Some(outcome.code().to_string()), Some(grpc), outcome.flags())
            }
            Told::Connections(flags) => (RequestProtocol::Tcp, None, None, *flags),
        };
        // The source side never knows what the destination's proxy does: the policy is unknown. A destination has the caller's name by
        // mutual TLS only.
        let policy = match (place.inbound, &place.principals.source) {
            (false, _) => UNKNOWN,
            (true, Some(_)) => "mutual_tls",
            (true, None) => "none",
        };
        let rest = [
            Some(protocol.as_str().into()),
            code.map(Cow::Owned),
            grpc.map(Cow::Owned),
            Some(flags.to_string().into()),
            Some(policy.into()),
        ];
        pairs.extend(labels.zip(rest).filter_map(|(name, value)| Some((name, value?))));
        pairs
    }

    fn common<'a>(&'a self, place: &'a Place) -> [&'a str; COMMON] {
        if place.inbound {
            return self.inbound(place);
        }
        let Identity { workload: own, cluster } = self.identity;
        let Principals { source, destination } = &place.principals;
        let peer = place.workload.as_deref();
        let of_peer = |value: fn(&routing::cluster::Workload) -> &str| known(peer.map_or("", value), UNKNOWN);
        // A name in a certificate tells more of the namespace than what is registered.
        let peer_namespace = destination
            .as_deref()
            .and_then(namespace_of)
            .unwrap_or_else(|| peer.map_or("", |workload| &workload.namespace));
        let service = place.service.as_ref();
        let service_namespace = service.map_or("", |service| &*service.namespace);
        [
            "source",
            known(&own.name, UNKNOWN),
            known(&own.canonical_service, UNKNOWN),
            known(&own.canonical_revision, LATEST),
            known(&own.namespace, UNKNOWN),
            source.as_deref().unwrap_or(UNKNOWN),
            known(&own.app, UNKNOWN),
            known(&own.version, UNKNOWN),
            known(cluster, UNKNOWN),
            of_peer(|peer| &peer.name),
            known(peer_namespace, UNKNOWN),
            destination.as_deref().unwrap_or(UNKNOWN),
            of_peer(|peer| &peer.app),
            of_peer(|peer| &peer.version),
            service.map_or(UNKNOWN, |service| &*service.host),
            of_peer(|peer| &peer.canonical_service),
            known(peer.map_or("", |peer| &peer.canonical_revision), LATEST),
            service.map_or(UNKNOWN, |service| &*service.name),
            known(if service_namespace.is_empty() { peer_namespace } else { service_namespace }, UNKNOWN),
            // Every endpoint that is found here is of this cluster.
            if peer.is_some() { known(cluster, UNKNOWN) } else { UNKNOWN },
        ]
    }

    /// What came to the workload itself. Of who called no more is known than a certificate says.
    fn inbound<'a>(&'a self, place: &'a Place) -> [&'a str; COMMON] {
        let Identity { workload: own, cluster } = self.identity;
        let Principals { source, destination } = &place.principals;
        let service = place.service.as_ref();
        let service_namespace = service.map_or("", |service| &*service.namespace);
        [
            "destination",
            UNKNOWN,
            UNKNOWN,
            LATEST,
            source.as_deref().and_then(namespace_of).unwrap_or(UNKNOWN),
            source.as_deref().unwrap_or(UNKNOWN),
            UNKNOWN,
            UNKNOWN,
            UNKNOWN,
            known(&own.name, UNKNOWN),
            known(&own.namespace, UNKNOWN),
            destination.as_deref().unwrap_or(UNKNOWN),
            known(&own.app, UNKNOWN),
            known(&own.version, UNKNOWN),
            known(service.map_or("", |service| &*service.host), UNKNOWN),
            known(&own.canonical_service, UNKNOWN),
            known(&own.canonical_revision, LATEST),
            known(service.map_or("", |service| &*service.name), UNKNOWN),
            known(if service_namespace.is_empty() { &own.namespace } else { service_namespace }, UNKNOWN),
            known(cluster, UNKNOWN),
        ]
    }
}

fn known<'a>(value: &'a str, otherwise: &'a str) -> &'a str {
    if value.is_empty() { otherwise } else { value }
}

/// The namespace in `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn namespace_of(principal: &str) -> Option<&str> {
    let (_, rest) = principal.split_once("/ns/")?;
    rest.split('/').next().filter(|namespace| !namespace.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Flag, istio::target::Service};
    use routing::cluster::Workload;
    use std::{collections::BTreeMap, sync::Arc};

    fn text(place: &Place, told: &Told) -> BTreeMap<String, String> {
        let identity = Identity {
            workload: Workload {
                name: "edge".into(),
                namespace: "istio-system".into(),
                ..Workload::default()
            },
            ..Identity::default()
        };
        let labels = Labels::of(&identity);
        let pairs = labels.pairs(place, told);
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    }

    fn service() -> Service {
        Service { host: "a.shop.svc.cluster.local".into(), name: "a".into(), namespace: "shop".into() }
    }

    #[test]
    fn a_request_that_went_nowhere_has_every_label_too() {
        let nowhere =
            Place { service: None, workload: None, principals: Principals::default(), inbound: false };
        let outcome = Outcome::new(RequestProtocol::Http, 404, None, Flags::default());
        let all = text(&nowhere, &Told::Requests(outcome));
        assert_eq!(all.len(), 25);
        for (name, value) in &all {
            let wanted = match name.as_str() {
                "reporter" => "source",
                "source_workload" => "edge",
                "source_workload_namespace" => "istio-system",
                "source_cluster" => "Kubernetes",
                "source_canonical_revision" | "destination_canonical_revision" => "latest",
                "request_protocol" => "http",
                "response_code" => "404",
                "response_flags" => "-",
                "grpc_response_status" => "",
                _ => "unknown",
            };
            assert_eq!(value, wanted, "{name}");
        }
    }

    #[test]
    fn a_workload_names_itself_and_its_certificate_names_its_namespace() {
        let labels = [("app".to_owned(), "a".to_owned()), ("version".to_owned(), "v1".to_owned())].into();
        let workload = Workload::of("a-v1", "shop", &labels);
        let mut place = Place {
            service: Some(service()),
            workload: Some(Arc::new(workload)),
            principals: Principals {
                source: Some("spiffe://cluster.local/ns/istio-system/sa/edge".into()),
                destination: Some("spiffe://cluster.local/ns/other/sa/a".into()),
            },
            inbound: false,
        };
        let mut flags = Flags::default();
        flags.insert(Flag::UpstreamOverflow);
        let all = text(&place, &Told::Connections(flags));
        assert_eq!(all.len(), 23);
        for (name, value) in [
            ("destination_workload", "a-v1"),
            ("destination_workload_namespace", "other"),
            ("destination_app", "a"),
            ("destination_version", "v1"),
            ("destination_canonical_service", "a"),
            ("destination_canonical_revision", "v1"),
            ("destination_service", "a.shop.svc.cluster.local"),
            ("destination_service_name", "a"),
            ("destination_service_namespace", "shop"),
            ("destination_cluster", "Kubernetes"),
            ("destination_principal", "spiffe://cluster.local/ns/other/sa/a"),
            ("source_principal", "spiffe://cluster.local/ns/istio-system/sa/edge"),
            ("request_protocol", "tcp"),
            ("response_flags", "UO"),
            ("connection_security_policy", "unknown"),
        ] {
            assert_eq!(all[name], value, "{name}");
        }
        place.principals = Principals::default();
        assert_eq!(text(&place, &Told::Messages)["destination_workload_namespace"], "shop");
        assert_eq!(text(&place, &Told::Messages).len(), COMMON);
    }

    #[test]
    fn what_comes_to_the_workload_is_told_by_the_destination() {
        let mut place = Place {
            service: Some(service()),
            workload: None,
            principals: Principals {
                source: Some("spiffe://cluster.local/ns/other/sa/b".into()),
                destination: None,
            },
            inbound: true,
        };
        let all = text(&place, &Told::Connections(Flags::default()));
        for (name, value) in [
            ("reporter", "destination"),
            ("source_workload", "unknown"),
            ("source_workload_namespace", "other"),
            ("source_principal", "spiffe://cluster.local/ns/other/sa/b"),
            ("destination_workload", "edge"),
            ("destination_workload_namespace", "istio-system"),
            ("destination_service", "a.shop.svc.cluster.local"),
            ("destination_service_namespace", "shop"),
            ("destination_cluster", "Kubernetes"),
            ("connection_security_policy", "mutual_tls"),
        ] {
            assert_eq!(all[name], value, "{name}");
        }
        place.principals = Principals::default();
        let all = text(&place, &Told::Connections(Flags::default()));
        assert_eq!(all["connection_security_policy"], "none");
        assert_eq!(all["source_workload_namespace"], "unknown");
    }
}

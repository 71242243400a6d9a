//! Clusters and their endpoints, as `/clusters` and the dump show them.
//!
//! Invariant: health and load are those of the moment; all else is what was compiled.

use std::sync::Arc;

use routing::cluster::{Address, ClusterSpec, Discovery, Endpoint, Health, LbPolicy};
use serde_json::{Map, Value, json};

use super::{any, made_of, named, socket_address};
use crate::runtime::{Cluster, EndpointState, registry::Clusters};

/// `/clusters?format=json`.
pub(in crate::admin) fn cluster_statuses(clusters: &Clusters) -> Value {
    let mut clusters: Vec<_> = clusters.values().collect();
    clusters.sort_by_key(|cluster| cluster.spec.name.as_str().to_owned());
    let shown = clusters.into_iter().map(|cluster| {
        let view = cluster.endpoints();
        json!({
            "name": cluster.spec.name.as_str(),
            "added_via_api": true,
            "host_statuses": view.all.iter().map(|state| host_status(cluster, state)).collect::<Vec<_>>(),
        })
    });
    json!({"cluster_statuses": shown.collect::<Vec<_>>()})
}

pub(super) fn cluster(spec: &ClusterSpec) -> Value {
    let mut shown = json!({
        "name": spec.name.as_str(),
        "connect_timeout": format!("{}s", spec.connect_timeout.as_secs_f64()),
        "lb_policy": match spec.lb {
            LbPolicy::LeastRequest => "LEAST_REQUEST",
            LbPolicy::RoundRobin => "ROUND_ROBIN",
            LbPolicy::Random => "RANDOM",
            LbPolicy::RingHash { .. } => "RING_HASH",
            LbPolicy::Maglev { .. } => "MAGLEV",
        },
    });
    if let Some(fields) = shown.as_object_mut() {
        let kind = match spec.discovery {
            Discovery::Static => "EDS",
            Discovery::StrictDns => "STRICT_DNS",
            Discovery::LogicalDns => "LOGICAL_DNS",
            // Envoy has an extension for the first and no name in the enumeration; both have no list of endpoints.
            Discovery::DynamicDns | Discovery::OriginalDestination { .. } => "ORIGINAL_DST",
        };
        fields.insert("type".to_owned(), json!(kind));
        if spec.discovery == Discovery::Static {
            let config = json!({"eds_config": {"ads": {}, "resource_api_version": "V3"}, "service_name": spec.name.as_str()});
            fields.insert("eds_cluster_config".to_owned(), config);
        }
        if let Some(rule) = &spec.destination_rule {
            fields.insert("metadata".to_owned(), made_of("destination-rule", rule));
        }
        if let Some(tls) = &spec.tls {
            let context = json!({"sni": tls.sni.as_deref().unwrap_or_default()});
            let socket =
                named("envoy.transport_sockets.tls", "transport_sockets.tls.v3.UpstreamTlsContext", context);
            fields.insert("transport_socket".to_owned(), socket);
        }
    }
    any("envoy.config.cluster.v3.Cluster", shown)
}

/// Priority and locality.
type Group = (u32, Arc<str>);

pub(super) fn load_assignment(cluster: &Arc<Cluster>) -> Value {
    let view = cluster.endpoints();
    let mut groups: Vec<(Group, Vec<Value>)> = Vec::new();
    for state in &view.all {
        let endpoint = &state.endpoint;
        let shown = json!({
            "endpoint": {"address": address(endpoint)},
            "health_status": health(endpoint),
            "load_balancing_weight": endpoint.weight,
        });
        let key = (endpoint.place.priority, endpoint.place.locality.clone());
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, endpoints)) => endpoints.push(shown),
            None => groups.push((key, vec![shown])),
        }
    }
    let groups = groups.into_iter().map(|((priority, place), endpoints)| {
        json!({"locality": locality(&place), "priority": priority, "lb_endpoints": endpoints})
    });
    any(
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        json!({"cluster_name": cluster.spec.name.as_str(), "endpoints": groups.collect::<Vec<_>>()}),
    )
}

fn host_status(cluster: &Cluster, state: &EndpointState) -> Value {
    let endpoint = &state.endpoint;
    // Numbers of 64 bits are text in protobuf's JSON.
    let counter = |name: &str, value: u64| json!({"name": name, "value": value.to_string()});
    let gauge = |name: &str, value: u64| json!({"name": name, "value": value.to_string(), "type": "GAUGE"});
    let mut health = json!({"eds_health_status": health(endpoint)});
    if cluster.spec.outlier.is_some()
        && state.record().is_ejected()
        && let Some(health) = health.as_object_mut()
    {
        health.insert("failed_outlier_check".to_owned(), json!(true));
    }
    json!({
        "address": address(endpoint),
        "stats": [
            counter("rq_error", state.failures()),
            counter("rq_success", state.attempts().saturating_sub(state.failures())),
            counter("rq_total", state.attempts()),
            gauge("rq_active", u64::from(state.in_flight())),
        ],
        "health_status": health,
        "weight": endpoint.weight,
        "priority": endpoint.place.priority,
        "locality": locality(&endpoint.place.locality),
    })
}

fn address(endpoint: &Endpoint) -> Value {
    match &endpoint.address {
        Address::Ip(address) => socket_address(&address.ip().to_string(), address.port()),
        Address::Name(name, port) => socket_address(name, *port),
        Address::Unix(path) => json!({"pipe": {"path": &**path}}),
    }
}

fn health(endpoint: &Endpoint) -> &'static str {
    match endpoint.health {
        Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
    }
}

fn locality(place: &str) -> Value {
    let mut parts = place.splitn(3, '/').filter(|part| !part.is_empty());
    let mut shown = Map::new();
    for name in ["region", "zone", "sub_zone"] {
        if let Some(part) = parts.next() {
            shown.insert(name.to_owned(), json!(part));
        }
    }
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locality_has_up_to_three_parts() {
        assert_eq!(locality("r/z/s"), json!({"region": "r", "zone": "z", "sub_zone": "s"}));
        assert_eq!(locality(""), json!({}));
    }
}

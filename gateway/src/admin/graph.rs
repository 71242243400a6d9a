//! The way of requests as a graph: server → host → rule → cluster → endpoint, for the page that draws it.
//!
//! Invariant: made of what is in force, in the order in which it is tried. Names are data: whoever shows them must not take them
//! for markup.

use std::sync::Arc;

use config_model::meta::{Kind, ResourceKey};
use routing::{cluster::Health, route::Route, table::VirtualHost};
use serde_json::{Value, json};

use crate::{
    pipeline::Built,
    report::table::{describe, destination, each_chain},
    runtime::registry::Clusters,
};

/// The graph; `clusters` are those of the running gateway, with the addresses that names resolved to.
pub(super) fn graph(built: &Built, clusters: &Clusters) -> Value {
    let mut tables: Vec<Value> = Vec::new();
    let mut known: Vec<Arc<str>> = Vec::new();
    let mut servers = Vec::new();
    for (listener, names, chain) in each_chain(&built.compiled) {
        let targets = chain.tcp.as_ref().map(|tcp| {
            let shown = tcp.destinations().iter();
            shown.map(|to| json!({"cluster": to.cluster.as_str(), "weight": to.weight})).collect::<Vec<_>>()
        });
        servers.push(json!({
            "listener": listener.key.to_string(),
            "port": listener.key.port,
            "gateway": &*chain.gateway,
            "server": &*chain.server,
            "server_names": names,
            "protocol": match (&chain.tcp, &chain.tls) {
                (Some(_), None) => "TCP",
                (Some(_), Some(_)) => "TLS",
                (None, Some(_)) => "HTTPS",
                (None, None) => "HTTP",
            },
            "table": if chain.tcp.is_none() { Some(&**chain.table.name()) } else { None },
            "destinations": targets,
        }));
        if chain.tcp.is_none() && !known.contains(chain.table.name()) {
            known.push(Arc::clone(chain.table.name()));
            let hosts: Vec<Value> =
                chain.table.hosts().iter().map(|(_, host)| self::host(built, host)).collect();
            tables.push(json!({"name": &**chain.table.name(), "hosts": hosts}));
        }
    }
    let mut shown: Vec<_> = clusters.values().collect();
    shown.sort_by_key(|cluster| (cluster.spec.host.clone(), cluster.spec.port, cluster.spec.subset.clone()));
    let clusters = shown.into_iter().map(|cluster| {
        let view = cluster.endpoints();
        let endpoints = view.all.iter().map(|state| {
            json!({
                "address": state.endpoint.address.to_string(),
                "workload": state.endpoint.workload.as_deref(),
                "healthy": state.endpoint.health == Health::Healthy,
                "ejected": cluster.spec.outlier.is_some() && state.record().is_ejected(),
                "weight": state.endpoint.weight,
                "priority": state.endpoint.place.priority,
                "locality": &*state.endpoint.place.locality,
            })
        });
        json!({
            "name": cluster.spec.name.as_str(),
            "host": &*cluster.spec.host,
            "port": cluster.spec.port,
            "subset": &*cluster.spec.subset,
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    });
    json!({
        "generation": built.generation,
        "servers": servers,
        "tables": tables,
        "clusters": clusters.collect::<Vec<_>>(),
    })
}

fn host(built: &Built, host: &VirtualHost) -> Value {
    let rules: Vec<Value> = host.routes().iter().map(|route| rule(built, route)).collect();
    json!({"name": &**host.name(), "domain": &**host.domain(), "require_tls": host.require_tls(), "rules": rules})
}

fn rule(built: &Built, route: &Route) -> Value {
    let origin = &route.origin;
    let (namespace, name) = origin.virtual_service.split_once('/').unwrap_or_default();
    let resource = built.validated.set().get(&ResourceKey::new(Kind::VirtualService, namespace, name));
    let destinations = route.forward().map(|forward| {
        let shown = forward.destinations.iter();
        shown.map(|to| json!({"cluster": to.cluster.as_str(), "weight": to.weight})).collect::<Vec<_>>()
    });
    json!({
        "virtual_service": &*origin.virtual_service,
        "name": origin.name.as_deref(),
        "index": origin.index,
        "match_index": origin.match_index,
        "match": describe(&route.matcher),
        "action": destination(&route.action),
        "destinations": destinations,
        "file": resource.as_ref().map(|resource| &*resource.origin().file),
        "line": resource.as_ref().map(|resource| resource.origin().line),
    })
}

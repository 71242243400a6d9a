//! Tables of what is compiled, in the style of `istioctl proxy-config`.
//!
//! Invariant: a table is made as rows of JSON and printed from them, so that one fetched from a running gateway prints the same.
//! No row holds a secret: certificates are named, never shown.

use crate::runtime::{EndpointState, outlier::Record, registry::Clusters};
use config_model::{
    kubernetes::Secret,
    meta::{Kind, ResourceKey},
    set::Resources,
};
use routing::{
    cluster::{Cluster, ClusterSpec, Discovery, Endpoint, Health},
    compile::Compiled,
    listener::{CertificateSource, FilterChain, Listener},
    path::PathMatch,
    route::{Action, Condition, RouteMatch},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The tables there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each arm is the name of a table")]
pub enum Table {
    Listeners,
    Hosts,
    Routes,
    Clusters,
    Endpoints,
    Certificates,
}

/// A row: a JSON object whose keys are the columns.
pub type Row = Map<String, Value>;

impl Table {
    /// Every table, in the order of a request's way.
    pub const ALL: [Table; 6] = [
        Table::Listeners,
        Table::Hosts,
        Table::Routes,
        Table::Clusters,
        Table::Endpoints,
        Table::Certificates,
    ];

    /// Its name on the command line and in a dump.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Listeners => "listeners",
            Table::Hosts => "hosts",
            Table::Routes => "routes",
            Table::Clusters => "clusters",
            Table::Endpoints => "endpoints",
            Table::Certificates => "certificates",
        }
    }

    /// Its columns: heading and key.
    fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Table::Listeners => &[
                ("ADDRESSES", "address"),
                ("PORT", "port"),
                ("MATCH", "match"),
                ("GATEWAY", "gateway"),
                ("SERVER", "server"),
                ("DESTINATION", "destination"),
            ],
            Table::Hosts => &[
                ("NAME", "name"),
                ("DOMAIN", "domain"),
                ("ROUTE TABLE", "table"),
                ("ROUTES", "routes"),
                ("GATEWAY", "gateway"),
            ],
            Table::Routes => &[
                ("NAME", "table"),
                ("VHOST NAME", "virtual_host"),
                ("DOMAINS", "domain"),
                ("MATCH", "match"),
                ("VIRTUAL SERVICE", "virtual_service"),
                ("DESTINATION", "destination"),
            ],
            Table::Clusters => &[
                ("SERVICE FQDN", "host"),
                ("PORT", "port"),
                ("SUBSET", "subset"),
                ("DIRECTION", "direction"),
                ("TYPE", "type"),
                ("DESTINATION RULE", "destination_rule"),
            ],
            Table::Endpoints => &[
                ("ENDPOINT", "endpoint"),
                ("STATUS", "status"),
                ("OUTLIER CHECK", "outlier_check"),
                ("WEIGHT", "weight"),
                ("LOCALITY", "locality"),
                ("PRIORITY", "priority"),
                ("CLUSTER", "cluster"),
            ],
            Table::Certificates => &[
                ("RESOURCE NAME", "name"),
                ("TYPE", "type"),
                ("STATUS", "status"),
                ("GATEWAY", "gateway"),
                ("SERVER NAMES", "server_names"),
            ],
        }
    }

    /// Its headings.
    pub fn headings(self) -> impl Iterator<Item = &'static str> {
        self.columns().iter().map(|(heading, _)| *heading)
    }

    /// The cells of a row, in the order of the headings.
    pub fn cells(self, row: &Row) -> impl Iterator<Item = String> {
        self.columns().iter().map(|(_, key)| cell(row.get(*key)))
    }

    /// Its rows.
    #[must_use]
    pub fn rows(self, compiled: &Compiled, secrets: &Resources<Secret>) -> Vec<Row> {
        let rows: Vec<Value> = match self {
            Table::Listeners => each_chain(compiled)
                .map(|(listener, names, chain)| {
                    let scheme = if chain.tls.is_some() { "HTTPS" } else { "HTTP" };
                    json!({
                        "name": listener.key.to_string(),
                        "address": address(listener),
                        "port": listener.key.port,
                        "match": names.map_or_else(|| "ALL".to_owned(), |names| format!("SNI: {names}")),
                        "protocol": scheme,
                        "gateway": &*chain.gateway,
                        "server": &*chain.server,
                        "destination": format!("Route: {}", chain.table.name()),
                    })
                })
                .collect(),
            Table::Hosts => each_table(compiled)
                .flat_map(|chain| {
                    chain.table.hosts().iter().map(move |(domain, host)| {
                        json!({
                            "name": &**host.name(),
                            "domain": domain,
                            "table": &**chain.table.name(),
                            "routes": host.routes().len(),
                            "gateway": &*chain.gateway,
                        })
                    })
                })
                .collect(),
            Table::Routes => each_table(compiled)
                .flat_map(|chain| {
                    chain.table.hosts().iter().flat_map(move |(domain, host)| {
                        host.routes().iter().map(move |route| {
                            json!({
                                "table": &**chain.table.name(),
                                "virtual_host": &**host.name(),
                                "domain": domain,
                                "match": describe(&route.matcher),
                                "virtual_service": &*route.origin.virtual_service,
                                "index": route.origin.index,
                                "match_index": route.origin.match_index,
                                "name": route.origin.name.as_deref(),
                                "destination": destination(&route.action),
                                "policies": super::explain::annotated(Some(route), chain),
                            })
                        })
                    })
                })
                .collect(),
            Table::Clusters => by_name(compiled)
                .into_iter()
                .map(|cluster| {
                    json!({
                        "name": cluster.spec.name.as_str(),
                        "host": &*cluster.spec.host,
                        "port": cluster.spec.port,
                        "subset": if cluster.spec.subset.is_empty() { "-" } else { &*cluster.spec.subset },
                        "direction": "outbound",
                        "type": discovery(cluster),
                        "balancer": format!("{:?}", cluster.spec.lb),
                        "protocol": format!("{:?}", cluster.spec.protocol),
                        "tls": cluster.spec.tls.is_some(),
                        "endpoints": super::explain::usable(cluster),
                        "destination_rule": cluster.spec.destination_rule.as_deref(),
                    })
                })
                .collect(),
            Table::Endpoints => by_name(compiled)
                .into_iter()
                .flat_map(|cluster| {
                    cluster.endpoints.iter().map(|endpoint| endpoint_row(&cluster.spec, endpoint, None))
                })
                .collect(),
            Table::Certificates => certificates(compiled, secrets),
        };
        rows.into_iter()
            .filter_map(|row| match row {
                Value::Object(row) => Some(row),
                _ => None,
            })
            .collect()
    }

    /// The table as text: two spaces or more between columns, upper-case headings.
    #[must_use]
    pub fn text(self, rows: &[Row]) -> String {
        let mut lines: Vec<Vec<String>> = vec![self.headings().map(str::to_owned).collect()];
        lines.extend(rows.iter().map(|row| self.cells(row).collect()));
        let width =
            |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..self.columns().len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut out = String::new();
        for line in &lines {
            let mut text = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                text.push_str(&format!("{cell:<width$}  "));
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }
}

/// The endpoints of a running gateway: addresses that names resolved to, and who is left alone.
#[must_use]
pub fn live_endpoints(clusters: &Clusters) -> Vec<Row> {
    let mut clusters: Vec<_> = clusters.values().collect();
    clusters
        .sort_by_key(|cluster| (cluster.spec.host.clone(), cluster.spec.port, cluster.spec.subset.clone()));
    let rows = clusters.into_iter().flat_map(|cluster| {
        let view = cluster.endpoints();
        let row = |state: &Arc<EndpointState>| {
            let watched = cluster.spec.outlier.is_some().then(|| state.record());
            endpoint_row(&cluster.spec, &state.endpoint, watched)
        };
        view.all.iter().map(row).collect::<Vec<_>>()
    });
    rows.filter_map(|row| match row {
        Value::Object(row) => Some(row),
        _ => None,
    })
    .collect()
}

/// `record`: what outlier detection knows, where there is any.
fn endpoint_row(cluster: &ClusterSpec, endpoint: &Endpoint, record: Option<&Record>) -> Value {
    let remaining = record.and_then(Record::remaining);
    json!({
        "endpoint": endpoint.address.to_string(),
        "status": match endpoint.health { Health::Healthy => "HEALTHY", Health::Unhealthy => "UNHEALTHY" },
        "outlier_check": if remaining.is_some() { "FAILED" } else { "OK" },
        "ejected_for_ms": remaining.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        "ejections": record.map(Record::ejections),
        "weight": endpoint.weight,
        "locality": if endpoint.place.locality.is_empty() { "-" } else { &*endpoint.place.locality },
        "priority": endpoint.place.priority,
        "workload": endpoint.workload.as_deref(),
        "cluster": cluster.name.as_str(),
    })
}

/// Every chain with its listener, and the server names that lead to it.
pub(crate) fn each_chain(
    compiled: &Compiled,
) -> impl Iterator<Item = (&Listener, Option<String>, &FilterChain)> {
    compiled.listeners.values().flat_map(|listener| -> Vec<(&Listener, Option<String>, &FilterChain)> {
        // One chain may stand under several names.
        let mut chains: Vec<(&std::sync::Arc<FilterChain>, Vec<String>)> = Vec::new();
        for (name, chain) in listener.chains.each() {
            match chains.iter_mut().find(|(known, _)| std::sync::Arc::ptr_eq(known, chain)) {
                Some((_, names)) => names.extend(name),
                None => chains.push((chain, name.into_iter().collect())),
            }
        }
        let named = |names: Vec<String>| (!names.is_empty()).then(|| names.join(","));
        chains.into_iter().map(|(chain, names)| (&**listener, named(names), &**chain)).collect()
    })
}

/// The clusters in the order of their names.
fn by_name(compiled: &Compiled) -> Vec<&std::sync::Arc<Cluster>> {
    let mut clusters: Vec<_> = compiled.clusters.values().collect();
    clusters
        .sort_by_key(|cluster| (cluster.spec.host.clone(), cluster.spec.port, cluster.spec.subset.clone()));
    clusters
}

fn each_table(compiled: &Compiled) -> impl Iterator<Item = &FilterChain> {
    each_chain(compiled).map(|(_, _, chain)| chain)
}

fn certificates(compiled: &Compiled, secrets: &Resources<Secret>) -> Vec<Value> {
    let mut rows = Vec::new();
    for (_, names, chain) in each_chain(compiled) {
        let Some(tls) = &chain.tls else { continue };
        for source in &tls.certificates {
            let (kind, status) = match source {
                CertificateSource::Secret { namespace, name } => {
                    let key = ResourceKey::new(Kind::Secret, &**namespace, &**name);
                    let status = match secrets.get(&key) {
                        None => "MISSING",
                        Some(secret) if has_pair(&secret.spec) => "ACTIVE",
                        Some(_) => "INVALID",
                    };
                    ("Secret", status)
                }
                CertificateSource::Files { .. } => ("File", "-"),
            };
            rows.push(json!({
                "name": certificate_name(source),
                "type": kind,
                "status": status,
                "gateway": &*chain.gateway,
                "server_names": names.clone(),
            }));
        }
    }
    rows
}

/// Name of a certificate for people.
pub(crate) fn certificate_name(source: &CertificateSource) -> String {
    match source {
        CertificateSource::Secret { namespace, name } => format!("kubernetes://{namespace}/{name}"),
        CertificateSource::Files { certificate, .. } => format!("file:{certificate}"),
    }
}

/// Whether a Secret has both parts, under either of the names that Istio reads.
fn has_pair(secret: &Secret) -> bool {
    [("tls.crt", "tls.key"), ("cert", "key")]
        .into_iter()
        .any(|(certificate, key)| secret.get(certificate).is_some() && secret.get(key).is_some())
}

fn address(listener: &Listener) -> String {
    match &listener.key.bind {
        routing::listener::Bind::Any => "0.0.0.0".to_owned(),
        routing::listener::Bind::Ip(ip) => ip.to_string(),
        routing::listener::Bind::Unix(path) => path.to_string(),
    }
}

fn discovery(cluster: &Cluster) -> &'static str {
    match cluster.spec.discovery {
        Discovery::Static => "EDS",
        Discovery::StrictDns => "STRICT_DNS",
        Discovery::LogicalDns => "LOGICAL_DNS",
        Discovery::DynamicDns => "DYNAMIC_DNS",
        Discovery::OriginalDestination { .. } => "ORIGINAL_DST",
    }
}

/// A match in few words: `/get*` for a prefix, as istioctl has it.
pub(crate) fn describe(matcher: &RouteMatch) -> String {
    let mut text = match &matcher.path {
        PathMatch::Any => "/*".to_owned(),
        PathMatch::Exact { text, .. } => text.to_string(),
        PathMatch::Prefix { text, .. } => format!("{text}*"),
        PathMatch::Regex(pattern) => format!("regex {}", pattern.as_str()),
    };
    for condition in &matcher.conditions {
        text.push_str(&match condition {
            Condition::Method(matcher) => format!(", method {matcher}"),
            Condition::Scheme(matcher) => format!(", scheme {matcher}"),
            Condition::Authority(matcher) => format!(", authority {matcher}"),
            Condition::Header { name, matcher } => format!(", header {name} {matcher}"),
            Condition::NotHeader { name, matcher } => format!(", without header {name} {matcher}"),
            Condition::Query { key, matcher } => format!(", query {key} {matcher}"),
            Condition::Claim { path, matcher } => format!(", claim {path} {matcher}"),
            Condition::NotClaim { path, matcher } => format!(", without claim {path} {matcher}"),
            Condition::Never { reason } => format!(", never: {reason}"),
        });
    }
    text
}

/// What a rule does, in few words.
pub(crate) fn destination(action: &Action) -> String {
    match action {
        Action::Forward(forward) => {
            let single = forward.destinations.len() == 1;
            let parts: Vec<_> = forward
                .destinations
                .iter()
                .map(|destination| {
                    let share = if single { String::new() } else { format!(" ({})", destination.weight) };
                    format!("{}{share}", destination.cluster)
                })
                .collect();
            if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
        }
        Action::Redirect(redirect) => format!("redirect {}", redirect.code),
        Action::Reply(reply) => format!("reply {}", reply.status),
    }
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    // Names come from outside: no escape sequence gets to a terminal.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            json!({"endpoint": "10.0.0.1:9080", "status": "HEALTHY", "outlier_check": "OK", "weight": 1, "locality": "r1/z1", "priority": 0, "cluster": "a\u{1b}"}),
        ];
        let rows: Vec<Row> = rows.iter().filter_map(|row| row.as_object().cloned()).collect();
        let text = Table::Endpoints.text(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "ENDPOINT       STATUS   OUTLIER CHECK  WEIGHT  LOCALITY  PRIORITY  CLUSTER");
        assert_eq!(lines[1], "10.0.0.1:9080  HEALTHY  OK             1       r1/z1     0         a");
    }
}

//! What is in force, in the shapes of Envoy's admin interface.
//!
//! Invariant: only messages and fields of Envoy's API v3, with the names that they have in its protos, because `istioctl
//! proxy-config` refuses an `Any` that it does not know. Of a Secret only certificates are shown, block by block; never a key.

mod clusters;
mod routes;

pub(super) use clusters::cluster_statuses;
use clusters::{cluster, load_assignment};
use routes::route_config;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use config_model::{
    kubernetes::Secret,
    meta::{Kind, ResourceKey},
    scalar::Timestamp,
    set::Resources,
};
use routing::{
    cluster::ClusterSpec,
    compile::Compiled,
    listener::{Bind, CertificateSource, FilterChain, Listener},
    table::RouteTable,
};
use serde_json::{Map, Value, json};

use crate::{
    cli::VERSION,
    listener::BoundAddress,
    report::table::{certificate_name, each_chain},
    runtime::registry::Clusters,
    tls::CertificateSummary,
};

/// What a private key is replaced with, as Envoy does it.
const REDACTED: &str = "[redacted]";

/// Who the gateway is in the mesh.
pub(super) struct Node {
    /// Istio's form: `router~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN`.
    pub id: String,
    /// Name of the workload.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
}

impl Node {
    pub(super) fn of(identity: &routing::compile::Identity) -> Node {
        let workload = identity.labels.get("app").cloned().unwrap_or_else(|| "limen".to_owned());
        let namespace = identity.namespace.clone();
        Node {
            id: format!("router~0.0.0.0~{workload}.{namespace}~{namespace}.svc.{}", identity.domain),
            cluster: format!("{workload}.{namespace}"),
            namespace,
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut parts = VERSION.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        json!({
            "id": self.id,
            "cluster": self.cluster,
            "metadata": {"NAMESPACE": self.namespace, "ISTIO_VERSION": format!("limen-{VERSION}")},
            "user_agent_name": "limen",
            "user_agent_build_version":
                {"version": {"major_number": next(), "minor_number": next(), "patch": next()}},
        })
    }
}

/// `/config_dump`; `endpoints` where `?include_eds` asks for them.
pub(super) fn configs(
    compiled: &Compiled,
    secrets: &Resources<Secret>,
    generation: u64,
    endpoints: Option<&Clusters>,
) -> Vec<Value> {
    let version = generation.to_string();
    let node = Node::of(compiled.identity());
    let listeners = compiled.listeners.values().map(|listener| {
        let name = listener.key.to_string();
        json!({"name": name, "active_state": {"version_info": version, "listener": self::listener(compiled, listener)}})
    });
    let mut clusters: Vec<&ClusterSpec> = compiled.clusters.values().map(|cluster| &*cluster.spec).collect();
    clusters.sort_by_key(|spec| spec.name.as_str());
    let clusters =
        clusters.into_iter().map(|spec| json!({"version_info": version, "cluster": cluster(spec)}));
    let mut tables: Vec<&RouteTable> = Vec::new();
    for (_, _, chain) in each_chain(compiled) {
        if chain.tcp.is_none() && !tables.iter().any(|known| known.name() == chain.table.name()) {
            tables.push(&chain.table);
        }
    }
    let routes =
        tables.into_iter().map(|table| json!({"version_info": version, "route_config": route_config(table)}));
    let mut configs = vec![
        dump("Bootstrap", &json!({"bootstrap": {"node": node.json()}})),
        dump(
            "Clusters",
            &json!({"version_info": version, "dynamic_active_clusters": clusters.collect::<Vec<_>>()}),
        ),
    ];
    if let Some(clusters) = endpoints {
        let mut clusters: Vec<_> = clusters.values().collect();
        clusters.sort_by_key(|cluster| cluster.spec.name.as_str().to_owned());
        let shown = clusters.into_iter().map(|cluster| json!({"endpoint_config": load_assignment(cluster)}));
        configs.push(dump("Endpoints", &json!({"dynamic_endpoint_configs": shown.collect::<Vec<_>>()})));
    }
    configs.push(dump(
        "Listeners",
        &json!({"version_info": version, "dynamic_listeners": listeners.collect::<Vec<_>>()}),
    ));
    configs.push(dump("Routes", &json!({"dynamic_route_configs": routes.collect::<Vec<_>>()})));
    configs.push(secrets_dump(compiled, secrets, &version));
    configs
}

/// `/certs`.
pub(super) fn certificates(mut summaries: Vec<CertificateSummary>, now: i64) -> Value {
    summaries.sort_by_key(|summary| certificate_name(&summary.source));
    let shown = summaries.iter().map(|summary| {
        let (from, until) = (seconds_of(&summary.not_before), seconds_of(&summary.not_after));
        let time = |seconds: Option<i64>, text: &str| {
            seconds.map_or_else(|| text.to_owned(), |seconds| Timestamp::from_unix(seconds, 0).to_string())
        };
        let names = summary.names.iter().map(|name| {
            let kind = if name.parse::<std::net::IpAddr>().is_ok() { "ip_address" } else { "dns" };
            json!({kind: name})
        });
        // Envoy counts whole days, and none below zero.
        let days = until.map_or(0, |until| until.saturating_sub(now).max(0) / 86_400);
        json!({
            "ca_cert": [],
            "cert_chain": [{
                "path": certificate_name(&summary.source),
                "serial_number": summary.serial,
                "subject_alt_names": names.collect::<Vec<_>>(),
                "days_until_expiration": days.to_string(),
                "valid_from": time(from, &summary.not_before),
                "expiration_time": time(until, &summary.not_after),
            }],
        })
    });
    json!({"certificates": shown.collect::<Vec<_>>()})
}

/// An address that is bound, as in `/listeners?format=json`.
pub(super) fn bound_address(address: &BoundAddress) -> Value {
    match address {
        BoundAddress::Tcp(address) => socket_address(&address.ip().to_string(), address.port()),
        BoundAddress::Unix(path) => json!({"pipe": {"path": &**path}}),
    }
}

/// Seconds since the epoch of `Jan  1 00:00:00 2026 GMT`, which is how certificates are summed up.
/// Seconds since 1970 of a time as OpenSSL prints it.
pub(crate) fn seconds_of(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_ascii_whitespace();
    let month = MONTHS.iter().position(|month| Some(*month) == parts.clone().next())? + 1;
    let (_, day, time, year) = (parts.next(), parts.next()?, parts.next()?, parts.next()?);
    let day: u8 = day.parse().ok()?;
    let stamp: Timestamp = format!("{year}-{month:02}-{day:02}T{time}Z").parse().ok()?;
    Some(stamp.unix().0)
}

fn dump(kind: &str, fields: &Value) -> Value {
    any(&format!("envoy.admin.v3.{kind}ConfigDump"), fields.clone())
}

/// A message as protobuf's JSON writes an `Any`.
fn any(name: &str, fields: Value) -> Value {
    let mut object = Map::new();
    object.insert("@type".to_owned(), json!(format!("type.googleapis.com/{name}")));
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Value::Object(object)
}

fn socket_address(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

/// Where `istioctl` finds the resource that a part was made of.
fn made_of(kind: &str, key: &str) -> Value {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let path = format!("/apis/networking.istio.io/v1alpha3/namespaces/{namespace}/{kind}/{name}");
    json!({"filter_metadata": {"istio": {"config": path}}})
}

fn listener(compiled: &Compiled, listener: &Listener) -> Value {
    let address = match &listener.key.bind {
        Bind::Any => socket_address("0.0.0.0", listener.key.port),
        Bind::Ip(ip) => socket_address(&ip.to_string(), listener.key.port),
        Bind::Unix(path) => json!({"pipe": {"path": &**path}}),
    };
    let chains = each_chain(compiled)
        .filter(|(of, _, _)| of.key == listener.key)
        .map(|(_, names, chain)| filter_chain(names.as_deref(), chain));
    any(
        "envoy.config.listener.v3.Listener",
        json!({
            "name": listener.key.to_string(),
            "address": address,
            "filter_chains": chains.collect::<Vec<_>>(),
            "traffic_direction": "OUTBOUND",
        }),
    )
}

fn filter_chain(names: Option<&str>, chain: &FilterChain) -> Value {
    // In Envoy a chain for every name is one without names.
    let names: Vec<&str> =
        names.into_iter().flat_map(|names| names.split(',')).filter(|name| *name != "*").collect();
    let mut shown = Map::new();
    if !names.is_empty() {
        shown.insert("filter_chain_match".to_owned(), json!({"server_names": names}));
    }
    let filter = match &chain.tcp {
        Some(tcp) => {
            let mut fields = json!({"stat_prefix": &*chain.server});
            let target = match tcp.destinations() {
                [only] => ("cluster", json!(only.cluster.as_str())),
                all => ("weighted_clusters", weighted(all.iter().map(|d| (d.cluster.as_str(), d.weight)))),
            };
            fields.as_object_mut().map(|fields| fields.insert(target.0.to_owned(), target.1));
            named("envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", fields)
        }
        None => named(
            "envoy.filters.network.http_connection_manager",
            "filters.network.http_connection_manager.v3.HttpConnectionManager",
            json!({
                "stat_prefix": &*chain.server,
                "rds": {"config_source": {"ads": {}, "resource_api_version": "V3"}, "route_config_name": &**chain.table.name()},
            }),
        ),
    };
    shown.insert("filters".to_owned(), json!([filter]));
    if let Some(tls) = &chain.tls {
        let secrets: Vec<Value> =
            tls.certificates.iter().map(|source| json!({"name": certificate_name(source)})).collect();
        let context = json!({
            "common_tls_context": {"tls_certificate_sds_secret_configs": secrets},
            "require_client_certificate": tls.client.as_ref().is_some_and(|client| client.required),
        });
        let socket =
            named("envoy.transport_sockets.tls", "transport_sockets.tls.v3.DownstreamTlsContext", context);
        shown.insert("transport_socket".to_owned(), socket);
    }
    Value::Object(shown)
}

/// An extension: its name, and its configuration.
fn named(name: &str, message: &str, fields: Value) -> Value {
    json!({"name": name, "typed_config": any(&format!("envoy.extensions.{message}"), fields)})
}

fn weighted<'a>(clusters: impl Iterator<Item = (&'a str, u32)>) -> Value {
    json!({"clusters": clusters.map(|(name, weight)| json!({"name": name, "weight": weight})).collect::<Vec<_>>()})
}

fn secrets_dump(compiled: &Compiled, secrets: &Resources<Secret>, version: &str) -> Value {
    let (mut active, mut warming): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut seen: Vec<String> = Vec::new();
    for source in
        each_chain(compiled).filter_map(|(_, _, chain)| chain.tls.as_ref()).flat_map(|tls| &tls.certificates)
    {
        let name = certificate_name(source);
        if seen.contains(&name) {
            continue;
        }
        let chain = match source {
            CertificateSource::Files { certificate, .. } => Some(json!({"filename": &**certificate})),
            CertificateSource::Secret { namespace, name } => secrets
                .get(&ResourceKey::new(Kind::Secret, &**namespace, &**name))
                .and_then(|secret| secret.spec.get("tls.crt").or_else(|| secret.spec.get("cert")))
                .map(|pem| json!({"inline_bytes": STANDARD.encode(certificate_blocks(pem))})),
        };
        let mut secret = json!({"name": name});
        let pair = chain.map(|chain| {
            json!({"certificate_chain": chain, "private_key": {"inline_bytes": STANDARD.encode(REDACTED)}})
        });
        let place = if let (Some(pair), Some(fields)) = (pair, secret.as_object_mut()) {
            fields.insert("tls_certificate".to_owned(), pair);
            &mut active
        } else {
            &mut warming
        };
        let secret = any("envoy.extensions.transport_sockets.tls.v3.Secret", secret);
        place.push(json!({"name": name, "version_info": version, "secret": secret}));
        seen.push(name);
    }
    dump("Secrets", &json!({"dynamic_active_secrets": active, "dynamic_warming_secrets": warming}))
}

/// The certificates of a PEM file and nothing else: some people keep the key in the same file.
fn certificate_blocks(pem: &[u8]) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(pem);
    let mut out = String::new();
    for block in text.split(BEGIN).skip(1) {
        let Some((body, _)) = block.split_once(END) else { continue };
        let is_base64 =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=') || c.is_ascii_whitespace();
        if body.chars().all(is_base64) {
            out.push_str(&format!("{BEGIN}{body}{END}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_a_certificate() {
        assert_eq!(seconds_of("Jan  1 00:00:00 1970 GMT"), Some(0));
        assert_eq!(seconds_of("Mar 12 01:02:03 2026 GMT"), Some(1_773_277_323));
        assert_eq!(seconds_of("yesterday"), None);
    }

    #[test]
    fn a_key_beside_the_certificate_stays_hidden() {
        let pem = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\nrest";
        let shown = certificate_blocks(pem);
        assert_eq!(shown, "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n");
    }
}

//! What a cluster is, as far as its case asks.
//!
//! Invariant: what is not written is not compared, but for whether there is such a cluster at all.

use routing::{
    cluster::{
        ClientIdentity, Cluster, Discovery, Endpoint, HashKey, Health, LbPolicy, ProxyVersion, RetryLimit,
        Roots, Share, TunnelMethod, UpstreamProtocol, UpstreamTls,
    },
    compile::Compiled,
};
use serde::Deserialize;
use std::time::Duration;

#[derive(Deserialize, Default, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Described {
    /// Each with what is not usual of it, as in `10.0.0.1:80 unhealthy weight 2 priority 1 share 500 zone own of the mesh`.
    pub endpoints: Option<Vec<String>>,
    /// `static`, `dns`, `one address`, `asked for`, or `none`, as in `none, port 80`.
    pub discovery: Option<String>,
    /// `namespace/name` of the DestinationRule; empty: none.
    pub rule: Option<String>,
    /// `http1`, `http2` or `client`.
    pub protocol: Option<String>,
    /// As in `least request`, `ring 1024`, `maglev 65537`; behind a comma what is hashed.
    pub lb: Option<String>,
    /// TLS for all endpoints; as in `simple, sni a.com, names a.com b.com, roots system`.
    pub tls: Option<String>,
    /// TLS for endpoints of the mesh.
    pub auto_mtls: Option<String>,
    /// As in `connect 10s, idle 3600s`.
    pub times: Option<String>,
    /// Limits that are set, as in `connections 1, pending 2`.
    pub limits: Option<String>,
    /// As in `5xx 5, interval 10s, base 30s, at most 10 %`; empty: off.
    pub outlier: Option<String>,
    /// Below which share of healthy endpoints all are used.
    pub panic_percent: Option<u32>,
    /// As in `20s from 100 by 1000`, thousandths; empty: none.
    pub warmup: Option<String>,
    /// `v1` or `v2`; empty: none.
    pub proxy_protocol: Option<String>,
    /// As in `CONNECT a:1`; empty: none.
    pub tunnel: Option<String>,
}

/// The cluster of that name; `None` where there is none.
pub(crate) fn described(compiled: &Compiled, name: &str, want: Option<&Described>) -> Option<Described> {
    let found = compiled.clusters.iter().find(|(known, _)| known.as_str() == name)?;
    let Cluster { spec, endpoints } = &**found.1;
    let none = Described::default();
    let want = want.unwrap_or(&none);
    let asked = |asked: &Option<String>, of: &dyn Fn() -> String| asked.as_ref().map(|_| of());
    Some(Described {
        endpoints: want.endpoints.as_ref().map(|_| endpoints.iter().map(endpoint).collect()),
        discovery: asked(&want.discovery, &|| {
            let name = match spec.discovery {
                Discovery::Static => "static",
                Discovery::StrictDns => "dns",
                Discovery::LogicalDns => "one address",
                Discovery::DynamicDns => "asked for",
                Discovery::OriginalDestination { port: None } => "none",
                Discovery::OriginalDestination { port: Some(port) } => return format!("none, port {port}"),
            };
            name.to_owned()
        }),
        rule: asked(&want.rule, &|| spec.destination_rule.as_deref().unwrap_or_default().to_owned()),
        protocol: asked(&want.protocol, &|| {
            let name = match spec.protocol {
                UpstreamProtocol::Http1 => "http1",
                UpstreamProtocol::Http2 => "http2",
                UpstreamProtocol::Client => "client",
            };
            name.to_owned()
        }),
        lb: asked(&want.lb, &|| lb(spec.lb, spec.hash_key.as_ref())),
        tls: asked(&want.tls, &|| spec.tls.as_ref().map(tls).unwrap_or_default()),
        auto_mtls: asked(&want.auto_mtls, &|| spec.auto_mtls.as_ref().map(tls).unwrap_or_default()),
        times: asked(&want.times, &|| {
            let idle = spec.idle_timeout.map_or("never".to_owned(), seconds);
            format!("connect {}, idle {idle}", seconds(spec.connect_timeout))
        }),
        limits: asked(&want.limits, &|| limits(&spec.pool)),
        outlier: asked(&want.outlier, &|| spec.outlier.as_ref().map(outlier).unwrap_or_default()),
        panic_percent: want.panic_percent.map(|_| spec.panic_percent),
        warmup: asked(&want.warmup, &|| {
            let shown = spec.warmup.map(|w| {
                let (least, curve) = (w.minimum_thousandths, w.aggression_thousandths);
                format!("{} from {least} by {curve}", seconds(w.duration))
            });
            shown.unwrap_or_default()
        }),
        proxy_protocol: asked(&want.proxy_protocol, &|| {
            let version = match spec.proxy_protocol {
                None => "",
                Some(ProxyVersion::V1) => "v1",
                Some(ProxyVersion::V2) => "v2",
            };
            version.to_owned()
        }),
        tunnel: asked(&want.tunnel, &|| {
            let shown = spec.tunnel.as_ref().map(|tunnel| {
                let method = match tunnel.method {
                    TunnelMethod::Connect => "CONNECT",
                    TunnelMethod::Post => "POST",
                };
                format!("{method} {}", tunnel.target)
            });
            shown.unwrap_or_default()
        }),
    })
}

fn endpoint(endpoint: &Endpoint) -> String {
    let mut text = endpoint.address.to_string();
    if endpoint.health == Health::Unhealthy {
        text.push_str(" unhealthy");
    }
    if endpoint.weight != 1 {
        text.push_str(&format!(" weight {}", endpoint.weight));
    }
    if endpoint.place.priority != 0 {
        text.push_str(&format!(" priority {}", endpoint.place.priority));
    }
    match endpoint.place.share {
        Share::ByWeight => {}
        Share::Of(share) => text.push_str(&format!(" share {share}")),
        Share::Zone(zone) => {
            let whose = if zone.own { "own" } else { "other" };
            text.push_str(&format!(" zone {whose} {}", zone.replicas));
        }
    }
    if endpoint.is_of_mesh() {
        text.push_str(" of the mesh");
    }
    text
}

fn lb(policy: LbPolicy, key: Option<&HashKey>) -> String {
    let name = match policy {
        LbPolicy::LeastRequest => "least request".to_owned(),
        LbPolicy::RoundRobin => "round robin".to_owned(),
        LbPolicy::Random => "random".to_owned(),
        LbPolicy::RingHash { minimum } => format!("ring {minimum}"),
        LbPolicy::Maglev { size } => format!("maglev {size}"),
    };
    match key {
        None => name,
        Some(HashKey::Header(header)) => format!("{name}, header {header}"),
        Some(HashKey::Cookie(cookie)) => format!("{name}, cookie {}", cookie.name),
        Some(HashKey::SourceIp) => format!("{name}, source"),
        Some(HashKey::Query(query)) => format!("{name}, query {query}"),
    }
}

fn tls(tls: &UpstreamTls) -> String {
    let mut parts = vec![match &tls.identity {
        ClientIdentity::None => "simple".to_owned(),
        ClientIdentity::Files { certificate, .. } => format!("mutual {certificate}"),
        ClientIdentity::Secret { namespace, name } => format!("mutual {namespace}/{name}"),
        ClientIdentity::Workload => "mesh".to_owned(),
    }];
    parts.extend(tls.sni.as_ref().map(|sni| format!("sni {sni}")));
    if !tls.subject_alt_names.is_empty() {
        parts.push(format!("names {}", tls.subject_alt_names.join(" ")));
    }
    if tls.verify_host {
        parts.push("host checked".to_owned());
    }
    if tls.insecure_skip_verify {
        parts.push("nothing checked".to_owned());
    }
    parts.extend(tls.crl_file.as_ref().map(|path| format!("crl {path}")));
    parts.push(match &tls.roots {
        Roots::System => "roots system".to_owned(),
        Roots::File(path) => format!("roots {path}"),
        Roots::Secret { namespace, name } => format!("roots Secret {namespace}/{name}"),
        Roots::ConfigMap { namespace, name } => format!("roots ConfigMap {namespace}/{name}"),
        Roots::Workload => "roots of the mesh".to_owned(),
    });
    parts.join(", ")
}

fn limits(pool: &routing::cluster::Pool) -> String {
    let mut parts = Vec::new();
    for (name, limit) in [
        ("connections", pool.max_connections),
        ("pending", pool.max_pending),
        ("requests", pool.max_requests),
        ("requests a connection", pool.max_requests_per_connection),
        ("streams", pool.max_streams),
    ] {
        parts.extend(limit.map(|limit| format!("{name} {limit}")));
    }
    match pool.retries {
        RetryLimit::Unlimited => {}
        RetryLimit::Concurrent(most) => parts.push(format!("retries {most}")),
        RetryLimit::Budget { millionths, minimum, interval } => {
            let interval = interval.map(|i| format!(" over {}", seconds(i))).unwrap_or_default();
            parts.push(format!("retries {millionths} millionths at least {minimum}{interval}"));
        }
    }
    parts.extend(pool.max_connection_duration.map(|life| format!("life {}", seconds(life))));
    if let Some(probes) = &pool.keepalive {
        let time = |time: Option<Duration>| time.map_or("-".to_owned(), seconds);
        let count = probes.probes.map_or("-".to_owned(), |probes| probes.to_string());
        parts.push(format!("keepalive {count} {} {}", time(probes.time), time(probes.interval)));
    }
    parts.extend(pool.h2_keepalive.map(|(every, _)| format!("ping {}", seconds(every))));
    parts.join(", ")
}

fn outlier(outlier: &routing::cluster::Outlier) -> String {
    let mut parts = Vec::new();
    for (name, count) in [
        ("5xx", outlier.consecutive_5xx),
        ("gateway", outlier.consecutive_gateway),
        ("local", outlier.local_origin),
    ] {
        parts.extend(count.map(|count| format!("{name} {count}")));
    }
    parts.push(format!("interval {}", seconds(outlier.interval)));
    parts.push(format!("base {}", seconds(outlier.base_ejection)));
    parts.push(format!("at most {} %", outlier.max_ejection_percent));
    if !outlier.error_codes.is_empty() {
        parts.push(format!("codes {:?}", outlier.error_codes));
    }
    parts.join(", ")
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}

//! The format of a case: what `requests.yaml` may say.
//!
//! Invariant: an unknown key fails the case; what an expectation leaves out is not looked at, but for where the request
//! went: clusters, weights, missing clusters, redirect, status, time-out, refusal and what policies say are compared always.

mod annotated;
pub(crate) mod answer;
mod authorize;
pub(crate) mod clusters;
mod facts;

use routing::claims::{Claim, Claims};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    #[serde(default)]
    pub identity: Who,
    /// Codes of the findings of compilation, sorted; all of them.
    #[serde(default)]
    pub findings: Vec<String>,
    #[serde(default)]
    pub requests: Vec<Exchange>,
    /// What clusters there are and are not (`null`), by name.
    #[serde(default)]
    pub clusters: BTreeMap<String, Option<clusters::Described>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Who {
    pub namespace: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    /// Addresses of the workload: it is a sidecar's case.
    pub beside: Option<Vec<IpAddr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// Port of the listener, after translation.
    #[serde(default = "port_80")]
    pub port: u16,
    /// Where a connection was going that was redirected to a sidecar, on its way out.
    pub to: Option<SocketAddr>,
    /// The same, on its way in.
    pub comes_to: Option<SocketAddr>,
    /// `https` is a TLS connection, with the server name of `sni`; `tcp` one whose bytes are not looked at.
    #[serde(default = "plain")]
    pub scheme: String,
    #[serde(default = "get")]
    pub method: String,
    #[serde(default)]
    pub authority: String,
    #[serde(default = "root")]
    pub path: String,
    #[serde(default)]
    pub headers: BTreeMap<String, Lines>,
    pub sni: Option<String>,
    /// ALPN names that the client offers.
    #[serde(default)]
    pub alpn: Vec<String>,
    /// Claims of a token that a policy has verified.
    pub claims: Option<BTreeMap<Box<str>, serde_yaml::Value>>,
    /// Certificate of the client.
    pub peer: Option<Certificate>,
    /// Address of the connection's other end.
    pub source: Option<IpAddr>,
    /// Address of the client, as trusted proxies name it; left out: the other end's.
    pub remote: Option<IpAddr>,
    /// Address that was connected to.
    pub local: Option<IpAddr>,
    /// Which of several destinations is taken.
    #[serde(default)]
    pub destination: usize,
    /// Headers of the upstream's response.
    #[serde(default)]
    pub response: BTreeMap<String, Lines>,
    pub expect: Expect,
}

impl Exchange {
    pub(crate) fn verified(&self) -> Option<Claims> {
        let claims = self.claims.as_ref()?.iter().map(|(name, value)| (name.clone(), claim(value)));
        Some(Claims::new(claims.collect()))
    }
}

fn claim(value: &serde_yaml::Value) -> Claim {
    match value {
        serde_yaml::Value::String(text) => Claim::Text(text.as_str().into()),
        serde_yaml::Value::Sequence(list) => Claim::List(list.iter().map(claim).collect()),
        serde_yaml::Value::Mapping(map) => Claim::Object(
            map.iter().map(|(key, value)| (key.as_str().unwrap().into(), claim(value))).collect(),
        ),
        _ => Claim::Other,
    }
}

/// Names of a client's certificate.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Certificate {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    pub subject: String,
}

/// The lines of one header.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub(crate) enum Lines {
    One(String),
    Several(Vec<String>),
}

impl Lines {
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Several(lines) => lines,
        }
    }
}

pub(crate) fn header_map(headers: &BTreeMap<String, Lines>) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for (name, lines) in headers {
        for line in lines.all() {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), line.parse().unwrap());
        }
    }
    map
}

/// Headers by name; `null` for one that is not there.
pub(crate) type Headers = BTreeMap<String, Option<Lines>>;

#[derive(Deserialize, Default, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    /// Name of the listener, and behind a space that of the chain.
    pub listener: Option<String>,
    /// Name of the virtual host.
    pub host: Option<String>,
    /// Names of the clusters, in order.
    pub clusters: Option<Vec<String>>,
    /// Their weights, where there are several.
    pub weights: Option<Vec<u32>>,
    /// Which of them do not exist: 503 NC.
    pub missing: Option<Vec<String>>,
    /// How many endpoints each of them has.
    pub endpoints: Option<Vec<usize>>,
    /// `namespace/name` of the VirtualService and the number of its rule, as in `default/v 0`.
    pub rule: Option<String>,
    /// The same of the delegate's rule that it was merged with.
    pub delegate: Option<String>,
    /// Name of the route.
    pub name: Option<String>,
    /// Path and query sent upstream.
    pub upstream_path: Option<String>,
    /// Authority sent upstream.
    pub upstream_authority: Option<String>,
    /// Headers sent upstream.
    pub upstream_headers: Option<Headers>,
    /// Headers sent to the client.
    pub response_headers: Option<Headers>,
    pub timeout_ms: Option<u128>,
    pub retries: Option<Retries>,
    pub fault: Option<Fault>,
    /// `pass`, `preflight` or `mark`.
    pub cors: Option<String>,
    /// Clusters that get copies, each with its share in percent, as in `outbound|80||a 100`.
    pub mirrors: Option<Vec<String>>,
    /// `Location`.
    pub redirect: Option<String>,
    /// Status of a redirect or a fixed reply.
    pub status: Option<u16>,
    pub body: Option<String>,
    /// `host` or `route`.
    pub not_found: Option<String>,
    /// `listener`, `sni`, `alpn` or, on a sidecar, `chain`.
    pub refused: Option<String>,
    /// The policy's rule that refuses it; `none` where no rule allows it.
    pub denied: Option<String>,
    /// The policy's rule that wants it noted.
    pub audited: Option<String>,
    /// The provider that is asked about it.
    pub asks: Option<String>,
    /// What policies on trial would have done: `deny` or `allow` with the rule that matched, or `none`.
    pub dry_run: Option<Vec<String>>,
    /// What annotations ask for, by the annotation's name without its prefix: what, and behind it the resource that says so.
    pub policies: Option<BTreeMap<String, String>>,
}

/// When another attempt is made; `attempts: 0` is never.
#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retries {
    pub attempts: u32,
    #[serde(default)]
    pub on: Vec<String>,
    #[serde(default)]
    pub statuses: Vec<u16>,
    pub per_try_ms: Option<u128>,
    #[serde(default = "base")]
    pub base_ms: u128,
    /// `avoid`, `allow`, or `avoid_unless_hashed`.
    #[serde(default = "unless_hashed")]
    pub previous_hosts: String,
    #[serde(default)]
    pub remote_localities: bool,
}

#[derive(Deserialize, Default, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Fault {
    pub delay_ms: Option<u128>,
    pub delay_percent: Option<f64>,
    /// `503`, or `grpc 14`.
    pub abort: Option<String>,
    pub abort_percent: Option<f64>,
}

fn port_80() -> u16 {
    80
}

fn plain() -> String {
    "http".into()
}

fn get() -> String {
    "GET".into()
}

fn root() -> String {
    "/".into()
}

fn base() -> u128 {
    25
}

fn unless_hashed() -> String {
    "avoid_unless_hashed".into()
}

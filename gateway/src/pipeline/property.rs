//! What the pipeline promises of what it keeps: after any sequence of edits it has what it would have had from nothing.
//!
//! The small world of slots is chosen so that the edits meet: each slot is a file with one resource in one of several versions, or none.
//! What is kept is known by identity, so the same edits are given once with resources that stay the same objects and once with resources that
//! are all read anew each time.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use config_model::{parse, set::AnyResource};
use proptest::prelude::*;
use routing::{
    compile::{Compiled, compile},
    listener::FilterChain,
};

use super::{Builder, Built};
use crate::{settings::Settings, source::Loaded};

const NETWORKING: &str = "apiVersion: networking.istio.io/v1";

/// The versions of one file.
struct Slot {
    head: &'static str,
    versions: &'static [&'static str],
}

const fn slot(head: &'static str, versions: &'static [&'static str]) -> Slot {
    Slot { head, versions }
}

const GATEWAY: &[&str] = &[
    "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
    "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['shop/*.a.com', x.a.com], tls: {httpsRedirect: true}}, {port: {number: 81, name: two, protocol: HTTP}, hosts: ['*']}]}",
    "{selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}, {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}, {port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local', '*.com'], tls: {mode: AUTO_PASSTHROUGH}}]}",
    "{selector: {app: other}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
];

const VIRTUAL_SERVICE: &[&str] = &[
    "{hosts: [x.a.com], gateways: [edge/g], http: [{match: [{uri: {prefix: /p}}], route: [{destination: {host: s, subset: v1}}]}, {route: [{destination: {host: t}}]}]}",
    "{hosts: ['*.a.com', x.a.com], gateways: [edge/g, edge/h], http: [{route: [{destination: {host: s.shop.svc.cluster.local, port: {number: 80}}, weight: 20}, {destination: {host: ext.com}, weight: 80}]}]}",
    "{hosts: [x.a.com, y.b.com], gateways: [edge/h], http: [{match: [{uri: {exact: /d}}], delegate: {name: lent, namespace: shop}}, {redirect: {uri: /x}}], tcp: [{route: [{destination: {host: s}}]}]}",
    "{hosts: [x.a.com], http: [{route: [{destination: {host: s, subset: v2}}]}]}",
    "{hosts: [x.a.com], gateways: [edge/g], http: [{redirect: {uri: /x, redirectCode: 999}}]}",
    "{hosts: [x.a.com, '*'], gateways: [edge/nowhere, edge/g], exportTo: ['.'], http: [{match: [{headers: {'@request.auth.claims.a': {exact: b}}}], directResponse: {status: 200}}]}",
];

const SERVICE: &[&str] = &[
    "{clusterIP: 10.0.0.1, selector: {app: s}, ports: [{name: http, port: 80}]}",
    "{clusterIP: 10.0.0.1, selector: {app: s}, ports: [{name: http, port: 80, targetPort: web}, {name: grpc, port: 81}]}",
    "{type: ExternalName, externalName: ext.com, ports: [{name: http, port: 80}]}",
];

const SLICE: &[&str] = &[
    "{addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: p}}]}",
    "{addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], conditions: {ready: false}}]}",
];

const DESTINATION_RULE: &[&str] = &[
    "{host: s, subsets: [{name: v1, labels: {version: v1}}]}",
    "{host: s, subsets: [{name: v2, labels: {version: v2}}], trafficPolicy: {loadBalancer: {simple: RANDOM}}}",
    "{host: '*.local', exportTo: ['*'], trafficPolicy: {tls: {mode: SIMPLE, credentialName: c}}}",
];

const SLOTS: &[Slot] = &[
    slot("Gateway {name: g, namespace: edge}", GATEWAY),
    slot("Gateway {name: h, namespace: edge}", GATEWAY),
    slot("VirtualService {name: one, namespace: shop}", VIRTUAL_SERVICE),
    slot("VirtualService {name: two, namespace: shop}", VIRTUAL_SERVICE),
    slot("VirtualService {name: three, namespace: team}", VIRTUAL_SERVICE),
    // The same key from another file.
    slot("VirtualService {name: one, namespace: shop}", VIRTUAL_SERVICE),
    slot(
        "VirtualService {name: lent, namespace: shop}",
        &[
            "{http: [{match: [{uri: {exact: /d}}], route: [{destination: {host: s}}]}]}",
            "{http: [{rewrite: {uri: /n}, route: [{destination: {host: t.team.svc.cluster.local}}]}]}",
        ],
    ),
    slot("DestinationRule {name: r, namespace: shop}", DESTINATION_RULE),
    slot("DestinationRule {name: r2, namespace: shop}", DESTINATION_RULE),
    slot("Service {name: s, namespace: shop}", SERVICE),
    slot("Service {name: t, namespace: team}", SERVICE),
    slot(
        "Service {name: ingress, namespace: istio-system}",
        &[
            "{selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: 8080}]}",
            "{selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: http}]}",
        ],
    ),
    slot("EndpointSlice {name: s-1, namespace: shop, labels: {kubernetes.io/service-name: s}}", SLICE),
    slot("EndpointSlice {name: s-2, namespace: shop, labels: {kubernetes.io/service-name: s}}", SLICE),
    slot(
        "EndpointSlice {name: i-1, namespace: istio-system, labels: {kubernetes.io/service-name: ingress}}",
        SLICE,
    ),
    slot("Pod {name: p, namespace: shop, labels: {app: s, version: v1}}", &["{spec: {nodeName: n}}"]),
    slot("Pod {name: p, namespace: shop, labels: {app: s, version: v2}}", &["{spec: {nodeName: n}}"]),
    slot("Pod {name: gate, namespace: edge, labels: {app: other, istio: ingressgateway}}", &["{spec: {}}"]),
    slot(
        "WorkloadEntry {name: w, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}",
        &["{address: 10.9.0.1, labels: {app: s}}", "{address: 10.9.0.2, labels: {app: s, version: v1}}"],
    ),
    slot(
        "ServiceEntry {name: e, namespace: team}",
        &[
            "{hosts: [ext.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: s}}}",
            "{hosts: [ext.com, '*.b.com'], resolution: NONE, ports: [{number: 80, name: a, protocol: TCP}]}",
        ],
    ),
    slot(
        "Namespace {name: shop, annotations: {networking.istio.io/traffic-distribution: PreferClose}}",
        &["{}"],
    ),
    slot("Secret {name: c, namespace: istio-system}", &["{data: {}}"]),
    slot(
        "RequestAuthentication {name: a, namespace: istio-system}",
        &["{jwtRules: [{issuer: a}]}", "{selector: {matchLabels: {app: other}}}"],
    ),
    slot(
        "ConfigMap {name: istio, namespace: istio-system}",
        &[
            "{data: {mesh: 'enableAutoMtls: false'}}",
            "{data: {mesh: 'defaultVirtualServiceExportTo: [\".\"]'}}",
            "{data: {mesh: '['}}",
        ],
    ),
];

/// The text of a version; one too many stands for a document that is cut off.
fn text(slot: &Slot, version: usize) -> String {
    let (kind, metadata) = slot.head.split_once(' ').unwrap();
    let group = match kind {
        "Service" | "Pod" | "Namespace" | "Secret" | "ConfigMap" => "apiVersion: v1",
        "EndpointSlice" => "apiVersion: discovery.k8s.io/v1",
        "RequestAuthentication" => "apiVersion: security.istio.io/v1",
        _ => NETWORKING,
    };
    let head = format!("{group}\nkind: {kind}\nmetadata: {metadata}\n");
    match (slot.versions.get(version), kind) {
        (None, _) => format!("{head}spec: {{"),
        // These have their fields beside the metadata.
        (Some(fields), "EndpointSlice" | "Pod" | "Namespace" | "Secret" | "ConfigMap") => {
            let fields = fields.trim_start_matches('{').trim_end().strip_suffix('}').unwrap();
            format!("{{{group}, kind: {kind}, metadata: {metadata}, {fields}}}\n")
        }
        (Some(spec), _) => format!("{head}spec: {spec}\n"),
    }
}

/// What the files hold at a time.
type State = BTreeMap<usize, usize>;

/// A source that reads a file when its version changes, or each time.
#[derive(Default)]
struct Files {
    read: BTreeMap<usize, (usize, parse::Parsed, Vec<AnyResource>)>,
}

impl Files {
    fn load(&mut self, state: &State, anew: bool) -> Loaded {
        self.read.retain(|slot, _| state.contains_key(slot));
        let mut loaded = Loaded::default();
        for (&slot, &version) in state {
            let known = self.read.get(&slot).filter(|known| known.0 == version && !anew);
            if known.is_none() {
                let parsed = parse::parse(&format!("{slot:02}.yaml"), text(&SLOTS[slot], version));
                let good = |parsed: &parse::Parsed| parsed.resources.clone();
                let before = self
                    .read
                    .remove(&slot)
                    .map(|(_, old, kept)| if old.resources.is_empty() { kept } else { good(&old) });
                let kept = if parsed.failed.is_empty() { Vec::new() } else { before.unwrap_or_default() };
                self.read.insert(slot, (version, parsed, kept));
            }
            let (_, parsed, kept) = &self.read[&slot];
            loaded.resources.extend(parsed.resources.iter().cloned());
            loaded.kept.extend(kept.iter().cloned());
            loaded.diagnostics.share(&parsed.diagnostics);
            loaded.unparsable += parsed.failed.len();
        }
        loaded
    }
}

fn lines(built: &Built) -> Vec<String> {
    built
        .diagnostics
        .iter()
        .map(|finding| format!("{finding} {:?} {:?}", finding.hint, finding.effect))
        .collect()
}

/// Everything that is served, in words.
fn dump(compiled: &Compiled) -> String {
    let mut out = String::new();
    let clusters: BTreeMap<_, _> = compiled.clusters.iter().collect();
    for cluster in clusters.values() {
        writeln!(out, "{:?} {:?}", cluster.spec, cluster.endpoints).unwrap();
    }
    for (key, listener) in &compiled.listeners {
        for (name, chain) in listener.chains.each() {
            write_chain(&format!("{key} {}", name.unwrap_or_default()), chain, &mut out);
        }
    }
    out
}

fn write_chain(at: &str, chain: &FilterChain, out: &mut String) {
    let FilterChain { gateway, server, server_port, mode, tls, tcp, table, policies } = chain;
    let name = table.name();
    writeln!(out, "{at} {gateway} {server} {server_port} {mode:?} {tls:?} {tcp:?} {name} {policies:?}")
        .unwrap();
    for (domain, host) in table.hosts().iter() {
        writeln!(out, "  {domain} {} {} {}", host.name(), host.domain(), host.require_tls()).unwrap();
        for route in host.routes() {
            writeln!(out, "    {route:?}").unwrap();
        }
    }
}

/// One edit: a file gets a version, the broken one among them, or goes.
fn edits() -> impl Strategy<Value = Vec<(usize, Option<usize>)>> {
    let edit = (0..SLOTS.len()).prop_flat_map(|slot| {
        let versions = SLOTS[slot].versions.len();
        (Just(slot), prop::option::weighted(0.8, 0..=versions))
    });
    prop::collection::vec(edit, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_would_be_made_from_nothing(edits in edits()) {
        let identity = Settings::default().identity();
        let (mut keeping, mut forgetting) = (Builder::new(identity.clone()), Builder::new(identity.clone()));
        let (mut files, mut anew) = (Files::default(), Files::default());
        let mut state = State::new();
        let mut before: Option<Arc<Compiled>> = None;
        for (slot, version) in edits {
            match version {
                Some(version) => state.insert(slot, version),
                None => state.remove(&slot),
            };
            let built = keeping.build(&files.load(&state, false));
            let wanted = forgetting.build(&anew.load(&state, true));
            prop_assert_eq!(lines(&built), lines(&wanted), "{:?}", &state);
            prop_assert_eq!(built.validated.set(), wanted.validated.set());
            prop_assert_eq!((built.generation, built.content), (wanted.generation, wanted.content));
            let (from_nothing, _) = compile(&built.validated, &identity);
            prop_assert_eq!(dump(&built.compiled), dump(&from_nothing), "{:?}", &state);
            // Where only an endpoint has changed, the tables are the very same.
            let only_endpoints = SLOTS[slot].head.starts_with("EndpointSlice") && !SLOTS[slot].head.contains("istio-system");
            if let Some(before) = before.filter(|_| only_endpoints) {
                prop_assert!(same_listeners(&before, &built.compiled));
            }
            before = Some(Arc::clone(&built.compiled));
        }
    }
}

fn same_listeners(a: &Compiled, b: &Compiled) -> bool {
    a.listeners.len() == b.listeners.len()
        && a.listeners.iter().zip(&b.listeners).all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1))
}

#[test]
fn every_version_of_the_small_world_is_read() {
    for slot in SLOTS {
        for version in 0..slot.versions.len() {
            let parsed = parse::parse("a.yaml", text(slot, version));
            assert!(parsed.failed.is_empty() && parsed.resources.len() == 1, "{:?}", parsed.diagnostics);
        }
    }
}

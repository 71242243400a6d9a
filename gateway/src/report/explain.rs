//! What would happen to one request, and why: the answer as data.
//!
//! Invariant: listener, chain, virtual host and route come from the same functions that serve requests. The shape is an interface
//! that programs read: a field is added, never renamed. Values of headers that carry credentials are not shown.

use std::{collections::BTreeMap, fmt::Display, net::IpAddr, sync::Arc};

pub use super::answer::{
    Actions, Answer, CandidatePart, ClusterPart, DelegatePart, HeaderChanges, ListenerPart, PolicyPart,
    ResponsePart, RoutePart, Verdict, VirtualHostPart,
};
use super::{
    parts::{candidate, changes, listener_part, reply, route_part, shadowed},
    security, sidecar,
};
use crate::{
    edge::PathPolicy,
    proxy::normalize::{Normal, normalize},
};
use config_model::{annotation, meta::ResourceKey};
use http::HeaderMap;
use routing::{
    action::{headers::HeaderOps, redirect::https_redirect_location, rewrite::path_and_query},
    annotated::effective,
    cluster::{Cluster, ClusterName, Discovery, Health},
    compile::Compiled,
    decision::{Decision, NotFound},
    explain::explain,
    host::without_port,
    listener::{Bind, Chains, Direction, FilterChain, Fit, Listener, TcpRoute},
    request::{RequestHead, Scheme},
    route::{Destination, Forward, Route},
};

/// A request that somebody wonders about.
#[derive(Debug, Clone)]
pub struct Question {
    /// Method.
    pub method: String,
    /// What the client speaks to the port.
    pub transport: Transport,
    /// Port the client connects to: the bound one.
    pub port: u16,
    /// `Host`, as the client sends it.
    pub authority: String,
    /// Path without query, not normalised.
    pub path: String,
    /// Query, undecoded.
    pub query: Option<String>,
    /// Headers.
    pub headers: HeaderMap,
    /// ALPN names that the client offers; `None`: what the server asks for.
    pub alpn: Option<Vec<String>>,
    /// Address of the client; `None`: policies that ask for it do not know it.
    pub client_ip: Option<IpAddr>,
    /// What the client shows in its handshake, where it is asked; `None`: nothing.
    pub client_certificate: Option<Certificate>,
    /// Where the connection goes, of a sidecar; `None`: to what the authority stands for.
    pub destination: Option<IpAddr>,
    /// Which way through a sidecar.
    pub direction: Direction,
    /// Chooses among weighted destinations; without it all are told.
    pub seed: Option<u64>,
    /// Bound port by gateway port.
    pub port_map: BTreeMap<u16, u16>,
}

/// The names of a client's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Of the kind URI.
    pub uris: Vec<String>,
    /// Of the kind DNS.
    pub dns: Vec<String>,
    /// The subject.
    pub subject: String,
}

/// What a client speaks to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// HTTP without TLS.
    Plain,
    /// HTTP in TLS, with this server name.
    Tls(Option<String>),
    /// Bytes that are not HTTP.
    Tcp,
}

/// Answers a question about what was compiled, with paths in the form that `paths` asks for.
#[must_use]
pub fn answer(compiled: &Compiled, paths: &PathPolicy, question: &Question) -> Answer {
    let (listener, chain) = match find(compiled, question) {
        Ok(found) => found,
        Err((listener, reason)) => {
            return refused(listener.map(|listener| listener_part(listener, question.port, None)), reason);
        }
    };
    let part = listener_part(listener, question.port, Some(chain));
    if let Some(route) = &chain.tcp {
        let judged = security::of_connection(compiled, question, (listener, chain));
        return match judged.denial {
            Some(denial) => denied(part, denial),
            None => Answer { reason: judged.note, ..passthrough(compiled, question, part, route) },
        };
    }
    let path = match normalize(&question.path, paths) {
        Ok(Normal::Path(path)) => path,
        Ok(Normal::Redirect(path)) => {
            let location = path_and_query(&path, question.query.as_deref());
            let headers = BTreeMap::from([("location".to_owned(), location)]);
            let response =
                ResponsePart { status: 307, headers, flags: "-".to_owned(), ..ResponsePart::default() };
            return Answer { listener: Some(part), response: Some(response), ..empty(Verdict::Redirect) };
        }
        Err(_) => {
            let response = ResponsePart { status: 400, flags: "DPE".to_owned(), ..ResponsePart::default() };
            let reason = "the path cannot be normalised".to_owned();
            return Answer { response: Some(response), ..refused(Some(part), reason) };
        }
    };
    let scheme = if chain.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let head = RequestHead {
        method: &question.method,
        scheme,
        authority: &question.authority,
        path: &path,
        query: question.query.as_deref(),
        headers: &question.headers,
        claims: None,
    };
    let judged = security::of_request(compiled, question, (listener, chain), &head);
    if let Some(denial) = judged.denial {
        return denied(part, denial);
    }
    let head = RequestHead { claims: judged.claims.as_ref(), ..head };
    let explanation = explain(&chain.table, &head);
    let mut answer = Answer { listener: Some(part), ..empty(Verdict::NotFound) };
    answer.virtual_host = explanation
        .host
        .as_ref()
        .map(|host| VirtualHostPart { name: host.name().to_string(), domain: host.domain().to_string() });
    answer.candidates = explanation.candidates.iter().map(candidate).collect();
    answer.shadowed = shadowed(&explanation);
    let decision = chain.table.lookup(&head);
    answer.actions.policies = annotated(decision.route().map(|route| &**route), chain);
    decide(&mut answer, compiled, question, &head, decision);
    answer.reason = answer.reason.or(judged.note);
    answer
}

/// The policies that annotations of the rule's VirtualService, or else of the Gateway, ask for.
pub(super) fn annotated(route: Option<&Route>, chain: &FilterChain) -> BTreeMap<String, PolicyPart> {
    let rule = route.and_then(|route| route.origin.metadata.policies.as_deref());
    let server = chain.policies.as_deref();
    let mut parts = BTreeMap::new();
    fn part<T: Display>(
        parts: &mut BTreeMap<String, PolicyPart>,
        name: &str,
        found: Option<(&ResourceKey, &T)>,
    ) {
        if let Some((of, asks)) = found {
            let name = name.strip_prefix(annotation::PREFIX).unwrap_or(name).to_owned();
            parts.insert(name, PolicyPart { of: of.to_string(), asks: asks.to_string() });
        }
    }
    let limit = effective(rule, server, |policies| policies.rate_limit.as_ref());
    part(&mut parts, annotation::RATE_LIMIT, limit);
    let longest = effective(rule, server, |policies| policies.max_request_body.as_ref());
    part(&mut parts, annotation::MAX_REQUEST_BODY, longest);
    part(
        &mut parts,
        annotation::COMPRESSION,
        effective(rule, server, |policies| policies.compression.as_ref()),
    );
    part(
        &mut parts,
        annotation::ERROR_PAGES,
        effective(rule, server, |policies| policies.error_pages.as_ref()),
    );
    parts
}

/// Fills in what the decision says.
fn decide(
    answer: &mut Answer,
    compiled: &Compiled,
    question: &Question,
    head: &RequestHead<'_>,
    decision: Decision<'_>,
) {
    match decision {
        Decision::Forward { route, forward, .. } => {
            answer.verdict = Verdict::Forward;
            answer.route = Some(route_part(&route.origin));
            forward_parts(answer, compiled, question, head, forward);
        }
        Decision::Redirect { route, redirect, .. } => {
            answer.verdict = Verdict::Redirect;
            answer.route = Some(route_part(&route.origin));
            answer.actions.response_headers = changes(&route.response_headers);
            let location = redirect.location(head);
            answer.response =
                Some(reply(redirect.code, Some(&location), (&[], None), &route.response_headers));
        }
        Decision::Reply { route, reply: direct, .. } => {
            answer.verdict = Verdict::DirectResponse;
            answer.route = Some(route_part(&route.origin));
            answer.actions.response_headers = changes(&route.response_headers);
            answer.response = Some(reply(
                direct.status,
                None,
                (&direct.body, direct.content_type()),
                &route.response_headers,
            ));
        }
        Decision::RequireTls { .. } => {
            answer.verdict = Verdict::Redirect;
            let location = https_redirect_location(head);
            answer.response = Some(reply(301, Some(&location), (&[], None), &HeaderOps::default()));
            answer.reason = Some("the server has tls.httpsRedirect: plain text is sent to https".to_owned());
        }
        Decision::NotFound(why) => {
            answer.reason = Some(match why {
                NotFound::Host => format!("no virtual host of this server takes {:?}", head.authority),
                NotFound::Route(host) => format!("no rule of virtual host {} matches", host.name()),
            });
            answer.response =
                Some(ResponsePart { status: 404, flags: "NR".to_owned(), ..ResponsePart::default() });
        }
    }
}

/// Where the bytes of a connection go.
fn passthrough(compiled: &Compiled, question: &Question, part: ListenerPart, route: &TcpRoute) -> Answer {
    let single = route.destinations().len() == 1;
    let picked = question.seed.and_then(|seed| route.pick(spread(seed)));
    let shown = route.destinations().iter().filter(|to| picked.is_none_or(|picked| *picked == to.cluster));
    let clusters: Vec<ClusterPart> = shown
        .map(|to| ClusterPart {
            name: to.cluster.to_string(),
            weight: if single { 100 } else { to.weight },
            endpoints: endpoints(compiled, &to.cluster),
        })
        .collect();
    let of = route.virtual_service().map(|virtual_service| RoutePart {
        virtual_service: virtual_service.to_owned(),
        name: None,
        index: 0,
        match_index: 0,
        delegate: None,
    });
    let nowhere = |part: &ClusterPart| part.name == ClusterName::black_hole().as_str();
    if clusters.iter().any(nowhere) {
        let reason = "what no service has goes nowhere (outboundTrafficPolicy): the connection is closed";
        return Answer { clusters, ..refused(Some(part), reason.to_owned()) };
    }
    Answer { listener: Some(part), clusters, route: of, ..empty(Verdict::Passthrough) }
}

/// How many endpoints of a cluster may be picked. Where the connection was going is one, of a sidecar.
fn endpoints(compiled: &Compiled, name: &ClusterName) -> usize {
    let Some(cluster) = compiled.clusters.get(name) else { return 0 };
    let original = matches!(cluster.spec.discovery, Discovery::OriginalDestination { .. });
    if original && compiled.identity().role.workload().is_some() { 1 } else { usable(cluster) }
}

fn forward_parts(
    answer: &mut Answer,
    compiled: &Compiled,
    question: &Question,
    head: &RequestHead<'_>,
    forward: &Forward,
) {
    let single = forward.destinations.len() == 1;
    let part = |destination: &Destination| ClusterPart {
        name: destination.cluster.to_string(),
        // A lone destination gets everything, whatever its weight says.
        weight: if single { 100 } else { destination.weight },
        endpoints: endpoints(compiled, &destination.cluster),
    };
    let picked = question.seed.and_then(|seed| forward.pick(spread(seed)));
    answer.clusters = match picked {
        Some(picked) => vec![part(picked)],
        None => forward.destinations.iter().map(part).collect(),
    };
    let path = forward.rewrite.as_ref().map_or(head.path.into(), |rewrite| rewrite.apply(head.path));
    answer.actions.path = Some(routing::action::rewrite::path_and_query(&path, head.query));
    answer.actions.timeout_ms =
        forward.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let shown = picked.or(forward.destinations.first());
    let of_headers =
        shown.and_then(|destination| destination.headers.authority()).map(|authority| &**authority);
    answer.actions.authority =
        Some(forward.authority.as_deref().or(of_headers).unwrap_or(head.authority).to_owned());
    if let Some(destination) = shown {
        answer.actions.request_headers = changes(&destination.headers.request);
        answer.actions.response_headers = changes(&destination.headers.response);
    }
    let answered = super::actions::fill(&mut answer.actions, head, forward);
    if answered.is_some() {
        answer.response = answered;
    } else if let [only] = answer.clusters.as_slice()
        && only.endpoints == 0
    {
        let known = forward.destinations.iter().any(|destination| {
            destination.cluster.as_str() == only.name && compiled.clusters.contains_key(&destination.cluster)
        });
        let (body, flags) = if known { ("no healthy upstream", "UH") } else { ("", "NC") };
        answer.response = Some(ResponsePart {
            status: 503,
            body: body.to_owned(),
            flags: flags.to_owned(),
            headers: BTreeMap::new(),
        });
    } else if answer.clusters.is_empty() {
        answer.response =
            Some(ResponsePart { status: 503, flags: "NC".to_owned(), ..ResponsePart::default() });
    }
}

/// What takes the connection; else the listener that was asked, and why it is refused.
type Found<'c> = Result<(&'c Arc<Listener>, &'c Arc<FilterChain>), (Option<&'c Arc<Listener>>, String)>;

fn find<'c>(compiled: &'c Compiled, question: &Question) -> Found<'c> {
    let nobody = || (None, format!("nothing listens on port {}", question.port));
    if compiled.identity().role.workload().is_some() {
        let (listener, chain) = sidecar::taken(compiled, question).ok_or_else(nobody)?;
        return chain.map(|chain| (listener, chain)).map_err(|why| (Some(listener), why));
    }
    let listener = find_listener(compiled, question).ok_or_else(nobody)?;
    let chain = choose_chain(listener, question).map_err(|reason| (Some(listener), reason))?;
    Ok((listener, chain))
}

/// The listener on a bound port; one for all addresses before one for a single address.
fn find_listener<'c>(compiled: &'c Compiled, question: &Question) -> Option<&'c Arc<Listener>> {
    let bound = |port: u16| question.port_map.get(&port).copied().unwrap_or(port);
    let mut on_port =
        compiled.listeners.values().filter(|listener| bound(listener.key.port) == question.port);
    let first = on_port.clone().next();
    on_port.find(|listener| listener.key.bind == Bind::Any).or(first)
}

fn choose_chain<'l>(listener: &'l Listener, question: &Question) -> Result<&'l Arc<FilterChain>, String> {
    match (&listener.chains, &question.transport) {
        (Chains::Http(chain), Transport::Tcp) if chain.tcp.is_some() => Ok(chain),
        (_, Transport::Tcp) => Err("no server on this port takes plain TCP".to_owned()),
        (Chains::Matched(_), _) => Err("the listener is for traffic within the mesh".to_owned()),
        (Chains::Http(chain), Transport::Plain) => Ok(chain),
        (Chains::Http(_), Transport::Tls(_)) => {
            Err("the port speaks plain HTTP and the client speaks TLS".to_owned())
        }
        (Chains::Tls(_), Transport::Plain) => {
            Err("the port speaks TLS and the client speaks plain HTTP".to_owned())
        }
        (Chains::Tls(index), Transport::Tls(name)) => {
            let chain = index.lookup_sni(name.as_deref()).ok_or_else(|| match name {
                Some(name) => format!("no server on this port has a host for the TLS server name {name:?}"),
                None => "no server on this port takes clients without a TLS server name".to_owned(),
            })?;
            let offered = question.alpn.iter().flatten().map(String::as_bytes);
            if question.alpn.is_some() && chain.fit(offered) == Fit::NotOfMesh {
                return Err("AUTO_PASSTHROUGH is for the mesh's own proxies: offer ALPN istio".to_owned());
            }
            Ok(chain)
        }
    }
}

/// The server name that a client sends for an authority: its host, unless that is an address (RFC 6066 §3).
#[must_use]
pub fn default_server_name(authority: &str) -> Option<String> {
    let host = without_port(authority);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty() && bare.parse::<IpAddr>().is_err()).then(|| host.to_ascii_lowercase())
}

fn denied(part: ListenerPart, denial: security::Denial) -> Answer {
    let security::Denial { response, reason } = denial;
    Answer { listener: Some(part), response, reason: Some(reason), ..empty(Verdict::Denied) }
}

fn refused(listener: Option<ListenerPart>, reason: String) -> Answer {
    Answer { listener, reason: Some(reason), ..empty(Verdict::Refused) }
}

fn empty(verdict: Verdict) -> Answer {
    Answer {
        verdict,
        listener: None,
        virtual_host: None,
        route: None,
        clusters: Vec::new(),
        actions: Actions::default(),
        response: None,
        candidates: Vec::new(),
        shadowed: Vec::new(),
        reason: None,
    }
}

/// Endpoints of a cluster that may be picked, as far as the configuration knows.
pub(crate) fn usable(cluster: &Cluster) -> usize {
    match cluster.spec.discovery {
        Discovery::OriginalDestination { .. } => 0,
        Discovery::Static | Discovery::StrictDns | Discovery::LogicalDns | Discovery::DynamicDns => {
            cluster.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy).count()
        }
    }
}

/// Small seeds give choices as different as large ones (SplitMix64).
fn spread(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use config_model::mesh::MeshConfig;

    fn nothing() -> Compiled {
        let validated = config_model::validate::Validated::default();
        routing::compile::compile(&validated, &routing::compile::Identity::default()).0
    }

    #[test]
    fn an_address_is_no_server_name() {
        assert_eq!(default_server_name("Shop.example:8443").as_deref(), Some("shop.example"));
        assert_eq!(default_server_name("10.0.0.1:8443"), None);
        assert_eq!(default_server_name("[::1]:8443"), None);
    }

    #[test]
    fn nobody_listens_is_refused_without_a_listener() {
        let question = Question {
            method: "GET".to_owned(),
            transport: Transport::Plain,
            port: 1,
            authority: "a.example".to_owned(),
            path: "/".to_owned(),
            query: None,
            headers: HeaderMap::new(),
            alpn: None,
            client_ip: None,
            client_certificate: None,
            destination: None,
            direction: Direction::Gateway,
            seed: None,
            port_map: BTreeMap::new(),
        };
        let shown =
            serde_json::to_value(answer(&nothing(), &PathPolicy::of(&MeshConfig::default()), &question))
                .unwrap();
        assert_eq!(shown["verdict"], "refused");
        assert!(shown["listener"].is_null());
        assert!(shown["candidates"].as_array().unwrap().is_empty());
    }

    #[test]
    fn a_path_is_judged_in_the_form_that_the_mesh_asks_for() {
        let yaml = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: istio-system}\n\
                    spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, \
                    hosts: [\"*\"]}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                    metadata: {name: v, namespace: istio-system}\nspec: {hosts: [\"*\"], gateways: [g], http: [{match: \
                    [{uri: {exact: /a/b}}], directResponse: {status: 200}}]}\n";
        let mut set = config_model::set::ResourceSet::new();
        set.extend(config_model::parse::parse("t.yaml", yaml).resources);
        let (validated, _) = config_model::validate::validate(set);
        let compiled = routing::compile::compile(&validated, &routing::compile::Identity::default()).0;
        let question = Question {
            method: "GET".to_owned(),
            transport: Transport::Plain,
            port: 80,
            authority: "a.example".to_owned(),
            path: "//a/b".to_owned(),
            query: None,
            headers: HeaderMap::new(),
            alpn: None,
            client_ip: None,
            client_certificate: None,
            destination: None,
            direction: Direction::Gateway,
            seed: None,
            port_map: BTreeMap::new(),
        };
        for (mesh, verdict) in [
            ("{}", Verdict::NotFound),
            ("{pathNormalization: {normalization: MERGE_SLASHES}}", Verdict::DirectResponse),
        ] {
            let paths = PathPolicy::of(&config_model::parse::value(mesh).unwrap());
            assert_eq!(answer(&compiled, &paths, &question).verdict, verdict, "{mesh}");
        }
    }
}

//! What a request gets, as far as its case asks.

use super::{
    Exchange, Expect, Fault, Headers, Lines, Retries, annotated::annotated, authorize::authorize,
    facts::Known, header_map,
};
use http::{HeaderMap, HeaderValue, Method};
use routing::{
    action::{
        cors::CorsPlan,
        fault::AbortStatus,
        headers::{Direction as Way, HeaderOps},
        redirect::https_redirect_location,
        retry::{Localities, PreviousHosts},
        rewrite::path_and_query,
    },
    compile::Compiled,
    decision::{Decision, NotFound},
    listener::{
        Chains, Direction, FilterChain, Fit, Listener, Reached, Sniffed, TcpRoute, Transport,
        of_original_destination,
    },
    request::{RequestHead, Scheme},
    route::{Forward, Route},
};
use std::{net::SocketAddr, sync::Arc};

/// The head that goes upstream, or that a local reply answers.
pub(crate) struct Sent {
    pub authority: String,
    pub path: String,
    pub headers: HeaderMap,
}

pub(crate) fn answer(compiled: &Compiled, request: &Exchange) -> Expect {
    let refused = |what: &str| Expect { refused: Some(what.into()), ..Expect::default() };
    let Some(listener) = listener(compiled, request) else {
        return refused("listener");
    };
    let mut got = Expect::default();
    let mut ended = request.scheme == "https";
    let to = going_to(request);
    let chain: &FilterChain = match (&listener.chains, request.scheme.as_str()) {
        (Chains::Matched(chains), _) => match chains.pick(to, &chains.seen(to, sniffed(request))) {
            None => return refused("chain"),
            Some(chain) => {
                let wants = request.expect.listener.as_ref();
                got.listener = wants.map(|_| format!("{} {}", listener.name(), chain.server));
                ended = chain.tls.is_some();
                chain
            }
        },
        (Chains::Http(chain), "http" | "tcp") => chain,
        (Chains::Tls(index), "https") => match index.lookup_sni(request.sni.as_deref()) {
            Some(chain) if chain.fit(request.alpn.iter().map(String::as_bytes)) == Fit::NotOfMesh => {
                return refused("alpn");
            }
            Some(chain) => chain,
            None => return refused("sni"),
        },
        (_, scheme) => panic!("{scheme} to port {}", request.port),
    };
    if let Some(route) = &chain.tcp {
        return carried(compiled, request, listener, route, got);
    }
    let table = &chain.table;
    let headers = header_map(&request.headers);
    let claims = request.verified();
    let (path, query) = match request.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.path.as_str(), None),
    };
    let head = RequestHead {
        method: &request.method,
        scheme: if ended { Scheme::Https } else { Scheme::Http },
        authority: &request.authority,
        path,
        query,
        headers: &headers,
        claims: claims.as_ref(),
    };
    if listener.direction != Direction::Outbound
        && !authorize(&mut got, &compiled.authorization.http, request, listener, Some(&head))
    {
        return got;
    }
    let decision = table.lookup(&head);
    let policies = || annotated(decision.route().map(|route| &**route), chain);
    got.policies = request.expect.policies.as_ref().map(|_| policies());
    got.host =
        request.expect.host.as_ref().and_then(|_| Some(table.host(&request.authority)?.name().to_string()));
    if let Decision::Forward { route, .. }
    | Decision::Redirect { route, .. }
    | Decision::Reply { route, .. } = &decision
    {
        of_route(&mut got, &request.expect, route);
    }
    match decision {
        Decision::Forward { forward, .. } => forwarded(&mut got, compiled, request, &head, forward),
        Decision::Redirect { redirect, route, .. } => {
            let location = redirect.location(&head);
            let mut reply = HeaderMap::new();
            reply.insert("location", HeaderValue::from_str(&location).unwrap());
            local(&mut got, request, &head, reply, &route.response_headers, None);
            got.redirect = Some(location);
            got.status = Some(redirect.code);
        }
        Decision::RequireTls { .. } => {
            got.redirect = Some(https_redirect_location(&head));
            got.status = Some(301);
        }
        Decision::Reply { reply, route, .. } => {
            local(&mut got, request, &head, HeaderMap::new(), &route.response_headers, reply.content_type());
            got.status = Some(reply.status);
            let body = || String::from_utf8_lossy(&reply.body).into_owned();
            got.body = request.expect.body.as_ref().map(|_| body());
        }
        Decision::NotFound(NotFound::Host) => got.not_found = Some("host".into()),
        Decision::NotFound(NotFound::Route(_)) => got.not_found = Some("route".into()),
    }
    got
}

/// The listener that serves it.
fn listener<'c>(compiled: &'c Compiled, request: &Exchange) -> Option<&'c Arc<Listener>> {
    let redirected = |direction| {
        let taken_in = |l: &&Arc<Listener>| l.direction == direction && l.reached == Reached::Redirected;
        compiled.listeners.values().find(taken_in)
    };
    let accepted = match (request.to, request.comes_to) {
        (Some(to), _) => (redirected(Direction::Outbound)?, to),
        (_, Some(to)) => (redirected(Direction::Inbound)?, to),
        (None, None) => {
            return compiled.listeners.values().find(|l| l.key.port == request.port && l.is_bound());
        }
    };
    Some(of_original_destination(&compiled.listeners, accepted.0, accepted.1))
}

fn going_to(request: &Exchange) -> SocketAddr {
    request.to.or(request.comes_to).unwrap_or_else(|| ([127, 0, 0, 1], request.port).into())
}

/// What the first bytes of its connection show.
fn sniffed(request: &Exchange) -> Sniffed {
    let bytes = |names: &[&str]| names.iter().map(|name| name.as_bytes().into()).collect();
    let (transport, protocols) = match request.scheme.as_str() {
        "https" => (Transport::Tls, request.alpn.iter().map(|name| name.as_bytes().into()).collect()),
        "http" => (Transport::Raw, bytes(&["http/1.1"])),
        "tcp" => (Transport::Raw, bytes(&[])),
        other => panic!("scheme {other}"),
    };
    Sniffed { transport: Some(transport), server_name: request.sni.as_deref().map(Arc::from), protocols }
}

/// A connection whose bytes are not looked at.
fn carried(
    compiled: &Compiled,
    request: &Exchange,
    listener: &Listener,
    route: &TcpRoute,
    mut got: Expect,
) -> Expect {
    if listener.direction != Direction::Outbound
        && !authorize(&mut got, &compiled.authorization.tcp, request, listener, None)
    {
        return got;
    }
    let (want, to) = (&request.expect, route.destinations());
    let count = |name| compiled.cluster(name).map(|cluster| cluster.endpoints.len());
    let missing: Vec<_> = to.iter().filter(|to| count(&to.cluster).is_none()).collect();
    Expect {
        clusters: Some(to.iter().map(|to| to.cluster.to_string()).collect()),
        weights: (to.len() > 1).then(|| to.iter().map(|to| to.weight).collect()),
        missing: (!missing.is_empty()).then(|| missing.iter().map(|to| to.cluster.to_string()).collect()),
        endpoints: want.endpoints.as_ref().map(|_| to.iter().filter_map(|to| count(&to.cluster)).collect()),
        ..got
    }
}

fn of_route(got: &mut Expect, want: &Expect, route: &Route) {
    let origin = &route.origin;
    got.rule = want.rule.as_ref().map(|_| format!("{} {}", origin.virtual_service, origin.index));
    let delegate = origin.delegate.as_ref();
    let shown = || delegate.map(|delegate| format!("{} {}", delegate.virtual_service, delegate.index));
    got.delegate = want.delegate.as_ref().and_then(|_| shown());
    got.name = want.name.as_ref().map(|_| origin.name.as_deref().unwrap_or_default().to_owned());
}

fn forwarded(
    got: &mut Expect,
    compiled: &Compiled,
    request: &Exchange,
    head: &RequestHead<'_>,
    forward: &Forward,
) {
    let want = &request.expect;
    let clusters: Vec<_> = forward.destinations.iter().map(|d| &d.cluster).collect();
    let missing: Vec<_> =
        clusters.iter().filter(|name| compiled.cluster(name).is_none()).map(ToString::to_string).collect();
    got.missing = (!missing.is_empty()).then_some(missing);
    got.endpoints = want.endpoints.as_ref().map(|_| {
        clusters.iter().map(|name| compiled.cluster(name).map_or(0, |c| c.endpoints.len())).collect()
    });
    let many = clusters.len() > 1 || want.weights.is_some();
    got.weights = many.then(|| forward.destinations.iter().map(|d| d.weight).collect());
    got.clusters = Some(clusters.iter().map(ToString::to_string).collect());
    got.timeout_ms = forward.timeout.map(|timeout| timeout.as_millis());
    got.retries = want.retries.as_ref().map(|_| retries(forward));
    let filters = forward.filters.as_deref();
    let fault = filters.and_then(|filters| filters.fault.as_ref());
    got.fault = want.fault.as_ref().map(|_| fault.map(fault_of).unwrap_or_default());
    got.mirrors = want.mirrors.as_ref().map(|_| {
        let mirrors = filters.into_iter().flat_map(|filters| &filters.mirrors);
        mirrors.map(|mirror| format!("{} {}", mirror.cluster, mirror.share.percent())).collect()
    });
    let path = forward.rewrite.as_ref().map_or(head.path.into(), |rewrite| rewrite.apply(head.path));
    let destination = forward.destinations.get(request.destination);
    let of_headers = destination.and_then(|d| d.headers.authority()).map(|authority| &**authority);
    let mut sent = Sent {
        authority: forward.authority.as_deref().or(of_headers).unwrap_or(head.authority).to_owned(),
        path: path_and_query(&path, head.query),
        headers: head.headers.clone(),
    };
    got.upstream_path = want.upstream_path.as_ref().map(|_| sent.path.clone());
    got.upstream_authority = want.upstream_authority.as_ref().map(|_| sent.authority.clone());
    let Some(destination) = destination else { return };
    let scheme = head.scheme.as_str();
    let client = Sent {
        authority: head.authority.to_owned(),
        path: head.path_and_query(),
        headers: head.headers.clone(),
    };
    let facts = Known { method: head.method, scheme, sent: &client, answered: false };
    destination.headers.request.apply(&mut sent.headers, Way::Request, &facts);
    got.upstream_headers = want.upstream_headers.as_ref().map(|names| shown(&sent.headers, names));
    let cors = filters.and_then(|filters| filters.cors.as_ref());
    let method = Method::from_bytes(head.method.as_bytes()).unwrap();
    let plan = cors.map_or(CorsPlan::Pass, |cors| cors.plan(&method, head.headers));
    got.cors = want.cors.as_ref().map(|_| {
        match plan {
            CorsPlan::Pass => "pass",
            CorsPlan::Preflight { .. } => "preflight",
            CorsPlan::Mark { .. } => "mark",
        }
        .to_owned()
    });
    let mut response = header_map(&request.response);
    if let (CorsPlan::Preflight { origin }, Some(cors)) = (plan, cors) {
        response.clear();
        cors.preflight(origin, head.headers, &mut response);
    } else {
        let facts = Known { method: head.method, scheme, sent: &sent, answered: true };
        destination.headers.response.apply(&mut response, Way::Response, &facts);
        if let (CorsPlan::Mark { origin }, Some(cors)) = (plan, cors) {
            cors.actual(origin, &mut response);
        }
    }
    got.response_headers = want.response_headers.as_ref().map(|names| shown(&response, names));
}

/// A reply of the gateway's own: the rule's operations, then the type that none of them gave.
fn local(
    got: &mut Expect,
    request: &Exchange,
    head: &RequestHead<'_>,
    mut reply: HeaderMap,
    ops: &HeaderOps,
    content_type: Option<&'static str>,
) {
    let sent = Sent {
        authority: head.authority.to_owned(),
        path: head.path_and_query(),
        headers: head.headers.clone(),
    };
    let facts = Known { method: head.method, scheme: head.scheme.as_str(), sent: &sent, answered: false };
    ops.apply(&mut reply, Way::Response, &facts);
    if let Some(content_type) = content_type {
        reply.entry("content-type").or_insert(HeaderValue::from_static(content_type));
    }
    got.response_headers = request.expect.response_headers.as_ref().map(|names| shown(&reply, names));
}

/// The headers of these names.
fn shown(headers: &HeaderMap, names: &Headers) -> Headers {
    let lines = |name: &str| {
        let mut lines: Vec<_> =
            headers.get_all(name).iter().map(|line| line.to_str().unwrap().to_owned()).collect();
        match lines.len() {
            0 => None,
            1 => lines.pop().map(Lines::One),
            _ => Some(Lines::Several(lines)),
        }
    };
    names.keys().map(|name| (name.clone(), lines(name))).collect()
}

fn retries(forward: &Forward) -> Retries {
    let Some(policy) = &forward.retry else {
        return Retries {
            attempts: 0,
            on: Vec::new(),
            statuses: Vec::new(),
            per_try_ms: None,
            base_ms: super::base(),
            previous_hosts: super::unless_hashed(),
            remote_localities: false,
        };
    };
    Retries {
        attempts: policy.retries,
        on: policy.on.names().map(str::to_owned).collect(),
        statuses: policy.statuses.to_vec(),
        per_try_ms: policy.per_try_timeout.map(|time| time.as_millis()),
        base_ms: policy.base.as_millis(),
        previous_hosts: match policy.previous_hosts {
            PreviousHosts::Avoid => "avoid",
            PreviousHosts::Allow => "allow",
            PreviousHosts::AvoidUnlessHashed => "avoid_unless_hashed",
        }
        .to_owned(),
        remote_localities: policy.localities == Localities::Remote,
    }
}

fn fault_of(fault: &routing::action::fault::Fault) -> Fault {
    Fault {
        delay_ms: fault.delay.map(|delay| delay.time.as_millis()),
        delay_percent: fault.delay.map(|delay| delay.share.percent()),
        abort: fault.abort.map(|abort| match abort.status {
            AbortStatus::Http(status) => status.to_string(),
            AbortStatus::Grpc(code) => format!("grpc {code}"),
        }),
        abort_percent: fault.abort.map(|abort| abort.share.percent()),
    }
}

//! From the HTTP rules of one VirtualService to routes, as one server of one Gateway sees them.
//!
//! Invariant: what cannot be compiled is left out and said; it never takes other entries with it. Order is as written;
//! moving catch-alls is left to `precedence`.

use super::{
    Identity,
    actions::{Actions, MirrorTarget},
    registry::Registry,
};
use crate::{
    action::{
        headers::{Direction, HeaderOps, HeaderPlan, ProblemKind, combine_single, combine_weighted},
        mirror::Mirror,
        redirect::{Redirect, ServerFacts},
        reply::DirectReply,
        retry::RetryPolicy,
        rewrite::PathRewrite,
    },
    claims::ClaimPath,
    cluster::ClusterName,
    header::HeaderKey,
    matcher::{Pattern, PatternError, StringMatcher},
    path::PathMatch,
    request::Scheme,
    route::{Action, Condition, Destination, Forward, Route, RouteFilters, RouteMatch, RouteOrigin},
};
use config_model::{
    diagnostic::{Code, Diagnostic},
    istio::virtual_service::{Headers, HttpMatchRequest, HttpRoute, VirtualService},
    mesh::MeshConfig,
    meta::{Resource, ResourceKey},
    scalar::{StringMatch, labels::is_subset_of},
    validate::resolve_gateway_name,
};
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

/// The routes of one VirtualService on one server, and what is to be said about them.
#[derive(Debug)]
pub(super) struct RouteList {
    /// In the order written, ending at the first catch-all.
    pub(super) routes: Vec<Arc<Route>>,
    findings: Vec<Finding>,
}

#[derive(Debug)]
struct Finding {
    code: Code,
    path: String,
    message: String,
}

impl RouteList {
    /// The findings, about the resource as it stands now.
    pub(super) fn report(&self, resource: &Resource<VirtualService>, out: &mut Vec<Diagnostic>) {
        out.extend(self.findings.iter().map(|finding| {
            Diagnostic::new(finding.code, finding.message.clone())
                .about(&resource.key, &resource.origin)
                .at(finding.path.clone())
        }));
    }
}

/// The server that routes are compiled for.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// Key of its Gateway.
    pub(super) gateway: &'a ResourceKey,
    /// Its port number as written.
    pub(super) port: u16,
    /// Scheme that redirects judge a port by: https where it has a `tls` block, even a redirecting one.
    pub(super) scheme: Scheme,
}

/// Everything that a route list depends on: equal sources give equal lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceKey {
    virtual_service: ResourceKey,
    content: u64,
    gateway: ResourceKey,
    port: u16,
    https: bool,
    /// Hash over the destinations as they resolve now, and what the mesh says.
    destinations: u64,
}

/// Compiles rules; remembers patterns, because the same one tends to be written many times and is costly.
pub(super) struct RuleCompiler<'a> {
    registry: &'a Registry<'a>,
    identity: &'a Identity,
    actions: Actions,
    patterns: HashMap<&'a str, Result<Pattern, PatternError>>,
}

impl<'a> RuleCompiler<'a> {
    pub(super) fn new(registry: &'a Registry<'a>, identity: &'a Identity, mesh: &MeshConfig) -> Self {
        Self { registry, identity, actions: Actions::new(mesh), patterns: HashMap::new() }
    }

    /// What the route list of a VirtualService on a server depends on.
    pub(super) fn source_key(&self, resource: &Resource<VirtualService>, site: Site<'_>) -> SourceKey {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        self.actions.mesh_key().hash(&mut hasher);
        let destinations = resource.spec.http.iter().flat_map(|rule| {
            rule.route
                .iter()
                .map(|to| &to.destination)
                .chain(MirrorTarget::all(rule).map(|to| to.destination))
        });
        for destination in destinations {
            let port = destination.port_number().map(|port| port.get());
            let namespace = resource.key.namespace.as_str();
            self.registry.resolve(&destination.host, port, namespace, site.port).hash(&mut hasher);
        }
        SourceKey {
            virtual_service: resource.key.clone(),
            content: resource.content_hash,
            gateway: site.gateway.clone(),
            port: site.port,
            https: site.scheme == Scheme::Https,
            destinations: hasher.finish(),
        }
    }

    /// Whether any entry is left for this server: a VirtualService without one makes no virtual host there.
    pub(super) fn applies(&self, resource: &Resource<VirtualService>, site: Site<'_>) -> bool {
        let own = resource.key.namespace.as_str();
        resource.spec.http.iter().filter(|rule| rule.delegate.is_none()).any(|rule| {
            rule.matches.is_empty() || rule.matches.iter().any(|m| self.entry_applies(m, own, site))
        })
    }

    /// Compiles the rules.
    pub(super) fn compile(&mut self, resource: &'a Resource<VirtualService>, site: Site<'_>) -> RouteList {
        let origin: Arc<str> = format!("{}/{}", resource.key.namespace, resource.key.name).into();
        let mut list = RouteList { routes: Vec::new(), findings: Vec::new() };
        for (index, rule) in resource.spec.http.iter().enumerate() {
            let path = format!("spec.http[{index}]");
            if rule.delegate.is_some() {
                list.findings.push(Finding {
                    code: Code::RULE_DROPPED,
                    path: format!("{path}.delegate"),
                    message: "delegation is not yet honoured: the rule takes no request".to_owned(),
                });
                continue;
            }
            let stops = self.rule(resource, site, rule, (index, &path, &origin), &mut list);
            // Istio: route.go `BuildHTTPRoutesForVirtualService` ends at the first catch-all, and always at a rule
            // without match.
            if stops || rule.matches.is_empty() {
                break;
            }
        }
        list
    }

    /// Compiles one rule's entries; says whether one of them takes everything.
    fn rule(
        &mut self,
        resource: &'a Resource<VirtualService>,
        site: Site<'_>,
        rule: &'a HttpRoute,
        (index, path, origin): (usize, &str, &Arc<str>),
        list: &mut RouteList,
    ) -> bool {
        let namespace = resource.key.namespace.as_str();
        let mut entries: Vec<(usize, Option<&'a str>, RouteMatch)> = Vec::new();
        if rule.matches.is_empty() {
            let path = PathMatch::Prefix { text: "/".into(), ignore_case: false };
            entries.push((0, None, RouteMatch { path, conditions: [].into() }));
        }
        for (match_index, request) in rule.matches.iter().enumerate() {
            if !self.entry_applies(request, namespace, site) {
                continue;
            }
            match self.matcher(request) {
                Ok(matcher) => {
                    let name = Some(request.name.as_str()).filter(|name| !name.is_empty());
                    let last = matcher.is_catch_all();
                    entries.push((match_index, name, matcher));
                    if last {
                        break;
                    }
                }
                Err((field, error)) => list.findings.push(Finding {
                    code: Code::REGEX,
                    path: format!("{path}.match[{match_index}].{field}"),
                    message: format!("{error}: the match takes no request"),
                }),
            }
        }
        let Some((_, _, last)) = entries.last() else { return false };
        let stops = last.is_catch_all();
        let headers = compile_headers(rule.headers.as_ref(), &format!("{path}.headers"), &mut list.findings);
        let destinations = self.destinations(resource, site, rule, &headers, path, &mut list.findings);
        let forwarding = self.forwarding(resource, site, rule, path, &mut list.findings);
        for (match_index, name, matcher) in entries {
            match self.action(rule, &matcher.path, site, &destinations, &forwarding) {
                Ok(action) => list.routes.push(Arc::new(Route {
                    origin: RouteOrigin {
                        virtual_service: Arc::clone(origin),
                        name: route_name(&rule.name, name),
                        index: index as u32,
                        match_index: match_index as u32,
                    },
                    matcher,
                    action,
                    response_headers: headers.response.clone(),
                })),
                Err((field, message)) => {
                    list.findings.push(Finding {
                        code: Code::RULE_DROPPED,
                        path: format!("{path}{field}"),
                        message: format!("{message}: the rule takes no request"),
                    });
                    break;
                }
            }
        }
        stops
    }

    /// What can be decided before any request (Istio: route.go `sourceMatchHTTP` and the port test of
    /// `TranslateRoute`). On a gateway "source" is the gateway's own pod.
    fn entry_applies(&self, request: &HttpMatchRequest, namespace: &str, site: Site<'_>) -> bool {
        if request.port.is_some_and(|port| port.get() != site.port) {
            return false;
        }
        if !request.gateways.is_empty() {
            let this = (site.gateway.namespace.as_str(), site.gateway.name.as_str());
            return request.gateways.iter().any(|entry| resolve_gateway_name(entry, namespace) == Some(this));
        }
        is_subset_of(&request.source_labels, &self.identity.labels)
            && (request.source_namespace.is_empty() || request.source_namespace == self.identity.namespace)
    }

    fn matcher(&mut self, request: &'a HttpMatchRequest) -> Result<RouteMatch, (String, PatternError)> {
        let path = match &request.uri {
            Some(StringMatch::Regex(text)) => {
                PathMatch::Regex(self.pattern(text).map_err(|e| ("uri".to_owned(), e))?)
            }
            other => PathMatch::compile(other.as_ref(), request.ignore_uri_case)
                .map_err(|e| ("uri".to_owned(), e))?,
        };
        let mut conditions = Vec::new();
        for (field, model) in
            [("method", &request.method), ("scheme", &request.scheme), ("authority", &request.authority)]
        {
            let Some(model) = model else { continue };
            let matcher = self.string_matcher(model).map_err(|e| (field.to_owned(), e))?;
            conditions.push(match field {
                "method" => Condition::Method(matcher),
                "scheme" => Condition::Scheme(matcher),
                _ => Condition::Authority(matcher),
            });
        }
        for (key, model) in &request.headers {
            let matcher = self.value_matcher(model.as_ref()).map_err(|e| (format!("headers[{key:?}]"), e))?;
            conditions.push(match ClaimPath::parse(key) {
                Some(path) => Condition::Claim { path, matcher },
                None => match HeaderKey::parse(key) {
                    Some(name) => Condition::Header { name, matcher },
                    None => Condition::Never { reason: format!("{key:?} is no header name").into() },
                },
            });
        }
        for (key, model) in &request.without_headers {
            let matcher =
                self.value_matcher(model.as_ref()).map_err(|e| (format!("withoutHeaders[{key:?}]"), e))?;
            conditions.push(match ClaimPath::parse(key) {
                Some(path) => Condition::NotClaim { path, matcher },
                // What is no header is always missing; it still keeps the entry from being a catch-all.
                None => match HeaderKey::parse(key) {
                    Some(name) => Condition::NotHeader { name, matcher },
                    None => Condition::NotHeader {
                        name: HeaderKey::Absent(key.as_str().into()),
                        matcher: StringMatcher::Present,
                    },
                },
            });
        }
        for (key, model) in &request.query_params {
            let matcher =
                self.value_matcher(model.as_ref()).map_err(|e| (format!("queryParams[{key:?}]"), e))?;
            conditions.push(Condition::Query { key: key.as_str().into(), matcher });
        }
        Ok(RouteMatch { path, conditions: conditions.into() })
    }

    fn pattern(&mut self, text: &'a str) -> Result<Pattern, PatternError> {
        self.patterns.entry(text).or_insert_with(|| Pattern::new(text)).clone()
    }

    fn string_matcher(&mut self, model: &'a StringMatch) -> Result<StringMatcher, PatternError> {
        match model {
            StringMatch::Regex(text) => self.pattern(text).map(StringMatcher::Regex),
            other => StringMatcher::compile(other),
        }
    }

    fn value_matcher(&mut self, model: Option<&'a StringMatch>) -> Result<StringMatcher, PatternError> {
        match model {
            Some(StringMatch::Regex(text)) if text != "*" => self.pattern(text).map(StringMatcher::Regex),
            other => StringMatcher::compile_value(other),
        }
    }

    /// Istio: route.go `applyHTTPRouteDestination`: the weight of a single destination is ignored; of several, those of
    /// weight 0 are left out.
    fn destinations(
        &self,
        resource: &Resource<VirtualService>,
        site: Site<'_>,
        rule: &HttpRoute,
        headers: &HeaderPlan,
        path: &str,
        findings: &mut Vec<Finding>,
    ) -> Vec<Destination> {
        let single = rule.route.len() == 1;
        let mut destinations = Vec::with_capacity(rule.route.len());
        for (index, to) in rule.route.iter().enumerate() {
            let weight = if single { 1 } else { to.weight.get() };
            let own =
                compile_headers(to.headers.as_ref(), &format!("{path}.route[{index}].headers"), findings);
            if weight == 0 {
                continue;
            }
            let port = to.destination.port_number().map(|port| port.get());
            let (host, port) =
                self.registry.resolve(&to.destination.host, port, &resource.key.namespace, site.port);
            destinations.push(Destination {
                cluster: ClusterName::outbound(port, &to.destination.subset, &host),
                weight,
                headers: if single { combine_single(headers, &own) } else { combine_weighted(headers, &own) },
            });
        }
        destinations
    }

    /// What a rule says about forwarding, whichever of its matches took the request.
    fn forwarding(
        &self,
        resource: &Resource<VirtualService>,
        site: Site<'_>,
        rule: &HttpRoute,
        path: &str,
        findings: &mut Vec<Finding>,
    ) -> Forwarding {
        if rule.route.is_empty() {
            return Forwarding::default();
        }
        let mirrors = MirrorTarget::all(rule).filter_map(|to| {
            let port = to.destination.port_number().map(|port| port.get());
            let (host, port) =
                self.registry.resolve(&to.destination.host, port, &resource.key.namespace, site.port);
            let cluster = ClusterName::outbound(port, &to.destination.subset, &host);
            Some(Mirror { cluster, share: to.share? })
        });
        let (filters, problems) = self.actions.filters(rule, mirrors.collect());
        findings.extend(problems.into_iter().map(|(field, message)| Finding {
            code: Code::RULE_DROPPED,
            path: format!("{path}.{field}"),
            message,
        }));
        Forwarding { retry: self.actions.retry(rule), filters }
    }

    /// Redirect beats a fixed reply, which beats forwarding.
    fn action(
        &self,
        rule: &HttpRoute,
        matched: &PathMatch,
        site: Site<'_>,
        destinations: &[Destination],
        forwarding: &Forwarding,
    ) -> Result<Action, (&'static str, String)> {
        if let Some(redirect) = &rule.redirect {
            let facts = ServerFacts { port: site.port, scheme: site.scheme };
            let redirect = Redirect::compile(redirect, matched, facts);
            return redirect.map(Action::Redirect).map_err(|e| (".redirect", e.to_string()));
        }
        if let Some(reply) = &rule.direct_response {
            let status = u16::try_from(reply.status).ok().filter(|status| (200..600).contains(status));
            let Some(status) = status else {
                return Err((".directResponse.status", format!("status {} is not 200 to 599", reply.status)));
            };
            let body = match &reply.body {
                None => Vec::new(),
                Some(body) => body
                    .decode()
                    .ok_or_else(|| (".directResponse.body", "the bytes are not base64".to_owned()))?,
            };
            return Ok(Action::Reply(DirectReply { status, body: body.into() }));
        }
        if rule.route.is_empty() {
            return Err(("", "neither route, redirect nor directResponse is given".to_owned()));
        }
        let rewrite = rule.rewrite.as_ref();
        let path = match rewrite.and_then(|rewrite| rewrite.uri_regex_rewrite.as_ref()) {
            Some(regex) => Some(
                PathRewrite::regex(&regex.pattern, &regex.rewrite)
                    .map_err(|e| (".rewrite.uriRegexRewrite", e.to_string()))?,
            ),
            None => rewrite.and_then(|rewrite| PathRewrite::uri(matched, &rewrite.uri)),
        };
        let authority = rewrite.map(|rewrite| rewrite.authority.as_str()).filter(|text| !text.is_empty());
        Ok(Action::Forward(Forward {
            total_weight: destinations.iter().fold(0, |sum, d| sum.saturating_add(d.weight)),
            destinations: destinations.into(),
            rewrite: path,
            authority: authority.map(Arc::from),
            timeout: rule.timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| timeout.as_std()),
            retry: forwarding.retry.clone(),
            filters: forwarding.filters.clone(),
        }))
    }
}

/// What all entries of a forwarding rule share.
#[derive(Default)]
struct Forwarding {
    retry: Option<Arc<RetryPolicy>>,
    filters: Option<Box<RouteFilters>>,
}

fn route_name(rule: &str, entry: Option<&str>) -> Option<Arc<str>> {
    match (rule, entry) {
        ("", None) => None,
        ("", Some(entry)) => Some(entry.into()),
        (rule, None) => Some(rule.into()),
        (rule, Some(entry)) => Some(format!("{rule}.{entry}").into()),
    }
}

fn compile_headers(model: Option<&Headers>, path: &str, findings: &mut Vec<Finding>) -> HeaderPlan {
    let Some(model) = model else { return HeaderPlan::default() };
    let mut block = |operations, name: &str, direction| {
        let Some(operations) = operations else { return Default::default() };
        let compiled = HeaderOps::compile(operations, direction);
        findings.extend(compiled.problems.iter().map(|problem| Finding {
            code: match problem.kind {
                ProblemKind::Formatter => Code::NOT_YET_HONOURED,
                ProblemKind::NotEditable => Code::NO_EFFECT,
                ProblemKind::InvalidValue => Code::RULE_DROPPED,
            },
            path: format!("{path}.{name}"),
            message: problem.to_string(),
        }));
        compiled
    };
    let request = block(model.request.as_ref(), "request", Direction::Request);
    let response = block(model.response.as_ref(), "response", Direction::Response);
    HeaderPlan { request: request.ops, response: response.ops, authority: request.authority }
}

#[cfg(test)]
mod tests {
    use crate::{
        compile::testing::compiled,
        listener::Chains,
        route::{Action, Route},
    };
    use std::sync::Arc;

    fn routes(http: &str) -> (Vec<Arc<Route>>, Vec<String>) {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: g, namespace: shop}}
spec: {{servers: [{{port: {{number: 80, protocol: HTTP, name: http}}, hosts: ['*']}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: v, namespace: shop}}
spec:
  hosts: [x.com]
  gateways: [g]
  http: {http}
"
        );
        let (compiled, findings) = compiled(&yaml);
        let listener = compiled.listeners.values().next().unwrap();
        let Chains::Http(chain) = &listener.chains else { panic!("plain text") };
        let host = chain.table.hosts().get("x.com").unwrap();
        (host.routes().to_vec(), findings.iter().map(|f| format!("{} {}", f.code, f.path)).collect())
    }

    #[test]
    fn an_entry_knows_where_it_was_written_and_its_name() {
        let (routes, _) = routes(
            "[{name: r, match: [{name: m, uri: {exact: /a}}, {uri: {exact: /b}}], route: [{destination: {host: a}}]},
              {match: [{name: only, uri: {exact: /c}}], route: [{destination: {host: a}}]}]",
        );
        let shown: Vec<_> = routes.iter().map(|route| route.origin.to_string()).collect();
        assert_eq!(
            shown,
            ["shop/v http[0] \"r.m\"", "shop/v http[0].match[1] \"r\"", "shop/v http[1] \"only\""]
        );
    }

    #[test]
    fn header_plans_follow_the_number_of_destinations() {
        let value = |destinations: &str| {
            let (routes, findings) = routes(&format!(
                "[{{headers: {{request: {{set: {{x: rule}}}}, response: {{remove: [y]}}}}, route: [{destinations}]}}]"
            ));
            assert_eq!(findings, Vec::<String>::new());
            let Action::Forward(forward) = &routes[0].action else { panic!("forwards") };
            assert_eq!(routes[0].response_headers.remove.len(), 1);
            let plan = &forward.destinations[0].headers;
            assert_eq!(plan.response.remove.len(), 1);
            plan.request.set.last().unwrap().1.clone()
        };
        let own = "destination: {host: a}, headers: {request: {set: {x: own}}}";
        assert_eq!(value(&format!("{{{own}}}")), "own");
        assert_eq!(value(&format!("{{{own}, weight: 1}}, {{destination: {{host: b}}, weight: 1}}")), "rule");
    }

    #[test]
    fn what_is_not_honoured_is_said_where_it_is_written() {
        let (routes, findings) = routes(
            "[{headers: {request: {set: {x: '%REQ(y)%', z: kept}}}, route: [{destination: {host: a}}]}]",
        );
        assert_eq!(findings, ["LIM0010 spec.http[0].headers.request"]);
        let Action::Forward(forward) = &routes[0].action else { panic!("forwards") };
        assert_eq!(forward.destinations[0].headers.request.set.len(), 1);
    }
}

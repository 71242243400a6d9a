//! From the HTTP rules of one VirtualService to routes, as one server of one Gateway sees them.
//!
//! Invariant: what cannot be compiled is left out and said; it never takes other entries with it. Order is as written;
//! moving catch-alls is left to `precedence`.

mod doing;
mod matching;

use super::{
    Identity,
    actions::{Actions, MirrorTarget},
    delegate::{Delegates, Rule},
    registry::Registry,
};
use crate::{
    action::headers::{HeaderOps, HeaderPlan},
    path::PathMatch,
    request::Scheme,
    route::{DelegateOrigin, Operation, Route, RouteMatch, RouteMetadata, RouteOrigin},
};
use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::virtual_service::{HttpMatchRequest, HttpRoute, VirtualService},
    mesh::MeshConfig,
    meta::{Resource, ResourceKey},
    parse::locate,
    scalar::labels::is_subset_of,
    validate::resolve_gateway_name,
};
use matching::Matchers;
use std::{
    borrow::Cow,
    fmt,
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
    /// The delegate that it is about; `None`: the VirtualService itself.
    delegate: Option<ResourceKey>,
    path: String,
    message: String,
}

/// Findings in the making, all about one resource.
struct Notes<'l> {
    findings: &'l mut Vec<Finding>,
    delegate: Option<&'l ResourceKey>,
}

impl Notes<'_> {
    fn push(&mut self, code: Code, path: String, message: String) {
        self.findings.push(Finding { code, delegate: self.delegate.cloned(), path, message });
    }
}

/// The server that routes are compiled for.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// Key of its Gateway; `None`: it is a sidecar's, for traffic within the mesh.
    pub(super) gateway: Option<&'a ResourceKey>,
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
    gateway: Option<ResourceKey>,
    port: u16,
    https: bool,
    /// Hash over the destinations as they resolve now, and what the mesh says.
    destinations: u64,
}

/// Compiles rules.
pub(super) struct RuleCompiler<'a> {
    registry: &'a Registry,
    identity: &'a Identity,
    delegates: &'a Delegates<'a>,
    actions: Actions,
    matchers: Matchers,
    plain: Plain,
}

/// What rules without header operations share.
#[derive(Default)]
struct Plain {
    whole: Arc<HeaderPlan>,
    response: Arc<HeaderOps>,
}

/// One rule on its way to routes.
struct Subject<'s> {
    /// Namespace that its names are in.
    namespace: &'s str,
    rule: &'s HttpRoute,
    /// Where it stands, as in `spec.http[0]`.
    path: fmt::Arguments<'s>,
}

impl<'a> RuleCompiler<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        identity: &'a Identity,
        mesh: &MeshConfig,
        delegates: &'a Delegates<'a>,
    ) -> Self {
        Self {
            registry,
            identity,
            delegates,
            actions: Actions::new(mesh),
            matchers: Matchers::default(),
            plain: Plain::default(),
        }
    }

    /// Lets destinations be looked for among other services.
    pub(super) fn among(&mut self, registry: &'a Registry) {
        self.registry = registry;
    }

    /// End of the full names of Services.
    pub(super) fn domain(&self) -> &'a str {
        &self.identity.domain
    }

    /// Whether a VirtualService has rules of others, which may change without it.
    pub(super) fn delegates(&self, resource: &Resource<VirtualService>) -> bool {
        self.delegates.expanded(&resource.key).is_some()
    }

    /// Whether any does.
    pub(super) fn any_delegates(&self) -> bool {
        !self.delegates.is_empty()
    }

    /// The findings of a list, about the resources as they stand now.
    pub(super) fn report(&self, list: &RouteList, resource: &Resource<VirtualService>) -> Diagnostics {
        let findings = list.findings.iter().map(|finding| {
            let delegate = finding.delegate.as_ref().and_then(|key| self.delegates.resource(key));
            let about = delegate.unwrap_or(resource);
            Diagnostic::new(finding.code, finding.message.clone())
                .about(&about.key, &about.origin)
                .at(finding.path.clone())
        });
        let mut findings: Diagnostics = findings.collect();
        locate::place(&mut findings);
        findings
    }

    /// What the route list of a VirtualService on a server depends on.
    pub(super) fn source_key(&self, resource: &Resource<VirtualService>, site: Site<'_>) -> SourceKey {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        self.actions.mesh_key().hash(&mut hasher);
        let namespace = resource.key.namespace.as_str();
        for rule in self.rules_of(resource) {
            let mirrors = MirrorTarget::all(rule).map(|to| to.destination);
            for destination in rule.route.iter().map(|to| &to.destination).chain(mirrors) {
                let port = destination.port_number().map(|port| port.get());
                self.registry.resolve(&destination.host, port, namespace, site.port).hash(&mut hasher);
            }
        }
        let expanded = self.delegates.expanded(&resource.key);
        SourceKey {
            virtual_service: resource.key.clone(),
            content: expanded.map_or(resource.content_hash, |expanded| expanded.content),
            gateway: site.gateway.cloned(),
            port: site.port,
            https: site.scheme == Scheme::Https,
            destinations: hasher.finish(),
        }
    }

    /// Whether any entry is left for this server: a VirtualService without one makes no virtual host there.
    pub(super) fn applies(&self, resource: &Resource<VirtualService>, site: Site<'_>) -> bool {
        let own = resource.key.namespace.as_str();
        self.rules_of(resource).any(|rule| {
            rule.matches.is_empty() || rule.matches.iter().any(|m| self.entry_applies(m, own, site))
        })
    }

    /// The rules in force.
    fn rules_of<'r>(&'r self, resource: &'r Resource<VirtualService>) -> impl Iterator<Item = &'r HttpRoute> {
        let expanded = self.delegates.expanded(&resource.key);
        let own = resource.spec.http.iter().filter(move |_| expanded.is_none());
        expanded.into_iter().flat_map(|expanded| expanded.rules.iter().map(|rule| &*rule.rule)).chain(own)
    }

    /// Compiles the rules.
    pub(super) fn compile(&mut self, resource: &Resource<VirtualService>, site: Site<'_>) -> RouteList {
        let origin = name_of(&resource.key);
        let mut list = RouteList { routes: Vec::new(), findings: Vec::new() };
        let Self { registry, identity, delegates, actions, matchers, plain } = self;
        let own: Vec<Rule<'_>>;
        let rules = match delegates.expanded(&resource.key) {
            Some(expanded) => {
                for (index, code, reason) in &expanded.lost {
                    let mut notes = Notes { findings: &mut list.findings, delegate: None };
                    notes.push(*code, format!("spec.http[{index}].delegate"), reason.clone());
                }
                &expanded.rules
            }
            None => {
                let rules = resource.spec.http.iter().enumerate();
                own = rules
                    .map(|(index, rule)| Rule { rule: Cow::Borrowed(rule), index, delegate: None })
                    .collect();
                &own
            }
        };
        let metadata = Arc::new(RouteMetadata::of(&resource.meta));
        let mut one = OneRule { registry, identity, actions, matchers, plain, site, metadata };
        for rule in rules {
            let stops = one.compile(&resource.key.namespace, rule, &origin, &mut list);
            // Istio: route.go `BuildHTTPRoutesForVirtualService` ends at the first catch-all, and always at a rule
            // without match.
            if stops || rule.rule.matches.is_empty() {
                break;
            }
        }
        list.routes.shrink_to_fit();
        list
    }

    fn entry_applies(&self, request: &HttpMatchRequest, namespace: &str, site: Site<'_>) -> bool {
        entry_applies(self.identity, request, namespace, site)
    }
}

/// What compiling one rule needs.
struct OneRule<'c> {
    registry: &'c Registry,
    identity: &'c Identity,
    actions: &'c Actions,
    matchers: &'c mut Matchers,
    plain: &'c Plain,
    site: Site<'c>,
    metadata: Arc<RouteMetadata>,
}

impl OneRule<'_> {
    /// Compiles one rule's entries; says whether one of them takes everything.
    fn compile(&mut self, namespace: &str, rule: &Rule<'_>, origin: &Arc<str>, list: &mut RouteList) -> bool {
        let lent = rule.delegate.as_ref();
        let mut notes = Notes { findings: &mut list.findings, delegate: lent.map(|lent| &lent.resource.key) };
        let written = lent.map_or(rule.index, |lent| lent.index);
        let numbers = |merged: usize| match lent {
            Some(lent) => lent.matches.get(merged).copied().unwrap_or_default(),
            None => (merged, merged),
        };
        let subject = Subject { namespace, rule: &rule.rule, path: format_args!("spec.http[{written}]") };
        let Subject { rule: http, path, .. } = &subject;
        let mut entries: Vec<(usize, Option<&str>, RouteMatch)> = Vec::new();
        if http.matches.is_empty() {
            let path = PathMatch::Prefix { text: "/".into(), ignore_case: false };
            entries.push((0, None, RouteMatch { path, conditions: [].into() }));
        }
        for (at, request) in http.matches.iter().enumerate() {
            if !entry_applies(self.identity, request, namespace, self.site) {
                continue;
            }
            match self.matchers.compile(request) {
                Ok(matcher) => {
                    let name = Some(request.name.as_str()).filter(|name| !name.is_empty());
                    let last = matcher.is_catch_all();
                    entries.push((at, name, matcher));
                    if last {
                        break;
                    }
                }
                Err((field, error)) => notes.push(
                    Code::REGEX,
                    format!("{path}.match[{}].{field}", numbers(at).1),
                    format!("{error}: the match takes no request"),
                ),
            }
        }
        let Some((_, _, last)) = entries.last() else { return false };
        let stops = last.is_catch_all();
        let headers = doing::headers(http.headers.as_deref(), format_args!("{path}.headers"), &mut notes);
        let response_headers = match &headers {
            Some(headers) => Arc::new(headers.response.clone()),
            None => Arc::clone(&self.plain.response),
        };
        let headers = headers.map_or_else(|| Arc::clone(&self.plain.whole), Arc::new);
        let shared = self.shared(&subject, &headers, &mut notes);
        let delegate = lent.map(|lent| (name_of(&lent.resource.key), lent.index));
        for (at, name, matcher) in entries {
            match self.action(http, &matcher.path, &shared) {
                Ok(action) => list.routes.push(Arc::new(Route {
                    origin: RouteOrigin {
                        virtual_service: Arc::clone(origin),
                        name: route_name(&http.name, name),
                        index: rule.index as u32,
                        match_index: numbers(at).0 as u32,
                        delegate: delegate.as_ref().map(|(virtual_service, index)| {
                            Box::new(DelegateOrigin {
                                virtual_service: Arc::clone(virtual_service),
                                index: *index as u32,
                                match_index: numbers(at).1 as u32,
                            })
                        }),
                        metadata: Arc::clone(&self.metadata),
                    },
                    matcher,
                    action,
                    response_headers: Arc::clone(&response_headers),
                    taken: Arc::default(),
                    operation: Operation::default(),
                })),
                Err((field, message)) => {
                    let message = format!("{message}: the rule takes no request");
                    notes.push(Code::RULE_DROPPED, format!("{path}{field}"), message);
                    break;
                }
            }
        }
        stops
    }
}

/// What can be decided before any request (Istio: route.go `sourceMatchHTTP` and the port test of
/// `TranslateRoute`). "Source" is the pod that the proxy is in: a gateway's own, or the one beside a sidecar.
fn entry_applies(identity: &Identity, request: &HttpMatchRequest, namespace: &str, site: Site<'_>) -> bool {
    if request.port.is_some_and(|port| port.get() != site.port) {
        return false;
    }
    if !request.gateways.is_empty() {
        let this = site.gateway.map(|gateway| (gateway.namespace.as_str(), gateway.name.as_str()));
        return request.gateways.iter().any(|entry| resolve_gateway_name(entry, namespace) == this);
    }
    is_subset_of(&request.source_labels, &identity.labels)
        && (request.source_namespace.is_empty() || request.source_namespace == identity.namespace)
}

fn name_of(key: &ResourceKey) -> Arc<str> {
    format!("{}/{}", key.namespace, key.name).into()
}

/// The rule's name, and behind a dot the match's where it has one, also where the rule has none (Istio: route.go
/// `TranslateRoute`).
fn route_name(rule: &str, entry: Option<&str>) -> Option<Arc<str>> {
    match entry {
        Some(entry) => Some(format!("{rule}.{entry}").into()),
        None => Some(rule).filter(|rule| !rule.is_empty()).map(Arc::from),
    }
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
            ["shop/v http[0] \"r.m\"", "shop/v http[0].match[1] \"r\"", "shop/v http[1] \".only\""]
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
            plan.request.set.last().unwrap().1.to_string()
        };
        let own = "destination: {host: a}, headers: {request: {set: {x: own}}}";
        assert_eq!(value(&format!("{{{own}}}")), "own");
        assert_eq!(value(&format!("{{{own}, weight: 1}}, {{destination: {{host: b}}, weight: 1}}")), "rule");
    }

    #[test]
    fn what_is_not_honoured_is_said_where_it_is_written() {
        let (routes, findings) = routes(
            "[{headers: {request: {set: {x: '%NOPE%', z: kept}}}, route: [{destination: {host: a}}]}]",
        );
        assert_eq!(findings, ["LIM0010 spec.http[0].headers.request"]);
        let Action::Forward(forward) = &routes[0].action else { panic!("forwards") };
        assert_eq!(forward.destinations[0].headers.request.set.len(), 1);
    }
}

//! The route table of one server: virtual hosts by domain, each with its routes in order.
//!
//! Invariant: a lookup gives what a scan of the list would give, the first route all of whose conditions hold; the
//! index only skips routes whose path cannot match. It allocates nothing.

mod paths;
mod radix;
mod regexes;

use crate::{
    decision::{Decision, NotFound},
    host::HostIndex,
    request::{RequestHead, Scheme},
    route::{Action, Outcome, Route},
};
use paths::PathIndex;
use std::sync::Arc;

/// The routes of one domain.
#[derive(Debug)]
pub struct VirtualHost {
    name: Arc<str>,
    domain: Arc<str>,
    require_tls: bool,
    routes: Box<[Arc<Route>]>,
    paths: PathIndex,
}

impl VirtualHost {
    /// A virtual host with its routes in the order in which they are tried.
    #[must_use]
    pub fn new(
        name: impl Into<Arc<str>>,
        domain: impl Into<Arc<str>>,
        require_tls: bool,
        routes: Vec<Arc<Route>>,
    ) -> Self {
        let paths = PathIndex::new(routes.iter().map(|route| &route.matcher.path));
        Self { name: name.into(), domain: domain.into(), require_tls, routes: routes.into(), paths }
    }

    /// Name for people: Istio's is `domain:port`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Domain it answers: exact, `*.suffix` or `*`.
    #[must_use]
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }

    /// Whether plain-text requests are sent to https before any route is tried.
    #[must_use]
    pub fn require_tls(&self) -> bool {
        self.require_tls
    }

    /// The routes in the order in which they are tried.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The first route all of whose conditions hold.
    #[must_use]
    pub fn find(&self, head: &RequestHead<'_>) -> Option<&Arc<Route>> {
        let mut candidates = self.paths.candidates(head.path);
        while let Some(index) = candidates.next() {
            let route = self.routes.get(index as usize)?;
            if let Outcome::Matches = route.matcher.evaluate_conditions(head) {
                return Some(route);
            }
        }
        None
    }
}

/// The virtual hosts of one server.
#[derive(Clone, Debug)]
pub struct RouteTable {
    name: Arc<str>,
    hosts: HostIndex<Arc<VirtualHost>>,
    ports: Ports,
}

/// What the port of an authority counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// Nothing: the listener's is known.
    #[default]
    Ignored,
    /// A domain may have one, and is then found by it only: one listener is for services of many ports.
    Counted,
}

impl RouteTable {
    /// A table; of two hosts with one domain the later stays.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, hosts: impl IntoIterator<Item = Arc<VirtualHost>>) -> Self {
        let mut index = HostIndex::new();
        for host in hosts {
            let domain = Arc::clone(host.domain());
            index.insert(&domain, host);
        }
        Self { name: name.into(), hosts: index, ports: Ports::Ignored }
    }

    /// A table whose virtual hosts have several domains each; of two with one domain the first stays.
    #[must_use]
    pub fn with_domains(
        name: impl Into<Arc<str>>,
        ports: Ports,
        hosts: impl IntoIterator<Item = (Vec<String>, Arc<VirtualHost>)>,
    ) -> Self {
        let mut index = HostIndex::new();
        for (domains, host) in hosts {
            for domain in domains {
                index.get_or_insert_with(&domain, || Arc::clone(&host));
            }
        }
        Self { name: name.into(), hosts: index, ports }
    }

    /// A table with the same domains and other virtual hosts, one for each in the order of [`hosts`](Self::hosts); `None` when there
    /// are not so many.
    #[must_use]
    pub fn with_hosts(&self, hosts: Vec<Arc<VirtualHost>>) -> Option<Self> {
        let hosts = self.hosts.with_values(hosts)?;
        Some(Self { name: Arc::clone(&self.name), hosts, ports: self.ports })
    }

    /// Name for people: Istio's is `http.PORT` or `https.PORT.NAME.GATEWAY.NAMESPACE`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The virtual hosts by domain.
    #[must_use]
    pub fn hosts(&self) -> &HostIndex<Arc<VirtualHost>> {
        &self.hosts
    }

    /// The virtual host of an authority.
    #[must_use]
    pub fn host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        match self.ports {
            Ports::Ignored => self.hosts.lookup(authority),
            Ports::Counted => self.hosts.lookup_as_written(authority),
        }
    }

    /// What is to be done with a request.
    pub fn lookup(&self, head: &RequestHead<'_>) -> Decision<'_> {
        let Some(host) = self.host(head.authority) else {
            return Decision::NotFound(NotFound::Host);
        };
        if host.require_tls && head.scheme == Scheme::Http {
            return Decision::RequireTls { host };
        }
        let Some(route) = host.find(head) else {
            return Decision::NotFound(NotFound::Route(host));
        };
        match &route.action {
            Action::Forward(forward) => Decision::Forward { host, route, forward },
            Action::Redirect(redirect) => Decision::Redirect { host, route, redirect },
            Action::Reply(reply) => Decision::Reply { host, route, reply },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::reply::DirectReply,
        header::HeaderKey,
        matcher::{Pattern, StringMatcher},
        path::PathMatch,
        route::{Condition, RouteMatch, RouteOrigin},
    };

    fn route(name: &str, path: PathMatch, conditions: impl IntoIterator<Item = Condition>) -> Arc<Route> {
        Arc::new(Route {
            origin: RouteOrigin {
                virtual_service: name.into(),
                name: None,
                index: 0,
                match_index: 0,
                delegate: None,
                metadata: Arc::default(),
            },
            matcher: RouteMatch { path, conditions: conditions.into_iter().collect() },
            action: Action::Reply(DirectReply { status: 200, body: [].into() }),
            response_headers: Default::default(),
            taken: Default::default(),
            operation: Default::default(),
        })
    }

    fn prefix(text: &str) -> PathMatch {
        PathMatch::Prefix { text: text.into(), ignore_case: false }
    }

    fn exact(text: &str) -> PathMatch {
        PathMatch::Exact { text: text.into(), ignore_case: false }
    }

    fn regex(text: &str) -> PathMatch {
        PathMatch::Regex(Pattern::new(text).unwrap())
    }

    fn canary() -> Condition {
        Condition::Header {
            name: HeaderKey::parse("x-canary").unwrap(),
            matcher: StringMatcher::Exact("1".into()),
        }
    }

    fn table(hosts: Vec<(&str, bool, Vec<Arc<Route>>)>) -> RouteTable {
        let hosts = hosts.into_iter().map(|(domain, tls, routes)| {
            Arc::new(VirtualHost::new(format!("{domain}:80"), domain, tls, routes))
        });
        RouteTable::new("http.80", hosts.collect::<Vec<_>>())
    }

    fn ask(table: &RouteTable, scheme: Scheme, authority: &str, path: &str, canary: bool) -> String {
        let mut headers = http::HeaderMap::new();
        if canary {
            headers.insert("x-canary", http::HeaderValue::from_static("1"));
        }
        let head = RequestHead {
            method: "GET",
            scheme,
            authority,
            path,
            query: None,
            headers: &headers,
            claims: None,
        };
        match table.lookup(&head) {
            Decision::Forward { route, .. }
            | Decision::Redirect { route, .. }
            | Decision::Reply { route, .. } => route.origin.virtual_service.to_string(),
            Decision::RequireTls { .. } => "require tls".to_owned(),
            Decision::NotFound(NotFound::Host) => "no host".to_owned(),
            Decision::NotFound(NotFound::Route(host)) => format!("no route in {}", host.domain()),
        }
    }

    #[test]
    fn order_beats_specificity() {
        let table = table(vec![(
            "a.com",
            false,
            vec![
                route("canary", prefix("/"), [canary()]),
                route("regex", regex("/api/v[0-9]"), []),
                route("exact", exact("/api/v1"), []),
                route("api", prefix("/api"), []),
                route("api/v2", prefix("/api/v2"), []),
                route("rest", PathMatch::Any, []),
            ],
        )]);
        let get = |path, canary| ask(&table, Scheme::Http, "a.com:8080", path, canary);
        assert_eq!(get("/api/v1", true), "canary");
        assert_eq!(get("/api/v1", false), "regex");
        assert_eq!(get("/api/v2/x", false), "api");
        assert_eq!(get("/", false), "rest");
    }

    #[test]
    fn one_host_is_chosen_once() {
        let table = table(vec![
            ("a.com", false, vec![route("a", exact("/a"), [])]),
            ("*", false, vec![route("any", prefix("/"), [])]),
        ]);
        assert_eq!(ask(&table, Scheme::Http, "a.com", "/b", false), "no route in a.com");
        assert_eq!(ask(&table, Scheme::Http, "b.com", "/b", false), "any");
    }

    #[test]
    fn an_unknown_host() {
        let table = table(vec![("*.a.com", false, vec![])]);
        assert_eq!(ask(&table, Scheme::Http, "a.com", "/", false), "no host");
        assert_eq!(ask(&table, Scheme::Http, "x.a.com", "/", false), "no route in *.a.com");
    }

    #[test]
    fn tls_is_required_before_any_route() {
        let table = table(vec![("a.com", true, vec![route("a", prefix("/"), [])])]);
        assert_eq!(ask(&table, Scheme::Http, "a.com", "/", false), "require tls");
        assert_eq!(ask(&table, Scheme::Https, "a.com", "/", false), "a");
    }
}

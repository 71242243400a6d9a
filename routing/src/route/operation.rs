//! The name of what a rule does, as traces have it.
//!
//! Invariant: it depends on the rule and the server's port only, so that what was made for one request is every other's too.

use super::Route;
use crate::path::PathMatch;
use http::HeaderValue;
use std::sync::OnceLock;

/// The name that was asked for first; most rules are served on one port, and few are traced.
#[derive(Clone, Debug, Default)]
pub struct Operation(OnceLock<Box<Named>>);

#[derive(Clone, Debug)]
struct Named {
    /// Of the server; `None`: whatever it is.
    port: Option<u16>,
    name: Option<HeaderValue>,
}

impl Route {
    /// Istio's name for what the rule does: the one destination or the VirtualService, and the path that it is for (Istio: route.go
    /// `GetRouteOperation`). `port` is the server's. `None` where no header can have it.
    pub fn operation(&self, port: impl Fn() -> Option<u16>) -> Option<HeaderValue> {
        let named = self.operation.0.get_or_init(|| {
            let port = self.only_destination().is_none().then(|| port().unwrap_or_default());
            Box::new(Named { port, name: self.operation_on(port) })
        });
        match named.port {
            Some(known) => match port().unwrap_or_default() {
                port if port == known => named.name.clone(),
                port => self.operation_on(Some(port)),
            },
            None => named.name.clone(),
        }
    }

    fn operation_on(&self, port: Option<u16>) -> Option<HeaderValue> {
        let (path, star) = self.matcher.path.named();
        let name = match self.only_destination() {
            Some((host, port)) => format!("{host}:{port}{path}{star}"),
            None => {
                let name = self.origin.virtual_service.rsplit('/').next().unwrap_or_default();
                format!("{name}:{}{path}{star}", port.unwrap_or_default())
            }
        };
        HeaderValue::try_from(name).ok()
    }

    /// Host and port of the one destination.
    fn only_destination(&self) -> Option<(&str, &str)> {
        let [only] = &*self.forward()?.destinations else { return None };
        let mut parts = only.cluster.as_str().split('|').skip(1);
        let (port, _, host) = (parts.next()?, parts.next()?, parts.next()?);
        Some((host, port))
    }
}

impl PathMatch {
    /// As traces name it: the text, and what stands for the rest of a path.
    #[must_use]
    pub fn named(&self) -> (&str, &'static str) {
        match self {
            PathMatch::Any => ("/", "*"),
            PathMatch::Exact { text, .. } => (text, ""),
            PathMatch::Prefix { text, .. } => (text, "*"),
            PathMatch::Regex(pattern) => (pattern.as_str(), ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        action::{headers::HeaderPlan, reply::DirectReply},
        cluster::ClusterName,
        path::PathMatch,
        route::{Action, Destination, Forward, Route, RouteMatch, RouteOrigin},
    };

    fn route(path: PathMatch, clusters: &[ClusterName]) -> Route {
        let destinations = clusters
            .iter()
            .map(|cluster| Destination {
                cluster: cluster.clone(),
                weight: 1,
                headers: std::sync::Arc::new(HeaderPlan::default()),
            })
            .collect();
        let forward = Forward {
            destinations,
            total_weight: 1,
            rewrite: None,
            authority: None,
            timeout: None,
            retry: None,
            filters: None,
        };
        let reply = Action::Reply(DirectReply { status: 200, body: [].into() });
        Route {
            origin: RouteOrigin {
                virtual_service: "default/shop".into(),
                name: None,
                index: 0,
                match_index: 0,
                delegate: None,
                metadata: Default::default(),
            },
            matcher: RouteMatch { path, conditions: [].into() },
            action: if clusters.is_empty() { reply } else { Action::Forward(forward) },
            response_headers: Default::default(),
            taken: Default::default(),
            operation: Default::default(),
        }
    }

    #[test]
    fn a_rule_is_named_after_its_one_destination_or_its_virtual_service() {
        let prefix = || PathMatch::Prefix { text: "/api/".into(), ignore_case: false };
        let one = ClusterName::outbound(9080, "v1", "shop.default.svc.cluster.local");
        let two = [one.clone(), one.clone()];
        for (path, clusters, port, want) in [
            (prefix(), &[one][..], Some(80), "shop.default.svc.cluster.local:9080/api/*"),
            (PathMatch::Any, &two, Some(80), "shop:80/*"),
            (PathMatch::Exact { text: "/a".into(), ignore_case: false }, &[], Some(443), "shop:443/a"),
            (prefix(), &two, None, "shop:0/api/*"),
            (prefix(), &[ClusterName::passthrough()], Some(81), "shop:81/api/*"),
        ] {
            let route = route(path, clusters);
            for _ in 0..2 {
                assert_eq!(route.operation(|| port).unwrap(), want);
            }
        }
        // The same rule behind two servers.
        let shared = route(prefix(), &two);
        for port in [80, 8080, 80] {
            assert_eq!(shared.operation(|| Some(port)).unwrap(), &*format!("shop:{port}/api/*"));
        }
    }
}

//! The order of a virtual host's routes: written here, and nowhere else.
//!
//! Invariant: there is no sorting by specificity. A rule stands where its author put it, but for the two rules below.

use crate::route::Route;
use std::borrow::Borrow;

/// Joins the routes of several VirtualServices on one host, given in order of age.
///
/// 1. Within one VirtualService nothing after its first catch-all is reachable: it is left out (Istio: route.go
///    `BuildHTTPRoutesForVirtualService` returns at the first catch-all).
/// 2. All lists are joined in order; then every catch-all moves behind all others, both groups keeping their order
///    (Istio: route.go `SortVHostRoutes`). So an old `/` never hides a younger `/api`.
#[must_use]
pub fn order<R: Borrow<Route>>(lists: Vec<Vec<R>>) -> Vec<R> {
    let mut routes = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    let mut last = Vec::new();
    for list in lists {
        for route in list {
            if route.borrow().matcher.is_catch_all() {
                last.push(route);
                break;
            }
            routes.push(route);
        }
    }
    routes.append(&mut last);
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::reply::DirectReply,
        matcher::StringMatcher,
        path::PathMatch,
        route::{Action, Condition, RouteMatch, RouteOrigin},
    };

    fn route(name: &str, prefix: &str) -> Route {
        Route {
            origin: RouteOrigin {
                virtual_service: name.into(),
                name: None,
                index: 0,
                match_index: 0,
                delegate: None,
                metadata: std::sync::Arc::default(),
            },
            matcher: RouteMatch {
                path: PathMatch::Prefix { text: prefix.into(), ignore_case: false },
                conditions: [].into(),
            },
            action: Action::Reply(DirectReply { status: 200, body: [].into() }),
            response_headers: Default::default(),
            taken: Default::default(),
            operation: Default::default(),
        }
    }

    fn names(routes: &[Route]) -> Vec<&str> {
        routes.iter().map(|r| &*r.origin.virtual_service).collect()
    }

    #[test]
    fn a_catch_all_ends_its_own_list_only() {
        let routes = order(vec![
            vec![route("a1", "/a"), route("a2", "/"), route("dead", "/b")],
            vec![route("b1", "/b"), route("b2", "/"), route("dead", "/")],
        ]);
        assert_eq!(names(&routes), ["a1", "b1", "a2", "b2"]);
    }

    #[test]
    fn what_only_looks_like_a_catch_all_stays() {
        let mut get = route("get", "/");
        get.matcher.conditions = [Condition::Method(StringMatcher::Exact("GET".into()))].into();
        let routes = order(vec![vec![get, route("empty", ""), route("a", "/a")], vec![route("b", "/b")]]);
        assert_eq!(names(&routes), ["get", "empty", "a", "b"]);
    }
}

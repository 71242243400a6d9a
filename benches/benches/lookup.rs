//! What a lookup costs as tables grow: the last of 10,000 hosts with 5 routes each, of 20,000 (100,000 routes in all), and the last of
//! 1,000 and of 100,000 prefixes in one host, beside one host with one route. The promise is at most twice the smallest for
//! the first and the third.

use criterion::{Criterion, criterion_group, criterion_main};
use routing::{
    action::reply::DirectReply,
    path::PathMatch,
    request::{RequestHead, Scheme},
    route::{Action, Route, RouteMatch, RouteOrigin},
    table::{RouteTable, VirtualHost},
};
use std::{hint::black_box, sync::Arc};

fn route(index: usize, prefix: String) -> Arc<Route> {
    Arc::new(Route {
        origin: RouteOrigin {
            virtual_service: "default/shop".into(),
            name: None,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            match_index: 0,
            delegate: None,
            metadata: Arc::default(),
        },
        matcher: RouteMatch {
            path: PathMatch::Prefix { text: prefix.into(), ignore_case: false },
            conditions: [].into(),
        },
        action: Action::Reply(DirectReply { status: 200, body: [].into() }),
        response_headers: Default::default(),
        taken: Default::default(),
        operation: Default::default(),
    })
}

fn table(hosts: usize, routes: usize) -> RouteTable {
    let hosts = (0..hosts).map(|h| {
        let routes = (0..routes).map(|r| route(r, format!("/service-{r:04}/"))).collect();
        Arc::new(VirtualHost::new(
            format!("host-{h:05}.example.com:80"),
            format!("host-{h:05}.example.com"),
            false,
            routes,
        ))
    });
    RouteTable::new("http.80", hosts)
}

fn lookup(criterion: &mut Criterion) {
    let headers = http::HeaderMap::new();
    let mut group = criterion.benchmark_group("lookup");
    for (hosts, routes) in [(1, 1), (10_000, 5), (20_000, 5), (1, 1_000), (1, 100_000)] {
        let table = table(hosts, routes);
        let authority = format!("host-{:05}.example.com:80", hosts - 1);
        let path = format!("/service-{:04}/item", routes - 1);
        let head = RequestHead {
            method: "GET",
            scheme: Scheme::Http,
            authority: &authority,
            path: &path,
            query: None,
            headers: &headers,
            claims: None,
        };
        group.bench_function(format!("{hosts} hosts x {routes} routes"), |b| {
            b.iter(|| black_box(table.lookup(black_box(&head))));
        });
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);

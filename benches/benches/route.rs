//! What a rule's features cost a request: from its head to the head that goes upstream and the one that comes back, for a
//! rule that only forwards and for one that has everything. The promise is at most 3 µs for all features together, and
//! nothing for a rule that has none.

use config_model::{parse::parse, set::ResourceSet, validate::validate};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use routing::{
    action::{
        cors::CorsPlan,
        headers::{
            Direction, Facts,
            format::{Fact, Field},
        },
        mirror,
        rewrite::path_and_query,
        timeout,
    },
    compile::{Compiled, Identity, compile},
    decision::Decision,
    listener::Chains,
    request::{RequestHead, Scheme},
    table::RouteTable,
};
use std::{hint::black_box, sync::Arc};

const CONFIG: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  servers:
  - {port: {number: 80, protocol: HTTP, name: http}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: none, namespace: default}
spec:
  hosts: [none.example.com]
  gateways: [gw]
  http:
  - route: [{destination: {host: a}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: all, namespace: default}
spec:
  hosts: [all.example.com]
  gateways: [gw]
  http:
  - match:
    - uri: {prefix: /shop/}
      method: {regex: GET|POST}
      headers: {x-tenant: {exact: acme}, cookie: {regex: '(.*; )?user=[a-z]+(;.*)?'}}
      withoutHeaders: {x-blocked: {}}
      queryParams: {page: {regex: '[0-9]+'}}
    rewrite: {uriRegexRewrite: {match: '^/shop/([^/]+)', rewrite: '/v1/\\1'}, authority: shop.internal}
    timeout: 3s
    retries: {attempts: 3, retryOn: 'gateway-error,connect-failure,503', perTryTimeout: 1s}
    fault: {delay: {fixedDelay: 1s, percentage: {value: 0.0001}}, abort: {httpStatus: 500, percentage: {value: 0.0001}}}
    corsPolicy: {allowOrigins: [{exact: 'https://other.example.com'}, {prefix: 'https://www.'}], allowCredentials: true, exposeHeaders: [x-a]}
    mirrors: [{destination: {host: b}, percentage: {value: 0.0001}}, {destination: {host: c}, percentage: {value: 0.0001}}]
    headers:
      request: {remove: [x-internal], set: {x-via: limen, x-client: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%', x-user: '%REQ(x-tenant)%'}, add: {x-hop: '1'}}
      response: {remove: [x-powered-by], set: {strict-transport-security: max-age=31536000}, add: {vary: origin}}
    route:
    - {destination: {host: a}, weight: 90, headers: {request: {set: {x-version: '1'}}}}
    - {destination: {host: b}, weight: 10, headers: {request: {set: {x-version: '2'}}}}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: default}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: c, namespace: default}
spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}]}
";

fn compiled() -> Compiled {
    let parsed = parse("route.yaml", CONFIG);
    let mut set = ResourceSet::new();
    set.extend(parsed.resources);
    let (validated, findings) = validate(set);
    assert!(!findings.has_errors(), "{findings:?}");
    compile(&validated, &Identity::default()).0
}

fn table(compiled: &Compiled) -> Option<Arc<RouteTable>> {
    match &compiled.listeners.values().next()?.chains {
        Chains::Http(chain) => Some(Arc::clone(&chain.table)),
        _ => None,
    }
}

struct Known;

impl Facts for Known {
    fn request(&self, _field: &Field) -> Option<&[u8]> {
        None
    }

    fn fact(&self, fact: &Fact, out: &mut Vec<u8>) {
        if *fact == Fact::DownstreamRemoteAddressWithoutPort {
            out.extend_from_slice(b"192.0.2.1");
        }
    }
}

fn request_headers() -> HeaderMap {
    [
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept", "text/html,application/xhtml+xml"),
        ("cookie", "session=abcdef; user=jason; theme=dark"),
        ("origin", "https://www.example.com"),
        ("x-tenant", "acme"),
        ("x-internal", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
    .collect()
}

fn response_headers() -> HeaderMap {
    [("content-type", "text/html"), ("vary", "accept-encoding"), ("x-powered-by", "php")]
        .into_iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

/// One request through everything that its rule says; the length of the new target, so that nothing is left out.
fn serve(
    table: &RouteTable,
    authority: &str,
    client: &HeaderMap,
    upstream: &mut HeaderMap,
    response: &mut HeaderMap,
) -> usize {
    let head = RequestHead {
        method: "GET",
        scheme: Scheme::Http,
        authority,
        path: "/shop/cart/items",
        query: Some("page=12"),
        headers: client,
        claims: None,
    };
    let Decision::Forward { forward, .. } = table.lookup(&head) else { return 0 };
    let mut dice = 0x1234_5678_9abc_def0_u64;
    let mut entropy = || {
        dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        dice
    };
    let limit = timeout::limit(forward.timeout, client, timeout::Protocol::Other);
    let mut mark = None;
    if let Some(filters) = forward.filters.as_deref() {
        if let Some(fault) = &filters.fault {
            black_box(fault.plan(&mut entropy).delay);
        }
        if let Some(cors) = &filters.cors
            && let CorsPlan::Mark { origin } = cors.plan(&Method::GET, client)
        {
            mark = Some((cors, origin));
        }
        black_box(mirror::chosen(&filters.mirrors, &mut entropy).count());
    }
    let Some(destination) = forward.pick(entropy()) else { return 0 };
    destination.headers.request.apply(upstream, Direction::Request, &Known);
    let target = forward
        .rewrite
        .as_ref()
        .map_or(0, |rewrite| path_and_query(&rewrite.apply(head.path), head.query).len());
    destination.headers.response.apply(response, Direction::Response, &Known);
    if let Some((cors, origin)) = mark {
        cors.actual(origin, response);
    }
    if let Some(policy) = &forward.retry {
        let _ = black_box(policy.on_response(StatusCode::OK, response));
    }
    target + limit.map_or(0, |limit| limit.as_millis() as usize)
}

fn route(criterion: &mut Criterion) {
    let compiled = compiled();
    let Some(table) = table(&compiled) else { return };
    let client = request_headers();
    let mut group = criterion.benchmark_group("route");
    for (name, authority) in
        [("with no features", "none.example.com"), ("with all features", "all.example.com")]
    {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || (client.clone(), response_headers()),
                |(upstream, response)| {
                    black_box(serve(&table, black_box(authority), &client, upstream, response))
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, route);
criterion_main!(benches);

//! What policies cost that do nothing but be asked: a request's whole way past chains of none to ten. The promise: below 100 ns a policy,
//! and a gateway without any asks one question a hook, whether there are any.

use criterion::{Criterion, criterion_group, criterion_main};
use futures::FutureExt as _;
use gateway::{
    policy::{
        Answer, Chain, CompleteView, Hooks, Policy, RequestView, ResponseView, RouteView, UpstreamView,
        Verdict,
    },
    testing::{Pass, ok},
};
use http::Request;
use std::hint::black_box;

/// Has every hook, and a state.
struct All;

impl Policy for All {
    type State = u64;

    async fn on_request(&self, calls: &mut u64, request: &mut RequestView<'_>) -> Answer {
        *calls += request.headers().len() as u64;
        Ok(Verdict::Continue)
    }

    async fn on_route(&self, calls: &mut u64, _: &mut RouteView<'_>) -> Answer {
        *calls += 1;
        Ok(Verdict::Continue)
    }

    fn on_upstream(&self, calls: &mut u64, _: &mut UpstreamView<'_>) -> Answer {
        *calls += 1;
        Ok(Verdict::Continue)
    }

    fn on_response(&self, calls: &mut u64, _: &mut ResponseView<'_>) -> Answer {
        *calls += 1;
        Ok(Verdict::Continue)
    }

    fn on_complete(&self, calls: &mut u64, _: &CompleteView<'_>) {
        black_box(*calls);
    }
}

/// The usual one: lets requests in or does not, and keeps nothing.
struct Gate;

impl Policy for Gate {
    type State = ();
    const HOOKS: Hooks = Hooks::REQUEST;

    async fn on_request(&self, (): &mut (), request: &mut RequestView<'_>) -> Answer {
        black_box(request.path().len());
        Ok(Verdict::Continue)
    }
}

/// Adds a policy to a chain.
type Add = fn(Chain) -> Chain;

fn chain(count: usize, add: Add) -> Chain {
    (0..count).fold(Chain::new(), |chain, _| add(chain))
}

/// The hooks of one request, in their order.
fn passes(chain: &Chain, response: &mut http::response::Parts) -> bool {
    let mut pass = Pass::of(chain, Request::new(()));
    // Such policies wait for nothing.
    let asked = async { pass.request().await.is_none() && pass.route().await.is_none() };
    let entered = asked.now_or_never();
    let done = entered == Some(true) && pass.upstream().is_none() && pass.response(response).is_none();
    pass.complete(response);
    done
}

fn policy(c: &mut Criterion) {
    let kinds: [(&str, Add); 2] =
        [("gate", |chain| chain.then(Gate)), ("all_hooks", |chain| chain.then(All))];
    for (name, add) in kinds {
        for count in [1_usize, 10] {
            let (chain, mut response) = (chain(count, add), ok());
            assert!(passes(&chain, &mut response), "a chain that lets everything pass");
            c.bench_function(&format!("policy/{name}/{count}"), |b| {
                b.iter(|| black_box(passes(black_box(&chain), &mut response)));
            });
        }
    }
    // What a gateway does in place of all of that when there are none.
    let none = Chain::new();
    c.bench_function("policy/none", |b| b.iter(|| black_box(black_box(&none).is_empty())));
    // The request and the way alone, without anybody to ask: to be taken from the others.
    let mut response = ok();
    c.bench_function("policy/way", |b| b.iter(|| black_box(passes(black_box(&none), &mut response))));
}

criterion_group!(benches, policy);
criterion_main!(benches);

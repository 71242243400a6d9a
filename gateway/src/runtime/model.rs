//! Every order of what a few clients may do, tried on the real code and compared with a model that fits on a page.
//!
//! Invariant: a sequence begins with a fresh object and is deterministic, so that one that fails is printed and can be played again. What
//! happens under one lock is one step; steps of threads that run at the same time are not told apart (decision 29).

use super::{
    limits::{Admission, Admitted, Counters, Limit},
    outlier::tests::{ejected, watched},
    testing::ip,
};
use futures::task::noop_waker_ref;
use routing::cluster::{Outlier, Pool};
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// All sequences of `length` choices among `count`.
fn sequences(count: usize, length: u32) -> impl Iterator<Item = Vec<usize>> {
    (0..count.pow(length)).map(move |number| (0..length).map(|at| number / count.pow(at) % count).collect())
}

type Asking = Pin<Box<dyn Future<Output = Admission<Admitted>> + Send>>;

/// One client of a pool, as it is.
enum Client {
    Away,
    Waits(Asking),
    Holds { _admitted: Admitted },
}

/// The same clients, as they should be: who holds a connection, who was passed one and does not know yet, and who waits, in order.
#[derive(Default)]
struct Model {
    holds: Vec<usize>,
    passed: Vec<usize>,
    waits: VecDeque<usize>,
    overflows: u64,
}

impl Model {
    fn held(&self) -> usize {
        self.holds.len() + self.passed.len()
    }

    fn pending(&self) -> usize {
        self.waits.len() + self.passed.len()
    }

    fn leaves(&mut self, client: usize) {
        let before = self.held();
        self.holds.retain(|one| *one != client);
        self.passed.retain(|one| *one != client);
        self.waits.retain(|one| *one != client);
        if self.held() < before {
            self.passed.extend(self.waits.pop_front());
        }
    }
}

#[test]
fn however_clients_come_wait_and_leave_connections_are_passed_on_in_order() {
    const CLIENTS: usize = 3;
    let step = |asking: &mut Asking| asking.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
    for (most, queue) in [(1, 1), (1, 2), (2, 1)] {
        let pool = Pool { max_connections: Some(most), max_pending: Some(queue), ..Pool::default() };
        for sequence in sequences(2 * CLIENTS, 6) {
            let counters = Arc::new(Counters::default());
            let mut clients: [Client; CLIENTS] = std::array::from_fn(|_| Client::Away);
            let mut model = Model::default();
            for choice in &sequence {
                let (client, leaves) = (choice / 2, choice % 2 == 1);
                let now = std::mem::replace(&mut clients[client], Client::Away);
                clients[client] = match now {
                    Client::Away if leaves => continue,
                    _ if leaves => {
                        model.leaves(client);
                        drop(now);
                        Client::Away
                    }
                    Client::Holds { .. } => now,
                    Client::Away | Client::Waits(_) => {
                        let mut asking = match now {
                            Client::Waits(asking) => asking,
                            _ => {
                                if model.held() < most as usize {
                                    model.passed.push(client);
                                } else if model.pending() < queue as usize {
                                    model.waits.push_back(client);
                                } else {
                                    model.overflows += 1;
                                }
                                let (counters, pool) = (counters.clone(), pool.clone());
                                Box::pin(async move { counters.admit(&pool, true).await })
                            }
                        };
                        match step(&mut asking) {
                            Poll::Ready(Admission::Granted(admitted)) => {
                                assert!(model.passed.contains(&client), "{sequence:?}: granted too early");
                                model.passed.retain(|one| *one != client);
                                model.holds.push(client);
                                Client::Holds { _admitted: admitted }
                            }
                            Poll::Ready(Admission::Overflow) => Client::Away,
                            Poll::Pending => {
                                assert!(model.waits.contains(&client), "{sequence:?}: waits for nothing");
                                Client::Waits(asking)
                            }
                        }
                    }
                };
                let seen = (counters.now(Limit::Pending) as usize, counters.overflows(Limit::Pending));
                assert_eq!(seen, (model.pending(), model.overflows), "{most} {queue} {sequence:?}");
            }
            drop(clients);
            // Nothing is lost: as many as may hold one can.
            let mut all: Vec<Asking> = Vec::new();
            for _ in 0..most {
                let (counters, pool) = (counters.clone(), pool.clone());
                all.push(Box::pin(async move { counters.admit(&pool, true).await }));
            }
            let held: Vec<_> = all.iter_mut().map(step).collect();
            let granted = |poll: &Poll<_>| matches!(poll, Poll::Ready(Admission::Granted(_)));
            assert!(held.iter().all(granted), "{most} {queue} {sequence:?}: one is lost");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn however_endpoints_fail_and_recover_no_more_are_ejected_than_may_be_and_all_return() {
    const ENDPOINTS: u8 = 3;
    let outlier = Outlier {
        consecutive_5xx: Some(2),
        consecutive_gateway: None,
        local_origin: None,
        split: false,
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(10),
        max_ejection_percent: 67,
        error_codes: Box::default(),
    };
    // Each endpoint answers well or not; and time goes on.
    for sequence in sequences(2 * usize::from(ENDPOINTS) + 1, 5) {
        let cluster = watched(outlier.clone(), ENDPOINTS);
        for choice in &sequence {
            match choice / 2 {
                index if index < usize::from(ENDPOINTS) => {
                    let status = if choice % 2 == 0 { 500 } else { 200 };
                    cluster.endpoints().all[index].begin(&cluster).answered(status);
                }
                _ => {
                    tokio::time::advance(Duration::from_secs(10)).await;
                    cluster.sweep();
                }
            }
            let out = ejected(&cluster);
            assert!(out.len() <= 2, "{sequence:?}: {out:?}");
            for n in 0..4 {
                let picked = cluster.pick(|| n * (u64::MAX / 4), None, &[]).expect("one is left");
                let at = (0..ENDPOINTS).position(|i| ip([10, 0, 0, i]).address == picked.endpoint.address);
                assert!(!out.contains(&at.unwrap()), "{sequence:?}: {at:?} of {out:?} was picked");
            }
        }
        // The longest ejection of five steps.
        tokio::time::advance(Duration::from_secs(60)).await;
        cluster.sweep();
        assert!(ejected(&cluster).is_empty(), "{sequence:?}");
    }
}

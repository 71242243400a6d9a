//! What happens now, as server-sent events: counters since the start, from which a page makes rates.
//!
//! Invariant: read from the metrics alone, on the admin thread; no request waits for it. Nothing is remembered for a client: each
//! event stands for itself. So many streams and no more, so that open pages never take the places of probes and scrapes.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{sync::OwnedSemaphorePermit, time};

use super::Admin;
use crate::{
    pipeline::Built,
    report::table::{describe, each_chain},
};

/// Streams at a time.
pub(super) const MOST_STREAMS: usize = 16;
/// Rules that are told of.
const MOST_RULES: usize = 200;
/// Time between two events.
const PERIOD: Duration = Duration::from_secs(1);

/// Marks an answer whose body is such a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endless;

/// The body: the first event at once, then one each second, for as long as the connection lives.
pub(super) fn body(admin: Arc<Admin>, place: OwnedSemaphorePermit) -> UnsyncBoxBody<Bytes, Infallible> {
    let mut ticks = time::interval(PERIOD);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let events = stream::unfold((admin, place, ticks), |(admin, place, mut ticks)| async move {
        ticks.tick().await;
        let event = format!("data: {}\n\n", event(&admin));
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(event))), (admin, place, ticks)))
    });
    StreamBody::new(events).boxed_unsync()
}

/// One event. Durations are in milliseconds; `buckets` are cumulative counts for each of `bounds`, and one of all.
pub(super) fn event(admin: &Admin) -> Value {
    let metrics = &admin.metrics.istio;
    let services: BTreeMap<_, _> = metrics
        .services()
        .into_iter()
        .map(|(name, service)| (name, json!({"codes": service.codes, "buckets": service.buckets})))
        .collect();
    let snapshot = admin.snapshots.load();
    let clusters: BTreeMap<&str, Value> = snapshot
        .clusters
        .values()
        .map(|cluster| {
            let view = cluster.endpoints();
            let (mut active, mut total, mut errors) = (0_u64, 0_u64, 0_u64);
            for state in &view.all {
                active += u64::from(state.in_flight());
                total += state.attempts();
                errors += state.failures();
            }
            (cluster.spec.name.as_str(), json!({"active": active, "total": total, "errors": errors}))
        })
        .collect();
    json!({
        "rules": admin.status.built().map(|built| rules(&built, metrics.duration_bounds().len() + 1)),
        "uptime_ms": u64::try_from(admin.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "state": super::answer::state(admin),
        "generation": snapshot.generation,
        "connections": admin.listeners.connections(),
        "bounds": metrics.duration_bounds(),
        "services": services,
        "clusters": clusters,
    })
}

/// The rules that took most requests, by host; a rule that is changed counts anew.
fn rules(built: &Built, buckets: usize) -> Vec<Value> {
    let mut known: Vec<&str> = Vec::new();
    let mut taken = Vec::new();
    for (_, _, chain) in each_chain(&built.compiled).filter(|(_, _, chain)| chain.tcp.is_none()) {
        if known.contains(&&**chain.table.name()) {
            continue;
        }
        known.push(chain.table.name());
        for (_, host) in chain.table.hosts().iter() {
            for route in host.routes() {
                let classes = route.taken.classes();
                let all: u64 = classes.iter().sum();
                if all > 0 {
                    taken.push((all, host, route, classes));
                }
            }
        }
    }
    taken.sort_by_key(|(all, ..)| std::cmp::Reverse(*all));
    let shown = taken.into_iter().take(MOST_RULES).map(|(_, host, route, classes)| {
        json!({
            "host": &**host.name(),
            "virtual_service": &*route.origin.virtual_service,
            "index": route.origin.index,
            "match_index": route.origin.match_index,
            "name": route.origin.name.as_deref(),
            "match": describe(&route.matcher),
            "classes": classes,
            "buckets": route.taken.durations(buckets),
        })
    });
    shown.collect()
}

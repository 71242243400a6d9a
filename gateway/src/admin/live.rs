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

/// Streams at a time.
pub(super) const MOST_STREAMS: usize = 16;
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
        "uptime_ms": u64::try_from(admin.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "state": super::answer::state(admin),
        "generation": snapshot.generation,
        "connections": admin.listeners.connections(),
        "bounds": metrics.duration_bounds(),
        "services": services,
        "clusters": clusters,
    })
}

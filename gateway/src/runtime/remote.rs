//! Endpoints of other priorities, for retries that are to leave the locality of earlier attempts.
//!
//! Invariant: made anew for each such retry, and only for them: the view that every request picks from knows nothing of
//! it. Health, ejection and weights count as they do there.

use super::{Cluster, EndpointState};
use routing::{
    balance::{self, EndpointSet, Fitness, Turn, configured},
    cluster::Address,
};
use std::sync::Arc;

/// An endpoint of a priority in which none of `tried` is; `None` where every priority with somebody to ask was tried
/// (Envoy: retry priority `previous_priorities`, which then starts over).
#[must_use]
pub fn pick(
    cluster: &Cluster,
    mut entropy: impl FnMut() -> u64,
    tried: &[Address],
) -> Option<Arc<EndpointState>> {
    let view = cluster.endpoints();
    let was_tried = |priority: u32| {
        let same = view.all.iter().filter(|state| state.endpoint.place.priority == priority);
        same.into_iter().any(|state| tried.contains(&state.endpoint.address))
    };
    let endpoints: Vec<_> = view.all.iter().map(|state| state.endpoint.clone()).collect();
    let left = EndpointSet::build(cluster.spec.lb, 0, &endpoints, |index, endpoint| {
        let ejected = view.all.get(index).is_some_and(|state| state.record().is_ejected());
        if ejected || was_tried(endpoint.place.priority) { Fitness::Unfit } else { configured(endpoint) }
    });
    if left.fit() == 0 {
        return None;
    }
    let turn = Turn { cursor: entropy(), ..Turn::default() };
    let index = balance::pick(cluster.spec.lb, &left, &*view, &mut entropy, turn)?;
    view.all.get(index).cloned()
}

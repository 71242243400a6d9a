//! The endpoints of a cluster, prepared for picking.
//!
//! Invariant: a set never changes; whoever changes health or weights makes a new one. Endpoints are known by their index
//! in the cluster. What is not fit is in no group, unless its whole priority is in panic.

use super::{
    group::Group,
    priority::{Level, loads},
    scale, zones,
};
use crate::cluster::{Endpoint, Health, LbPolicy, Share};
use std::collections::BTreeMap;

/// Overprovisioning factor, per cent: a priority or locality keeps all its traffic until it has fewer than 1/1.4 of its
/// endpoints (Envoy's default).
pub(super) const OVERPROVISIONING: u64 = 140;

/// Whether an endpoint takes part, and with what weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fitness {
    /// It may be picked, with so much weight; 0 counts as 1.
    Fit(u64),
    /// It may not (not ready, ejected), unless in panic.
    Unfit,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug)]
pub struct EndpointSet {
    total: usize,
    fit: usize,
    groups: Box<[Group]>,
    /// Running sums of the groups' loads; empty when there is one group.
    sums: Box<[u64]>,
}

impl EndpointSet {
    /// Prepares endpoints as the configuration has them, for policies that need no table.
    #[must_use]
    pub fn new(endpoints: &[Endpoint]) -> Self {
        Self::build(LbPolicy::default(), 0, endpoints, |_, endpoint| configured(endpoint))
    }

    /// Prepares endpoints for a policy. `fitness` judges each, for callers that know more than the configuration does;
    /// below `panic_percent` fit ones in a priority, all of it take part.
    #[must_use]
    pub fn build(
        policy: LbPolicy,
        panic_percent: u32,
        endpoints: &[Endpoint],
        mut fitness: impl FnMut(usize, &Endpoint) -> Fitness,
    ) -> Self {
        let mut levels: BTreeMap<u32, Vec<Judged<'_>>> = BTreeMap::new();
        let mut fit = 0;
        for (index, endpoint) in endpoints.iter().enumerate() {
            let fitness = fitness(index, endpoint);
            fit += usize::from(matches!(fitness, Fitness::Fit(_)));
            levels.entry(endpoint.place.priority).or_default().push(Judged { index, endpoint, fitness });
        }
        let counts: Vec<Level> = levels
            .values()
            .map(|judged| Level {
                total: judged.len() as u64,
                fit: judged.iter().filter(|j| matches!(j.fitness, Fitness::Fit(_))).count() as u64,
            })
            .collect();
        let mut groups = Vec::new();
        let mut sums = Vec::new();
        let mut sum = 0_u64;
        for (load, judged) in loads(&counts, u64::from(panic_percent)).into_iter().zip(levels.values()) {
            if load.share == 0 {
                continue;
            }
            let localities = localities(judged, load.panic);
            let total: u64 = localities.iter().map(|(share, _)| share).sum();
            for (share, members) in localities {
                // Shares of a priority make 2³² together, and loads are percentages or numbers of endpoints.
                let part = (u128::from(share) << 32) / u128::from(total.max(1));
                sum = sum.saturating_add(
                    load.share.saturating_mul(u64::try_from(part).unwrap_or(u64::MAX)).max(1),
                );
                sums.push(sum);
                groups.push(Group::new(policy, endpoints, &members));
            }
        }
        if groups.len() < 2 {
            sums.clear();
        }
        Self { total: endpoints.len(), fit, groups: groups.into(), sums: sums.into() }
    }

    /// Number of endpoints in the cluster, fit or not.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Number of endpoints that are fit.
    #[must_use]
    pub fn fit(&self) -> usize {
        self.fit
    }

    /// The group that `selector`, uniform over `u64`, falls on.
    pub(super) fn group(&self, selector: impl FnOnce() -> u64) -> Option<&Group> {
        let Some(total) = self.sums.last() else { return self.groups.first() };
        let ticket = scale(selector(), *total);
        self.groups.get(self.sums.partition_point(|sum| *sum <= ticket))
    }
}

/// Fitness by configuration alone.
pub fn configured(endpoint: &Endpoint) -> Fitness {
    match endpoint.health {
        Health::Healthy => Fitness::Fit(u64::from(endpoint.weight)),
        Health::Unhealthy => Fitness::Unfit,
    }
}

struct Judged<'e> {
    index: usize,
    endpoint: &'e Endpoint,
    fitness: Fitness,
}

/// Endpoints by index, each with its weight.
pub(super) type Members = Vec<(usize, u64)>;

/// The members of one priority with the share of each locality: one group, unless shares are given (Istio:
/// `distribute`, `zoneAwareLbSetting`). A locality that lost endpoints keeps a given share as long as overprovisioning covers
/// it.
fn localities(judged: &[Judged<'_>], panic: bool) -> Vec<(u64, Members)> {
    /// All endpoints of one locality, and those that take part.
    #[derive(Default)]
    struct Locality {
        total: u64,
        members: Members,
    }
    let mut by_locality: BTreeMap<(Share, &str), Locality> = BTreeMap::new();
    for one in judged {
        let place = &one.endpoint.place;
        let key = match place.share {
            // In panic any endpoint is better than a near one.
            Share::Zone(_) if panic => (Share::ByWeight, ""),
            Share::ByWeight => (Share::ByWeight, ""),
            share @ (Share::Of(_) | Share::Zone(_)) => (share, &*place.locality),
        };
        let locality = by_locality.entry(key).or_default();
        locality.total += 1;
        match one.fitness {
            Fitness::Fit(weight) => locality.members.push((one.index, weight.max(1))),
            Fitness::Unfit if panic => {
                locality.members.push((one.index, u64::from(one.endpoint.weight.max(1))));
            }
            Fitness::Unfit => {}
        }
    }
    let mut zones = Vec::new();
    let mut shares = Vec::new();
    for ((share, _), Locality { total, members }) in by_locality {
        if let Share::Zone(zone) = share {
            zones.push(zones::Of { zone, members });
        } else if !members.is_empty() {
            let availability = (members.len() as u64 * OVERPROVISIONING * 100 / total).min(10_000);
            let given = if let Share::Of(share) = share { u64::from(share) } else { 1 };
            shares.push(((given * availability).max(1), members));
        }
    }
    shares.extend(zones::shares(zones));
    shares
}

//! How traffic is shared among zones so that it stays in the gateway's own as far as that has room.
//!
//! Invariant: the rules are Envoy's (load_balancer_impl.cc `regenerateLocalityRoutingStructures`): all gateways together load
//! every endpoint alike, and each sends elsewhere only what its own zone has no endpoints for.

use super::endpoints::Members;
use crate::cluster::Zone;

/// Shares are taken of so much.
const WHOLE: u64 = 10_000;

/// The fit endpoints of one zone.
pub(super) struct Of {
    /// How it stands to the gateway's.
    pub(super) zone: Zone,
    /// The endpoints that take part.
    pub(super) members: Members,
}

/// Who gets which share: some zones by themselves, or all as one.
pub(super) fn shares(zones: Vec<Of>) -> Vec<(u64, Members)> {
    let fit: u64 = zones.iter().map(|of| of.members.len() as u64).sum();
    let least = zones.iter().map(|of| u64::from(of.zone.least)).max().unwrap_or_default();
    if zones.len() < 2 || fit < least || fit == 0 {
        return together(zones);
    }
    let here = |of: &Of| of.members.len() as u64 * WHOLE / fit;
    let (own, mut others): (Vec<Of>, Vec<Of>) = zones.into_iter().partition(|of| of.zone.own);
    let own = own.into_iter().next();
    let stays = own.as_ref().map_or(0, |of| {
        let (endpoints, replicas) = (here(of), u64::from(of.zone.replicas));
        if endpoints >= replicas { WHOLE } else { endpoints * WHOLE / replicas }
    });
    let own = own.filter(|of| !of.members.is_empty());
    if stays >= WHOLE
        && let Some(own) = own
    {
        return vec![(1, own.members)];
    }
    // What other gateways leave room for: nothing is sent where they need all that there is.
    others.retain(|of| !of.members.is_empty());
    let room = |of: &Of| here(of).saturating_sub(u64::from(of.zone.replicas));
    let all: u64 = others.iter().map(room).sum();
    let mut shares: Vec<(u64, Members)> = Vec::with_capacity(others.len() + 1);
    let leaves = WHOLE.saturating_sub(stays);
    if all == 0 {
        // Rounding alone makes this: any of them will do.
        let each = leaves.max(1);
        let count = others.len() as u64;
        shares.extend(own.map(|of| (stays * count.max(1), of.members)));
        shares.extend(others.into_iter().map(|of| (each, of.members)));
    } else {
        shares.extend(own.map(|of| (stays * all, of.members)));
        shares.extend(others.into_iter().map(|of| (leaves * room(&of), of.members)));
    }
    shares.retain(|(share, _)| *share > 0);
    shares
}

fn together(zones: Vec<Of>) -> Vec<(u64, Members)> {
    let members: Members = zones.into_iter().flat_map(|of| of.members).collect();
    if members.is_empty() { Vec::new() } else { vec![(1, members)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares per cent of zones with so many replicas and fit endpoints, the first the gateway's own.
    fn split(zones: &[(u16, usize)], least: u32) -> Vec<(usize, u64)> {
        let mut index = 0;
        let zones = zones.iter().enumerate().map(|(at, (replicas, endpoints))| {
            let members = (0..*endpoints).map(|_| {
                index += 1;
                (at * 100 + index, 1)
            });
            Of { zone: Zone { own: at == 0, replicas: *replicas, least }, members: members.collect() }
        });
        let shares = shares(zones.collect());
        let total: u64 = shares.iter().map(|(share, _)| share).sum();
        shares.iter().map(|(share, members)| (members[0].0 / 100, share * 100 / total)).collect()
    }

    #[test]
    fn all_stays_where_the_own_zone_has_its_part_of_the_endpoints() {
        assert_eq!(split(&[(5_000, 5), (5_000, 5)], 6), [(0, 100)]);
        assert_eq!(split(&[(3_333, 6), (6_666, 4)], 6), [(0, 100)]);
    }

    #[test]
    fn what_the_own_zone_has_no_endpoints_for_goes_where_there_is_room() {
        // Replicas 40, 40, 20 and endpoints 25, 50, 25 per cent: 62 stay, and the rest goes 10 to 5.
        assert_eq!(split(&[(4_000, 5), (4_000, 10), (2_000, 5)], 6), [(0, 62), (1, 25), (2, 12)]);
        assert_eq!(split(&[(5_000, 1), (2_500, 1), (2_500, 8)], 6), [(0, 20), (2, 80)]);
    }

    #[test]
    fn a_zone_without_endpoints_sends_all_away() {
        assert_eq!(split(&[(5_000, 0), (5_000, 8)], 6), [(1, 100)]);
        let only_others = [
            (Zone { own: false, replicas: 5_000, least: 1 }, 1),
            (Zone { own: false, replicas: 0, least: 1 }, 2),
        ];
        let zones = only_others.map(|(zone, index)| Of { zone, members: vec![(index, 1)] });
        assert_eq!(shares(zones.into()), [(50_000_000, vec![(2, 1)])], "the first needs its own");
    }

    #[test]
    fn small_clusters_and_single_zones_are_one() {
        assert_eq!(split(&[(5_000, 1), (5_000, 4)], 6), [(0, 100)]);
        let zone = |own| Zone { own, replicas: 5_000, least: 6 };
        let few = vec![
            Of { zone: zone(true), members: vec![(1, 1)] },
            Of { zone: zone(false), members: vec![(2, 1)] },
        ];
        assert_eq!(shares(few), [(1, vec![(1, 1), (2, 1)])]);
        assert_eq!(shares(Vec::new()), []);
    }

    #[test]
    fn nothing_is_lost_to_rounding() {
        let zone = |own, replicas| Zone { own, replicas, least: 1 };
        let zones = vec![
            Of { zone: zone(true, 9_999), members: vec![(1, 1)] },
            Of { zone: zone(false, 5_000), members: vec![(2, 1)] },
        ];
        let shares = shares(zones);
        assert_eq!(shares.len(), 2, "{shares:?}");
        assert!(shares.iter().all(|(share, _)| *share > 0));
    }
}

//! Maglev: each endpoint fills a table in an order of its own until it is full.
//!
//! Invariant: the table is Envoy's (maglev_lb.cc): offset by XXH64 of the address, step by XXH64 with seed 1, so that
//! gateways side by side agree.

use crate::cluster::hash_key_text;

const FREE: u32 = u32::MAX;

/// The table for endpoints by name and weight: positions of endpoints; empty when there is none. `size` is a prime.
pub(super) fn table(endpoints: &[(String, u64)], size: u64) -> Box<[u32]> {
    let heaviest = endpoints.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    if heaviest == 0 || size < 2 {
        return Box::default();
    }
    struct Row {
        at: u64,
        step: u64,
        weight: u128,
        due: u128,
    }
    let mut rows: Vec<Row> = endpoints
        .iter()
        .map(|(name, weight)| Row {
            at: hash_key_text(name.as_bytes(), 0) % size,
            step: hash_key_text(name.as_bytes(), 1) % (size - 1) + 1,
            weight: u128::from(*weight),
            due: 0,
        })
        .collect();
    let mut table = vec![FREE; usize::try_from(size).unwrap_or(usize::MAX)];
    let mut filled = 0;
    let mut round = 1_u128;
    while filled < size {
        for (position, row) in (0_u32..).zip(&mut rows) {
            if filled == size {
                break;
            }
            // An endpoint of a third of the heaviest's weight has a turn in every third round.
            if round * row.weight < row.due {
                continue;
            }
            row.due += u128::from(heaviest);
            // A step shorter than a prime size meets every entry, and some are free.
            loop {
                let Some(entry) = table.get_mut(row.at as usize) else { return Box::default() };
                row.at = (row.at + row.step) % size;
                if *entry == FREE {
                    *entry = position;
                    break;
                }
            }
            filled += 1;
        }
        round += 1;
    }
    table.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_an_owner_by_weight() {
        let table = table(&[("a:1".into(), 1), ("b:1".into(), 3)], 65_537);
        assert_eq!(table.len(), 65_537);
        let of_b = table.iter().filter(|owner| **owner == 1).count();
        assert!(of_b.abs_diff(65_537 * 3 / 4) < 700, "{of_b}");
        assert!(super::table(&[], 65_537).is_empty());
    }
}

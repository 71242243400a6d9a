//! `mirror` and `mirrors`: who else gets a copy of a request.
//!
//! Invariant: every mirror throws its own die. What a mirror answers, or whether it does, nobody learns.

use super::share::{Share, Throw};
use crate::cluster::ClusterName;

/// A cluster that gets copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where the copy goes; one that does not exist gets none.
    pub cluster: ClusterName,
    /// How many requests are copied.
    pub share: Share,
}

/// The mirrors that get a copy of one request; each value is uniform over all of `u64`.
pub fn chosen(mirrors: &[Mirror], mut entropy: impl FnMut() -> u64) -> impl Iterator<Item = &Mirror> {
    mirrors.iter().filter(move |mirror| mirror.share.throw(entropy()) == Throw::Takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mirror_throws_its_own_die() {
        let mirror = |host: &str, percent| Mirror {
            cluster: ClusterName::outbound(80, "", host),
            share: Share::of_percent(percent).unwrap(),
        };
        let mirrors = [mirror("a", 100), mirror("b", 1), mirror("c", 50)];
        let names = |dice: [u64; 3]| {
            let mut dice = dice.into_iter();
            let chosen: Vec<_> =
                chosen(&mirrors, || dice.next().unwrap()).map(|m| m.cluster.as_str().to_owned()).collect();
            chosen
        };
        assert_eq!(names([u64::MAX; 3]), ["outbound|80||a"]);
        assert_eq!(names([0, u64::MAX, 0]), ["outbound|80||a", "outbound|80||c"]);
    }
}

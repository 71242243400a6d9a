//! Laws of the actions, over random plans and heads: header operations, path rewrites, and how weights are shared.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests; a panic is the failure")]

use config_model::istio::virtual_service::{HeaderOperations, Headers};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use routing::{
    action::{
        headers::{Direction, HeaderPlan, NoFacts, combine_single, combine_weighted},
        rewrite::PathRewrite,
    },
    cluster::ClusterName,
    matcher::Pattern,
    path::PathMatch,
    route::{Destination, Forward},
};

const NAMES: [&str; 5] = ["x-a", "x-b", "x-c", "accept", "cookie"];

fn operations() -> impl Strategy<Value = HeaderOperations> {
    let name = || prop::sample::select(NAMES.to_vec());
    let value = || prop::sample::select(vec!["", "1", "2", "%REQ(x-a)%", "[%REQ(x-b?x-c)%]", "%%"]);
    let pairs = move || prop::collection::btree_map(name(), value(), 0..4);
    (pairs(), pairs(), prop::collection::vec(name(), 0..3)).prop_map(|(set, add, remove)| HeaderOperations {
        set: set.into_iter().map(|(k, v)| (k.parse().unwrap(), v.to_owned())).collect(),
        add: add.into_iter().map(|(k, v)| (k.parse().unwrap(), v.to_owned())).collect(),
        remove: remove.into_iter().map(|k| k.parse().unwrap()).collect(),
    })
}

fn plan(operations: HeaderOperations) -> HeaderPlan {
    let (plan, problems) = HeaderPlan::compile(Some(&Headers { request: Some(operations), response: None }));
    assert_eq!(problems, []);
    plan
}

fn head() -> impl Strategy<Value = HeaderMap> {
    let value = prop::sample::select(vec!["", "old", "two words"]);
    prop::collection::vec((prop::sample::select(NAMES.to_vec()), value), 0..6).prop_map(|pairs| {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, HeaderValue::from_static(value));
        }
        map
    })
}

fn after(plan: &HeaderPlan, before: &HeaderMap) -> HeaderMap {
    let mut headers = before.clone();
    plan.request.apply(&mut headers, Direction::Request, &NoFacts);
    headers
}

/// The values of a name as a reader takes them: as one list (RFC 9110 §5.3).
fn list(headers: &HeaderMap, name: &str) -> Vec<u8> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b","[..])
}

/// What a block does, one name after the other, as its definition reads.
fn by_definition(operations: &HeaderOperations, before: &HeaderMap) -> HeaderMap {
    let mut headers = before.clone();
    for name in &operations.remove {
        headers.remove(name.as_str());
    }
    let seen = headers.clone();
    let first = |name: &str| seen.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let made = |text: &str| match text {
        "%REQ(x-a)%" => first("x-a"),
        "[%REQ(x-b?x-c)%]" => {
            let b = first("x-b");
            format!("[{}]", if b.is_empty() { first("x-c") } else { b })
        }
        "%%" => "%".to_owned(),
        literal => literal.to_owned(),
    };
    for (name, text) in &operations.set {
        let value = made(text);
        if !value.is_empty() {
            headers.insert(HeaderName::from_bytes(name.as_str().as_bytes()).unwrap(), value.parse().unwrap());
        }
    }
    for (name, text) in &operations.add {
        let value = made(text);
        if !value.is_empty() {
            headers.append(HeaderName::from_bytes(name.as_str().as_bytes()).unwrap(), value.parse().unwrap());
        }
    }
    headers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_block_does_what_its_definition_says(operations in operations(), before in head()) {
        let (got, want) = (after(&plan(operations.clone()), &before), by_definition(&operations, &before));
        for name in NAMES {
            prop_assert_eq!(list(&got, name), list(&want, name), "{}", name);
        }
    }

    #[test]
    fn several_destinations_are_one_block_after_the_other(rule in operations(), own in operations(), before in head()) {
        let (rule, own) = (plan(rule), plan(own));
        let want = after(&rule, &after(&own, &before));
        let got = after(&combine_weighted(&rule, &own), &before);
        for name in NAMES {
            prop_assert_eq!(list(&got, name), list(&want, name), "{}", name);
        }
    }

    #[test]
    fn one_destination_sets_what_it_says(rule in operations(), own in operations(), before in head()) {
        let combined = combine_single(&plan(rule), &plan(own.clone()));
        let got = after(&combined, &before);
        for (name, text) in own.set.iter().filter(|(_, text)| matches!(text.as_str(), "1" | "2")) {
            prop_assert!(list(&got, name.as_str()).starts_with(text.as_bytes()), "{}", name.as_str());
        }
    }

    #[test]
    fn operations_without_values_are_the_same_twice(operations in operations(), before in head()) {
        let literal = |text: &String| !text.contains('%');
        let only = HeaderOperations {
            set: operations.set.into_iter().filter(|(_, text)| literal(text)).collect(),
            add: Default::default(),
            remove: operations.remove,
        };
        let plan = plan(only);
        let once = after(&plan, &before);
        prop_assert_eq!(after(&plan, &once), once);
    }

    #[test]
    fn a_prefix_rewrite_keeps_what_follows_the_prefix(prefix in "/[a-c/]{0,4}", rest in "[a-cé/]{0,6}", to in "/[x-z/]{0,3}") {
        let matched = PathMatch::Prefix { text: prefix.as_str().into(), ignore_case: false };
        let path = format!("{prefix}{rest}");
        prop_assert!(matched.is_match(&path));
        let rewrite = PathRewrite::uri(&matched, &to).unwrap();
        prop_assert_eq!(rewrite.apply(&path), format!("{to}{rest}"));
    }

    #[test]
    fn whole_matches_are_replaced_as_a_whole(path in "/[a-cé/]{0,6}", to in "/[x-z/]{0,3}") {
        let exact = PathMatch::Exact { text: path.as_str().into(), ignore_case: true };
        let regex = PathMatch::Regex(Pattern::new("/.*").unwrap());
        for matched in [exact, regex] {
            prop_assert!(matched.is_match(&path));
            let rewrite = PathRewrite::uri(&matched, &to).unwrap();
            prop_assert_eq!(&*rewrite.apply(&path), to.as_str());
        }
    }

    #[test]
    fn a_regex_rewrite_of_a_literal_is_a_plain_replacement(path in "/[a-cé/]{0,9}", from in "[a-c]{1,2}", to in "[x-z/]{0,2}") {
        let rewrite = PathRewrite::regex(&from, &to).unwrap();
        prop_assert_eq!(rewrite.apply(&path), path.replace(&from, &to));
    }

    #[test]
    fn any_pattern_and_any_substitution_leave_a_path(path in "/\\PC{0,12}", pattern in "\\PC{0,8}", to in "\\PC{0,6}") {
        if let Ok(rewrite) = PathRewrite::regex(&pattern, &to) {
            prop_assert!(!rewrite.apply(&path).is_empty());
        }
    }
}

fn forward(weights: &[u32]) -> Forward {
    let destination = |(n, weight): (usize, &u32)| Destination {
        cluster: ClusterName::outbound(80, "", &format!("s{n}")),
        weight: *weight,
        headers: Default::default(),
    };
    Forward {
        destinations: weights.iter().enumerate().map(destination).collect(),
        total_weight: weights.iter().sum(),
        rewrite: None,
        authority: None,
        timeout: None,
        retry: None,
        filters: None,
    }
}

/// SplitMix64: the test must give the same answer every day.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Pearson's statistic of 200,000 choices against the weights.
fn chi_square(weights: &[u32], seed: u64) -> f64 {
    const CHOICES: u32 = 200_000;
    let forward = forward(weights);
    let mut state = seed;
    let mut counts = vec![0_u32; weights.len()];
    for _ in 0..CHOICES {
        let chosen = forward.pick(random(&mut state)).unwrap();
        let at = forward.destinations.iter().position(|d| std::ptr::eq(d, chosen)).unwrap();
        counts[at] += 1;
    }
    let total: u32 = weights.iter().sum();
    counts
        .iter()
        .zip(weights)
        .map(|(count, weight)| {
            let expected = f64::from(CHOICES) * f64::from(*weight) / f64::from(total);
            (f64::from(*count) - expected).powi(2) / expected
        })
        .sum()
}

#[test]
fn choices_follow_the_weights() {
    // Critical values of the distribution at p = 0.001, by degrees of freedom.
    const CRITICAL: [f64; 6] = [0.0, 10.83, 13.82, 16.27, 18.47, 20.52];
    for weights in [
        &[80, 20][..],
        &[50, 50],
        &[99, 1],
        &[1, 1, 1],
        &[5, 10, 85],
        &[7, 11, 13, 17],
        &[1, 2, 3, 4, 5, 1000],
    ] {
        for seed in 1..=3 {
            let statistic = chi_square(weights, seed);
            assert!(statistic < CRITICAL[weights.len() - 1], "{weights:?} with seed {seed}: {statistic}");
        }
    }
}

#[test]
fn the_statistic_sees_a_wrong_split() {
    let honest = chi_square(&[80, 20], 1);
    // The same choices held against a split that is one percent off.
    let forward = forward(&[81, 19]);
    let mut state = 1;
    let first = (0..200_000)
        .filter(|_| std::ptr::eq(forward.pick(random(&mut state)).unwrap(), &forward.destinations[0]))
        .count() as f64;
    let wrong = (first - 160_000.0).powi(2) / 160_000.0 + (40_000.0 - first).powi(2) / 40_000.0;
    assert!(honest < 10.83 && wrong > 50.0, "{honest} {wrong}");
}

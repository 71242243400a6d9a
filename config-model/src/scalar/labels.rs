//! Label selection: every place that selects by labels uses these two functions.

use std::collections::BTreeMap;

/// Whether every pair of `selector` is in `labels`. An empty selector selects everything.
pub fn is_subset_of(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A selector that may be absent: absent selects everything, as a Gateway's does.
pub fn selects(selector: Option<&BTreeMap<String, String>>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| is_subset_of(selector, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_subset_of_what_it_selects() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<BTreeMap<String, String>>()
        };
        let pod = map(&[("app", "reviews"), ("version", "v1")]);
        assert!(is_subset_of(&map(&[("version", "v1")]), &pod));
        assert!(is_subset_of(&map(&[]), &pod));
        assert!(!is_subset_of(&map(&[("version", "v2")]), &pod));
        assert!(selects(None, &pod));
    }
}

//! Query parameters, undecoded.
//!
//! Invariant: the first value of a key counts, and a key without `=` has the empty value. Keys are case-sensitive and,
//! like values, compared as sent (Envoy: `QueryParameterMatcher`).

/// The first value of a key; `None` when the query has no such key.
#[must_use]
pub fn first_value<'a>(query: Option<&'a str>, key: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_value_undecoded() {
        let q = Some("a=1&a=2&b&c=x%20y=z&=e");
        assert_eq!(first_value(q, "a"), Some("1"));
        assert_eq!(first_value(q, "b"), Some(""));
        assert_eq!(first_value(q, "c"), Some("x%20y=z"));
        assert_eq!(first_value(q, "A"), None);
        assert_eq!(first_value(None, "a"), None);
    }
}

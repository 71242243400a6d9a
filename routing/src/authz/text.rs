//! How policies compare a text: exact, prefix, suffix, or there at all.
//!
//! Invariant: comparison is on bytes. A lone star asks for something that is not empty, but of headers, where it asks only whether
//! they are there (Istio: matcher/string.go, matcher/header.go).

use crate::matcher::{Pattern, PatternError};
use std::fmt;

/// One way to compare.
#[derive(Clone, Debug)]
pub(crate) enum TextMatch {
    /// There, whatever it is.
    There,
    /// Not empty. Envoy is told `.+`, for which a line break is no character.
    Filled,
    /// Equal.
    Exact(Box<str>),
    /// Begins with one and ends with the other, which do not overlap. Either may be empty.
    Ends(Box<str>, Box<str>),
    /// The whole text matches.
    Regex(Pattern),
}

impl TextMatch {
    /// A value in a list; `prefix` stands in front of whatever is compared.
    pub(crate) fn value(value: &str, prefix: &str) -> Self {
        if value == "*" {
            return Self::Filled;
        }
        if let Some(suffix) = value.strip_prefix('*') {
            return Self::Ends(prefix.into(), suffix.into());
        }
        match value.strip_suffix('*') {
            Some(rest) => Self::Ends(format!("{prefix}{rest}").into(), "".into()),
            None => Self::Exact(format!("{prefix}{value}").into()),
        }
    }

    /// A value of a header, a method or a host.
    pub(crate) fn header(value: &str) -> Self {
        if value == "*" { Self::There } else { Self::value(value, "") }
    }

    /// A regular expression.
    pub(crate) fn regex(pattern: &str) -> Result<Self, PatternError> {
        Pattern::new(pattern).map(Self::Regex)
    }

    /// A text that begins so.
    pub(crate) fn prefix(text: impl Into<Box<str>>) -> Self {
        Self::Ends(text.into(), "".into())
    }

    /// A text that ends so.
    pub(crate) fn suffix(text: impl Into<Box<str>>) -> Self {
        Self::Ends("".into(), text.into())
    }

    /// Whether a text that is there matches.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::There => true,
            Self::Filled => !text.is_empty() && memchr::memchr(b'\n', text).is_none(),
            Self::Exact(want) => text == want.as_bytes(),
            Self::Ends(begin, end) => {
                text.strip_prefix(begin.as_bytes()).is_some_and(|rest| rest.ends_with(end.as_bytes()))
            }
            Self::Regex(pattern) => pattern.is_match(text),
        }
    }

    /// The same without regard to ASCII case; patterns keep theirs.
    pub(crate) fn is_match_in_any_case(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(want) => text.eq_ignore_ascii_case(want.as_bytes()),
            Self::Ends(begin, end) => {
                let Some((head, rest)) = text.split_at_checked(begin.len()) else { return false };
                let tail = rest.len().checked_sub(end.len()).and_then(|at| rest.get(at..));
                head.eq_ignore_ascii_case(begin.as_bytes())
                    && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes()))
            }
            Self::There | Self::Filled | Self::Regex(_) => self.is_match(text),
        }
    }
}

impl fmt::Display for TextMatch {
    /// As a policy writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::There | Self::Filled => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Ends(begin, end) if end.is_empty() => write!(f, "{begin}*"),
            Self::Ends(begin, end) => write!(f, "{begin}*{end}"),
            Self::Regex(pattern) => f.write_str(pattern.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_star_says_how() {
        let holds = |value: &str, text: &str| TextMatch::value(value, "").is_match(text.as_bytes());
        assert!(holds("abc", "abc") && !holds("abc", "abcd") && !holds("abc", "ABC"));
        assert!(holds("abc*", "abc") && holds("abc*", "abcd") && !holds("abc*", "xabc"));
        assert!(holds("*abc", "abc") && holds("*abc", "xabc") && !holds("*abc", "abcx"));
        assert!(holds("*", "a") && !holds("*", "") && !holds("*", "a\nb"));
        assert!(holds("**", "a*") && !holds("**", "a"), "only the outer star is one");
        assert!(holds("a*b", "a*b") && !holds("a*b", "axb"), "a star inside is itself");
        assert!(TextMatch::header("*").is_match(b""));
    }

    #[test]
    fn a_prefix_stands_before_everything_but_the_lone_star() {
        let holds = |value: &str, text: &str| TextMatch::value(value, "spiffe://").is_match(text.as_bytes());
        assert!(holds("td/ns/a", "spiffe://td/ns/a") && !holds("td/ns/a", "td/ns/a"));
        assert!(holds("td/*", "spiffe://td/x") && holds("*/sa/a", "spiffe://td/sa/a"));
        assert!(!holds("*/a", "https://x/a") && holds("*", "anything"));
        assert!(!holds("*//", "spiffe://"), "beginning and end do not overlap");
    }

    #[test]
    fn case_counts_or_not() {
        let holds = |value: &str, text: &str| TextMatch::header(value).is_match_in_any_case(text.as_bytes());
        assert!(holds("Example.com", "eXAMPLE.COM") && holds("*.Com", "a.com") && holds("EX*", "example"));
        assert!(!holds("*.com", "a.org") && !holds("example", "exampl"));
        assert!(!TextMatch::header("Get").is_match(b"GET"));
    }
}

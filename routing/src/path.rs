//! How a rule compares the path.
//!
//! Invariant: the path has no query here. A prefix is a plain text prefix, `/foo` takes `/foobar` (Istio, unlike the
//! Gateway API).

use crate::matcher::{Pattern, PatternError};
use config_model::scalar::StringMatch;
use std::fmt;

/// One way to compare the path.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Every path.
    Any,
    /// The whole path.
    Exact {
        /// What it must equal.
        text: Box<str>,
        /// Without regard to ASCII case.
        ignore_case: bool,
    },
    /// Its beginning.
    Prefix {
        /// What it must begin with; empty takes all.
        text: Box<str>,
        /// Without regard to ASCII case.
        ignore_case: bool,
    },
    /// The whole path by regex; `ignoreUriCase` has no effect on it.
    Regex(Pattern),
}

impl PathMatch {
    /// Compiles `match.uri`; absent or `{}` is prefix `/` (Istio: route.go `TranslateRouteMatch`).
    pub fn compile(uri: Option<&StringMatch>, ignore_case: bool) -> Result<Self, PatternError> {
        Ok(match uri {
            None | Some(StringMatch::Present) => Self::Prefix { text: "/".into(), ignore_case },
            Some(StringMatch::Exact(text)) => Self::Exact { text: text.as_str().into(), ignore_case },
            Some(StringMatch::Prefix(text)) => Self::Prefix { text: text.as_str().into(), ignore_case },
            Some(StringMatch::Regex(text)) => Self::Regex(Pattern::new(text)?),
        })
    }

    /// Whether a path without query matches.
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        let path = path.as_bytes();
        match self {
            Self::Any => true,
            Self::Exact { text, ignore_case: false } => path == text.as_bytes(),
            Self::Exact { text, ignore_case: true } => path.eq_ignore_ascii_case(text.as_bytes()),
            Self::Prefix { text, ignore_case: false } => path.starts_with(text.as_bytes()),
            Self::Prefix { text, ignore_case: true } => {
                path.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text.as_bytes()))
            }
            Self::Regex(pattern) => pattern.is_match(path),
        }
    }

    /// Whether Istio takes it for one that matches every path: prefix `/` and regex `.*`, but not prefix ``
    /// (Istio: route.go `isCatchAllRoute`).
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Exact { .. } => false,
            Self::Prefix { text, .. } => &**text == "/",
            Self::Regex(pattern) => pattern.as_str() == ".*",
        }
    }
}

impl fmt::Display for PathMatch {
    /// As in `wants prefix "/api"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text, ignore_case) = match self {
            Self::Any => return f.write_str("any"),
            Self::Exact { text, ignore_case } => ("exact", &**text, *ignore_case),
            Self::Prefix { text, ignore_case } => ("prefix", &**text, *ignore_case),
            Self::Regex(pattern) => ("regex", pattern.as_str(), false),
        };
        write!(f, "{kind} {text:?}{}", if ignore_case { " (any case)" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(uri: StringMatch, ignore_case: bool) -> PathMatch {
        PathMatch::compile(Some(&uri), ignore_case).unwrap()
    }

    #[test]
    fn a_prefix_is_plain_text() {
        let foo = path(StringMatch::Prefix("/foo".into()), false);
        assert!(foo.is_match("/foobar") && foo.is_match("/foo") && foo.is_match("/foo/bar"));
        assert!(!foo.is_match("/Foo") && !foo.is_match("/fo"));
        assert!(path(StringMatch::Prefix("".into()), false).is_match("/any"));
    }

    #[test]
    fn case_is_ignored_for_exact_and_prefix_only() {
        assert!(path(StringMatch::Exact("/Foo".into()), true).is_match("/fOO"));
        assert!(path(StringMatch::Prefix("/Foo".into()), true).is_match("/fOO/x"));
        assert!(!path(StringMatch::Regex("/Foo".into()), true).is_match("/foo"));
        assert!(!path(StringMatch::Exact("/Foo".into()), false).is_match("/foo"));
    }

    #[test]
    fn no_uri_is_the_root_prefix() {
        for uri in [None, Some(&StringMatch::Present)] {
            let any = PathMatch::compile(uri, false).unwrap();
            assert_eq!(any.to_string(), "prefix \"/\"");
            assert!(any.is_catch_all());
        }
    }

    #[test]
    fn what_counts_as_catch_all() {
        assert!(path(StringMatch::Prefix("/".into()), true).is_catch_all());
        assert!(path(StringMatch::Regex(".*".into()), false).is_catch_all());
        assert!(!path(StringMatch::Prefix("".into()), false).is_catch_all());
        assert!(!path(StringMatch::Regex("/.*".into()), false).is_catch_all());
        assert!(!path(StringMatch::Exact("/".into()), false).is_catch_all());
    }
}

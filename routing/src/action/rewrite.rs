//! Path rewriting: on the path without query; the query is kept.
//!
//! Invariant: replacement is textual. No slash is added or removed (Envoy: `prefix_rewrite`), which users rely on.

use crate::{
    matcher::{PatternError, describe, from_re2, syntax_of},
    path::PathMatch,
};
use config_model::istio::virtual_service::HttpRewrite;
use regex_automata::meta::Regex;
use std::{borrow::Cow, fmt, sync::Arc};

/// How a path is rewritten.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// The matched prefix is replaced.
    Prefix {
        /// Its length in bytes.
        from_len: usize,
        /// What stands there instead.
        to: Arc<str>,
    },
    /// The whole path is replaced.
    Full(Arc<str>),
    /// Every match of a pattern is replaced.
    Regex {
        /// What is looked for.
        pattern: SearchPattern,
        /// What stands there instead.
        substitution: Substitution,
    },
}

impl PathRewrite {
    /// Compiles the path part of `rewrite` for one entry; the regex takes precedence over `uri`. `None`: the path
    /// stays. Fails as [`PathRewrite::regex`] does.
    pub fn compile(model: &HttpRewrite, matched: &PathMatch) -> Result<Option<Self>, RewriteError> {
        match &model.uri_regex_rewrite {
            Some(regex) => Self::regex(&regex.pattern, &regex.rewrite).map(Some),
            None => Ok(Self::uri(matched, &model.uri)),
        }
    }

    /// `rewrite.uri` on an entry: a matched prefix is replaced, everything else as a whole; no path condition counts
    /// as prefix `/`. `None` for an empty text, which asks for nothing.
    #[must_use]
    pub fn uri(matched: &PathMatch, to: &str) -> Option<Self> {
        if to.is_empty() {
            return None;
        }
        Some(match matched {
            PathMatch::Any => Self::Prefix { from_len: 1, to: to.into() },
            PathMatch::Prefix { text, .. } => Self::Prefix { from_len: text.len(), to: to.into() },
            PathMatch::Exact { .. } | PathMatch::Regex(_) => Self::Full(to.into()),
        })
    }

    /// `uriRegexRewrite`. Fails on a bad pattern, and on a substitution that names a group that is not there.
    pub fn regex(pattern: &str, substitution: &str) -> Result<Self, RewriteError> {
        let pattern = SearchPattern::new(pattern)?;
        let substitution = Substitution::new(substitution, pattern.groups())?;
        Ok(Self::Regex { pattern, substitution })
    }

    /// The path to send; borrowed where nothing changed.
    #[must_use]
    pub fn apply<'p>(&'p self, path: &'p str) -> Cow<'p, str> {
        match self {
            Self::Prefix { from_len, to } => {
                let rest = path.get(*from_len..).unwrap_or_default();
                Cow::Owned([to, rest].concat())
            }
            Self::Full(to) => Cow::Borrowed(to),
            // Of a path something must be left: a rewrite to nothing is none (asked of Envoy 1.40).
            Self::Regex { pattern, substitution } => match pattern.replace_all(path, substitution) {
                rewritten if rewritten.is_empty() => Cow::Borrowed(path),
                rewritten => rewritten,
            },
        }
    }

    /// Path and query to send; `None`: the path stays.
    #[must_use]
    pub fn target(&self, path: &str, query: Option<&str>) -> Option<String> {
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        match self {
            // Most rewrites are one; it is put together once.
            Self::Prefix { from_len, to } => {
                let rest = path.get(*from_len..).unwrap_or_default();
                let stays = path.strip_prefix(&**to) == Some(rest);
                (!stays).then(|| [to, rest, mark, query].concat())
            }
            Self::Full(_) | Self::Regex { .. } => {
                let rewritten = self.apply(path);
                (rewritten != path).then(|| [&*rewritten, mark, query].concat())
            }
        }
    }
}

/// Path and query as they stand in a request line.
#[must_use]
pub fn path_and_query(path: &str, query: Option<&str>) -> String {
    match query {
        None => path.to_owned(),
        Some(query) => [path, "?", query].concat(),
    }
}

/// A pattern that is looked for inside a text, in RE2's syntax.
#[derive(Clone)]
pub struct SearchPattern {
    text: Box<str>,
    regex: Regex,
}

impl SearchPattern {
    /// Compiles it; fails as [`Pattern::new`](crate::matcher::Pattern::new) does.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let config = Regex::config().nfa_size_limit(Some(1 << 20)).hybrid_cache_capacity(1 << 19);
        // Paths are text, and what is cut out of one must be text again: here a match never splits a character.
        let built = Regex::builder().configure(config).syntax(syntax_of().utf8(true)).build(&from_re2(text));
        match built {
            Ok(regex) => Ok(Self { text: text.into(), regex }),
            Err(e) => Err(PatternError { pattern: text.into(), message: describe(&e) }),
        }
    }

    fn groups(&self) -> usize {
        self.regex.captures_len()
    }

    fn replace_all<'p>(&self, path: &'p str, substitution: &Substitution) -> Cow<'p, str> {
        let mut out = String::new();
        let mut done = 0;
        let mut matched = false;
        for captures in self.regex.captures_iter(path) {
            let Some(whole) = captures.get_match() else { continue };
            matched = true;
            out.push_str(path.get(done..whole.start()).unwrap_or_default());
            for piece in &substitution.pieces {
                match piece {
                    Piece::Text(text) => out.push_str(text),
                    Piece::Group(group) => {
                        let span = captures.get_group(*group);
                        out.push_str(span.and_then(|s| path.get(s.start..s.end)).unwrap_or_default());
                    }
                }
            }
            done = whole.end();
        }
        if !matched {
            return Cow::Borrowed(path);
        }
        out.push_str(path.get(done..).unwrap_or_default());
        Cow::Owned(out)
    }
}

impl fmt::Debug for SearchPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SearchPattern({:?})", self.text)
    }
}

/// A replacement with `\0` to `\9` for groups and `\\` for a backslash (RE2: `Rewrite`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitution {
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Group(usize),
}

impl Substitution {
    fn new(text: &str, groups: usize) -> Result<Self, RewriteError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                plain.push(c);
                continue;
            }
            match chars.next() {
                Some('\\') => plain.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    let group = digit as usize - '0' as usize;
                    if group >= groups {
                        return Err(RewriteError::NoSuchGroup(group));
                    }
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
                    }
                    pieces.push(Piece::Group(group));
                }
                _ => return Err(RewriteError::Escape),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self { pieces: pieces.into() })
    }
}

/// Why a regex rewrite cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewriteError {
    /// The pattern does not compile.
    Pattern(PatternError),
    /// The substitution names a group that the pattern does not have.
    NoSuchGroup(usize),
    /// A backslash in the substitution is followed by neither a digit nor a backslash.
    Escape,
}

impl From<PatternError> for RewriteError {
    fn from(e: PatternError) -> Self {
        Self::Pattern(e)
    }
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(e) => e.fmt(f),
            Self::NoSuchGroup(group) => write!(f, "the pattern has no group {group}"),
            Self::Escape => f.write_str("in a rewrite, `\\` must be followed by a digit or another `\\`"),
        }
    }
}

impl std::error::Error for RewriteError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(p: &str, ignore_case: bool) -> PathMatch {
        PathMatch::Prefix { text: p.into(), ignore_case }
    }

    fn rewritten(matched: &PathMatch, to: &str, path: &str) -> String {
        assert!(matched.is_match(path));
        PathRewrite::uri(matched, to).unwrap().apply(path).into_owned()
    }

    #[test]
    fn a_prefix_is_replaced_as_text() {
        for (p, r, path, want) in [
            ("/foo", "/", "/foo/bar", "//bar"),
            ("/foo", "/", "/foo", "/"),
            ("/foo/", "/", "/foo/bar", "/bar"),
            ("/foo", "/x", "/foobar", "/xbar"),
            ("/", "/v1", "/a", "/v1a"),
            ("/", "/v1/", "/a", "/v1/a"),
        ] {
            assert_eq!(rewritten(&prefix(p, false), r, path), want);
        }
        assert_eq!(rewritten(&prefix("/FOO", true), "/x", "/foo/y"), "/x/y");
        assert_eq!(rewritten(&PathMatch::Any, "/v1", "/a"), "/v1a");
    }

    #[test]
    fn the_query_is_kept_and_a_path_that_stays_is_none() {
        let api = PathRewrite::uri(&prefix("/api/", false), "/v2/").unwrap();
        assert_eq!(api.target("/api/x", Some("a=/api/")).as_deref(), Some("/v2/x?a=/api/"));
        assert_eq!(api.target("/api/x", Some("")).as_deref(), Some("/v2/x?"));
        assert_eq!(api.target("/api/x", None).as_deref(), Some("/v2/x"));
        let same = PathRewrite::uri(&prefix("/API/", true), "/api/").unwrap();
        assert_eq!(same.target("/api/x", Some("q")), None);
        assert_eq!(same.target("/Api/x", Some("q")).as_deref(), Some("/api/x?q"));
        let shorter = PathRewrite::uri(&prefix("/aa", false), "/a").unwrap();
        assert_eq!(shorter.target("/aab", None).as_deref(), Some("/ab"));
        for full in [PathRewrite::Full("/a".into()), PathRewrite::regex("^/b$", "/a").unwrap()] {
            assert_eq!(full.target("/a", Some("q")), None);
            assert_eq!(full.target("/b", Some("q")).as_deref(), Some("/a?q"));
        }
    }

    #[test]
    fn exact_and_regex_replace_the_whole() {
        let exact = PathMatch::Exact { text: "/a".into(), ignore_case: false };
        assert_eq!(rewritten(&exact, "/b", "/a"), "/b");
        let regex = PathMatch::Regex(crate::matcher::Pattern::new("/a.*").unwrap());
        assert_eq!(rewritten(&regex, "/b", "/a/c"), "/b");
        assert!(PathRewrite::uri(&exact, "").is_none());
    }

    #[test]
    fn a_regex_replaces_every_match() {
        let apply = |pattern: &str, to: &str, path: &str| {
            PathRewrite::regex(pattern, to).unwrap().apply(path).into_owned()
        };
        assert_eq!(apply("/service/([^/]+)(/.*)", r"\2/instance/\1", "/service/foo/v1"), "/v1/instance/foo");
        assert_eq!(apply("a", "b", "/aa/a"), "/bb/b");
        assert_eq!(apply("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb"), "/aaa/yyy/bbb");
        assert_eq!(apply("a|(b)", r"<\0\1>", "/ab"), "/<a><bb>");
        assert_eq!(apply("a", r"\\", "/a"), r"/\");
        assert_eq!(apply("zzz", "y", "/a"), "/a");
    }

    #[test]
    fn the_regex_takes_precedence() {
        let mut model = HttpRewrite { uri: "/u".to_owned(), ..HttpRewrite::default() };
        let apply = |model: &HttpRewrite| {
            PathRewrite::compile(model, &prefix("/a", false)).unwrap().map(|r| r.apply("/a/a").into_owned())
        };
        assert_eq!(apply(&model).as_deref(), Some("/u/a"));
        model.uri_regex_rewrite = Some(config_model::istio::virtual_service::RegexRewrite {
            pattern: "a".to_owned(),
            rewrite: "b".to_owned(),
        });
        assert_eq!(apply(&model).as_deref(), Some("/b/b"));
        assert_eq!(apply(&HttpRewrite::default()), None);
    }

    #[test]
    fn a_bad_substitution_says_why() {
        assert!(matches!(PathRewrite::regex("a", r"\1"), Err(RewriteError::NoSuchGroup(1))));
        assert!(matches!(PathRewrite::regex("a", r"\x"), Err(RewriteError::Escape)));
        assert!(matches!(PathRewrite::regex("a", r"b\"), Err(RewriteError::Escape)));
        assert!(matches!(PathRewrite::regex("(", "b"), Err(RewriteError::Pattern(_))));
    }

    #[test]
    fn the_query_is_put_back() {
        assert_eq!(path_and_query("/a", None), "/a");
        assert_eq!(path_and_query("/a", Some("")), "/a?");
        assert_eq!(path_and_query("/a", Some("b=c")), "/a?b=c");
    }
}

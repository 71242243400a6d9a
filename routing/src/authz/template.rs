//! Templates of paths: `{*}` is one segment, `{**}` any number of them.
//!
//! Invariant: the characters that an operator takes are those of a path (RFC 3986), so that an escaped slash stays in its segment
//! (Envoy: uri_template).

use crate::matcher::{Pattern, PatternError, quoted};
use std::fmt;

/// What a path may consist of, as a set in a regular expression.
const CHARACTERS: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@=*";

/// A compiled template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    text: Box<str>,
    pattern: Pattern,
}

impl Template {
    /// Whether a value is meant as a template.
    pub(crate) fn is(value: &str) -> bool {
        value.contains("{*}") || value.contains("{**}")
    }

    /// Compiles one.
    pub(crate) fn new(text: &str) -> Result<Self, PatternError> {
        let fails = |message: &str| PatternError { pattern: text.into(), message: message.to_owned() };
        let path = text.strip_prefix('/').ok_or_else(|| fails("a template begins with /"))?;
        let mut regex = String::new();
        for segment in path.split('/') {
            regex.push('/');
            match segment {
                "{*}" | "*" => regex.push_str(&format!("[{CHARACTERS}]+")),
                "{**}" | "**" => regex.push_str(&format!("[{CHARACTERS}/]*")),
                literal => regex.push_str(&quoted(literal)),
            }
        }
        Ok(Self { text: text.into(), pattern: Pattern::new(&regex)? })
    }

    /// Whether a path without query matches.
    pub(crate) fn is_match(&self, path: &str) -> bool {
        self.pattern.is_match(path.as_bytes())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_take_whole_segments() {
        let holds = |template: &str, path: &str| Template::new(template).unwrap().is_match(path);
        assert!(holds("/foo/{*}", "/foo/bar") && !holds("/foo/{*}", "/foo/bar/baz"));
        assert!(!holds("/foo/{*}", "/foo/") && !holds("/foo/{*}", "/foo") && !holds("/foo/{*}", "/foo/bar/"));
        assert!(holds("/foo/{**}", "/foo/") && holds("/foo/{**}", "/foo/a/b") && !holds("/foo/{**}", "/foo"));
        assert!(holds("/foo/{**}/", "/foo/bar/") && holds("/foo/{**}/", "/foo//"));
        assert!(!holds("/foo/{**}/", "/foo/bar"));
        assert!(holds("/foo/{*}/bar/{**}", "/foo/x/bar/") && holds("/foo/{*}/bar/{**}", "/foo/x/bar/y/z"));
        assert!(holds("/{**}/end", "/a/b/end") && !holds("/{**}/end", "/end"));
        assert!(holds("/a.b/{*}", "/a.b/c%2Fd") && !holds("/a.b/{*}", "/axb/c"));
        assert!(!holds("/{*}", "/a[b]"), "brackets are no characters of a path");
        assert!(Template::new("a/{*}").is_err());
    }
}

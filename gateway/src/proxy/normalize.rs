//! The path as it is matched and forwarded, under each of Istio's normalisations (RFC 3986 §6.2.2.2 and §6.2.2.3).
//!
//! Invariant: idempotent, so that what was matched is what the next hop sees. Under `BASE` reserved characters stay escaped
//! (`%2F` never becomes a slash) and several slashes in a row stay. The order of steps is Envoy's: escaped slashes, dot
//! segments, merging.

use std::borrow::Cow;

use crate::edge::{EscapedSlashes, PathPolicy};

/// A path that no rule may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// A `%` without two hexadecimal digits.
    #[error("bad percent escape")]
    Escape,
    /// An escaped NUL.
    #[error("NUL in path")]
    Nul,
    /// An escaped slash, where these are refused.
    #[error("escaped slash in path")]
    EscapedSlash,
    /// It does not begin with a slash.
    #[error("path does not begin with /")]
    Relative,
}

/// A path in its one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normal<'p> {
    /// Goes on.
    Path(Cow<'p, str>),
    /// The client is to ask for this one.
    Redirect(String),
}

/// Brings a path without query into the form that the policy asks for.
///
/// # Errors
/// [`BadPath`] where the path cannot be understood the same way by everyone who reads it.
pub fn normalize<'p>(path: &'p str, policy: &PathPolicy) -> Result<Normal<'p>, BadPath> {
    if !path.starts_with(['/', '\\']) {
        return Err(BadPath::Relative);
    }
    let mut redirect = false;
    let mut path = Cow::Borrowed(path);
    if policy.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = unescape_slashes(&path)
    {
        match policy.escaped_slashes {
            EscapedSlashes::Refuse => return Err(BadPath::EscapedSlash),
            EscapedSlashes::Redirect => redirect = true,
            EscapedSlashes::Keep | EscapedSlashes::Decode => {}
        }
        path = Cow::Owned(unescaped);
    }
    if policy.normalize {
        path = match path {
            Cow::Borrowed(path) => base(path)?,
            Cow::Owned(path) => Cow::Owned(base(&path)?.into_owned()),
        };
    }
    if policy.merge_slashes && path.contains("//") {
        path = Cow::Owned(merge_slashes(&path));
    }
    Ok(if redirect { Normal::Redirect(path.into_owned()) } else { Normal::Path(path) })
}

/// The path with `%2F` and `%5C` decoded; `None` when it has none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = path;
    let mut found = false;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let slash = match escape.get(1..3) {
            Some(hex) if hex.eq_ignore_ascii_case("2f") => '/',
            Some(hex) if hex.eq_ignore_ascii_case("5c") => '\\',
            _ => {
                out.push('%');
                rest = escape.get(1..).unwrap_or_default();
                continue;
            }
        };
        found = true;
        out.push(slash);
        rest = escape.get(3..).unwrap_or_default();
    }
    out.push_str(rest);
    found.then_some(out)
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

/// Normalises a path without query: unreserved escapes are decoded, `\` becomes `/`, dot segments are resolved.
///
/// # Errors
/// [`BadPath`] where the path cannot be understood the same way by everyone who reads it.
pub fn base(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if !path.starts_with(['/', '\\']) {
        return Err(BadPath::Relative);
    }
    // Dot segments have a dot; without one, and without escapes, there is nothing to do.
    let special = memchr::memchr3(b'%', b'\\', b'.', path.as_bytes());
    if special.is_none() || !path.contains(['%', '\\']) && !path.contains("/.") {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    Ok(Cow::Owned(remove_dot_segments(&decoded)))
}

fn decode_unreserved(path: &str) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        let (before, special) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = special.strip_prefix('\\') {
            out.push('/');
            rest = after;
            continue;
        }
        let escape = special.get(..3).ok_or(BadPath::Escape)?;
        let hex =
            escape.get(1..).filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit())).ok_or(BadPath::Escape)?;
        match u8::from_str_radix(hex, 16).map_err(|_| BadPath::Escape)? {
            0 => return Err(BadPath::Nul),
            b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') => {
                out.push(char::from(b))
            }
            _ => out.push_str(escape),
        }
        rest = special.get(3..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

/// RFC 3986 §5.2.4; climbing above the root stays at the root.
fn remove_dot_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.truncate(out.rfind('/').unwrap_or(0));
                }
                if last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_3986_and_istio_base() {
        for (path, wants) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/../../x", "/x"),
            ("/a\\..\\b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2fb"),
            ("/a//b", "/a//b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/%252e%252e/x", "/%252e%252e/x"),
        ] {
            let got = base(path).unwrap();
            assert_eq!(got, wants, "{path}");
            assert_eq!(base(&got).unwrap(), got, "normalising {path} twice");
        }
    }

    #[test]
    fn refuses_what_two_readers_would_read_differently() {
        assert_eq!(base("/%zz"), Err(BadPath::Escape));
        assert_eq!(base("/a%2"), Err(BadPath::Escape));
        assert_eq!(base("/%+1"), Err(BadPath::Escape));
        assert_eq!(base("/%00"), Err(BadPath::Nul));
        assert_eq!(base("*"), Err(BadPath::Relative));
    }

    #[test]
    fn each_policy_does_what_istio_says() {
        let policy = |normalize, merge_slashes, escaped_slashes| PathPolicy {
            normalize,
            merge_slashes,
            escaped_slashes,
        };
        let path = |path: &str| Ok(Normal::Path(Cow::Owned(path.to_owned())));
        for (policy, given, wants) in [
            (policy(false, false, EscapedSlashes::Keep), "/a/../%61//b", path("/a/../%61//b")),
            (policy(true, true, EscapedSlashes::Keep), "//a//%2F/../b", path("/a/b")),
            (policy(true, true, EscapedSlashes::Decode), "/a%2F%2f..%5Cb", path("/a/b")),
            (policy(true, true, EscapedSlashes::Decode), "/a%252Fb", path("/a%252Fb")),
            (policy(true, false, EscapedSlashes::Refuse), "/a%2Fb", Err(BadPath::EscapedSlash)),
            (policy(true, true, EscapedSlashes::Redirect), "/a%2F..", Ok(Normal::Redirect("/".into()))),
            (policy(true, true, EscapedSlashes::Redirect), "/a//b", path("/a/b")),
            (policy(false, false, EscapedSlashes::Keep), "*", Err(BadPath::Relative)),
        ] {
            assert_eq!(normalize(given, &policy), wants, "{given}");
        }
    }

    #[test]
    fn nothing_to_do_allocates_nothing() {
        assert!(matches!(base("/api/v1/reviews/1"), Ok(Cow::Borrowed(_))));
    }
}

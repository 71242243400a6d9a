//! How one text is compared: exact, prefix, regex, or present.
//!
//! Invariant: comparison is on bytes, so that a header value that is not UTF-8 is compared and not skipped. Patterns
//! match the whole text, never a part of it, in time linear in its length.

use config_model::scalar::StringMatch;
use regex_automata::{
    Anchored, Input,
    meta::{BuildError, Regex},
    util::syntax,
};
use smallvec::SmallVec;
use std::fmt;

/// Largest compiled program of one pattern, in bytes.
const PROGRAM_LIMIT: usize = 1 << 20;
/// Largest state cache of one pattern in one thread, in bytes.
const CACHE_LIMIT: usize = 1 << 19;

/// A regular expression in RE2's syntax that must match the whole text.
///
/// Thread-safe; matching takes its scratch space from a pool and allocates only while that pool warms up. Classes
/// such as `\d`, `\w` and `.` speak of ASCII and of single bytes, unless the pattern itself needs Unicode.
#[derive(Clone)]
pub struct Pattern(Box<Compiled>);

#[derive(Clone)]
struct Compiled {
    text: Box<str>,
    anchored: Box<str>,
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern. Fails on bad syntax, on look-around and back-references, and on one too large to be
    /// meant.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let body = from_re2(text);
        let fails = |message: String| PatternError { pattern: text.into(), message };
        // Alone first: the group that anchors would hide a closing parenthesis too many.
        if let Err(e) = syntax::parse_with(&body, &syntax_of()) {
            return Err(fails(last_line(&e.to_string())));
        }
        let bytes = format!(r"\A(?-u:{body})\z");
        let unicode = format!(r"\A(?u:{body})\z");
        let (anchored, built) = if text.is_ascii() {
            match compile(&bytes) {
                Ok(regex) => (bytes, Ok(regex)),
                Err(_) => {
                    let built = compile(&unicode);
                    (unicode, built)
                }
            }
        } else {
            let built = compile(&unicode);
            (unicode, built)
        };
        match built {
            Ok(regex) => Ok(Self(Box::new(Compiled { text: text.into(), anchored: anchored.into(), regex }))),
            Err(e) => Err(fails(describe(&e))),
        }
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.0.regex.is_match(Input::new(text).anchored(Anchored::Yes))
    }

    /// The pattern as given to the engine, for compiling many into one set.
    pub(crate) fn anchored(&self) -> &str {
        &self.0.anchored
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.0.text)
    }
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// The pattern as written.
    pub pattern: Box<str>,
    /// What is wrong with it, in one line.
    pub message: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regex `{}`: {}", self.pattern, self.message)
    }
}

impl std::error::Error for PatternError {}

/// One way to compare a text.
#[derive(Clone, Debug)]
pub enum StringMatcher {
    /// There, whatever its value.
    Present,
    /// Equal, case-sensitive.
    Exact(Box<str>),
    /// Begins with, byte by byte.
    Prefix(Box<str>),
    /// The whole text matches.
    Regex(Pattern),
}

impl StringMatcher {
    /// Compiles a matcher for method, scheme or authority.
    pub fn compile(model: &StringMatch) -> Result<Self, PatternError> {
        Ok(match model {
            StringMatch::Present => Self::Present,
            StringMatch::Exact(text) => Self::Exact(text.as_str().into()),
            StringMatch::Prefix(text) => Self::Prefix(text.as_str().into()),
            StringMatch::Regex(text) => Self::Regex(Pattern::new(text)?),
        })
    }

    /// Compiles a matcher for a header or query parameter: there `null`, `{}` and the regex `*` mean present
    /// (Istio: route.go `translateHeaderMatch`, `translateQueryParamMatch`).
    pub fn compile_value(model: Option<&StringMatch>) -> Result<Self, PatternError> {
        match model {
            None => Ok(Self::Present),
            Some(StringMatch::Regex(text)) if text == "*" => Ok(Self::Present),
            Some(model) => Self::compile(model),
        }
    }

    /// Whether a text that is there matches.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.is_match_parts(std::iter::once(text))
    }

    /// Whether the concatenation of `parts` matches.
    ///
    /// Only a regex over several parts needs them in one piece; that piece is on the stack up to 1 KiB.
    pub(crate) fn is_match_parts<'a>(&self, mut parts: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(want) => {
                let mut rest = want.as_bytes();
                for part in parts {
                    match rest.strip_prefix(part) {
                        Some(after) => rest = after,
                        None => return false,
                    }
                }
                rest.is_empty()
            }
            Self::Prefix(want) => {
                let mut rest = want.as_bytes();
                for part in parts {
                    if part.starts_with(rest) {
                        return true;
                    }
                    match rest.strip_prefix(part) {
                        Some(after) => rest = after,
                        None => return false,
                    }
                }
                rest.is_empty()
            }
            Self::Regex(pattern) => {
                let Some(first) = parts.next() else { return pattern.is_match(b"") };
                let Some(second) = parts.next() else { return pattern.is_match(first) };
                let mut whole: SmallVec<[u8; 1024]> = SmallVec::from_slice(first);
                whole.extend_from_slice(second);
                for part in parts {
                    whole.extend_from_slice(part);
                }
                pattern.is_match(&whole)
            }
        }
    }
}

impl fmt::Display for StringMatcher {
    /// As in `wants exact "2"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Exact(text) => write!(f, "exact {text:?}"),
            Self::Prefix(text) => write!(f, "prefix {text:?}"),
            Self::Regex(pattern) => write!(f, "regex {:?}", pattern.as_str()),
        }
    }
}

/// The syntax every regex of the table is read with.
pub(crate) fn syntax_of() -> syntax::Config {
    // `utf8(false)`: the text may hold any byte, and an empty match may split a character.
    syntax::Config::new().utf8(false)
}

/// Writes an RE2 pattern in the engine's dialect.
///
/// Three things differ. RE2 knows `\Q…\E`; it takes a brace that is no repetition for itself, so that
/// `/users/{id}` is legal; and its classes have no set operators, so that `[a&&b]` and `[[]` are plain lists.
pub(crate) fn from_re2(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    let mut class_at: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        if let Some(quoted) = rest.strip_prefix(r"\Q") {
            let (literal, tail) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            for c in literal.chars() {
                push_literal(&mut out, c);
            }
            rest = tail;
            continue;
        }
        if c == '\\' {
            out.push(c);
            let Some(escaped) = after.chars().next() else { break };
            out.push(escaped);
            rest = after.get(escaped.len_utf8()..).unwrap_or_default();
            continue;
        }
        match class_at {
            None if c == '[' => {
                out.push(c);
                rest = after;
                if let Some(tail) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = tail;
                }
                // A bracket right after the opening one is a member.
                if let Some(tail) = rest.strip_prefix(']') {
                    out.push_str(r"\]");
                    rest = tail;
                }
                class_at = Some(out.len());
                continue;
            }
            None if c == '{' && !is_repetition(rest) => out.push_str(r"\{"),
            None => out.push(c),
            Some(_) if c == ']' => {
                class_at = None;
                out.push(c);
            }
            Some(_) if c == '[' => {
                if let Some(end) = rest.starts_with("[:").then(|| rest.find(":]")).flatten() {
                    let (name, tail) = rest.split_at(end + 2);
                    out.push_str(name);
                    rest = tail;
                    continue;
                }
                out.push_str(r"\[");
            }
            Some(_) if matches!(c, '&' | '~') => {
                out.push('\\');
                out.push(c);
            }
            Some(_) => out.push(c),
        }
        rest = after;
    }
    out
}

/// A text as a pattern that matches it alone.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

/// Whether a text that begins with `{` begins with `{n}`, `{n,}` or `{n,m}`.
fn is_repetition(text: &str) -> bool {
    let Some((inside, _)) = text.strip_prefix('{').and_then(|t| t.split_once('}')) else { return false };
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match inside.split_once(',') {
        None => digits(inside),
        Some((low, high)) => digits(low) && (high.is_empty() || digits(high)),
    }
}

fn compile(anchored: &str) -> Result<Regex, Box<BuildError>> {
    let config = Regex::config()
        .utf8_empty(false)
        .nfa_size_limit(Some(PROGRAM_LIMIT))
        .hybrid_cache_capacity(CACHE_LIMIT)
        .which_captures(regex_automata::nfa::thompson::WhichCaptures::None);
    Regex::builder().configure(config).syntax(syntax_of()).build(anchored).map_err(Box::new)
}

pub(crate) fn describe(error: &BuildError) -> String {
    if error.size_limit().is_some() {
        return "too large when compiled".to_owned();
    }
    match error.syntax_error() {
        Some(e) => last_line(&e.to_string()),
        None => last_line(&error.to_string()),
    }
}

/// The parser draws a picture over several lines; its last line says what is wrong.
fn last_line(text: &str) -> String {
    let line = text.lines().next_back().unwrap_or(text);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn a_pattern_matches_the_whole_text() {
        assert!(full("/v[0-9]+", "/v12"));
        assert!(!full("/v[0-9]+", "/v12/x"));
        assert!(!full("/v[0-9]+", "x/v12"));
        assert!(full("a|ab", "ab"), "the alternatives are inside the anchors");
        assert!(full(".*", ""));
        assert!(!full(".+", ""));
        assert!(!full("a.b", "a\nb"));
    }

    #[test]
    fn re2_dialect() {
        assert!(full("/users/{id}", "/users/{id}"));
        assert!(full("a{2}", "aa"));
        assert!(full(r"\Qa.b\E.", "a.bc"));
        assert!(!full(r"\Qa.b\E", "axb"));
        assert!(full("[a&&b]+", "a&b"));
        assert!(full("[[]", "["));
        assert!(full("[[:alpha:]]+", "abc"));
        assert!(full("[]]", "]"));
        assert!(full("(?i)ABC", "abc"));
        assert!(full(r"\pL+", "é"), "a pattern that needs Unicode gets it");
        assert!(!full(r"\d", "٣"), "digits are ASCII");
    }

    #[test]
    fn what_cannot_be_compiled_says_why() {
        for bad in ["(", ")", "a)(b", "(?=x)", r"\1", "*", "a{1000}{1000}", "[z-a]"] {
            let e = Pattern::new(bad).unwrap_err();
            assert_eq!(&*e.pattern, bad);
            assert!(!e.message.is_empty() && !e.message.contains('\n'), "{e}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_compared() {
        assert!(Pattern::new(".*").unwrap().is_match(b"\xff\xfe"));
        assert!(StringMatcher::Prefix("a".into()).is_match(b"a\xff"));
    }

    #[test]
    fn parts_compare_as_their_concatenation() {
        let parts = || [&b"a"[..], b",", b"b"].into_iter();
        assert!(StringMatcher::Exact("a,b".into()).is_match_parts(parts()));
        assert!(!StringMatcher::Exact("a,".into()).is_match_parts(parts()));
        assert!(!StringMatcher::Exact("a,bc".into()).is_match_parts(parts()));
        assert!(StringMatcher::Prefix("a,".into()).is_match_parts(parts()));
        assert!(StringMatcher::Prefix("".into()).is_match_parts(parts()));
        assert!(!StringMatcher::Prefix("a,c".into()).is_match_parts(parts()));
        assert!(!StringMatcher::Prefix("a,bc".into()).is_match_parts(parts()));
        assert!(StringMatcher::Regex(Pattern::new("a.b").unwrap()).is_match_parts(parts()));
    }

    #[test]
    fn a_star_regex_means_present_for_values_only() {
        let star = StringMatch::Regex("*".to_owned());
        assert!(matches!(StringMatcher::compile_value(Some(&star)), Ok(StringMatcher::Present)));
        assert!(matches!(StringMatcher::compile_value(None), Ok(StringMatcher::Present)));
        assert!(StringMatcher::compile(&star).is_err());
    }
}

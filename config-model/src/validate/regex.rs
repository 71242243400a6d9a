//! Regexes: RE2 syntax, within a length, and within what the engine that runs them has.
//!
//! Invariant: what passes here compiles in the engine; a construct that the engine lacks is named, never approximated.

use regex_syntax::ParserBuilder;

/// Longest regex that admission accepts, in bytes.
const MAX_LEN: usize = 1024;

/// What is wrong with a regex, in one sentence that names the construct, or `None`.
pub fn check_regex(pattern: &str) -> Option<String> {
    if pattern.len() > MAX_LEN {
        return Some(format!("the regex has {} bytes; the limit is {MAX_LEN}", pattern.len()));
    }
    if let Some(construct) = beyond_re2(pattern) {
        return Some(format!("{construct} is not part of RE2 syntax"));
    }
    if let Some(construct) = beyond_engine(pattern) {
        return Some(format!("{construct} is RE2 syntax that this gateway's regex engine lacks"));
    }
    let mut parser = ParserBuilder::new().utf8(false).nest_limit(100).build();
    match parser.parse(pattern) {
        Ok(_) => None,
        Err(error) => {
            let kind = match &error {
                regex_syntax::Error::Parse(error) => error.kind().to_string(),
                regex_syntax::Error::Translate(error) => error.kind().to_string(),
                _ => "invalid syntax".to_owned(),
            };
            Some(format!("{pattern:?} is not a valid regex: {kind}"))
        }
    }
}

/// Constructs of other engines that RE2 refuses, some of which our engine would accept or misread.
fn beyond_re2(pattern: &str) -> Option<&'static str> {
    for (text, escaped_class) in groups(pattern) {
        let found = match text {
            "(?=" | "(?!" => "look-ahead",
            "(?<=" | "(?<!" => "look-behind",
            "(?>" => "an atomic group",
            "(?#" => "a comment group",
            _ if text.get(2..).is_some_and(|flags| flags.contains(['x', 'u', 'R'])) => {
                "a flag other than i, m, s, U"
            }
            _ => match escaped_class {
                Some('1'..='9') => "a back-reference",
                Some('k') => "a named back-reference",
                Some('Z' | 'G' | 'R' | 'X' | 'h' | 'H' | 'K' | 'u' | 'U' | 'e' | '<' | '>') => {
                    "an escape of another regex dialect"
                }
                _ => continue,
            },
        };
        return Some(found);
    }
    // Set operations of our engine would give another meaning to what RE2 reads as plain characters.
    let mut in_class = false;
    let mut bytes = pattern.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'[' if !in_class => in_class = true,
            b']' => in_class = false,
            b'&' | b'~' | b'-' if in_class && bytes.peek() == Some(&byte) => {
                return Some(
                    "a doubled operator inside a class (&&, ~~, --), which this gateway would read differently,",
                );
            }
            _ => {}
        }
    }
    None
}

/// RE2 constructs that our engine does not have.
fn beyond_engine(pattern: &str) -> Option<&'static str> {
    groups(pattern).find_map(|(_, escape)| match escape {
        Some('C') => Some("\\C (any byte)"),
        Some('Q' | 'E') => Some("\\Q…\\E (literal text)"),
        _ => None,
    })
}

/// Openings of special groups, and escapes, outside of classes' contents.
fn groups(pattern: &str) -> impl Iterator<Item = (&str, Option<char>)> {
    let mut in_class = false;
    let mut skip = false;
    pattern.char_indices().filter_map(move |(index, c)| {
        if std::mem::take(&mut skip) {
            return Some(("", Some(c)));
        }
        match c {
            '\\' => skip = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => {
                let rest = pattern.get(index..)?;
                let special = ["(?<=", "(?<!", "(?=", "(?!", "(?>", "(?#"];
                let special = special.iter().find_map(|s| rest.get(..s.len()).filter(|r| r == s));
                return special.or_else(|| flags(rest)).map(|text| (text, None));
            }
            _ => {}
        }
        None
    })
}

/// `(?i` of `(?i:…)`: the opening of a group up to the last of its flags.
fn flags(rest: &str) -> Option<&str> {
    let letters =
        rest.strip_prefix("(?")?.bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'-').count();
    rest.get(..2 + letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_regexes_pass() {
        for good in [
            "",
            ".*",
            "^/a/[^/]+$",
            r"\d{3}-\w+",
            "(?i)abc",
            "(?P<x>a)",
            "[a-z-]",
            r"\pL",
            "[[:alpha:]]",
            r"\Aab\z",
        ] {
            assert_eq!(check_regex(good), None, "{good}");
        }
    }

    #[test]
    fn constructs_are_named() {
        for (bad, says) in [
            ("(?=a)", "look-ahead"),
            ("(?<!a)", "look-behind"),
            (r"(a)\1", "back-reference"),
            ("(?>a)", "atomic"),
            ("(?ix)a b", "flag"),
            ("(?-u:a)", "flag"),
            (r"\C", "lacks"),
            ("[a&&b]", "doubled"),
            ("(", "unclosed group"),
            ("*", "repetition"),
            ("a{1001}{1001}{1001}(", "unclosed"),
        ] {
            let message = check_regex(bad).unwrap_or_default();
            assert!(message.contains(says), "{bad}: {message}");
        }
        assert!(check_regex(&"a".repeat(1025)).unwrap().contains("1025"));
    }
}

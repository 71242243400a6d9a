//! Text to tokens.

use super::Refused;

/// A token, and the byte where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: TokenKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    Name(String),
    Number(i64),
    Text(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Longer ones first: `<=` is not `<` and `=`.
const SIGNS: [&str; 20] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "?", ":", "+", "-", "%",
];
/// Longest expression that is read, in bytes.
const LONGEST: usize = 16 * 1024;

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Refused> {
    if text.len() > LONGEST {
        return Err(Refused { at: LONGEST, why: format!("longer than {LONGEST} bytes") });
    }
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let at = text.len() - rest.len();
        let (kind, length) = token(rest, first).map_err(|why| Refused { at, why })?;
        tokens.push(Token { at, kind });
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    tokens.push(Token { at: text.len(), kind: TokenKind::End });
    Ok(tokens)
}

/// The first token, and its length in bytes.
fn token(rest: &str, first: char) -> Result<(TokenKind, usize), String> {
    if first.is_ascii_digit() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        // `400u` is unsigned in CEL, and as good here.
        let suffix = usize::from(after.starts_with(['u', 'U']));
        let follows = after.get(suffix..).unwrap_or_default();
        if follows.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_') {
            return Err("only whole decimal numbers are evaluated".to_owned());
        }
        let number = number.parse().map_err(|_| format!("{number} is too large"))?;
        return Ok((TokenKind::Number(number), digits + suffix));
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let (name, after) = rest.split_at(length);
        if matches!(name, "r" | "R" | "b" | "B") && after.starts_with(['"', '\'']) {
            return match name {
                "r" | "R" => quoted(after, Escapes::AsWritten).map(|(text, used)| (text, used + 1)),
                _ => Err("bytes are not evaluated".to_owned()),
            };
        }
        return Ok((TokenKind::Name(name.to_owned()), length));
    }
    if first == '"' || first == '\'' {
        return quoted(rest, Escapes::Read);
    }
    match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        Some(sign) => Ok((TokenKind::Sign(sign), sign.len())),
        None => Err(format!("{first:?} begins nothing")),
    }
}

#[derive(PartialEq, Eq)]
enum Escapes {
    Read,
    AsWritten,
}

fn quoted(rest: &str, escapes: Escapes) -> Result<(TokenKind, usize), String> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    let mut text = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            c if Some(c) == quote => return Ok((TokenKind::Text(text), at + 1)),
            '\\' if escapes == Escapes::Read => match chars.next() {
                Some((_, c @ ('\\' | '"' | '\'' | '?' | '`'))) => text.push(c),
                Some((_, 'n')) => text.push('\n'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, 't')) => text.push('\t'),
                _ => return Err("this escape is not evaluated".to_owned()),
            },
            '\n' | '\r' => break,
            c => text.push(c),
        }
    }
    Err("the text is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_are_read_as_cel_writes_them() {
        let kinds = |text: &str| tokens(text).unwrap().into_iter().map(|t| t.kind).collect::<Vec<_>>();
        assert_eq!(
            kinds(r#"a_1 <= 400u"#),
            [TokenKind::Name("a_1".into()), TokenKind::Sign("<="), TokenKind::Number(400), TokenKind::End]
        );
        assert_eq!(
            kinds(r#"'a\'b' r"\d""#)[..2],
            [TokenKind::Text("a'b".into()), TokenKind::Text("\\d".into())]
        );
        for bad in ["'a", "1.5", "0x10", "99999999999999999999", "a ; b", "b'x'", "'\\x41'", "é"] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
    }
}

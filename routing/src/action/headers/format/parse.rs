//! A value as it is written, read once into text and operators.
//!
//! Invariant: what is not a command, or one that this gateway does not know, refuses the value as a whole.

use super::{
    super::ProblemKind,
    Piece,
    operators::{Meaning, meaning},
};

/// Splits a value into text and operators (Envoy: substitution_format_utility.h `CommandParser`).
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, ProblemKind> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(tail) = after.strip_prefix('%') {
            plain.push('%');
            rest = tail;
            continue;
        }
        let (command, tail) = command(after).ok_or(ProblemKind::Formatter)?;
        rest = tail;
        match meaning(command.name, command.argument, command.limit.is_some())
            .ok_or(ProblemKind::Formatter)?
        {
            Meaning::Operator(operator) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
                }
                pieces.push(Piece::Operator { operator, limit: command.limit });
            }
            Meaning::Always(text) => plain.push_str(text),
            Meaning::Nothing => {}
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.into()));
    }
    Ok(pieces)
}

/// One command as it is written: `NAME`, `NAME(ARGUMENT)`, and either with `:LIMIT`.
struct Command<'t> {
    name: &'t str,
    argument: Option<&'t str>,
    limit: Option<usize>,
}

/// Reads a command that ends with a percent sign, and gives what follows it.
fn command(text: &str) -> Option<(Command<'_>, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let (name, rest) = text.split_at(end);
    let Some(inside) = rest.strip_prefix('(') else {
        let (limit, tail) = ending(rest)?;
        return Some((Command { name, argument: None, limit }, tail));
    };
    // The argument may itself hold brackets and percent signs: it ends where a command can.
    inside.match_indices(')').find_map(|(at, _)| {
        let (argument, after) = inside.split_at(at);
        let (limit, tail) = ending(after.get(1..)?)?;
        Some((Command { name, argument: Some(argument), limit }, tail))
    })
}

fn ending(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(tail) = text.strip_prefix('%') {
        return Some((None, tail));
    }
    let (limit, tail) = text.strip_prefix(':')?.split_once('%')?;
    let digits = !limit.is_empty() && limit.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| limit.parse().ok()).flatten().map(|limit| (Some(limit), tail))
}

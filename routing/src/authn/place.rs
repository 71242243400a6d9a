//! Where tokens are looked for, and how they are taken out.
//!
//! Invariant: every token that stands in one of a rule's places is found, so that none gets by unverified: each line of a header,
//! the first value of a parameter and of a cookie.

use crate::{header::lines::is_single_in_requests, request::RequestHead};
use http::{HeaderName, header};
use smallvec::SmallVec;
use std::borrow::Cow;

/// The places of one rule, in the order in which they are searched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    headers: Box<[(HeaderName, Box<str>)]>,
    parameters: Box<[Box<str>]>,
    cookies: Box<[Box<str>]>,
}

/// A token as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its text; empty where it was none.
    pub text: Cow<'a, str>,
    /// Where it stands.
    pub place: Place<'a>,
}

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In a header.
    Header(&'a HeaderName),
    /// In a query parameter.
    Parameter(&'a str),
    /// In a cookie, where it stays.
    Cookie,
}

impl Places {
    /// The places that a rule names; where it names none, `Authorization: Bearer` and the parameter `access_token`.
    pub(crate) fn new(
        mut headers: Vec<(HeaderName, Box<str>)>,
        mut parameters: Vec<Box<str>>,
        mut cookies: Vec<Box<str>>,
    ) -> Self {
        if headers.is_empty() && parameters.is_empty() && cookies.is_empty() {
            headers.push((header::AUTHORIZATION, "Bearer ".into()));
            parameters.push("access_token".into());
        }
        // Envoy keeps them in maps; a place that is named twice is searched once.
        headers.sort_by(|a, b| (a.0.as_str(), &a.1).cmp(&(b.0.as_str(), &b.1)));
        headers.dedup();
        parameters.sort();
        parameters.dedup();
        cookies.sort();
        cookies.dedup();
        Self { headers: headers.into(), parameters: parameters.into(), cookies: cookies.into() }
    }

    /// All tokens of a request.
    pub(crate) fn tokens<'a>(&'a self, head: &RequestHead<'a>) -> SmallVec<[Token<'a>; 2]> {
        let mut found = SmallVec::new();
        for (name, prefix) in &self.headers {
            let place = Place::Header(name);
            in_header(head, name, |line| {
                if let Some(text) = behind(line, prefix) {
                    found.push(Token { text, place });
                }
            });
        }
        for name in &self.parameters {
            let mut pairs = head.query.into_iter().flat_map(pairs);
            if let Some((_, value)) = pairs.find(|(key, _)| decoded(key) == **name) {
                found.push(Token { text: decoded(value), place: Place::Parameter(name) });
            }
        }
        for name in &self.cookies {
            let lines = head.headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
            let mut cookies =
                lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
            if let Some((_, value)) = cookies.find(|(key, _)| **key == **name) {
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                found.push(Token { text: quoted.unwrap_or(value).into(), place: Place::Cookie });
            }
        }
        found
    }
}

/// Each line of a header; one that Envoy keeps in one line is one, however often it was sent.
fn in_header<'a>(head: &RequestHead<'a>, name: &HeaderName, mut line: impl FnMut(Cow<'a, str>)) {
    let text = |value: &'a http::HeaderValue| value.to_str().map_or(Cow::Borrowed(""), Cow::Borrowed);
    let mut values = head.headers.get_all(name).iter();
    if is_single_in_requests(name) {
        let Some(first) = values.next() else { return };
        line(values.fold(text(first), |whole, value| Cow::Owned(format!("{whole},{}", text(value)))));
    } else {
        values.for_each(|value| line(text(value)));
    }
}

/// What stands behind the prefix, wherever that stands, from the first character on that a token may have (Envoy: `extractJWT`).
fn behind<'a>(line: Cow<'a, str>, prefix: &str) -> Option<Cow<'a, str>> {
    if prefix.is_empty() {
        return Some(line);
    }
    let begin = line.find(prefix)? + prefix.len();
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let Some(skipped) = line.get(begin..).and_then(|rest| rest.find(of_token)) else { return Some(line) };
    Some(match line {
        Cow::Borrowed(line) => Cow::Borrowed(line.get(begin + skipped..).unwrap_or_default()),
        Cow::Owned(line) => Cow::Owned(line.get(begin + skipped..).unwrap_or_default().to_owned()),
    })
}

/// The pairs of a query; a name alone has an empty value.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// With its escapes read; what is no text then is an empty one.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8(out).unwrap_or_default())
}

/// A query without the parameters of a name; `None`: nothing is left of it. The others stay as they were sent, which Envoy writes anew
/// without their escapes.
#[must_use]
pub fn without_parameter(query: &str, name: &str) -> Option<String> {
    let kept = |pair: &&str| decoded(pair.split_once('=').map_or(*pair, |(key, _)| key)) != name;
    let kept: Vec<_> = query.split('&').filter(kept).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

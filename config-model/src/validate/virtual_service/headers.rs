//! Header operations: which headers may be touched, and the form of values (Istio: ValidateHTTPHeaderValue).

use super::{At, Check};
use crate::{
    istio::{
        VirtualService,
        virtual_service::{HeaderOperations, Headers, HttpRoute},
    },
    scalar::HeaderName,
};

pub(super) fn check(check: &mut Check<'_, VirtualService>, path: At<'_>, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    if let Some(request) = &headers.request {
        operations(check, format_args!("{path}.request"), request, true);
    }
    if let Some(response) = &headers.response {
        operations(check, format_args!("{path}.response"), response, false);
    }
}

/// The authority may be set in one place only (Istio: validateAuthorityRewrite).
pub(super) fn authority_once(check: &mut Check<'_, VirtualService>, path: At<'_>, route: &HttpRoute) {
    let rewrite = route.rewrite.as_ref().map(|rewrite| rewrite.authority.as_str());
    let request = route.headers.as_ref().and_then(|headers| headers.request.as_ref());
    let by_headers = request.into_iter().flat_map(|request| request.set.iter().chain(&request.add));
    let by_headers = by_headers.filter(|(name, _)| is_authority(name)).map(|(_, value)| value.as_str());
    let mut values = rewrite.into_iter().chain(by_headers).filter(|value| !value.is_empty());
    if let (Some(first), Some(second)) = (values.next(), values.next()) {
        check.error(
            format!("{path}.headers.request"),
            format!(
                "authority header cannot be set multiple times: have {first:?}, attempting to set {second:?}"
            ),
        );
    }
}

/// The request's authority may be set or added; nothing else that begins with a colon, nor `host`, may be touched.
fn operations(
    check: &mut Check<'_, VirtualService>,
    path: At<'_>,
    operations: &HeaderOperations,
    is_request: bool,
) {
    for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in map {
            let path = format_args!("{path}.{field}.{name}");
            if is_internal(name) && !(is_request && is_authority(name)) {
                check.error(path, refusal(name));
            }
            if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
                check.error(path, format!("header value configuration {value:?} is invalid"));
            } else if let Err(reason) = check_format(value) {
                check.refuse(
                    path,
                    format!("header value configuration: invalid header configuration. {reason}"),
                    "a percent sign begins a %COMMAND%; write %% for the sign itself",
                );
            }
        }
    }
    for (index, name) in operations.remove.iter().enumerate() {
        if is_internal(name) {
            check.error(format!("{path}.remove[{index}]"), refusal(name));
        }
    }
}

fn refusal(name: &HeaderName) -> String {
    match name.as_str() {
        "host" => "invalid header \"host\": cannot set Host header".to_owned(),
        name => format!("invalid header {name:?}: header cannot have \":\" prefix"),
    }
}

fn is_internal(name: &HeaderName) -> bool {
    name.is_pseudo() || name.as_str() == "host"
}

fn is_authority(name: &HeaderName) -> bool {
    matches!(name.as_str(), ":authority" | "host")
}

/// Where in a value the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Plain text.
    Literal,
    /// The name of `%NAME%` or `%NAME(`.
    Name,
    /// Before the arguments.
    Arguments,
    /// Before a quoted member of a list.
    Member,
    /// An argument or a quoted member.
    Text,
    /// Behind a quoted member.
    Separator,
    /// Behind a list.
    Close,
    /// Behind the arguments.
    End,
}

/// Reads a value with its `%COMMAND%`s; what stands in them is left to the run time.
fn check_format(value: &str) -> Result<(), &'static str> {
    let mut state = State::Literal;
    let mut bytes = value.bytes().peekable();
    while let Some(byte) = bytes.next() {
        state = match (state, byte) {
            (State::Literal, b'%') => match bytes.peek() {
                None => return Err("Un-escaped %"),
                Some(b'%') => {
                    bytes.next();
                    State::Literal
                }
                Some(_) => State::Name,
            },
            (State::Name | State::End, b'%') => State::Literal,
            (State::Name, b'(') => State::Arguments,
            (State::Arguments, b'[') => State::Member,
            (State::Arguments, b' ') => State::Arguments,
            (State::Arguments, _) | (State::Member, b'"') => State::Text,
            (State::Text, b'\\') => {
                bytes.next().ok_or("Un-terminated backslash in JSON string")?;
                State::Text
            }
            (State::Text | State::Close, b')') => State::End,
            (State::Text, b'"') => State::Separator,
            (State::Separator, b',') => State::Member,
            (State::Separator, b']') => State::Close,
            (State::Literal | State::Name | State::Text, _) => state,
            (_, b' ') => state,
            (State::Separator, _) => return Err("Expecting ',', ']', or whitespace"),
            (State::Member, _) => return Err("Expecting '\"'"),
            (State::Close, _) => return Err("Expecting ')' or whitespace"),
            (State::End, _) => return Err("Expecting '%' or whitespace after the arguments"),
        };
    }
    if state == State::Literal { Ok(()) } else { Err("Un-terminated variable expression") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::virtual_service::http::tests::rule;

    #[test]
    fn values() {
        for good in [
            "",
            "a",
            "100%%",
            "%HOSTNAME%",
            "a %START_TIME(%s)% b",
            r#"%DYNAMIC_METADATA(["a", "b\"c"])%"#,
            "%REQ(X?Y)%",
            "%A%%B%",
        ] {
            assert_eq!(check_format(good), Ok(()), "{good}");
        }
        for bad in ["%", "50%", "abc%123", "%START_TIME%%", r#"%A(["a" "b"])%"#, "%A(b", "%A(b)c%", r"%A(b\"]
        {
            assert!(check_format(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn operations() {
        for (rest, finds) in [
            ("headers: {request: {set: {a: '50%'}}}", vec!["!IST0106 headers.request.set.a"]),
            ("headers: {request: {set: {a: \"b\\nc\"}}}", vec!["!IST0106 headers.request.set.a"]),
            ("headers: {request: {set: {host: a.com}}}", vec![]),
            ("headers: {request: {add: {':authority': a.com}}}", vec![]),
            ("headers: {request: {set: {':path': /x}}}", vec!["!IST0106 headers.request.set.:path"]),
            ("headers: {request: {remove: [host]}}", vec!["!IST0106 headers.request.remove[0]"]),
            ("headers: {response: {set: {host: x}}}", vec!["!IST0106 headers.response.set.host"]),
            ("headers: {response: {set: {':status': x}}}", vec!["!IST0106 headers.response.set.:status"]),
            (
                "rewrite: {authority: a}, headers: {request: {set: {host: b}}}",
                vec!["!IST0106 headers.request"],
            ),
            (
                "headers: {request: {set: {host: a}, add: {':authority': b}}}",
                vec!["!IST0106 headers.request"],
            ),
            ("rewrite: {authority: a}, headers: {request: {set: {x-host: b}}}", vec![]),
        ] {
            assert_eq!(rule(rest), finds, "{rest}");
        }
    }
}

//! The forms of single values (Istio: pkg/config/security).

use std::net::IpAddr;

use super::Policy;

/// What a value must be; an error says why it is not.
pub(super) type Form = fn(&str) -> Result<(), String>;

/// Checks every value of a list: none is empty, and each keeps to the rule.
pub(super) fn each(check: &mut Policy<'_>, path: &str, list: &[String], rule: Form) {
    for (index, value) in list.iter().enumerate() {
        let found = if value.is_empty() { Err("empty value not allowed".to_owned()) } else { rule(value) };
        if let Err(message) = found {
            check.error(format!("{path}[{index}]"), message);
        }
    }
}

/// Any text.
pub(super) fn any(_: &str) -> Result<(), String> {
    Ok(())
}

/// A port, in digits.
pub(super) fn port(text: &str) -> Result<(), String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(_) if digits => Ok(()),
        _ => Err(format!("bad port ({text})")),
    }
}

/// An address, or a network whose prefix has the family's length at most.
pub(super) fn network(text: &str) -> Result<(), String> {
    match text.split_once('/') {
        Some(_) if text.parse::<ipnet::IpNet>().is_err() => Err(format!("bad CIDR range ({text})")),
        None if text.parse::<IpAddr>().is_err() => Err(format!("bad IP address ({text})")),
        _ => Ok(()),
    }
}

/// `NAME` or `NAMESPACE/NAME`, without stars.
pub(super) fn service_account(text: &str) -> Result<(), String> {
    let form = || format!("expected format 'serviceAccount' or 'namespace/serviceAccount', found {text:?}");
    if text.contains('*') {
        return Err("wildcard not allowed".to_owned());
    }
    if text.len() > 320 {
        return Err("value cannot exceed 320 characters".to_owned());
    }
    match text.split_once('/') {
        Some((namespace, name)) if namespace.is_empty() || name.is_empty() || name.contains('/') => {
            Err(form())
        }
        _ => Ok(()),
    }
}

/// At most one star, in front or at the end.
pub(super) fn wildcard(text: &str) -> Result<(), String> {
    match text.matches('*').count() {
        0 => Ok(()),
        1 if text.starts_with('*') || text.ends_with('*') => Ok(()),
        1 => Err(format!("wildcard is only allowed at the start or end, found {text:?}")),
        _ => Err(format!("at most one wildcard is allowed, found {text:?}")),
    }
}

/// A trust domain, with a star or without.
pub(super) fn trust_domain(text: &str) -> Result<(), String> {
    wildcard(text)?;
    if text.contains('/') {
        Err(format!("trust domain must not contain '/', found {text:?}"))
    } else {
        Ok(())
    }
}

/// A path, or a template: `{*}` for one segment, `{**}` for the rest, each alone in its segment.
pub(super) fn path(text: &str) -> Result<(), String> {
    let template = text.contains("{*}") || text.contains("{**}");
    let mut ended = false;
    for segment in text.trim_matches('/').split('/') {
        match segment {
            "{*}" | "{**}" if ended => {
                return Err(format!("invalid or unsupported path {text}: {{**}} is not the last operator"));
            }
            "{*}" => continue,
            "{**}" => {
                ended = true;
                continue;
            }
            _ => {}
        }
        if segment.contains(['{', '}']) {
            return Err(format!(
                "invalid or unsupported path {text}: contains '{{' or '}}' beyond a supported path template"
            ));
        }
        if template && (segment.is_empty() || !segment.bytes().all(is_path_character)) {
            return Err(format!(
                "invalid or unsupported path {text}: contains segment {segment} with invalid string literal"
            ));
        }
    }
    Ok(())
}

/// What RFC 3986 allows in a segment, without the star.
fn is_path_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

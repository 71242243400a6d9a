//! The forms of names that Kubernetes and Istio demand.

use std::net::IpAddr;

use crate::scalar::HostPattern;

/// A DNS label (RFC 1123): up to 63 letters, digits and inner hyphens.
pub(super) fn is_label(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Labels joined by dots, at most 255 bytes; the last may not be all digits (Istio: CheckDNS1123).
pub(super) fn is_dns_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let top = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 255 && text.split('.').all(is_label) && !top.bytes().all(|b| b.is_ascii_digit())
}

/// An IP address, of either family.
pub(super) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// An IP address or a network.
pub(super) fn is_ip_or_cidr(text: &str) -> bool {
    is_ip(text) || text.parse::<ipnet::IpNet>().is_ok()
}

/// `*`, `*.name` or a name. `*-name` is tolerated where Istio tolerates it.
pub(super) fn is_wildcard_domain(host: &HostPattern, tolerates_partial: bool) -> bool {
    match host.suffix() {
        Some("") => true,
        Some(suffix) => match suffix.strip_prefix('.') {
            Some(name) => is_dns_name(name),
            None => tolerates_partial && is_dns_name(suffix.trim_start_matches('-')),
        },
        None => is_dns_name(host.as_str()),
    }
}

/// A label's name with an optional DNS prefix.
pub(super) fn is_label_key(key: &str) -> bool {
    let name = match key.split_once('/') {
        Some((prefix, name)) if is_dns_name(prefix) => name,
        Some(_) => return false,
        None => key,
    };
    !name.is_empty() && is_label_value(name)
}

/// Empty, or up to 63 letters, digits, `-`, `_`, `.` that begin and end with a letter or digit.
pub(super) fn is_label_value(value: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric());
    value.is_empty()
        || (value.len() <= 63
            && edge(value.bytes().next())
            && edge(value.bytes().last())
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert!(is_label("a-1") && !is_label("-a") && !is_label("a.b") && !is_label(""));
        assert!(is_dns_name("a.b.c") && is_dns_name("a.") && !is_dns_name("1.2.3.4") && !is_dns_name("a..b"));
        assert!(is_label_key("app.kubernetes.io/name") && !is_label_key("/x") && !is_label_key("a/b/c"));
        assert!(is_label_value("") && is_label_value("v1_a") && !is_label_value("*"));
        let host = |text: &str| text.parse::<HostPattern>().unwrap();
        assert!(
            is_wildcard_domain(&host("*.foo.com"), false) && !is_wildcard_domain(&host("*-foo.com"), false)
        );
        assert!(is_wildcard_domain(&host("*-foo.com"), true));
    }
}

//! Which of several content codings a client likes best (RFC 9110 §12.5.3).
//!
//! Invariant: only what the client has named, or `*`, and not with a weight of nothing; no coding at all where it likes that better.

use config_model::annotation::Algorithm;
use http::{HeaderMap, HeaderValue, header};

/// Weights are compared in thousandths, which is as exact as they can be written.
const WHOLE: u16 = 1000;

/// The coding for a client, of those that are offered, the best first.
pub(super) fn choose(headers: &HeaderMap, offered: &[Algorithm]) -> Option<Algorithm> {
    let said = headers.get_all(header::ACCEPT_ENCODING);
    let said: Vec<(&str, u16)> =
        said.iter().filter_map(|value| value.to_str().ok()).flat_map(weighted).collect();
    let weight = |name: &str| {
        let named = said.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name));
        named.map(|(_, weight)| *weight)
    };
    let any = weight("*");
    let of = |algorithm: Algorithm| {
        let alias = if algorithm == Algorithm::Gzip { weight("x-gzip") } else { None };
        weight(algorithm.as_str()).or(alias).or(any).unwrap_or(0)
    };
    let mut best: Option<(Algorithm, u16)> = None;
    for algorithm in offered {
        let weight = of(*algorithm);
        if weight > best.map_or(0, |(_, most)| most) {
            best = Some((*algorithm, weight));
        }
    }
    best.filter(|(_, most)| weight("identity").is_none_or(|plain| plain <= *most)).map(|(best, _)| best)
}

/// The members of one line, with their weights. One that cannot be read is not wanted.
fn weighted(line: &str) -> impl Iterator<Item = (&str, u16)> {
    line.split(',').map(|member| {
        let (coding, parameters) = member.split_once(';').unwrap_or((member, ""));
        let q = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        let q = q
            .map(|(name, value)| (name.trim(), value.trim()))
            .find(|(name, _)| name.eq_ignore_ascii_case("q"));
        (coding.trim(), q.map_or(WHOLE, |(_, value)| thousandths(value).unwrap_or(0)))
    })
}

/// `0.5` as 500; `None`: it is no weight.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if rest.len() > 3 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let rest: u16 = format!("{rest:0<3}").parse().ok()?;
    match (whole, rest) {
        ("0", rest) => Some(rest),
        ("1", 0) => Some(WHOLE),
        _ => None,
    }
}

/// Whether a list of one header has a member, whatever its case.
pub(super) fn lists(headers: &HeaderMap, name: header::HeaderName, member: &str) -> bool {
    let lines = headers.get_all(name);
    let members =
        lines.iter().filter_map(|line: &HeaderValue| line.to_str().ok()).flat_map(|line| line.split(','));
    members.map(str::trim).any(|one| one.eq_ignore_ascii_case(member))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Algorithm::{Br, Gzip, Zstd};

    #[test]
    fn the_clients_weights_come_before_our_order() {
        for (said, wants) in [
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip;q=1.0, br;q=0.9", Some(Gzip)),
            ("GZIP;Q=0.5,BR;q=0.500", Some(Br)),
            ("*", Some(Zstd)),
            ("*;q=0.5, gzip;q=0.6", Some(Gzip)),
            ("zstd;q=0, *", Some(Br)),
            ("br;q=0", None),
            ("gzip;q=2", None),
            ("gzip;q=0.0001", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("deflate", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(said))]);
            assert_eq!(choose(&headers, &[Zstd, Br, Gzip]), wants, "{said:?}");
        }
        assert_eq!(choose(&HeaderMap::new(), &[Gzip]), None);
        let mut lines = HeaderMap::new();
        lines.append(header::ACCEPT_ENCODING, HeaderValue::from_static("br;q=0.1"));
        lines.append(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(choose(&lines, &[Br, Gzip]), Some(Gzip));
    }
}

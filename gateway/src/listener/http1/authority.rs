//! What may stand in `Host` and in `:authority`.
//!
//! Invariant: only what every reader takes for the same host and port (RFC 3986 §3.2, RFC 9110 §4.2.4).

/// `host[:port]` without userinfo: a name, an IPv4 address or an IPv6 address in brackets.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    if let Some(rest) = text.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|b| *b == b']') else { return false };
        let (ip, after) = rest.split_at(end);
        let after = after.get(1..).unwrap_or_default();
        return std::str::from_utf8(ip).is_ok_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
            && (after.is_empty() || after.strip_prefix(b":").is_some_and(is_port));
    }
    let end = text.iter().position(|b| !is_name(*b)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    !name.is_empty() && (after.is_empty() || after.strip_prefix(b":").is_some_and(is_port))
}

fn is_name(b: u8) -> bool {
    const NAME: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0;
        while b < 128 {
            let c = b as u8;
            #[expect(clippy::indexing_slicing, reason = "b is below 128")]
            {
                table[b] =
                    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'*');
            }
            b += 1;
        }
        table
    };
    #[expect(clippy::indexing_slicing, reason = "the table has an entry for every byte")]
    NAME[usize::from(b)]
}

fn is_port(text: &[u8]) -> bool {
    text.len() <= 5
        && text.iter().all(u8::is_ascii_digit)
        && text.iter().fold(0_u32, |n, b| n * 10 + u32::from(b - b'0')) <= u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_authority_that_everyone_reads_alike() {
        for good in [
            "a.example",
            "a.example:80",
            "a:",
            "10.0.0.1:8080",
            "[::1]:80",
            "[::1]",
            "a_b",
            "A.Example",
            "a.",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a,b",
            "u@a",
            "a:b",
            "a:80:80",
            "[::1",
            "::1",
            "a:+80",
            "a:99999",
            "a%20b",
            "[::1]x",
            "[fe80::1%eth0]",
            "a:080000",
            "\u{e9}",
            "a\\b",
            "a?b",
            "a#b",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}

//! The client's address as trusted proxies tell it in `X-Forwarded-For`.
//!
//! Invariant: counted from the right, where trusted proxies write; what a client wrote itself lies further to the left and changes
//! nothing.

use std::net::IpAddr;

/// The entry that is `hops` to the left of the last, of all fields together; `None` where there is none, or it is no address.
///
/// The last trusted proxy appended whom it heard from; each one before it, one entry further to the left (Envoy:
/// `xff_num_trusted_hops`).
pub(crate) fn client<'v, I>(values: I, hops: usize) -> Option<IpAddr>
where
    I: IntoIterator<Item = &'v [u8]>,
    I::IntoIter: DoubleEndedIterator,
{
    let mut entries = values.into_iter().rev().flat_map(|value| value.rsplit(|b| *b == b','));
    std::str::from_utf8(entries.nth(hops)?.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_from_the_right_over_all_fields() {
        let values = [&b"6.6.6.6, 192.0.2.1"[..], b"10.0.0.9"];
        for (hops, want) in [(0, Some("10.0.0.9")), (1, Some("192.0.2.1")), (2, Some("6.6.6.6")), (3, None)] {
            assert_eq!(client(values, hops), want.map(|ip| ip.parse().unwrap()));
        }
        assert_eq!(client([&b"x"[..]], 0), None);
        assert_eq!(client([&b"10.0.0.1,"[..]], 0), None, "an empty entry is one");
    }
}

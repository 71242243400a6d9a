//! DER, as much of it as revocation lists and OCSP responses take: the TLS library parses neither.
//!
//! Invariant: total on any bytes; what is not whole gives nothing.

use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OID: u8 = 0x06;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;

/// What is left to read.
pub(super) struct Der<'d>(pub(super) &'d [u8]);

/// One element.
pub(super) struct Value<'d> {
    pub(super) tag: u8,
    pub(super) content: &'d [u8],
    /// With tag and length.
    pub(super) whole: &'d [u8],
}

impl<'d> Der<'d> {
    /// The next element; `None`: there is none, or it is not whole.
    pub(super) fn next(&mut self) -> Option<Value<'d>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                bytes
                    .iter()
                    .try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        let whole = self.0.get(..self.0.len() - after.len())?;
        self.0 = after;
        Some(Value { tag, content, whole })
    }

    /// The next element, when it is of this type.
    pub(super) fn expect(&mut self, tag: u8) -> Option<Value<'d>> {
        self.next().filter(|value| value.tag == tag)
    }
}

/// A time as `YYYYMMDDHHMMSSZ`.
pub(super) fn time(value: &Value<'_>) -> Option<String> {
    let text = std::str::from_utf8(value.content).ok()?;
    match value.tag {
        GENERALIZED_TIME => Some(text.to_owned()),
        // RFC 5280 §4.1.2.5.1: 50 to 99 are of the last century.
        UTC_TIME => {
            let century = if text.get(..2)? >= "50" { "19" } else { "20" };
            Some(format!("{century}{text}"))
        }
        _ => None,
    }
}

/// A moment in the form of [`time`].
pub(super) fn timestamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil from days, with years that begin in March (H. Hinnant).
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_read_as_calendars_do() {
        assert_eq!(timestamp(at(0)), "19700101000000Z");
        assert_eq!(timestamp(at(951_782_400)), "20000229000000Z");
        assert_eq!(timestamp(at(1_799_971_199)), "20270114235959Z");
        let value = |tag, content| Value { tag, content, whole: content };
        assert_eq!(time(&value(UTC_TIME, b"990102030405Z")).as_deref(), Some("19990102030405Z"));
        assert_eq!(time(&value(UTC_TIME, b"300102030405Z")).as_deref(), Some("20300102030405Z"));
    }
}

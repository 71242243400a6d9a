//! Durations as Istio's API writes them: protobuf JSON (`1.5s`) and Go (`1h2m3.5s`), exact to the nanosecond.
//!
//! Invariant: never negative. Limits such as "at least 1 ms" belong to validation, not here.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::InvalidScalar;

/// A length of time, zero or more, with nanosecond resolution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

const WHAT: &str = "duration";
const WANTS: &str = "write seconds (\"1.5s\") or a sequence of numbers with units h, m, s, ms, us, ns";
/// Go's `time.Duration` is 63 bits of nanoseconds (about 292 years); nothing longer can be written.
const MAX_NANOS: u128 = i64::MAX as u128;

impl Duration {
    /// Nothing at all.
    pub const ZERO: Duration = Duration(std::time::Duration::ZERO);

    /// A duration of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Duration {
        Duration(std::time::Duration::from_millis(millis))
    }

    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Duration {
        Duration(std::time::Duration::from_secs(seconds))
    }

    /// The standard library's type, exact.
    pub const fn as_std(self) -> std::time::Duration {
        self.0
    }

    /// True for `0s`, which several fields read as "off".
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<std::time::Duration> for Duration {
    fn from(value: std::time::Duration) -> Duration {
        Duration(value)
    }
}

impl FromStr for Duration {
    type Err = InvalidScalar;

    /// Follows Go's `time.ParseDuration`, which reads protobuf's form too; a negative duration is refused.
    fn from_str(text: &str) -> Result<Duration, InvalidScalar> {
        let invalid = || InvalidScalar::new(WHAT, text, WANTS);
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Duration::ZERO);
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u128 = 0;
        while !rest.is_empty() {
            let (nanos, after) = component(rest).ok_or_else(invalid)?;
            total = total.saturating_add(nanos);
            rest = after;
        }
        if total > MAX_NANOS {
            return Err(InvalidScalar::new(WHAT, text, "at most 292 years"));
        }
        let seconds = u64::try_from(total / 1_000_000_000).map_err(|_| invalid())?;
        let nanos = u32::try_from(total % 1_000_000_000).map_err(|_| invalid())?;
        Ok(Duration(std::time::Duration::new(seconds, nanos)))
    }
}

/// One `<number><unit>` of a Go duration: its nanoseconds (fractions of one are cut, as Go does) and what follows it.
fn component(text: &str) -> Option<(u128, &str)> {
    let whole_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at_checked(whole_len)?;
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at_checked(rest.bytes().take_while(u8::is_ascii_digit).count())?,
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at_checked(unit_end)?;
    let unit_nanos: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let whole: u128 = if whole.is_empty() { 0 } else { whole.get(..whole.len().min(30))?.parse().ok()? };
    let mut nanos = whole.saturating_mul(unit_nanos);
    let mut scale = unit_nanos;
    let mut part: u128 = 0;
    // Fifteen digits keep the arithmetic exact for every unit and are finer than any nanosecond can show.
    let mut divisor: u128 = 1;
    for digit in fraction.bytes().take(15) {
        part = part * 10 + u128::from(digit - b'0');
        divisor *= 10;
    }
    scale = scale * part / divisor;
    nanos = nanos.saturating_add(scale);
    Some((nanos, rest))
}

impl fmt::Display for Duration {
    /// Protobuf's JSON form, e.g. `1.5s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.subsec_nanos();
        if nanos == 0 {
            return write!(f, "{}s", self.0.as_secs());
        }
        let fraction = format!("{nanos:09}");
        write!(f, "{}.{}s", self.0.as_secs(), fraction.trim_end_matches('0'))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"1.5s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_exactly() {
        for (text, nanos) in [
            ("1.5s", 1_500_000_000_u128),
            ("0s", 0),
            ("0", 0),
            ("0.000000001s", 1),
            ("1h2m3.5s", 3_723_500_000_000),
            ("5m", 300_000_000_000),
            ("10ms", 10_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1µs", 1_000),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().as_std().as_nanos(), nanos, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "s",
            "1",
            "-1s",
            "1 s",
            "1d",
            ".s",
            "1s1",
            "99999999999h",
            "9999999999999999999999999999999999999s",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}

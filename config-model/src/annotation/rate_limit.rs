//! `limen.dev/rate-limit`: `{requests: 100, per: minute, burst: 20, by: client, headers: true}`.
//!
//! Invariant: a limit that is read lets something in, and its numbers can be reckoned with.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::scalar::{Duration, HeaderName};

/// More than this in a second is not what a limit is for.
const MOST: u32 = 1_000_000;
/// Longest time over which requests are counted.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How many requests are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// This many…
    pub requests: u32,
    /// …in this time.
    pub per: Duration,
    /// So many at once, after a time without any.
    pub burst: u32,
    /// Whose requests are counted together.
    pub by: By,
    /// Whether responses tell of it, in `x-ratelimit-…` headers.
    pub headers: bool,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum By {
    /// All of one rule.
    #[default]
    Route,
    /// All of one client's address.
    Client,
    /// All that have one value of this header; those without it are counted together too.
    Header(HeaderName),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    requests: u32,
    per: Per,
    burst: Option<u32>,
    #[serde(default)]
    by: WrittenBy,
    #[serde(default)]
    headers: bool,
}

struct Per(Duration);

#[derive(Deserialize)]
#[serde(untagged, expecting = "by: route, by: client, or by: {header: NAME}")]
enum WrittenBy {
    Word(Word),
    Header(OfHeader),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Route,
    Client,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfHeader {
    header: HeaderName,
}

impl Default for WrittenBy {
    fn default() -> Self {
        WrittenBy::Word(Word::Route)
    }
}

impl<'de> Deserialize<'de> for Per {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Per, D::Error> {
        let text = String::deserialize(deserializer)?;
        let seconds = match text.as_str() {
            "second" => 1,
            "minute" => 60,
            "hour" => 60 * 60,
            "day" => 24 * 60 * 60,
            _ => return text.parse().map(Per).map_err(de::Error::custom),
        };
        Ok(Per(Duration::from_secs(seconds)))
    }
}

impl<'de> Deserialize<'de> for RateLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RateLimit, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let (requests, Per(per)) = (written.requests, written.per);
        let burst = written.burst.unwrap_or(requests);
        for (what, number) in [("requests", requests), ("burst", burst)] {
            if !(1..=MOST).contains(&number) {
                return Err(de::Error::custom(format!("{what} must be from 1 to {MOST}, not {number}")));
            }
        }
        if per < Duration::from_millis(1) || per > LONGEST {
            return Err(de::Error::custom(format!("per must be from 1ms to {LONGEST}, not {per}")));
        }
        let by = match written.by {
            WrittenBy::Word(Word::Route) => By::Route,
            WrittenBy::Word(Word::Client) => By::Client,
            WrittenBy::Header(OfHeader { header }) if header.is_pseudo() => {
                return Err(de::Error::custom(format!("{} is not a header", header.as_str())));
            }
            WrittenBy::Header(OfHeader { header }) => By::Header(header),
        };
        Ok(RateLimit { requests, per, burst, by, headers: written.headers })
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}, burst {}, by ", self.requests, self.per, self.burst)?;
        match &self.by {
            By::Route => f.write_str("route"),
            By::Client => f.write_str("client"),
            By::Header(name) => write!(f, "header {}", name.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::value;

    #[test]
    fn what_is_left_out_has_its_default() {
        let limit: RateLimit = value("requests: 5\nper: 10s\n").unwrap();
        assert_eq!(limit.to_string(), "5 per 10s, burst 5, by route");
        assert!(!limit.headers);
        let limit: RateLimit = value("{requests: 5, per: hour, by: {header: X-Key}}").unwrap();
        assert_eq!(limit.to_string(), "5 per 3600s, burst 5, by header x-key");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, word) in [
            ("{per: second}", "requests"),
            ("{requests: 5}", "per"),
            ("{requests: 0, per: second}", "from 1 to"),
            ("{requests: 5, per: second, burst: 0}", "burst"),
            ("{requests: 5, per: second, bursts: 1}", "bursts"),
            ("{requests: 5, per: fortnight}", "fortnight"),
            ("{requests: 5, per: 0s}", "1ms"),
            ("{requests: 5, per: 48h}", "per must be"),
            ("{requests: 5, per: second, by: user}", "by: client"),
            ("{requests: 5, per: second, by: {header: ':path'}}", "not a header"),
            ("{requests: 2000000, per: second}", "1000000"),
        ] {
            let error = value::<RateLimit>(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}

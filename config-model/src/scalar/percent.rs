//! Percentages with Envoy's granularity, and weights of destinations.
//!
//! Invariant: a [`Percent`] is a finite number from 0 to 100.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use super::{InvalidScalar, lenient};

/// A share of 0 to 100 per cent. In the API it is the message `{value: 12.5}`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// All of it.
    pub const HUNDRED: Percent = Percent(100.0);

    /// A percentage from a number.
    ///
    /// # Errors
    /// When it is not a number from 0 to 100.
    pub fn new(value: f64) -> Result<Percent, InvalidScalar> {
        if (0.0..=100.0).contains(&value) {
            Ok(Percent(value))
        } else {
            Err(InvalidScalar::new("percentage", value, "a number from 0 to 100"))
        }
    }

    /// The number, 0 to 100.
    pub fn value(self) -> f64 {
        self.0
    }

    /// Parts per million, 0 to 1,000,000: `value × 10000` with the rest cut off (Istio: translatePercentToFractionalPercent).
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is within 0..=100, so this is 0..=1e6"
    )]
    pub fn millionths(self) -> u32 {
        (self.0 * 10_000.0) as u32
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Percent, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Percent")]
        struct Message {
            #[serde(default)]
            value: f64,
        }
        Percent::new(Message::deserialize(deserializer)?.value).map_err(de::Error::custom)
    }
}

/// The weight of a destination: zero or more, relative to the sum of its rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// A weight; the API's type is a 32-bit signed integer.
    ///
    /// # Errors
    /// When it is above `i32::MAX`.
    pub fn new(value: u32) -> Result<Weight, InvalidScalar> {
        if i32::try_from(value).is_ok() { Ok(Weight(value)) } else { Err(Weight::invalid(value.into())) }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    fn invalid(value: i64) -> InvalidScalar {
        InvalidScalar::new("weight", value, "a whole number from 0 to 2147483647")
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Weight, D::Error> {
        let value: i64 = lenient::int(deserializer)?;
        let weight = u32::try_from(value).map_err(|_| Weight::invalid(value)).and_then(Weight::new);
        weight.map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_cut_to_millionths() {
        for (value, millionths) in [(0.0, 0), (0.0001, 1), (0.00019, 1), (12.5, 125_000), (100.0, 1_000_000)]
        {
            assert_eq!(Percent::new(value).unwrap().millionths(), millionths, "{value}");
        }
        for bad in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert!(Percent::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_negative_weight_is_refused() {
        assert!(serde_json::from_str::<Weight>("-1").is_err());
        assert_eq!(serde_json::from_str::<Weight>("75").unwrap().get(), 75);
    }
}

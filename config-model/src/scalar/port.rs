//! Port numbers.
//!
//! Invariant: 1 to 65535. Where the API permits 0 the field is `Option<PortNumber>`, read by [`PortNumber::or_zero`].

use std::{fmt, num::NonZeroU16};

use serde::{Deserialize, Deserializer, de};

use super::{InvalidScalar, lenient};

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortNumber(NonZeroU16);

impl PortNumber {
    /// A port from a number.
    ///
    /// # Errors
    /// When it is 0.
    pub fn new(value: u16) -> Result<PortNumber, InvalidScalar> {
        PortNumber::from_wide(value.into())
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// Reads a field in which 0 (or absence) means "not given". For `#[serde(default, deserialize_with = …)]`.
    ///
    /// # Errors
    /// When the value is no whole number or above 65535.
    pub fn or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PortNumber>, D::Error> {
        match lenient::option_int::<_, i64>(deserializer)? {
            None | Some(0) => Ok(None),
            Some(value) => PortNumber::from_wide(value).map(Some).map_err(de::Error::custom),
        }
    }

    fn from_wide(value: i64) -> Result<PortNumber, InvalidScalar> {
        let port = u16::try_from(value).ok().and_then(NonZeroU16::new);
        port.map(PortNumber).ok_or_else(|| InvalidScalar::new("port", value, "a number from 1 to 65535"))
    }
}

impl From<NonZeroU16> for PortNumber {
    fn from(value: NonZeroU16) -> PortNumber {
        PortNumber(value)
    }
}

impl From<PortNumber> for u16 {
    fn from(port: PortNumber) -> u16 {
        port.get()
    }
}

impl fmt::Display for PortNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for PortNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PortNumber, D::Error> {
        PortNumber::from_wide(lenient::int(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_to_65535() {
        assert_eq!(serde_json::from_str::<PortNumber>("443").unwrap().get(), 443);
        for bad in ["0", "65536", "-1", "1.5"] {
            assert!(serde_json::from_str::<PortNumber>(bad).is_err(), "{bad}");
        }
    }
}

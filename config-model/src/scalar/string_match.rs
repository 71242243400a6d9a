//! `StringMatch`: how a rule compares a text.
//!
//! Invariant: exactly one way of comparing. An empty object means "present", which headers and query parameters allow.

use serde::{Deserialize, Deserializer, de};

/// One way to compare a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StringMatch {
    /// Equal, case-sensitive.
    Exact(String),
    /// Begins with, byte by byte.
    Prefix(String),
    /// RE2 syntax, anchored at both ends.
    Regex(String),
    /// The empty object `{}`: there, whatever its value.
    Present,
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StringMatch, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "StringMatch")]
        struct Message {
            exact: Option<String>,
            prefix: Option<String>,
            regex: Option<String>,
        }
        match Message::deserialize(deserializer)? {
            Message { exact: None, prefix: None, regex: None } => Ok(StringMatch::Present),
            Message { exact: Some(text), prefix: None, regex: None } => Ok(StringMatch::Exact(text)),
            Message { exact: None, prefix: Some(text), regex: None } => Ok(StringMatch::Prefix(text)),
            Message { exact: None, prefix: None, regex: Some(text) } => Ok(StringMatch::Regex(text)),
            _ => Err(de::Error::custom("at most one of `exact`, `prefix`, `regex` may be set")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_arm_or_none() {
        let read = serde_json::from_str::<StringMatch>;
        assert_eq!(read(r#"{"exact":""}"#).unwrap(), StringMatch::Exact(String::new()));
        assert_eq!(read("{}").unwrap(), StringMatch::Present);
        assert!(read(r#"{"exact":"a","prefix":"b"}"#).is_err());
        assert!(read(r#""a""#).is_err());
    }
}

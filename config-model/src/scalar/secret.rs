//! Bytes that must not be printed: the values of Secrets.
//!
//! Invariant: no `Display`, no `Serialize`, and a `Debug` that shows the length only.

use std::fmt;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, de};

/// The decoded value of one key of a Secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Bytes as they are.
    pub fn new(bytes: Vec<u8>) -> SecretBytes {
        SecretBytes(bytes)
    }

    /// The bytes. The caller takes over the duty not to print them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes redacted>", self.0.len())
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    /// From standard base64; white space inside is allowed because folded YAML strings carry it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretBytes, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        text.retain(|c| !c.is_ascii_whitespace());
        // The error of the base64 crate names a byte of the value, so it is not passed on.
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(SecretBytes).map_err(|_| de::Error::custom("not valid base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_never_shown() {
        let value: SecretBytes = serde_json::from_str("\"aHVu\\ndGVyMg==\"").unwrap();
        assert_eq!(value.expose(), b"hunter2");
        assert_eq!(format!("{value:?}"), "<7 bytes redacted>");
        let error = serde_json::from_str::<SecretBytes>("\"hunter2!\"").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

//! Lists without room to spare: of a large configuration it would be the greater part.
//!
//! Used by `#[serde(deserialize_with = "list::exact")]`.

use serde::{Deserialize, Deserializer};

/// A list that takes as much memory as its members.
///
/// # Errors
/// Whatever is wrong with a member.
pub fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

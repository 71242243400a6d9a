//! What the services tell each other, as JSON. The field names are the sample's wire format.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Which pod of which version of which service answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) pod: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.service, self.version, self.pod)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BookDetails {
    pub(crate) id: u32,
    pub(crate) author: String,
    pub(crate) year: u16,
    #[serde(rename = "type")]
    pub(crate) binding: String,
    pub(crate) pages: u16,
    pub(crate) publisher: String,
    pub(crate) language: String,
    #[serde(rename = "ISBN-10")]
    pub(crate) isbn_10: String,
    #[serde(rename = "ISBN-13")]
    pub(crate) isbn_13: String,
    pub(crate) served_by: Identity,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BookRatings {
    pub(crate) id: u32,
    /// Reviewer to stars, 1 to 5.
    pub(crate) ratings: BTreeMap<String, u8>,
    pub(crate) served_by: Identity,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BookReviews {
    pub(crate) id: u32,
    pub(crate) podname: String,
    pub(crate) reviews: Vec<Review>,
    pub(crate) served_by: Identity,
    /// Who answered for ratings; absent when ratings was not asked (v1) or did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratings_served_by: Option<Identity>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Review {
    pub(crate) reviewer: String,
    pub(crate) text: String,
    /// Absent from v1, which knows no stars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rating: Option<Rating>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Rating {
    Stars { stars: u8, color: StarColor },
    Unavailable { error: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StarColor {
    Black,
    Red,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rating_is_stars_or_an_error_on_the_wire() {
        let stars = serde_json::to_value(Rating::Stars { stars: 5, color: StarColor::Red }).unwrap();
        assert_eq!(stars, serde_json::json!({"stars": 5, "color": "red"}));
        let error: Rating = serde_json::from_value(serde_json::json!({"error": "gone"})).unwrap();
        assert_eq!(error, Rating::Unavailable { error: "gone".to_owned() });
    }
}

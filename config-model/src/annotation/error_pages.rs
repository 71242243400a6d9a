//! `limen.dev/error-pages`: a list of `{status: [404, 500-599], from: all, body: …, contentType: text/html}`.
//!
//! Invariant: only statuses of errors, 400 to 599, and each entry has one body.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, de};

/// The pages, the first that fits before others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPages(pub Vec<ErrorPage>);

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// Statuses that it is for.
    pub statuses: Vec<Statuses>,
    /// Whose responses.
    pub from: From,
    /// What is shown in place of them.
    pub body: Body,
    /// Its media type.
    pub content_type: String,
}

/// From the first status to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(pub RangeInclusive<u16>);

/// Whose responses a page is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// Those of the gateway itself.
    #[default]
    Gateway,
    /// Those of upstreams too.
    All,
}

/// What a page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// This text.
    Inline(String),
    /// A text of a ConfigMap of the resource's own namespace.
    ConfigMap {
        /// Its name.
        name: String,
        /// The key in its `data`.
        key: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    status: Listed,
    #[serde(default)]
    from: From,
    body: Option<String>,
    config_map: Option<Reference>,
    content_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    name: String,
    key: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "status: 404, status: 500-599, or a list of these")]
enum Listed {
    Many(Vec<One>),
    One(One),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum One {
    Number(u16),
    Text(String),
}

impl One {
    fn statuses(&self) -> Result<Statuses, String> {
        let range = match self {
            One::Number(status) => Some(*status..=*status),
            One::Text(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                first.trim().parse().ok().zip(last.trim().parse().ok()).map(|(first, last)| first..=last)
            }
        };
        let fits =
            |range: &RangeInclusive<u16>| *range.start() >= 400 && *range.end() <= 599 && !range.is_empty();
        match range.filter(fits) {
            Some(range) => Ok(Statuses(range)),
            None => {
                let written = match self {
                    One::Number(status) => status.to_string(),
                    One::Text(text) => format!("{text:?}"),
                };
                Err(format!("{written} is no status of an error: write 404 or 500-599"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for ErrorPage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ErrorPage, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let listed = match written.status {
            Listed::Many(many) => many,
            Listed::One(one) => vec![one],
        };
        let statuses: Result<Vec<_>, _> = listed.iter().map(One::statuses).collect();
        let statuses = statuses.map_err(de::Error::custom)?;
        if statuses.is_empty() {
            return Err(de::Error::custom("status: an empty list is for no response"));
        }
        let body = match (written.body, written.config_map) {
            (Some(body), None) => Body::Inline(body),
            (None, Some(Reference { name, key })) => Body::ConfigMap { name, key },
            _ => return Err(de::Error::custom("a page has either a body or a configMap")),
        };
        let content_type = written.content_type.unwrap_or_else(|| "text/html; charset=utf-8".to_owned());
        if http::HeaderValue::from_str(&content_type).is_err() || !content_type.contains('/') {
            return Err(de::Error::custom(format!("contentType: {content_type:?} is not a media type")));
        }
        Ok(ErrorPage { statuses, from: written.from, body, content_type })
    }
}

impl<'de> Deserialize<'de> for ErrorPages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ErrorPages, D::Error> {
        let pages = Vec::<ErrorPage>::deserialize(deserializer)?;
        if pages.is_empty() {
            return Err(de::Error::custom("an empty list has no page: leave it out, or write off"));
        }
        Ok(ErrorPages(pages))
    }
}

impl fmt::Display for ErrorPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = |page: &ErrorPage| {
            let statuses: Vec<_> = page
                .statuses
                .iter()
                .map(|Statuses(range)| {
                    let (first, last) = range.clone().into_inner();
                    if first == last { first.to_string() } else { format!("{first}-{last}") }
                })
                .collect();
            let from = if page.from == From::All { "all" } else { "gateway" };
            format!("{} ({from})", statuses.join(","))
        };
        f.write_str(&self.0.iter().map(page).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::value;

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let pages: ErrorPages =
            value("- {status: 404, body: a}\n- {status: [503, '500-502'], configMap: {name: p, key: k}}\n")
                .unwrap();
        assert_eq!(pages.to_string(), "404 (gateway), 503,500-502 (gateway)");
        assert_eq!(pages.0[1].body, Body::ConfigMap { name: "p".into(), key: "k".into() });
        assert_eq!(pages.0[0].content_type, "text/html; charset=utf-8");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "[]",
            "[{status: 200, body: a}]",
            "[{status: 599-400, body: a}]",
            "[{status: 400-600, body: a}]",
            "[{status: 4xx, body: a}]",
            "[{status: [], body: a}]",
            "[{status: 404}]",
            "[{status: 404, body: a, configMap: {name: a, key: b}}]",
            "[{status: 404, configMap: {name: a}}]",
            "[{status: 404, body: a, contentType: \"a\\nb/c\"}]",
            "[{status: 404, body: a, from: upstream}]",
            "[{status: 404, body: a, type: text/html}]",
        ] {
            assert!(value::<ErrorPages>(text).is_err(), "{text}");
        }
    }
}

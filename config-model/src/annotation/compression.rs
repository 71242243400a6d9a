//! `limen.dev/compression`: `on`, or `{algorithms: [zstd, br, gzip], types: [text/*], minLength: 256}`.
//!
//! Invariant: at least one algorithm; types are in lower case, without parameters.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// Shortest body that is worth it, where nothing is said.
const MIN_LENGTH: u64 = 256;
/// What is compressed, where nothing is said.
const TYPES: [&str; 12] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/xhtml+xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/manifest+json",
    "application/ld+json",
    "application/problem+json",
    "application/wasm",
    "image/svg+xml",
];

/// A way to compress, by its name in `Content-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Algorithm {
    /// Its name in `Content-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Zstd => "zstd",
            Algorithm::Br => "br",
            Algorithm::Gzip => "gzip",
        }
    }
}

/// How responses are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// The best first, among those that a client likes equally.
    pub algorithms: Vec<Algorithm>,
    /// Media types; `text/*` for all of a kind.
    pub types: Vec<String>,
    /// Shorter bodies are left as they are, where their length is known, in bytes.
    pub min_length: u64,
}

impl Default for Compression {
    fn default() -> Self {
        Compression {
            algorithms: vec![Algorithm::Zstd, Algorithm::Br, Algorithm::Gzip],
            types: TYPES.map(str::to_owned).to_vec(),
            min_length: MIN_LENGTH,
        }
    }
}

impl Compression {
    /// Whether a response of this `Content-Type` is to be compressed.
    pub fn takes(&self, content_type: &str) -> bool {
        let plain = content_type.split(';').next().unwrap_or_default().trim();
        self.types.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(kind) => plain.get(..kind.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(kind)),
            None => plain.eq_ignore_ascii_case(wanted),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    algorithms: Option<Vec<Algorithm>>,
    types: Option<Vec<String>>,
    min_length: Option<u64>,
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Compression, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let default = Compression::default();
        let algorithms = written.algorithms.unwrap_or(default.algorithms);
        let types = written.types.unwrap_or(default.types);
        if algorithms.is_empty() || types.is_empty() {
            return Err(de::Error::custom("an empty list compresses nothing: leave it out, or write off"));
        }
        for wanted in &types {
            let halves = wanted.split_once('/');
            let token = |text: &str| !text.is_empty() && !text.contains(['/', ';', ' ', ',', '*']);
            if !halves.is_some_and(|(kind, rest)| token(kind) && (rest == "*" || token(rest))) {
                return Err(de::Error::custom(format!(
                    "{wanted:?} is not a media type: write text/html, or text/* for all of a kind"
                )));
            }
        }
        let types = types.into_iter().map(|wanted| wanted.to_ascii_lowercase()).collect();
        Ok(Compression { algorithms, types, min_length: written.min_length.unwrap_or(default.min_length) })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        write!(f, "{} from {} bytes", names.join(", "), self.min_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::value;

    #[test]
    fn types_are_compared_without_case_and_parameters() {
        let compression: Compression = value("{types: [TEXT/*, application/json]}").unwrap();
        for (content_type, wants) in [
            ("text/html; charset=utf-8", true),
            ("Text/Event-Stream", true),
            ("application/json", true),
            ("application/json5", false),
            ("textual/html", false),
            ("", false),
        ] {
            assert_eq!(compression.takes(content_type), wants, "{content_type:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "{algorithms: [deflate]}",
            "{algorithms: []}",
            "{types: [html]}",
            "{types: ['*/*']}",
            "{types: ['text/html; q=1']}",
            "{minlength: 5}",
            "{minLength: -1}",
        ] {
            assert!(value::<Compression>(text).is_err(), "{text}");
        }
    }
}

//! Policies that `limen.dev/…` annotations of a VirtualService or a Gateway ask for.
//!
//! Invariant: an annotation is read whole or not at all. What cannot be read is a [`Problem`]; one that was to protect is said to be so,
//! for whoever decides what becomes of the resource.

mod compression;
mod error_pages;
mod rate_limit;

use std::{collections::BTreeMap, fmt};

use serde::de::DeserializeOwned;

pub use compression::{Algorithm, Compression};
pub use error_pages::{Body, ErrorPage, ErrorPages, From, Statuses};
pub use rate_limit::{By, RateLimit};

use crate::parse::{self, nearest};

/// What all of them begin with.
pub const PREFIX: &str = "limen.dev/";
/// How many requests are let in.
pub const RATE_LIMIT: &str = "limen.dev/rate-limit";
/// How long the body of a request may be.
pub const MAX_REQUEST_BODY: &str = "limen.dev/max-request-body";
/// Whether responses are compressed.
pub const COMPRESSION: &str = "limen.dev/compression";
/// What errors look like.
pub const ERROR_PAGES: &str = "limen.dev/error-pages";

const ALL: [&str; 4] = [RATE_LIMIT, MAX_REQUEST_BODY, COMPRESSION, ERROR_PAGES];
/// Switches off on a VirtualService what its Gateway asks for.
const OFF: &str = "off";

/// What one annotation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting<T> {
    /// Not here, whatever a wider one says.
    Off,
    /// So.
    On(T),
}

impl<T> Setting<T> {
    /// What is asked for; `None`: nothing.
    pub fn on(&self) -> Option<&T> {
        match self {
            Setting::Off => None,
            Setting::On(value) => Some(value),
        }
    }
}

/// What the annotations of one resource ask for; `None`: it says nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// How many requests are let in.
    pub rate_limit: Option<Setting<RateLimit>>,
    /// Most bytes of a request's body.
    pub max_request_body: Option<Setting<u64>>,
    /// Whether and how responses are compressed.
    pub compression: Option<Setting<Compression>>,
    /// What errors look like.
    pub error_pages: Option<Setting<ErrorPages>>,
}

/// What is wrong with one annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The annotation.
    pub name: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What serving the resource without it would mean.
    pub loss: Loss,
}

/// What serving a resource without one of its annotations would mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Loss {
    /// Somebody is let in who was to be kept out: it must not be served so.
    Protection,
    /// Something that was asked for is not done.
    Service,
    /// Nothing that is known.
    Nothing,
}

impl Annotations {
    /// Reads those of a resource. Other annotations are not looked at.
    pub fn read(annotations: &BTreeMap<String, String>) -> (Annotations, Vec<Problem>) {
        let mut read = Annotations::default();
        let mut problems = Vec::new();
        // All of a prefix stand together.
        let own = annotations.range(PREFIX.to_owned()..).take_while(|(name, _)| name.starts_with(PREFIX));
        for (name, value) in own {
            let done = match name.as_str() {
                RATE_LIMIT => setting(value, yaml).map(|limit| read.rate_limit = Some(limit)),
                MAX_REQUEST_BODY => setting(value, bytes).map(|limit| read.max_request_body = Some(limit)),
                COMPRESSION => setting(value, compression).map(|found| read.compression = Some(found)),
                ERROR_PAGES => setting(value, yaml).map(|pages| read.error_pages = Some(pages)),
                unknown => {
                    problems.push(unknown_annotation(unknown));
                    continue;
                }
            };
            if let Err(message) = done {
                let loss = loss_of(name);
                problems.push(Problem { name: name.clone(), message, hint: None, loss });
            }
        }
        (read, problems)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Annotations::default()
    }
}

fn loss_of(name: &str) -> Loss {
    if matches!(name, RATE_LIMIT | MAX_REQUEST_BODY) { Loss::Protection } else { Loss::Service }
}

fn unknown_annotation(name: &str) -> Problem {
    let meant = nearest(name, ALL.into_iter());
    let known = ALL.map(|name| name.strip_prefix(PREFIX).unwrap_or(name)).join(", ");
    Problem {
        name: name.to_owned(),
        message: format!("unknown annotation {name}"),
        hint: Some(match meant {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("behind {PREFIX} there may be {known}"),
        }),
        loss: meant.map_or(Loss::Nothing, loss_of),
    }
}

fn setting<T>(value: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Setting<T>, String> {
    match value.trim() {
        OFF => Ok(Setting::Off),
        "" => Err("it is empty: write what is asked for, or \"off\"".to_owned()),
        value => read(value).map(Setting::On),
    }
}

fn yaml<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    parse::value(value)
}

fn compression(value: &str) -> Result<Compression, String> {
    if value == "on" { Ok(Compression::default()) } else { yaml(value) }
}

/// A number of bytes, as Kubernetes writes quantities.
fn bytes(value: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("", 1),
    ];
    let wants = || format!("{value:?} is not a number of bytes: write 65536, 64Ki, 10Mi or 1Gi");
    let unit = UNITS.iter().find_map(|(unit, size)| Some((value.strip_suffix(unit)?, *size)));
    let (number, size) = unit.ok_or_else(wants)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wants());
    }
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(size)).ok_or_else(wants)
}

/// In the order in which a request meets them.
impl fmt::Display for Annotations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        fn part<T: fmt::Display>(parts: &mut Vec<String>, name: &str, setting: &Option<Setting<T>>) {
            match setting {
                None => {}
                Some(Setting::Off) => parts.push(format!("{name} off")),
                Some(Setting::On(value)) => parts.push(format!("{name} {value}")),
            }
        }
        part(&mut parts, "rate-limit", &self.rate_limit);
        part(&mut parts, "max-request-body", &self.max_request_body);
        part(&mut parts, "error-pages", &self.error_pages);
        part(&mut parts, "compression", &self.compression);
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Annotations, Vec<Problem>) {
        let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Annotations::read(&owned.collect())
    }

    fn problem(name: &str, value: &str) -> Problem {
        let (read, mut problems) = read(&[(name, value)]);
        assert!(read.is_empty(), "{name}: {value}");
        assert_eq!(problems.len(), 1, "{name}: {value}");
        problems.remove(0)
    }

    #[test]
    fn others_annotations_are_left_alone() {
        let (found, problems) = read(&[("limen.de/x", "1"), ("limen.dev.x/y", "1"), ("note", "n")]);
        assert!(found.is_empty() && problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn each_is_read_and_told() {
        let (found, problems) = read(&[
            (RATE_LIMIT, "{requests: 100, per: minute, burst: 20, by: client, headers: true}"),
            (MAX_REQUEST_BODY, "10Mi"),
            (COMPRESSION, "on"),
            (ERROR_PAGES, "[{status: [404, 500-599], from: all, body: oops, contentType: text/plain}]"),
        ]);
        assert_eq!(problems, []);
        assert_eq!(
            found.to_string(),
            "rate-limit 100 per 60s, burst 20, by client; max-request-body 10485760; error-pages 404,500-599 (all); \
             compression zstd, br, gzip from 256 bytes"
        );
        let (off, _) = read(&[(RATE_LIMIT, "off"), (COMPRESSION, " off\n")]);
        assert_eq!((off.rate_limit, off.compression), (Some(Setting::Off), Some(Setting::Off)));
    }

    #[test]
    fn what_protects_says_so_when_it_cannot_be_read() {
        for (name, value, loss) in [
            (RATE_LIMIT, "", Loss::Protection),
            (RATE_LIMIT, "ten", Loss::Protection),
            (MAX_REQUEST_BODY, "10MB", Loss::Protection),
            (MAX_REQUEST_BODY, "-1", Loss::Protection),
            (MAX_REQUEST_BODY, "99999999999Gi", Loss::Protection),
            (COMPRESSION, "yes", Loss::Service),
            (ERROR_PAGES, "{}", Loss::Service),
        ] {
            assert_eq!(problem(name, value).loss, loss, "{name}: {value}");
        }
        let near = problem("limen.dev/ratelimit", "{}");
        assert_eq!(near.hint.as_deref(), Some("did you mean \"limen.dev/rate-limit\"?"));
        assert_eq!(near.loss, Loss::Protection);
        let far = problem("limen.dev/owner", "shop");
        assert_eq!(far.loss, Loss::Nothing);
        assert!(far.hint.unwrap().contains("error-pages"));
    }

    #[test]
    fn bytes_have_kubernetes_units() {
        for (text, wants) in [
            ("0", 0),
            ("65536", 65536),
            ("1k", 1000),
            ("64Ki", 65536),
            ("2Mi", 2 << 20),
            ("1G", 1_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(wants), "{text}");
        }
        for text in ["Ki", "1.5Mi", "0x10", "+1", "1 Mi", "1mi"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}

//! `corsPolicy`: which origins a browser may let read a response.
//!
//! Invariant: an origin that is not allowed is told so by silence: nothing is blocked, no header is taken away. No value
//! of the request reaches a response but the origin, method and headers that the policy lets be echoed.

use crate::matcher::StringMatcher;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// A cross-origin policy.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Origins that are allowed; none: no origin is.
    pub origins: Box<[StringMatcher]>,
    /// What preflights are told about methods.
    pub methods: Listed,
    /// What preflights are told about request headers.
    pub headers: Listed,
    /// Headers that scripts may read, joined by `,`.
    pub expose: Option<HeaderValue>,
    /// How long a preflight may be kept, in whole seconds.
    pub max_age: Option<HeaderValue>,
    /// Whether credentials are allowed.
    pub credentials: Credentials,
    /// What becomes of a preflight of an origin that is not allowed.
    pub unmatched: UnmatchedPreflight,
}

/// A list that a preflight is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// Nothing is said.
    #[default]
    Unsaid,
    /// What the preflight asked for (`*` alone).
    Asked,
    /// This, joined by `,`.
    These(HeaderValue),
}

/// Whether responses may be read by scripts that send credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// `access-control-allow-credentials: true`.
    Allow,
    /// Nothing is said.
    #[default]
    Unsaid,
}

/// What becomes of a preflight of an origin that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmatchedPreflight {
    /// It goes upstream.
    #[default]
    Forward,
    /// It is answered without an allowed origin.
    Answer,
}

/// What the policy makes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum CorsPlan<'r> {
    /// Nothing: not from another origin, or from one that is not allowed.
    Pass,
    /// Answer 200 with an empty body and what [`Cors::preflight`] writes.
    Preflight {
        /// The origin, where it is allowed.
        origin: Option<&'r HeaderValue>,
    },
    /// Forward, and let [`Cors::actual`] mark the response.
    Mark {
        /// The allowed origin.
        origin: &'r HeaderValue,
    },
}

impl Cors {
    /// Judges a request (Envoy: cors_filter.cc `decodeHeaders`).
    pub fn plan<'r>(&self, method: &Method, headers: &'r HeaderMap) -> CorsPlan<'r> {
        let Some(origin) = headers.get(header::ORIGIN).filter(|origin| !origin.is_empty()) else {
            return CorsPlan::Pass;
        };
        let allowed = self.origins.iter().any(|m| m.is_match(origin.as_bytes()) || m.is_match(b"*"));
        let preflight = *method == Method::OPTIONS
            && headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|asked| !asked.is_empty());
        match (preflight, allowed) {
            (true, true) => CorsPlan::Preflight { origin: Some(origin) },
            (true, false) if self.unmatched == UnmatchedPreflight::Answer => {
                CorsPlan::Preflight { origin: None }
            }
            (_, false) => CorsPlan::Pass,
            (false, true) => CorsPlan::Mark { origin },
        }
    }

    /// Writes the answer to a preflight.
    pub fn preflight(&self, origin: Option<&HeaderValue>, request: &HeaderMap, response: &mut HeaderMap) {
        if let Some(origin) = origin {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        self.allow_credentials(response);
        for (listed, asked, name) in [
            (&self.methods, header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
            (&self.headers, header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
        ] {
            let value = match listed {
                Listed::Unsaid => None,
                Listed::Asked => request.get(asked),
                Listed::These(list) => Some(list),
            };
            if let Some(value) = value {
                response.insert(name, value.clone());
            }
        }
        for (value, name) in [
            (&self.max_age, header::ACCESS_CONTROL_MAX_AGE),
            (&self.expose, header::ACCESS_CONTROL_EXPOSE_HEADERS),
        ] {
            if let Some(value) = value {
                response.insert(name, value.clone());
            }
        }
    }

    /// Marks the response to a request of an allowed origin; beats what the upstream or a rule said.
    pub fn actual(&self, origin: &HeaderValue, response: &mut HeaderMap) {
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        self.allow_credentials(response);
        if let Some(names) = &self.expose {
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
    }

    fn allow_credentials(&self, response: &mut HeaderMap) {
        const NAME: HeaderName = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
        if self.credentials == Credentials::Allow {
            response.insert(NAME, HeaderValue::from_static("true"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Cors {
        Cors {
            origins: [
                StringMatcher::Exact("https://a.example".into()),
                StringMatcher::Prefix("https://b.".into()),
            ]
            .into(),
            methods: Listed::These(HeaderValue::from_static("GET,POST")),
            headers: Listed::Asked,
            expose: Some(HeaderValue::from_static("x-a")),
            max_age: Some(HeaderValue::from_static("60")),
            credentials: Credentials::Allow,
            unmatched: UnmatchedPreflight::Forward,
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<_> = headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn without_an_origin_there_is_nothing_to_do() {
        for request in [&[][..], &[("origin", "")], &[("origin", "https://evil.example")]] {
            assert_eq!(policy().plan(&Method::GET, &headers(request)), CorsPlan::Pass);
        }
    }

    #[test]
    fn a_preflight_needs_options_and_the_method_it_asks_for() {
        let origin: HeaderValue = "https://b.x".parse().unwrap();
        let full = headers(&[("origin", "https://b.x"), ("access-control-request-method", "PUT")]);
        assert_eq!(policy().plan(&Method::OPTIONS, &full), CorsPlan::Preflight { origin: Some(&origin) });
        assert_eq!(policy().plan(&Method::GET, &full), CorsPlan::Mark { origin: &origin });
        let no_method = headers(&[("origin", "https://b.x")]);
        assert_eq!(policy().plan(&Method::OPTIONS, &no_method), CorsPlan::Mark { origin: &origin });
    }

    #[test]
    fn a_preflight_of_another_origin_is_forwarded_or_answered_without_it() {
        let full = headers(&[("origin", "https://evil.example"), ("access-control-request-method", "PUT")]);
        assert_eq!(policy().plan(&Method::OPTIONS, &full), CorsPlan::Pass);
        let policy = Cors { unmatched: UnmatchedPreflight::Answer, ..policy() };
        let plan = policy.plan(&Method::OPTIONS, &full);
        assert_eq!(plan, CorsPlan::Preflight { origin: None });
        let mut answer = HeaderMap::new();
        policy.preflight(None, &full, &mut answer);
        assert_eq!(
            shown(&answer),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-methods: GET,POST",
                "access-control-expose-headers: x-a",
                "access-control-max-age: 60"
            ]
        );
    }

    #[test]
    fn a_star_among_the_origins_allows_all_and_echoes() {
        for star in [
            StringMatcher::Exact("*".into()),
            StringMatcher::compile(&config_model::scalar::StringMatch::Regex(".*".into())).unwrap(),
        ] {
            let policy = Cors { origins: [star].into(), ..policy() };
            let request = headers(&[("origin", "https://any.example")]);
            let CorsPlan::Mark { origin } = policy.plan(&Method::GET, &request) else { panic!("allowed") };
            let mut response = headers(&[("access-control-allow-origin", "*")]);
            policy.actual(origin, &mut response);
            assert_eq!(
                shown(&response),
                [
                    "access-control-allow-credentials: true",
                    "access-control-allow-origin: https://any.example",
                    "access-control-expose-headers: x-a"
                ]
            );
        }
    }

    #[test]
    fn what_was_asked_is_echoed_where_the_list_is_a_star() {
        let request = headers(&[
            ("origin", "https://a.example"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-q,x-r"),
        ]);
        let policy =
            Cors { methods: Listed::Asked, credentials: Credentials::Unsaid, max_age: None, ..policy() };
        let mut answer = HeaderMap::new();
        policy.preflight(request.get("origin"), &request, &mut answer);
        assert_eq!(
            shown(&answer),
            [
                "access-control-allow-headers: x-q,x-r",
                "access-control-allow-methods: PUT",
                "access-control-allow-origin: https://a.example",
                "access-control-expose-headers: x-a"
            ]
        );
    }
}

//! From one `match` to the conditions on a request.
//!
//! Invariant: every field of the match that is judged by requests is a condition; those that are judged when compiling
//! (port, gateways, source) are not looked at here.

use crate::{
    claims::ClaimPath,
    header::HeaderKey,
    matcher::{Pattern, PatternError, StringMatcher},
    path::PathMatch,
    route::{Condition, RouteMatch},
};
use config_model::{istio::virtual_service::HttpMatchRequest, scalar::StringMatch};
use std::collections::HashMap;

/// Compiles matches; remembers patterns, because the same one tends to be written many times and is costly.
#[derive(Default)]
pub(super) struct Matchers {
    patterns: HashMap<String, Result<Pattern, PatternError>>,
}

impl Matchers {
    /// Compiles the conditions on a request; fails with the field and why.
    pub(super) fn compile(
        &mut self,
        request: &HttpMatchRequest,
    ) -> Result<RouteMatch, (String, PatternError)> {
        let path = match &request.uri {
            Some(StringMatch::Regex(text)) => {
                PathMatch::Regex(self.pattern(text).map_err(|e| ("uri".to_owned(), e))?)
            }
            other => PathMatch::compile(other.as_ref(), request.ignore_uri_case)
                .map_err(|e| ("uri".to_owned(), e))?,
        };
        let mut conditions = Vec::new();
        for (field, model) in
            [("method", &request.method), ("scheme", &request.scheme), ("authority", &request.authority)]
        {
            let Some(model) = model else { continue };
            let matcher = self.string_matcher(model).map_err(|e| (field.to_owned(), e))?;
            conditions.push(match field {
                "method" => Condition::Method(matcher),
                "scheme" => Condition::Scheme(matcher),
                _ => Condition::Authority(matcher),
            });
        }
        for (key, model) in &request.headers {
            let matcher = self.value_matcher(model.as_ref()).map_err(|e| (format!("headers[{key:?}]"), e))?;
            conditions.push(match ClaimPath::parse(key) {
                Some(path) => Condition::Claim { path, matcher },
                None => match HeaderKey::parse(key) {
                    Some(name) => Condition::Header { name, matcher },
                    None => Condition::Never { reason: format!("{key:?} is no header name").into() },
                },
            });
        }
        for (key, model) in &request.without_headers {
            let matcher =
                self.value_matcher(model.as_ref()).map_err(|e| (format!("withoutHeaders[{key:?}]"), e))?;
            conditions.push(match ClaimPath::parse(key) {
                Some(path) => Condition::NotClaim { path, matcher },
                // What is no header is always missing; it still keeps the entry from being a catch-all.
                None => match HeaderKey::parse(key) {
                    Some(name) => Condition::NotHeader { name, matcher },
                    None => Condition::NotHeader {
                        name: HeaderKey::Absent(key.as_str().into()),
                        matcher: StringMatcher::Present,
                    },
                },
            });
        }
        for (key, model) in &request.query_params {
            let matcher =
                self.value_matcher(model.as_ref()).map_err(|e| (format!("queryParams[{key:?}]"), e))?;
            conditions.push(Condition::Query { key: key.as_str().into(), matcher });
        }
        Ok(RouteMatch { path, conditions: conditions.into() })
    }

    fn pattern(&mut self, text: &str) -> Result<Pattern, PatternError> {
        if let Some(known) = self.patterns.get(text) {
            return known.clone();
        }
        let pattern = Pattern::new(text);
        self.patterns.insert(text.to_owned(), pattern.clone());
        pattern
    }

    fn string_matcher(&mut self, model: &StringMatch) -> Result<StringMatcher, PatternError> {
        match model {
            StringMatch::Regex(text) => self.pattern(text).map(StringMatcher::Regex),
            other => StringMatcher::compile(other),
        }
    }

    fn value_matcher(&mut self, model: Option<&StringMatch>) -> Result<StringMatcher, PatternError> {
        match model {
            Some(StringMatch::Regex(text)) if text != "*" => self.pattern(text).map(StringMatcher::Regex),
            other => StringMatcher::compile_value(other),
        }
    }
}

//! What the configuration adds to every span: Istio's own tags, and those of the user.
//!
//! Invariant: what does not depend on the request was looked up when the configuration was read; the environment of the process does
//! not change.

use super::span::Attributes;
use crate::telemetry::access_log::{Entry, Format, FormatError};
use config_model::istio::telemetry::CustomTag;
use http::{HeaderMap, HeaderName};
use std::collections::BTreeMap;

/// Tags by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tags(Vec<(String, Source)>);

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Fixed(String),
    Header(HeaderName, String),
    Format(Formatted),
}

/// A compiled format, which is what its text is.
#[derive(Clone, Debug)]
struct Formatted {
    text: String,
    format: Format,
}

impl Formatted {
    fn new(text: &str) -> Result<Self, FormatError> {
        Ok(Self { text: text.to_owned(), format: Format::value(text)? })
    }
}

impl PartialEq for Formatted {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Tags {
    /// The fixed ones, and what `written` says, which holds where both have a name.
    ///
    /// # Errors
    /// Name of the tag, and what is wrong with it, for each that cannot be; the others are there.
    pub fn new(
        fixed: impl IntoIterator<Item = (String, String)>,
        written: &BTreeMap<String, CustomTag>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Self, Vec<(String, String)>) {
        let mut tags: BTreeMap<String, Source> =
            fixed.into_iter().map(|(name, value)| (name, Source::Fixed(value))).collect();
        let mut problems = Vec::new();
        for (name, tag) in written {
            let source = match tag {
                CustomTag::Unset => continue,
                CustomTag::Literal(value) => Ok(Source::Fixed(value.clone())),
                CustomTag::Environment { name, default_value } => {
                    Ok(Source::Fixed(environment(name).unwrap_or_else(|| default_value.clone())))
                }
                CustomTag::Header { name, default_value } => HeaderName::from_bytes(name.as_bytes())
                    .map(|header| Source::Header(header, default_value.clone()))
                    .map_err(|_| format!("{name:?} is not a header name")),
                CustomTag::Formatter(text) => {
                    Formatted::new(text).map(Source::Format).map_err(|error| error.to_string())
                }
            };
            match source {
                Ok(source) => drop(tags.insert(name.clone(), source)),
                Err(problem) => problems.push((name.clone(), problem)),
            }
        }
        // One without a value is none (Envoy: `CustomTagBase::applySpan`).
        tags.retain(|_, source| !matches!(source, Source::Fixed(value) if value.is_empty()));
        (Self(tags.into_iter().collect()), problems)
    }

    /// Adds the tags of one request.
    pub(super) fn apply(&self, attributes: &mut Attributes, request: &HeaderMap, entry: &Entry<'_>) {
        for (name, source) in &self.0 {
            match source {
                Source::Fixed(value) => attributes.set(name, value),
                Source::Header(header, default) => {
                    let value = request.get(header).map(|value| String::from_utf8_lossy(value.as_bytes()));
                    let value = value.as_deref().unwrap_or(default);
                    if !value.is_empty() {
                        attributes.set(name, value);
                    }
                }
                Source::Format(formatted) => {
                    let mut line = Vec::new();
                    formatted.format.write(entry, &mut line);
                    let value = String::from_utf8_lossy(&line);
                    if !value.is_empty() {
                        attributes.set(name, &value);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::span::Value;

    fn tag(json: &str) -> CustomTag {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn tags_come_from_where_the_configuration_says() {
        let written = [
            ("literal", r#"{"literal":{"value":"1"}}"#),
            ("env", r#"{"environment":{"name":"POD","defaultValue":"d"}}"#),
            ("no-env", r#"{"environment":{"name":"NONE","defaultValue":"d"}}"#),
            ("nothing", r#"{"environment":{"name":"NONE"}}"#),
            ("header", r#"{"header":{"name":"X-Tenant"}}"#),
            ("no-header", r#"{"header":{"name":"x-none","defaultValue":"d"}}"#),
            ("absent", r#"{"header":{"name":"x-none"}}"#),
            ("istio.mesh_id", r#"{"literal":{"value":"mine"}}"#),
            ("formatted", r#"{"formatter":{"value":"%REQ(:METHOD)% %RESPONSE_CODE%"}}"#),
            ("wrong", r#"{"header":{"name":"a b"}}"#),
            ("worse", r#"{"formatter":{"value":"%NO%"}}"#),
        ];
        let written = written.iter().map(|(name, json)| ((*name).to_owned(), tag(json))).collect();
        let fixed = [("istio.mesh_id", "m"), ("istio.namespace", "ns")];
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = |name: &str| (name == "POD").then(|| "pod-1".to_owned());
        let (tags, problems) = Tags::new(fixed, &written, &environment);
        assert_eq!(problems.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["worse", "wrong"]);
        let request: HeaderMap =
            [(HeaderName::from_static("x-tenant"), "t".parse().unwrap())].into_iter().collect();
        let mut attributes = Attributes::default();
        let entry = Entry { method: "GET", response_code: 200, ..Entry::empty(&request) };
        tags.apply(&mut attributes, &request, &entry);
        let found: Vec<(&str, &Value)> = attributes.iter().collect();
        let want = [
            ("env", "pod-1"),
            ("formatted", "GET 200"),
            ("header", "t"),
            ("istio.mesh_id", "mine"),
            ("istio.namespace", "ns"),
            ("literal", "1"),
            ("no-env", "d"),
            ("no-header", "d"),
        ];
        assert_eq!(
            found,
            want.map(|(name, value)| (name, Value::Text(value.to_owned())))
                .iter()
                .map(|(name, value)| (*name, value))
                .collect::<Vec<_>>()
        );
    }
}

//! JSON formats of the user's: objects of any depth, with operators in their texts.
//!
//! Invariant: a text that is one operator keeps its type, numbers and `null` among them (Envoy: `JsonFormatterImpl`); keys are in the order
//! of their letters, so that two lines compare.

use super::{
    format::{Entry, FormatError, Segment, segments},
    operator::push,
};
use config_model::mesh::provider::LogValue;
use std::collections::BTreeMap;

/// A compiled value.
#[derive(Clone, Debug)]
pub(super) enum Json {
    /// Operators, and text around them.
    Text(Vec<Segment>),
    /// Written already.
    Fixed(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Whether what is not known is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    Keep,
    Omit,
}

impl Json {
    /// An object of the user's.
    ///
    /// # Errors
    /// Where an operator is not known.
    pub(super) fn object(fields: &BTreeMap<String, LogValue>) -> Result<Self, FormatError> {
        let compiled = fields.iter().map(|(key, value)| Ok((quoted(key), Self::compile(value)?)));
        compiled.collect::<Result<_, _>>().map(Self::Object)
    }

    /// Any value of the user's.
    ///
    /// # Errors
    /// As [`object`](Self::object).
    pub(super) fn compile(value: &LogValue) -> Result<Self, FormatError> {
        Ok(match value {
            LogValue::Text(text) => Self::Text(segments(text)?),
            LogValue::Bool(value) => Self::Fixed(value.to_string()),
            // Formatting leaves out a fraction that is none, and JSON has nothing that is not finite.
            LogValue::Number(number) if number.is_finite() => Self::Fixed(number.to_string()),
            LogValue::Number(_) => Self::Fixed("null".to_owned()),
            LogValue::List(values) => Self::List(values.iter().map(Self::compile).collect::<Result<_, _>>()?),
            LogValue::Fields(fields) => Self::object(fields)?,
        })
    }

    /// Appends the value for one request.
    pub(super) fn write(&self, entry: &Entry<'_>, empty: Empty, out: &mut Vec<u8>) {
        match self {
            Self::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Self::Text(segments) => match segments.as_slice() {
                [Segment::Operator(only)] => only.json(entry, out),
                several => {
                    let mut text = Vec::new();
                    for segment in several {
                        match segment {
                            Segment::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                            Segment::Operator(operator) => operator.plain(entry, &mut text),
                        }
                    }
                    out.extend_from_slice(quoted(&String::from_utf8_lossy(&text)).as_bytes());
                }
            },
            Self::List(values) => {
                out.push(b'[');
                for (place, value) in values.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    value.write(entry, empty, out);
                }
                out.push(b']');
            }
            Self::Object(fields) => {
                out.push(b'{');
                let mut first = true;
                for (key, value) in fields {
                    if empty == Empty::Omit && value.is_missing(entry) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    push(out, format_args!("{key}:"));
                    value.write(entry, empty, out);
                }
                out.push(b'}');
            }
        }
    }

    fn is_missing(&self, entry: &Entry<'_>) -> bool {
        matches!(self, Self::Text(segments)
            if matches!(segments.as_slice(), [Segment::Operator(only)] if only.is_missing(entry)))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_format_keeps_types() {
        let fields: BTreeMap<String, LogValue> = serde_json::from_str(
            r#"{"code":"%RESPONSE_CODE%","line":"%REQ(:METHOD)% \"%REQ(x-a)%\"","route":"%ROUTE_NAME%",
                "more":{"list":[1,true,"%DURATION%"]}}"#,
        )
        .unwrap();
        let json = Json::object(&fields).unwrap();
        let headers = [(http::HeaderName::from_static("x-a"), "q\"é".parse().unwrap())].into_iter().collect();
        let entry = Entry { response_code: 404, method: "GET", ..Entry::empty(&headers) };
        let line = |empty| {
            let mut out = Vec::new();
            json.write(&entry, empty, &mut out);
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        let mut want = serde_json::json!({
            "code": 404, "line": "GET \"q\"é\"", "route": null, "more": {"list": [1, true, 0]}
        });
        assert_eq!(line(Empty::Keep), want);
        want.as_object_mut().unwrap().remove("route");
        assert_eq!(line(Empty::Omit), want);
        let bad: BTreeMap<String, LogValue> = serde_json::from_str(r#"{"a":{"b":["%NO%"]}}"#).unwrap();
        assert!(Json::object(&bad).is_err());
    }
}

//! Cross-origin policies (Istio: validateCORSPolicy).

use super::{At, Check, matching};
use crate::{
    istio::{VirtualService, virtual_service::CorsPolicy},
    scalar::{Duration, StringMatch},
};

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

pub(super) fn check(check: &mut Check<'_, VirtualService>, path: At<'_>, cors: &CorsPolicy) {
    if !cors.allow_origin.is_empty() {
        check.deprecated(format!("{path}.allowOrigin"), "allowOrigin is deprecated; use allowOrigins");
    }
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let path = format_args!("{path}.allowOrigins[{index}]");
        let text = match origin {
            StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Regex(text) => text.as_str(),
            StringMatch::Present => "",
        };
        if text.is_empty() {
            check.error(path, "'' is not a valid match type for CORS allow origins");
        } else {
            matching::regex(check, path, origin);
        }
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            check.error(
                format!("{path}.allowMethods[{index}]"),
                format!("{method:?} is not a supported HTTP method"),
            );
        }
    }
    for (field, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (index, name) in names.iter().enumerate() {
            if !matching::is_token(name) {
                check.error(
                    format!("{path}.{field}[{index}]"),
                    format!("header name {name} is not a valid header name"),
                );
            }
        }
    }
    let Some(age) = cors.max_age else { return };
    let path = format_args!("{path}.maxAge");
    if age < Duration::from_secs(1) {
        check.error(path, format!("duration must be at least 1s, not {age}"));
    } else if age.as_std().subsec_nanos() != 0 {
        check.error(path, "max_age duration is accurate only to seconds precision");
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::virtual_service::http::tests::rule;

    #[test]
    fn cors_policies() {
        for (cors, finds) in [
            (
                "{allowOrigins: [{exact: 'https://a'}, {regex: 'a.*'}], allowMethods: [GET, '*'], allowHeaders: ['*', x-a], maxAge: 24h}",
                vec![],
            ),
            ("{allowOrigins: [{exact: ''}]}", vec!["!IST0106 corsPolicy.allowOrigins[0]"]),
            ("{allowOrigins: [{}]}", vec!["!IST0106 corsPolicy.allowOrigins[0]"]),
            ("{allowOrigins: [{prefix: ''}]}", vec!["!IST0106 corsPolicy.allowOrigins[0]"]),
            ("{allowOrigins: [{regex: '*'}]}", vec!["!IST0106 corsPolicy.allowOrigins[0].regex"]),
            ("{allowMethods: [FETCH]}", vec!["!IST0106 corsPolicy.allowMethods[0]"]),
            ("{allowMethods: [get]}", vec!["!IST0106 corsPolicy.allowMethods[0]"]),
            ("{allowHeaders: ['a b']}", vec!["!IST0106 corsPolicy.allowHeaders[0]"]),
            ("{exposeHeaders: ['']}", vec!["!IST0106 corsPolicy.exposeHeaders[0]"]),
            ("{maxAge: 1.5s}", vec!["!IST0106 corsPolicy.maxAge"]),
            ("{maxAge: 0s}", vec!["!IST0106 corsPolicy.maxAge"]),
            ("{allowOrigin: [a]}", vec!["IST0002 corsPolicy.allowOrigin"]),
        ] {
            assert_eq!(rule(&format!("corsPolicy: {cors}")), finds, "{cors}");
        }
    }
}

//! Retries that may do a thing twice: a request that is not idempotent, sent again after an endpoint may have acted on it.
//!
//! RFC 9110 §9.2.2: POST, PATCH and CONNECT are not idempotent, and neither is a method that nobody knows.

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics, Severity},
    istio::{VirtualService, virtual_service::HttpRoute},
    meta::Resource,
    scalar::StringMatch,
};

/// Methods that may be repeated.
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

/// Conditions under which no endpoint has acted on the request yet, or says that it did not.
const BEFORE_ACTING: [&str; 8] = [
    "connect-failure",
    "refused-stream",
    "reset-before-request",
    "envoy-ratelimited",
    "unavailable",
    "cancelled",
    "resource-exhausted",
    "http3-post-connect-failure",
];

pub(super) fn check(resource: &Resource<VirtualService>, out: &mut Diagnostics) {
    for (index, route) in resource.spec.http.iter().enumerate() {
        if let Some(finding) = repeats(route) {
            let path = format!("spec.http[{index}].retries.retryOn");
            out.push(finding.about(&resource.key, &resource.origin).at(path));
        }
    }
}

fn repeats(route: &HttpRoute) -> Option<Diagnostic> {
    let retries = route.retries.as_ref().filter(|retries| retries.attempts > 0)?;
    let mut conditions = retries.retry_on.split(',').filter(|condition| !condition.is_empty());
    let condition = conditions.find(|condition| !BEFORE_ACTING.contains(condition))?;
    let named =
        route.matches.iter().filter_map(|entry| entry.method.as_ref()).find_map(|method| match method {
            StringMatch::Exact(name) if !IDEMPOTENT.contains(&name.as_str()) => Some(name),
            _ => None,
        });
    let any =
        route.matches.is_empty() || route.matches.iter().any(|entry| !is_idempotent(entry.method.as_ref()));
    let (severity, whom) = match (named, any) {
        (Some(name), _) => (Severity::Warning, format!("{name} requests")),
        (None, true) => (Severity::Info, "POST and PATCH requests too".to_owned()),
        (None, false) => return None,
    };
    let message = format!(
        "retryOn {condition:?} repeats {whom} after an endpoint may have acted on them, so that one order may become two"
    );
    let hint = "give the methods that may be repeated a rule of their own (method: {exact: GET}), or retry on connect-failure,refused-stream only";
    Some(Diagnostic::new(Code::RETRIES_REPEAT, message).severity(severity).hint(hint))
}

/// Whether only methods that may be repeated match. Of a pattern that is not known.
fn is_idempotent(method: Option<&StringMatch>) -> bool {
    matches!(method, Some(StringMatch::Exact(name)) if IDEMPOTENT.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{VS, run};

    #[test]
    fn repeats() {
        for (entry, on, finds) in [
            ("{method: {exact: POST}}", "5xx", Some("Warning")),
            ("{method: {exact: POST}}", "connect-failure,503", Some("Warning")),
            ("{method: {exact: POST}}", "connect-failure,refused-stream", None),
            ("{method: {exact: POST}}", "", None),
            ("{method: {exact: GET}}", "5xx", None),
            ("{method: {exact: GET}}, {method: {exact: PUT}}", "5xx", None),
            ("{uri: {exact: /a}}", "5xx", Some("Info")),
            ("{method: {regex: 'GET|POST'}}", "reset", Some("Info")),
            ("{method: {exact: GET}}, {method: {exact: PATCH}}", "5xx", Some("Warning")),
        ] {
            let (_, found) = run(&format!(
                "{VS}  hosts: [a.com]\n  http:\n  - {{match: [{entry}], retries: {{attempts: 2, retryOn: '{on}'}}, route: [{{destination: {{host: a.b}}}}]}}\n"
            ));
            let found = found.iter().find(|d| d.code.as_str() == "LIM0019").map(|d| d.severity.to_string());
            assert_eq!(found.as_deref(), finds, "{entry} {on}");
        }
    }
}

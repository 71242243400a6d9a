//! Asking over HTTP: the head of the request as it came, and what the answer's head says.
//!
//! Invariant: a provider sees method, path, host and `Authorization`, and of the other headers those that are named for it. What it
//! answers with 200 is let in, and 5xx is no answer (asked of Envoy 1.40).

use super::{
    super::super::{Reply, RequestHead},
    CallError, Changes, Decision, Service,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use routing::authz::provider::{HttpCheck, Provider};
use std::fmt::Display;

/// Headers of the request that the answer wants gone.
const REMOVE: &str = "x-envoy-auth-headers-to-remove";

pub(super) async fn ask(
    service: &dyn Service,
    provider: &Provider,
    check: &HttpCheck,
    request: &RequestHead<'_>,
) -> Result<Decision, CallError> {
    let question = question(check, request)?;
    let answer = service.call(question).await?;
    match answer.status() {
        StatusCode::OK => Ok(Decision::Allow(changes(check, answer.headers()))),
        status if status.is_server_error() => {
            Err(CallError::new(format!("{} answered {status}", provider.name)))
        }
        _ => Ok(Decision::Deny(denial(check, answer))),
    }
}

fn question(check: &HttpCheck, request: &RequestHead<'_>) -> Result<Request<Bytes>, CallError> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let uri = Uri::builder()
        .scheme("http")
        .authority(request.authority())
        .path_and_query(format!("{}{target}", check.path_prefix))
        .build();
    let mut question = Request::new(Bytes::new());
    *question.method_mut() = request.method().clone();
    *question.uri_mut() = uri.map_err(|error| CallError::new(error.to_string()))?;
    let headers = question.headers_mut();
    for (name, value) in request.headers() {
        let own = matches!(*name, header::HOST | header::CONTENT_LENGTH) || crate::policy::is_protected(name);
        if !own && (*name == header::AUTHORIZATION || check.sees.contains(name)) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in &check.adds {
        headers.insert(name.clone(), value.clone());
    }
    Ok(question)
}

fn changes(check: &HttpCheck, answer: &HeaderMap) -> Changes {
    let chosen = |names: &routing::authz::provider::Names| -> Vec<(HeaderName, HeaderValue)> {
        let all = answer.iter().filter(|(name, _)| names.contains(name));
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let remove = answer.get_all(REMOVE).iter().filter_map(|value| value.to_str().ok());
    let remove = remove.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok());
    Changes {
        set: chosen(&check.to_upstream),
        remove: remove.collect(),
        to_client: chosen(&check.to_client_on_allow),
        ..Changes::default()
    }
}

/// The refusal as the provider wrote it. Where headers are chosen, those that a refusal needs are among them.
fn denial(check: &HttpCheck, answer: Response<Bytes>) -> Reply {
    let (parts, body) = answer.into_parts();
    let needed = |name: &HeaderName| *name == header::WWW_AUTHENTICATE || *name == header::LOCATION;
    let all = check.to_client_on_deny.is_empty();
    let mut reply = Reply::new(parts.status);
    if !all && !body.is_empty() {
        reply = Reply::new(parts.status).body(HeaderValue::from_static("text/plain"), body);
    } else {
        reply.body = body;
    }
    for (name, value) in &parts.headers {
        if *name != header::DATE && (all || needed(name) || check.to_client_on_deny.contains(name)) {
            reply = reply.header(name.clone(), value.clone());
        }
    }
    reply
}

/// A query, with its question mark, in which parameters are taken out and others set. Those that stay are as they were sent.
pub(super) fn edit_query(query: Option<&str>, set: &[(String, String)], remove: &[String]) -> String {
    let gone = |name: &str| remove.iter().any(|gone| gone == name) || set.iter().any(|(set, _)| set == name);
    let kept = query.into_iter().flat_map(|query| query.split('&')).filter(|pair| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        !pair.is_empty() && !gone(name)
    });
    let set = set.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    let pairs: Vec<String> = kept.map(str::to_owned).chain(set).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// As a name or a value in a query: all but what stands for itself anywhere in a URI (RFC 3986 §2.3).
fn escaped(text: &str) -> impl Display + '_ {
    const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, &UNRESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_out_and_set() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let gone = ["q".to_owned()];
        assert_eq!(edit_query(Some("q=1&z=%20"), &[pair("n", "v w")], &gone), "?z=%20&n=v%20w");
        assert_eq!(edit_query(Some("q=1"), &[], &gone), "");
        assert_eq!(edit_query(None, &[pair("a", "b")], &[]), "?a=b");
        assert_eq!(edit_query(Some("a=1&a=2"), &[pair("a", "b")], &[]), "?a=b");
    }
}

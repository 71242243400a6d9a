//! Asking over gRPC: `envoy.service.auth.v3.Authorization/Check`.
//!
//! Invariant: a provider sees every header of the request, in Envoy's form; what it answers is read as Envoy 1.40 does, where a
//! status of its own that is not zero refuses.

use super::{
    super::super::{Reply, RequestHead},
    CallError, Changes, Decision, Service,
    message::{Broken, Fields, Value, Writer, fields},
};
use crate::policy::Subject;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, Version, header};
use routing::authz::provider::Provider;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

pub(super) async fn ask(
    service: &dyn Service,
    provider: &Provider,
    request: &RequestHead<'_>,
) -> Result<Decision, CallError> {
    call(service, provider, &check(&request.client().subject(), Some(request))).await
}

/// Asks about a connection that is not looked into.
pub(in super::super) async fn ask_of_connection(
    service: &dyn Service,
    provider: &Provider,
    subject: &Subject<'_>,
) -> Result<bool, CallError> {
    Ok(matches!(call(service, provider, &check(subject, None)).await?, Decision::Allow(_)))
}

async fn call(service: &dyn Service, provider: &Provider, check: &[u8]) -> Result<Decision, CallError> {
    let question = question(provider, check)?;
    let answer = service.call(question).await?;
    let status = answer.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    if answer.status() != StatusCode::OK || status.is_some_and(|status| status != "0") {
        let status =
            status.map_or_else(|| answer.status().to_string(), |status| format!("gRPC status {status}"));
        return Err(CallError::new(format!("{} answered {status}", provider.name)));
    }
    let message = unframed(answer.body()).ok_or_else(|| CallError::new("an answer without a message"))?;
    decision(message).map_err(|Broken| CallError::new("an answer that cannot be read"))
}

fn question(provider: &Provider, check: &[u8]) -> Result<Request<Bytes>, CallError> {
    let uri = Uri::builder().scheme("http").authority(&*provider.host).path_and_query(METHOD).build();
    let length = u32::try_from(check.len()).map_err(|_| CallError::new("a question that is too long"))?;
    let framed = [&[0], length.to_be_bytes().as_slice(), check].concat();
    let mut question = Request::new(Bytes::from(framed));
    *question.method_mut() = http::Method::POST;
    *question.uri_mut() = uri.map_err(|error| CallError::new(error.to_string()))?;
    let headers = question.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let timeout = format!("{}m", provider.timeout.as_millis().min(99_999_999));
    if let Ok(timeout) = HeaderValue::from_str(&timeout) {
        headers.insert("grpc-timeout", timeout);
    }
    Ok(question)
}

/// The one message of an answer, which is not compressed.
fn unframed(body: &[u8]) -> Option<&[u8]> {
    let (head, rest) = body.split_at_checked(5)?;
    let (compressed, length) = head.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (*compressed == 0).then(|| rest.get(..usize::try_from(length).ok()?)).flatten()
}

/// A `CheckRequest`.
fn check(subject: &Subject<'_>, request: Option<&RequestHead<'_>>) -> Vec<u8> {
    let principal = subject
        .certificate
        .and_then(|shown| shown.uris.first().or(shown.dns.first()))
        .map_or("", String::as_str);
    let source = peer(subject.peer).bytes(4, principal);
    let mut attributes = Writer::default().message(1, source).message(2, peer(subject.local));
    if let Some(request) = request {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Writer::default().number(1, now.as_secs()).number(2, u64::from(now.subsec_nanos()));
        attributes = attributes.message(4, Writer::default().message(1, time).message(2, http(request)));
    }
    if let Some(sni) = subject.sni {
        attributes = attributes.message(12, Writer::default().bytes(1, sni));
    }
    Writer::default().message(1, attributes).finish()
}

fn peer(address: SocketAddr) -> Writer {
    let socket = Writer::default().bytes(2, address.ip().to_string()).number(3, u64::from(address.port()));
    Writer::default().message(1, Writer::default().message(1, socket))
}

fn http(request: &RequestHead<'_>) -> Writer {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let protocol = match request.version() {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    let (method, scheme) = (request.method().as_str(), request.scheme().as_str());
    let id = request.headers().get("x-request-id").map_or(&b""[..], HeaderValue::as_bytes);
    let mut http = Writer::default().bytes(1, id).bytes(2, method);
    // Lines of one header are one value, as everywhere in Envoy's messages.
    let mut headers: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (name, value) in request.headers().iter().filter(|(name, _)| **name != header::HOST) {
        match headers.entry(name.as_str()) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(value.as_bytes().to_vec());
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let between: &[u8] = if *name == header::COOKIE { b"; " } else { b"," };
                entry.get_mut().extend([between, value.as_bytes()].concat());
            }
        }
    }
    for (name, value) in
        [(":authority", request.authority()), (":method", method), (":path", target), (":scheme", scheme)]
    {
        headers.insert(name, value.as_bytes().to_vec());
    }
    for (name, value) in headers {
        // A field of type string must be UTF-8 (Envoy: `sanitizeUtf8String`).
        http = http.entry(3, name, String::from_utf8_lossy(&value).as_bytes());
    }
    http.bytes(4, target).bytes(5, request.authority()).bytes(6, scheme).bytes(10, protocol)
}

/// Reads a `CheckResponse`.
fn decision(message: &[u8]) -> Result<Decision, Broken> {
    let (mut code, mut denied, mut ok) = (0, None, None);
    for field in fields(message) {
        match field? {
            (1, status) => {
                for field in fields(status.as_bytes()?) {
                    if let (1, value) = field? {
                        code = value.as_number()?;
                    }
                }
            }
            (2, value) => denied = Some(value.as_bytes()?),
            (3, value) => ok = Some(value.as_bytes()?),
            _ => {}
        }
    }
    match (code, ok) {
        (0, ok) => ok.map_or(Ok(Changes::default()), changes).map(Decision::Allow),
        (_, _) => denial(denied.unwrap_or_default()).map(Decision::Deny),
    }
}

/// Reads a `DeniedHttpResponse`.
fn denial(message: &[u8]) -> Result<Reply, Broken> {
    let (mut status, mut headers, mut body) = (StatusCode::FORBIDDEN, Vec::new(), &b""[..]);
    for field in fields(message) {
        match field? {
            (1, value) => {
                for field in fields(value.as_bytes()?) {
                    if let (1, value) = field? {
                        let code = u16::try_from(value.as_number()?).map_err(|_| Broken)?;
                        status =
                            StatusCode::from_u16(code).ok().filter(|s| s.as_u16() >= 200).ok_or(Broken)?;
                    }
                }
            }
            (2, value) => headers.push(option(value)?),
            (3, value) => body = value.as_bytes()?,
            _ => {}
        }
    }
    let mut reply = Reply::new(status);
    if !body.is_empty() {
        let typed = headers.iter().any(|option| option.name == "content-type");
        reply = match typed {
            true => Reply { body: Bytes::copy_from_slice(body), ..reply },
            false => reply.body(HeaderValue::from_static("text/plain"), Bytes::copy_from_slice(body)),
        };
    }
    // There is nothing yet that a header could be appended to.
    for option in headers.iter().filter(|option| !option.append) {
        if let Some((name, value)) = option.header() {
            reply = reply.header(name, value);
        }
    }
    Ok(reply)
}

/// Reads an `OkHttpResponse`.
fn changes(message: &[u8]) -> Result<Changes, Broken> {
    let mut changes = Changes::default();
    for field in fields(message) {
        match field? {
            (2, value) => {
                let option = option(value)?;
                let text = || String::from_utf8_lossy(option.value).into_owned();
                match option.name {
                    ":path" => changes.target = Some(text()),
                    ":authority" | "host" => changes.authority = Some(text()),
                    _ => {
                        let list = if option.append { &mut changes.append } else { &mut changes.set };
                        list.extend(option.header());
                    }
                }
            }
            (5, value) => changes.remove.extend(value.as_text()?.parse::<HeaderName>().ok()),
            (6, value) => changes.to_client.extend(option(value)?.header()),
            (7, value) => {
                let (key, value) = pair(fields(value.as_bytes()?))?;
                changes.set_parameters.push((key.to_owned(), String::from_utf8_lossy(value).into_owned()));
            }
            (8, value) => changes.remove_parameters.push(value.as_text()?.to_owned()),
            _ => {}
        }
    }
    Ok(changes)
}

/// A `HeaderValueOption`.
struct HeaderOption<'m> {
    name: &'m str,
    value: &'m [u8],
    append: bool,
}

impl HeaderOption<'_> {
    /// `None`: it is none that HTTP could carry.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some((self.name.parse().ok()?, HeaderValue::from_bytes(self.value).ok()?))
    }
}

fn option(message: Value<'_>) -> Result<HeaderOption<'_>, Broken> {
    let mut option = HeaderOption { name: "", value: b"", append: false };
    for field in fields(message.as_bytes()?) {
        match field? {
            (1, value) => (option.name, option.value) = pair(fields(value.as_bytes()?))?,
            (2, value) => {
                for field in fields(value.as_bytes()?) {
                    if let (1, value) = field? {
                        option.append = value.as_number()? != 0;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(option)
}

/// Key and value of a `HeaderValue` or a `QueryParameter`; the raw value, where there is one.
fn pair<'m>(message: Fields<'m>) -> Result<(&'m str, &'m [u8]), Broken> {
    let (mut key, mut value) = ("", &b""[..]);
    for field in message {
        match field? {
            (1, field) => key = field.as_text()?,
            (2 | 3, field) => value = field.as_bytes()?,
            _ => {}
        }
    }
    Ok((key, value))
}

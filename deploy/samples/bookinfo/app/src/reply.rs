//! The answers a service gives, built in one place so that every one carries a type and a length.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

pub(crate) type Reply = Response<Full<Bytes>>;

pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => with_type(status, "application/json", body),
        Err(error) => {
            with_type(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", error.to_string())
        }
    }
}

/// A JSON object with the one key `error`.
pub(crate) fn error(status: StatusCode, message: &str) -> Reply {
    json(status, &serde_json::json!({ "error": message }))
}

pub(crate) fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "no such page")
}

pub(crate) fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

pub(crate) fn healthy(service: &str) -> Reply {
    json(StatusCode::OK, &serde_json::json!({ "status": format!("{service} is healthy") }))
}

/// The book's number when `path` is `/<collection>/<number>`.
pub(crate) fn book_id(path: &str, collection: &str) -> Option<u32> {
    path.strip_prefix('/')?.strip_prefix(collection)?.strip_prefix('/')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_named_by_its_collection_and_number() {
        assert_eq!(book_id("/reviews/7", "reviews"), Some(7));
        for path in ["/reviews", "/reviews/", "/reviews/x", "/reviews/1/2", "/reviewsx/1", "/ratings/1"] {
            assert_eq!(book_id(path, "reviews"), None, "{path}");
        }
    }
}

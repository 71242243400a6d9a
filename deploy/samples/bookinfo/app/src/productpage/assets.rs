//! The files below /static/. They are part of the program: the page needs nothing from anywhere else.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};

use crate::reply::{self, Reply};

pub(crate) fn serve(name: &str) -> Reply {
    let (content_type, body) = match name {
        "style.css" => ("text/css; charset=utf-8", include_str!("../../static/style.css")),
        "ask.js" => ("text/javascript; charset=utf-8", include_str!("../../static/ask.js")),
        "icon.svg" => ("image/svg+xml", include_str!("../../static/icon.svg")),
        _ => return reply::not_found(),
    };
    let mut reply = reply::with_type(StatusCode::OK, content_type, body);
    let headers = reply.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::CONTENT_TYPE;

    #[test]
    fn a_file_has_its_type_and_anything_else_is_not_there() {
        assert_eq!(serve("style.css").headers().get(CONTENT_TYPE).unwrap(), "text/css; charset=utf-8");
        for name in ["", "nope.css", "../src/main.rs"] {
            assert_eq!(serve(name).status(), StatusCode::NOT_FOUND, "{name}");
        }
    }
}

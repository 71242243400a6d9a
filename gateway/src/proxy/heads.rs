//! Heads as plain header maps, for editing.
//!
//! Invariant: nothing but the case of header names is lost, and Envoy keeps none either. The engine's own edits parse
//! each name anew and keep a second map for its case; a gateway edits a dozen headers a request.

use http::{HeaderValue, request, response};
use pingora_http::{RequestHeader, ResponseHeader};

/// Headers that the edge adds to a request, and those that are added to most responses. The engine's maps begin with room for twelve:
/// more is not asked for in advance, because a map that grows is hashed anew, and most have room for what a rule adds too.
const ROOM: usize = 4;
const RESPONSE_ROOM: usize = 3;

/// A number as a header value; the small ones, which most are, are made already.
pub(super) fn number(n: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(n).ok().and_then(|n| SMALL.get(n)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(n),
    }
}

/// Lets `edit` change a request head whose target is in origin form, and makes room for what it adds.
pub(super) fn edit_client<R>(head: &mut RequestHeader, edit: impl FnOnce(&mut request::Parts) -> R) -> R {
    edit_request(head, |parts| {
        parts.headers.reserve(ROOM);
        edit(parts)
    })
}

/// Lets `edit` change a request head whose target is in origin form.
pub(super) fn edit_request<R>(head: &mut RequestHeader, edit: impl FnOnce(&mut request::Parts) -> R) -> R {
    let mut taken = TakenRequest::from(head);
    let result = edit(&mut taken.parts);
    taken.put_back(head);
    result
}

/// A request head that was taken out of its session to be edited for longer than a call.
pub(super) struct TakenRequest {
    pub(super) parts: request::Parts,
    ends: Option<bool>,
}

impl TakenRequest {
    /// Leaves a blank head in its place.
    pub(super) fn from(head: &mut RequestHeader) -> Self {
        let ends = head.send_end_stream();
        let blank = RequestHeader::from(http::Request::new(()).into_parts().0);
        Self { parts: request::Parts::from(std::mem::replace(head, blank)), ends }
    }

    pub(super) fn put_back(self, head: &mut RequestHeader) {
        *head = RequestHeader::from(self.parts);
        if let Some(ends) = self.ends {
            head.set_send_end_stream(ends);
        }
    }
}

/// Lets `edit` change a response head; its reason phrase becomes the status' own (RFC 9112 §4: clients ignore it).
pub(super) fn edit_response<R>(head: &mut ResponseHeader, edit: impl FnOnce(&mut response::Parts) -> R) -> R {
    let blank = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts = response::Parts::from(std::mem::replace(head, blank));
    parts.headers.reserve(RESPONSE_ROOM);
    let result = edit(&mut parts);
    *head = ResponseHeader::from(parts);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn an_edit_keeps_everything_else() {
        let mut head = RequestHeader::build("POST", b"/a?b=c", None).unwrap();
        head.append_header("X-One", "1").unwrap();
        head.append_header("x-one", "2").unwrap();
        head.set_version(http::Version::HTTP_2);
        head.set_send_end_stream(false);
        edit_request(&mut head, |parts| parts.headers.insert("x-two", HeaderValue::from_static("3")));
        assert_eq!(
            (head.method.as_str(), head.raw_path(), head.version),
            ("POST", &b"/a?b=c"[..], http::Version::HTTP_2)
        );
        let ones: Vec<_> = head.headers.get_all("x-one").iter().collect();
        assert_eq!((ones.len(), head.headers.len()), (2, 3));
        // What the engine says of HTTP/1 heads, which have no such flag.
        assert_eq!(head.send_end_stream(), Some(false));
        let mut head = ResponseHeader::build(418, None).unwrap();
        edit_response(&mut head, |parts| parts.headers.insert("x-two", HeaderValue::from_static("3")));
        assert_eq!((head.status.as_u16(), head.headers.len()), (418, 1));
    }
}

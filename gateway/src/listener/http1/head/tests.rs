//! Heads as they come: what is read of good ones, and which flaw a bad one has.

use super::*;

fn read(head: &str) -> Result<Option<Head>, Flaw> {
    scan(head.as_bytes(), &HeadPolicy::default()).map_err(|bad| bad.flaw)
}

fn good(head: &str) -> Head {
    read(head).unwrap_or_else(|flaw| panic!("{head:?}: {flaw:?}")).unwrap_or_else(|| panic!("{head:?}"))
}

#[test]
fn an_ordinary_head_passes_and_says_how_long_its_body_is() {
    for (head, body) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Body::Length(0)),
        ("\r\nGET /a?b#c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", Body::Length(3)),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:  Chunked \r\n\r\n", Body::Chunked),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nX_Y:\t\u{e9}\t\r\nConnection: x-y, close\r\n\r\n",
            Body::Length(0),
        ),
        ("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", Body::Length(0)),
    ] {
        let read = good(head);
        assert_eq!((read.len, read.body, read.rewritten), (head.len(), body, None), "{head:?}");
    }
}

#[test]
fn what_is_not_complete_is_waited_for_wherever_it_was_cut() {
    let head = "\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    for cut in 0..head.len() {
        assert_eq!(read(&head[..cut]), Ok(None), "{:?}", &head[..cut]);
    }
    assert_eq!(good(&format!("{head}abcGET")).len, head.len());
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for (head, flaw) in [
        ("GET / HTTP/1.1\nHost: a\n\n", Flaw::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Flaw::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Flaw::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Flaw::Characters),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", Flaw::Characters),
        ("\x16\x03\x01\x02", Flaw::Characters),
        ("GET  / HTTP/1.1\r\n", Flaw::RequestLine),
        ("GET /a b HTTP/1.1\r\n", Flaw::RequestLine),
        ("GET /a\tb HTTP/1.1\r\n", Flaw::Target),
        ("GET /\u{e9} HTTP/1.1\r\n", Flaw::Target),
        ("GET /\r\n", Flaw::RequestLine),
        ("GET / http/1.1\r\n", Flaw::RequestLine),
        ("GET / HTTP/1.1 \r\n", Flaw::RequestLine),
        (" GET / HTTP/1.1\r\n", Flaw::RequestLine),
        ("GET / HTTP/1.0\r\n", Flaw::Version),
        ("GET / HTTP/2.0\r\n", Flaw::Version),
        ("GET * HTTP/1.1\r\n", Flaw::Target),
        ("GET a/b HTTP/1.1\r\n", Flaw::Target),
        ("GET ftp://a/ HTTP/1.1\r\n", Flaw::Target),
        ("GET http:/\\a/ HTTP/1.1\r\n", Flaw::Target),
        ("GET http://a\\b/ HTTP/1.1\r\n", Flaw::Target),
        ("GET http:///x HTTP/1.1\r\n", Flaw::Authority),
        ("GET http://u@a/ HTTP/1.1\r\n", Flaw::Authority),
        ("get / HTTP/1.1\r\n", Flaw::Method),
        ("BREW / HTTP/1.1\r\n", Flaw::Method),
        ("TRACE / HTTP/1.1\r\n", Flaw::Trace),
        ("CONNECT a:443 HTTP/1.1\r\n", Flaw::Connect),
        ("GET / HTTP/1.1\r\n\r\n", Flaw::MissingHost),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Flaw::RepeatedHost),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Flaw::Authority),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", Flaw::Authority),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", Flaw::Field),
        ("GET / HTTP/1.1\r\nHost: a\r\n x: b\r\n\r\n", Flaw::Field),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Flaw::Field),
        ("GET / HTTP/1.1\r\nHost: a\r\nb\r\n\r\n", Flaw::Field),
        ("GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", Flaw::Field),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n", Flaw::Nomination),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Envoy-Internal\r\n\r\n", Flaw::Nomination),
    ] {
        assert_eq!(read(head), Err(flaw), "{head:?}");
    }
}

#[test]
fn only_one_framing_is_believed() {
    for (fields, flaw) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", Flaw::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1", Flaw::LengthAndCoding),
        ("Content-Length: 1\r\nContent-Length: 1", Flaw::BadLength),
        ("Content-Length: 1, 1", Flaw::BadLength),
        ("Content-Length: +1", Flaw::BadLength),
        ("Content-Length: -1", Flaw::BadLength),
        ("Content-Length: 0x1", Flaw::BadLength),
        ("Content-Length: 1 1", Flaw::BadLength),
        ("Content-Length: 99999999999999999999", Flaw::BadLength),
        ("Content-Length:", Flaw::BadLength),
        ("Transfer-Encoding: gzip, chunked", Flaw::UnknownCoding),
        ("Transfer-Encoding: chunked, gzip", Flaw::BadCoding),
        ("Transfer-Encoding: chunked, chunked", Flaw::BadCoding),
        ("Transfer-Encoding: identity", Flaw::BadCoding),
        ("Transfer-Encoding: xchunked", Flaw::BadCoding),
        ("Transfer-Encoding: chunked;a=b", Flaw::BadCoding),
        ("Transfer-Encoding: , chunked", Flaw::BadCoding),
        ("Transfer-Encoding:", Flaw::BadCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Flaw::BadCoding),
    ] {
        assert_eq!(read(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")), Err(flaw), "{fields:?}");
    }
}

#[test]
fn heads_have_limits() {
    let policy = HeadPolicy { max_bytes: 100, max_fields: 2, ..HeadPolicy::default() };
    let judge = |head: &str| scan(head.as_bytes(), &policy).map(|h| h.is_some()).map_err(|bad| bad.flaw);
    assert_eq!(judge("GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"), Ok(true));
    assert_eq!(judge("GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD: e\r\n\r\n"), Err(Flaw::TooMany));
    assert_eq!(judge(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(90))), Err(Flaw::TooLong));
    assert_eq!(judge(&"a".repeat(101)), Err(Flaw::TooLong));
    assert_eq!(judge(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(90))), Err(Flaw::TooLong));
}

#[test]
fn what_is_a_switch_can_be_switched() {
    let policy = HeadPolicy {
        underscores: Underscores::Refuse,
        http10: Leniency::Serve,
        trace: Leniency::Serve,
        bare_lf: Leniency::Serve,
        ..HeadPolicy::default()
    };
    let judge = |head: &str| scan(head.as_bytes(), &policy).map(|h| h.is_some()).map_err(|bad| bad.flaw);
    assert_eq!(judge("TRACE / HTTP/1.0\nHost: a\n\n"), Ok(true));
    assert_eq!(judge("GET / HTTP/1.1\r\nHost: a\r\nx_y: 1\r\n\r\n"), Err(Flaw::Underscore));
    assert_eq!(
        judge("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Err(Flaw::BadCoding)
    );
}

#[test]
fn an_absolute_target_wins_over_host_and_goes_on_in_origin_form() {
    for (head, wants) in [
        (
            "GET http://b:80/x?y HTTP/1.1\r\nA: 1\r\nHost: a\r\nC: 2\r\n\r\n",
            "GET /x?y HTTP/1.1\r\nhost: b:80\r\nA: 1\r\nC: 2\r\n\r\n",
        ),
        ("GET HTTP://b HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nhost: b\r\n\r\n"),
        ("GET https://b?q HTTP/1.1\r\nhost: a\r\n\r\n", "GET /?q HTTP/1.1\r\nhost: b\r\n\r\n"),
        ("OPTIONS http://b HTTP/1.1\r\nhost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nhost: b\r\n\r\n"),
    ] {
        let read = good(head);
        assert_eq!(read.len, head.len());
        assert_eq!(String::from_utf8(read.rewritten.unwrap()).unwrap(), wants, "{head:?}");
    }
}

#[test]
fn a_refusal_that_is_not_the_codecs_keeps_its_request_line() {
    let policy = HeadPolicy::default();
    let bad = scan(b"HEAD /x HTTP/1.1\r\n\r\n", &policy).unwrap_err();
    let line = bad.line.unwrap();
    assert_eq!((line.method, line.target), (&b"HEAD"[..], &b"/x"[..]));
    assert_eq!(scan(b"HEAD /x HTTP/1.1\r\nb\r\n\r\n", &policy).unwrap_err().line, None);
}

#[test]
fn fields_with_underscores_can_be_left_out() {
    let policy = HeadPolicy { underscores: Underscores::Drop, ..HeadPolicy::default() };
    let head = "\r\nGET /a_b HTTP/1.1\r\nx_y: 1\r\nHost: a\r\nX: _\r\n\r\n";
    let read = scan(head.as_bytes(), &policy).unwrap().unwrap();
    assert_eq!(read.len, head.len());
    assert_eq!(read.rewritten.unwrap(), b"GET /a_b HTTP/1.1\r\nHost: a\r\nX: _\r\n\r\n");
}

#[test]
fn the_first_control_character_is_found_wherever_it_stands() {
    for len in 0..20 {
        for at in 0..len {
            for byte in 0..=u8::MAX {
                // What stands behind it must not matter, nor TABs and bytes beyond ASCII before it.
                let mut bytes: Vec<u8> =
                    (0..len).map(|i| [b'a', b'\t', 0x80, 0xff, b' ', 0x7e][i % 6]).collect();
                bytes[at] = byte;
                if let Some(last) = bytes.last_mut().filter(|_| at + 1 < len) {
                    *last = b'\r';
                }
                let want = bytes.iter().position(|b| is_control(*b)).unwrap_or(len);
                assert_eq!(before_control(&bytes), want, "{bytes:?}");
            }
        }
    }
}

//! `limen.dev/compression`: responses in the coding that the client likes best.
//!
//! Invariant: a response is compressed whole or left as it is, never twice, and only where its bytes are the server's to encode anew: no
//! part of something, nothing that must not be transformed, nothing whose digest goes with it. Caches are told that it depends on
//! the request, compressed or not (Envoy: compressor).

use super::{
    super::{Answer, BodyAccess, BodyPolicy, Hooks, Policy, ResponseView, Verdict},
    encoder::Encoder,
    negotiation::{choose, lists},
};
use config_model::annotation::{Algorithm, Compression};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};

/// Digests of the bytes as they are.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

pub(super) struct Compress;

impl Policy for Compress {
    /// The encoder that was begun.
    type State = Option<Encoder>;

    const HOOKS: Hooks = Hooks::RESPONSE;

    fn name(&self) -> &str {
        "compression"
    }

    fn on_response(&self, begun: &mut Option<Encoder>, response: &mut ResponseView<'_>) -> Answer {
        let Some((_, asked)) = response.annotated(|policies| policies.compression.as_ref()) else {
            return Ok(Verdict::Continue);
        };
        let request = response.request();
        // An older client could not tell where it ends, once its length is not known.
        let framed = request.version > Version::HTTP_10;
        if !(framed && response.has_body() && may_be(asked, response.status(), response.headers())) {
            return Ok(Verdict::Continue);
        }
        let chosen = choose(&request.headers, &asked.algorithms);
        if !(lists(response.headers(), header::VARY, "accept-encoding")
            || lists(response.headers(), header::VARY, "*"))
        {
            response.append_header(header::VARY, HeaderValue::from_static("Accept-Encoding"))?;
        }
        if let Some(algorithm) = chosen {
            *begun = Some(Encoder::new(algorithm)?);
            mark(response, algorithm)?;
        }
        Ok(Verdict::Continue)
    }
}

impl BodyPolicy for Compress {
    fn response_body(&self, begun: &mut Option<Encoder>, _: &ResponseView<'_>) -> BodyAccess {
        begun.take().map_or_else(BodyAccess::none, BodyAccess::transform)
    }
}

/// Whether a response may be compressed, whatever the client likes.
fn may_be(asked: &Compression, status: StatusCode, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let coded =
        text(header::CONTENT_ENCODING).is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity"));
    let length: Option<u64> = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let partial = status == StatusCode::PARTIAL_CONTENT || headers.contains_key(header::CONTENT_RANGE);
    !coded
        && !partial
        && length.is_none_or(|length| length >= asked.min_length)
        && text(header::CONTENT_TYPE).is_some_and(|kind| asked.takes(kind))
        && !lists(headers, header::CACHE_CONTROL, "no-transform")
        && !DIGESTS.iter().any(|digest| headers.contains_key(digest))
}

/// Says of a response that it is compressed. Its validator is of the same content in other bytes (RFC 9110 §8.8.1), and ranges would be
/// of those that are not sent.
fn mark(response: &mut ResponseView<'_>, algorithm: Algorithm) -> Result<(), super::super::Failure> {
    response.insert_header(header::CONTENT_ENCODING, HeaderValue::from_static(algorithm.as_str()))?;
    response.remove_header(header::ACCEPT_RANGES)?;
    let strong = response.headers().get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    if let Some(tag) = strong {
        let weak = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())?;
        response.insert_header(header::ETAG, weak)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_stay_as_it_is_is_left_alone() {
        let asked = Compression::default();
        let judge = |status: u16, headers: &[(&'static str, &'static str)]| {
            let named = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            may_be(&asked, StatusCode::from_u16(status).unwrap(), &named.collect())
        };
        let html = ("content-type", "text/html; charset=utf-8");
        assert!(judge(200, &[html]) && judge(404, &[html, ("content-length", "256")]));
        assert!(judge(200, &[html, ("content-encoding", "identity"), ("cache-control", "no-cache")]));
        for (status, header) in [
            (206, ("content-length", "999")),
            (200, ("content-range", "bytes 0-1/2")),
            (200, ("content-length", "255")),
            (200, ("content-encoding", "gzip")),
            (200, ("cache-control", "public, No-Transform")),
            (200, ("content-digest", "sha-256=:x:")),
        ] {
            assert!(!judge(status, &[html, header]), "{header:?}");
        }
        assert!(!judge(200, &[]) && !judge(200, &[("content-type", "image/png")]));
    }
}

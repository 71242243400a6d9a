//! `limen.dev/error-pages`: what errors look like.
//!
//! Invariant: only the body changes, and what speaks of it: status, flags and details are those of the error. Clients that speak gRPC
//! never get a page.

use super::super::{Answer, BodyPolicy, Hooks, Origin, Policy, Reply, ResponseView, Verdict};
use bytes::Bytes;
use config_model::{
    annotation::{From, Setting, Statuses},
    meta::ResourceKey,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use routing::annotated::Index;
use std::collections::HashMap;

/// Headers that speak of the body that goes.
const OF_BODY: [HeaderName; 12] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

/// The pages of a configuration.
pub(super) struct Pages(HashMap<ResourceKey, Vec<Page>>);

struct Page {
    statuses: Vec<Statuses>,
    from: From,
    content_type: HeaderValue,
    body: Bytes,
}

impl Pages {
    /// Pages whose text is not there are left out.
    pub(super) fn new(index: &Index) -> Pages {
        let mut pages = HashMap::new();
        for resource in index.resources() {
            let Some(written) = resource.policies.error_pages.as_ref().and_then(Setting::on) else {
                continue;
            };
            let made = written.0.iter().filter_map(|page| {
                let text = index.text(&resource.resource, &page.body)?;
                Some(Page {
                    statuses: page.statuses.clone(),
                    from: page.from,
                    content_type: HeaderValue::from_str(&page.content_type).ok()?,
                    body: Bytes::copy_from_slice(text.as_bytes()),
                })
            });
            pages.insert(resource.resource.clone(), made.collect());
        }
        Pages(pages)
    }
}

impl Page {
    fn is_for(&self, status: u16, origin: Origin) -> bool {
        (origin == Origin::Gateway || self.from == From::All)
            && self.statuses.iter().any(|Statuses(range)| range.contains(&status))
    }
}

impl Policy for Pages {
    type State = ();

    const HOOKS: Hooks = Hooks::RESPONSE;

    fn name(&self) -> &str {
        "error_pages"
    }

    fn on_response(&self, (): &mut (), response: &mut ResponseView<'_>) -> Answer {
        let status = response.status();
        if !(400..600).contains(&status.as_u16())
            || is_grpc(&response.request().headers)
            || is_grpc(response.headers())
        {
            return Ok(Verdict::Continue);
        }
        let Some((resource, _)) = response.annotated(|policies| policies.error_pages.as_ref()) else {
            return Ok(Verdict::Continue);
        };
        let mut pages = self.0.get(resource).into_iter().flatten();
        let Some(page) = pages.find(|page| page.is_for(status.as_u16(), response.origin())) else {
            return Ok(Verdict::Continue);
        };
        let mut headers = response.headers().clone();
        for name in &OF_BODY {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_TYPE, page.content_type.clone());
        Ok(Verdict::Respond(Reply::in_place(status, headers, page.body.clone())))
    }
}

impl BodyPolicy for Pages {}

/// gRPC in any of its forms: the browser's too could not read a page.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.get(..16).is_some_and(|begin| begin.eq_ignore_ascii_case(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_grpc_is_known() {
        for (kind, wants) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web-text", true),
            ("application/json", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_grpc(&headers), wants, "{kind}");
        }
    }

    #[test]
    fn a_page_is_for_its_statuses_and_the_gateways_own_unless_it_says_so() {
        let page = |from| Page {
            statuses: vec![Statuses(404..=404), Statuses(500..=503)],
            from,
            content_type: HeaderValue::from_static("text/html"),
            body: Bytes::new(),
        };
        for (status, origin, own, all) in [
            (404, Origin::Gateway, true, true),
            (404, Origin::Upstream, false, true),
            (503, Origin::Gateway, true, true),
            (504, Origin::Gateway, false, false),
        ] {
            assert_eq!(page(From::Gateway).is_for(status, origin), own, "{status}");
            assert_eq!(page(From::All).is_for(status, origin), all, "{status}");
        }
    }
}

//! The page at `/`: style, script and markup in one answer, which loads nothing else.
//!
//! Invariant: the page is the same for everybody and holds no configuration; its script fetches that as JSON and sets it as text,
//! never as markup. The policy names style and script by their digests, so nothing else runs even if a name gets through.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use boring::sha::sha256;
use bytes::Bytes;

const MARKUP: &str = include_str!("dashboard/page.html");
const STYLE: &str = include_str!("dashboard/style.css");
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("dashboard/page.js"),
    include_str!("dashboard/graph.js"),
    include_str!("dashboard/live.js"),
    include_str!("dashboard/explain.js"),
);

/// The page, and its content security policy.
pub(super) struct Page {
    pub body: Bytes,
    pub policy: String,
}

pub(super) static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let digest = |text: &str| STANDARD.encode(sha256(text.as_bytes()));
    let body = MARKUP.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT);
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest(SCRIPT),
        digest(STYLE)
    );
    Page { body: body.into(), policy }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_loads_nothing() {
        let text = std::str::from_utf8(&PAGE.body).unwrap();
        assert!(text.contains(STYLE) && text.contains(SCRIPT), "the digests are of what is there");
        for outside in
            ["src=\"http", "href=\"http", "@import", "url(http", "innerHTML", "insertAdjacentHTML", "eval("]
        {
            assert!(!text.contains(outside), "{outside}");
        }
    }
}

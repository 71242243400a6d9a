//! What was routed for this one page, as an inline SVG: who asked whom, which version was chosen, and which pod answered.
//!
//! Pure; every word that another service said is escaped. A path that was not taken is drawn faint, a failed one red. v1 of reviews never asks ratings,
//! so no path leads from it.

use super::html::escaped;
use super::page::View;
use crate::model::{Identity, Rating};

const VERSIONS: [(&str, u32); 3] = [("v1", 110), ("v2", 180), ("v3", 250)];
const DETAILS_Y: u32 = 40;
const MIDDLE_Y: u32 = 180;

/// How a hop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    Taken,
    NotTaken,
    Failed,
}

impl Hop {
    fn class(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::NotTaken => "idle",
            Self::Failed => "failed",
        }
    }
}

pub(crate) fn draw(view: &View<'_>) -> String {
    let mut svg = String::from(
        r#"<svg class="picture" viewBox="0 0 960 300" role="img" aria-label="Which services made this page">"#,
    );
    let details_hop = if view.details.is_ok() { Hop::Taken } else { Hop::Failed };
    let answered = view.reviews.as_ref().ok();

    edge(&mut svg, (96, MIDDLE_Y), (262, MIDDLE_Y), Hop::Taken);
    edge(&mut svg, (412, MIDDLE_Y), (542, DETAILS_Y), details_hop);
    for (version, y) in VERSIONS {
        edge(&mut svg, (412, MIDDLE_Y), (542, y), reviews_hop(view, version));
        if version != "v1" {
            edge(&mut svg, (692, y), (800, MIDDLE_Y), ratings_hop(view, version));
        }
    }

    gateway(&mut svg, 150);
    if view.through_gateway {
        gateway(&mut svg, 446);
        gateway(&mut svg, 722);
    }

    svg.push_str(&format!(
        r#"<g class="node taken"><circle cx="60" cy="{MIDDLE_Y}" r="34"/><text x="60" y="{}">you</text></g>"#,
        MIDDLE_Y + 5
    ));
    node(&mut svg, (264, MIDDLE_Y), "productpage", Some(view.productpage), Hop::Taken);
    let details = view.details.as_ref().ok().map(|details| &details.served_by);
    node(&mut svg, (544, DETAILS_Y), "details", details, details_hop);
    for (version, y) in VERSIONS {
        let chosen =
            answered.map(|reviews| &reviews.served_by).filter(|identity| identity.version == version);
        node(&mut svg, (544, y), &format!("reviews {version}"), chosen, reviews_hop(view, version));
    }
    let ratings = answered.and_then(|reviews| reviews.ratings_served_by.as_ref());
    let hops = VERSIONS.map(|(version, _)| ratings_hop(view, version));
    let ratings_hop = [Hop::Taken, Hop::Failed].into_iter().find(|hop| hops.contains(hop));
    node(&mut svg, (802, MIDDLE_Y), "ratings", ratings, ratings_hop.unwrap_or(Hop::NotTaken));
    svg.push_str("</svg>");
    svg
}

/// When reviews did not answer at all, nobody knows which version was asked: all of them are drawn failed.
fn reviews_hop(view: &View<'_>, version: &str) -> Hop {
    match view.reviews {
        Err(_) => Hop::Failed,
        Ok(reviews) if reviews.served_by.version == version => Hop::Taken,
        Ok(_) => Hop::NotTaken,
    }
}

fn ratings_hop(view: &View<'_>, version: &str) -> Hop {
    let Ok(reviews) = view.reviews else { return Hop::NotTaken };
    if reviews.served_by.version != version {
        return Hop::NotTaken;
    }
    let missing = |rating: &Option<Rating>| matches!(rating, Some(Rating::Unavailable { .. }));
    match &reviews.ratings_served_by {
        Some(_) => Hop::Taken,
        None if reviews.reviews.iter().any(|review| missing(&review.rating)) => Hop::Failed,
        None => Hop::NotTaken,
    }
}

fn edge(svg: &mut String, (x1, y1): (u32, u32), (x2, y2): (u32, u32), hop: Hop) {
    let bend = (x1 + x2) / 2;
    svg.push_str(&format!(
        r#"<path class="edge {}" d="M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}"/>"#,
        hop.class()
    ));
}

fn gateway(svg: &mut String, x: u32) {
    svg.push_str(&format!(
        r#"<g class="gateway"><rect x="{x}" y="10" width="48" height="280" rx="10"/><text transform="translate({} 150) rotate(-90)">Limen</text></g>"#,
        x + 29
    ));
}

fn node(svg: &mut String, (x, y): (u32, u32), name: &str, served_by: Option<&Identity>, hop: Hop) {
    let middle = x + 74;
    let top = y.saturating_sub(26);
    svg.push_str(&format!(
        r#"<g class="node {}"><rect x="{x}" y="{top}" width="148" height="52" rx="10"/>"#,
        hop.class()
    ));
    match served_by {
        Some(identity) => svg.push_str(&format!(
            r#"<text x="{middle}" y="{}">{}</text><text class="pod" x="{middle}" y="{}">{}</text></g>"#,
            y - 2,
            escaped(name),
            y + 15,
            escaped(&identity.pod)
        )),
        None => svg.push_str(&format!(r#"<text x="{middle}" y="{}">{}</text></g>"#, y + 5, escaped(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::CallError;
    use crate::model::{BookReviews, Review};
    use crate::productpage::BOOK;
    use std::time::Duration;

    fn identity(service: &str, version: &str) -> Identity {
        Identity { service: service.into(), version: version.into(), pod: format!("{service}-{version}-pod") }
    }

    fn answered(version: &str, rating: Option<Rating>, ratings: Option<Identity>) -> BookReviews {
        BookReviews {
            id: 0,
            podname: "p".into(),
            reviews: vec![Review { reviewer: "r".into(), text: "t".into(), rating }],
            served_by: identity("reviews", version),
            ratings_served_by: ratings,
        }
    }

    fn hops(reviews: Result<BookReviews, CallError>) -> [(Hop, Hop); 3] {
        let down = CallError::TimedOut(Duration::from_secs(3));
        let view = View {
            book: &BOOK,
            user: None,
            productpage: &identity("productpage", "v1"),
            details: &Err(down),
            reviews: &reviews,
            through_gateway: true,
            request_id: None,
            recent: &[],
        };
        assert!(draw(&view).ends_with("</svg>"));
        VERSIONS.map(|(version, _)| (reviews_hop(&view, version), ratings_hop(&view, version)))
    }

    const IDLE: (Hop, Hop) = (Hop::NotTaken, Hop::NotTaken);

    #[test]
    fn the_version_that_answered_is_the_path_taken() {
        assert_eq!(hops(Ok(answered("v1", None, None))), [(Hop::Taken, Hop::NotTaken), IDLE, IDLE]);
        let stars = Rating::Stars { stars: 5, color: crate::model::StarColor::Red };
        let reviews = answered("v3", Some(stars), Some(identity("ratings", "v1")));
        assert_eq!(hops(Ok(reviews)), [IDLE, IDLE, (Hop::Taken, Hop::Taken)]);
    }

    #[test]
    fn a_failed_hop_is_drawn_as_one() {
        let missing = Rating::Unavailable { error: "down".into() };
        let reviews = answered("v2", Some(missing), None);
        assert_eq!(hops(Ok(reviews)), [IDLE, (Hop::Taken, Hop::Failed), IDLE]);
        let down = CallError::TimedOut(Duration::from_secs(3));
        assert_eq!(hops(Err(down)), [(Hop::Failed, Hop::NotTaken); 3]);
    }
}

//! The reviews service: what readers wrote. v1 knows no stars; v2 asks ratings and shows black ones, v3 red ones.
//!
//! When ratings fails the reviews are still given, each with a note in place of its stars.

use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};

use crate::client::{Backend, CallError, Client, propagated};
use crate::model::{BookRatings, BookReviews, Identity, Rating, Review, StarColor};
use crate::reply::{self, Reply};

/// Longer than productpage waits for reviews: a slow ratings makes reviews late, which is what the delay variant shows.
const RATINGS_DEADLINE: Duration = Duration::from_secs(10);

const WRITTEN: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Two pairs of twins, one harbour town and not a single person asking the obvious question. I laughed from \
         the first mistaken dinner to the last mistaken arrest.",
    ),
    (
        "Reviewer2",
        "Fast, silly and kind. It is the shortest thing its author wrote for the stage, and it wastes none of it; \
         only the prose of the middle act drags a little.",
    ),
];

#[derive(Debug)]
pub(crate) struct Reviews {
    identity: Identity,
    client: Client,
    ratings: Backend,
}

impl Reviews {
    pub(crate) fn new(identity: Identity, client: Client, ratings: Backend) -> Self {
        Self { identity, client, ratings }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) async fn respond(&self, method: &Method, path: &str, headers: &HeaderMap) -> Reply {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return reply::method_not_allowed("GET, HEAD");
        }
        if path == "/health" {
            return reply::healthy("Reviews");
        }
        let Some(id) = reply::book_id(path, "reviews") else { return reply::not_found() };
        let ratings = match self.stars() {
            None => None,
            Some(color) => Some((color, self.ask_ratings(id, headers).await)),
        };
        reply::json(StatusCode::OK, &self.book(id, ratings))
    }

    fn stars(&self) -> Option<StarColor> {
        match self.identity.version.as_str() {
            "v1" => None,
            "v2" => Some(StarColor::Black),
            _ => Some(StarColor::Red),
        }
    }

    async fn ask_ratings(&self, id: u32, headers: &HeaderMap) -> Result<BookRatings, CallError> {
        let path = format!("/ratings/{id}");
        self.client.get(&self.ratings, &path, &propagated(headers), RATINGS_DEADLINE).await
    }

    fn book(&self, id: u32, ratings: Option<(StarColor, Result<BookRatings, CallError>)>) -> BookReviews {
        let reviews = WRITTEN
            .iter()
            .map(|(reviewer, text)| Review {
                reviewer: (*reviewer).to_owned(),
                text: (*text).to_owned(),
                rating: ratings.as_ref().map(|(color, answer)| rating(*color, answer, reviewer)),
            })
            .collect();
        BookReviews {
            id,
            podname: self.identity.pod.clone(),
            reviews,
            served_by: self.identity.clone(),
            ratings_served_by: ratings.and_then(|(_, answer)| answer.ok()).map(|answer| answer.served_by),
        }
    }
}

fn rating(color: StarColor, answer: &Result<BookRatings, CallError>, reviewer: &str) -> Rating {
    match answer {
        Ok(answer) => match answer.ratings.get(reviewer) {
            Some(stars) => Rating::Stars { stars: (*stars).min(5), color },
            None => Rating::Unavailable { error: "This reader gave no stars".to_owned() },
        },
        Err(_) => Rating::Unavailable { error: "Ratings service is currently unavailable".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: &str) -> Reviews {
        let identity = Identity { service: "reviews".into(), version: version.into(), pod: "r".into() };
        Reviews::new(identity, Client::new(), Backend::direct("ratings", Vec::new()))
    }

    fn answer() -> BookRatings {
        BookRatings {
            id: 0,
            ratings: [("Reviewer1".to_owned(), 5), ("Reviewer2".to_owned(), 200)].into(),
            served_by: Identity { service: "ratings".into(), version: "v1".into(), pod: "rt".into() },
        }
    }

    #[test]
    fn the_version_decides_the_stars() {
        assert_eq!(version("v1").stars(), None);
        assert_eq!(version("v2").stars(), Some(StarColor::Black));
        assert_eq!(version("v3").stars(), Some(StarColor::Red));
    }

    #[test]
    fn stars_come_from_ratings_and_never_exceed_five() {
        let book = version("v3").book(0, Some((StarColor::Red, Ok(answer()))));
        let stars: Vec<_> = book.reviews.iter().filter_map(|review| review.rating.clone()).collect();
        assert_eq!(stars, [5, 5].map(|stars| Rating::Stars { stars, color: StarColor::Red }));
        assert_eq!(book.ratings_served_by.unwrap().pod, "rt");
    }

    #[test]
    fn without_ratings_the_reviews_stay() {
        let failed = Err(CallError::TimedOut(RATINGS_DEADLINE));
        let book = version("v2").book(0, Some((StarColor::Black, failed)));
        assert_eq!(book.reviews.len(), 2);
        assert!(matches!(&book.reviews[0].rating, Some(Rating::Unavailable { .. })));
        assert_eq!(book.ratings_served_by, None);
    }

    #[tokio::test]
    async fn v1_asks_nobody() {
        let reply = version("v1").respond(&Method::GET, "/reviews/0", &HeaderMap::new()).await;
        assert_eq!(reply.status(), StatusCode::OK);
    }
}

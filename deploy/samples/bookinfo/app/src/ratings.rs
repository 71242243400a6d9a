//! The ratings service: how many stars each reviewer gave. It asks nobody.

use hyper::{Method, StatusCode};

use crate::model::{BookRatings, Identity};
use crate::reply::{self, Reply};

#[derive(Debug)]
pub(crate) struct Ratings {
    identity: Identity,
}

impl Ratings {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn respond(&self, method: &Method, path: &str) -> Reply {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return reply::method_not_allowed("GET, HEAD");
        }
        if path == "/health" {
            return reply::healthy("Ratings");
        }
        match reply::book_id(path, "ratings") {
            Some(id) => reply::json(
                StatusCode::OK,
                &BookRatings {
                    id,
                    ratings: [("Reviewer1".to_owned(), 5), ("Reviewer2".to_owned(), 4)].into(),
                    served_by: self.identity.clone(),
                },
            ),
            None => reply::not_found(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_for_books_and_health_and_nothing_else() {
        let identity = Identity { service: "ratings".into(), version: "v1".into(), pod: "r".into() };
        let ratings = Ratings::new(identity);
        let status = |method, path| ratings.respond(&method, path).status();
        assert_eq!(status(Method::GET, "/ratings/0"), StatusCode::OK);
        assert_eq!(status(Method::GET, "/health"), StatusCode::OK);
        assert_eq!(status(Method::GET, "/"), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::DELETE, "/ratings/0"), StatusCode::METHOD_NOT_ALLOWED);
    }
}

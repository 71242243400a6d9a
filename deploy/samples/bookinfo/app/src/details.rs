//! The details service: what is printed on a book's last page. It asks nobody.

use hyper::{Method, StatusCode};

use crate::model::{BookDetails, Identity};
use crate::reply::{self, Reply};

#[derive(Debug)]
pub(crate) struct Details {
    identity: Identity,
}

impl Details {
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
            return reply::healthy("Details");
        }
        match reply::book_id(path, "details") {
            Some(id) => reply::json(StatusCode::OK, &self.book(id)),
            None => reply::not_found(),
        }
    }

    fn book(&self, id: u32) -> BookDetails {
        BookDetails {
            id,
            author: "William Shakespeare".to_owned(),
            year: 1595,
            binding: "paperback".to_owned(),
            pages: 200,
            publisher: "PublisherA".to_owned(),
            language: "English".to_owned(),
            isbn_10: "1234567890".to_owned(),
            isbn_13: "123-1234567890".to_owned(),
            served_by: self.identity.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_for_books_and_health_and_nothing_else() {
        let identity = Identity { service: "details".into(), version: "v1".into(), pod: "d".into() };
        let details = Details::new(identity);
        let status = |method, path| details.respond(&method, path).status();
        assert_eq!(status(Method::GET, "/details/0"), StatusCode::OK);
        assert_eq!(status(Method::HEAD, "/health"), StatusCode::OK);
        assert_eq!(status(Method::GET, "/details/zero"), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::POST, "/details/0"), StatusCode::METHOD_NOT_ALLOWED);
    }
}

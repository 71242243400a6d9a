//! The two pages, as HTML. Pure: what is known goes in, text comes out.
//!
//! Everything that another service, a cookie or a header said is escaped.

use std::fmt::Display;

use super::Book;
use super::history::Seen;
use super::html::escaped;
use super::picture;
use super::session::User;
use crate::client::CallError;
use crate::model::{BookDetails, BookReviews, Identity, Rating, Review, StarColor};

/// All that one product page shows.
pub(crate) struct View<'a> {
    pub(crate) book: &'a Book,
    pub(crate) user: Option<&'a User>,
    pub(crate) productpage: &'a Identity,
    pub(crate) details: &'a Result<BookDetails, CallError>,
    pub(crate) reviews: &'a Result<BookReviews, CallError>,
    pub(crate) through_gateway: bool,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) recent: &'a [Seen],
}

pub(crate) fn product_page(view: &View<'_>) -> String {
    let main = format!(
        r#"<section class="card book">
<div class="cover" aria-hidden="true"><span>The<br>Comedy<br>of Errors</span></div>
<div><h1>{title}</h1><p class="lead">{summary}</p></div>
</section>
<section class="card">
<h2>How this page was made</h2>
{picture}
{request}
</section>
<section class="card tally">
<h2>Who answered for reviews <small>last {count} page views, newest last</small></h2>
{tally}
</section>
<div class="columns">
<section class="card"><h2>Details</h2>{details}</section>
<section class="card"><h2>Reviews</h2>{reviews}</section>
</div>
"#,
        title = escaped(view.book.title),
        summary = escaped(view.book.summary),
        picture = picture::draw(view),
        request = request_line(view),
        count = view.recent.len(),
        tally = tally(view.recent),
        details = details(view.details),
        reviews = reviews(view.reviews),
    );
    document(&account(view.user), &main)
}

pub(crate) fn login_form(problem: Option<&str>) -> String {
    let problem = problem.map_or_else(String::new, |problem| {
        format!(r#"<p class="sorry" role="alert">{}</p>"#, escaped(problem))
    });
    let main = format!(
        r#"<section class="card narrow"><h1>Sign in</h1>{problem}
<form method="post" action="/login" class="stack">
<label>Name <input name="username" autocomplete="username" maxlength="64" required autofocus></label>
<label>Password <input name="passwd" type="password" autocomplete="off" placeholder="anything will do"></label>
<button>Sign in</button>
</form></section>
"#
    );
    document("", &main)
}

fn document(account: &str, main: &str) -> String {
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Simple Bookstore App</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/style.css">
<script src="/static/ask.js" defer></script>
</head>
<body>
<header><a class="brand" href="/productpage">Bookinfo <span>on Limen</span></a>{account}</header>
<main>
{main}</main>
</body>
</html>
"#
    )
}

fn account(user: Option<&User>) -> String {
    match user {
        Some(user) => format!(
            r#"<div class="account">Signed in as <b>{}</b> <a class="button" href="/logout">Sign out</a></div>"#,
            escaped(user.name())
        ),
        None => {
            r#"<form class="account" method="post" action="/login"><input name="username" aria-label="Name" placeholder="Name, for example jason" autocomplete="username" maxlength="64" required><button>Sign in</button></form>"#
                .to_owned()
        }
    }
}

fn request_line(view: &View<'_>) -> String {
    let path = if view.through_gateway {
        "productpage asks details and reviews, and reviews asks ratings, through the gateway."
    } else {
        "productpage asks details and reviews directly, and reviews asks ratings directly."
    };
    let id =
        view.request_id.map_or_else(String::new, |id| format!(" Request id <code>{}</code>.", escaped(id)));
    format!(r#"<p class="note">{path}{id}</p>"#)
}

fn tally(recent: &[Seen]) -> String {
    let mut cells = String::new();
    for seen in recent {
        cells.push_str(&format!(r#"<i class="{}" title="{}"></i>"#, class(seen), escaped(label(seen))));
    }
    let mut kinds: Vec<&Seen> = Vec::new();
    for seen in recent {
        if !kinds.contains(&seen) {
            kinds.push(seen);
        }
    }
    kinds.sort_by_key(|seen| label(seen));
    let mut legend = String::new();
    for kind in kinds {
        let count = recent.iter().filter(|seen| *seen == kind).count();
        legend.push_str(&format!(
            r#"<li><i class="{}"></i>{} <b>{count}</b></li>"#,
            class(kind),
            escaped(label(kind))
        ));
    }
    format!(
        r#"<div class="cells">{cells}</div><ul class="legend">{legend}</ul><button id="ask" type="button" hidden>Ask 20 more times</button>"#
    )
}

fn label(seen: &Seen) -> &str {
    match seen {
        Seen::Version(version) => version,
        Seen::Failed => "no answer",
    }
}

fn class(seen: &Seen) -> &'static str {
    match seen {
        Seen::Version(version) => match version.as_str() {
            "v1" => "seen v1",
            "v2" => "seen v2",
            "v3" => "seen v3",
            _ => "seen other",
        },
        Seen::Failed => "seen failed",
    }
}

fn details(details: &Result<BookDetails, CallError>) -> String {
    let details = match details {
        Ok(details) => details,
        Err(error) => return sorry("details", error),
    };
    let mut rows = String::new();
    let mut row = |name: &str, value: &dyn Display| {
        rows.push_str(&format!("<dt>{name}</dt><dd>{}</dd>", escaped(&value.to_string())));
    };
    row("Author", &details.author);
    row("Year", &details.year);
    row("Binding", &details.binding);
    row("Pages", &details.pages);
    row("Publisher", &details.publisher);
    row("Language", &details.language);
    row("ISBN-10", &details.isbn_10);
    row("ISBN-13", &details.isbn_13);
    format!("<dl>{rows}</dl>{}", served_by(&details.served_by))
}

fn reviews(reviews: &Result<BookReviews, CallError>) -> String {
    match reviews {
        Ok(book) => {
            let quotes: String = book.reviews.iter().map(review).collect();
            let ratings = book.ratings_served_by.as_ref().map_or_else(String::new, served_by);
            format!("{quotes}{}{ratings}", served_by(&book.served_by))
        }
        Err(error) => sorry("reviews", error),
    }
}

fn review(review: &Review) -> String {
    format!(
        "<blockquote><p>{}</p><footer>{} {}</footer></blockquote>",
        escaped(&review.text),
        escaped(&review.reviewer),
        review.rating.as_ref().map_or_else(String::new, rating),
    )
}

fn rating(rating: &Rating) -> String {
    match rating {
        Rating::Stars { stars, color } => {
            let full = usize::from((*stars).min(5));
            let color = match color {
                StarColor::Black => "black",
                StarColor::Red => "red",
            };
            format!(
                r#"<span class="stars {color}" role="img" aria-label="{full} of 5 stars">{}{}</span>"#,
                "★".repeat(full),
                "☆".repeat(5 - full)
            )
        }
        Rating::Unavailable { error } => format!(r#"<span class="missing">{}</span>"#, escaped(error)),
    }
}

fn sorry(what: &str, error: &CallError) -> String {
    format!(
        r#"<div class="sorry"><p><b>Sorry, product {what} are currently unavailable for this book.</b></p><p class="note">{what} {}</p></div>"#,
        escaped(&error.to_string())
    )
}

fn served_by(identity: &Identity) -> String {
    format!(
        r#"<p class="served">Served by <b>{} {}</b> <code>{}</code></p>"#,
        escaped(&identity.service),
        escaped(&identity.version),
        escaped(&identity.pod)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_counted_and_coloured() {
        let html = rating(&Rating::Stars { stars: 4, color: StarColor::Red });
        assert!(html.contains("★★★★☆") && html.contains("stars red"), "{html}");
        let html = rating(&Rating::Stars { stars: 255, color: StarColor::Black });
        assert!(html.contains("★★★★★</span>"), "{html}");
    }

    #[test]
    fn what_another_service_says_is_text() {
        let error = CallError::Garbled("<img src=x onerror=alert(1)>".to_owned());
        assert!(!sorry("reviews", &error).contains("<img"));
        let identity = Identity { service: "<b>".into(), version: "\"><i>".into(), pod: "</code><u>".into() };
        let html = served_by(&identity);
        assert!(!html.contains("<i>") && !html.contains("<u>"), "{html}");
    }

    #[test]
    fn the_tally_counts_each_version_once() {
        let v1 = Seen::Version("v1".to_owned());
        let html = tally(&[v1.clone(), Seen::Failed, v1]);
        assert!(html.contains("v1 <b>2</b>") && html.contains("no answer <b>1</b>"), "{html}");
    }
}

//! Claims of a token that a policy has verified, and the paths by which rules name them.
//!
//! Invariant: claims are only ever put here by whoever verified the token; without them every claim is missing. A
//! claim matches as text or as a list with such a text in it (Istio: `MetadataListMatcher`); numbers, booleans and
//! objects match nothing.

use crate::matcher::StringMatcher;
use std::{collections::BTreeMap, fmt};

/// One value of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A text.
    Text(Box<str>),
    /// A list; one element that matches is enough.
    List(Box<[Claim]>),
    /// Named values, reached by a longer path.
    Object(BTreeMap<Box<str>, Claim>),
    /// A number, a boolean or null.
    Other,
}

impl Claim {
    /// Whether it is a text that matches, or a list that holds one.
    #[must_use]
    pub fn is_match(&self, matcher: &StringMatcher) -> bool {
        self.any_text(|text| matcher.is_match(text.as_bytes()))
    }

    /// Whether it is a text that fits, or a list that holds one.
    pub(crate) fn any_text(&self, fits: impl Fn(&str) -> bool) -> bool {
        let text = |claim: &Self| match claim {
            Self::Text(text) => fits(text),
            Self::List(_) | Self::Object(_) | Self::Other => false,
        };
        match self {
            Self::List(list) => list.iter().any(text),
            other => text(other),
        }
    }
}

/// The claims of one verified token. Space-delimited ones (`scope`, `permission`) are put in as lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<Box<str>, Claim>);

impl Claims {
    /// Claims by name.
    #[must_use]
    pub fn new(claims: BTreeMap<Box<str>, Claim>) -> Self {
        Self(claims)
    }

    /// The claim of that name.
    pub(crate) fn named(&self, name: &str) -> Option<&Claim> {
        self.0.get(name)
    }

    /// The claim at a path.
    #[must_use]
    pub fn get(&self, path: &ClaimPath) -> Option<&Claim> {
        let (first, rest) = path.0.split_first()?;
        rest.iter().try_fold(self.0.get(first)?, |claim, name| match claim {
            Claim::Object(inner) => inner.get(name),
            Claim::Text(_) | Claim::List(_) | Claim::Other => None,
        })
    }
}

/// The names that lead to a claim, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(Box<[Box<str>]>);

impl ClaimPath {
    /// The path of these names, outermost first.
    pub(crate) fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self(names.into_iter().map(Box::from).collect())
    }

    /// Reads a key under `headers`: `@request.auth.claims.a.b`, split at every dot, or `@request.auth.claims[a][b]`; the
    /// prefix in any case. `None` when the key names no claim (Istio: jwt/routing.go `ToRoutingClaim`).
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        const PREFIX: &str = "@request.auth.claims";
        let (prefix, path) = key.split_at_checked(PREFIX.len())?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return None;
        }
        let names: Vec<&str> = if let Some(dotted) = path.strip_prefix('.') {
            if dotted.is_empty() {
                return None;
            }
            dotted.split('.').collect()
        } else {
            let inner = path.strip_prefix('[')?.strip_suffix(']')?;
            if inner.is_empty() {
                return None;
            }
            inner.split("][").collect()
        };
        Some(Self(names.into_iter().map(Box::from).collect()))
    }
}

impl fmt::Display for ClaimPath {
    /// As in `[group][id]`, whichever way it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| write!(f, "[{name}]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(key: &str) -> Option<String> {
        ClaimPath::parse(key).map(|path| path.to_string())
    }

    #[test]
    fn both_spellings_and_nothing_else() {
        let of = |rest: &str| path(&format!("@request.auth.claims{rest}"));
        for none in ["", "-", ".", "-abc", "[]", "[key", "]key"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(path("request.auth.claims.a"), None);
        assert_eq!(path("x-header"), None);
        assert_eq!(path("@Request.AUTH.claims.Key").as_deref(), Some("[Key]"));
        for (written, want) in [
            (".a", "[a]"),
            (".a.B", "[a][B]"),
            (".[a]", "[[a]]"),
            ("[a]", "[a]"),
            ("[a][B]", "[a][B]"),
            ("[a] [b]", "[a] [b]"),
            ("[https://x.io/groups][id]", "[https://x.io/groups][id]"),
        ] {
            assert_eq!(of(written).as_deref(), Some(want), "{written}");
        }
        assert_eq!(ClaimPath::parse("@request.auth.claims[a] [b]").unwrap().0.len(), 1);
    }

    #[test]
    fn a_text_or_a_list_with_it() {
        let text = |text: &str| Claim::Text(text.into());
        let inner = BTreeMap::from([("id".into(), text("7"))]);
        let claims = Claims::new(BTreeMap::from([
            ("sub".into(), text("jason")),
            ("groups".into(), Claim::List([text("dev"), text("admin"), Claim::Other].into())),
            ("org".into(), Claim::Object(inner)),
            ("age".into(), Claim::Other),
        ]));
        let holds = |key: &str, matcher: &StringMatcher| {
            let path = ClaimPath::parse(&format!("@request.auth.claims{key}")).unwrap();
            claims.get(&path).is_some_and(|claim| claim.is_match(matcher))
        };
        let exact = |text: &str| StringMatcher::Exact(text.into());
        assert!(holds("[sub]", &exact("jason")) && !holds("[sub]", &exact("eve")));
        assert!(holds(".groups", &exact("admin")) && !holds(".groups", &exact("ops")));
        assert!(holds(".org.id", &exact("7")) && !holds(".org", &StringMatcher::Present));
        assert!(!holds(".age", &StringMatcher::Present), "a number matches nothing");
        assert!(holds(".groups", &StringMatcher::Present) && !holds(".nope", &StringMatcher::Present));
        assert!(!holds(".sub.x", &StringMatcher::Present), "a text has nothing inside");
    }
}

//! Who is signed in. The shop asks for a name and believes it: there is nothing here to protect, and a sample that
//! pretends otherwise would teach the wrong thing. The name is kept percent-encoded in the cookie.

use hyper::header::{COOKIE, HeaderMap, HeaderValue};

const COOKIE_NAME: &str = "session";
const MAX_CHARS: usize = 64;

/// The cookie that signs out.
pub(crate) const FORGET: &str = "session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax";

/// A name of 1 to 64 characters without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User(String);

impl User {
    fn new(name: &str) -> Result<Self, &'static str> {
        let name = name.trim();
        if name.is_empty() {
            return Err("Please type a name.");
        }
        if name.chars().count() > MAX_CHARS {
            return Err("That name is too long: 64 characters are enough.");
        }
        if name.chars().any(char::is_control) {
            return Err("That name has characters that cannot be shown.");
        }
        Ok(Self(name.to_owned()))
    }

    /// The field `username` of an `application/x-www-form-urlencoded` body.
    pub(crate) fn from_form(body: &[u8]) -> Result<Self, &'static str> {
        let body = std::str::from_utf8(body).map_err(|_| "The form is not text.")?;
        let name = body
            .split('&')
            .filter_map(|field| field.split_once('='))
            .find(|(name, _)| *name == "username")
            .map_or("", |(_, value)| value);
        Self::new(&percent_decoded(&name.replace('+', " ")).ok_or("The form is not text.")?)
    }

    /// The user of the session cookie, if there is a sound one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == COOKIE_NAME)
            .and_then(|(_, value)| Self::new(&percent_decoded(value)?).ok())
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    pub(crate) fn cookie(&self) -> HeaderValue {
        let cookie = format!("{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Lax", percent_encoded(&self.0));
        // Percent-encoding leaves ASCII letters, digits and punctuation only; an odd name would merely not sign in.
        HeaderValue::from_str(&cookie).unwrap_or(HeaderValue::from_static(FORGET))
    }

    /// The name as a header, when a header can carry it as plain ASCII.
    pub(crate) fn header_value(&self) -> Option<HeaderValue> {
        if self.0.is_ascii() { HeaderValue::from_str(&self.0).ok() } else { None }
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Nothing when an escape is broken or the bytes are not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn a_name_survives_the_form_the_cookie_and_back() {
        for (form, name) in [
            ("username=jason", "jason"),
            ("passwd=1&username=Ada+Lovelace&x", "Ada Lovelace"),
            ("username=%C3%85sa%3B%3D", "Åsa;="),
        ] {
            let user = User::from_form(form.as_bytes()).unwrap();
            assert_eq!(user.name(), name);
            let set = user.cookie();
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            assert_eq!(User::of(&cookie(pair)), Some(user), "{pair}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("username={}", "x".repeat(65));
        let forms =
            ["", "username=", "username=+", "user=jason", "username=a%0D%0Ab", "username=%", "username=%ff"];
        for form in forms.into_iter().chain([long.as_str()]) {
            assert!(User::from_form(form.as_bytes()).is_err(), "{form}");
        }
    }

    #[test]
    fn a_broken_cookie_is_nobody() {
        for value in ["session=", "session=%zz", "session=%", "sessions=jason", "other"] {
            assert_eq!(User::of(&cookie(value)), None, "{value}");
        }
    }

    #[test]
    fn only_plain_ascii_names_travel_as_a_header() {
        assert_eq!(User::new("jason").unwrap().header_value().unwrap(), "jason");
        assert_eq!(User::new("Åsa").unwrap().header_value(), None);
    }
}

//! How paths are brought into one form, as settings.
//!
//! Invariant: says what is wanted; doing it is the proxy's.

/// How paths are brought into one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathPolicy {
    /// Resolve dot segments and decode what needs no escape; `false`: the path stays as it is.
    pub normalize: bool,
    /// Several slashes in a row become one.
    pub merge_slashes: bool,
    /// `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// What becomes of `%2F` and `%5C` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// 400.
    Refuse,
    /// They are decoded and the client is sent there with 307.
    Redirect,
    /// They are decoded.
    Decode,
}

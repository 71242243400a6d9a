//! Why a policy could not judge.

use std::{error::Error, fmt};

/// Whatever keeps a policy from judging: the request is refused with 503, and this goes to the log.
///
/// Any error becomes one by `?`; it is no [`Error`] itself, for the sake of that. Clients never see its words.
///
/// # Examples
/// ```
/// use gateway::policy::Failure;
///
/// fn count(text: &str) -> Result<u32, Failure> {
///     Ok(text.parse()?)
/// }
/// assert!(count("many").is_err());
/// assert_eq!(Failure::new("the store is closed").to_string(), "the store is closed");
/// ```
pub struct Failure(Box<dyn Error + Send + Sync>);

impl Failure {
    /// One with these words, or this error.
    #[must_use]
    pub fn new(why: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure(why.into())
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(Box::new(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

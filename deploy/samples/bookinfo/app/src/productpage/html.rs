//! Text into HTML. Whatever did not come from this source file passes through `escaped`.

use std::fmt::{self, Write as _};

/// Displays as text that is safe in element content and in a quoted attribute.
pub(crate) fn escaped(text: &str) -> Escaped<'_> {
    Escaped(text)
}

pub(crate) struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_with_a_meaning_loses_it() {
        assert_eq!(
            escaped("<a b='c' d=\"e\">&amp;é").to_string(),
            "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;amp;é"
        );
    }
}

//! What a code is, and what is known about each.
//!
//! Invariant: a number means one thing for ever. A code that is no longer raised keeps its row in [`table`], marked retired.

mod table;

use std::fmt;

use super::Severity;

/// A row of the table. Orders by its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

/// What the table says about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeInfo {
    /// The code.
    pub code: Code,
    /// Its name, as Istio names it where Istio has it.
    pub title: &'static str,
    /// How bad such a finding is unless it says otherwise.
    pub severity: Severity,
    /// What raises it.
    pub raised: Raised,
    /// What such a finding says about the configuration.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What raises a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Raised {
    /// A file: the smallest one that raises this code and no other, from `deploy/samples/invalid`.
    ByFile(&'static str),
    /// Something that no file holds; what it is.
    Elsewhere(&'static str),
    /// Nothing any more: the number stays reserved; what took its place.
    Retired(&'static str),
}

impl Code {
    /// The number, e.g. `IST0101`.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// The code with this number, in any case.
    pub fn parse(text: &str) -> Option<Code> {
        Code::TABLE.iter().map(|info| info.code).find(|code| code.0.eq_ignore_ascii_case(text))
    }

    /// Its row of the table.
    pub fn info(self) -> CodeInfo {
        // Every Code is a constant of the table, and each constant has a row; the default can only be a programming error.
        let row = Code::TABLE.iter().find(|info| info.code == self);
        row.copied().unwrap_or(CodeInfo {
            code: self,
            title: "",
            severity: Severity::Error,
            raised: Raised::Retired(""),
            meaning: "",
            remedy: "",
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_there_once() {
        let mut numbers: Vec<_> = Code::TABLE.iter().map(|info| info.code).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Code::TABLE.len());
        assert_eq!(Code::parse("ist0101"), Some(Code::REFERENCE_NOT_FOUND));
        assert_eq!(Code::parse("IST9999"), None);
    }

    /// Every number that was ever given, for ever: what is no longer raised is marked retired and stays.
    const GIVEN: &str = "IST0002 IST0101 IST0106 IST0109 IST0112 IST0127 IST0128 IST0129 IST0130 IST0131 IST0132 IST0133 IST0134 IST0138 \
        IST0140 IST0145 IST0149 IST0159 IST0160 IST0161 IST0162 IST0165 IST0173 IST0174 IST0177 LIM0001 LIM0002 LIM0003 LIM0004 LIM0005 LIM0006 \
        LIM0007 LIM0010 LIM0011 LIM0012 LIM0013 LIM0014 LIM0015 LIM0016 LIM0017 LIM0018 LIM0019 LIM0020 LIM0021 LIM0022 LIM0023 LIM0024 LIM0030";

    #[test]
    fn no_number_is_given_back() {
        let given: Vec<_> = GIVEN.split_whitespace().collect();
        for number in &given {
            assert!(Code::parse(number).is_some(), "{number} has lost its row: mark it retired");
        }
        for info in Code::TABLE {
            assert!(given.contains(&info.code.as_str()), "{} is new: write it down here", info.code);
        }
    }

    #[test]
    fn every_row_says_something() {
        for info in Code::TABLE {
            assert!(info.meaning.ends_with('.') && info.remedy.ends_with('.'), "{}", info.code);
            let (Raised::ByFile(said) | Raised::Elsewhere(said) | Raised::Retired(said)) = info.raised;
            assert!(!said.is_empty(), "{}", info.code);
        }
    }
}

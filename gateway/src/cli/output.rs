//! Where a command writes.
//!
//! Invariant: a reader that goes away early (`limen get routes | head`) is not an error.

use std::io::Write;

/// Standard output and standard error, or stand-ins for them.
pub struct Output<'w> {
    out: &'w mut dyn Write,
    err: &'w mut dyn Write,
    reader: Reader,
}

/// Who reads the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Reader {
    /// A file or another program.
    Program,
    /// A person, at a terminal.
    Person,
}

impl<'w> Output<'w> {
    /// Writes the results to `out` and everything else to `err`.
    pub fn new(out: &'w mut dyn Write, err: &'w mut dyn Write, reader: Reader) -> Output<'w> {
        Output { out, err, reader }
    }

    /// Who reads the results.
    pub fn reader(&self) -> Reader {
        self.reader
    }

    /// A result.
    pub fn say(&mut self, text: &str) {
        let _reader_gone = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    /// A result as JSON.
    pub fn json(&mut self, value: &impl serde::Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.say(&format!("{text}\n")),
            Err(error) => self.fail(&format!("cannot be written as JSON: {error}")),
        }
    }

    /// A word to the person.
    pub fn tell(&mut self, text: &str) {
        let _reader_gone = self.err.write_all(text.as_bytes()).and_then(|()| self.err.flush());
    }

    /// One line that says why the command ends here.
    pub fn fail(&mut self, message: &str) {
        self.tell(&format!("limen: {message}\n"));
    }
}

/// `1 error`, `2 errors`.
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

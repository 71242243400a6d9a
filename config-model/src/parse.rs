//! Text to resources: the one place that names serde_yaml.
//!
//! Invariant: a document that cannot be read becomes a finding with its line, and the others go on. Size, depth and
//! expansion are bounded before anything is built from a document. Takes text and opens no file.

mod broken;
mod content;
mod document;
mod guard;
pub mod locate;
mod mesh;
mod object;
mod split;
mod strict;
mod suggest;

use std::sync::Arc;

pub use document::Document;
pub use mesh::mesh_config;
pub use object::Object;
pub(crate) use suggest::nearest;

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    meta::{Origin, ResourceKey},
    set::AnyResource,
};

/// One value by itself, such as a block of a DestinationRule, without the resource around it.
///
/// # Errors
/// What is wrong with it, in words: it is not YAML, too deep or too large once expanded, or not a `T`.
pub fn value<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    match guard::refusal(text) {
        Some(reason) => Err(reason),
        None => serde_yaml::from_str(text).map_err(|error| error.to_string()),
    }
}

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 32 << 20;
/// Largest document that is read, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 3 << 20;

/// Most objects that are read of one file; each may cost a finding that is many times longer than itself.
pub const MAX_OBJECTS: usize = 100_000;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The documents that became resources, in the order written.
    pub resources: Vec<AnyResource>,
    /// The documents that did not, with as much of their identity as could be made out.
    pub failed: Vec<FailedDocument>,
    /// Documents of kinds that are not read.
    pub ignored: Vec<IgnoredDocument>,
    /// What is to be said about all of them, in the order of the file.
    pub diagnostics: Diagnostics,
}

/// A document that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedDocument {
    /// The resource it would have been, if that much could be read: an earlier version of it may go on being served.
    pub key: Option<ResourceKey>,
    /// Where it begins.
    pub origin: Origin,
}

/// A document of a kind that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredDocument {
    /// API version and kind, e.g. `apps/v1 Deployment`.
    pub kind: String,
    /// Where it begins.
    pub origin: Origin,
}

impl Parsed {
    /// How many objects were in it.
    pub fn objects(&self) -> usize {
        self.resources.len() + self.failed.len() + self.ignored.len()
    }
}

/// Reads a file of YAML or JSON: any number of documents, `List`s among them. `file` is only a name for messages.
pub fn parse(file: &str, text: impl AsRef<[u8]>) -> Parsed {
    let documents = match documents(file, text) {
        Ok(documents) => documents,
        Err(parsed) => return parsed,
    };
    let mut parsed = Parsed::default();
    for document in documents {
        if document.add_to(&mut parsed).is_break() {
            break;
        }
    }
    locate::place(&mut parsed.diagnostics);
    parsed
}

/// The documents of a file of YAML or JSON, which can be read one by one: together they give what [`parse`] gives, up to
/// [`MAX_OBJECTS`].
///
/// # Errors
/// What is to be said of a file that is no text or too large.
pub fn documents(file: &str, text: impl AsRef<[u8]>) -> Result<Vec<Document>, Parsed> {
    let mut parsed = Parsed::default();
    let file: Arc<str> = file.into();
    let bytes = text.as_ref();
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes; the limit is {MAX_FILE_BYTES}", bytes.len());
        fail(&mut parsed, Code::LIMIT, Origin::new(file, 1, 1), None, message);
        return Err(parsed);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
            let origin = Origin::new(file, u32::try_from(line).unwrap_or(u32::MAX), 1);
            fail(&mut parsed, Code::LIMIT, origin, None, "the file is not UTF-8 text".to_owned());
            return Err(parsed);
        }
    };
    let document = |piece: split::Piece| Document {
        file: Arc::clone(&file),
        text: text.get(piece.range).unwrap_or_default().into(),
        first_line: piece.first_line,
    };
    Ok(split::documents(text).into_iter().map(document).collect())
}

/// Notes a document that could not be read.
fn fail(parsed: &mut Parsed, code: Code, origin: Origin, key: Option<ResourceKey>, message: String) {
    let mut diagnostic = Diagnostic::new(code, message).from_origin(origin.clone()).rejected();
    diagnostic.resource = key.clone();
    parsed.diagnostics.push(diagnostic);
    parsed.failed.push(FailedDocument { key, origin });
}

#[cfg(test)]
mod tests;

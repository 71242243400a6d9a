//! What can be said of a document that cannot be read: where it begins, where it breaks, and whose it is.
//!
//! Invariant: works on lines, since there is no tree. A guess at identity only ever keeps an earlier version in force; it must never
//! make a resource.

use crate::meta::{Kind, Origin, ResourceKey};

/// The first line that is not blank, a comment or a marker.
pub(super) fn content_line(document: &str, first_line: u32) -> u32 {
    let blank = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    first_line.saturating_add(u32::try_from(document.lines().take_while(blank).count()).unwrap_or(0))
}

/// The message with its lines counted from the file (serde_yaml counts from the document), and the position in the file.
///
/// The position is counted anew: to YAML a lone carriage return ends a line too, to editors it does not.
pub(super) fn syntax_error(
    error: &serde_yaml::Error,
    document: &str,
    first_line: u32,
    origin: &Origin,
) -> (String, Origin) {
    let in_file = |line: usize| first_line.saturating_add(u32::try_from(line).unwrap_or(1)).saturating_sub(1);
    let text = error.to_string();
    let mut parts = text.split(" at line ");
    let mut message = parts.next().unwrap_or_default().to_owned();
    for (index, part) in parts.enumerate() {
        let line: String = part.chars().take_while(char::is_ascii_digit).collect();
        // The first position is the finding's own; what follows it says where the broken construct began.
        if let (true, Ok(line)) = (index > 0, line.parse()) {
            message.push_str(&format!(" on line {}", in_file(line)));
        }
        message.push_str(part.find(',').and_then(|comma| part.get(comma..)).unwrap_or_default());
    }
    let Some(location) = error.location() else { return (message, origin.clone()) };
    let (mut line, mut column) = (1_usize, 1_usize);
    for c in document.chars().take(location.index()) {
        (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    (message, origin.at(in_file(line), u32::try_from(column).unwrap_or(u32::MAX)))
}

/// The identity of a document that is not YAML, from the lines where it is usually written.
pub(super) fn recover_key(document: &str) -> Option<ResourceKey> {
    let scalar = |line: &str, field: &str| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?.split(" #").next()?.trim();
        let value = value.trim_matches(|c| c == '"' || c == '\'');
        let plain = !value.is_empty()
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        plain.then(|| value.to_owned())
    };
    let (mut kind, mut name, mut namespace) = (None, None, None);
    let mut in_metadata = false;
    let mut indent: Option<usize> = None;
    // Identity stands at the top; a long broken document need not be walked to its end.
    for line in document.lines().take(200) {
        let depth = line.len() - line.trim_start().len();
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if depth == 0 {
            in_metadata = line.trim_end() == "metadata:";
            kind = kind.or_else(|| scalar(line, "kind"));
            continue;
        }
        if in_metadata && depth == *indent.get_or_insert(depth) {
            name = name.or_else(|| scalar(content, "name"));
            namespace = namespace.or_else(|| scalar(content, "namespace"));
        }
    }
    let kind = Kind::from_name(&kind?)?;
    let namespace =
        if kind.is_namespaced() { namespace.unwrap_or_else(|| "default".to_owned()) } else { String::new() };
    Some(ResourceKey::new(kind, namespace, name?))
}

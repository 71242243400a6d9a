//! What must hold for any bytes: the bodies of the fuzz targets, shared with the property tests in `tests/hostile.rs`.
//!
//! Invariant: a law is more than "no panic": positions lie in the file, nothing that was read is lost, and what is accepted once is
//! accepted again.

use config_model::{
    diagnostic::Diagnostics,
    parse::parse,
    scalar::{HostPattern, ServerHost},
    set::ResourceSet,
    validate::{check_regex, validate},
};

/// Bytes of a file to findings.
pub(crate) fn yaml(bytes: &[u8]) {
    let parsed = parse("a.yaml", bytes);
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    places_are_in_the_file(&parsed.diagnostics, text);
    assert!(parsed.failed.is_empty() || !parsed.diagnostics.is_empty(), "a document failed in silence");

    let mut set = ResourceSet::new();
    set.extend(parsed.resources);
    let before = set.len();
    let (validated, diagnostics) = validate(set);
    assert_eq!(validated.set().len() + validated.rejected().count(), before);
    for finding in &diagnostics {
        assert!(finding.resource.is_some(), "{finding}");
    }
    places_are_in_the_file(&diagnostics, text);

    let again = parse("a.yaml", bytes);
    assert!(parsed.diagnostics.iter().eq(again.diagnostics.iter()), "two readings differ");
}

/// Lines and columns begin at 1 and end with the text.
fn places_are_in_the_file(diagnostics: &Diagnostics, text: &str) {
    // YAML also ends a line at a carriage return that stands alone; no editor of this century counts lines so.
    let counted_alike = !text.replace("\r\n", "\n").contains('\r');
    let lines: Vec<usize> = text.split('\n').map(|line| line.chars().count()).collect();
    for finding in diagnostics {
        assert!(!finding.to_string().is_empty() && !finding.message.is_empty());
        let Some(origin) = &finding.origin else { continue };
        let (line, column) = (origin.line as usize, origin.column as usize);
        assert!(line >= 1 && column >= 1, "{finding}");
        // A file that breaks off is wrong just behind its last line.
        assert!(line <= lines.len() + 1, "{finding}: the file has {} lines", lines.len());
        if let Some((end_line, end_column)) = origin.end() {
            let width = lines.get(line - 1).copied().unwrap_or(0);
            assert!((end_line as usize, end_column as usize) >= (line, column), "{finding}");
            if !counted_alike {
                continue;
            }
            assert!(column <= width + 1, "{finding}: column {column} of {width}");
            assert!(
                end_line as usize > line || end_column as usize <= width + 2,
                "{finding}: {end_column} of {width}"
            );
        }
    }
}

/// A pattern that is accepted is accepted in a group too, so anchoring it cannot change its meaning.
pub(crate) fn regex(bytes: &[u8]) {
    let Ok(pattern) = std::str::from_utf8(bytes) else { return };
    if check_regex(pattern).is_none() && pattern.len() <= 1000 {
        let grouped = format!("(?:{pattern})");
        assert_eq!(check_regex(&grouped), None, "{pattern:?} is accepted, {grouped:?} is not");
    }
}

/// A host that is accepted shows as what was read, and covers itself.
pub(crate) fn host(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(host) = text.parse::<HostPattern>() {
        assert_eq!(host.to_string().parse::<HostPattern>().as_ref(), Ok(&host), "{text:?}");
        assert!(host.covers(&host) && host.overlaps(&host), "{text:?}");
        assert_eq!(host.intersect(&host), Some(&host), "{text:?}");
        if let Some(name) = host.exact() {
            assert!(host.covers_name(name), "{text:?}");
        }
    }
    if let Ok(host) = text.parse::<ServerHost>() {
        assert!(host.host().covers(host.host()), "{text:?}");
    }
}

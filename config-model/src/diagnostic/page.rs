//! The page of a code: what it means, an example that raises it, what to do.
//!
//! Invariant: made from the table and nothing else, so page, `limen check --explain` and the code that raises it cannot differ.

use super::{
    Severity,
    code::{Code, CodeInfo, Raised},
};

/// The page of a code, in Markdown that also reads well in a terminal.
#[must_use]
pub fn page(code: Code) -> String {
    render(&code.info())
}

fn render(info: &CodeInfo) -> String {
    let code = info.code;
    let mut page = format!("# {code} {}\n\n", info.title);
    let level = match info.severity {
        Severity::Error => "Error",
        Severity::Warning => "Warning",
        Severity::Info => "Info",
    };
    let origin = match code.as_str().strip_prefix("IST") {
        Some(_) => "; the number is that of `istioctl analyze`",
        None => "; a number of Limen's own",
    };
    page.push_str(&format!("{level}{origin}.\n\n## What it means\n\n{}\n\n", wrapped(info.meaning)));
    match info.raised {
        Raised::ByFile(sample) => {
            page.push_str(&format!("## A file that raises it\n\n```yaml\n{}\n```\n\n", sample.trim_end()));
        }
        Raised::Elsewhere(why) => {
            page.push_str(&format!("No file raises it by itself. {}\n\n", wrapped(why)))
        }
        Raised::Retired(instead) => {
            page.push_str(&format!("Retired: no version raises it any more. {}\n\n", wrapped(instead)));
        }
    }
    page.push_str(&format!("## What to do\n\n{}\n", wrapped(info.remedy)));
    page
}

/// The list of all pages.
#[must_use]
pub fn index() -> String {
    let mut index = String::from(
        "# What `limen check` may say\n\n`limen check --explain CODE` prints a page.\n\n| Code | Name | Severity |\n|---|---|---|\n",
    );
    for info in Code::TABLE {
        let note = if matches!(info.raised, Raised::Retired(_)) { " (retired)" } else { "" };
        index.push_str(&format!(
            "| [{0}]({0}.md) | {1}{note} | {2} |\n",
            info.code, info.title, info.severity
        ));
    }
    index
}

/// Lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > 100 {
            out.push('\n');
            width = 0;
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_why_and_what_next() {
        let shown = page(Code::PORT_REQUIRED);
        assert!(shown.starts_with("# IST0112 VirtualServiceDestinationPortSelectorRequired\n\nError; "));
        assert!(
            shown.contains("```yaml\n") && shown.contains("## What to do\n\nAdd `port.number`"),
            "{shown}"
        );
        assert!(page(Code::UNREADABLE).contains("No file raises it"));
        let retired = CodeInfo { raised: Raised::Retired("LIM0099 says it now."), ..Code::SYNTAX.info() };
        assert!(render(&retired).contains("Retired: no version raises it any more. LIM0099 says it now."));
        assert!(
            Code::TABLE.iter().all(|info| page(info.code).lines().all(|line| line.chars().count() <= 110))
        );
    }

    #[test]
    fn the_index_has_every_code() {
        assert_eq!(index().lines().filter(|line| line.starts_with("| [")).count(), Code::TABLE.len());
    }
}

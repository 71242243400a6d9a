//! The page at `/`: what is in force at a glance, without a script.
//!
//! Invariant: every value is escaped; names come from whoever may write configuration.

use super::{Admin, Readiness};
use crate::{
    cli::VERSION,
    report::{
        findings::Findings,
        table::{Row, Table},
    },
};

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#1b2733}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .4rem}\
table{border-collapse:collapse}th,td{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top}\
th{color:#5b6b7a;font-weight:600}td{font-family:ui-monospace,monospace;font-size:12.5px}\
tr:nth-child(even) td{background:#f4f7f9}.error{color:#b3261e}.warning{color:#8a5a00}\
nav a{margin-right:1rem}p{margin:.3rem 0}";

const LINKS: [&str; 10] = [
    "config_dump",
    "clusters",
    "clusters?format=json",
    "listeners",
    "certs",
    "server_info",
    "diagnostics",
    "stats/prometheus",
    "healthz/ready",
    "explain?url=http://localhost/",
];

/// Rows shown of a table; the dump has all.
const MOST_ROWS: usize = 200;

pub(super) fn page(admin: &Admin) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>limen</title>\
         <style>{STYLE}</style></head><body><h1>limen {VERSION}</h1>"
    );
    let state = match admin.readiness() {
        Readiness::Ready => "ready".to_owned(),
        Readiness::Starting(why) => format!("starting: {why}"),
        Readiness::Broken(why) => format!("broken: {why}"),
        Readiness::Draining => "draining".to_owned(),
    };
    let built = admin.status.built();
    let generation = built.as_ref().map_or(0, |built| built.generation);
    out.push_str(&format!(
        "<p>{}, configuration {generation}, {} connections, up {} s</p><nav>",
        escape(&state),
        admin.listeners.connections(),
        admin.started.elapsed().as_secs()
    ));
    for link in LINKS {
        out.push_str(&format!("<a href=\"/{0}\">{0}</a> ", escape(link)));
    }
    out.push_str("</nav>");
    findings(admin, &mut out);
    if let Some(built) = built {
        for table in Table::ALL {
            rows(table, &table.rows(&built.compiled, built.validated.secrets()), &mut out);
        }
    }
    out.push_str("</body></html>");
    out
}

fn findings(admin: &Admin, out: &mut String) {
    let all = Findings::new(&admin.status.findings(), 0).findings;
    if all.is_empty() {
        return;
    }
    out.push_str("<h2>findings</h2><table>");
    for finding in all.iter().take(MOST_ROWS) {
        let place = match (&finding.file, finding.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            _ => String::new(),
        };
        let resource = finding.resource.as_deref().unwrap_or_default();
        out.push_str(&format!(
            "<tr><td class=\"{}\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&finding.severity),
            escape(&finding.code),
            escape(resource),
            escape(&place),
            escape(&finding.message)
        ));
    }
    out.push_str("</table>");
    more(all.len(), out);
}

fn rows(table: Table, rows: &[Row], out: &mut String) {
    out.push_str(&format!("<h2>{} ({})</h2><table><tr>", table.name(), rows.len()));
    for heading in table.headings() {
        out.push_str(&format!("<th>{}</th>", escape(&heading.to_lowercase())));
    }
    out.push_str("</tr>");
    for row in rows.iter().take(MOST_ROWS) {
        out.push_str("<tr>");
        for cell in table.cells(row) {
            out.push_str(&format!("<td>{}</td>", escape(&cell)));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
    more(rows.len(), out);
}

fn more(all: usize, out: &mut String) {
    if let Some(hidden) = all.checked_sub(MOST_ROWS).filter(|hidden| *hidden > 0) {
        out.push_str(&format!("<p>and {hidden} more</p>"));
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn markup_stays_text() {
        assert_eq!(super::escape("<b a='x'>&\""), "&lt;b a=&#39;x&#39;&gt;&amp;&quot;");
    }
}

//! `limen get`: tables of what is compiled, from files or from a running gateway.
//!
//! Invariant: a table from a running gateway is printed by the same code as one from files.

use super::{
    Exit, Output,
    args::{Format, GetArgs, TableArg},
    load::{self, Depth},
    remote,
};
use crate::report::table::{Row, Table};

pub(super) fn get(args: &GetArgs, out: &mut Output<'_>) -> Exit {
    let table = match args.table {
        TableArg::Listeners => Table::Listeners,
        TableArg::Hosts => Table::Hosts,
        TableArg::Routes => Table::Routes,
        TableArg::Clusters => Table::Clusters,
        TableArg::Endpoints => Table::Endpoints,
        TableArg::Certificates => Table::Certificates,
    };
    let rows: Vec<Row> = match &args.admin {
        Some(admin) => match remote::get(
            admin,
            args.admin_token_file.as_deref(),
            &format!("/config_dump?table={}", table.name()),
        ) {
            Ok(rows) => rows,
            Err(message) => {
                out.fail(&message);
                return Exit::Failed;
            }
        },
        None => match load::load(&args.common, &[], Depth::Served, out) {
            Ok(built) => {
                load::warn_of_errors(&built.diagnostics, out);
                let rows = table.rows(&built.compiled, built.validated.secrets());
                if rows.is_empty() && load::has_unparsable(&built.diagnostics) {
                    return Exit::Unparsable;
                }
                rows
            }
            Err(exit) => return exit,
        },
    };
    match args.output {
        Format::Text => out.say(&table.text(&rows)),
        Format::Json => out.json(&rows),
    }
    Exit::Ok
}

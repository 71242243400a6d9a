//! `limen explain`: what would happen to one request, from files or from a running gateway.
//!
//! Invariant: both ways give the same object, so scripts need not know which one was asked.

use super::{
    Exit, Output,
    args::{ExplainArgs, Format, Role},
    load::{self, Depth},
    paint, remote,
};
use crate::{
    edge::PathPolicy,
    report::{
        explain::{Answer, Verdict, answer},
        question::{Ask, encode},
        story::story,
    },
};

pub(super) fn explain(args: &ExplainArgs, out: &mut Output<'_>) -> Exit {
    let of_sidecar = args.destination.is_some() || args.direction.is_some();
    if of_sidecar && args.admin.is_none() && args.common.role == Role::Gateway {
        out.fail("--destination and --direction are for --role sidecar");
        return Exit::Usage;
    }
    let ask = Ask {
        url: args.url.clone(),
        method: args.method.clone(),
        headers: args.headers.clone(),
        port: args.port,
        sni: args.sni.clone(),
        protocol: args.protocol.map(|protocol| protocol.as_str().to_owned()),
        alpn: args.alpn.clone(),
        client_ip: args.client_ip,
        client_cert: args.client_cert.clone(),
        destination: args.destination,
        direction: args.direction.map(|direction| direction.as_str().to_owned()),
        seed: args.seed,
    };
    let question = match ask.question(&args.port_map.0) {
        Ok(question) => question,
        Err(message) => {
            out.fail(&message);
            return Exit::Usage;
        }
    };
    let (answer, unparsable) = match &args.admin {
        Some(admin) => match remote::get::<Answer>(
            admin,
            args.admin_token_file.as_deref(),
            &format!("/explain?{}", encode(&ask)),
        ) {
            Ok(answer) => (answer, false),
            Err(message) => {
                out.fail(&message);
                return Exit::Failed;
            }
        },
        None => match load::load(&args.common, &[], Depth::Served, out) {
            Ok(built) => {
                load::warn_of_errors(&built.diagnostics, out);
                (
                    answer(&built.compiled, &PathPolicy::of(built.validated.mesh()), &question),
                    load::has_unparsable(&built.diagnostics),
                )
            }
            Err(exit) => return exit,
        },
    };
    match args.output {
        Format::Text => out.say(&story(&answer, paint(args.common.color, out.reader()))),
        Format::Json => out.json(&answer),
    }
    match answer.verdict {
        Verdict::Forward | Verdict::Redirect | Verdict::DirectResponse | Verdict::Passthrough => Exit::Ok,
        Verdict::Denied => Exit::Denied,
        // What is missing may be in the file that cannot be read.
        Verdict::NotFound | Verdict::Misdirected | Verdict::Refused if unparsable => Exit::Unparsable,
        Verdict::NotFound | Verdict::Misdirected | Verdict::Refused => Exit::NoRoute,
    }
}

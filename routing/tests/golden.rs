//! Behaviour as case files: `golden/<case>/config.yaml` is compiled, `golden/<case>/requests.yaml` says what each request
//! gets, and what clusters there are. A bug fix begins with a case.
//!
//! Invariant: a case says everything it relies on. A finding that rejects, or one that is not expected, fails it; so does
//! an expected cluster that does not exist, unless the case says so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a case that cannot be read must fail the test")]

mod case;

use case::{Case, answer::answer, clusters::described};
use config_model::{
    diagnostic::{Diagnostics, Effect},
    parse::parse,
    set::ResourceSet,
    validate::validate,
};
use routing::compile::{Compiled, Compiler, Identity, Role, Workload, compile};
use std::{fmt::Write as _, fs, path::Path, sync::Arc};

/// Fails where something of the case is not let in.
fn load(dir: &Path, case: &Case) -> Result<(Compiled, Diagnostics), String> {
    let text = fs::read_to_string(dir.join("config.yaml")).unwrap();
    let parsed = parse("config.yaml", &text);
    if !parsed.failed.is_empty() {
        return Err(format!("{:?}", parsed.diagnostics));
    }
    let mut set = ResourceSet::new();
    if !set.extend(parsed.resources).is_empty() {
        return Err("a key is there twice".to_owned());
    }
    let (validated, findings) = validate(set);
    let rejected: Vec<_> =
        findings.iter().filter(|f| f.effect == Effect::Rejected).map(ToString::to_string).collect();
    if !rejected.is_empty() {
        return Err(rejected.join("\n  "));
    }
    let mut identity = Identity::default();
    identity.namespace = case.identity.namespace.clone().unwrap_or(identity.namespace);
    identity.labels = case.identity.labels.clone().unwrap_or(identity.labels);
    if let Some(addresses) = &case.identity.beside {
        identity.role = Role::Sidecar(Box::new(Workload::at(addresses.clone())));
    }
    Ok(compile(&validated, &identity))
}

/// Compiling a second time over the first must change nothing and share every cluster.
fn recompiles(dir: &Path, case: &Case, first: &Compiled) {
    let text = fs::read_to_string(dir.join("config.yaml")).unwrap();
    let mut set = ResourceSet::new();
    set.extend(parse("config.yaml", &text).resources);
    let mut compiler = Compiler::new(first.identity().clone());
    let (before, _) = compiler.compile(&validate(set.clone()).0);
    let (again, _) = compiler.compile(&validate(set).0);
    for (name, cluster) in &*before.clusters {
        assert!(again.cluster(name).is_some_and(|other| Arc::ptr_eq(cluster, other)), "{name}");
    }
    for request in &case.requests {
        assert_eq!(answer(&again, request), request.expect, "after a reload: {}", request.path);
    }
}

#[test]
fn every_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut dirs: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    assert!(dirs.len() >= 560, "cases are missing");
    let mut failures = String::new();
    for dir in &dirs {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(dir.join("requests.yaml")).unwrap();
        let case: Case = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (compiled, findings) = match load(dir, &case) {
            Ok(loaded) => loaded,
            Err(reason) => {
                writeln!(failures, "{name}: {reason}").unwrap();
                continue;
            }
        };
        let mut codes: Vec<_> = findings.iter().map(|f| f.code.to_string()).collect();
        codes.sort();
        if codes != case.findings {
            let shown: Vec<_> = findings.iter().map(ToString::to_string).collect();
            writeln!(
                failures,
                "{name}: findings {codes:?}, wants {:?}\n  {}",
                case.findings,
                shown.join("\n  ")
            )
            .unwrap();
        }
        let before = failures.len();
        for request in &case.requests {
            let got = answer(&compiled, request);
            if got != request.expect {
                let (method, host, path) = (&request.method, &request.authority, &request.path);
                writeln!(
                    failures,
                    "{name}: {method} {host}{path}\n  wants {:?}\n  got   {got:?}",
                    request.expect
                )
                .unwrap();
            }
        }
        for (cluster, want) in &case.clusters {
            let got = described(&compiled, cluster, want.as_ref());
            if got != *want {
                writeln!(failures, "{name}: {cluster}\n  wants {want:?}\n  got   {got:?}").unwrap();
            }
        }
        if failures.len() == before {
            recompiles(dir, &case, &compiled);
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

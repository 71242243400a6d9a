//! What a Sidecar saves: the seed case's namespace in a cluster of 5,000 services, with and without one. Prints what it measures
//! (`--nocapture`).
//!
//! Invariant: what is reached is the same services; only memory and time differ. Memory is what the compiled configuration holds, which
//! is the same on every machine; time is printed and not judged.

#![allow(clippy::unwrap_used, reason = "a configuration that cannot be read must fail the test")]
#![allow(clippy::print_stdout, reason = "what was measured is what this is for")]

use config_model::{
    parse::parse,
    set::ResourceSet,
    validate::{Validated, validate},
};
use routing::compile::{Compiled, Compiler, Identity, Role, Workload};
use std::{fmt::Write as _, time::Instant};

const SERVICES: usize = 5_000;
/// Those of the workload's own namespace and of istio-system.
const OWN: usize = 8;

fn configuration(bounded: bool) -> Validated {
    let mut yaml = String::new();
    for n in 0..SERVICES {
        let namespace = match n {
            0..4 => "bookinfo".to_owned(),
            4..OWN => "istio-system".to_owned(),
            _ => format!("team{}", n / 20),
        };
        let ip = format!("10.{}.{}.{}", 32 + n / 62_500, n / 250 % 250, n % 250 + 1);
        write!(
            yaml,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: {namespace}}}\nspec: {{clusterIP: {ip}, ports: [{{name: http, port: 8080}}, {{name: tcp, port: 7000}}]}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: s{n}, namespace: {namespace}}}\nspec: {{hosts: [s{n}], http: [{{timeout: 3s, route: [{{destination: {{host: s{n}, port: {{number: 8080}}}}}}]}}]}}\n"
        )
        .unwrap();
    }
    if bounded {
        yaml += "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: bookinfo}\nspec: {egress: [{hosts: ['./*', 'istio-system/*']}]}\n";
    }
    let mut set = ResourceSet::new();
    set.extend(parse("many.yaml", &yaml).resources);
    let (validated, findings) = validate(set);
    assert!(!findings.has_errors(), "{:?}", findings.into_iter().next());
    validated
}

struct Cost {
    kilobytes: u64,
    milliseconds: u128,
    clusters: usize,
}

fn cost(bounded: bool) -> Cost {
    let input = configuration(bounded);
    let identity = Identity {
        namespace: "bookinfo".to_owned(),
        labels: [("app".to_owned(), "productpage".to_owned())].into(),
        role: Role::Sidecar(Box::new(Workload::at(vec![[10, 1, 0, 9].into()]))),
        ..Identity::default()
    };
    let mut compiler = Compiler::new(identity);
    let mut compiled = Compiled::default();
    let began = Instant::now();
    let held = allocation_counter::measure(|| compiled = compiler.compile(&input).0);
    let milliseconds = began.elapsed().as_millis();
    let kilobytes = u64::try_from(held.bytes_current).unwrap() / 1024;
    Cost { kilobytes, milliseconds, clusters: compiled.clusters.len() }
}

#[test]
fn a_sidecar_saves_what_it_does_not_reach() {
    let (all, bounded) = (cost(false), cost(true));
    for (name, cost) in [("without a Sidecar", &all), ("with ./* and istio-system/*", &bounded)] {
        println!(
            "{SERVICES} services, {name}: {} kB held, {} ms to compile, {} clusters",
            cost.kilobytes, cost.milliseconds, cost.clusters
        );
    }
    // Two ports each, and the three clusters that every sidecar has.
    assert_eq!((all.clusters, bounded.clusters), (2 * SERVICES + 3, 2 * OWN + 3));
    assert!(bounded.kilobytes * 50 < all.kilobytes, "{} of {} kB", bounded.kilobytes, all.kilobytes);
}

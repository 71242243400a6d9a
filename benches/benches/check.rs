//! What `limen check` costs on a folder of 10,000 resources: processor time of the one thread it runs on, and the memory of the
//! whole process. Once without a mistake; once with one in most resources, so that every document is searched for the place; once
//! with resources that are in each other's way, all on one gateway, so that every rule between resources has much to compare and to say.
//!
//! Invariant: fails above the limits that are promised. Run as a test it reads a hundred resources and measures nothing.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints what it measured")]

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use gateway::cli::{self, Exit, Output, Reader};

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RESOURCES: usize = 10_000;
const LIMIT_TIME: Duration = Duration::from_secs(2);
const LIMIT_MEMORY_MIB: u64 = 300;
const RUNS: usize = 5;

/// What the resources are like.
#[derive(Clone, Copy)]
enum Config {
    /// Nothing is to be said.
    Clean,
    /// Most have a mistake of their own.
    Mistaken,
    /// Each is at odds with others.
    Entangled,
}

/// The four resources of one service; `mistake` is a line of `spec`.
fn service(n: usize, mistake: &str, text: &mut String) {
    let namespace = n % 100;
    let _infallible = write!(
        text,
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: app-{n}
  namespace: team-{namespace}
  labels: {{team: t{namespace}, app: app-{n}}}
spec:
{mistake}  hosts:
  - app-{n}.example.com
  gateways:
  - istio-system/public
  http:
  - name: api
    match:
    - uri:
        prefix: /api/
      headers:
        x-version:
          exact: \"2\"
    - uri:
        regex: \"/items/[0-9]+\"
    timeout: 3s
    rewrite:
      uri: /
    route:
    - destination:
        host: app-{n}
        port:
          number: 80
      weight: 90
    - destination:
        host: ext-{n}.partner.example
        port:
          number: 443
      weight: 10
  - route:
    - destination:
        host: app-{n}
        port:
          number: 80
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: app-{n}
  namespace: team-{namespace}
spec:
{mistake}  host: app-{n}
  trafficPolicy:
    loadBalancer:
      simple: LEAST_REQUEST
---
apiVersion: v1
kind: Service
metadata:
  name: app-{n}
  namespace: team-{namespace}
spec:
  selector:
    app: app-{n}
  ports:
  - name: http
    port: 80
    targetPort: 8080
  - name: http-metrics
    port: 9090
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: ext-{n}
  namespace: team-{namespace}
spec:
{mistake}  hosts:
  - ext-{n}.partner.example
  location: MESH_EXTERNAL
  resolution: DNS
  ports:
  - number: 443
    name: https
    protocol: TLS
"
    );
}

/// The four resources of one service that is at odds with all others: one host and certificate for every Gateway, claims that nobody
/// checks, a host for all VirtualServices, credentials and subsets that are not there, one external host with two protocols.
fn entangled(n: usize, text: &mut String) {
    let namespace = n % 100;
    let (protocol, host) = match n % 2 {
        0 => ("TCP", "*.example.com".to_owned()),
        _ => ("TLS", format!("app-{}.example.com", n % 1000)),
    };
    let _infallible = write!(
        text,
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: door-{n}
  namespace: team-{namespace}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: 443, name: https, protocol: HTTPS}}
    hosts:
    - '*.example.com'
    tls: {{mode: SIMPLE, credentialName: shared}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: app-{n}
  namespace: team-{namespace}
spec:
  hosts:
  - '{host}'
  gateways:
  - istio-system/public
  - door-{n}
  http:
  - match:
    - uri: {{prefix: /api/}}
      headers:
        '@request.auth.claims.group': {{exact: testers}}
    - uri: {{exact: /api/x}}
    route:
    - destination: {{host: ext.partner.example, subset: v1}}
  - route:
    - destination: {{host: nowhere-{n}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: app-{n}
  namespace: team-{namespace}
spec:
  host: '*.partner.example'
  trafficPolicy:
    tls: {{mode: SIMPLE, credentialName: missing}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: ext-{n}
  namespace: team-{namespace}
spec:
  hosts:
  - ext.partner.example
  location: MESH_EXTERNAL
  resolution: DNS
  ports:
  - number: 443
    name: port
    protocol: {protocol}
"
    );
}

const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ['*.example.com']
";

/// A folder with a file for each 25 services, as teams keep them.
fn folder(config: Config, resources: usize) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("gateway.yaml"), GATEWAY)?;
    let services: Vec<usize> = (0..resources / 4).collect();
    for (file, services) in services.chunks(25).enumerate() {
        let mut text = String::new();
        for n in services {
            match config {
                Config::Clean => service(*n, "", &mut text),
                Config::Mistaken => service(*n, "  exportsTo: [x]\n", &mut text),
                Config::Entangled => entangled(*n, &mut text),
            }
        }
        fs::write(folder.path().join(format!("services-{file}.yaml")), text)?;
    }
    Ok(folder)
}

/// `limen check FOLDER`: how it ended and what it said.
fn check(folder: &Path) -> (Exit, usize) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = [OsString::from("limen"), "check".into(), folder.into()];
    let exit = cli::main(arguments, &mut Output::new(&mut out, &mut err, Reader::Program));
    (exit, out.split(|byte| *byte == b'\n').count() - 1)
}

/// Time that this thread was on a processor, where the system tells; on a busy machine the clock tells nothing.
fn on_processor() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The most memory that this process had resident.
fn peak_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

fn main() -> std::io::Result<ExitCode> {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let resources = if measuring { RESOURCES } else { 100 };
    let mut within = true;
    for config in [Config::Clean, Config::Mistaken, Config::Entangled] {
        let folder = folder(config, resources)?;
        let mut times = Vec::new();
        let mut said = 0;
        for _ in 0..if measuring { RUNS } else { 1 } {
            let (clock, processor) = (Instant::now(), on_processor());
            let (exit, lines) = check(folder.path());
            let spent = processor.and_then(|before| Some(on_processor()? - before));
            times.push(spent.unwrap_or_else(|| clock.elapsed()));
            said = lines;
            let wanted = match config {
                Config::Clean => (Exit::Ok, 0),
                Config::Mistaken => (Exit::Ok, resources / 4 * 3),
                // Each is named at least twice.
                Config::Entangled => (Exit::Failed, lines.max(resources * 2)),
            };
            assert_eq!((exit, lines), wanted, "limen check {}", folder.path().display());
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        if measuring {
            let peak = peak_mib();
            println!(
                "check {resources} resources, {said} findings: median {median:.0?} of one core, peak {} MiB",
                peak.map_or_else(|| "?".to_owned(), |peak| peak.to_string())
            );
            within &= median <= LIMIT_TIME && peak.is_none_or(|peak| peak <= LIMIT_MEMORY_MIB);
        }
    }
    if within {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("above the limit of {LIMIT_TIME:?} and {LIMIT_MEMORY_MIB} MiB");
    Ok(ExitCode::FAILURE)
}

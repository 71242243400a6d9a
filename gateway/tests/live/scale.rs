//! A folder with many hosts: how soon the first request is answered, what memory it takes, and what one change costs.
//!
//! Small by default, so that the way is walked in every build; `LIMEN_SCALE=10000` with `LIMEN_BIN` naming a release build prints the
//! figures that are published (`benches/load/scale.sh`).

use crate::{
    harness::*,
    measure::{cpu, memory, scale, until},
};
use std::time::{Duration, Instant};

/// A host with five routes, one of which is answered by the gateway itself.
fn virtual_service(n: usize, answer: &str) -> String {
    let to_service: String = (1..5)
        .map(|n| {
            format!(
                "  - match:
    - uri:
        prefix: /p{n}/
    route:
    - destination:
        host: up.default.svc.cluster.local
        port:
          number: 80
"
            )
        })
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: vs-{n}
  namespace: default
spec:
  hosts:
  - h{n}.example.com
  gateways:
  - istio-system/public
  http:
  - match:
    - uri:
        prefix: /direct/
    directResponse:
      status: 200
      body:
        string: \"{answer}\"
{to_service}"
    )
}

/// Changes one host after the other and prints what each change took.
fn changes(limen: &Limen, hosts: usize, write: impl Fn(usize, &str)) {
    let id = limen.child.id();
    for change in 0..5 {
        let n = (change * 7919 + hosts / 2) % hosts;
        let answer = format!("changed {change}");
        let before = cpu(id);
        write(n, &answer);
        let took = until(limen.port, &format!("h{n}.example.com"), "/direct/", &answer);
        // What follows the publication counts too; asking a hundred times costs a few milliseconds.
        std::thread::park_timeout(Duration::from_millis(300));
        let spent = cpu(id) - before;
        println!(
            "change {change}: live {took:.0?} after the write (100 ms of it to let writing end), {spent:.1?} of CPU"
        );
        let other = (n + 1) % hosts;
        until(limen.port, &format!("h{other}.example.com"), "/direct/", "1");
    }
}

/// Starts the gateway once more, now that its files are where the system finds them soon, and prints what that took.
fn start_again(limen: &mut Limen, hosts: usize, shape: &str) {
    limen.child.kill().unwrap();
    limen.child.wait().unwrap();
    let begin = Instant::now();
    limen.child = limen.again("again.log", &[]);
    until(limen.port, &format!("h{}.example.com", hosts - 1), "/direct/", "1");
    let (took, id) = (begin.elapsed(), limen.child.id());
    let ((now, most), spent) = (memory(id), cpu(id));
    println!(
        "{hosts} hosts x 5 routes, {shape}: first answer after {took:.0?} and {spent:.0?} of CPU, {now} MiB resident, {most} MiB at most"
    );
}

#[test]
fn one_file_for_each_host() {
    let hosts = scale();
    let texts: Vec<(String, String)> =
        (0..hosts).map(|n| (format!("vs-{n}.yaml"), virtual_service(n, "1"))).collect();
    let mut files: Vec<(&str, &str)> =
        texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let up = service("up", &[80]);
    files.extend([("gateway.yaml", GATEWAY), ("up.yaml", &up)]);
    let mut limen = Limen::start_with(&files, &["--access-log", "off"]);
    start_again(&mut limen, hosts, "a file for each host");
    changes(&limen, hosts, |n, answer| limen.write(&format!("vs-{n}.yaml"), &virtual_service(n, answer)));
}

#[test]
fn one_file_for_all_hosts() {
    let hosts = scale();
    let all = |changed: Option<(usize, &str)>| {
        let text = |n| match changed {
            Some((at, answer)) if at == n => virtual_service(n, answer),
            _ => virtual_service(n, "1"),
        };
        (0..hosts).map(text).collect::<Vec<_>>().join("---\n")
    };
    let up = service("up", &[80]);
    let files = [("all.yaml", &*all(None)), ("gateway.yaml", GATEWAY), ("up.yaml", &up)];
    let mut limen = Limen::start_with(&files, &["--access-log", "off"]);
    start_again(&mut limen, hosts, "one file");
    changes(&limen, hosts, |n, answer| limen.write("all.yaml", &all(Some((n, answer)))));
}

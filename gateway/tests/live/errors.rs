//! What a client sees when nothing can serve it: Istio's status, body and flag, on the wire and in the access log.

use crate::harness::*;

fn flagged(limen: &Limen, path: &str, flag: &str) -> String {
    eventually("the access-log line", || {
        let log = limen.access_log();
        log.lines().find(|line| line.contains(path) && line.contains(flag)).map(str::to_owned)
    })
}

#[test]
fn errors_are_istios() {
    let up = Upstream::start("up");
    let config = [
        GATEWAY.to_owned(),
        virtual_service("up", ""),
        virtual_service("down", ""),
        virtual_service("empty", ""),
        virtual_service("missing", ""),
        service("up", &[up.port]),
        service("down", &[free_port()]),
        service("empty", &[]),
    ]
    .concat();
    let limen = Limen::start(&[("all.yaml", &config)]);

    let served = get(limen.port, "up.example.com", "/hello?x=1").unwrap();
    assert_eq!((served.status, served.body.as_str()), (200, "up /hello?x=1"));

    let unknown = get(limen.port, "nobody.test", "/unknown-host").unwrap();
    assert_eq!((unknown.status, unknown.body.as_str()), (404, ""));
    flagged(&limen, "/unknown-host", " NR ");

    let down = get(limen.port, "down.example.com", "/endpoint-down").unwrap();
    assert_eq!(down.status, 503);
    assert!(
        down.body.starts_with("upstream connect error or disconnect/reset before headers"),
        "{}",
        down.body
    );
    flagged(&limen, "/endpoint-down", "UF");

    let empty = get(limen.port, "empty.example.com", "/no-endpoint").unwrap();
    assert_eq!((empty.status, empty.body.as_str()), (503, "no healthy upstream"));
    flagged(&limen, "/no-endpoint", " UH ");

    let missing = get(limen.port, "missing.example.com", "/no-cluster").unwrap();
    assert_eq!((missing.status, missing.body.as_str()), (503, ""));
    flagged(&limen, "/no-cluster", " NC ");
}

#[test]
fn one_broken_of_a_thousand_hurts_only_itself() {
    let up = Upstream::start("up");
    let mut config = [GATEWAY.to_owned(), service("up", &[up.port])].concat();
    for n in 0..1000 {
        let host = if n == 500 { "[not a host!]" } else { "up" };
        config.push_str(&format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs-{n}, namespace: default}}\n\
             spec:\n  hosts: [h{n}.example.com]\n  gateways: [istio-system/public]\n  http:\n  \
             - route: [{{destination: {{host: {host}}}}}]\n"
        ));
    }
    let limen = Limen::start(&[("all.yaml", &config)]);
    let mut client = Client::connect(limen.port).unwrap();
    for n in (0..1000).filter(|n| *n != 500) {
        assert_eq!(client.get(&format!("h{n}.example.com"), "/").unwrap().status, 200, "h{n}");
    }
    assert_eq!(client.get("h500.example.com", "/").unwrap().status, 404);

    let line = config.lines().position(|l| l.contains("[not a host!]")).unwrap() + 1;
    let place = format!("all.yaml:{line}");
    let diagnostics = get(limen.admin, "localhost", "/diagnostics").unwrap().body;
    let diagnostics: serde_json::Value = serde_json::from_str(&diagnostics).unwrap();
    let finding = &diagnostics["findings"][0];
    assert_eq!(finding["resource"], "VirtualService default/vs-500", "{diagnostics:#}");
    assert_eq!(finding["line"], line, "{diagnostics:#}");
    assert!(limen.process_log().contains(&place), "{place} is not in {}", limen.process_log());
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_limen"))
        .arg("check")
        .arg(limen.folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(text.contains("default/vs-500") && text.contains(&place), "{text}");
}

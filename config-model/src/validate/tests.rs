//! Resources that admission accepts, refuses, or warns of.

use super::*;
use crate::diagnostic::Diagnostic;

const VS: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n";
const DR: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n";
const GW: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n";
const SE: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec:\n";

fn run(text: &str) -> (Validated, Vec<Diagnostic>) {
    let parsed = parse::parse("a.yaml", text);
    assert!(parsed.failed.is_empty(), "{:?}", parsed.diagnostics);
    let mut set = ResourceSet::new();
    assert!(set.extend(parsed.resources).is_empty());
    let (validated, diagnostics) = validate(set);
    (validated, diagnostics.into_iter().collect())
}

/// The paths and codes of what is refused (`!`) or said otherwise.
fn findings(text: &str) -> Vec<String> {
    let (_, diagnostics) = run(text);
    let line = |d: &Diagnostic| {
        format!("{}{} {}", if d.effect == Effect::Rejected { "!" } else { "" }, d.code, d.path)
    };
    diagnostics.iter().filter(|d| d.code.as_str() != "IST0174").map(line).collect()
}

#[test]
fn gateways_are_checked() {
    let good =
        format!("{GW}  servers:\n  - port: {{number: 80, name: http, protocol: HTTP}}\n    hosts: ['*']\n");
    assert_eq!(findings(&good), Vec::<String>::new());
    for (from, to, finds) in [
        ("hosts: ['*']", "hosts: [short]", "!IST0106 spec.servers[0].hosts[0]"),
        ("hosts: ['*']", "hosts: ['*-x.com']", "!IST0106 spec.servers[0].hosts[0]"),
        ("hosts: ['*']", "hosts: []", "!IST0106 spec.servers[0]"),
        ("protocol: HTTP", "protocol: HTTP3", "!IST0106 spec.servers[0].port.protocol"),
        ("protocol: HTTP", "protocol: HTTPS", "!IST0106 spec.servers[0]"),
        ("number: 80", "number: 0", "!IST0106 spec.servers[0].port"),
        ("name: http", "name: ''", "!IST0106 spec.servers[0].port"),
        ("hosts: ['*']", "hosts: ['*']\n    bind: nowhere", "!IST0106 spec.servers[0].bind"),
        (
            "hosts: ['*']",
            "hosts: ['*']\n    tls: {mode: SIMPLE, credentialName: x}",
            "!IST0106 spec.servers[0].tls",
        ),
        ("name: gw", "name: gw.x", "!IST0106 metadata.name"),
    ] {
        assert_eq!(findings(&good.replace(from, to)), [finds], "{to}");
    }
}

#[test]
fn tls_blocks_are_checked() {
    let server = |tls: &str| {
        format!(
            "{GW}  servers:\n  - port: {{number: 443, name: https, protocol: HTTPS}}\n    hosts: ['*']\n    tls: {tls}\n"
        )
    };
    for (tls, finds) in [
        ("{mode: SIMPLE}", vec!["!IST0106 spec.servers[0].tls", "!IST0106 spec.servers[0].tls"]),
        ("{mode: SIMPLE, credentialName: x}", vec!["IST0101 spec.servers[0].tls.credentialName"]),
        ("{mode: SIMPLE, serverCertificate: a, privateKey: b}", vec![]),
        (
            "{mode: SIMPLE, serverCertificate: a, privateKey: b, credentialName: x}",
            vec!["!IST0106 spec.servers[0].tls"],
        ),
        ("{mode: MUTUAL, serverCertificate: a, privateKey: b}", vec!["!IST0106 spec.servers[0].tls"]),
        ("{mode: ISTIO_MUTUAL, credentialName: x}", vec!["!IST0106 spec.servers[0].tls"]),
        ("{credentialName: x}", vec!["IST0133 spec.servers[0].tls"]),
        (
            "{mode: SIMPLE, serverCertificate: a, privateKey: b, cipherSuites: [FOO]}",
            vec!["IST0133 spec.servers[0].tls.cipherSuites[0]"],
        ),
        (
            "{mode: SIMPLE, serverCertificate: a, privateKey: b, minProtocolVersion: TLSV1_0}",
            vec!["IST0133 spec.servers[0].tls.minProtocolVersion"],
        ),
    ] {
        assert_eq!(findings(&server(tls)), finds, "{tls}");
    }
}

#[test]
fn virtual_service_heads_are_checked() {
    let vs = |head: &str| format!("{VS}{head}  http:\n  - directResponse: {{status: 200}}\n");
    for (head, finds) in [
        ("  hosts: [a.com, b.com]\n", vec![]),
        ("  hosts: [a.com, a.com]\n", vec!["!IST0106 spec.hosts[1]"]),
        ("  hosts: ['*.a.com', b.a.com]\n", vec!["!IST0106 spec.hosts[1]"]),
        ("  hosts: ['*.a.com', '*.b.a.com']\n", vec!["!IST0106 spec.hosts[1]"]),
        ("  hosts: ['*.a.com', a.com]\n", vec![]),
        ("  hosts: ['*']\n", vec!["!IST0106 spec.hosts[0]"]),
        ("  hosts: [a.com]\n  gateways: ['a/b/c']\n", vec!["!IST0106 spec.gateways[0]"]),
        ("  hosts: [a.com]\n  gateways: [nope]\n", vec!["IST0101 spec.gateways[0]"]),
        ("  hosts: [a.com]\n  exportTo: ['*', '.']\n", vec!["!IST0106 spec.exportTo[0]"]),
        ("  gateways: [gw]\n", vec!["!IST0106 spec.gateways"]),
    ] {
        assert_eq!(findings(&vs(head)), finds, "{head}");
    }
    assert_eq!(findings(&format!("{VS}  hosts: [a.com]\n")), ["!IST0106 spec"]);
}

#[test]
fn http_rules_are_checked() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";
    let route = "route: [{destination: {host: s}}]";
    let to = |rest: &str| format!("{{{route}, {rest}}}");
    for (rule, finds) in [
        (to("timeout: 1s"), vec![]),
        (to("timeout: 0s"), vec!["!IST0106 spec.http[0].timeout"]),
        (to("timeout: 0.0015s"), vec!["!IST0106 spec.http[0].timeout"]),
        ("{}".into(), vec!["!IST0106 spec.http[0]"]),
        (to("directResponse: {status: 200}"), vec!["!IST0106 spec.http[0]"]),
        ("{directResponse: {status: 700}}".into(), vec!["!IST0106 spec.http[0].directResponse.status"]),
        ("{redirect: {}}".into(), vec!["!IST0106 spec.http[0].redirect"]),
        (
            "{redirect: {uri: /x, redirectCode: 304}}".into(),
            vec!["!IST0106 spec.http[0].redirect.redirectCode"],
        ),
        ("{redirect: {uri: /x}, rewrite: {uri: /y}}".into(), vec!["!IST0106 spec.http[0].rewrite"]),
        (to("rewrite: {}"), vec!["!IST0106 spec.http[0].rewrite"]),
        (
            to("rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}"),
            vec!["!IST0106 spec.http[0].rewrite"],
        ),
        (to("match: [{uri: {regex: '('}}]"), vec!["!IST0106 spec.http[0].match[0].uri.regex"]),
        (to("match: [{uri: {prefix: ''}}]"), vec![]),
        (to("match: [{method: {prefix: ''}}]"), vec!["!IST0106 spec.http[0].match[0].method.prefix"]),
        (to("match: [{headers: {'a b': {}}}]"), vec!["!IST0106 spec.http[0].match[0].headers.a b"]),
        (to("match: [{headers: {a: null}}]"), vec!["!IST0106 spec.http[0].match[0].headers.a"]),
        (to("match: [{headers: {a: {regex: '*'}}}]"), vec!["!IST0106 spec.http[0].match[0].headers.a.regex"]),
        (to("match: [{withoutHeaders: {a: {regex: '*'}}}]"), vec![]),
        (to("headers: {request: {set: {a: '50%'}}}"), vec!["!IST0106 spec.http[0].headers.request.set.a"]),
        (to("headers: {request: {set: {host: a.com}}}"), vec![]),
        (to("headers: {request: {remove: [host]}}"), vec!["!IST0106 spec.http[0].headers.request.remove[0]"]),
        (
            to("headers: {response: {set: {':status': x}}}"),
            vec!["!IST0106 spec.http[0].headers.response.set.:status"],
        ),
        (
            to("rewrite: {authority: a}, headers: {request: {set: {host: b}}}"),
            vec!["!IST0106 spec.http[0].headers.request"],
        ),
        (to("retries: {attempts: 0, retryOn: 5xx}"), vec!["!IST0106 spec.http[0].retries"]),
        (to("retries: {attempts: 2, retryOn: '503, reset'}"), vec!["!IST0106 spec.http[0].retries.retryOn"]),
        (to("retries: {attempts: 2, retryOn: '503,reset,unavailable'}"), vec![]),
        (to("fault: {}"), vec!["!IST0106 spec.http[0].fault"]),
        (to("fault: {abort: {httpStatus: 100}}"), vec!["!IST0106 spec.http[0].fault.abort.httpStatus"]),
        (to("fault: {abort: {percentage: {value: 1}}}"), vec!["IST0133 spec.http[0].fault.abort"]),
        (to("corsPolicy: {allowMethods: [FETCH]}"), vec!["!IST0106 spec.http[0].corsPolicy.allowMethods[0]"]),
        (to("corsPolicy: {maxAge: 1.5s}"), vec!["!IST0106 spec.http[0].corsPolicy.maxAge"]),
        (to("mirror: {host: s}, mirrors: [{destination: {host: s}}]"), vec!["!IST0106 spec.http[0].mirrors"]),
        (
            "{route: [{destination: {host: s}}, {destination: {host: s}}]}".into(),
            vec!["!IST0106 spec.http[0].route"],
        ),
        (
            "{route: [{destination: {host: '*'}}]}".into(),
            vec!["!IST0106 spec.http[0].route[0].destination.host"],
        ),
        (
            "{route: [{destination: {host: t}}]}".into(),
            vec!["IST0101 spec.http[0].route[0].destination.host"],
        ),
        (
            "{route: [{destination: {host: s, port: {number: 81}}}]}".into(),
            vec!["IST0101 spec.http[0].route[0].destination.port"],
        ),
        (
            "{route: [{destination: {host: s, subset: v1}}]}".into(),
            vec!["IST0101 spec.http[0].route[0].destination.subset"],
        ),
        ("{delegate: {name: nope}}".into(), vec!["LIM0014 spec.http[0].delegate"]),
        (format!("{{delegate: {{name: nope}}, {route}}}"), vec!["!IST0106 spec.http[0].delegate"]),
    ] {
        assert_eq!(
            findings(&format!("{VS}  hosts: [a.com]\n  http:\n  - {rule}\n{service}")),
            finds,
            "{rule}"
        );
    }
}

#[test]
fn unreachable_rules_are_said() {
    let text = format!(
        "{VS}  hosts: [a.com]\n  http:\n  - match: [{{uri: {{exact: /a}}}}]\n    directResponse: {{status: 200}}\n  - match: [{{uri: {{exact: /a}}}}]\n    directResponse: {{status: 201}}\n  - directResponse: {{status: 202}}\n  - match: [{{uri: {{exact: /b}}}}]\n    directResponse: {{status: 203}}\n"
    );
    assert_eq!(findings(&text), ["IST0130 spec.http[1]", "IST0130 spec.http[3]"]);
}

#[test]
fn destination_rules_are_checked() {
    for (spec, finds) in [
        ("  host: a\n  subsets: [{name: v1}, {name: v1}]\n", vec!["!IST0106 spec.subsets[1].name"]),
        ("  host: a\n  trafficPolicy: {}\n", vec!["!IST0106 spec.trafficPolicy"]),
        (
            "  host: a\n  trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}\n",
            vec!["!IST0106 spec.trafficPolicy.loadBalancer"],
        ),
        (
            "  host: a\n  trafficPolicy: {loadBalancer: {consistentHash: {maglev: {tableSize: 4}}}}\n",
            vec!["!IST0106 spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize"],
        ),
        (
            "  host: a\n  trafficPolicy: {connectionPool: {}}\n",
            vec!["!IST0106 spec.trafficPolicy.connectionPool"],
        ),
        ("  host: a\n  trafficPolicy: {tls: {mode: MUTUAL}}\n", vec!["!IST0106 spec.trafficPolicy.tls"]),
        ("  host: a\n  trafficPolicy: {tls: {mode: SIMPLE}}\n", vec![]),
        (
            "  host: a\n  trafficPolicy: {outlierDetection: {consecutiveErrors: 3}}\n",
            vec!["IST0002 spec.trafficPolicy.outlierDetection.consecutiveErrors"],
        ),
        (
            "  host: a\n  trafficPolicy: {portLevelSettings: [{tls: {mode: DISABLE}}]}\n",
            vec!["!IST0106 spec.trafficPolicy.portLevelSettings[0]"],
        ),
    ] {
        assert_eq!(findings(&format!("{DR}{spec}")), finds, "{spec}");
    }
}

#[test]
fn service_entries_are_checked() {
    let ports = "  ports: [{number: 80, name: http, protocol: HTTP}]\n";
    for (spec, finds) in [
        ("  hosts: [a.com]\n  resolution: DNS\n", vec![]),
        (
            "  hosts: ['*']\n  resolution: DNS\n  endpoints: [{address: a.com}]\n",
            vec!["!IST0106 spec.hosts[0]"],
        ),
        ("  hosts: ['*.a.com']\n  resolution: DNS\n", vec!["!IST0106 spec.hosts[0]"]),
        ("  hosts: [a.com]\n  endpoints: [{address: 1.2.3.4}]\n", vec!["!IST0106 spec.endpoints"]),
        (
            "  hosts: [a.com]\n  resolution: STATIC\n  endpoints: [{address: b.com}]\n",
            vec!["!IST0106 spec.endpoints[0].address"],
        ),
        (
            "  hosts: [a.com]\n  resolution: STATIC\n  endpoints: [{address: 1.2.3.4, ports: {https: 1}}]\n",
            vec!["!IST0106 spec.endpoints[0].ports.https"],
        ),
        (
            "  hosts: [a.com]\n  resolution: DNS\n  addresses: [10.0.0.0/8]\n",
            vec!["!IST0106 spec.addresses[0]"],
        ),
        ("  hosts: [a.com]\n  resolution: STATIC\n  exportTo: ['~']\n", vec![]),
    ] {
        assert_eq!(findings(&format!("{SE}{spec}{ports}")), finds, "{spec}");
    }
}

#[test]
fn a_rejected_resource_is_left_out_and_the_others_stay() {
    let bad = format!("{VS}  hosts: [a.com]\n");
    let good = bad.replace("name: a", "name: b") + "  http: [{directResponse: {status: 200}}]\n";
    let (validated, diagnostics) = run(&format!("{bad}---\n{good}"));
    assert_eq!(validated.virtual_services().iter().map(|vs| vs.key.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(
        validated.rejected().map(ToString::to_string).collect::<Vec<_>>(),
        ["VirtualService default/a"]
    );
    assert_eq!(diagnostics[0].origin.as_ref().unwrap().line, 4);
}

#[test]
fn the_oldest_comes_first() {
    let vs = |name: &str, time: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, creationTimestamp: '{time}'}}\nspec: {{hosts: [{name}.com], http: [{{directResponse: {{status: 200}}}}]}}\n"
        )
    };
    let (validated, _) = run(&(vs("a", "2024-02-01T00:00:00Z")
        + &vs("c", "2024-01-01T00:00:00Z")
        + &vs("b", "2024-01-01T00:00:00Z")));
    assert_eq!(
        validated.virtual_services().iter().map(|vs| vs.key.name.as_str()).collect::<Vec<_>>(),
        ["b", "c", "a"]
    );
}

#[test]
fn hosts_must_be_admitted_by_the_gateway() {
    let gateway = format!(
        "{GW}  servers:\n  - port: {{number: 80, name: http, protocol: HTTP}}\n    hosts: ['shop/*.foo.com', bar.com]\n---\n"
    );
    let vs = |host: &str| {
        format!(
            "{gateway}{VS}  hosts: [{host}]\n  gateways: [gw]\n  http: [{{directResponse: {{status: 200}}}}]\n"
        )
    };
    assert_eq!(findings(&vs("a.foo.com")), ["IST0132 spec.gateways[0]"]);
    assert_eq!(findings(&vs("bar.com")), Vec::<String>::new());
    assert_eq!(
        findings(
            &vs("a.foo.com")
                .replace("{name: a}", "{name: a, namespace: shop}")
                .replace("[gw]", "[default/gw]")
        ),
        Vec::<String>::new()
    );
}

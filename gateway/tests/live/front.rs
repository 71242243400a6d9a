//! What stands in front of a gateway and is believed: balancers that speak PROXY protocol, proxies that append to
//! `x-forwarded-for`; and requests that come to the wrong server of a TLS port.

use std::io::{Read, Write};

use crate::{harness::*, keys::*};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n";
/// The same, with a TLV behind the addresses.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\0\x50\x04\0\x01\0";
/// Of the balancer itself: a probe.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn mesh(text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    defaultConfig: {text}\n"
    )
}

/// The head that the upstream gets, in lower case; `None`: the connection was closed, or the request refused.
fn forwarded(port: u16, before: &[u8], fields: &str) -> Option<String> {
    let mut client = Client::connect(port).ok()?;
    client.send(before).ok()?;
    client.send(format!("GET /head HTTP/1.1\r\nHost: up.example.com\r\n{fields}\r\n").as_bytes()).ok()?;
    client.receive().ok().filter(|response| response.status == 200).map(|r| r.body.to_ascii_lowercase())
}

/// Says what it got first, as far as it is text.
fn listens() -> u16 {
    listening(|mut stream| {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"hello") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
            seen.push(byte[0]);
        }
        let _gone = stream.write_all(&seen);
    })
}

#[test]
fn balancers_say_who_the_client_is_where_they_are_believed() {
    let (up, bytes, tcp) = (Upstream::start("up"), listens(), free_port());
    let config = [
        GATEWAY.to_owned(),
        format!("    - {{port: {{number: {tcp}, name: tcp, protocol: TCP}}, hosts: ['*']}}\n"),
        virtual_service("up", ""),
        service("up", &[up.port]),
        service("bytes", &[bytes]),
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp, namespace: default}
spec:
  hosts: ['*']
  gateways: [istio-system/public]
  tcp: [{route: [{destination: {host: bytes}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: bytes, namespace: default}
spec: {host: bytes, trafficPolicy: {proxyProtocol: {version: V1}}}
"
        .to_owned(),
    ]
    .concat();
    let files = [("all.yaml", config.as_str())];
    let limen = Limen::start_with(&files, &["--proxy-protocol-from", "127.0.0.0/8,10.0.0.0/8"]);
    for (header, client) in
        [(V1, "192.0.2.7"), (V2, "192.0.2.7"), (LOCAL, "127.0.0.1"), (b"PROXY UNKNOWN\r\n", "127.0.0.1")]
    {
        let head = forwarded(limen.port, header, "X-Forwarded-For: 203.0.113.9\r\n").unwrap();
        assert!(head.contains(&format!("x-forwarded-for: 203.0.113.9,{client}\r\n")), "{head}");
        assert!(head.contains(&format!("x-envoy-external-address: {client}\r\n")), "{head}");
    }
    eventually("the client in the access log", || {
        limen.access_log().contains("192.0.2.7:4711").then_some(())
    });
    // Where it must be there, nothing else will do.
    for bad in [&b""[..], b"PROXY TCP4 192.0.2.7\r\n", b"PROXY TCP4 999.0.0.1 1.1.1.1 1 1\r\n", &V2[..16]] {
        assert_eq!(forwarded(limen.port, bad, ""), None, "{bad:?}");
    }
    // In, over TCP, and out again.
    let mut stream = connect(tcp).unwrap();
    stream.write_all(&[V2, b"hello"].concat()).unwrap();
    let mut seen = String::new();
    stream.read_to_string(&mut seen).unwrap();
    assert!(seen.starts_with("PROXY TCP4 192.0.2.7 ") && seen.ends_with("\r\nhello"), "{seen:?}");
    assert!(seen.split(' ').nth(4) == Some("4711"), "{seen:?}");

    // A header of somebody who is not believed is no request.
    drop(limen);
    // Without the TCP server: its port may belong to somebody else by now.
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port])].concat();
    let limen = Limen::start_with(&[("all.yaml", &config)], &["--proxy-protocol-from", "10.0.0.0/8"]);
    assert_eq!(forwarded(limen.port, V1, ""), None);
    assert_eq!(forwarded(limen.port, V2, ""), None);
    assert!(forwarded(limen.port, b"", "").unwrap().contains("x-forwarded-for: 127.0.0.1\r\n"));
}

#[test]
fn proxies_in_front_are_believed_as_many_as_there_are() {
    let up = Upstream::start("up");
    let redirecting = "
    - port: {number: 80, name: http-redirect, protocol: HTTP}
      hosts: [safe.example.com]
      tls: {httpsRedirect: true}
";
    let config = [
        GATEWAY,
        redirecting,
        &virtual_service("up", ""),
        &virtual_service("safe", ""),
        &service("up", &[up.port]),
    ]
    .concat();
    let config = config.replace("{host: safe}", "{host: up}");
    let limen = Limen::start(&[("all.yaml", &config)]);
    let chain = "X-Forwarded-For: 203.0.113.1, 203.0.113.2\r\nX-Forwarded-Proto: https\r\n";
    let safe = || {
        let mut client = Client::connect(limen.port).unwrap();
        client
            .send(b"GET /x?y HTTP/1.1\r\nHost: safe.example.com\r\nX-Forwarded-Proto: https\r\n\r\n")
            .unwrap();
        client.receive().unwrap()
    };
    let head = forwarded(limen.port, b"", chain).unwrap();
    assert!(
        head.contains("x-envoy-external-address: 127.0.0.1\r\n")
            && head.contains("x-forwarded-proto: http\r\n"),
        "{head}"
    );
    let redirected = safe();
    assert_eq!(
        (redirected.status, redirected.header("location")),
        (301, Some("https://safe.example.com/x?y"))
    );

    for (number, client) in [(1, "203.0.113.2"), (2, "203.0.113.1"), (3, "127.0.0.1")] {
        limen.write("mesh.yaml", &mesh(&format!("{{gatewayTopology: {{numTrustedProxies: {number}}}}}")));
        eventually("the address", || {
            let head = forwarded(limen.port, b"", chain).unwrap();
            assert!(head.contains("x-forwarded-for: 203.0.113.1, 203.0.113.2,127.0.0.1\r\n"), "{head}");
            let told = head.contains(&format!("x-envoy-external-address: {client}\r\n"));
            (told && head.contains("x-forwarded-proto: https\r\n")).then_some(())
        });
        assert_eq!(safe().status, 200, "a proxy in front has ended TLS");
    }
}

#[test]
fn a_request_for_another_server_of_the_port_is_404_or_421_or_routed_as_asked() {
    let up = Upstream::start("up");
    let port = free_port();
    let roots = Pair::authority("clients");
    let server = |name: &str, host: &str, tls: &str| {
        format!(
            "    - {{port: {{number: {port}, name: {name}, protocol: HTTPS}}, hosts: [{host}], tls: {tls}}}\n"
        )
    };
    let config = [
        GATEWAY.to_owned(),
        server("https-a", "a.example.com", "{mode: SIMPLE, credentialName: same}"),
        server("https-b", "b.example.com", "{mode: SIMPLE, credentialName: same}"),
        server("https-c", "c.example.com", "{mode: MUTUAL, credentialName: same}"),
        Pair::alone("*.example.com").secret("istio-system", "same", &[("ca.crt", &roots.certificate())]),
        service("up", &[up.port]),
        ["a", "b", "c"]
            .map(|name| virtual_service(name, "").replace(&format!("{{host: {name}}}"), "{host: up}"))
            .concat(),
    ]
    .concat();
    for (flags, to_b, to_c) in [
        (&[][..], 404, 404),
        (&["--misdirected", "421"], 421, 421),
        // What a client proved to one server it has not proved to one that asks for more.
        (&["--misdirected", "route"], 200, 421),
    ] {
        let _limen = Limen::start_with(&[("all.yaml", &config)], flags);
        for (host, wants) in [
            ("a.example.com", 200),
            ("A.example.com:443", 200),
            ("b.example.com", to_b),
            ("c.example.com", to_c),
            ("nobody.example.com", 404),
        ] {
            let mut client = secured(port, "a.example.com", None).unwrap();
            let response = client.get(host, "/").unwrap();
            assert_eq!(response.status, wants, "{flags:?} {host}");
            if wants == 421 {
                assert_eq!(response.header("connection"), Some("close"));
            }
        }
        let friend = roots.issue(&[("CN", "c")], &[]);
        let mut client = secured(port, "c.example.com", Some(&friend)).unwrap();
        assert_eq!(client.get("c.example.com", "/").unwrap().status, 200);
    }
}

//! Who a client is, by its certificate: who gets in, and what upstreams are told (`x-forwarded-client-cert`).

use std::{
    fs,
    io::{Read, Write},
};

use boring::hash::MessageDigest;

use crate::{harness::*, keys::*};

const XFCC: &str = "x-forwarded-client-cert";

/// A Gateway's server on the port, and a VirtualService that sends all of the host to `up`.
fn server(port: u16, host: &str, tls: &str) -> String {
    let name = host.split('.').next().unwrap();
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: {port}, name: https-{name}, protocol: HTTPS}}, hosts: [{host}], tls: {tls}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{host}]
  gateways: [istio-system/{name}]
  http: [{{route: [{{destination: {{host: up}}}}]}}]
"
    )
}

fn mesh(details: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    defaultConfig: {{gatewayTopology: {{forwardClientCertDetails: {details}}}}}\n"
    )
}

/// What the upstream is told of the client, which says something about itself too.
fn told(port: u16, host: &str, own: Option<&Pair>) -> std::io::Result<Option<String>> {
    let mut client = secured(port, host, own)?;
    client.send(format!("GET /head HTTP/1.1\r\nHost: {host}\r\n{XFCC}: forged\r\n\r\n").as_bytes())?;
    let response = client.receive()?;
    assert_eq!(response.status, 200);
    let line = response.body.lines().find_map(|line| line.strip_prefix(&format!("{XFCC}: ")));
    Ok(line.map(str::to_owned))
}

/// As Istio has it (conventions of Envoy's `SANITIZE_SET` with subject, certificate, DNS and URI).
fn element(by: Option<&str>, client: &Pair, rest: &str) -> String {
    let digest = client.certificate.digest(MessageDigest::sha256()).unwrap();
    let hash: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    let escapes = [("%", "%25"), ("\n", "%0A"), (" ", "%20"), ("+", "%2B"), ("/", "%2F"), ("=", "%3D")];
    let pem = escapes.iter().fold(client.certificate(), |pem, (plain, escaped)| pem.replace(plain, escaped));
    let by = by.map(|by| format!("By={by};")).unwrap_or_default();
    format!("{by}Hash={hash};Cert=\"{pem}\";{rest}")
}

#[test]
fn upstreams_are_told_who_the_client_is() {
    let (up, port) = (Upstream::start("up"), free_port());
    let clients = Pair::authority("clients");
    let gateway = "spiffe://cluster.local/ns/istio-system/sa/gateway";
    let own = clients.issue(&[("CN", "gateway")], &["own.example.com", gateway]);
    let roots = clients.certificate();
    let config = [
        server(port, "must.example.com", "{mode: MUTUAL, credentialName: own}"),
        server(port, "may.example.com", "{mode: OPTIONAL_MUTUAL, credentialName: plain}"),
        server(port, "none.example.com", "{mode: SIMPLE, credentialName: plain}"),
        own.secret("istio-system", "own", &[("ca.crt", &roots)]),
        Pair::alone("plain.example.com").secret("istio-system", "plain", &[("ca.crt", &roots)]),
        service("up", &[up.port]),
    ]
    .concat();
    let limen = Limen::start(&[("all.yaml", &config), ("mesh.yaml", &mesh("UNDEFINED"))]);

    let names =
        ["one.example.com", "spiffe://cluster.local/ns/a/sa/b", "two.example.com", "https://example.com/x"];
    let named = clients.issue(&[("C", "DE"), ("O", "Müller, \"q\""), ("CN", "cli")], &names);
    let bare = clients.issue(&[("CN", "bare")], &[]);
    let said = "Subject=\"CN=cli,O=M\\C3\\BCller\\, \\\"q\\\",C=DE\";URI=spiffe://cluster.local/ns/a/sa/b;URI=https://example.com/x;DNS=one.example.com;DNS=two.example.com";
    let nameless = "Subject=\"CN=bare\";URI=";
    for (host, by) in [("must.example.com", Some(gateway)), ("may.example.com", None)] {
        assert_eq!(told(port, host, Some(&named)).unwrap(), Some(element(by, &named, said)));
        assert_eq!(told(port, host, Some(&bare)).unwrap(), Some(element(by, &bare, nameless)));
        let stranger = Pair::alone("stranger.example.com");
        assert!(told(port, host, Some(&stranger)).is_err(), "{host}");
    }
    assert!(told(port, "must.example.com", None).is_err());
    for (host, own) in
        [("may.example.com", None), ("none.example.com", None), ("none.example.com", Some(&named))]
    {
        assert_eq!(told(port, host, own).unwrap(), None, "{host}: a forged one goes nowhere");
    }

    // What a MeshConfig may ask for instead.
    let set = element(None, &named, said);
    let both = format!("forged,{set}");
    for (details, with, without) in [
        ("APPEND_FORWARD", Some(both.as_str()), None),
        ("FORWARD_ONLY", Some("forged"), None),
        ("ALWAYS_FORWARD_ONLY", Some("forged"), Some("forged")),
        ("SANITIZE", None, None),
        ("SANITIZE_SET", Some(set.as_str()), None),
    ] {
        limen.write("mesh.yaml", &mesh(details));
        eventually(details, || {
            let heard = |own| told(port, "may.example.com", own).unwrap();
            (heard(Some(&named)).as_deref() == with && heard(None).as_deref() == without).then_some(())
        });
    }
}

/// Answers each connection with what it said first, and then ends it.
fn echo() -> u16 {
    listening(|mut stream| {
        let mut said = [0; 5];
        let _gone = stream.read_exact(&mut said).and_then(|()| stream.write_all(&said));
    })
}

#[test]
fn servers_of_the_mesh_show_the_workloads_certificate_and_take_the_meshs_only() {
    let (up, tcp) = (Upstream::start("up"), echo());
    let (port, terminated) = (free_port(), free_port());
    let mesh = Pair::authority("mesh");
    let account = "spiffe://cluster.local/ns/istio-system/sa/gateway";
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let scratch = folder.path().join(format!("{name}.new"));
        fs::write(&scratch, text).unwrap();
        fs::rename(&scratch, folder.path().join(name)).unwrap();
    };
    let first = mesh.issue(&[("O", "x")], &["first.example.com", account]);
    write("root-cert.pem", &mesh.certificate());
    write("cert-chain.pem", &first.certificate());
    write("key.pem", &first.key());
    let config = [
        server(port, "own.example.com", "{mode: ISTIO_MUTUAL}"),
        server(port, "named.example.com", "{mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://cluster.local/ns/a/sa/b']}"),
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: tcp, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: {terminated}, name: tls, protocol: TLS}}, hosts: [tcp.example.com], tls: {{mode: ISTIO_MUTUAL}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: tcp, namespace: default}}
spec:
  hosts: [tcp.example.com]
  gateways: [istio-system/tcp]
  tcp: [{{route: [{{destination: {{host: bytes}}}}]}}]
"
        ),
        service("up", &[up.port]),
        service("bytes", &[tcp]),
    ]
    .concat();
    let path = folder.path().to_str().unwrap().to_owned();
    let limen = Limen::start_with(&[("all.yaml", &config)], &["--workload-certificates", &path]);

    let workload =
        |account: &str| mesh.issue(&[("O", "x")], &[&format!("spiffe://cluster.local/ns/{account}")]);
    let (friend, other) = (workload("a/sa/b"), workload("a/sa/c"));
    let rest = |account: &str| format!("Subject=\"O=x\";URI=spiffe://cluster.local/ns/{account}");
    for (client, account_of) in [(&friend, "a/sa/b"), (&other, "a/sa/c")] {
        let said = element(Some(account), client, &rest(account_of));
        assert_eq!(told(port, "own.example.com", Some(client)).unwrap(), Some(said));
    }
    assert!(told(port, "named.example.com", Some(&friend)).is_ok());
    assert!(told(port, "named.example.com", Some(&other)).is_err(), "another account");
    let stranger = Pair::authority("x").issue(&[("O", "x")], &["spiffe://cluster.local/ns/a/sa/b"]);
    assert!(told(port, "own.example.com", Some(&stranger)).is_err(), "of another mesh");
    assert!(told(port, "own.example.com", None).is_err());

    let said = |own: Option<&Pair>| {
        let mut client = secured(terminated, "tcp.example.com", own).ok()?;
        client.send(b"hello").ok()?;
        client.read_exact(5).ok()
    };
    assert_eq!(said(Some(&friend)), Some(b"hello".to_vec()), "{}", limen.process_log());
    assert_eq!(said(Some(&stranger)), None);

    // The mesh's certificates live for hours: a new one is for new handshakes, a broken one for nobody.
    let mut old = secured(port, "own.example.com", Some(&friend)).unwrap();
    assert_eq!(name_of(&old).as_deref(), Some("first.example.com"));
    write("key.pem", "half a k");
    let second = mesh.issue(&[("O", "x")], &["second.example.com", account]);
    write("cert-chain.pem", &second.certificate());
    eventually("word of the broken key", || {
        limen.process_log().contains("the last good one is served").then_some(())
    });
    let now = || name_of(&secured(port, "own.example.com", Some(&friend)).unwrap()).unwrap();
    assert_eq!(now(), "first.example.com");
    write("key.pem", &second.key());
    eventually("the new certificate", || (now() == "second.example.com").then_some(()));
    assert_eq!(old.get("own.example.com", "/").unwrap().status, 200);
}

//! Whom we believe upstream.

use super::*;
use crate::tls::test_keys::{Authority, Validity};
use routing::compile::WorkloadFiles;

/// A TLS upstream that bears `key` and answers every request with 200.
fn tls_upstream(key: &config_model::kubernetes::Secret) -> SocketAddr {
    use boring::{
        pkey::PKey,
        ssl::{SslAcceptor, SslMethod},
        x509::X509,
    };
    use std::io::{Read, Write};
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&X509::from_pem(key.data["tls.crt"].expose()).unwrap()).unwrap();
    acceptor.set_private_key(&PKey::private_key_from_pem(key.data["tls.key"].expose()).unwrap()).unwrap();
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let Ok(mut stream) = acceptor.accept(stream) else { continue };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            if head.ends_with(b"\r\n\r\n") {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    .unwrap();
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_who_it_should_be_is_not_used() {
    let key = crate::tls::test_keys::ecdsa("up.example");
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, key.data["tls.crt"].expose()).unwrap();
    let roots = roots.display();
    let upstream = tls_upstream(&key);
    for (tls, wants) in [
        (format!("sni: up.example, caCertificates: {roots}"), 200),
        (format!("sni: up.example, caCertificates: {roots}, subjectAltNames: [up.example]"), 200),
        ("sni: up.example, insecureSkipVerify: true".to_owned(), 200),
        ("sni: up.example".to_owned(), 503),
        (format!("sni: up.example, caCertificates: {roots}, subjectAltNames: [other.example]"), 503),
        ("sni: up.example, caCertificates: /does/not/exist.pem".to_owned(), 503),
    ] {
        let rule = format!(
            "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: up, namespace: default}}
spec: {{host: up.example, trafficPolicy: {{tls: {{mode: SIMPLE, {tls}}}}}}}
"
        );
        let gateway = gateway(&(config(FORWARD, &[upstream], "HTTP") + &rule)).await;
        let (status, _, body) = gateway.get("/tls").await;
        assert_eq!(status, wants, "{tls}: {body}");
        if wants == 503 {
            assert!(gateway.line("/tls").await.contains(" 503 UF"), "{tls}");
            assert!(!body.contains("exist.pem"), "{body}");
        }
    }
}

/// A TLS upstream that wants a client certificate of `authority`, and answers with the name of the client.
fn mutual_upstream(
    certificate: (boring::x509::X509, boring::pkey::PKey<boring::pkey::Private>),
    authority: &Authority,
) -> SocketAddr {
    use boring::{
        nid::Nid,
        ssl::{SslAcceptor, SslMethod, SslVerifyMode},
    };
    use std::io::{Read, Write};
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&certificate.0).unwrap();
    acceptor.set_private_key(&certificate.1).unwrap();
    acceptor.cert_store_mut().add_cert(&authority.certificate).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let Ok(mut stream) = acceptor.accept(stream) else { continue };
            std::thread::spawn(move || {
                let client = stream.ssl().peer_certificate().unwrap();
                let name = client.subject_name().entries_by_nid(Nid::COMMONNAME).next().unwrap();
                let client = name.data().as_utf8().unwrap().to_string();
                let sni = stream.ssl().servername(boring::ssl::NameType::HOST_NAME).unwrap_or("-").to_owned();
                let mut head = Vec::new();
                let mut byte = [0];
                while stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let body = format!("{client} {sni}");
                        let reply =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        if stream.write_all(reply.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// A service outside the mesh, and a rule that shows it a client certificate.
fn external(upstream: SocketAddr, tls: &str) -> String {
    config(FORWARD, &[upstream], "HTTPS").replace("location: MESH_INTERNAL", "location: MESH_EXTERNAL")
        + &format!(
            "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: up, namespace: default}}
spec: {{host: up.example, trafficPolicy: {{tls: {{{tls}}}}}}}
"
        )
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// Writes chain and key of a client, and gives the fields that name them.
    fn client(&self, authority: &Authority, name: &str) -> String {
        let (certificate, key) = authority.issue(77, &[name], Validity::Now);
        let certificate = self.write("client.pem", &certificate.to_pem().unwrap());
        let key = self.write("client.key", &key.private_key_to_pem_pkcs8().unwrap());
        format!("mode: MUTUAL, clientCertificate: {certificate}, privateKey: {key}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_service_is_shown_the_clients_certificate() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let files = Files::new();
    let roots = files.write("ca.pem", &servers.pem());
    let mutual = files.client(&clients, "limen-client");
    let upstream = mutual_upstream(servers.issue(5, &["up.example", "127.0.0.1"], Validity::Now), &clients);
    let named =
        gateway(&external(upstream, &format!("{mutual}, caCertificates: {roots}, sni: up.example"))).await;
    assert_eq!(named.get("/x").await.2, "limen-client up.example");
    // Without a server name in the rule, the authority is sent and checked: `a.example` is not in the certificate.
    let by_authority = gateway(&external(upstream, &format!("{mutual}, caCertificates: {roots}"))).await;
    assert_eq!(by_authority.get("/x").await.0, 503);
    assert!(by_authority.line("/x").await.contains("CERTIFICATE_VERIFY_FAILED"));
    // An address is no server name, and is checked all the same.
    let by_address = external(upstream, &format!("{mutual}, caCertificates: {roots}"))
        .replace("    route: [{dest", "    rewrite: {authority: '127.0.0.1'}\n    route: [{dest");
    assert_eq!(gateway(&by_address).await.get("/x").await.2, "limen-client -");
    let other_address = by_address.replace("authority: '127.0.0.1'", "authority: '127.0.0.2'");
    let refused = gateway(&other_address).await;
    assert_eq!(refused.get("/x").await.0, 503);
    assert!(refused.line("/x").await.contains("the certificate is not for the address"));
    // Nothing to show, nothing said.
    let simple =
        gateway(&external(upstream, &format!("mode: SIMPLE, caCertificates: {roots}, sni: up.example")))
            .await;
    assert_eq!(simple.get("/x").await.0, 503);
    let missing = external(
        upstream,
        "mode: MUTUAL, clientCertificate: /no/c.pem, privateKey: /no/k.pem, sni: up.example",
    );
    let missing = gateway(&missing).await;
    assert_eq!(missing.get("/x").await.0, 503);
    assert!(missing.line("/x").await.contains("/no/c.pem"), "the log says which file");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_a_certificate_was_refused() {
    let (servers, clients, strangers) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("x"));
    let files = Files::new();
    let roots = files.write("ca.pem", &servers.pem());
    let mutual = files.client(&clients, "limen-client");
    let crl = files.write("crl.pem", &servers.crl(&[9], "20991231000000Z"));
    let good = |serial| servers.issue(serial, &["up.example"], Validity::Now);
    for (certificate, extra, wants) in [
        (good(5), "", ""),
        (servers.issue(6, &["up.example"], Validity::Expired), "", "certificate has expired"),
        (strangers.issue(7, &["up.example"], Validity::Now), "", "unable to get local issuer certificate"),
        (servers.issue(8, &["other.example"], Validity::Now), "", "ostname mismatch"),
        (good(5), ", subjectAltNames: [spiffe://td/ns/a/sa/b]", "none of the subject alternative names"),
        (good(5), &*format!(", caCrl: {crl}"), ""),
        (good(9), &*format!(", caCrl: {crl}"), "the certificate is revoked"),
    ] {
        let upstream = mutual_upstream(certificate, &clients);
        let tls = format!("{mutual}, caCertificates: {roots}, sni: up.example{extra}");
        let gateway = gateway(&external(upstream, &tls)).await;
        let (status, _, body) = gateway.get("/why").await;
        if wants.is_empty() {
            assert_eq!((status, &*body), (200, "limen-client up.example"), "{extra}");
            continue;
        }
        assert_eq!(status, 503, "{wants}: {body}");
        let line = gateway.line("/why").await;
        assert!(line.contains(" 503 UF") && line.contains("CERTIFICATE_VERIFY_FAILED"), "{line}");
        assert!(line.contains(wants), "{wants:?} is not in {line}");
        assert!(!body.contains(wants), "the client does not learn more: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_rotate_without_a_restart_and_connections_made_with_the_old_are_left_alone() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let files = Files::new();
    let roots = files.write("ca.pem", &servers.pem());
    let mutual = files.client(&clients, "old-client");
    let upstream = mutual_upstream(servers.issue(5, &["up.example"], Validity::Now), &clients);
    let gateway =
        gateway(&external(upstream, &format!("{mutual}, caCertificates: {roots}, sni: up.example"))).await;
    assert_eq!(gateway.get("/x").await.2, "old-client up.example");
    // A broken file changes nothing, though every publication looks at it.
    files.write("client.pem", b"half a certi");
    let same = external(upstream, &format!("{mutual}, caCertificates: {roots}, sni: up.example"));
    publish(&gateway.cell, &gateway.registry, &same).await;
    assert_eq!(gateway.get("/x").await.2, "old-client up.example");
    files.client(&clients, "new-client");
    let rotated = async {
        loop {
            let (status, _, body) = gateway.get("/x").await;
            assert_eq!(status, 200, "{body}");
            if body == "new-client up.example" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rotated).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_from_secrets_and_config_maps() {
    use config_model::kubernetes::{ConfigMap, Secret};
    struct Held(BTreeMap<String, Secret>, BTreeMap<String, ConfigMap>);
    impl crate::tls::CredentialReader for Held {
        fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
            self.0.get(&format!("{namespace}/{name}")).cloned()
        }
        fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
            self.1.get(&format!("{namespace}/{name}")).cloned()
        }
    }
    let bytes = config_model::scalar::SecretBytes::new;
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let upstream = mutual_upstream(servers.issue(5, &["up.example"], Validity::Now), &clients);
    let pair = |name: &str| {
        let (certificate, key) = clients.issue(77, &[name], Validity::Now);
        let mut secret = Secret::default();
        secret.data.insert("tls.crt".into(), bytes(certificate.to_pem().unwrap()));
        secret.data.insert("tls.key".into(), bytes(key.private_key_to_pem_pkcs8().unwrap()));
        secret
    };
    let with_ca = |mut secret: Secret| {
        secret.data.insert("ca.crt".into(), bytes(servers.pem()));
        secret
    };
    let mut separate = Secret::default();
    separate.data.insert("cacert".into(), bytes(servers.pem()));
    let mut map = ConfigMap::default();
    map.data.insert("ca.crt".into(), String::from_utf8(servers.pem()).unwrap());
    let secrets = || {
        BTreeMap::from([
            ("istio-system/whole".to_owned(), with_ca(pair("whole"))),
            ("istio-system/split".to_owned(), pair("split")),
            ("istio-system/split-cacert".to_owned(), separate.clone()),
            ("istio-system/no-ca".to_owned(), pair("no-ca")),
        ])
    };
    let maps = BTreeMap::from([("default/ca".to_owned(), map)]);
    let gateway = gateway(&external(upstream, "mode: MUTUAL, sni: up.example, credentialName: whole")).await;
    assert_eq!(gateway.get("/x").await.0, 503, "there is no such Secret yet");
    gateway.registry.set_credentials(Held(secrets(), maps.clone()));
    for (tls, wants) in [
        ("mode: MUTUAL, credentialName: whole", "whole up.example"),
        ("mode: MUTUAL, credentialName: split", "split up.example"),
        ("mode: MUTUAL, credentialName: no-ca", "503"),
        ("mode: MUTUAL, credentialName: none", "503"),
        ("mode: SIMPLE, credentialName: 'configmap://default/ca'", "503"),
    ] {
        publish(&gateway.cell, &gateway.registry, &external(upstream, &format!("{tls}, sni: up.example")))
            .await;
        let (status, _, body) = gateway.get("/x").await;
        let got = if status == 200 { body } else { status.to_string() };
        assert_eq!(got, wants, "{tls}");
    }
    // A Secret that changes is taken up with the next configuration, though the rule is the same.
    let whole = external(upstream, "mode: MUTUAL, credentialName: whole, sni: up.example");
    publish(&gateway.cell, &gateway.registry, &whole).await;
    let mut rotated = secrets();
    rotated.insert("istio-system/whole".to_owned(), with_ca(pair("rotated")));
    gateway.registry.set_credentials(Held(rotated, maps));
    publish(&gateway.cell, &gateway.registry, &whole).await;
    assert_eq!(gateway.get("/x").await.2, "rotated up.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_mesh_the_gateway_shows_its_own_certificate_and_knows_workloads_by_their_accounts() {
    let mesh = Authority::new("mesh");
    let files = Files::new();
    files.write("root-cert.pem", &mesh.pem());
    let (certificate, key) =
        mesh.issue(2, &["spiffe://cluster.local/ns/istio-system/sa/gateway"], Validity::Now);
    files.write("cert-chain.pem", &certificate.to_pem().unwrap());
    files.write("key.pem", &key.private_key_to_pem_pkcs8().unwrap());
    let name = |account: &str| format!("spiffe://cluster.local/ns/default/sa/{account}");
    let upstream = |account: &str| mutual_upstream(mesh.issue(3, &[&name(account)], Validity::Now), &mesh);
    let registry = |folder: &std::path::Path| {
        let workload = WorkloadFiles::within(folder.to_str().unwrap());
        Registry::with_workload(Arc::new(SystemResolver::new()), Handle::current(), workload)
    };
    let yaml = |address: SocketAddr, rule: &str| {
        let account = format!("    ports: {{main: {}}}\n    serviceAccount: a\n", address.port());
        let yaml = config(FORWARD, &[address], "HTTP");
        yaml.replace(&format!("    ports: {{main: {}}}\n", address.port()), &account) + rule
    };
    let rule = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: up, namespace: default}
spec: {host: up.example, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
";
    let shown = "spiffe://cluster.local/ns/istio-system/sa/gateway outbound_.80_._.up.example";
    for rule in [rule, ""] {
        let right = gateway_with(&yaml(upstream("a"), rule), registry(files.folder.path())).await;
        assert_eq!(right.get("/x").await.2, shown, "{rule:?}");
        let wrong = gateway_with(&yaml(upstream("b"), rule), registry(files.folder.path())).await;
        assert_eq!(wrong.get("/x").await.0, 503, "another account: {rule:?}");
    }
    // Without a certificate of its own the gateway does what a rule asks for or nothing; where none asks, plain text.
    let nowhere = std::path::Path::new("/nowhere");
    assert_eq!(gateway_with(&yaml(upstream("a"), rule), registry(nowhere)).await.get("/x").await.0, 503);
    assert_eq!(gateway_with(&yaml(echo().await, ""), registry(nowhere)).await.get("/x").await.0, 200);
}

/// An endpoint of the mesh: like a sidecar that takes plain text too, it knows its own by their protocol names only. It
/// answers with those that were offered and counts connections.
fn sidecar(mesh: &Authority, http2: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    use boring::ssl::{AlpnError, SslAcceptor, SslMethod, SslVerifyMode};
    use std::sync::Mutex;
    let offered = Arc::new(Mutex::new(String::new()));
    let (certificate, key) = mesh.issue(3, &["spiffe://cluster.local/ns/default/sa/a"], Validity::Now);
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&certificate).unwrap();
    acceptor.set_private_key(&key).unwrap();
    acceptor.cert_store_mut().add_cert(&mesh.certificate).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let seen = offered.clone();
    acceptor.set_alpn_select_callback(move |_, client| {
        *seen.lock().unwrap() = String::from_utf8_lossy(client).into_owned();
        let position =
            client.windows(6).position(|name| name == b"\x05istio").ok_or(AlpnError::ALERT_FATAL)?;
        Ok(&client[position + 1..position + 6])
    });
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let ssl = boring::ssl::Ssl::new(acceptor.context()).unwrap();
            let mut stream = pingora_core::tls::tokio_ssl::SslStream::new(ssl, socket).unwrap();
            if std::pin::Pin::new(&mut stream).accept().await.is_err()
                || stream.ssl().selected_alpn_protocol().is_none()
            {
                continue;
            }
            let offered = offered.clone();
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let offered = offered.lock().unwrap().clone();
                async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(offered)))) }
            });
            let io = TokioIo::new(stream);
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let server = if http2 { server.http2_only() } else { server.http1_only() };
                drop(server.serve_connection(io, service).await);
            });
        }
    });
    (address, accepted)
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_know_the_gateway_by_the_names_of_its_protocols() {
    let mesh = Authority::new("mesh");
    let files = Files::new();
    files.write("root-cert.pem", &mesh.pem());
    let (certificate, key) = mesh.issue(2, &["spiffe://cluster.local/ns/istio-system/sa/gw"], Validity::Now);
    files.write("cert-chain.pem", &certificate.to_pem().unwrap());
    files.write("key.pem", &key.private_key_to_pem_pkcs8().unwrap());
    for (protocol, first) in
        [("HTTP", "\u{e}istio-http/1.1\u{5}istio\u{8}http/1.1"), ("HTTP2", "\u{8}istio-h2\u{5}istio\u{2}h2")]
    {
        let (address, accepted) = sidecar(&mesh, protocol == "HTTP2");
        let ports = format!("    ports: {{main: {}}}\n", address.port());
        let yaml =
            config(FORWARD, &[address], protocol).replace(&ports, &format!("{ports}    serviceAccount: a\n"));
        let workload = WorkloadFiles::within(files.folder.path().to_str().unwrap());
        let registry = Registry::with_workload(Arc::new(SystemResolver::new()), Handle::current(), workload);
        let gateway = gateway_with(&yaml, registry).await;
        for _ in 0..3 {
            let (status, _, body) = gateway.get("/x").await;
            assert_eq!((status, body.as_str()), (200, first), "{protocol}");
        }
        assert_eq!(accepted.load(Ordering::SeqCst), 1, "one connection is enough: {protocol}");
        assert!(gateway.line("/x").await.contains(&address.to_string()), "the endpoint is logged");
    }
}

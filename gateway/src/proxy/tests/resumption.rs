//! TLS sessions with upstreams: resumed where the handshakes are ours, and with nobody but whom they were made with.

use super::{connections::tcp_config, *};
use crate::tls::test_keys::{Authority, Validity};
use boring::ssl::{SslAcceptor, SslMethod, SslVerifyMode, SslVersion};
use std::io::{Read as _, Write as _};

/// What a TLS upstream speaks.
#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    Http,
    Bytes,
}

/// A TLS upstream that says of each connection whether it was "full" or "resumed", by which version, and which server name was
/// asked for.
fn upstream(authority: &Authority, name: &str, newest: SslVersion, speaks: Speaks) -> SocketAddr {
    let (certificate, key) = authority.issue(5, &[name], Validity::Now);
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&certificate).unwrap();
    acceptor.set_private_key(&key).unwrap();
    acceptor.set_max_proto_version(Some(newest)).unwrap();
    // Mesh workloads ask for one; sessions with a certificate need a context to be resumed in.
    acceptor.cert_store_mut().add_cert(&authority.certificate).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER);
    acceptor.set_session_id_context(b"upstream").unwrap();
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let Ok(mut stream) = acceptor.accept(socket) else { continue };
            std::thread::spawn(move || {
                let mut heard = Vec::new();
                let mut byte = [0];
                let end: &[u8] = if speaks == Speaks::Http { b"\r\n\r\n" } else { b"hello" };
                while !heard.ends_with(end) && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    heard.push(byte[0]);
                }
                let ssl = stream.ssl();
                let how = if ssl.session_reused() { "resumed" } else { "full" };
                let asked = ssl.servername(boring::ssl::NameType::HOST_NAME).unwrap_or("-");
                let said = format!("{how} {} {asked}", ssl.version_str());
                let said = match speaks {
                    Speaks::Bytes => said,
                    Speaks::Http => {
                        format!(
                            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{said}",
                            said.len()
                        )
                    }
                };
                drop(stream.write_all(said.as_bytes()));
                drop(stream.shutdown());
            });
        }
    });
    address
}

/// What is said to a client who says hello, and waits for the end: sessions of TLS 1.3 come with the answer, and the library
/// takes none on a connection that is half closed.
async fn hello(gateway: &TestGateway) -> String {
    let exchange = async {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut got = Vec::new();
        // A connection that is refused may be reset.
        let _end = client.read_to_end(&mut got).await;
        String::from_utf8(got).unwrap()
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap()
}

fn roots(folder: &tempfile::TempDir, authority: &Authority) -> String {
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    path.display().to_string()
}

const VERSIONS: [(SslVersion, &str); 2] = [(SslVersion::TLS1_2, "TLSv1.2"), (SslVersion::TLS1_3, "TLSv1.3")];

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_not_http_resume_the_session_of_the_last() {
    let (authority, folder) = (Authority::new("servers"), tempfile::tempdir().unwrap());
    let roots = roots(&folder, &authority);
    for (newest, version) in VERSIONS {
        for (sni, asked) in [("", "-"), (", sni: up.example", "up.example")] {
            let up = upstream(&authority, "up.example", newest, Speaks::Bytes);
            let tls = format!("tls: {{mode: SIMPLE, caCertificates: {roots}{sni}}}");
            let gateway = gateway(&tcp_config(up, &tls)).await;
            let first = hello(&gateway).await;
            assert_eq!(first, format!("full {version} {asked}"));
            assert_eq!(hello(&gateway).await, format!("resumed {version} {asked}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_of_the_certificates_that_it_was_verified_with() {
    let (authority, folder) = (Authority::new("servers"), tempfile::tempdir().unwrap());
    let roots = roots(&folder, &authority);
    let up = upstream(&authority, "up.example", SslVersion::TLS1_3, Speaks::Bytes);
    let tls = |extra: &str| format!("tls: {{mode: SIMPLE, caCertificates: {roots}, sni: up.example{extra}}}");
    let gateway = gateway(&tcp_config(up, &tls(""))).await;
    assert!(hello(&gateway).await.starts_with("full"));
    assert!(hello(&gateway).await.starts_with("resumed"));
    // A name that the certificate has not is refused, though there was a session a moment ago.
    publish(&gateway.cell, &gateway.registry, &tcp_config(up, &tls(", subjectAltNames: [b.example]"))).await;
    assert_eq!(hello(&gateway).await, "");
    assert!(gateway.line(" UF ").await.contains("none of the subject alternative names"));
    // Other roots have no session of the old ones.
    let stranger = Authority::new("strangers");
    std::fs::write(&roots, [authority.pem(), stranger.pem()].concat()).unwrap();
    publish(&gateway.cell, &gateway.registry, &tcp_config(up, &tls(""))).await;
    assert!(hello(&gateway).await.starts_with("full"));
    std::fs::write(&roots, stranger.pem()).unwrap();
    publish(&gateway.cell, &gateway.registry, &tcp_config(up, &tls(", insecureSkipVerify: false"))).await;
    let refused = async {
        while !hello(&gateway).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_each_have_a_connection_resume_too() {
    let (authority, folder) = (Authority::new("servers"), tempfile::tempdir().unwrap());
    let roots = roots(&folder, &authority);
    for (newest, version) in VERSIONS {
        let up = upstream(&authority, "up.example", newest, Speaks::Http);
        let policy = format!(
            "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: up, namespace: default}}
spec:
  host: up.example
  trafficPolicy:
    connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}
    tls: {{mode: SIMPLE, caCertificates: {roots}, sni: up.example}}
"
        );
        let gateway = gateway(&(config(FORWARD, &[up], "HTTP") + &policy)).await;
        for how in ["full", "resumed", "resumed"] {
            let (status, _, body) = gateway.get("/x").await;
            assert_eq!((status, body), (200, format!("{how} {version} up.example")));
        }
        std::fs::write(&roots, Authority::new("strangers").pem()).unwrap();
        let refused = async {
            while gateway.get("/x").await.0 != 503 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, refused).await.unwrap();
        assert!(gateway.line(" 503 UF").await.contains("CERTIFICATE_VERIFY_FAILED"));
        std::fs::write(&roots, authority.pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_with_the_mesh_resume_the_session_of_the_last() {
    let (mesh, folder) = (Authority::new("mesh"), tempfile::tempdir().unwrap());
    let write = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).unwrap();
    let (certificate, key) = mesh.issue(2, &["spiffe://cluster.local/ns/istio-system/sa/gw"], Validity::Now);
    write("root-cert.pem", &mesh.pem());
    write("cert-chain.pem", &certificate.to_pem().unwrap());
    write("key.pem", &key.private_key_to_pem_pkcs8().unwrap());
    let up = upstream(&mesh, "spiffe://cluster.local/ns/default/sa/a", SslVersion::TLS1_3, Speaks::Http);
    let ports = format!("    ports: {{main: {}}}\n", up.port());
    let yaml = config(FORWARD, &[up], "HTTP").replace(&ports, &format!("{ports}    serviceAccount: a\n"));
    let workload = routing::compile::WorkloadFiles::within(&folder.path().to_string_lossy());
    let registry = Registry::with_workload(Arc::new(SystemResolver::new()), Handle::current(), workload);
    let gateway = gateway_with(&yaml, registry).await;
    // This upstream closes each connection after its answer, and says so.
    for how in ["full", "resumed", "resumed"] {
        let (status, _, body) = gateway.get("/x").await;
        assert_eq!((status, body), (200, format!("{how} TLSv1.3 outbound_.80_._.up.example")));
    }
}

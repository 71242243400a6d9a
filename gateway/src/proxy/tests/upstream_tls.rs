//! Whom we believe upstream.

use super::*;

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

//! TLS that is passed on by the names of clusters.

use crate::harness::*;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// What a client sends first, with these ALPN names.
fn client_hello(name: &str, alpn: &[u8]) -> Vec<u8> {
    use boring::ssl::{HandshakeError, SslConnector, SslMethod};
    #[derive(Debug)]
    struct Recorder(Vec<u8>);
    impl Read for Recorder {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_alpn_protos(alpn).unwrap();
    match builder.build().connect(name, Recorder(Vec::new())) {
        Err(HandshakeError::WouldBlock(half)) => half.get_ref().0.clone(),
        other => panic!("the handshake cannot have ended: {other:?}"),
    }
}

/// Reads until the other side is done, then says how much came and ends: half-closed connections must work for that.
fn counting_upstream() -> u16 {
    listening(|mut stream| {
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).unwrap();
        write!(stream, "{} bytes, the first {}", seen.len(), seen[0]).unwrap();
    })
}

#[test]
fn tls_of_the_mesh_goes_to_the_cluster_that_its_server_name_names() {
    let (own, port) = (counting_upstream(), free_port());
    let config = format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: cross-network, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: {port}, name: tls, protocol: TLS}}, hosts: ['*.local'], tls: {{mode: AUTO_PASSTHROUGH}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: own, namespace: default}}
spec:
  hosts: [own.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 9000, name: tcp, protocol: TCP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{tcp: {own}}}, labels: {{security.istio.io/tlsMode: istio}}}}]
"
    );
    let limen = Limen::start(&[("all.yaml", &config)]);
    let send = |name: &str, alpn: &[u8]| {
        let hello = client_hello(name, alpn);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let rest = vec![7; 3 << 20];
        let sent = stream.write_all(&hello).and_then(|()| stream.write_all(&rest)).is_ok();
        let _half = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ended = stream.read_to_string(&mut answer);
        (answer, sent.then_some(hello.len() + rest.len()))
    };
    let name = "outbound_.9000_._.own.local";
    let (answer, sent) = send(name, b"\x05istio\x02h2");
    assert_eq!(answer, format!("{} bytes, the first 22", sent.unwrap()), "{}", limen.process_log());
    for (name, alpn) in [(name, &b"\x02h2"[..]), ("outbound_.9001_._.own.local", b"\x05istio")] {
        assert_eq!(send(name, alpn).0, "", "{name} {alpn:?}");
    }
    let line = eventually("the line of the connection", || {
        limen.access_log().lines().find(|line| line.contains(name)).map(str::to_owned)
    });
    assert!(line.contains(&format!("127.0.0.1:{own}")), "{line}");
}

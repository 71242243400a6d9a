//! What a connection speaks, and connections that are not HTTP.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge_is_served_in_the_clear() {
    let live = Live::new(http(&[80]), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    let socket = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let request =
            http::Request::get(format!("http://{to}/")).body(http_body_util::Empty::<bytes::Bytes>::new());
        let response = client.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"client=- sni=- tls=false"), "{body:?}");
    }
    // Retired: GOAWAY, and the connection ends by itself.
    live.publish(Listeners::new(), &Secrets::default());
    tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_agreed_on_in_the_handshake() {
    let live = Live::new(https(&[("a.example", &["a"])]), &Secrets::default().with("a", ecdsa("a.example")));
    let manager = start(&live, Duration::ZERO);
    let socket = tokio::net::TcpStream::connect(address(&manager, 443).await).await.unwrap();
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_alpn_protos(b"\x08http/1.1\x02h2").unwrap();
    let ssl = builder.build().configure().unwrap().verify_hostname(false).into_ssl("a.example").unwrap();
    let mut stream = pingora_core::tls::tokio_ssl::SslStream::new(ssl, socket).unwrap();
    std::pin::Pin::new(&mut stream).connect().await.unwrap();
    // The client would rather have HTTP/1.1; the order is the server's.
    assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://a.example/").body(http_body_util::Empty::<bytes::Bytes>::new());
    let body =
        client.send_request(request.unwrap()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"client=- sni=a.example tls=true"), "{body:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_http_go_where_their_route_says() {
    let route = Arc::new(TcpRoute::new("default/vs".into(), Vec::new()));
    let mut listeners = http(&[80]);
    let tcp = FilterChain { tcp: Some(route.clone()), ..FilterChain::clone(&chain("tcp", None)) };
    let plain = Listener::of_gateway(key(80), Chains::Http(Arc::new(tcp.clone())));
    listeners.insert(key(80), Arc::new(plain));
    let mut tls = HostIndex::new();
    tls.insert("passed.example", Arc::new(tcp));
    listeners.insert(key(443), Arc::new(Listener::of_gateway(key(443), Chains::Tls(tls))));
    let live = Live::new(listeners, &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let (plain, tls) = (address(&manager, 80).await, address(&manager, 443).await);
    blocking(move || {
        let said = |to: SocketAddr, bytes: &[u8]| {
            let mut socket = TcpStream::connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(bytes).unwrap();
            let mut seen = Vec::new();
            let _ = socket.read_to_end(&mut seen);
            String::from_utf8_lossy(&seen).into_owned()
        };
        assert_eq!(said(plain, b"\0\x01abc"), "default/vs sni=None tls=false \0\x01abc");
        let hello = crate::tls::test_keys::client_hello("passed.example");
        let answer = said(tls, &hello);
        assert!(
            answer.starts_with("default/vs sni=Some(\"passed.example\") tls=false \x16\x03\x01"),
            "{answer:?}"
        );
        assert_eq!(said(tls, &crate::tls::test_keys::client_hello("other.example")), "");
    })
    .await;
}

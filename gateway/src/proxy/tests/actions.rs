//! Every way to use HTTP, under everything that a rule can do to it.

use super::*;
use futures::StreamExt;
use hyper::body::Incoming;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What rules add to a route, by name.
const ACTIONS: [(&str, &str); 7] = [
    ("nothing", "{}"),
    ("time", "{timeout: 20s}"),
    ("retries", "{retries: {attempts: 2, perTryTimeout: 10s, retryOn: '5xx,reset'}}"),
    (
        "rewrite",
        "{rewrite: {uri: /, authority: inner.example}, headers: {request: {set: {x-a: a}}, response: {set: {x-b: b}}}}",
    ),
    ("mirror", "{mirror: {host: copy.example, port: {number: 80}}}"),
    (
        "filters",
        "{fault: {delay: {fixedDelay: 1ms, percent: 100}}, corsPolicy: {allowOrigins: [{exact: 'http://o'}]}}",
    ),
    (
        "all",
        "{timeout: 20s, retries: {attempts: 2, perTryTimeout: 10s, retryOn: '5xx,reset'}, rewrite: {uri: /},
          mirror: {host: copy.example, port: {number: 80}}, fault: {delay: {fixedDelay: 1ms, percent: 100}},
          corsPolicy: {allowOrigins: [{exact: 'http://o'}]}, headers: {response: {set: {x-b: b}}}}",
    ),
];

/// Answers by the end of the path: `echo` sends the body back as it comes, `events` two events with time between,
/// `status` a gRPC status without messages.
async fn answers(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let grpc = request.headers().get("content-type").is_some_and(|v| v == "application/grpc");
    let response = Response::builder().header("x-method", request.method().as_str());
    let path = request.uri().path().to_owned();
    let response = if grpc { response.header("content-type", "application/grpc") } else { response };
    Ok(match path.rsplit('/').next().unwrap() {
        "events" => {
            let events = futures::stream::unfold(0, |n| async move {
                if n == 1 {
                    tokio::time::sleep(Duration::from_millis(150)).await;
                }
                (n < 2).then(|| (Ok(Frame::data(Bytes::from(format!("data: {n}\n\n")))), n + 1))
            });
            response
                .header("content-type", "text/event-stream")
                .body(BodyExt::boxed_unsync(StreamBody::new(events)))
                .unwrap()
        }
        "status" => response.header("grpc-status", "5").body(BodyExt::boxed_unsync(Full::default())).unwrap(),
        _ => {
            let back =
                request.into_body().into_data_stream().map(|data| Ok(Frame::data(data.unwrap_or_default())));
            let mut trailers = ::http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let end = grpc.then_some(Ok(Frame::trailers(trailers)));
            response
                .body(BodyExt::boxed_unsync(StreamBody::new(back.chain(futures::stream::iter(end)))))
                .unwrap()
        }
    })
}

async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _closed = server.serve_connection(TokioIo::new(stream), service_fn(answers)).await;
            });
        }
    });
    address
}

/// A gateway with a route of each action to an HTTP/1 upstream, one to the same as gRPC, and one to a tunnel's end.
async fn all_actions() -> TestGateway {
    let up = upstream().await;
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let tunnel = scripted(answer, true).await;
    let mut rules = String::new();
    for (name, action) in ACTIONS {
        for (prefix, host) in [("h1", "up"), ("h2", "rpc"), ("ws", "tunnel")] {
            let fields =
                if action == "{}" { String::new() } else { format!(", {}", &action[1..action.len() - 1]) };
            rules.push_str(&format!(
                "  - {{match: [{{uri: {{prefix: /{prefix}/{name}/}}}}], route: [{{destination: {{host: {host}.example, port: {{number: 80}}}}}}]{fields}}}\n"
            ));
        }
    }
    let yaml = config(&rules, &[up], "HTTP")
        + &service("rpc", up, "GRPC")
        + &service("tunnel", tunnel, "HTTP")
        + &service("copy", upstream().await, "HTTP");
    gateway(&yaml).await
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_bodies_and_events_pass_every_action() {
    let gateway = all_actions().await;
    for (name, _) in ACTIONS {
        let (status, _, body) = gateway.get(&format!("/h1/{name}/echo")).await;
        assert_eq!((status, &*body), (200, "0\r\n\r\n"), "{name}");

        let ask = format!("HEAD /h1/{name}/echo HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        let (status, head, body) = gateway.send(&ask).await;
        assert_eq!((status, &*body), (200, ""), "{name}");
        assert!(head.contains("x-method: head"), "{name}: {head}");

        let (_, _, body) = gateway
            .send(&format!(
                "POST /h1/{name}/echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                 3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
            ))
            .await;
        let text: String = body.split("\r\n").skip(1).step_by(2).collect();
        assert_eq!(text, "abcdefg", "{name}: {body:?}");

        // Waits for the word before it sends the body.
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let ask = format!(
            "POST /h1/{name}/echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut word = [0; 25];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut word)).await.unwrap().unwrap();
        assert!(word.starts_with(b"HTTP/1.1 100 "), "{name}");
        stream.write_all(b"hi").await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.contains("200 OK") && text.contains("hi"), "{name}: {text}");

        // The first event is there before the second is made.
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let ask = format!("GET /h1/{name}/events HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("data: 0") {
            seen.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        let first = Instant::now();
        let mut rest = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert!(rest.contains("data: 1") && first.elapsed() > Duration::from_millis(100), "{name}: {rest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_pass_every_action() {
    let gateway = all_actions().await;
    for (name, _) in ACTIONS {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let ask = format!(
            "GET /ws/{name}/x HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{name}");
        for word in ["one", "three"] {
            stream.write_all(word.as_bytes()).await.unwrap();
            let mut back = vec![0; word.len()];
            tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
            assert_eq!(back, word.as_bytes(), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_every_action() {
    let gateway = all_actions().await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for (name, _) in ACTIONS {
        let mut call = async |what: &str, body: Body| {
            let request = Request::post(format!("http://a.example/h2/{name}/{what}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(body)
                .unwrap();
            tokio::time::timeout(PATIENCE, client.send_request(request)).await.unwrap().unwrap()
        };
        // One message and its answer.
        let response = call("echo", BodyExt::boxed_unsync(Full::from("hello"))).await;
        let whole = response.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0", "{name}");
        assert_eq!(whole.to_bytes(), "hello", "{name}");

        // A status without messages: nothing but a head.
        let response = call("status", BodyExt::boxed_unsync(Full::from("hello"))).await;
        assert_eq!(response.headers()["grpc-status"], "5", "{name}");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());

        // Both ways at once: each message is answered before the next is sent.
        let (sender, messages) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let messages = futures::stream::unfold(messages, |mut messages| async move {
            messages.recv().await.map(|message| (Ok(Frame::data(message)), messages))
        });
        sender.send(Bytes::from_static(b"m0")).unwrap();
        let mut back = call("echo", BodyExt::boxed_unsync(StreamBody::new(messages))).await.into_body();
        for n in 0..3 {
            let frame = tokio::time::timeout(PATIENCE, back.frame()).await.unwrap().unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), format!("m{n}"), "{name}");
            sender.send(Bytes::from(format!("m{}", n + 1))).unwrap();
        }
        drop(sender);
        let whole = back.collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0", "{name}");

        // The server alone streams.
        let whole =
            call("events", BodyExt::boxed_unsync(Full::default())).await.into_body().collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "data: 0\n\ndata: 1\n\n", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_larger_than_any_buffer_pass_every_action() {
    let gateway = all_actions().await;
    let length = 5 << 20;
    let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    for (name, _) in ACTIONS {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let ask = format!(
            "POST /h1/{name}/echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        let (mut reader, mut writer) = stream.split();
        let send = async {
            writer.write_all(ask.as_bytes()).await.unwrap();
            writer.write_all(&body).await.unwrap();
        };
        let mut response = Vec::new();
        let receive = async { reader.read_to_end(&mut response).await.unwrap() };
        tokio::time::timeout(PATIENCE, async { tokio::join!(send, receive) }).await.unwrap();
        let start = response.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert!(response.starts_with(b"HTTP/1.1 200 "), "{name}");
        assert_eq!(unchunked(&response[start..]), body, "{name}");
    }
}

/// A body without its chunks' framing.
fn unchunked(mut text: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = text.windows(2).position(|w| w == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&text[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&text[end + 2..end + 2 + length]);
        text = &text[end + 4 + length..];
    }
}

//! A sidecar's connections: by what they show, and by how they came.

use routing::listener::{ChainMatch, Direction, Matched, PLAIN_HTTP, Reached, Transport};

use super::*;

fn listener(
    port: u16,
    reached: Reached,
    chains: Vec<(ChainMatch, Arc<FilterChain>)>,
) -> (ListenerKey, Arc<Listener>) {
    let chains = Chains::Matched(Arc::new(Matched::new(chains, None)));
    (key(port), Arc::new(Listener { key: key(port), direction: Direction::Outbound, reached, chains }))
}

/// A chain for bytes that are not looked into.
fn bytes(name: &str) -> Arc<FilterChain> {
    let route = Arc::new(TcpRoute::new(name.into(), Vec::new()));
    Arc::new(FilterChain { tcp: Some(route), ..FilterChain::clone(&chain(name, None)) })
}

/// What a connection gets that says this.
fn said(to: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // One that is closed at once may refuse it.
    let _ = socket.write_all(bytes);
    let mut seen = Vec::new();
    let _ = socket.read_to_end(&mut seen);
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_choose_among_the_chains_of_an_address() {
    let raw = ChainMatch { transport: Some(Transport::Raw), ..ChainMatch::default() };
    let http = ChainMatch { protocols: PLAIN_HTTP.into(), ..raw.clone() };
    let tls = |name: &str| ChainMatch {
        transport: Some(Transport::Tls),
        server_names: [name.into()].into(),
        ..ChainMatch::default()
    };
    let all = vec![(http, chain("http", None)), (tls("a.example"), bytes("a")), (raw, bytes("raw"))];
    let only_tls = vec![(tls("a.example"), bytes("a"))];
    let listeners = [listener(80, Reached::Bound, all), listener(81, Reached::Bound, only_tls)];
    let live = Live::new(listeners.into(), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let (to, strict) = (address(&manager, 80).await, address(&manager, 81).await);
    blocking(move || {
        assert!(ask(&mut TcpStream::connect(to).unwrap()).contains("client=- sni=- tls=false"));
        assert_eq!(said(to, b"\0\x01abc"), "raw sni=None tls=false \0\x01abc");
        let hello = |name| crate::tls::test_keys::client_hello(name);
        let answer = said(to, &hello("a.example"));
        assert!(answer.starts_with("a sni=Some(\"a.example\") tls=false \x16\x03\x01"), "{answer:?}");
        assert_eq!(said(to, &hello("b.example")), "");
        assert_eq!(said(strict, b"\0\x01abc"), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_redirected_is_closed_and_counted_and_what_is_handed_over_has_no_socket() {
    let any = || vec![(ChainMatch::default(), bytes("any"))];
    let listeners = [listener(8501, Reached::Redirected, any()), listener(80, Reached::HandedOver, any())];
    let live = Live::new(listeners.into(), &Secrets::default());
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 8501).await;
    assert!(manager.all_bound());
    assert!(!manager.bound().contains_key(&key(80)));
    assert_eq!(blocking(move || said(to, b"\0\x01abc")).await, "");
    assert_eq!(manager.refused(), 1);
}

/// A port of which nobody says what it carries.
fn sniffed() -> Listeners {
    let raw = ChainMatch { transport: Some(Transport::Raw), ..ChainMatch::default() };
    let http = ChainMatch { protocols: PLAIN_HTTP.into(), ..raw.clone() };
    [listener(80, Reached::Bound, vec![(http, chain("http", None)), (raw, bytes("raw"))])].into()
}

fn waiting(detection: Option<Duration>) -> EdgeConfig {
    let limits = EdgeLimits { detection, first_byte: Duration::from_millis(1), ..EdgeLimits::default() };
    EdgeConfig { limits, ..EdgeConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_waited_for_and_is_no_less_http_for_it() {
    let live = Live::with(sniffed(), &Secrets::default(), waiting(None));
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    blocking(move || {
        let mut silent = TcpStream::connect(to).unwrap();
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            assert_eq!(said(to, b"\0\x01abc"), "raw sni=None tls=false \0\x01abc");
        }
        assert!(ask(&mut silent).contains("client=- sni=- tls=false"));
        // Who only looks whether the port is open is nobody's client.
        let looks = TcpStream::connect(to).unwrap();
        looks.shutdown(std::net::Shutdown::Write).unwrap();
        let mut seen = String::new();
        (&looks).read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_in_time_gets_what_is_not_looked_into() {
    let live = Live::with(sniffed(), &Secrets::default(), waiting(Some(Duration::from_millis(1))));
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 80).await;
    blocking(move || {
        let mut silent = TcpStream::connect(to).unwrap();
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            assert_eq!(said(to, b"\0\x01abc"), "raw sni=None tls=false \0\x01abc");
        }
        silent.write_all(b"GET /").unwrap();
        let mut seen = String::new();
        silent.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "raw sni=None tls=false GET /");
    })
    .await;
}

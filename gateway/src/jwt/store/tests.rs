//! Keys of issuers over their life: fetched, refreshed, kept while nobody answers.

use super::*;
use crate::{
    jwt::testing::{TestKey, jwks},
    tls::test_keys::{Authority, Validity},
};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A server that gives the next of its answers, and the last again and again.
struct Server {
    address: String,
    asked: Arc<AtomicUsize>,
}

async fn serve(answers: Vec<(u16, String)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<AtomicUsize> = Arc::default();
    let (count, own) = (Arc::clone(&asked), address.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            let (status, body) = &answers[at];
            let body = body.replace("OWN", &own);
            let location = if *status == 302 { format!("location: {body}\r\n") } else { String::new() };
            let answer = format!(
                "HTTP/1.1 {status} X\r\n{location}content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    Server { address, asked }
}

const QUICK: Pace = Pace {
    refresh: Duration::from_millis(5),
    retry: Duration::from_millis(5),
    most: Duration::from_millis(10),
};

fn store(pace: Pace) -> KeyStore {
    KeyStore::new(Handle::current(), pace, None)
}

const TIMEOUT: Duration = Duration::from_secs(5);

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

fn count(keys: &Keys) -> usize {
    keys.now().as_ref().as_ref().map_or(0, KeySet::len)
}

#[tokio::test]
async fn keys_come_and_are_fetched_again() {
    let (one, two) = (TestKey::ed25519("1"), TestKey::ed25519("2"));
    let server = serve(vec![(200, jwks(&[&one])), (200, jwks(&[&one, &two]))]).await;
    let keys = store(QUICK).keys(&KeySource::Remote(server.address.into()), TIMEOUT);
    eventually("both keys", || count(&keys) == 2).await;
}

#[tokio::test]
async fn what_was_good_outlives_its_server() {
    let key = TestKey::ed25519("1");
    let server = serve(vec![(200, jwks(&[&key])), (500, String::new()), (200, "nonsense".to_owned())]).await;
    let keys = store(QUICK).keys(&KeySource::Remote(server.address.as_str().into()), TIMEOUT);
    eventually("many failures", || server.asked.load(Ordering::SeqCst) > 5).await;
    assert_eq!(count(&keys), 1);
}

#[tokio::test]
async fn failures_are_tried_again() {
    let key = TestKey::ed25519("1");
    let server = serve(vec![(503, String::new()), (200, "{}".to_owned()), (200, jwks(&[&key]))]).await;
    let keys = store(QUICK).keys(&KeySource::Remote(server.address.into()), TIMEOUT);
    assert_eq!(keys.now().as_ref().as_ref().err(), Some(&Failure::Fetch));
    eventually("keys", || count(&keys) == 1).await;
}

#[tokio::test]
async fn an_issuers_configuration_says_where_its_keys_are() {
    let key = TestKey::ed25519("1");
    let configuration = r#"{"jwks_uri": "OWN/keys"}"#.to_owned();
    let server =
        serve(vec![(200, configuration), (302, "/elsewhere".to_owned()), (200, jwks(&[&key]))]).await;
    let issuer = format!("{}/", server.address);
    let slow = Pace { refresh: Duration::from_secs(3600), ..QUICK };
    let keys = store(slow).keys(&KeySource::Discovery(issuer.into()), TIMEOUT);
    eventually("keys", || count(&keys) == 1).await;
    assert_eq!(server.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn one_source_is_followed_once_and_not_for_longer_than_it_is_held() {
    let key = TestKey::ed25519("1");
    let server = serve(vec![(200, jwks(&[&key]))]).await;
    let source = KeySource::Remote(server.address.as_str().into());
    let store = store(QUICK);
    let held = store.keys(&source, TIMEOUT);
    assert!(Arc::ptr_eq(&held, &store.keys(&source, TIMEOUT)));
    let keys = Keys::new(Err(Failure::Fetch));
    let following =
        tokio::spawn(follow(Arc::downgrade(&keys), Arc::clone(&store.fetcher), source, TIMEOUT, QUICK));
    eventually("keys", || count(&keys) == 1).await;
    drop(keys);
    tokio::time::timeout(TIMEOUT, following).await.expect("the task ends with its holder").unwrap();
}

/// A server over TLS, which answers every request so.
fn serve_tls(names: &[&str], authority: &Authority, answer: String) -> SocketAddr {
    use boring::ssl::{SslAcceptor, SslMethod};
    use std::io::{Read as _, Write as _};
    let (certificate, key) = authority.issue(7, names, Validity::Now);
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&certificate).unwrap();
    acceptor.set_private_key(&key).unwrap();
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let Ok(mut stream) = acceptor.accept(stream) else { continue };
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            drop(stream.write_all(answer.as_bytes()));
            drop(stream.shutdown());
        }
    });
    address
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn over_tls_whom_the_setting_names_is_believed_and_nobody_else() {
    let authority = Authority::new("ours");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let key = TestKey::ed25519("1");
    let good = serve_tls(&["127.0.0.1"], &authority, ok(&jwks(&[&key])));
    let misnamed = serve_tls(&["other.example"], &authority, ok(&jwks(&[&key])));
    let stranger = serve_tls(&["127.0.0.1"], &Authority::new("others"), ok(&jwks(&[&key])));
    let trusting = Fetcher::new(Some(&file)).unwrap();
    let remote = |at: SocketAddr| KeySource::Remote(format!("https://{at}/keys").into());
    assert_eq!(fetch(&trusting, &remote(good), TIMEOUT).await.map(|keys| keys.len()), Ok(1));
    for (fetcher, at, what) in [
        (&trusting, misnamed, "another name"),
        (&trusting, stranger, "another authority"),
        (&Fetcher::new(None).unwrap(), good, "none but the system's authorities"),
    ] {
        let error = fetch(fetcher, &remote(at), TIMEOUT).await.unwrap_err();
        assert!(error.to_ascii_lowercase().contains("certificate"), "{what}: {error}");
    }
    let store = KeyStore::new(Handle::current(), QUICK, Some(&file));
    let keys = store.keys(&remote(good), TIMEOUT);
    eventually("keys over TLS", || count(&keys) == 1).await;
    let plain = serve(vec![(200, jwks(&[&key]))]).await;
    let away = format!(
        "HTTP/1.1 302 F\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        plain.address
    );
    let downgrading = serve_tls(&["127.0.0.1"], &authority, away);
    let error = fetch(&trusting, &remote(downgrading), TIMEOUT).await.unwrap_err();
    assert!(error.contains("nothing is protected"), "{error}");
    assert_eq!(plain.asked.load(Ordering::SeqCst), 0);
    for broken in [folder.path().join("none.pem"), folder.path().to_owned()] {
        assert!(Fetcher::new(Some(&broken)).is_err());
    }
    std::fs::write(&file, "no certificate").unwrap();
    assert!(Fetcher::new(Some(&file)).is_err());
}

#[tokio::test]
async fn a_document_has_its_bounds() {
    let fetcher = Fetcher::new(None).unwrap();
    let remote = |address: &str| KeySource::Remote(address.into());
    let around = serve(vec![(302, "/again".to_owned())]).await;
    let error = fetch(&fetcher, &remote(&around.address), TIMEOUT).await.unwrap_err();
    assert_eq!((error.as_str(), around.asked.load(Ordering::SeqCst)), ("too many redirects", 10));
    let long = serve(vec![(200, " ".repeat((1 << 20) + 1))]).await;
    let error = fetch(&fetcher, &remote(&long.address), TIMEOUT).await.unwrap_err();
    assert!(error.contains("limit"), "{error}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let error = fetch(&fetcher, &remote(&address), Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error, "no answer within 20 ms");
}

#[tokio::test]
async fn keys_in_place_need_no_server() {
    let key = TestKey::ed25519("1");
    let store = store(QUICK);
    assert_eq!(count(&store.keys(&KeySource::Inline(jwks(&[&key]).into()), TIMEOUT)), 1);
    let bad = store.keys(&KeySource::Inline("{}".into()), TIMEOUT);
    assert_eq!(bad.now().as_ref().as_ref().err(), Some(&Failure::NoKeys));
}

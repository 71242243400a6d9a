//! Names, certificates and client certificates, over real handshakes.

use super::*;
use crate::tls::test_keys::{Authority, Validity, staple};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_gets_its_own_certificate_and_an_unknown_one_is_closed() {
    let secrets = Secrets::default().with("a", ecdsa("a.example")).with("b", rsa("*.b.example"));
    let live = Live::new(
        https(&[("a.example", &["a"]), ("*.b.example", &["b"]), ("c.example", &["missing"])]),
        &secrets,
    );
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    blocking(move || {
        for (name, certificate) in [("A.example", "a.example"), ("x.b.example", "*.b.example")] {
            let mut stream = tls_client(to, Some(name), None).unwrap();
            assert_eq!(certificate_name(&stream), certificate);
            let sni = name.to_ascii_lowercase();
            let answer = ask(&mut stream);
            assert!(
                answer.ends_with(&format!("sni={sni} tls=true port={} draining=false", to.port())),
                "{answer}"
            );
        }
        for refused in [Some("other.example"), Some("c.example"), None] {
            assert!(tls_client(to, refused, None).is_err(), "{refused:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_key_types_are_chosen_by_what_the_client_can_check() {
    let secrets = Secrets::default().with("rsa", rsa("rsa.example")).with("ec", ecdsa("ec.example"));
    let live = Live::new(https(&[("a.example", &["rsa", "ec"])]), &secrets);
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    blocking(move || {
        let modern = tls_client(to, Some("a.example"), None).unwrap();
        assert_eq!(certificate_name(&modern), "ec.example");
        let old = tls_client(to, Some("a.example"), Some("rsa_pkcs1_sha256:rsa_pss_rsae_sha256")).unwrap();
        assert_eq!(certificate_name(&old), "rsa.example");
    })
    .await;
}

/// What is asked of clients, with authorities from the Secret `ca-cacert`.
fn mutual(required: bool) -> ClientAuth {
    ClientAuth {
        required,
        roots: ClientRoots::Secret { namespace: "ns".into(), name: "ca".into() },
        crl: None,
        names: Vec::new(),
        trust_domains: Vec::new(),
        spki: Vec::new(),
        hashes: Vec::new(),
        any_issuer: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_asked_who_they_are_and_only_the_right_ones_get_in() {
    let (friend, stranger) = (ecdsa("friend.example"), ecdsa("stranger.example"));
    let mut authorities = Secret::default();
    authorities.data.insert("ca.crt".into(), friend.data["tls.crt"].clone());
    let certificate = X509::from_pem(friend.get("tls.crt").unwrap()).unwrap();
    let digest = certificate.digest(MessageDigest::sha256()).unwrap();
    let hash: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    let secrets = Secrets::default().with("a", ecdsa("a.example")).with("ca-cacert", authorities);
    let named = |name: &str| ClientAuth { names: vec![name.into()], ..mutual(true) };
    let pinned = |hash: &str| ClientAuth { hashes: vec![hash.into()], ..mutual(true) };
    let nowhere = ClientAuth { roots: ClientRoots::Nowhere, ..mutual(false) };
    let spki = |key: &X509| {
        use base64::Engine as _;
        let der = key.public_key().unwrap().public_key_to_der().unwrap();
        let digest = boring::hash::hash(MessageDigest::sha256(), &der).unwrap();
        base64::engine::general_purpose::STANDARD.encode(digest)
    };
    let keyed = ClientAuth { spki: vec!["AAAA".into(), spki(&certificate)], ..mutual(true) };
    // Who asks; whether the friend, a stranger and somebody without a certificate get in.
    for (auth, friend_in, stranger_in, nobody_in) in [
        (mutual(true), true, false, false),
        (mutual(false), true, false, true),
        (ClientAuth { any_issuer: true, ..mutual(true) }, true, true, false),
        (named("friend.example"), true, false, false),
        (named("other.example"), false, false, false),
        (pinned(&hash), true, false, false),
        (pinned("00"), false, false, false),
        (keyed, true, false, false),
        (ClientAuth { spki: vec!["AAAA".into()], ..mutual(true) }, false, false, false),
        (nowhere, false, false, false),
    ] {
        let live = Live::new(asking(&[("a.example", &["a"])], Some(&auth)), &secrets);
        let manager = start(&live, Duration::ZERO);
        let to = address(&manager, 443).await;
        let (friend, stranger) = (friend.clone(), stranger.clone());
        blocking(move || {
            for (own, gets_in, subject) in [
                (Some(&friend), friend_in, "client=CN=friend.example "),
                (Some(&stranger), stranger_in, "client=CN=stranger.example "),
                (None, nobody_in, "client=- "),
            ] {
                match tls_client_with(to, Some("a.example"), None, own) {
                    Ok(mut stream) => {
                        let answer = ask(&mut stream);
                        assert!(gets_in && answer.contains(subject), "{auth:?} {subject} {answer}");
                    }
                    Err(error) => assert!(!gets_in, "{auth:?} {subject} {error}"),
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_the_mesh_is_of_one_of_its_trust_domains() {
    let authority = Authority::new("mesh");
    let mut roots = Secret::default();
    roots.data.insert("ca.crt".into(), SecretBytes::new(authority.pem()));
    let secrets = Secrets::default().with("a", ecdsa("a.example")).with("ca-cacert", roots);
    let trust_domains = vec!["new.example".to_owned(), "old.example".to_owned()];
    let auth = ClientAuth { trust_domains, ..mutual(true) };
    let live = Live::new(asking(&[("a.example", &["a"])], Some(&auth)), &secrets);
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    blocking(move || {
        for (names, gets_in) in [
            (&["spiffe://new.example/ns/a/sa/b"][..], true),
            (&["spiffe://old.example/ns/a/sa/b"], true),
            (&["b.example", "spiffe://old.example/ns/a/sa/b"], true),
            (&["spiffe://other.example/ns/a/sa/b"], false),
            (&["spiffe://new.example.evil/ns/a/sa/b"], false),
            (&["https://new.example/"], false),
            (&["new.example"], false),
        ] {
            let (certificate, key) = authority.issue(7, names, Validity::Now);
            let mut own = Secret::default();
            own.data.insert("tls.crt".into(), SecretBytes::new(certificate.to_pem().unwrap()));
            own.data.insert("tls.key".into(), SecretBytes::new(key.private_key_to_pem_pkcs8().unwrap()));
            let made = tls_client_with(to, Some("a.example"), None, Some(&own));
            assert_eq!(made.is_ok(), gets_in, "{names:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_staple_is_sent_to_who_asks_and_any_other_is_a_finding() {
    let with = |staple: Vec<u8>| {
        let mut secret = ecdsa("a.example");
        secret.data.insert("tls.ocsp-staple".into(), SecretBytes::new(staple));
        Secrets::default().with("a", secret)
    };
    // The serial number of every certificate here.
    let serial = [0x12, 0x34];
    let (good, outdated) =
        (staple(&serial, 0x80, "20991231000000Z"), staple(&serial, 0x80, "20200102000000Z"));
    for (given, sent, finding) in [
        (good.clone(), true, None),
        (staple(&serial, 0xa1, "20991231000000Z"), true, Some("revoked")),
        (outdated, false, Some("outdated")),
        (staple(&[1], 0x80, "20991231000000Z"), false, Some("not for this certificate")),
        (b"nonsense".to_vec(), false, Some("no OCSP response")),
    ] {
        let (listeners, secrets) = (https(&[("a.example", &["a"])]), with(given.clone()));
        let (_, problems) = Certificates::build(&listeners, &secrets, &Certificates::default());
        let said = problems.iter().map(|problem| problem.diagnostic()).next();
        assert_eq!(said.is_some(), finding.is_some(), "{said:?}");
        if let (Some(said), Some(finding)) = (said, finding) {
            assert!(said.message.contains(finding), "{said:?}");
            assert_eq!(said.severity, Severity::Warning);
        }
        let live = Live::new(listeners, &secrets);
        let manager = start(&live, Duration::ZERO);
        let to = address(&manager, 443).await;
        blocking(move || {
            for asks in [true, false] {
                let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
                builder.set_verify(SslVerifyMode::NONE);
                if asks {
                    builder.enable_ocsp_stapling();
                }
                let ssl = builder.build().configure().unwrap().verify_hostname(false);
                let mut stream = ssl.connect("a.example", TcpStream::connect(to).unwrap()).unwrap();
                let wanted = (sent && asks).then_some(given.as_slice());
                assert_eq!(stream.ssl().ocsp_status(), wanted);
                assert!(ask(&mut stream).contains("200 OK"));
            }
        })
        .await;
    }
}

/// OpenSSL is what people look at staples with.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_sees_the_staple() {
    let Ok(version) = std::process::Command::new("openssl").arg("version").output() else { return };
    assert!(version.status.success());
    let mut secret = ecdsa("a.example");
    let response = staple(&[0x12, 0x34], 0x80, "20991231000000Z");
    secret.data.insert("tls.ocsp-staple".into(), SecretBytes::new(response));
    let live = Live::new(https(&[("a.example", &["a"])]), &Secrets::default().with("a", secret));
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    let seen = blocking(move || {
        let to = to.to_string();
        let mut command = std::process::Command::new("openssl");
        command.args(["s_client", "-status", "-servername", "a.example", "-connect", &to]);
        command.stdin(std::process::Stdio::null()).output().unwrap().stdout
    })
    .await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    for part in ["OCSP Response Status: successful", "Cert Status: good", "Serial Number: 1234"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_and_the_next_is_not() {
    let authority = Authority::new("ca");
    let mut authorities = Secret::default();
    authorities.data.insert("ca.crt".into(), SecretBytes::new(authority.pem()));
    authorities.data.insert("ca.crl".into(), SecretBytes::new(authority.crl(&[8], "20991231000000Z")));
    let secrets = Secrets::default().with("a", ecdsa("a.example")).with("ca-cacert", authorities);
    let live = Live::new(asking(&[("a.example", &["a"])], Some(&mutual(true))), &secrets);
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    blocking(move || {
        for (serial, gets_in) in [(7, true), (8, false)] {
            let (certificate, key) = authority.issue(serial, &["client.example"], Validity::Now);
            let mut own = Secret::default();
            own.data.insert("tls.crt".into(), SecretBytes::new(certificate.to_pem().unwrap()));
            own.data.insert("tls.key".into(), SecretBytes::new(key.private_key_to_pem_pkcs8().unwrap()));
            let shaken = tls_client_with(to, Some("a.example"), None, Some(&own));
            assert_eq!(shaken.is_ok(), gets_in, "{serial}");
        }
    })
    .await;
}

/// Servers `HOST` with the certificate of the Secret `a` and these bounds.
fn bounded(host: &str, min: TlsVersion, max: TlsVersion, ciphers: &[&str]) -> Listeners {
    let mut chains = HostIndex::new();
    let tls = ServerTls {
        certificates: vec![CertificateSource::Secret { namespace: "ns".into(), name: "a".into() }],
        min_version: min,
        max_version: max,
        cipher_suites: ciphers.iter().map(|name| (*name).to_owned()).collect(),
        groups: Vec::new(),
        client: None,
    };
    chains.insert(host, chain(host, Some(tls)));
    BTreeMap::from([(key(443), Arc::new(Listener::of_gateway(key(443), Chains::Tls(chains))))])
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_ciphers_are_those_of_the_server() {
    use TlsVersion::{V1_0, V1_2, V1_3};
    let secrets = Secrets::default().with("a", ecdsa("a.example"));
    let (one, two, three) = (SslVersion::TLS1, SslVersion::TLS1_2, SslVersion::TLS1_3);
    let chacha = "ECDHE-ECDSA-CHACHA20-POLY1305";
    for (min, max, ciphers, offers, agreed) in [
        (V1_2, V1_3, &[][..], three, Some(("TLSv1.3", ""))),
        (V1_2, V1_3, &[], two, Some(("TLSv1.2", ""))),
        (V1_2, V1_3, &[], one, None),
        (V1_3, V1_3, &[], two, None),
        (V1_2, V1_2, &[], three, None),
        (V1_0, V1_2, &["ECDHE-ECDSA-AES128-SHA"], one, Some(("TLSv1", "ECDHE-ECDSA-AES128-SHA"))),
        (V1_2, V1_2, &[chacha], two, Some(("TLSv1.2", chacha))),
        (V1_2, V1_2, &["AES128-GCM-SHA256"], two, None),
    ] {
        let live = Live::new(bounded("a.example", min, max, ciphers), &secrets);
        let manager = start(&live, Duration::ZERO);
        let to = address(&manager, 443).await;
        let seen = blocking(move || {
            let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
            builder.set_verify(SslVerifyMode::NONE);
            builder.clear_options(boring::ssl::SslOptions::NO_TLSV1);
            builder.set_cipher_list("ALL").unwrap();
            builder.set_min_proto_version(Some(offers)).unwrap();
            builder.set_max_proto_version(Some(offers)).unwrap();
            let ssl = builder.build().configure().unwrap().verify_hostname(false);
            let stream = ssl.connect("a.example", TcpStream::connect(to).unwrap()).ok()?;
            let cipher = stream.ssl().current_cipher().unwrap().name().to_owned();
            Some((stream.ssl().version_str().to_owned(), cipher))
        })
        .await;
        match (&seen, agreed) {
            (None, None) => {}
            (Some((version, cipher)), Some((wanted, of))) => {
                assert_eq!(version, wanted);
                assert!(of.is_empty() || cipher == of, "{cipher}");
            }
            _ => panic!("{min:?} {max:?} {ciphers:?} {offers:?}: {seen:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_handshakes_and_a_broken_one_is_for_nobody() {
    let listeners = https(&[("a.example", &["a"])]);
    let live = Live::new(listeners.clone(), &Secrets::default().with("a", ecdsa("first.example")));
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    let named = move || certificate_name(&tls_client(to, Some("a.example"), None).unwrap());
    let mut old = blocking(move || {
        let mut old = tls_client(to, Some("a.example"), None).unwrap();
        assert!(ask(&mut old).contains("200 OK"));
        old
    })
    .await;
    live.publish(listeners.clone(), &Secrets::default().with("a", ecdsa("second.example")));
    let old = blocking(move || {
        assert_eq!(named(), "second.example");
        assert!(ask(&mut old).ends_with("draining=false"));
        old
    })
    .await;
    let mut broken = ecdsa("third.example");
    broken.data.insert("tls.key".into(), ecdsa("x.example").data["tls.key"].clone());
    live.publish(listeners, &Secrets::default().with("a", broken));
    blocking(move || {
        let mut old = old;
        assert_eq!(named(), "second.example", "the last good one");
        assert_eq!(certificate_name(&old), "first.example");
        assert!(ask(&mut old).ends_with("draining=false"));
    })
    .await;
}

/// OpenSSL's client keeps a session in a file, which no safe call of the library here can take up.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_at_their_own_server_and_nowhere_else() {
    use std::process::{Command, Stdio};
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let secrets = Secrets::default().with("a", ecdsa("a.example"));
    let both = https(&[("a.example", &["a"]), ("b.example", &["a"])]);
    let live = Live::new(both.clone(), &secrets);
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("session").to_string_lossy().into_owned();
    let client = move |name: &str, version: &str, session: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", version, "-servername", name, "-connect", &to.to_string()]).args(session);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // The answer comes behind the tickets of TLS 1.3, and ends the client.
        child.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\nhost: a\nconnection: close\n\n").unwrap();
        let seen = child.wait_with_output().unwrap().stdout;
        String::from_utf8_lossy(&seen).into_owned()
    };
    let renewed = live.clone();
    blocking(move || {
        for version in ["-tls1_2", "-tls1_3"] {
            let resumed = |name: &str| client(name, version, &["-crlf", "-ign_eof", "-sess_in", &file]);
            let fresh = client("a.example", version, &["-crlf", "-ign_eof", "-sess_out", &file]);
            assert!(fresh.contains("New, ") && fresh.contains("200 OK"), "{version} {fresh}");
            let again = resumed("a.example");
            assert!(again.contains("Reused, ") && again.contains("200 OK"), "{version} {again}");
            let elsewhere = resumed("b.example");
            assert!(elsewhere.contains("New, ") && elsewhere.contains("200 OK"), "{version} {elsewhere}");
            // Another configuration with the same certificate keeps the keys of tickets; another certificate does not.
            renewed.publish(both.clone(), &secrets);
            assert!(resumed("a.example").contains("Reused, "), "{version}");
            renewed.publish(both.clone(), &Secrets::default().with("a", ecdsa("a.example")));
            assert!(resumed("a.example").contains("New, "), "{version}");
            renewed.publish(both.clone(), &secrets);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_bounded_in_number() {
    let connections = ConnectionLimits { handshakes: 1, ..ConnectionLimits::default() };
    let edge = EdgeConfig { connections, ..EdgeConfig::default() };
    let secrets = Secrets::default().with("a", ecdsa("a.example"));
    let live = Live::with(https(&[("a.example", &["a"])]), &secrets, edge);
    let manager = start(&live, Duration::ZERO);
    let to = address(&manager, 443).await;
    let counting = manager.clone();
    blocking(move || {
        // A client that begins and then says nothing: the server has answered, and waits.
        let mut stuck = TcpStream::connect(to).unwrap();
        stuck.write_all(&crate::tls::test_keys::client_hello("a.example")).unwrap();
        assert!(stuck.read(&mut [0; 16]).unwrap() > 0);
        assert!(tls_client(to, Some("a.example"), None).is_err());
        assert_eq!(counting.refused(), 1);
        // Silence before a ClientHello takes nobody's place.
        let _silent = TcpStream::connect(to).unwrap();
        drop(stuck);
        let begin = std::time::Instant::now();
        while tls_client(to, Some("a.example"), None).is_err() {
            assert!(begin.elapsed() < PATIENCE);
        }
    })
    .await;
}

//! Names, certificates and client certificates, over real handshakes.

use super::*;
use crate::tls::test_keys::staple;

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
    // Who asks; whether the friend, a stranger and somebody without a certificate get in.
    for (auth, friend_in, stranger_in, nobody_in) in [
        (mutual(true), true, false, false),
        (mutual(false), true, false, true),
        (ClientAuth { any_issuer: true, ..mutual(true) }, true, true, false),
        (named("friend.example"), true, false, false),
        (named("other.example"), false, false, false),
        (pinned(&hash), true, false, false),
        (pinned("00"), false, false, false),
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

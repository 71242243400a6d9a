//! Names, certificates and client certificates, over real handshakes.

use super::*;

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

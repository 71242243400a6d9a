//! Every form in which a server names its certificate, over real handshakes: what works, and what is refused out loud.

use boring::ssl::SslVersion;

use crate::{harness::*, keys::*};

/// A Gateway with a server `NAME.example.com`, which has the name of its host.
fn server(port: u16, name: &str, tls: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: {port}, name: https, protocol: HTTPS}}, hosts: [{name}.example.com], tls: {{{tls}}}}}
"
    )
}

#[test]
fn each_form_of_a_credential_works_or_says_why_not() {
    let port = free_port();
    let own = tempfile::tempdir().unwrap();
    let workload = Pair::alone("workload");
    for (name, text) in [
        ("cert-chain.pem", workload.certificate()),
        ("key.pem", workload.key()),
        ("root-cert.pem", workload.certificate()),
    ] {
        std::fs::write(own.path().join(name), text).unwrap();
    }
    let generic = Pair::alone("generic");
    let values = [("cert", generic.certificate()), ("key", generic.key())];
    let values = values.each_ref().map(|(key, value)| (*key, value.as_str()));
    let alone = Pair::alone("halves");
    let expired = Pair::dated("expired", (-9, -1));
    let (ecdsa, rsa) = (Pair::alone("ecdsa"), Pair::rsa("rsa"));
    let secrets = [
        Pair::alone("of-shop").secret("shop", "elsewhere", &[]),
        secret("istio-system", "generic", &values),
        // Both families: the generic one, whole.
        Pair::alone("tls").secret("istio-system", "both", &values),
        // One half of each: neither.
        secret("istio-system", "halves", &[("cert", &alone.certificate()), ("tls.key", &alone.key())]),
        secret("istio-system", "empty", &[("tls.crt", &alone.certificate()), ("tls.key", "")]),
        expired.secret("istio-system", "expired", &[]),
        ecdsa.secret("istio-system", "ecdsa", &[]),
        rsa.secret("istio-system", "rsa", &[]),
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: map, namespace: istio-system}\ndata: {ca.crt: x}\n"
            .to_owned(),
    ]
    .concat();
    // Its name, what it names, the certificate that is shown, and the finding that says why none is.
    let forms = [
        ("plain", "home", Some("home"), ""),
        ("slash", "istio-system/home", Some("home"), ""),
        ("kubernetes", "kubernetes://home", Some("home"), ""),
        ("kubernetes-ns", "kubernetes://istio-system/home", Some("home"), ""),
        ("gateway-api", "kubernetes-gateway://istio-system/home", Some("home"), ""),
        ("sds", "sds://home", Some("home"), ""),
        ("builtin", "builtin://", Some("workload"), ""),
        ("generic", "generic", Some("generic"), ""),
        ("both", "both", Some("generic"), ""),
        ("expired", "expired", Some("expired"), "is expired"),
        ("of-shop", "elsewhere", None, "elsewhere"),
        ("cross-slash", "shop/elsewhere", None, "shop/elsewhere"),
        ("cross", "kubernetes://shop/elsewhere", None, "kubernetes://shop/elsewhere"),
        ("cross-gateway", "kubernetes-gateway://shop/elsewhere", None, "kubernetes-gateway://shop/elsewhere"),
        ("map", "configmap://istio-system/map", None, "configmap://istio-system/map"),
        ("invalid", "invalid://", None, "invalid://"),
        ("missing", "missing", None, "missing"),
        ("halves", "halves", None, "halves"),
        ("empty", "empty", None, "empty"),
    ];
    let servers: String = forms
        .iter()
        .map(|(name, reference, ..)| {
            server(port, name, &format!("mode: SIMPLE, credentialName: '{reference}'"))
        })
        .collect();
    let two = server(port, "two", "mode: SIMPLE, credentialNames: [rsa, ecdsa]");
    let path = own.path().to_str().unwrap();
    let limen = Limen::start_with(
        &[
            ("servers.yaml", &(servers + &two)),
            ("secrets.yaml", &secrets),
            ("home.yaml", &Pair::alone("home").secret("istio-system", "home", &[])),
        ],
        &["--workload-certificates", path],
    );
    let findings: serde_json::Value =
        serde_json::from_str(&get(limen.admin, "localhost", "/diagnostics").unwrap().body).unwrap();
    let findings = findings["findings"].as_array().unwrap();
    for (name, reference, certificate, says) in forms {
        let host = format!("{name}.example.com");
        assert_eq!(shown(port, &host).as_deref(), certificate, "{reference}: {}", limen.process_log());
        let about = |finding: &&serde_json::Value| finding["resource"] == format!("Gateway shop/{name}");
        let said: Vec<&str> =
            findings.iter().filter(about).filter_map(|finding| finding["message"].as_str()).collect();
        assert_eq!(said.is_empty(), says.is_empty(), "{reference}: {said:?}");
        assert!(said.iter().any(|one| one.contains(says)) || says.is_empty(), "{reference}: {said:?}");
    }
    assert_eq!(shown(port, "two.example.com").as_deref(), Some("ecdsa"));
    let old = secured_as(port, "two.example.com", |builder| {
        builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        builder.set_sigalgs_list("rsa_pkcs1_sha256:rsa_pss_rsae_sha256").unwrap();
    });
    assert_eq!(name_of(&old.unwrap()).as_deref(), Some("rsa"));

    // One that comes later is used at once, and so is one that changes; an open connection stays.
    let mut kept = secured(port, "plain.example.com", None).unwrap();
    limen.write("later.yaml", &Pair::alone("later").secret("istio-system", "missing", &[]));
    eventually("the Secret that was missing", || {
        (shown(port, "missing.example.com").as_deref() == Some("later")).then_some(())
    });
    limen.write("home.yaml", &Pair::alone("renewed").secret("istio-system", "home", &[]));
    eventually("the renewed Secret", || {
        (shown(port, "plain.example.com").as_deref() == Some("renewed")).then_some(())
    });
    assert_eq!(shown(port, "sds.example.com").as_deref(), Some("renewed"));
    assert_eq!(name_of(&kept).as_deref(), Some("home"));
    assert_eq!(kept.get("plain.example.com", "/").unwrap().status, 404);
}

#[test]
fn each_form_of_an_authority_works_or_nobody_gets_in() {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let clients = Pair::authority("clients");
    let (own, stranger) = (clients.issue(&[("CN", "c")], &["c"]), Pair::alone("stranger"));
    let (roots, server_pair) = (clients.certificate(), Pair::alone("server"));
    for (name, text) in [
        ("cert-chain.pem", server_pair.certificate()),
        ("key.pem", server_pair.key()),
        ("root-cert.pem", roots.clone()),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let files = |name: &str| folder.path().join(name).display().to_string();
    let map = |namespace: &str, name: &str, key: &str| {
        let text = roots.replace('\n', "\n    ");
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  {key}: |\n    {text}\n"
        )
    };
    let named = |name: &str, values: &[(&str, &str)]| server_pair.secret("istio-system", name, values);
    let objects = [
        named("within", &[("ca.crt", &roots)]),
        named("cacert", &[("cacert", &roots)]),
        named("beside", &[]),
        secret("istio-system", "beside-cacert", &[("cacert", &roots)]),
        // The one beside wins, though it is of others.
        named("wins", &[("ca.crt", &stranger.certificate())]),
        secret("istio-system", "wins-cacert", &[("ca.crt", &roots)]),
        named("none", &[]),
        named("empty", &[("ca.crt", "")]),
        secret("istio-system", "separate", &[("ca.crt", &roots)]),
        secret("shop", "separate", &[("ca.crt", &roots)]),
        map("istio-system", "ca", "ca.crt"),
        map("shop", "ca", "cacert"),
    ]
    .concat();
    let by_files = format!(
        "mode: MUTUAL, serverCertificate: {}, privateKey: {}, caCertificates: {}",
        files("cert-chain.pem"),
        files("key.pem"),
        files("root-cert.pem")
    );
    let forms = [
        ("within", "mode: MUTUAL, credentialName: within", true),
        ("cacert", "mode: MUTUAL, credentialName: cacert", true),
        ("beside", "mode: MUTUAL, credentialName: beside", true),
        ("wins", "mode: OPTIONAL_MUTUAL, credentialName: wins", true),
        ("several", "mode: MUTUAL, credentialNames: [within, none]", true),
        ("separate", "mode: MUTUAL, credentialName: none, caCertCredentialName: separate", true),
        (
            "map",
            "mode: MUTUAL, credentialName: none, caCertCredentialName: 'configmap://istio-system/ca'",
            true,
        ),
        (
            "map-of-shop",
            "mode: MUTUAL, credentialName: none, caCertCredentialName: 'configmap://shop/ca'",
            true,
        ),
        ("sds", "mode: MUTUAL, credentialName: 'sds://beside'", true),
        ("builtin", "mode: MUTUAL, credentialName: 'builtin://'", true),
        ("files", by_files.as_str(), true),
        ("none", "mode: MUTUAL, credentialName: none", false),
        ("empty", "mode: MUTUAL, credentialName: empty", false),
        ("cross", "mode: MUTUAL, credentialName: none, caCertCredentialName: shop/separate", false),
        ("invalid", "mode: MUTUAL, credentialName: none, caCertCredentialName: 'invalid://'", false),
    ];
    let servers: String = forms.iter().map(|(name, tls, _)| server(port, name, tls)).collect();
    let path = folder.path().to_str().unwrap();
    let limen = Limen::start_with(
        &[("servers.yaml", &servers), ("objects.yaml", &objects)],
        &["--workload-certificates", path],
    );
    let asks = |name: &str, own: Option<&Pair>| {
        let host = format!("{name}.example.com");
        secured(port, &host, own).and_then(|mut client| client.get(&host, "/")).is_ok_and(|r| r.status == 404)
    };
    for (name, tls, works) in forms {
        assert_eq!(asks(name, Some(&own)), works, "{tls}: {}", limen.process_log());
        assert!(!asks(name, Some(&stranger)), "{tls}");
        assert_eq!(asks(name, None), name == "wins", "{tls}");
    }
}

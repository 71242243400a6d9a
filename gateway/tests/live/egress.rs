//! The samples of `deploy/samples/egress`, each as it is written, on a network where the hosts outside are real servers
//! on their own ports: what leaves, how, and how it is logged and counted.

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::Path,
    sync::Arc,
    thread,
};

use boring::ssl::{NameType, SslAcceptor, SslMethod, SslVerifyMode};

use crate::{harness::*, keys::*, namespace::apart};

const PARTNER: &str = "203.0.113.10";
const WIKI: &str = "203.0.113.11";
const STORE: &str = "203.0.113.12";
const PROXY: &str = "203.0.113.13";
/// The names of the samples; `inside.example.org` is a name outside that says an address inside.
const HOSTS: [(&str, &str); 6] = [
    ("partner.example.org", PARTNER),
    ("www.wiki.example.org", WIKI),
    ("store.example.org", STORE),
    ("proxy.example.net", PROXY),
    ("other.example.org", WIKI),
    ("inside.example.org", "127.0.0.1"),
];

/// A sample's text.
fn sample(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples/egress");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// The egress gateway on this text, beside its own Service.
fn egress(text: &str, further: &[&str]) -> Limen {
    let flags = [&["--labels", "app=istio-egressgateway,istio=egressgateway"], further].concat();
    Limen::start_with(&[("sample.yaml", text), ("service.yaml", &sample("gateway-service.yaml"))], &flags)
}

/// Does this with each connection to the address.
fn at(address: &str, port: u16, serve: impl Fn(TcpStream) + Clone + Send + 'static) {
    let listener = TcpListener::bind((address, port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
}

/// Answers each request with this, and the head that came.
fn answer(stream: impl Read + Write, says: &str) {
    let mut stream = BufReader::new(stream);
    while let Some(head) = request_head(&mut stream) {
        let body = format!("{says}\n{head}");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.get_mut().write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// An HTTP server over TLS, which says the name in the handshake and the subject of the client's certificate.
fn secure(address: &str, own: &Pair, clients: Option<&Pair>) {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    builder.set_certificate(&own.certificate).unwrap();
    builder.set_private_key(&own.key).unwrap();
    if let Some(clients) = clients {
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        builder.cert_store_mut().add_cert(clients.certificate.clone()).unwrap();
    }
    let acceptor = Arc::new(builder.build());
    at(address, 443, move |stream| {
        let Ok(stream) = acceptor.accept(stream) else { return };
        let name = stream.ssl().servername(NameType::HOST_NAME).unwrap_or("none").to_owned();
        let client = stream.ssl().peer_certificate().map(|certificate| {
            let subject = certificate.subject_name().entries().next().unwrap();
            subject.data().as_utf8().unwrap().to_string()
        });
        answer(stream, &format!("tls {name} {}", client.as_deref().unwrap_or("nobody")));
    });
}

/// A folder with these files, whose path takes the place of `place` in the sample.
fn mounted(text: &str, place: &str, files: &[(&str, &str)]) -> (String, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    assert!(text.contains(place));
    (text.replace(place, folder.path().to_str().unwrap()), folder)
}

/// What the host outside says to a plain request through the gateway.
fn asked(limen: &Limen, host: &str) -> Response {
    get(limen.port, host, "/thing").unwrap()
}

/// The samples whose roots are the system's, with roots of the test's.
fn with_roots(name: &str, roots: &Pair) -> (String, tempfile::TempDir) {
    mounted(&sample(name), "/etc/ssl/certs", &[("ca-certificates.crt", &roots.certificate())])
}

fn first_line(response: &Response) -> &str {
    response.body.lines().next().unwrap_or_default()
}

/// Waits for a line of the access log that has all of these.
fn logged(limen: &Limen, parts: &[&str]) {
    eventually(&format!("a line with {parts:?} in {}", limen.access_log()), || {
        limen.access_log().lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    });
}

/// Waits for a series of this name with all of these labels.
fn counted(limen: &Limen, name: &str, labels: &[&str]) {
    eventually(&format!("{name} with {labels:?}"), || {
        let metrics = get(limen.admin, "localhost", "/stats/prometheus").ok()?.body;
        let of_name = |line: &&str| line.starts_with(&format!("{name}{{"));
        metrics
            .lines()
            .filter(of_name)
            .any(|line| labels.iter().all(|label| line.contains(label)))
            .then_some(())
    });
}

#[test]
fn http_leaves_plain_and_is_logged_and_counted() {
    apart("egress::http_leaves_plain_and_is_logged_and_counted", &HOSTS, || {
        at(PARTNER, 80, |stream| answer(stream, "plain"));
        let limen = egress(&sample("http.yaml"), &[]);
        let answer = asked(&limen, "partner.example.org");
        assert_eq!((answer.status, first_line(&answer)), (200, "plain"));
        assert!(answer.body.to_lowercase().contains("host: partner.example.org"), "{}", answer.body);
        // There is no way out but by a rule.
        assert_eq!(asked(&limen, "other.example.org").status, 404);
        let cluster = "outbound|80||partner.example.org";
        logged(&limen, &["\"GET /thing HTTP/1.1\" 200", cluster, &format!("{PARTNER}:80")]);
        logged(&limen, &["\"GET /thing HTTP/1.1\" 404 NR", "other.example.org"]);
        counted(
            &limen,
            "istio_requests_total",
            &[
                "reporter=\"source\"",
                "destination_service=\"partner.example.org\"",
                "destination_service_name=\"partner.example.org\"",
                "response_code=\"200\"",
                "connection_security_policy=\"unknown\"",
            ],
        );
    });
}

#[test]
fn sidecars_come_by_mutual_tls_of_the_mesh() {
    apart("egress::sidecars_come_by_mutual_tls_of_the_mesh", &HOSTS, || {
        at(PARTNER, 80, |stream| answer(stream, "plain"));
        let mesh = Pair::authority("mesh");
        let gateway = mesh.issue(&[("O", "x")], &["spiffe://cluster.local/ns/istio-system/sa/egress"]);
        let sidecar = mesh.issue(&[("O", "x")], &["spiffe://cluster.local/ns/default/sa/shop"]);
        let own = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("root-cert.pem", mesh.certificate()),
            ("cert-chain.pem", gateway.certificate()),
            ("key.pem", gateway.key()),
        ] {
            fs::write(own.path().join(name), text).unwrap();
        }
        let flags = ["--workload-certificates", own.path().to_str().unwrap()];
        let _limen = egress(&sample("mesh-mutual.yaml"), &flags);
        let ask = |name: &str, own: Option<&Pair>| -> std::io::Result<Response> {
            secured(443, name, own)?.get("partner.example.org", "/thing")
        };
        let answer = ask("partner.example.org", Some(&sidecar)).unwrap();
        assert_eq!((answer.status, first_line(&answer)), (200, "plain"));
        // A name that a sidecar sends without `sni` in its DestinationRule; a client that is not of the mesh; one that
        // shows nothing.
        let default = "outbound_.443_.partner_.istio-egressgateway.istio-system.svc.cluster.local";
        assert!(ask(default, Some(&sidecar)).is_err());
        let stranger =
            Pair::authority("strangers").issue(&[("O", "x")], &["spiffe://cluster.local/ns/a/sa/b"]);
        assert!(ask("partner.example.org", Some(&stranger)).is_err());
        assert!(ask("partner.example.org", None).is_err());
    });
}

#[test]
fn tls_passes_by_the_name_in_the_handshake() {
    apart("egress::tls_passes_by_the_name_in_the_handshake", &HOSTS, || {
        let own = Pair::alone("partner.example.org");
        secure(PARTNER, &own, None);
        let limen = egress(&sample("tls-passthrough.yaml"), &[]);
        let mut client = secured(443, "partner.example.org", None).unwrap();
        assert_eq!(name_of(&client).as_deref(), Some("partner.example.org"), "its own certificate");
        let answer = client.get("partner.example.org", "/thing").unwrap();
        assert_eq!(first_line(&answer), "tls partner.example.org nobody");
        assert!(secured(443, "other.example.org", None).is_err());
        drop(client);
        logged(&limen, &["outbound|443||partner.example.org", &format!("{PARTNER}:443")]);
        counted(
            &limen,
            "istio_tcp_connections_opened_total",
            &["reporter=\"source\"", "destination_service=\"partner.example.org\""],
        );
    });
}

#[test]
fn tls_begins_at_the_gateway() {
    apart("egress::tls_begins_at_the_gateway", &HOSTS, || {
        let roots = Pair::authority("roots");
        secure(PARTNER, &roots.issue(&[("CN", "p")], &["partner.example.org"]), None);
        for name in ["tls-origination.yaml", "target-port.yaml"] {
            let (text, _files) = with_roots(name, &roots);
            let limen = egress(&text, &[]);
            let answer = asked(&limen, "partner.example.org");
            assert_eq!(
                (answer.status, first_line(&answer)),
                (200, "tls partner.example.org nobody"),
                "{name}"
            );
            logged(&limen, &["\"GET /thing HTTP/1.1\" 200", &format!("{PARTNER}:443")]);
        }
        // Somebody else's authority: nothing is sent to who cannot prove to be the partner.
        let (text, _files) = with_roots("tls-origination.yaml", &Pair::authority("others"));
        let limen = egress(&text, &[]);
        let answer = asked(&limen, "partner.example.org");
        assert_eq!(answer.status, 503);
        logged(&limen, &["\"GET /thing HTTP/1.1\" 503 UF"]);
    });
}

#[test]
fn the_gateway_shows_a_certificate_of_its_own() {
    apart("egress::the_gateway_shows_a_certificate_of_its_own", &HOSTS, || {
        let (roots, clients) = (Pair::authority("roots"), Pair::authority("clients"));
        let client = clients.issue(&[("CN", "the gateway")], &[]);
        secure(PARTNER, &roots.issue(&[("CN", "p")], &["partner.example.org"]), Some(&clients));
        let expected = (200, "tls partner.example.org the gateway");

        let secret = client.secret("istio-system", "partner-client", &[("ca.crt", &roots.certificate())]);
        let limen = egress(&format!("{}{secret}", sample("mutual-origination.yaml")), &[]);
        let answer = asked(&limen, "partner.example.org");
        assert_eq!((answer.status, first_line(&answer)), expected);

        let files =
            [("tls.crt", client.certificate()), ("tls.key", client.key()), ("ca.crt", roots.certificate())];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let (text, folder) = mounted(&sample("mutual-origination-files.yaml"), "/etc/partner", &files);
        let limen = egress(&text, &[]);
        let answer = asked(&limen, "partner.example.org");
        assert_eq!((answer.status, first_line(&answer)), expected);

        // What is mounted anew is shown next, without a restart.
        let renewed = clients.issue(&[("CN", "the gateway, renewed")], &[]);
        for (name, text) in [("tls.crt", renewed.certificate()), ("tls.key", renewed.key())] {
            fs::write(folder.path().join(".new"), text).unwrap();
            fs::rename(folder.path().join(".new"), folder.path().join(name)).unwrap();
        }
        eventually("the renewed certificate", || {
            let answer = asked(&limen, "partner.example.org");
            assert_eq!(answer.status, 200, "{answer:?}");
            (first_line(&answer) == "tls partner.example.org the gateway, renewed").then_some(())
        });
    });
}

#[test]
fn many_names_go_to_one_set_of_servers() {
    apart("egress::many_names_go_to_one_set_of_servers", &HOSTS, || {
        secure(WIKI, &Pair::alone("www.wiki.example.org"), None);
        let limen = egress(&sample("wildcard.yaml"), &[]);
        for name in ["www.wiki.example.org", "de.wiki.example.org"] {
            let answer = secured(443, name, None).unwrap().get(name, "/thing").unwrap();
            assert_eq!(first_line(&answer), format!("tls {name} nobody"), "the name stays");
        }
        assert!(secured(443, "wiki.example.org", None).is_err(), "no label where the * is");
        logged(&limen, &["outbound|443||*.wiki.example.org", &format!("{WIKI}:443")]);
    });
}

#[test]
fn each_name_goes_to_servers_of_its_own_but_never_inside() {
    apart("egress::each_name_goes_to_servers_of_its_own_but_never_inside", &HOSTS, || {
        at(PARTNER, 80, |stream| answer(stream, "partner"));
        at(WIKI, 80, |stream| answer(stream, "other"));
        secure(WIKI, &Pair::alone("other.example.org"), None);
        let limen = egress(&sample("dynamic-wildcard.yaml"), &[]);
        for (host, says) in [("partner.example.org", "partner"), ("other.example.org", "other")] {
            let answer = asked(&limen, host);
            assert_eq!((answer.status, first_line(&answer)), (200, says));
        }
        let answer = secured(443, "other.example.org", None).unwrap().get("other.example.org", "/").unwrap();
        assert_eq!(first_line(&answer), "tls other.example.org nobody");
        // A name of the outside world that says an address of ours (the admin endpoints are there), and no such name.
        for host in ["inside.example.org", "nowhere.example.org"] {
            assert_eq!(asked(&limen, host).status, 503, "{host}");
        }
        logged(&limen, &["503 DF dns_resolution_failure", "nowhere.example.org"]);
        assert!(secured(443, "inside.example.org", None).is_err());
        assert_eq!(asked(&limen, "partner.example.com").status, 404);
    });
}

#[test]
fn tcp_goes_by_its_port() {
    apart("egress::tcp_goes_by_its_port", &HOSTS, || {
        at(STORE, 5432, |mut stream| {
            let mut said = [0; 5];
            let _gone = stream.read_exact(&mut said).and_then(|()| stream.write_all(b"store"));
        });
        let limen = egress(&sample("tcp.yaml"), &[]);
        let mut client = Client::over(connect(5432).unwrap());
        client.send(b"query").unwrap();
        assert_eq!(client.read_exact(5).unwrap(), b"store");
        drop(client);
        logged(&limen, &["outbound|5432||store.example.org", &format!("{STORE}:5432")]);
        let labels = ["reporter=\"source\"", "destination_service=\"store.example.org\""];
        for name in ["opened_total", "closed_total"] {
            counted(&limen, &format!("istio_tcp_connections_{name}"), &labels);
        }
        counted(&limen, "istio_tcp_sent_bytes_total", &labels);
    });
}

#[test]
fn connections_are_carried_by_a_forward_proxy() {
    apart("egress::connections_are_carried_by_a_forward_proxy", &HOSTS, || {
        secure(PARTNER, &Pair::alone("partner.example.org"), None);
        at(PROXY, 3128, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let head = request_head(&mut reader).unwrap();
            assert!(head.starts_with("CONNECT partner.example.org:443 HTTP/1.1\r\n"), "{head}");
            let outside = TcpStream::connect((PARTNER, 443)).unwrap();
            let (mut client, mut server) = (stream, outside.try_clone().unwrap());
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let up = thread::spawn(move || {
                let _done = std::io::copy(&mut reader, &mut server);
                server.shutdown(Shutdown::Write)
            });
            let _done = std::io::copy(&mut &outside, &mut client);
            let _done = up.join();
        });
        let limen = egress(&sample("tunnel.yaml"), &[]);
        let mut client = secured(443, "partner.example.org", None).unwrap();
        assert_eq!(name_of(&client).as_deref(), Some("partner.example.org"));
        let answer = client.get("partner.example.org", "/thing").unwrap();
        assert_eq!(first_line(&answer), "tls partner.example.org nobody");
        drop(client);
        logged(&limen, &["outbound|3128|to-partner|proxy.example.net", &format!("{PROXY}:3128")]);
    });
}

#[test]
fn a_process_beside_the_gateway_is_reached_by_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, "beside"));
        }
    });
    let text = sample("unix-socket.yaml").replace("/var/run/partner/socket", path.to_str().unwrap());
    let limen = egress(&text, &[]);
    let answer = asked(&limen, "partner.example.org");
    assert_eq!((answer.status, first_line(&answer)), (200, "beside"));
}

/// The samples are what people copy: nothing is to be said about them but what is known.
#[test]
fn nothing_is_wrong_with_the_samples() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples/egress");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") && name != "gateway-service.yaml")
        .collect();
    names.sort();
    assert_eq!(names.len(), 12, "{names:?}");
    let secret = tempfile::tempdir().unwrap();
    let (key, roots) = (Pair::alone("x"), Pair::authority("roots").certificate());
    let path = secret.path().join("secret.yaml");
    fs::write(&path, key.secret("istio-system", "partner-client", &[("ca.crt", &roots)])).unwrap();
    for name in names {
        let output = std::process::Command::new(binary())
            .args(["check", "--labels", "istio=egressgateway"])
            .args([&folder.join(&name), &folder.join("gateway-service.yaml"), &path])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains("Warning"), "{name}: {said}");
    }
}

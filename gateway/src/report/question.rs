//! From what a person types to a question: URL, headers, and the query string that carries both to a running gateway.
//!
//! Invariant: [`encode`] and [`decode`] undo each other, so that asking over the network asks the same.

use std::{collections::BTreeMap, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use routing::listener::Direction;

use super::explain::{Certificate, Question, Transport, default_server_name};

/// All but what stands for itself anywhere in a URI (RFC 3986 §2.3).
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// URL; without a scheme it is `http`.
    pub url: String,
    /// Method; empty is `GET`.
    pub method: String,
    /// Headers, as `name: value`.
    pub headers: Vec<String>,
    /// Port that the client connects to.
    pub port: Option<u16>,
    /// TLS server name; an empty one is none.
    pub sni: Option<String>,
    /// `http1`, `http2`, `https`, `tls` or `tcp`.
    pub protocol: Option<String>,
    /// ALPN names that the client offers, comma separated.
    pub alpn: Option<String>,
    /// Address of the client.
    pub client_ip: Option<IpAddr>,
    /// Name in the certificate that the client shows: a SPIFFE identity, a DNS name or a subject; an empty one: it has none that counts.
    pub client_cert: Option<String>,
    /// Original destination, of a sidecar.
    pub destination: Option<IpAddr>,
    /// `outbound` or `inbound`, of a sidecar.
    pub direction: Option<String>,
    /// Stands for the random number of the request.
    pub seed: Option<u64>,
}

impl Ask {
    /// The question.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub fn question(&self, port_map: &BTreeMap<u16, u16>) -> Result<Question, String> {
        let (scheme, rest) = match self.url.split_once("://") {
            Some(parts) => parts,
            // A host alone is taken for a URL; a word that could be anything is taken for a slip.
            None if self.url == "localhost" || self.url.contains(['.', '/', ':']) => ("http", &*self.url),
            None => return Err(format!("{:?} is not a URL: write http://HOST:PORT/PATH", self.url)),
        };
        let scheme = scheme.to_ascii_lowercase();
        let by_scheme = match scheme.as_str() {
            "http" | "ws" | "grpc" => "http1",
            "https" | "wss" | "grpcs" => "https",
            "tcp" => "tcp",
            "tls" => "tls",
            other => return Err(format!("{}: unknown scheme {other:?}", self.url)),
        };
        if self.url.chars().any(|c| c.is_control() || c == ' ') {
            return Err(format!("{:?} is not a URL", self.url));
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(path_at);
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
        let path = if path.is_empty() { "/" } else { path };

        let headers = self.header_map()?;
        let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let named = host.unwrap_or(authority).to_owned();
        if named.is_empty() || routing::host::without_port(authority).is_empty() {
            return Err(format!("{}: no host", self.url));
        }
        let protocol = self.protocol.as_deref().unwrap_or(by_scheme);
        let tls_port = matches!(protocol, "https" | "tls");
        let port = match (self.port, port_of(authority)?) {
            (Some(port), _) | (None, Some(port)) => port,
            (None, None) => {
                if tls_port {
                    443
                } else {
                    80
                }
            }
        };
        let server_name = match self.sni.as_deref() {
            Some("") => None,
            Some(name) => Some(name.to_ascii_lowercase()),
            None => default_server_name(authority),
        };
        let transport = match protocol {
            "http1" | "http2" if by_scheme == "https" => Transport::Tls(server_name),
            "http1" | "http2" if self.sni.is_some() => Transport::Tls(server_name),
            "http1" | "http2" => Transport::Plain,
            "https" | "tls" => Transport::Tls(server_name),
            "tcp" => Transport::Tcp,
            other => return Err(format!("unknown protocol {other:?}")),
        };
        let direction = match self.direction.as_deref() {
            None | Some("outbound") => Direction::Outbound,
            Some("inbound") => Direction::Inbound,
            Some(other) => return Err(format!("unknown direction {other:?}: outbound or inbound")),
        };
        let client_certificate = self.client_cert.as_deref().map(certificate);
        if client_certificate.is_some() && !matches!(transport, Transport::Tls(_)) {
            return Err("a client shows its certificate in a TLS handshake: ask with https".to_owned());
        }
        let method = if self.method.is_empty() { "GET" } else { &self.method };
        http::Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is not a method"))?;
        Ok(Question {
            method: method.to_owned(),
            transport,
            port,
            authority: named,
            path: path.to_owned(),
            query,
            headers,
            alpn: self
                .alpn
                .as_deref()
                .map(|list| list.split(',').map(|name| name.trim().to_owned()).collect()),
            client_ip: self.client_ip,
            client_certificate,
            destination: self.destination,
            direction,
            seed: self.seed,
            port_map: port_map.clone(),
        })
    }

    fn header_map(&self) -> Result<HeaderMap, String> {
        let mut map = HeaderMap::new();
        for line in &self.headers {
            let (name, value) =
                line.split_once(':').ok_or_else(|| format!("header {line:?}: use 'name: value'"))?;
            let name: HeaderName =
                name.trim().parse().map_err(|_| format!("header {line:?}: not a header name"))?;
            let value = HeaderValue::from_str(value.trim())
                .map_err(|_| format!("header {name}: a value that no header can carry"))?;
            map.append(name, value);
        }
        Ok(map)
    }
}

/// A certificate with one name, of the kind that it looks like.
fn certificate(name: &str) -> Certificate {
    let mut certificate = Certificate::default();
    if name.contains("://") {
        certificate.uris.push(name.to_owned());
    } else if name.contains("/ns/") {
        // As policies write it (Istio: a principal is an identity without its scheme).
        certificate.uris.push(format!("spiffe://{name}"));
    } else if name.contains('=') {
        name.clone_into(&mut certificate.subject);
    } else if !name.is_empty() {
        certificate.dns.push(name.to_owned());
    }
    certificate
}

fn port_of(authority: &str) -> Result<Option<u16>, String> {
    let host = routing::host::without_port(authority);
    match authority.get(host.len()..).unwrap_or_default().trim_start_matches(':') {
        "" => Ok(None),
        port => port.parse().map(Some).map_err(|_| format!("{authority}: {port:?} is not a port")),
    }
}

/// As a query string.
#[must_use]
pub fn encode(ask: &Ask) -> String {
    let mut pairs = vec![("url", ask.url.clone()), ("method", ask.method.clone())];
    pairs.extend(ask.headers.iter().map(|header| ("header", header.clone())));
    pairs.extend(ask.port.map(|port| ("port", port.to_string())));
    pairs.extend(ask.sni.clone().map(|sni| ("sni", sni)));
    pairs.extend(ask.protocol.clone().map(|protocol| ("protocol", protocol)));
    pairs.extend(ask.alpn.clone().map(|alpn| ("alpn", alpn)));
    pairs.extend(ask.client_ip.map(|address| ("client_ip", address.to_string())));
    pairs.extend(ask.client_cert.clone().map(|name| ("client_cert", name)));
    pairs.extend(ask.destination.map(|address| ("destination", address.to_string())));
    pairs.extend(ask.direction.clone().map(|direction| ("direction", direction)));
    pairs.extend(ask.seed.map(|seed| ("seed", seed.to_string())));
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, &UNRESERVED)))
        .collect();
    pairs.join("&")
}

/// From a query string.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn decode(query: &str) -> Result<Ask, String> {
    let mut ask = Ask::default();
    for (key, value) in pairs(query) {
        let number = || format!("{key}={value}: not a number");
        match key.as_str() {
            "url" => ask.url = value,
            "method" => ask.method = value,
            "header" => ask.headers.push(value),
            "port" => ask.port = Some(value.parse().map_err(|_| number())?),
            "sni" => ask.sni = Some(value),
            "protocol" => ask.protocol = Some(value),
            "alpn" => ask.alpn = Some(value),
            "client_ip" => {
                ask.client_ip = Some(value.parse().map_err(|_| format!("{key}={value}: not an address"))?);
            }
            "client_cert" => ask.client_cert = Some(value),
            "destination" => {
                ask.destination = Some(value.parse().map_err(|_| format!("{key}={value}: not an address"))?);
            }
            "direction" => ask.direction = Some(value),
            "seed" => ask.seed = Some(value.parse().map_err(|_| number())?),
            other => {
                return Err(format!(
                    "unknown parameter {other:?}: use url, method, header, port, sni, protocol, alpn, client_ip, client_cert, destination, direction, seed"
                ));
            }
        }
    }
    if ask.url.is_empty() {
        return Err("give url=…, percent-encoded".to_owned());
    }
    Ok(ask)
}

/// The pairs of a query string, decoded.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key), unescape(value))
    })
}

fn unescape(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(url: &str) -> Question {
        Ask { url: url.to_owned(), ..Ask::default() }.question(&BTreeMap::new()).unwrap()
    }

    #[test]
    fn a_url_gives_port_host_path_and_server_name() {
        let q = question("http://any.host:8080/productpage?u=1#x");
        assert_eq!((q.port, q.authority.as_str(), q.path.as_str()), (8080, "any.host:8080", "/productpage"));
        assert_eq!((q.query.as_deref(), q.transport), (Some("u=1"), Transport::Plain));
        let q = question("https://Shop.example");
        assert_eq!((q.port, q.path.as_str()), (443, "/"));
        assert_eq!(q.transport, Transport::Tls(Some("shop.example".to_owned())));
        assert_eq!(question("[::1]:8080/x").authority, "[::1]:8080");
        assert_eq!((question("shop.example").port, question("localhost").path.as_str()), (80, "/"));
    }

    #[test]
    fn a_host_header_wins_over_the_url() {
        let ask = Ask {
            url: "http://127.0.0.1:8080/".to_owned(),
            headers: vec!["Host: shop.example".to_owned(), "x-canary:1".to_owned()],
            ..Ask::default()
        };
        let q = ask.question(&BTreeMap::new()).unwrap();
        assert_eq!((q.authority.as_str(), q.port), ("shop.example", 8080));
        assert_eq!(q.headers["x-canary"], "1");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for url in ["ftp://a/", "http://", "http://a b/", "http://a:99999/", "", "notaurl"] {
            let ask = Ask { url: url.to_owned(), ..Ask::default() };
            assert!(ask.question(&BTreeMap::new()).is_err(), "{url:?}");
        }
        let ask = Ask { url: "http://a/".to_owned(), headers: vec!["nonsense".to_owned()], ..Ask::default() };
        assert!(ask.question(&BTreeMap::new()).is_err());
    }

    #[test]
    fn a_certificate_has_the_kind_of_name_that_is_given() {
        let ask = |url: &str, name: &str| {
            let ask = Ask { url: url.to_owned(), client_cert: Some(name.to_owned()), ..Ask::default() };
            ask.question(&BTreeMap::new()).map(|question| question.client_certificate.unwrap_or_default())
        };
        let uri = vec!["spiffe://td/ns/a/sa/b".to_owned()];
        for name in ["spiffe://td/ns/a/sa/b", "td/ns/a/sa/b"] {
            assert_eq!(
                ask("https://a.example", name),
                Ok(Certificate { uris: uri.clone(), ..Certificate::default() })
            );
        }
        assert_eq!(ask("https://a.example", "b.example").unwrap().dns, ["b.example"]);
        assert_eq!(ask("https://a.example", "CN=b").unwrap().subject, "CN=b");
        assert_eq!(ask("https://a.example", ""), Ok(Certificate::default()));
        assert!(ask("http://a.example", "b.example").is_err(), "nothing is shown in the clear");
    }

    #[test]
    fn a_question_survives_the_query_string() {
        let ask = Ask {
            url: "https://a.example/x y?q=%41&b=ü".to_owned(),
            method: "POST".to_owned(),
            headers: vec!["x-a: 1&2=3+4".to_owned(), "x-b: ".to_owned()],
            port: Some(8443),
            sni: Some(String::new()),
            protocol: Some("http2".to_owned()),
            alpn: Some("h2, istio".to_owned()),
            client_ip: Some([192, 0, 2, 1].into()),
            client_cert: Some("spiffe://cluster.local/ns/a/sa/b".to_owned()),
            destination: Some([10, 0, 0, 1].into()),
            direction: Some("inbound".to_owned()),
            seed: Some(7),
        };
        assert_eq!(decode(&encode(&ask)), Ok(ask));
        assert!(decode("port=x&url=a").is_err());
        assert!(decode("").is_err());
    }
}

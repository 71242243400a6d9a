//! Documents of issuers over HTTP.
//!
//! Invariant: only the system's authorities, and those that the operator names, vouch for a server, over the one TLS library. Addresses that a machine's own metadata is read from
//! are never connected to, by name or by number (Istio: `jwksBlockedIP`): whoever may write a rule could read them otherwise.

use boring::{
    ssl::{SslConnector, SslMethod},
    x509::X509,
};
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_boring::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::TokioExecutor,
};
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tower::Service;

/// Where Istio mounts authorities for these servers besides the system's (`jwksExtraRootCABundlePath`).
const EXTRA: &str = "/cacerts/extra.pem";
/// Most bytes of a document.
const MOST: usize = 1 << 20;
/// Most addresses that one document is looked for at.
const HOPS: usize = 10;

/// Fetches documents.
pub(super) struct Fetcher(Client<HttpsConnector<HttpConnector<Guarded>>, Empty<Bytes>>);

impl Fetcher {
    /// With the system's certificate authorities, and those of a PEM file: a named one, or Istio's where it is.
    pub(super) fn new(authorities: Option<&Path>) -> Result<Fetcher, String> {
        let mut tcp = HttpConnector::new_with_resolver(Guarded(GaiResolver::new()));
        tcp.enforce_http(false);
        let mut tls = SslConnector::builder(SslMethod::tls()).map_err(|error| error.to_string())?;
        let istios = Path::new(EXTRA);
        if let Some(file) = authorities.or_else(|| istios.is_file().then_some(istios)) {
            let broken = |why: String| format!("authorities of {}: {why}", file.display());
            let pem = std::fs::read(file).map_err(|error| broken(error.to_string()))?;
            let all = X509::stack_from_pem(&pem).map_err(|error| broken(error.to_string()))?;
            if all.is_empty() {
                return Err(broken("there is no certificate in it".to_owned()));
            }
            for authority in all {
                tls.cert_store_mut().add_cert(authority).map_err(|error| broken(error.to_string()))?;
            }
        }
        let https = HttpsConnector::with_connector(tcp, tls).map_err(|error| error.to_string())?;
        // A connection every twenty minutes is not worth keeping.
        Ok(Fetcher(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https)))
    }

    /// The document at an address, or where that sends us.
    pub(super) async fn get(&self, address: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        let document = tokio::time::timeout(timeout, self.follow(address));
        document.await.map_err(|_| format!("no answer within {} ms", timeout.as_millis()))?
    }

    async fn follow(&self, address: &str) -> Result<Vec<u8>, String> {
        let mut uri: Uri = address.parse().map_err(|error| format!("{address:?} is no address: {error}"))?;
        for _ in 0..HOPS {
            guard(&uri)?;
            let request = Request::get(&uri).header(header::ACCEPT, "application/json").body(Empty::new());
            let request = request.map_err(|error| error.to_string())?;
            let response = self.0.request(request).await.map_err(|error| causes(&error))?;
            match response.status() {
                status if status.is_success() => return body(response).await,
                status if status.is_redirection() => uri = target(&uri, &response)?,
                status => return Err(format!("status {status}")),
            }
        }
        Err("too many redirects".to_owned())
    }
}

async fn body(response: Response<Incoming>) -> Result<Vec<u8>, String> {
    let limited = Limited::new(response.into_body(), MOST).collect().await;
    limited.map(|whole| whole.to_bytes().to_vec()).map_err(|error| error.to_string())
}

fn target(from: &Uri, response: &Response<Incoming>) -> Result<Uri, String> {
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or("a redirect to nowhere")?;
    let whole = match (location.strip_prefix('/'), from.scheme_str(), from.authority()) {
        (Some(_), Some(scheme), Some(authority)) => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    };
    let target: Uri = whole.parse().map_err(|_| "a redirect to no address")?;
    match (target.scheme_str(), from.scheme_str()) {
        (Some("https"), _) | (Some("http"), Some("http")) => Ok(target),
        _ => Err("a redirect to where nothing is protected".to_owned()),
    }
}

/// Hosts that are addresses meet no resolver.
fn guard(uri: &Uri) -> Result<(), String> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) if is_metadata(address) => Err(format!("{address} is not asked for keys")),
        _ => Ok(()),
    }
}

/// Link-local addresses, and those that clouds keep for their machines' metadata.
fn is_metadata(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets() == [100, 100, 100, 200],
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            v6.is_unicast_link_local() || [first, second] == [0xfd00, 0x0ec2]
        }
    }
}

/// What an error says, and what it comes from.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

/// The system's resolver, without the addresses that are not connected to.
#[derive(Clone)]
struct Guarded(GaiResolver);

impl Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let question = self.0.call(name);
        Box::pin(async move {
            let all: Vec<SocketAddr> = question.await?.filter(|found| !is_metadata(found.ip())).collect();
            Ok(all.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_metadata_is_not_read() {
        for address in
            ["169.254.169.254", "100.100.100.200", "fe80::1", "fd00:ec2::254", "::ffff:169.254.0.1"]
        {
            assert!(is_metadata(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "fd00::1", "192.0.2.1"] {
            assert!(!is_metadata(address.parse().unwrap()), "{address}");
        }
        assert!(guard(&"http://169.254.169.254/latest".parse().unwrap()).is_err());
        assert!(guard(&"http://[fe80::1]/".parse().unwrap()).is_err());
        assert!(guard(&"https://a.example/".parse().unwrap()).is_ok());
    }
}

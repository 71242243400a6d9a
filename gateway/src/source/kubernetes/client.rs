//! The client of the API server: kube's, over BoringSSL.
//!
//! Invariant: a server whose certificate does not verify is not spoken to, unless the kubeconfig says so. Tokens are read again by kube
//! when they are due (kube-client 5.0, `auth/mod.rs`: a token file once a minute), the authorities of the cluster with each connection.
//! One TLS library: kube's own would be a second one beside the engine's.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use boring::{
    error::ErrorStack,
    pkey::PKey,
    ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode},
    x509::{
        X509,
        store::{X509Store, X509StoreBuilder},
    },
};
use hyper_boring::HttpsConnector;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _},
};
use secrecy::ExposeSecret as _;
use tower::{ServiceBuilder, ServiceExt as _, util::option_layer};

use super::store::Reach;

/// A connection that does not come about in this time has failed.
const CONNECT: Duration = Duration::from_secs(10);
/// A peer that does not acknowledge for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account.
    #[error("no kubeconfig (KUBECONFIG) and not in a cluster: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// What is configured is no certificate or key.
    #[error("the certificates of the Kubernetes API's configuration: {0}")]
    Certificates(#[from] ErrorStack),
    /// A file that the configuration names cannot be read.
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, std::io::Error),
    /// A value of the kubeconfig is not base64.
    #[error("the kubeconfig's {0} is not base64")]
    Base64(&'static str),
    /// Credentials cannot be had.
    #[error("credentials for the Kubernetes API: {0}")]
    Credentials(#[source] kube::Error),
}

type Listener = Box<dyn Fn(Reach) + Send + Sync>;

/// An API server, and how to speak to it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    address: String,
    namespace: String,
    listener: Arc<OnceLock<Listener>>,
}

impl Cluster {
    /// The cluster that the kubeconfig or the service account names. Runs on a tokio runtime, which must live as long.
    ///
    /// # Errors
    /// When there is neither, or what they hold cannot be used.
    pub async fn infer() -> Result<Cluster, ConnectError> {
        Cluster::connect(Config::infer().await?)
    }

    /// The cluster at a URL, without credentials.
    ///
    /// # Errors
    /// When there are no certificate authorities to trust.
    pub fn at(url: http::Uri) -> Result<Cluster, ConnectError> {
        Cluster::connect(Config::new(url))
    }

    fn connect(config: Config) -> Result<Cluster, ConnectError> {
        let listener: Arc<OnceLock<Listener>> = Arc::default();
        let told = Arc::clone(&listener);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(SILENCE / 2));
        tcp.set_keepalive_interval(Some(SILENCE / 6));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(SILENCE));
        let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(secure(&config, tcp)?);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .layer(option_layer(config.auth_layer().map_err(ConnectError::Credentials)?))
            .layer(config.extra_headers_layer().map_err(ConnectError::Credentials)?)
            .map_err(tower::BoxError::from)
            .service(http)
            .map_result(move |result: Result<http::Response<_>, tower::BoxError>| {
                let reach = match &result {
                    Ok(response) if !response.status().is_server_error() => Reach::Reached,
                    _ => Reach::Lost,
                };
                if let Some(listener) = told.get() {
                    listener(reach);
                }
                result
            });
        let client = Client::new(service, config.default_namespace.clone());
        let address = config.cluster_url.to_string();
        Ok(Cluster { client, address, namespace: config.default_namespace, listener })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The namespace of the service account, or of the kubeconfig's context.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Tells of each answer and of each failure to get one. The first who asks is told.
    pub(super) fn on_reach(&self, listener: impl Fn(Reach) + Send + Sync + 'static) {
        let _first = self.listener.set(Box::new(listener));
    }
}

fn secure(config: &Config, tcp: HttpConnector) -> Result<HttpsConnector<HttpConnector>, ConnectError> {
    let mut tls = SslConnector::builder(SslMethod::tls())?;
    // HTTP/1.1: a connection carries any number of watches in HTTP/2 only up to the server's limit, and then they wait for each other.
    tls.set_alpn_protos(b"\x08http/1.1")?;
    if let Some(authorities) = &config.root_cert {
        tls.set_verify_cert_store(trust(authorities.iter().map(|der| X509::from_der(der)))?)?;
    }
    identity(config, &mut tls)?;
    let mut https = HttpsConnector::with_connector(tcp, tls)?;
    let (insecure, name, file) =
        (config.accept_invalid_certs, config.tls_server_name.clone(), config.root_cert_file.clone());
    if name.is_some() {
        // The URL's host is then neither said nor verified: the name below is.
        https.set_callback(|connection, _uri| {
            connection.set_use_server_name_indication(false);
            connection.set_verify_hostname(false);
            Ok(())
        });
    }
    https.set_ssl_callback(move |ssl, _uri| {
        if insecure {
            ssl.set_verify(SslVerifyMode::NONE);
        }
        // Authorities are rotated in place. What cannot be read now is trusted as it was at the start.
        if let Some(pem) = file.as_ref().and_then(|file| std::fs::read(file).ok())
            && let Ok(authorities) = X509::stack_from_pem(&pem)
            && !authorities.is_empty()
        {
            ssl.set_verify_cert_store(trust(authorities.into_iter().map(Ok))?)?;
        }
        if let Some(name) = &name {
            match name.parse() {
                Ok(address) => ssl.verify_param_mut().set_ip(address)?,
                Err(_) => {
                    ssl.set_hostname(name)?;
                    ssl.verify_param_mut().set_host(name)?;
                }
            }
        }
        Ok(())
    });
    Ok(https)
}

fn trust(authorities: impl Iterator<Item = Result<X509, ErrorStack>>) -> Result<X509Store, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for authority in authorities {
        store.add_cert(authority?)?;
    }
    Ok(store.build())
}

/// The certificate of a kubeconfig's user.
fn identity(config: &Config, tls: &mut SslConnectorBuilder) -> Result<(), ConnectError> {
    let user = &config.auth_info;
    let key = user.client_key_data.as_ref().map(|data| data.expose_secret());
    let chain = pem(
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
        "client-certificate-data",
    )?;
    let key = pem(key, user.client_key.as_deref(), "client-key-data")?;
    let (Some(chain), Some(key)) = (chain, key) else { return Ok(()) };
    let mut chain = X509::stack_from_pem(&chain)?.into_iter();
    if let Some(leaf) = chain.next() {
        tls.set_certificate(&leaf)?;
    }
    for between in chain {
        tls.add_extra_chain_cert(between)?;
    }
    tls.set_private_key(PKey::private_key_from_pem(&key)?.as_ref())?;
    Ok(())
}

/// PEM given in place, or by the name of its file.
fn pem(data: Option<&str>, file: Option<&str>, field: &'static str) -> Result<Option<Vec<u8>>, ConnectError> {
    use base64::Engine as _;
    match (data, file) {
        (Some(data), _) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(data);
            Ok(Some(decoded.map_err(|_| ConnectError::Base64(field))?))
        }
        (None, Some(file)) => {
            std::fs::read(file).map(Some).map_err(|error| ConnectError::File(PathBuf::from(file), error))
        }
        (None, None) => Ok(None),
    }
}

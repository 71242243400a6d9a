//! TLS towards upstreams that is ours and not the engine's: it offers the protocol names that are wanted, and resumes sessions.
//!
//! Invariant: a session is kept beside the certificates that it was verified with, and is used for nobody else: other files,
//! Secrets or revocation lists are other [`Material`]. Whether a name or a revocation list refuses the upstream is looked at on
//! every handshake, resumed or not. Server names are those that rules write, so that what is kept does not grow with what
//! clients ask for.

use super::{
    failure::Cause,
    mesh::Carries,
    peer::{self, Verdict},
};
use crate::{telemetry::istio::Principals, tls::Material};
use boring::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use http::Uri;
use hyper_boring::{HttpsLayer, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use pingora_core::{
    protocols::l4::{
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket},
    },
    tls::x509::store::X509StoreBuilder,
};
use pingora_error::{Error, ErrorType, OrErr as _, Result};
use routing::cluster::UpstreamTls;
use std::{
    fmt,
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::{Layer as _, Service};

/// Stands for a server name where none is sent.
const NOBODY: &str = "none.invalid";

/// One handshake. Made for each attempt, most of which find a connection in the pool: so it only keeps what is there already.
pub(super) struct Handshake {
    material: Arc<Material>,
    /// Empty: none is sent.
    server_name: String,
    /// Whether the certificate must be for the server name.
    named: bool,
    /// As ALPN has them on the wire (RFC 7301 §3.1); empty: none are offered.
    protocols: &'static [u8],
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Handshake {
    /// With an endpoint of the mesh. Workloads are known by the names in `subject_alt_names`, not by that of the server.
    pub(super) fn of_mesh(material: Arc<Material>, server_name: String, carries: Carries) -> Self {
        Self { material, server_name, named: false, protocols: carries.alpn() }
    }

    /// With an upstream outside of it, over which something flows that is not HTTP. Where the rule writes no server name there
    /// is none to send and none to check (Istio: `auto_sni` is for HTTP).
    pub(super) fn of_tcp(material: Arc<Material>, tls: &UpstreamTls) -> Self {
        let server_name = tls.sni.as_deref().unwrap_or_default().to_owned();
        let named = tls.verify_host && !server_name.is_empty();
        Self { material, server_name, named, protocols: b"" }
    }

    /// With an upstream outside of the mesh that speaks HTTP/1 and whose server name is written.
    pub(super) fn of_http1(material: Arc<Material>, tls: &UpstreamTls) -> Self {
        Self { protocols: b"\x08http/1.1", ..Self::of_tcp(material, tls) }
    }

    /// Makes TLS, as `tls` asks for it, of a connection that was just made.
    ///
    /// # Errors
    /// As the engine has them for its own handshakes, and [`Cause::UntrustedUpstream`] for a certificate that is not one that was
    /// asked for.
    pub(super) async fn with(&self, tls: &UpstreamTls, stream: Stream) -> Result<Secured> {
        // Made once for each content of the files, and shared by connections.
        let made = || sessions(&self.material, tls).map_err(|e| e.to_string());
        let sessions = match self.material.sessions.get_or_init(made) {
            Ok(sessions) => sessions,
            Err(why) => return Err(Cause::UntrustedUpstream.explain(why.as_str())),
        };
        let sent = !self.server_name.is_empty();
        let host = if sent { &*self.server_name } else { NOBODY };
        let uri = Uri::builder().scheme("https").authority(host).path_and_query("/").build();
        let uri = uri.or_err(ErrorType::TLSHandshakeFailure, "the server name is none")?;
        let mut connector = sessions.layer(Given(Some(Carried(stream))));
        let (named, protocols) = (self.named && !tls.insecure_skip_verify, self.protocols);
        connector.set_callback(move |configuration, _| {
            configuration.set_verify_hostname(named);
            configuration.set_use_server_name_indication(sent);
            if protocols.is_empty() { Ok(()) } else { configuration.set_alpn_protos(protocols) }
        });
        let stream = match connector.call(uri).await {
            Ok(MaybeHttpsStream::Https(stream)) => stream,
            Ok(MaybeHttpsStream::Http(_)) => return Err(Cause::UntrustedUpstream.explain("no TLS")),
            Err(e) => return Err(refused(&*e)),
        };
        let mut principals = None;
        if !tls.insecure_skip_verify {
            let revocation = self.material.revocation.as_deref();
            let verdict = peer::judge(stream.ssl(), &tls.subject_alt_names, None, revocation);
            principals = verdict.principals();
            if let Verdict::Refuse(why) = verdict {
                return Err(Cause::UntrustedUpstream.explain(why));
            }
        }
        Ok(Secured { stream: TokioIo::new(MaybeHttpsStream::Https(stream)), principals })
    }
}

/// As the engine words its own.
fn refused(e: &(dyn std::error::Error + Send + Sync)) -> Box<Error> {
    let context = format!("TLS connect() failed: {e}");
    let kind = if context.contains("CERTIFICATE_VERIFY_FAILED") {
        ErrorType::InvalidCert
    } else {
        ErrorType::TLSHandshakeFailure
    };
    let mut e = Error::explain(kind, context);
    e.as_up();
    e
}

/// What handshakes with these certificates begin with, and what they leave for the next.
fn sessions(material: &Material, tls: &UpstreamTls) -> Result<HttpsLayer, boring::error::ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    builder.set_verify(if tls.insecure_skip_verify { SslVerifyMode::NONE } else { SslVerifyMode::PEER });
    // Without roots of its own it has the system's.
    if let Some(roots) = &material.roots {
        let mut store = X509StoreBuilder::new()?;
        for root in roots.iter() {
            store.add_cert(root.clone())?;
        }
        builder.set_verify_cert_store(store.build())?;
    }
    if let Some(own) = &material.client {
        builder.set_certificate(own.leaf())?;
        for intermediate in own.intermediates() {
            builder.add_extra_chain_cert(intermediate.clone())?;
        }
        builder.set_private_key(own.key())?;
    }
    HttpsLayer::with_connector(builder)
}

/// A connection with TLS that is ours.
#[derive(Debug)]
pub(super) struct Secured {
    stream: TokioIo<MaybeHttpsStream<Carried>>,
    principals: Option<Arc<Principals>>,
}

impl Secured {
    /// What is below the TLS.
    pub(super) fn bare(&self) -> &Stream {
        match self.stream.inner() {
            MaybeHttpsStream::Http(carried) => &carried.0,
            MaybeHttpsStream::Https(stream) => &stream.get_ref().0,
        }
    }

    /// The names in the certificates of both ends, where they were looked at and there are any.
    pub(super) fn principals(&self) -> Option<&Arc<Principals>> {
        self.principals.as_ref()
    }
}

/// The connection below the TLS.
#[derive(Debug)]
pub(super) struct Carried(Stream);

/// Gives a connection that is there already to whom asks for one.
struct Given(Option<Carried>);

impl Service<Uri> for Given {
    type Response = TokioIo<Carried>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Carried>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

impl Connection for Carried {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Passes reading and writing on to a field.
macro_rules! passes_on {
    ($outer:ty, $field:tt) => {
        impl AsyncRead for $outer {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_read(cx, buffer)
            }
        }

        impl AsyncWrite for $outer {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$field).poll_write(cx, data)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_shutdown(cx)
            }
        }
    };
}

passes_on!(Carried, 0);
passes_on!(Secured, stream);

impl VirtualSocket for Secured {
    /// They are set on the socket below before the handshake.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

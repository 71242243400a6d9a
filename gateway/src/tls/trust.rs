//! What an upstream's certificate is verified against, and what the upstream is shown of us.
//!
//! Invariant: what cannot be loaded trusts nothing and shows nothing; nothing falls back to a wider store or to less than
//! was asked for. Key material is never printed.

use super::{
    material::{self, CertifiedKey},
    revocation::Revocation,
};
use config_model::{
    kubernetes::{ConfigMap, Secret},
    meta::{Kind, ResourceKey},
    set::ResourceSet,
};
use foldhash::fast::FixedState;
use hyper_boring::HttpsLayer;
use pingora_core::{protocols::tls::CaType, tls::x509::X509, utils::tls::CertKey};
use routing::{
    cluster::{ClientIdentity, Roots, UpstreamTls},
    compile::WorkloadFiles,
    listener::CertificateSource,
};
use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
    time::SystemTime,
};

/// Where Secrets and ConfigMaps are looked up.
pub trait CredentialReader: Send + Sync {
    /// A Secret by namespace and name.
    fn secret(&self, namespace: &str, name: &str) -> Option<Secret>;
    /// A ConfigMap by namespace and name.
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap>;
}

impl CredentialReader for ResourceSet {
    fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
        self.secrets().get(&ResourceKey::new(Kind::Secret, namespace, name)).map(|found| found.spec.clone())
    }

    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
        let key = ResourceKey::new(Kind::ConfigMap, namespace, name);
        self.config_maps().get(&key).map(|found| found.spec.clone())
    }
}

/// Nobody's Secrets: for clusters whose certificates are files.
#[derive(Debug, Default)]
pub struct NoCredentials;

impl CredentialReader for NoCredentials {
    fn secret(&self, _namespace: &str, _name: &str) -> Option<Secret> {
        None
    }

    fn config_map(&self, _namespace: &str, _name: &str) -> Option<ConfigMap> {
        None
    }
}

/// What a TLS upstream is verified against and shown.
#[derive(Clone)]
pub enum Trust {
    /// As asked for.
    Usable(Arc<Material>),
    /// Something could not be loaded, for this reason: no connection is made.
    Unavailable(Arc<str>),
}

/// Certificates as loaded.
pub struct Material {
    /// The roots; `None`: the system's store.
    pub roots: Option<Arc<CaType>>,
    /// What the upstream is shown.
    pub client: Option<Arc<CertKey>>,
    /// What was revoked; `None`: nobody asks.
    pub revocation: Option<Arc<Revocation>>,
    /// Tells one content from another: connections made with one are not used with the other.
    pub digest: u64,
    /// What handshakes of our own begin with, made of these by the first, and the sessions that they leave; or why it cannot be
    /// made.
    pub sessions: OnceLock<Result<HttpsLayer, String>>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usable(material) => write!(f, "Usable({:016x})", material.digest),
            Self::Unavailable(why) => write!(f, "Unavailable({why})"),
        }
    }
}

/// Where certificates come from.
pub struct Sources<'s> {
    /// Secrets and ConfigMaps.
    pub credentials: &'s dyn CredentialReader,
    /// The workload's own files.
    pub workload: &'s WorkloadFiles,
}

impl Trust {
    /// Reads what a DestinationRule names. Blocks on files: never call it on the data plane.
    #[must_use]
    pub fn load(tls: &UpstreamTls, sources: &Sources<'_>) -> Self {
        match Material::load(tls, sources) {
            Ok(material) => Self::Usable(Arc::new(material)),
            Err(why) => Self::Unavailable(why.into()),
        }
    }

    /// Whether both hold the same.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Usable(a), Self::Usable(b)) => a.digest == b.digest,
            (Self::Unavailable(a), Self::Unavailable(b)) => a == b,
            _ => false,
        }
    }
}

impl Material {
    fn load(tls: &UpstreamTls, sources: &Sources<'_>) -> Result<Self, String> {
        let mut hasher = FixedState::with_seed(0).build_hasher();
        let roots = if tls.insecure_skip_verify { None } else { roots(&tls.roots, sources)? };
        let mut revoked = None;
        let roots = match roots {
            None => None,
            Some(Found { from, pem, crl }) => {
                pem.hash(&mut hasher);
                revoked = crl.map(|crl| (from.clone(), crl));
                let parsed = X509::stack_from_pem(&pem).map_err(|_| format!("{from}: no certificates"))?;
                if parsed.is_empty() {
                    return Err(format!("{from}: no certificate in it"));
                }
                Some(Arc::new(parsed.into_boxed_slice()))
            }
        };
        let client = match identity(&tls.identity, sources)? {
            None => None,
            Some(Pair { from, certificate, key }) => {
                let pair = CertifiedKey::parse(&certificate, &key).map_err(|why| format!("{from}: {why}"))?;
                pair.fingerprint.hash(&mut hasher);
                let chain = std::iter::once(pair.leaf).chain(pair.intermediates).collect();
                Some(Arc::new(CertKey::new(chain, pair.key)))
            }
        };
        if let Some(path) = tls.crl_file.as_ref().filter(|_| !tls.insecure_skip_verify) {
            revoked = Some((path.to_string(), material::file(path).map_err(|why| why.to_string())?));
        }
        let revocation = match revoked {
            None => None,
            Some((from, pem)) => {
                pem.hash(&mut hasher);
                let issuers = roots.as_deref().map(|roots| roots.to_vec()).unwrap_or_default();
                let lists = Revocation::parse(&pem, issuers).map_err(|why| format!("{from}: {why}"))?;
                Some(Arc::new(lists))
            }
        };
        Ok(Self { roots, client, revocation, digest: hasher.finish(), sessions: OnceLock::new() })
    }
}

/// PEM texts of roots, and of what they revoked where a Secret says so, and where they are from.
struct Found {
    from: String,
    pem: Vec<u8>,
    crl: Option<Vec<u8>>,
}

fn roots(roots: &Roots, sources: &Sources<'_>) -> Result<Option<Found>, String> {
    let path = match roots {
        Roots::System => return Ok(None),
        Roots::File(path) => path.to_string(),
        Roots::Workload => sources.workload.roots.to_string(),
        Roots::Secret { namespace, name } => {
            // Istio: credentials/kube/secrets.go: `-cacert` is looked at first, its keys in this order.
            let separate = sources.credentials.secret(namespace, &format!("{name}-cacert"));
            let value = |secret: &Secret, keys: [&str; 2]| {
                keys.into_iter().find_map(|key| secret.get(key).filter(|v| !v.is_empty()).map(<[u8]>::to_vec))
            };
            let both = |secret: &Secret| {
                Some((value(secret, ["cacert", "ca.crt"])?, value(secret, ["crl", "ca.crl"])))
            };
            let secret = separate.or_else(|| sources.credentials.secret(namespace, name));
            let found = secret.as_ref().and_then(both);
            let from = format!("Secret {namespace}/{name}");
            return match found {
                Some((pem, crl)) => Ok(Some(Found { from, pem, crl })),
                None => Err(format!("neither {from}-cacert nor {from} has a ca.crt")),
            };
        }
        Roots::ConfigMap { namespace, name } => {
            let from = format!("ConfigMap {namespace}/{name}");
            let map =
                sources.credentials.config_map(namespace, name).ok_or(format!("{from} does not exist"))?;
            let found = ["ca.crt", "cacert"].into_iter().find_map(|key| map.data.get(key));
            return match found {
                Some(pem) => Ok(Some(Found { from, pem: pem.clone().into_bytes(), crl: None })),
                None => Err(format!("{from} has no ca.crt")),
            };
        }
    };
    let pem = material::file(&path).map_err(|why| why.to_string())?;
    Ok(Some(Found { from: path, pem, crl: None }))
}

/// PEM texts, and where they are from.
struct Pair {
    from: String,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Chain and key.
fn identity(identity: &ClientIdentity, sources: &Sources<'_>) -> Result<Option<Pair>, String> {
    let (from, source) = match identity {
        ClientIdentity::None => return Ok(None),
        ClientIdentity::Files { certificate, key } => (
            certificate.to_string(),
            CertificateSource::Files { certificate: certificate.clone(), key: key.clone() },
        ),
        ClientIdentity::Secret { namespace, name } => (
            format!("Secret {namespace}/{name}"),
            CertificateSource::Secret { namespace: namespace.clone(), name: name.clone() },
        ),
        ClientIdentity::Workload => {
            let WorkloadFiles { certificate, key, .. } = sources.workload.clone();
            ("the workload certificate".to_owned(), CertificateSource::Files { certificate, key })
        }
    };
    let read = |namespace: &str, name: &str| sources.credentials.secret(namespace, name);
    let material::Texts { certificate, key, .. } =
        material::read(&source, read).map_err(|why| format!("{from}: {why}"))?;
    Ok(Some(Pair { from, certificate, key }))
}

/// When the files that a specification names were last written; a change means to load again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(SystemTime, u64)>>);

impl Stamp {
    /// Of the files as they are now. Blocks on the file system.
    #[must_use]
    pub fn of(tls: &UpstreamTls, workload: &WorkloadFiles) -> Self {
        let mut paths: Vec<&str> = Vec::new();
        match &tls.roots {
            Roots::File(path) => paths.push(path),
            Roots::Workload => paths.push(&workload.roots),
            Roots::System | Roots::Secret { .. } | Roots::ConfigMap { .. } => {}
        }
        match &tls.identity {
            ClientIdentity::Files { certificate, key } => paths.extend([&**certificate, &**key]),
            ClientIdentity::Workload => paths.extend([&*workload.certificate, &*workload.key]),
            ClientIdentity::None | ClientIdentity::Secret { .. } => {}
        }
        paths.extend(tls.crl_file.as_deref());
        let stamp = |path: &&str| {
            let about = std::fs::metadata(material::place(path)).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        Self(paths.iter().map(stamp).collect())
    }
}

//! What an upstream's certificate is verified against.
//!
//! Invariant: roots that cannot be loaded trust nothing; nothing falls back to a wider store.

use pingora_core::{protocols::tls::CaType, tls::x509::X509};
use routing::cluster::UpstreamTls;
use std::sync::Arc;

/// What a TLS upstream is verified against.
#[derive(Clone)]
pub enum Trust {
    /// The system's store.
    System,
    /// These roots only.
    Roots(Arc<CaType>),
    /// The roots could not be loaded, for this reason: nothing is trusted.
    Unavailable(Arc<str>),
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System => f.write_str("System"),
            Self::Roots(roots) => write!(f, "Roots({})", roots.len()),
            Self::Unavailable(why) => write!(f, "Unavailable({why})"),
        }
    }
}

impl Trust {
    /// Reads the roots that a DestinationRule names. Blocks on the file: never call it on the data plane.
    pub(crate) fn load(tls: &UpstreamTls) -> Self {
        let Some(path) = &tls.ca_file else { return Trust::System };
        if tls.insecure_skip_verify {
            return Trust::System;
        }
        let roots = std::fs::read(&**path)
            .map_err(|e| format!("{path}: {e}"))
            .and_then(|pem| X509::stack_from_pem(&pem).map_err(|e| format!("{path}: {e}")));
        match roots {
            Ok(roots) if roots.is_empty() => {
                Trust::Unavailable(format!("{path}: no certificate in it").into())
            }
            Ok(roots) => Trust::Roots(Arc::new(roots.into_boxed_slice())),
            Err(why) => Trust::Unavailable(why.into()),
        }
    }
}

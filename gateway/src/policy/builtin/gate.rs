//! AuthorizationPolicies for connections that are not looked into.
//!
//! Invariant: a connection is judged before anything is sent either way, where Envoy waits for the client's first byte: a server
//! that speaks first would have spoken by then.

use super::{
    SecurityMetrics, Subject, authorization,
    external::{Service, ask_of_connection},
};
use routing::authz::{Authorization, Facts, Verdict, provider::Provider};
use std::{fmt, sync::Arc};

/// The rules for connections, and who is asked about what they match.
pub struct Gate {
    rules: Arc<Authorization>,
    service: Option<Arc<dyn Service>>,
    metrics: Arc<SecurityMetrics>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("rules", &self.rules.tcp).finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new(
        rules: Arc<Authorization>,
        service: Option<Arc<dyn Service>>,
        metrics: Arc<SecurityMetrics>,
    ) -> Gate {
        Gate { rules, service, metrics }
    }

    /// Judges a connection.
    ///
    /// # Errors
    /// Why it is refused, for the log.
    pub async fn admit(&self, subject: &Subject<'_>) -> Result<(), String> {
        let connection = subject.connection();
        let facts = Facts { connection: &connection, request: None };
        let asked = self.rules.tcp.provider(&facts);
        let provider = asked.map_err(|rule| self.refused(authorization::details(Some(rule))))?;
        if let Some(provider) = provider {
            self.ask(provider, subject).await.map_err(|why| self.refused(why.to_owned()))?;
        }
        let outcome = self.rules.tcp.decide(&facts);
        if let Some(rule) = outcome.audited {
            self.metrics.audited(rule);
        }
        match outcome.verdict {
            Verdict::Allowed => {
                self.metrics.connection(true);
                Ok(())
            }
            Verdict::Denied(rule) => Err(self.refused(authorization::details(rule))),
        }
    }

    async fn ask(&self, provider: &Provider, subject: &Subject<'_>) -> Result<(), &'static str> {
        let answer = match &self.service {
            Some(service) => {
                let asked = ask_of_connection(&**service, provider, subject);
                tokio::time::timeout(provider.timeout, asked).await.ok().and_then(Result::ok)
            }
            None => None,
        };
        match answer {
            Some(true) => Ok(()),
            None if provider.fail_open => Ok(()),
            Some(false) => Err("ext_authz_denied"),
            None => Err("ext_authz_error"),
        }
    }

    fn refused(&self, why: String) -> String {
        self.metrics.connection(false);
        why
    }
}

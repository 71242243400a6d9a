//! The acceptors of a snapshot: one per server block, with its own versions, ciphers and session-ticket keys.
//!
//! Invariant: an acceptor is carried over to the next snapshot when nothing in it changed, so sessions go on to be resumed; two
//! server blocks never share one, so a session of one cannot be resumed at another.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use config_model::{
    kubernetes::{ConfigMap, Secret},
    meta::{Kind, ResourceKey},
    set::ResourceSet,
};
use pingora_core::tls::ssl::SslAcceptor;
use routing::listener::{CertificateSource, ClientAuth, ClientRoots, FilterChain, Listeners, ServerTls};

use super::{
    CertificateProblem, Effect, MaterialError,
    acceptor::Acceptors,
    client::ClientTrust,
    client_hello::Signs,
    material::{self, CertifiedKey},
};

/// Where Secrets are looked up; files are read by the store itself.
pub trait SecretReader {
    /// A Secret by namespace and name.
    fn secret(&self, namespace: &str, name: &str) -> Option<Secret>;
    /// A ConfigMap by namespace and name.
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap>;
}

impl SecretReader for ResourceSet {
    fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
        let key = ResourceKey::new(Kind::Secret, namespace, name);
        self.secrets().get(&key).map(|secret| secret.spec.clone())
    }

    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
        let key = ResourceKey::new(Kind::ConfigMap, namespace, name);
        self.config_maps().get(&key).map(|found| found.spec.clone())
    }
}

/// The acceptors of a snapshot.
#[derive(Default)]
pub struct Certificates {
    servers: HashMap<ServerKey, Arc<Acceptors>>,
    sources: HashMap<CertificateSource, Arc<CertifiedKey>>,
    /// What clients are checked against, by where it comes from.
    clients: HashMap<ClientAuth, Arc<ClientTrust>>,
}

/// What may be shown of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Where it comes from.
    pub source: CertificateSource,
    /// Subject alternative names that are DNS names or addresses.
    pub names: Vec<String>,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Begin of validity, as in `Jan  1 00:00:00 2026 GMT`.
    pub not_before: String,
    /// End of validity.
    pub not_after: String,
    /// Certificates in the chain, the leaf included.
    pub chain_length: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ServerKey {
    gateway: Arc<str>,
    server: Arc<str>,
    port: u16,
    tls: Arc<ServerTls>,
}

impl ServerKey {
    fn of(chain: &FilterChain, tls: &Arc<ServerTls>) -> ServerKey {
        ServerKey {
            gateway: chain.gateway.clone(),
            server: chain.server.clone(),
            port: chain.server_port,
            tls: tls.clone(),
        }
    }
}

impl Certificates {
    /// Builds the acceptors for `listeners`, reusing what `previous` has. Reads files, so not on a runtime that serves.
    #[must_use]
    pub fn build(
        listeners: &Listeners,
        secrets: &dyn SecretReader,
        previous: &Certificates,
    ) -> (Certificates, Vec<CertificateProblem>) {
        let mut building =
            Building { secrets, previous, built: Certificates::default(), problems: HashMap::new() };
        for chain in chains(listeners) {
            if let Some(tls) = &chain.tls {
                building.add(chain, tls);
            }
        }
        let mut problems: Vec<CertificateProblem> = building.problems.into_values().collect();
        problems.sort_by(|a, b| (&a.gateways, &a.reason).cmp(&(&b.gateways, &b.reason)));
        (building.built, problems)
    }

    /// The acceptor of a chain for a client; `None` when the server has no certificate.
    pub fn acceptor(&self, chain: &FilterChain, signs: Signs) -> Option<&SslAcceptor> {
        self.servers.get(&ServerKey::of(chain, chain.tls.as_ref()?))?.of(signs)
    }

    /// The files that servers of these listeners are made of, each once.
    #[must_use]
    pub fn files(listeners: &Listeners) -> BTreeSet<Arc<str>> {
        let mut files = BTreeSet::new();
        for tls in chains(listeners).into_iter().filter_map(|chain| chain.tls.as_ref()) {
            for source in &tls.certificates {
                if let CertificateSource::Files { certificate, key } = source {
                    files.extend([certificate.clone(), key.clone()]);
                }
            }
            if let Some(client) = &tls.client {
                if let ClientRoots::File(path) = &client.roots {
                    files.insert(path.clone());
                }
                files.extend(client.crl.clone());
            }
        }
        files
    }

    /// Every certificate that is loaded, in no order.
    pub fn summaries(&self) -> Vec<CertificateSummary> {
        self.sources.iter().map(|(source, key)| summary(source, key)).collect()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("servers", &self.servers.len())
            .field("sources", &self.sources.keys().collect::<Vec<_>>())
            .finish()
    }
}

struct Building<'a> {
    secrets: &'a dyn SecretReader,
    previous: &'a Certificates,
    built: Certificates,
    problems: HashMap<Option<CertificateSource>, CertificateProblem>,
}

impl Building<'_> {
    fn add(&mut self, chain: &FilterChain, tls: &Arc<ServerTls>) {
        let server = ServerKey::of(chain, tls);
        if self.built.servers.contains_key(&server) {
            return;
        }
        let keys: Vec<Arc<CertifiedKey>> =
            tls.certificates.iter().filter_map(|source| self.load(source, &chain.gateway)).collect();
        if keys.is_empty() {
            return;
        }
        let client = match &tls.client {
            None => None,
            Some(client) => match self.client(client, &chain.gateway) {
                Some(trust) => Some(trust),
                // Nobody's certificate could be checked: nobody is let in.
                None => return,
            },
        };
        let trusted = client.as_ref().map(|trust| trust.fingerprint);
        let fingerprints: Vec<[u8; 32]> = keys.iter().map(|key| key.fingerprint).chain(trusted).collect();
        let acceptors = match self.previous.servers.get(&server) {
            Some(acceptors) if acceptors.fingerprints == fingerprints => acceptors.clone(),
            earlier => match Acceptors::new(tls, &keys, client.as_ref(), fingerprints) {
                Ok(acceptors) => Arc::new(acceptors),
                Err(reason) => {
                    self.note(None, &chain.gateway, reason, false, instead(earlier.as_ref()));
                    let Some(earlier) = earlier else { return };
                    earlier.clone()
                }
            },
        };
        self.built.servers.insert(server, acceptors);
    }

    /// What clients are checked against. One that cannot be parsed leaves the last good one in force; one that is gone does not.
    fn client(&mut self, client: &ClientAuth, gateway: &Arc<str>) -> Option<Arc<ClientTrust>> {
        if let Some(known) = self.built.clients.get(client) {
            return Some(known.clone());
        }
        let trust = match ClientTrust::load(client, self.secrets) {
            Ok(trust) => Arc::new(trust),
            Err(error) => {
                let parsed = matches!(error, MaterialError::Certificate(_));
                let earlier = self.previous.clients.get(client).filter(|_| parsed).cloned();
                let reason = format!("client certificates cannot be checked: {error}");
                self.note(None, gateway, reason, false, instead(earlier.as_ref()));
                earlier?
            }
        };
        self.built.clients.insert(client.clone(), trust.clone());
        Some(trust)
    }

    fn load(&mut self, source: &CertificateSource, gateway: &Arc<str>) -> Option<Arc<CertifiedKey>> {
        if let Some(problem) = self.problems.get_mut(&Some(source.clone())) {
            problem.gateways.insert(gateway.clone());
        } else if !self.built.sources.contains_key(source) {
            let read = material::read(source, |namespace, name| self.secrets.secret(namespace, name));
            let parsed = read.and_then(|texts| {
                let mut key = CertifiedKey::parse(&texts.certificate, &texts.key)?;
                let flaw = texts.staple.and_then(|response| key.staple(&response));
                Ok((key, flaw))
            });
            match parsed {
                Ok((key, flaw)) => {
                    self.built.sources.insert(source.clone(), Arc::new(key));
                    if let Some(reason) = flaw {
                        self.note(Some(source.clone()), gateway, reason, false, Effect::Served);
                    }
                }
                Err(error) => {
                    let earlier = self.previous.sources.get(source);
                    let missing = error == MaterialError::SecretNotFound;
                    self.note(Some(source.clone()), gateway, error.to_string(), missing, instead(earlier));
                    if let Some(earlier) = earlier {
                        self.built.sources.insert(source.clone(), earlier.clone());
                    }
                }
            }
        }
        self.built.sources.get(source).cloned()
    }

    fn note(
        &mut self,
        source: Option<CertificateSource>,
        gateway: &Arc<str>,
        reason: String,
        missing: bool,
        effect: Effect,
    ) {
        let problem = CertificateProblem {
            source: source.clone(),
            gateways: BTreeSet::from([gateway.clone()]),
            reason,
            missing,
            effect,
        };
        self.problems.insert(source, problem);
    }
}

/// What is served instead of what is wrong.
fn instead<T>(earlier: Option<&T>) -> Effect {
    if earlier.is_some() { Effect::LastGoodServed } else { Effect::NotServed }
}

fn chains(listeners: &Listeners) -> Vec<&Arc<FilterChain>> {
    let mut found = Vec::new();
    for listener in listeners.values() {
        found.extend(listener.chains.each().map(|(_, chain)| chain));
    }
    found
}

fn summary(source: &CertificateSource, key: &CertifiedKey) -> CertificateSummary {
    let names = key.leaf.subject_alt_names();
    let names = names.iter().flatten().filter_map(|name| {
        let address = || match name.ipaddress()? {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            bytes => {
                <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string())
            }
        };
        name.dnsname().map(str::to_owned).or_else(address)
    });
    let serial =
        key.leaf.serial_number().to_bn().and_then(|number| number.to_hex_str().map(|hex| hex.to_string()));
    CertificateSummary {
        source: source.clone(),
        names: names.collect(),
        serial: serial.unwrap_or_default().to_lowercase(),
        not_before: key.leaf.not_before().to_string(),
        not_after: key.leaf.not_after().to_string(),
        chain_length: key.intermediates.len() + 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use config_model::{diagnostic::Code, istio::gateway::ServerTlsMode, scalar::SecretBytes};
    use pingora_core::tls::ssl::SslContextRef;
    use routing::{
        host::HostIndex,
        listener::{Bind, Chains, Listener, ListenerKey, TlsVersion},
        table::RouteTable,
    };

    use super::*;
    use crate::tls::test_keys::{Secrets, ecdsa};

    fn server(name: &str, secret: &str, ciphers: &[&str]) -> FilterChain {
        let tls = ServerTls {
            certificates: vec![CertificateSource::Secret { namespace: "ns".into(), name: secret.into() }],
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            cipher_suites: ciphers.iter().map(|name| (*name).to_owned()).collect(),
            groups: Vec::new(),
            client: None,
        };
        FilterChain {
            gateway: "default/gw".into(),
            server: name.into(),
            server_port: 443,
            mode: Some(ServerTlsMode::Simple),
            tls: Some(Arc::new(tls)),
            tcp: None,
            table: Arc::new(RouteTable::new("https.443", [])),
            policies: None,
        }
    }

    fn listeners(servers: &[FilterChain]) -> Listeners {
        let mut chains = HostIndex::new();
        for server in servers {
            chains.insert(&format!("{}.example", server.server), Arc::new(server.clone()));
        }
        let key = ListenerKey { bind: Bind::Any, port: 443 };
        BTreeMap::from([(key.clone(), Arc::new(Listener::of_gateway(key, Chains::Tls(chains))))])
    }

    fn context(certificates: &Certificates, server: &FilterChain) -> *const SslContextRef {
        std::ptr::from_ref(certificates.acceptor(server, Signs::Ecdsa).unwrap().context())
    }

    #[test]
    fn ticket_keys_are_a_servers_own_and_outlive_a_snapshot_until_its_certificate_changes() {
        let (a, b) = (server("a", "same", &[]), server("b", "same", &[]));
        let secrets = Secrets::default().with("same", ecdsa("same.example"));
        let both = listeners(&[a.clone(), b.clone()]);
        let (first, problems) = Certificates::build(&both, &secrets, &Certificates::default());
        assert_eq!(problems, []);
        // BoringSSL makes ticket keys and a session cache for each context.
        assert_ne!(context(&first, &a), context(&first, &b));

        let (second, _) = Certificates::build(&both, &secrets, &first);
        assert_eq!(context(&first, &a), context(&second, &a));

        let renewed = Secrets::default().with("same", ecdsa("same.example"));
        let (third, _) = Certificates::build(&both, &renewed, &second);
        assert_ne!(context(&second, &a), context(&third, &a));
    }

    #[test]
    fn a_bad_certificate_keeps_the_last_good_one_and_hurts_no_other_server() {
        let (a, b) = (server("a", "a", &[]), server("b", "b", &[]));
        let both = listeners(&[a.clone(), b.clone()]);
        let good = ecdsa("a.example");
        let mut mixed = good.clone();
        mixed.data.insert("tls.key".into(), ecdsa("x.example").data["tls.key"].clone());
        let mut broken = good.clone();
        broken
            .data
            .insert("tls.crt".into(), SecretBytes::new(b"-----BEGIN CERTIFICATE-----\nhunter2\n".to_vec()));
        let mut half = good.clone();
        half.data.remove("tls.key");

        let secrets = Secrets::default().with("a", good).with("b", ecdsa("b.example"));
        let (before, problems) = Certificates::build(&both, &secrets, &Certificates::default());
        assert_eq!(problems, []);
        assert_eq!(before.summaries().len(), 2);

        for (bad, says) in
            [(mixed, "does not belong"), (broken, "cannot be parsed"), (half, "no value for \"tls.key\"")]
        {
            let secrets = Secrets::default().with("a", bad).with("b", ecdsa("b.example"));
            let (fresh, problems) = Certificates::build(&both, &secrets, &Certificates::default());
            assert!(fresh.acceptor(&a, Signs::Ecdsa).is_none());
            assert!(fresh.acceptor(&b, Signs::Ecdsa).is_some());
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert!(problem.reason.contains(says), "{problem:?}");
            assert_eq!(problem.diagnostic().code, Code::INVALID_CREDENTIAL);
            assert!(!format!("{problem:?}").contains("hunter2"));

            let (after, problems) = Certificates::build(&both, &secrets, &before);
            assert_eq!(context(&after, &a), context(&before, &a));
            assert_eq!(problems[0].effect, Effect::LastGoodServed);
        }
    }

    #[test]
    fn a_missing_secret_is_said_once_for_all_its_gateways() {
        let (a, mut b) = (server("a", "none", &[]), server("b", "none", &[]));
        b.gateway = "default/other".into();
        let (certificates, problems) =
            Certificates::build(&listeners(&[a.clone(), b]), &Secrets::default(), &Certificates::default());
        assert!(certificates.acceptor(&a, Signs::Rsa).is_none());
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(problem.gateways.len(), 2);
        assert_eq!(problem.diagnostic().code, Code::REFERENCE_NOT_FOUND);
    }

    #[test]
    fn generic_secrets_come_before_tls_ones_and_are_not_mixed() {
        let mut secret = ecdsa("tls.example");
        let generic = ecdsa("generic.example");
        secret.data.insert("cert".into(), generic.data["tls.crt"].clone());
        let a = server("a", "a", &["ECDHE-ECDSA-AES128-GCM-SHA256", "NO-SUCH-CIPHER"]);
        let build = |secret: Secret| {
            let secrets = Secrets::default().with("a", secret);
            Certificates::build(&listeners(std::slice::from_ref(&a)), &secrets, &Certificates::default())
        };
        assert_eq!(build(secret.clone()).1.len(), 1, "cert without key");
        secret.data.insert("key".into(), generic.data["tls.key"].clone());
        let (certificates, problems) = build(secret);
        assert_eq!(problems, []);
        let [summary] = certificates.summaries().try_into().unwrap();
        assert_eq!(
            (summary.names, summary.serial, summary.chain_length),
            (vec!["generic.example".into()], "1234".into(), 1)
        );
    }
}

//! The keys of all issuers that rules name, kept fresh beside the data plane.
//!
//! Invariant: asking for keys never waits. Keys that were good stay in force until others have come, however long an issuer is out
//! of reach. Whoever holds [`Keys`] keeps them followed; when the last holder is gone, so is the task that follows them.

use super::{KeySet, fetch::Fetcher};
use arc_swap::ArcSwap;
use routing::authn::{Failure, KeySource};
use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::runtime::Handle;

/// Times between two fetches.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After one that succeeded (Istio: PILOT_JWT_PUB_KEY_REFRESH_INTERVAL).
    pub refresh: Duration,
    /// After the first that failed; doubled with each further one.
    pub retry: Duration,
    /// At most, after any number that failed.
    pub most: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(20 * 60),
            retry: Duration::from_secs(1),
            most: Duration::from_secs(60),
        }
    }
}

/// The keys of one issuer, as they are now.
pub struct Keys(ArcSwap<Result<KeySet, Failure>>);

impl Keys {
    fn new(now: Result<KeySet, Failure>) -> Arc<Keys> {
        Arc::new(Keys(ArcSwap::from_pointee(now)))
    }

    /// The keys; an error where there are none that can be used, or none have come yet.
    #[must_use]
    pub fn now(&self) -> Arc<Result<KeySet, Failure>> {
        self.0.load_full()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&*self.0.load()).finish()
    }
}

/// The keys of all issuers.
pub struct KeyStore {
    runtime: Handle,
    pace: Pace,
    fetcher: Arc<Result<Fetcher, String>>,
    known: Mutex<HashMap<KeySource, Weak<Keys>>>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl KeyStore {
    /// A store whose fetches run on this runtime, which is not the data plane's. The PEM file `authorities` is believed as the system's
    /// authorities are; where it is named and cannot be read, nothing is fetched.
    #[must_use]
    pub fn new(runtime: Handle, pace: Pace, authorities: Option<&Path>) -> KeyStore {
        KeyStore { runtime, pace, fetcher: Arc::new(Fetcher::new(authorities)), known: Mutex::default() }
    }

    /// The keys of a source; a first fetch begins where nobody holds them yet. Rules of one source share them, and the time that
    /// the first of them allows for a fetch.
    #[must_use]
    pub fn keys(&self, source: &KeySource, timeout: Duration) -> Arc<Keys> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = known.get(source).and_then(Weak::upgrade) {
            return keys;
        }
        known.retain(|_, keys| keys.strong_count() > 0);
        let keys = match source {
            KeySource::Inline(json) => Keys::new(KeySet::parse(json)),
            KeySource::Remote(_) | KeySource::Discovery(_) => {
                let keys = Keys::new(Err(Failure::Fetch));
                let (fetcher, source) = (Arc::clone(&self.fetcher), source.clone());
                self.runtime.spawn(follow(Arc::downgrade(&keys), fetcher, source, timeout, self.pace));
                keys
            }
        };
        known.insert(source.clone(), Arc::downgrade(&keys));
        keys
    }
}

/// Fetches again and again, for as long as somebody holds the keys.
async fn follow(
    keys: Weak<Keys>,
    fetcher: Arc<Result<Fetcher, String>>,
    source: KeySource,
    timeout: Duration,
    pace: Pace,
) {
    let mut retry = pace.retry;
    while keys.strong_count() > 0 {
        let fetched = match &*fetcher {
            Ok(fetcher) => fetch(fetcher, &source, timeout).await,
            Err(message) => Err(message.clone()),
        };
        let Some(keys) = keys.upgrade() else { return };
        let pause = match fetched {
            Ok(set) => {
                tracing::debug!(issuer = name(&source), keys = set.len(), "keys fetched");
                keys.0.store(Arc::new(Ok(set)));
                retry = pace.retry;
                pace.refresh
            }
            Err(error) => {
                let stale = keys.0.load().is_ok();
                tracing::warn!(issuer = name(&source), error, stale, "keys of an issuer cannot be fetched");
                let pause = retry;
                retry = (retry * 2).min(pace.most);
                pause
            }
        };
        drop(keys);
        tokio::time::sleep(pause).await;
    }
}

async fn fetch(fetcher: &Fetcher, source: &KeySource, timeout: Duration) -> Result<KeySet, String> {
    let address = match source {
        KeySource::Inline(_) => return Err("these keys are not fetched".to_owned()),
        KeySource::Remote(address) => address.to_string(),
        KeySource::Discovery(issuer) => {
            let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
            let document =
                fetcher.get(&format!("{issuer}/.well-known/openid-configuration"), timeout).await?;
            let document: serde_json::Value = serde_json::from_slice(&document)
                .map_err(|_| "the issuer's OpenID configuration is no JSON")?;
            let address = document.get("jwks_uri").and_then(serde_json::Value::as_str);
            address.ok_or("the issuer's OpenID configuration has no jwks_uri")?.to_owned()
        }
    };
    let document = fetcher.get(&address, timeout).await?;
    let text = String::from_utf8(document).map_err(|_| "what came is no text")?;
    KeySet::parse(&text).map_err(|failure| failure.message().to_owned())
}

fn name(source: &KeySource) -> &str {
    match source {
        KeySource::Inline(_) => "",
        KeySource::Remote(address) => address,
        KeySource::Discovery(issuer) => issuer,
    }
}

#[cfg(test)]
mod tests;

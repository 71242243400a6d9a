//! What policies say of a request or a connection.

use super::{Exchange, Expect};
use routing::{
    authz::{Connection, Dry, Facts, Peer, Policies, Verdict},
    listener::Listener,
    request::RequestHead,
};

/// Notes what policies say; `false`: it is refused.
pub(super) fn authorize(
    got: &mut Expect,
    policies: &Policies,
    exchange: &Exchange,
    listener: &Listener,
    head: Option<&RequestHead<'_>>,
) -> bool {
    let peer = exchange.peer.as_ref();
    let connection = Connection {
        peer: peer.map(|peer| Peer { uris: &peer.uris, dns: &peer.dns, subject: &peer.subject }),
        source: exchange.source,
        remote: exchange.remote.or(exchange.source),
        destination: exchange.local.or(exchange.comes_to.map(|to| to.ip())),
        port: exchange.comes_to.map_or(listener.key.port, |to| to.port()),
        sni: exchange.sni.as_deref(),
    };
    let facts = Facts { connection: &connection, request: head };
    match policies.provider(&facts) {
        Err(rule) => {
            got.denied = Some(rule.to_string());
            return false;
        }
        Ok(provider) => got.asks = provider.map(|provider| provider.name.to_string()),
    }
    let outcome = policies.decide(&facts);
    got.audited = outcome.audited.map(ToString::to_string);
    let dry = |action: &str, dry: Dry<'_>| {
        let verdict = if dry.verdict == Verdict::Allowed { "allows" } else { "denies" };
        let rule = dry.rule.map_or("none", |rule| rule.as_str());
        format!("{action} {verdict}: {rule}")
    };
    let on_trial = [outcome.dry_deny.map(|d| dry("DENY", d)), outcome.dry_allow.map(|d| dry("ALLOW", d))];
    let on_trial: Vec<_> = on_trial.into_iter().flatten().collect();
    got.dry_run = (!on_trial.is_empty()).then_some(on_trial);
    match outcome.verdict {
        Verdict::Allowed => true,
        Verdict::Denied(rule) => {
            got.denied = Some(rule.map_or("none", |rule| rule.as_str()).to_owned());
            false
        }
    }
}

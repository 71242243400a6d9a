//! One rule: its sources and conditions as tests (Istio: pilot/pkg/security/authz/model).
//!
//! Invariant: a value that means nothing here makes an ALLOW rule be left out, and is itself left out of a rule of any other
//! action; a list of which nothing is left asks for nothing.

use super::{Layer, TrustDomains};
use crate::{
    authz::{Alternatives, Predicate, Template, Test, TextMatch},
    claims::ClaimPath,
    header::HeaderKey,
    matcher::quoted,
};
use config_model::istio::authorization_policy::{Action, Condition, Operation, Rule, Source};
use ipnet::IpNet;
use std::net::IpAddr;

/// What a rule is compiled for.
pub(super) struct Scope<'a> {
    pub(super) namespace: &'a str,
    pub(super) action: Action,
    pub(super) layer: Layer,
    pub(super) domains: &'a TrustDomains,
}

/// Why there is no test.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// `None`: only requests have such an attribute.
    pub(super) message: Option<String>,
}

impl Problem {
    fn said(message: impl Into<String>) -> Self {
        Self { message: Some(message.into()) }
    }
}

/// The operations and the sources of a rule, each with the conditions that belong to them.
pub(super) fn compile(rule: &Rule, scope: &Scope<'_>) -> Result<(Alternatives, Alternatives), Problem> {
    let (mut of_operation, mut of_source) = (Vec::new(), Vec::new());
    for condition in &rule.when {
        let tests = if is_of_operation(&condition.key) { &mut of_operation } else { &mut of_source };
        tests.extend(when(condition, scope)?);
    }
    let operations = rule.to.iter().map(|to| to.operation.as_ref());
    let sources = rule.from.iter().map(|from| from.source.as_ref());
    Ok((
        alternatives(operations, &of_operation, |o| operation(o, scope))?,
        alternatives(sources, &of_source, |s| source(s, scope))?,
    ))
}

/// One list of tests for each alternative, the conditions behind it; without any, the conditions alone.
fn alternatives<'r, T: 'r>(
    written: impl Iterator<Item = Option<&'r T>>,
    conditions: &[Test],
    tests: impl Fn(&T) -> Result<Vec<Test>, Problem>,
) -> Result<Alternatives, Problem> {
    let mut all = Vec::new();
    for alternative in written {
        let mut own = alternative.map_or(Ok(Vec::new()), &tests)?;
        own.extend_from_slice(conditions);
        all.push(own.into());
    }
    if all.is_empty() {
        all.push(conditions.into());
    }
    Ok(all.into())
}

/// Whether a condition is about what is asked for, and not about who asks.
fn is_of_operation(key: &str) -> bool {
    matches!(key, "destination.ip" | "destination.port" | "connection.sni")
        || key.starts_with("experimental.")
}

fn operation(operation: &Operation, scope: &Scope<'_>) -> Result<Vec<Test>, Problem> {
    let mut tests = Tests { scope, made: Vec::new() };
    let host = |value: &str| Ok(Predicate::Host(TextMatch::header(value)));
    let method = |value: &str| Ok(Predicate::Method(TextMatch::header(value)));
    tests.add("hosts", &operation.hosts, &operation.not_hosts, host)?;
    tests.add("methods", &operation.methods, &operation.not_methods, method)?;
    tests.add("paths", &operation.paths, &operation.not_paths, path)?;
    tests.add("ports", &operation.ports, &operation.not_ports, port)?;
    Ok(tests.made)
}

fn source(source: &Source, scope: &Scope<'_>) -> Result<Vec<Test>, Problem> {
    let mut tests = Tests { scope, made: Vec::new() };
    let domains = scope.domains;
    let (yes, no) = (domains.principals(&source.principals), domains.principals(&source.not_principals));
    tests.add("principals", &yes, &no, principal)?;
    let (yes, no) = (&source.request_principals, &source.not_request_principals);
    tests.add("requestPrincipals", yes, no, request_principal)?;
    let (yes, no) = (&source.service_accounts, &source.not_service_accounts);
    tests.add("serviceAccounts", yes, no, |value| service_account(value, scope.namespace))?;
    let (yes, no) = (domains.domains(&source.trust_domains), domains.domains(&source.not_trust_domains));
    tests.add("trustDomains", &yes, &no, trust_domain)?;
    tests.add("namespaces", &source.namespaces, &source.not_namespaces, namespace)?;
    let (yes, no) = (&source.remote_ip_blocks, &source.not_remote_ip_blocks);
    tests.add("remoteIpBlocks", yes, no, |value| network(value).map(Predicate::Remote))?;
    let (yes, no) = (&source.ip_blocks, &source.not_ip_blocks);
    tests.add("ipBlocks", yes, no, |value| network(value).map(Predicate::Source))?;
    Ok(tests.made)
}

fn when(condition: &Condition, scope: &Scope<'_>) -> Result<Vec<Test>, Problem> {
    let mut tests = Tests { scope, made: Vec::new() };
    let (key, yes, no) = (condition.key.as_str(), &condition.values, &condition.not_values);
    let domains = scope.domains;
    match key {
        "destination.ip" => tests.add(key, yes, no, |value| network(value).map(Predicate::Destination))?,
        "destination.port" => tests.add(key, yes, no, port)?,
        "connection.sni" => {
            tests.add(key, yes, no, |value| Ok(Predicate::Sni(TextMatch::value(value, ""))))?
        }
        "source.ip" => tests.add(key, yes, no, |value| network(value).map(Predicate::Source))?,
        "remote.ip" => tests.add(key, yes, no, |value| network(value).map(Predicate::Remote))?,
        "source.namespace" => tests.add(key, yes, no, namespace)?,
        "source.trustDomain" => tests.add(key, &domains.domains(yes), &domains.domains(no), trust_domain)?,
        "source.serviceAccount" => {
            tests.add(key, yes, no, |value| service_account(value, scope.namespace))?
        }
        "source.principal" => tests.add(key, &domains.principals(yes), &domains.principals(no), principal)?,
        "request.auth.principal" => tests.add(key, yes, no, request_principal)?,
        "request.auth.audiences" => {
            tests.add(key, yes, no, |value| Ok(claim(ClaimPath::of(["aud"]), value)))?
        }
        "request.auth.presenter" => {
            tests.add(key, yes, no, |value| Ok(claim(ClaimPath::of(["azp"]), value)))?
        }
        _ => {
            if key.starts_with("experimental.envoy.filters.") {
                tests.add(key, yes, no, |_| Ok(Predicate::Metadata))?;
            } else if let Some(name) = key.strip_prefix("request.headers") {
                tests.add(key, yes, no, |value| header(name, value))?;
            } else if let Some(names) = key.strip_prefix("request.auth.claims") {
                tests.add(key, yes, no, |value| Ok(claim(claim_path(names)?, value)))?;
            } else {
                return Err(Problem::said(format!("unknown attribute {key}")));
            }
        }
    }
    Ok(tests.made)
}

/// The tests of one source, operation or condition, as they are made.
struct Tests<'a> {
    scope: &'a Scope<'a>,
    made: Vec<Test>,
}

impl Tests<'_> {
    fn add(
        &mut self,
        attribute: &str,
        values: &[String],
        not_values: &[String],
        predicate: impl Fn(&str) -> Result<Predicate, Problem>,
    ) -> Result<(), Problem> {
        for (list, negated) in [(values, false), (not_values, true)] {
            let mut any = Vec::with_capacity(list.len());
            for value in list {
                let made = predicate(value).and_then(|predicate| match self.scope.layer {
                    Layer::Connections if predicate.is_of_requests() => Err(Problem { message: None }),
                    Layer::Connections | Layer::Requests => Ok(predicate),
                });
                match made {
                    Ok(predicate) => any.push(predicate),
                    Err(problem) if self.scope.action == Action::Allow => return Err(problem),
                    Err(_) => {}
                }
            }
            if !any.is_empty() {
                self.made.push(Test { attribute: attribute.into(), any: any.into(), negated });
            }
        }
        Ok(())
    }
}

fn network(value: &str) -> Result<IpNet, Problem> {
    let single = value.parse::<IpAddr>().map(IpNet::from).ok();
    single.or_else(|| value.parse().ok()).ok_or_else(|| Problem::said(format!("{value:?} is no network")))
}

fn port(value: &str) -> Result<Predicate, Problem> {
    value.parse().map(Predicate::Port).map_err(|_| Problem::said(format!("{value:?} is no port")))
}

fn path(value: &str) -> Result<Predicate, Problem> {
    if Template::is(value) {
        Template::new(value).map(Predicate::Template).map_err(|error| Problem::said(error.to_string()))
    } else {
        Ok(Predicate::Path(TextMatch::value(value, "")))
    }
}

fn header(name: &str, value: &str) -> Result<Predicate, Problem> {
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let key = inner.and_then(HeaderKey::parse);
    let key = key.ok_or_else(|| Problem::said(format!("{name} is no header's name in brackets")))?;
    Ok(Predicate::Header(key, TextMatch::header(value)))
}

fn claim(path: ClaimPath, value: &str) -> Predicate {
    Predicate::Claim(path, TextMatch::value(value, ""))
}

/// `[a][b]`; what is not nested brackets all along is one name with whatever is in it.
fn claim_path(names: &str) -> Result<ClaimPath, Problem> {
    let inner = names.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let inner = inner.ok_or_else(|| Problem::said(format!("{names} is no claim's name in brackets")))?;
    let nested: Vec<&str> = inner.split("][").collect();
    let clean = nested.iter().all(|name| !name.contains(['[', ']']));
    Ok(if clean { ClaimPath::of(nested) } else { ClaimPath::of([inner]) })
}

fn principal(value: &str) -> Result<Predicate, Problem> {
    Ok(Predicate::Peer(TextMatch::value(value, "spiffe://")))
}

/// `ISSUER/SUBJECT`: the last slash parts them, for issuers are often URLs.
fn request_principal(value: &str) -> Result<Predicate, Problem> {
    let exact = |text: &str| TextMatch::Exact(text.into());
    let (issuer, subject) = match (value, value.rsplit_once('/')) {
        ("*", _) => (TextMatch::Filled, TextMatch::Filled),
        (_, Some((issuer, subject))) if value.starts_with('*') => {
            let issuer = if issuer == "*" {
                TextMatch::Filled
            } else {
                TextMatch::suffix(issuer.strip_prefix('*').unwrap_or(issuer))
            };
            (issuer, exact(subject))
        }
        (_, Some((issuer, "*"))) => (exact(issuer), TextMatch::Filled),
        (_, Some((issuer, subject))) => match subject.strip_suffix('*') {
            Some(begin) => (exact(issuer), TextMatch::prefix(begin)),
            None => (exact(issuer), exact(subject)),
        },
        (_, None) => match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(end), _) => (TextMatch::Filled, TextMatch::suffix(end)),
            (None, Some(begin)) => (TextMatch::prefix(begin), TextMatch::Filled),
            (None, None) => (exact(value), exact("")),
        },
    };
    Ok(Predicate::Principal(issuer, subject))
}

fn namespace(value: &str) -> Result<Predicate, Problem> {
    let parts: Vec<_> = value.split('*').map(quoted).collect();
    by_regex(&format!(".*/ns/{}/.*", parts.join(".*")))
}

fn service_account(value: &str, own: &str) -> Result<Predicate, Problem> {
    let (namespace, name) = value.split_once('/').unwrap_or((own, value));
    by_regex(&format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", quoted(namespace), quoted(name)))
}

fn trust_domain(value: &str) -> Result<Predicate, Problem> {
    match value.split_once('*') {
        Some(("", "")) => Ok(Predicate::Peer(TextMatch::prefix("spiffe://"))),
        None => Ok(Predicate::Peer(TextMatch::prefix(format!("spiffe://{value}/")))),
        Some((begin, end)) => by_regex(&format!("spiffe://{}[^/]*{}/.*", quoted(begin), quoted(end))),
    }
}

fn by_regex(pattern: &str) -> Result<Predicate, Problem> {
    TextMatch::regex(pattern).map(Predicate::Peer).map_err(|error| Problem::said(error.to_string()))
}

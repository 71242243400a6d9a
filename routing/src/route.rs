//! A compiled route: what it matches, where it stands, what it does.
//!
//! Invariant: order is the vector's order in its virtual host; nothing in a route decides precedence.

mod operation;
#[cfg(test)]
mod tests;

pub use operation::Operation;

use crate::action::{
    cors::Cors,
    fault::Fault,
    headers::{HeaderOps, HeaderPlan},
    mirror::Mirror,
    redirect::Redirect,
    reply::DirectReply,
    retry::RetryPolicy,
    rewrite::PathRewrite,
};
use crate::{
    annotated::Annotated, claims::ClaimPath, cluster::ClusterName, header::HeaderKey, matcher::StringMatcher,
    path::PathMatch, query, request::RequestHead,
};
use config_model::meta::{Kind, Metadata};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// One entry of a virtual host's list.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it stands in the configuration.
    pub origin: RouteOrigin,
    /// What it takes.
    pub matcher: RouteMatch,
    /// What it does.
    pub action: Action,
    /// The rule's own response operations, for the replies that have no destination: redirect, direct reply, and
    /// errors before one was chosen. A destination's plan already contains them.
    pub response_headers: Arc<HeaderOps>,
    /// What was counted of it.
    pub taken: Arc<Taken>,
    /// Its name in traces.
    pub operation: Operation,
}

/// Buckets of durations that a rule's requests are counted in.
const BUCKETS: usize = 32;

/// What was counted of the requests that a rule took, for as long as it stands as it is: each of them is one addition for its status
/// and one for its duration.
#[derive(Debug, Default)]
pub struct Taken(OnceLock<Box<Counts>>);

/// There is one from the first request on: of many rules few are asked for.
#[derive(Debug, Default)]
struct Counts {
    /// By the first digit of the status; 0 where none was sent.
    classes: [AtomicU64; 6],
    durations: [AtomicU64; BUCKETS],
}

impl Taken {
    /// Counts one request; `bucket` is that of its duration, whatever the caller's bounds are.
    pub fn count(&self, status: u16, bucket: usize) {
        let counts = self.0.get_or_init(Box::default);
        let class = usize::from(status / 100).min(counts.classes.len() - 1);
        for count in
            [counts.classes.get(class), counts.durations.get(bucket.min(BUCKETS - 1))].into_iter().flatten()
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests by the first digit of their status.
    #[must_use]
    pub fn classes(&self) -> [u64; 6] {
        self.0
            .get()
            .map_or([0; 6], |counts| counts.classes.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Requests in each of the first `buckets` and those before it.
    #[must_use]
    pub fn durations(&self, buckets: usize) -> Vec<u64> {
        let Some(counts) = self.0.get() else { return vec![0; buckets.min(BUCKETS)] };
        let counts = counts.durations.iter().map(|count| count.load(Ordering::Relaxed));
        let below = counts.scan(0, |below, count| {
            *below += count;
            Some(*below)
        });
        below.take(buckets).collect()
    }
}

impl Route {
    /// How it forwards, where it does.
    #[must_use]
    pub fn forward(&self) -> Option<&Forward> {
        match &self.action {
            Action::Forward(forward) => Some(forward),
            Action::Redirect(_) | Action::Reply(_) => None,
        }
    }
}

/// The conditions of one entry: all must hold.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// On the path.
    pub path: PathMatch,
    /// On everything else.
    pub conditions: Box<[Condition]>,
}

impl RouteMatch {
    /// Compares a request with path and conditions.
    pub fn evaluate(&self, head: &RequestHead<'_>) -> Outcome<'_> {
        if self.path.is_match(head.path) {
            self.evaluate_conditions(head)
        } else {
            Outcome::Fails(Failure::Path(&self.path))
        }
    }

    /// Compares a request with the conditions only: for a request whose path is known to match.
    pub fn evaluate_conditions(&self, head: &RequestHead<'_>) -> Outcome<'_> {
        match self.conditions.iter().find(|condition| !condition.holds(head)) {
            None => Outcome::Matches,
            Some(condition) => Outcome::Fails(Failure::Condition(condition)),
        }
    }

    /// Whether Istio counts it as one that takes everything. Method, scheme and authority are header conditions
    /// there, so that they too rule it out (Istio: route.go `isCatchAllRoute`).
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        self.conditions.is_empty() && self.path.is_catch_all()
    }
}

/// One condition on anything but the path.
#[derive(Clone, Debug)]
pub enum Condition {
    /// On the method.
    Method(StringMatcher),
    /// On the scheme.
    Scheme(StringMatcher),
    /// On `Host` as sent, port included.
    Authority(StringMatcher),
    /// An entry of `headers`.
    Header {
        /// Which header.
        name: HeaderKey,
        /// What it must be.
        matcher: StringMatcher,
    },
    /// An entry of `withoutHeaders`.
    NotHeader {
        /// Which header.
        name: HeaderKey,
        /// What it must not be.
        matcher: StringMatcher,
    },
    /// An entry of `queryParams`.
    Query {
        /// Which parameter, undecoded.
        key: Box<str>,
        /// What its first value must be.
        matcher: StringMatcher,
    },
    /// An entry of `headers` about a claim of a verified token.
    Claim {
        /// Which claim.
        path: ClaimPath,
        /// What it must be.
        matcher: StringMatcher,
    },
    /// An entry of `withoutHeaders` about such a claim: holds too where no token was verified.
    NotClaim {
        /// Which claim.
        path: ClaimPath,
        /// What it must not be.
        matcher: StringMatcher,
    },
    /// Cannot hold, such as a condition on what is no header.
    Never {
        /// Why not, for people.
        reason: Box<str>,
    },
}

impl Condition {
    fn holds(&self, head: &RequestHead<'_>) -> bool {
        match self {
            Self::Method(matcher) => matcher.is_match(head.method.as_bytes()),
            Self::Scheme(matcher) => matcher.is_match(head.scheme.as_str().as_bytes()),
            Self::Authority(matcher) => matcher.is_match(head.authority.as_bytes()),
            Self::Header { name, matcher } => name.is_match(head, matcher),
            Self::NotHeader { name, matcher } => name.is_without(head, matcher),
            Self::Query { key, matcher } => {
                query::first_value(head.query, key).is_some_and(|value| matcher.is_match(value.as_bytes()))
            }
            Self::Claim { path, matcher } => has_claim(head, path, matcher),
            Self::NotClaim { path, matcher } => !has_claim(head, path, matcher),
            Self::Never { .. } => false,
        }
    }
}

fn has_claim(head: &RequestHead<'_>, path: &ClaimPath, matcher: &StringMatcher) -> bool {
    head.claims.and_then(|claims| claims.get(path)).is_some_and(|claim| claim.is_match(matcher))
}

/// What comparing a request with an entry gave.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum Outcome<'r> {
    /// Everything holds.
    Matches,
    /// The first thing that does not.
    Fails(Failure<'r>),
}

/// The part of an entry that a request failed.
#[derive(Clone, Copy, Debug)]
pub enum Failure<'r> {
    /// The path.
    Path(&'r PathMatch),
    /// Another condition.
    Condition(&'r Condition),
}

impl Failure<'_> {
    /// What was wanted and what there was instead, in one line.
    #[must_use]
    pub fn reason(&self, head: &RequestHead<'_>) -> String {
        match self {
            Self::Path(path) => format!("path: wants {path}, got {:?}", head.path),
            Self::Condition(condition) => match condition {
                Condition::Method(m) => wants("method", &"", m, Some(head.method)),
                Condition::Scheme(m) => wants("scheme", &"", m, Some(head.scheme.as_str())),
                Condition::Authority(m) => wants("authority", &"", m, Some(head.authority)),
                Condition::Header { name, matcher } => {
                    wants("header", name, matcher, name.value(head).as_deref())
                }
                Condition::NotHeader { name, matcher: StringMatcher::Present } => {
                    format!("header {name}: wants absent, got {}", quoted(name.value(head).as_deref()))
                }
                Condition::NotHeader { name, matcher } => {
                    format!("header {name}: wants not {matcher}, got {}", quoted(name.value(head).as_deref()))
                }
                Condition::Query { key, matcher } => {
                    wants("query", key, matcher, query::first_value(head.query, key))
                }
                // Values of tokens are not shown.
                Condition::Claim { path, matcher } => match head.claims {
                    None => format!("claim {path}: wants {matcher}, and no token is verified"),
                    Some(_) => format!("claim {path}: wants {matcher}"),
                },
                Condition::NotClaim { path, matcher } => format!("claim {path}: wants not {matcher}"),
                Condition::Never { reason } => reason.to_string(),
            },
        }
    }
}

fn wants(what: &str, name: &dyn fmt::Display, matcher: &StringMatcher, got: Option<&str>) -> String {
    let subject = format!("{what} {name}");
    format!("{}: wants {matcher}, got {}", subject.trim_end(), quoted(got))
}

fn quoted(got: Option<&str>) -> String {
    got.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

/// Which rule of which resource a route came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOrigin {
    /// `namespace/name` of the VirtualService.
    pub virtual_service: Arc<str>,
    /// Name of the rule (and of the match, joined by `.`), where given.
    pub name: Option<Arc<str>>,
    /// Index in `spec.http`.
    pub index: u32,
    /// Index in that rule's `match`; 0 where the rule has none.
    pub match_index: u32,
    /// Where the rule comes from that a delegate lent.
    pub delegate: Option<Box<DelegateOrigin>>,
    /// What else the VirtualService says of itself.
    pub metadata: Arc<RouteMetadata>,
}

/// What a VirtualService says of itself to whoever looks at its routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMetadata {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, without the copy of itself that `kubectl apply` keeps in one.
    pub annotations: BTreeMap<String, String>,
    /// The policies that these ask for; `None`: none.
    pub policies: Option<Arc<Annotated>>,
}

impl RouteMetadata {
    /// Of a VirtualService.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let annotations = metadata.annotations.iter().filter(|(name, _)| *name != LAST_APPLIED);
        let annotations = annotations.map(|(name, value)| (name.clone(), value.clone())).collect();
        let policies = Annotated::of(Kind::VirtualService, metadata);
        Self { labels: metadata.labels.clone(), annotations, policies }
    }
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Which rule of which delegate a route was merged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegateOrigin {
    /// `namespace/name` of the delegate.
    pub virtual_service: Arc<str>,
    /// Index in its `spec.http`.
    pub index: u32,
    /// Index in that rule's `match`; 0 where the rule has none.
    pub match_index: u32,
}

impl fmt::Display for RouteOrigin {
    /// As in `default/shop http[2].match[1] "name"`, and ` by default/team http[0]` for a delegate's; a match is left out
    /// where it is the first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} http[{}]", self.virtual_service, self.index)?;
        if self.match_index > 0 {
            write!(f, ".match[{}]", self.match_index)?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name:?}")?;
        }
        let Some(delegate) = &self.delegate else { return Ok(()) };
        write!(f, " by {} http[{}]", delegate.virtual_service, delegate.index)?;
        if delegate.match_index > 0 { write!(f, ".match[{}]", delegate.match_index) } else { Ok(()) }
    }
}

/// What a rule does with a request it matched.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send it to a destination.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with a fixed reply.
    Reply(DirectReply),
}

/// One destination of a forwarding rule.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Cluster to send to; one that does not exist is answered 503 NC when it is chosen.
    pub cluster: ClusterName,
    /// Share, relative to the sum of all; entries of weight 0 are not compiled.
    pub weight: u32,
    /// Header operations and authority of this destination (and the rule's, in Istio's order).
    pub headers: Arc<HeaderPlan>,
}

/// How a rule forwards.
#[derive(Clone, Debug)]
pub struct Forward {
    /// At least one, unless all weights were 0: then 503 NC.
    pub destinations: Box<[Destination]>,
    /// Sum of the weights.
    pub total_weight: u32,
    /// Path rewrite.
    pub rewrite: Option<Box<PathRewrite>>,
    /// Authority sent upstream instead of the client's (`rewrite.authority`; beats the header operations').
    pub authority: Option<Arc<str>>,
    /// Limit from the end of the request to the end of the response; `None`: no limit (Istio's default).
    pub timeout: Option<Duration>,
    /// When another attempt is made; `None`: never. Rules that say nothing share Istio's default.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Fault, CORS and mirrors, where the rule has any of them.
    pub filters: Option<Box<RouteFilters>>,
}

/// What few rules have, behind one pointer so that the others pay one comparison for all of it.
#[derive(Clone, Debug, Default)]
pub struct RouteFilters {
    /// Injected first.
    pub fault: Option<Fault>,
    /// Judged next, on what no fault answered.
    pub cors: Option<Cors>,
    /// Who gets copies of what is sent upstream.
    pub mirrors: Box<[Mirror]>,
}

impl Forward {
    /// The destination for a value that is uniform over all of `u64`; `None` when there is none.
    #[must_use]
    pub fn pick(&self, entropy: u64) -> Option<&Destination> {
        if let [only] = &*self.destinations {
            return Some(only);
        }
        // Multiply-shift maps the whole range evenly on 0..total without a division.
        let mut ticket = ((u128::from(entropy) * u128::from(self.total_weight)) >> 64) as u64;
        self.destinations.iter().find(|d| {
            let w = u64::from(d.weight);
            let hit = ticket < w;
            ticket = ticket.saturating_sub(w);
            hit
        })
    }
}

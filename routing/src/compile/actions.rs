//! What a rule says about retries, faults, cross-origin requests and mirrors.
//!
//! Invariant: a part that Istio drops is dropped here too, alone; a rule that says nothing has no filters and shares one
//! retry policy with every other such rule.

use crate::{
    action::{
        cors::{Cors, Credentials, Listed, UnmatchedPreflight},
        fault::{Abort, AbortStatus, Delay, Fault},
        mirror::Mirror,
        retry::{Localities, PreviousHosts, RetryPolicy},
        share::Share,
    },
    matcher::StringMatcher,
    route::RouteFilters,
};
use config_model::{
    istio::virtual_service::{
        CorsPolicy, Destination, FaultAbort, FaultDelay, HttpFaultInjection, HttpRetry, HttpRoute,
        UnmatchedPreflights,
    },
    mesh::MeshConfig,
};
use foldhash::fast::FixedState;
use http::HeaderValue;
use std::{hash::BuildHasher, sync::Arc};

/// Compiles a rule's actions, with what the mesh says where rules say nothing.
pub(super) struct Actions {
    default_retry: Option<Arc<RetryPolicy>>,
    mesh_key: u64,
}

/// Where copies are to go.
pub(super) struct MirrorTarget<'a> {
    /// As written.
    pub(super) destination: &'a Destination,
    /// Of how many requests; `None`: of none.
    pub(super) share: Option<Share>,
}

impl<'a> MirrorTarget<'a> {
    /// Those of a rule, in order. Admission refuses both fields at once; a rule that delegates may inherit the one beside
    /// the other, and then both count (Istio: route.go `applyHTTPRouteDestination`).
    pub(super) fn all(rule: &'a HttpRoute) -> impl Iterator<Item = Self> {
        let one = rule.mirror.as_ref().map(|destination| {
            let share = match (rule.mirror_percentage, rule.mirror_percent) {
                (Some(percent), _) => Share::of(percent),
                (None, Some(percent)) => Share::of_percent(percent),
                (None, None) => Some(Share::ALL),
            };
            Self { destination, share }
        });
        let many = rule.mirrors.iter().map(|mirror| Self {
            destination: &mirror.destination,
            share: mirror.percentage.map_or(Some(Share::ALL), Share::of),
        });
        one.into_iter().chain(many)
    }
}

impl Actions {
    pub(super) fn new(mesh: &MeshConfig) -> Self {
        let default_retry = match &mesh.default_http_retry_policy {
            Some(retry) => compile_retry(retry),
            None => Some(RetryPolicy::istio_default()),
        };
        Self {
            mesh_key: FixedState::default().hash_one(format!("{default_retry:?}")),
            default_retry: default_retry.map(Arc::new),
        }
    }

    /// Stands for all that rules take from the mesh: equal keys, equal results.
    pub(super) fn mesh_key(&self) -> u64 {
        self.mesh_key
    }

    /// The policy of a rule; `None`: retries are off.
    pub(super) fn retry(&self, rule: &HttpRoute) -> Option<Arc<RetryPolicy>> {
        match &rule.retries {
            Some(retry) => compile_retry(retry).map(Arc::new),
            None => self.default_retry.clone(),
        }
    }

    /// Fault, CORS and mirrors of a rule, and what of them cannot be: field and reason.
    pub(super) fn filters(
        &self,
        rule: &HttpRoute,
        mirrors: Box<[Mirror]>,
    ) -> (Option<Box<RouteFilters>>, Vec<(String, String)>) {
        let mut problems = Vec::new();
        let fault = rule.fault.as_deref().and_then(compile_fault);
        let cors = rule.cors_policy.as_ref().map(|cors| compile_cors(cors, &mut problems));
        let any = fault.is_some() || cors.is_some() || !mirrors.is_empty();
        (any.then(|| Box::new(RouteFilters { fault, cors, mirrors })), problems)
    }
}

/// Istio: retry.go `ConvertPolicy`.
fn compile_retry(retry: &HttpRetry) -> Option<RetryPolicy> {
    let retries = u32::try_from(retry.attempts).ok().filter(|retries| *retries > 0)?;
    let (on, statuses) = RetryPolicy::parse_on(&retry.retry_on);
    Some(RetryPolicy {
        retries,
        on,
        statuses,
        per_try_timeout: retry.per_try_timeout.filter(|time| !time.is_zero()).map(|time| time.as_std()),
        base: retry.backoff.filter(|base| !base.is_zero()).map_or(RetryPolicy::BASE, |base| base.as_std()),
        previous_hosts: match retry.retry_ignore_previous_hosts {
            Some(true) => PreviousHosts::Avoid,
            Some(false) => PreviousHosts::Allow,
            None => PreviousHosts::AvoidUnlessHashed,
        },
        localities: match retry.retry_remote_localities {
            Some(true) => Localities::Remote,
            Some(false) | None => Localities::Same,
        },
    })
}

/// Istio: route.go `TranslateFault`: a part without a share never happens.
fn compile_fault(fault: &HttpFaultInjection) -> Option<Fault> {
    let delay = fault.delay.as_ref().and_then(compile_delay);
    let abort = fault.abort.as_ref().and_then(compile_abort);
    (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
}

fn compile_delay(delay: &FaultDelay) -> Option<Delay> {
    let share = match delay.percentage {
        Some(percent) => Share::of(percent),
        None => u32::try_from(delay.percent).ok().and_then(Share::of_percent),
    };
    let time = delay.fixed_delay.filter(|time| !time.is_zero())?.as_std();
    Some(Delay { share: share?, time })
}

fn compile_abort(abort: &FaultAbort) -> Option<Abort> {
    let status = match (abort.http_status, &abort.grpc_status) {
        (Some(status), _) => {
            AbortStatus::Http(u16::try_from(status).ok().filter(|s| (200..600).contains(s))?)
        }
        (None, Some(name)) => AbortStatus::grpc(name)?,
        (None, None) => return None,
    };
    Some(Abort { share: Share::of(abort.percentage?)?, status })
}

/// Istio: route.go `TranslateCORSPolicy`: `allowOrigins` replaces the deprecated list.
fn compile_cors(cors: &CorsPolicy, problems: &mut Vec<(String, String)>) -> Cors {
    let mut origins = Vec::with_capacity(cors.allow_origins.len());
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        match StringMatcher::compile(origin) {
            Ok(matcher) => origins.push(matcher),
            Err(e) => {
                let field = format!("corsPolicy.allowOrigins[{index}]");
                problems.push((field, format!("{e}: the origin is not allowed")));
            }
        }
    }
    if cors.allow_origins.is_empty() {
        origins.extend(cors.allow_origin.iter().map(|text| StringMatcher::Exact(text.as_str().into())));
    }
    let mut value = |field: &str, text: String| match HeaderValue::from_str(&text) {
        _ if text.is_empty() => None,
        Ok(value) => Some(value),
        Err(_) => {
            problems.push((format!("corsPolicy.{field}"), "not a header's value".to_owned()));
            None
        }
    };
    let methods = value("allowMethods", cors.allow_methods.join(","));
    let headers = value("allowHeaders", cors.allow_headers.join(","));
    let listed = |value: Option<HeaderValue>| match value {
        None => Listed::Unsaid,
        Some(star) if star == "*" => Listed::Asked,
        Some(list) => Listed::These(list),
    };
    Cors {
        origins: origins.into(),
        methods: listed(methods),
        headers: listed(headers),
        expose: value("exposeHeaders", cors.expose_headers.join(",")),
        max_age: cors.max_age.and_then(|age| value("maxAge", age.as_std().as_secs().to_string())),
        credentials: match cors.allow_credentials {
            Some(true) => Credentials::Allow,
            Some(false) | None => Credentials::Unsaid,
        },
        unmatched: match cors.unmatched_preflights {
            UnmatchedPreflights::Unspecified | UnmatchedPreflights::Forward => UnmatchedPreflight::Forward,
            UnmatchedPreflights::Ignore => UnmatchedPreflight::Answer,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::retry::Conditions;
    use std::time::Duration;

    fn rule(json: &str) -> HttpRoute {
        config_model::parse::value(json).unwrap()
    }

    fn actions(mesh: &str) -> Actions {
        Actions::new(&config_model::parse::value(mesh).unwrap())
    }

    #[test]
    fn a_rule_without_retries_shares_the_meshs_policy() {
        let actions = actions("{}");
        let (one, two) = (actions.retry(&rule("{}")).unwrap(), actions.retry(&rule("{}")).unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(*one, RetryPolicy::istio_default());
        let off = self::actions(r#"{"defaultHttpRetryPolicy": {"attempts": 0}}"#);
        assert_eq!(off.retry(&rule("{}")), None);
        assert_ne!(off.mesh_key(), actions.mesh_key());
        assert_eq!(actions.retry(&rule(r#"{"retries": {"attempts": 0}}"#)), None);
    }

    #[test]
    fn every_field_of_a_retry_counts() {
        let policy = actions("{}").retry(&rule(
            r#"{"retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx,418", "backoff": "1s",
                "retryRemoteLocalities": true, "retryIgnorePreviousHosts": false}}"#,
        ));
        let want = RetryPolicy {
            retries: 3,
            on: Conditions::FIVE_XX.and(Conditions::STATUS_CODES),
            statuses: [418].into(),
            per_try_timeout: Some(Duration::from_secs(2)),
            base: Duration::from_secs(1),
            previous_hosts: PreviousHosts::Allow,
            localities: Localities::Remote,
        };
        assert_eq!(policy.as_deref(), Some(&want));
    }

    #[test]
    fn a_fault_without_a_share_never_happens() {
        let fault = |json: &str| {
            actions("{}")
                .filters(&rule(&format!("{{\"fault\": {json}}}")), [].into())
                .0
                .and_then(|filters| filters.fault)
        };
        assert_eq!(fault(r#"{"delay": {"fixedDelay": "5s"}, "abort": {"httpStatus": 500}}"#), None);
        assert_eq!(fault(r#"{"abort": {"http2Error": "x", "percentage": {"value": 100}}}"#), None);
        assert_eq!(fault(r#"{"abort": {"grpcStatus": "NOPE", "percentage": {"value": 100}}}"#), None);
        let both = fault(
            r#"{"delay": {"fixedDelay": "5s", "percent": 50},
                "abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 0.0001}}}"#,
        )
        .unwrap();
        assert_eq!(both.delay.unwrap().share, Share::of_percent(50).unwrap());
        assert_eq!(both.abort.unwrap().status, AbortStatus::Grpc(14));
        assert_eq!(both.abort.unwrap().share.millionths(), 1);
    }

    #[test]
    fn shares_of_mirrors_have_an_order() {
        let shares = |json: &str| {
            let rule = rule(json);
            MirrorTarget::all(&rule).map(|to| to.share.map(Share::percent)).collect::<Vec<_>>()
        };
        assert_eq!(shares(r#"{"mirror": {"host": "a"}}"#), [Some(100.0)]);
        assert_eq!(shares(r#"{"mirror": {"host": "a"}, "mirrorPercent": 0}"#), [None]);
        assert_eq!(
            shares(r#"{"mirror": {"host": "a"}, "mirrorPercent": 0, "mirrorPercentage": {"value": 12.5}}"#),
            [Some(12.5)]
        );
        assert_eq!(
            shares(
                r#"{"mirrors": [{"destination": {"host": "a"}, "percentage": {"value": 0}},
                                {"destination": {"host": "b"}}]}"#
            ),
            [None, Some(100.0)]
        );
    }

    #[test]
    fn a_cors_policy_says_what_is_written() {
        let cors = |json: &str| {
            let (filters, problems) =
                actions("{}").filters(&rule(&format!("{{\"corsPolicy\": {json}}}")), [].into());
            (filters.unwrap().cors.unwrap(), problems)
        };
        let (cors_old, _) = cors(r#"{"allowOrigin": ["*"], "maxAge": "1.9s"}"#);
        assert!(cors_old.origins[0].is_match(b"*"));
        assert_eq!(cors_old.max_age.unwrap(), "1");
        assert_eq!(cors_old.methods, Listed::Unsaid);
        let (cors_new, problems) = cors(
            r#"{"allowOrigin": ["http://old"], "allowOrigins": [{"exact": "http://a"}, {"regex": "("}],
                "allowMethods": ["*"], "allowHeaders": ["a", "b"], "unmatchedPreflights": "IGNORE"}"#,
        );
        assert_eq!(cors_new.origins.len(), 1);
        assert_eq!(cors_new.methods, Listed::Asked);
        assert_eq!(cors_new.headers, Listed::These(HeaderValue::from_static("a,b")));
        assert_eq!(cors_new.unmatched, UnmatchedPreflight::Answer);
        assert_eq!(problems[0].0, "corsPolicy.allowOrigins[1]");
    }
}

//! From a rule to what it does with a request.
//!
//! Invariant: what all entries of a rule share is made once; only what depends on the matched path is made for each.

use super::{Notes, OneRule, Subject};
use crate::{
    action::{
        headers::{Direction, HeaderOps, HeaderPlan, ProblemKind, combine_single, combine_weighted},
        mirror::Mirror,
        redirect::{Redirect, ServerFacts},
        reply::DirectReply,
        retry::RetryPolicy,
        rewrite::PathRewrite,
    },
    cluster::ClusterName,
    compile::actions::MirrorTarget,
    path::PathMatch,
    route::{Action, Destination, Forward, RouteFilters},
};
use config_model::{
    diagnostic::Code,
    istio::virtual_service::{Headers, HttpRoute},
};
use std::{fmt, sync::Arc};

impl OneRule<'_> {
    /// Istio: route.go `applyHTTPRouteDestination`: the weight of a single destination is ignored; of several, those of
    /// weight 0 are left out.
    fn destinations(
        &self,
        subject: &Subject<'_>,
        headers: &Arc<HeaderPlan>,
        notes: &mut Notes<'_>,
    ) -> Vec<Destination> {
        let Subject { namespace, rule, path } = subject;
        let single = rule.route.len() == 1;
        let mut destinations = Vec::with_capacity(rule.route.len());
        for (index, to) in rule.route.iter().enumerate() {
            let weight = if single { 1 } else { to.weight.get() };
            let own =
                self::headers(to.headers.as_deref(), format_args!("{path}.route[{index}].headers"), notes);
            if weight == 0 {
                continue;
            }
            let port = to.destination.port_number().map(|port| port.get());
            let (host, port) = self.registry.resolve(&to.destination.host, port, namespace, self.site.port);
            destinations.push(Destination {
                cluster: ClusterName::outbound(port, &to.destination.subset, &host),
                weight,
                headers: match &own {
                    None => Arc::clone(headers),
                    Some(own) if single => Arc::new(combine_single(headers, own)),
                    Some(own) => Arc::new(combine_weighted(headers, own)),
                },
            });
        }
        destinations
    }

    /// What a rule says about forwarding, whichever of its matches took the request.
    pub(super) fn shared(
        &self,
        subject: &Subject<'_>,
        headers: &Arc<HeaderPlan>,
        notes: &mut Notes<'_>,
    ) -> Shared {
        let Subject { namespace, rule, path } = subject;
        if rule.route.is_empty() {
            return Shared::default();
        }
        let mirrors = MirrorTarget::all(rule).filter_map(|to| {
            let port = to.destination.port_number().map(|port| port.get());
            let (host, port) = self.registry.resolve(&to.destination.host, port, namespace, self.site.port);
            let cluster = ClusterName::outbound(port, &to.destination.subset, &host);
            Some(Mirror { cluster, share: to.share? })
        });
        let (filters, problems) = self.actions.filters(rule, mirrors.collect());
        for (field, message) in problems {
            notes.push(Code::RULE_DROPPED, format!("{path}.{field}"), message);
        }
        let destinations = self.destinations(subject, headers, notes);
        Shared { destinations, retry: self.actions.retry(rule), filters }
    }

    /// Redirect beats a fixed reply, which beats shared.
    pub(super) fn action(
        &self,
        rule: &HttpRoute,
        matched: &PathMatch,
        shared: &Shared,
    ) -> Result<Action, (&'static str, String)> {
        if let Some(redirect) = &rule.redirect {
            let facts = ServerFacts { port: self.site.port, scheme: self.site.scheme };
            let redirect = Redirect::compile(redirect, matched, facts);
            return redirect.map(Action::Redirect).map_err(|e| (".redirect", e.to_string()));
        }
        if let Some(reply) = &rule.direct_response {
            let status = u16::try_from(reply.status).ok().filter(|status| (200..600).contains(status));
            let Some(status) = status else {
                return Err((".directResponse.status", format!("status {} is not 200 to 599", reply.status)));
            };
            let body = match &reply.body {
                None => Vec::new(),
                Some(body) => body
                    .decode()
                    .ok_or_else(|| (".directResponse.body", "the bytes are not base64".to_owned()))?,
            };
            return Ok(Action::Reply(DirectReply { status, body: body.into() }));
        }
        if rule.route.is_empty() {
            return Err(("", "neither route, redirect nor directResponse is given".to_owned()));
        }
        let rewrite = rule.rewrite.as_ref();
        let path = match rewrite {
            None => None,
            Some(rewrite) => PathRewrite::compile(rewrite, matched)
                .map_err(|e| (".rewrite.uriRegexRewrite", e.to_string()))?,
        };
        let authority = rewrite.map(|rewrite| rewrite.authority.as_str()).filter(|text| !text.is_empty());
        Ok(Action::Forward(Forward {
            total_weight: shared.destinations.iter().fold(0, |sum, d| sum.saturating_add(d.weight)),
            destinations: shared.destinations.as_slice().into(),
            rewrite: path.map(Box::new),
            authority: authority.map(Arc::from),
            timeout: rule.timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| timeout.as_std()),
            retry: shared.retry.clone(),
            filters: shared.filters.clone(),
        }))
    }
}

/// What all entries of a forwarding rule share.
#[derive(Default)]
pub(super) struct Shared {
    destinations: Vec<Destination>,
    retry: Option<Arc<RetryPolicy>>,
    filters: Option<Box<RouteFilters>>,
}

/// Compiles a `headers` block that stands at `path`; what cannot be done is left out and said. `None`: there is none.
pub(super) fn headers(
    model: Option<&Headers>,
    path: fmt::Arguments<'_>,
    notes: &mut Notes<'_>,
) -> Option<HeaderPlan> {
    let model = model?;
    let mut block = |operations, name: &str, direction| {
        let Some(operations) = operations else { return Default::default() };
        let compiled = HeaderOps::compile(operations, direction);
        for problem in &compiled.problems {
            let code = match problem.kind {
                ProblemKind::Formatter => Code::NOT_YET_HONOURED,
                ProblemKind::NotEditable => Code::NO_EFFECT,
                ProblemKind::InvalidValue => Code::RULE_DROPPED,
            };
            notes.push(code, format!("{path}.{name}"), problem.to_string());
        }
        compiled
    };
    let request = block(model.request.as_ref(), "request", Direction::Request);
    let response = block(model.response.as_ref(), "response", Direction::Response);
    let authority = request.authority;
    Some(HeaderPlan { request: request.ops, response: response.ops, authority, passing: None })
}

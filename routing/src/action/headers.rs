//! Header operations: remove, then set, then add.
//!
//! Invariant: pseudo-headers and `host` are never edited as headers; naming them in a request block makes an authority
//! rewrite (Istio: route.go `TranslateHeadersOperations`). A value that is empty is skipped, as Envoy does.

use config_model::{
    istio::virtual_service::{HeaderOperations, Headers},
    scalar::HeaderName as ModelName,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{fmt, sync::Arc};

/// What a header container must be able to do for operations to be applied to it.
pub trait HeaderEdit {
    /// Removes every line of a name.
    fn remove(&mut self, name: &HeaderName);
    /// Replaces every line of a name by one.
    fn set(&mut self, name: &HeaderName, value: &HeaderValue);
    /// Appends a line.
    fn add(&mut self, name: &HeaderName, value: &HeaderValue);
}

impl HeaderEdit for HeaderMap {
    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }

    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.insert(name, value.clone());
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }
}

/// The operations of one direction, as one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// Removed first.
    pub remove: Box<[HeaderName]>,
    /// Then set, in this order; the last one of a name wins.
    pub set: Box<[(HeaderName, HeaderValue)]>,
    /// Then added, in this order.
    pub add: Box<[(HeaderName, HeaderValue)]>,
}

impl HeaderOps {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Does what the block says.
    pub fn apply(&self, headers: &mut impl HeaderEdit) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.set(name, value);
        }
        for (name, value) in &self.add {
            headers.add(name, value);
        }
    }

    /// Compiles one block. What cannot be done is left out and reported; the rest is kept.
    pub fn compile(model: &HeaderOperations, direction: Direction) -> CompiledOps {
        let mut compiled = CompiledOps::default();
        let mut remove = Vec::new();
        for name in &model.remove {
            match editable(name) {
                Some(name) => remove.push(name),
                None => compiled.report(name, ProblemKind::NotEditable),
            }
        }
        let mut authorities = [None, None];
        let mut blocks = [Vec::new(), Vec::new()];
        for ((pairs, block), authority) in
            [&model.set, &model.add].into_iter().zip(&mut blocks).zip(&mut authorities)
        {
            for (name, text) in pairs {
                let value = match literal(text) {
                    Ok(value) => value,
                    Err(kind) => {
                        compiled.report(name, kind);
                        continue;
                    }
                };
                match editable(name) {
                    Some(name) if !value.is_empty() => match HeaderValue::from_bytes(value.as_bytes()) {
                        Ok(value) => block.push((name, value)),
                        Err(_) => compiled.problems.push(HeaderProblem {
                            name: name.as_str().into(),
                            kind: ProblemKind::InvalidValue,
                        }),
                    },
                    Some(_) => {}
                    None if direction == Direction::Request && is_authority(name) => {
                        if !value.is_empty() && authority.is_none() {
                            *authority = Some(Arc::from(value));
                        }
                    }
                    None => compiled.report(name, ProblemKind::NotEditable),
                }
            }
        }
        let [set, add] = blocks;
        let [from_set, from_add] = authorities;
        compiled.authority = from_set.or(from_add);
        compiled.ops = Self { remove: remove.into(), set: set.into(), add: add.into() };
        compiled
    }
}

/// Which way the headers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the upstream.
    Request,
    /// To the client.
    Response,
}

/// What compiling one block gave.
#[derive(Clone, Debug, Default)]
pub struct CompiledOps {
    /// The operations that can be done.
    pub ops: HeaderOps,
    /// Authority to send upstream, where the block sets or adds `host` or `:authority`; set beats add.
    pub authority: Option<Arc<str>>,
    /// The operations that cannot.
    pub problems: Vec<HeaderProblem>,
}

impl CompiledOps {
    fn report(&mut self, name: &ModelName, kind: ProblemKind) {
        self.problems.push(HeaderProblem { name: name.as_str().into(), kind });
    }
}

/// An operation that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderProblem {
    /// Header that it names.
    pub name: Box<str>,
    /// Why it was left out.
    pub kind: ProblemKind,
}

/// Why a header operation was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// Pseudo-headers and `host` cannot be edited here.
    NotEditable,
    /// The value has a formatter command such as `%REQ(X)%`, which is not yet computed.
    Formatter,
    /// The value has bytes that no header may have (RFC 9110 §5.5).
    InvalidValue,
}

impl fmt::Display for HeaderProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            ProblemKind::NotEditable => write!(f, "header `{name}` cannot be changed here"),
            ProblemKind::Formatter => {
                write!(f, "header `{name}`: formatter commands in values are not honoured yet")
            }
            ProblemKind::InvalidValue => {
                write!(f, "header `{name}`: the value has bytes that a header cannot carry")
            }
        }
    }
}

/// Everything that header operations do to one exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderPlan {
    /// On the request, before it is sent upstream.
    pub request: HeaderOps,
    /// On the response, and on local replies for the rule.
    pub response: HeaderOps,
    /// Authority to send upstream; `rewrite.authority` beats it.
    pub authority: Option<Arc<str>>,
}

impl HeaderPlan {
    /// Compiles a `headers` field of a rule or a destination; what cannot be done is left out and reported.
    #[must_use]
    pub fn compile(model: Option<&Headers>) -> (Self, Vec<HeaderProblem>) {
        let block = |operations: Option<&HeaderOperations>, direction| {
            operations
                .map_or_else(CompiledOps::default, |operations| HeaderOps::compile(operations, direction))
        };
        let request = block(model.and_then(|headers| headers.request.as_ref()), Direction::Request);
        let response = block(model.and_then(|headers| headers.response.as_ref()), Direction::Response);
        let problems = request.problems.into_iter().chain(response.problems).collect();
        (Self { request: request.ops, response: response.ops, authority: request.authority }, problems)
    }
}

/// The plan of a rule with one destination: both blocks run as one, so that the destination's sets win; the rule's
/// authority wins (Istio: route.go `applyHTTPRouteDestination`).
#[must_use]
pub fn combine_single(rule: &HeaderPlan, destination: &HeaderPlan) -> HeaderPlan {
    let join = |a: &HeaderOps, b: &HeaderOps| HeaderOps {
        remove: a.remove.iter().chain(&b.remove).cloned().collect(),
        set: a.set.iter().chain(&b.set).cloned().collect(),
        add: a.add.iter().chain(&b.add).cloned().collect(),
    };
    HeaderPlan {
        request: join(&rule.request, &destination.request),
        response: join(&rule.response, &destination.response),
        authority: rule.authority.clone().or_else(|| destination.authority.clone()),
    }
}

/// The plan of one of several destinations: the destination's block runs first, then the rule's, so that the rule
/// wins (Istio: route.go `processWeightedDestination`).
#[must_use]
pub fn combine_weighted(rule: &HeaderPlan, destination: &HeaderPlan) -> HeaderPlan {
    HeaderPlan {
        request: one_after_the_other(&destination.request, &rule.request),
        response: one_after_the_other(&destination.response, &rule.response),
        authority: rule.authority.clone().or_else(|| destination.authority.clone()),
    }
}

/// One block with the effect of two: what the second removes or sets undoes what the first did to that name.
fn one_after_the_other(first: &HeaderOps, second: &HeaderOps) -> HeaderOps {
    let survives = |(name, _): &&(HeaderName, HeaderValue)| {
        !second.remove.contains(name) && !second.set.iter().any(|(other, _)| other == name)
    };
    HeaderOps {
        remove: first.remove.iter().chain(&second.remove).cloned().collect(),
        set: first.set.iter().filter(survives).chain(&second.set).cloned().collect(),
        add: first.add.iter().filter(survives).chain(&second.add).cloned().collect(),
    }
}

fn is_authority(name: &ModelName) -> bool {
    matches!(name.as_str(), ":authority" | "host")
}

fn editable(name: &ModelName) -> Option<HeaderName> {
    if name.as_str() == "host" { None } else { name.to_http() }
}

/// A value without formatter commands; `%%` is a literal percent sign.
fn literal(text: &str) -> Result<String, ProblemKind> {
    let mut parts = text.split("%%");
    let mut value = String::with_capacity(text.len());
    value.push_str(parts.next().unwrap_or_default());
    for part in parts {
        value.push('%');
        value.push_str(part);
    }
    // Splitting took every pair; a sign that is left over begins a command.
    if text.split("%%").any(|part| part.contains('%')) { Err(ProblemKind::Formatter) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderOperations {
        let pairs =
            |list: &[(&str, &str)]| list.iter().map(|(k, v)| (k.parse().unwrap(), (*v).to_owned())).collect();
        HeaderOperations {
            set: pairs(set),
            add: pairs(add),
            remove: remove.iter().map(|k| k.parse().unwrap()).collect(),
        }
    }

    fn ops(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderOps {
        let compiled = HeaderOps::compile(&model(set, add, remove), Direction::Request);
        assert_eq!(compiled.problems, []);
        compiled.ops
    }

    fn plan(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderPlan {
        HeaderPlan { request: ops(set, add, remove), ..HeaderPlan::default() }
    }

    fn after(ops: &HeaderOps, before: &[(&'static str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (k, v) in before {
            headers.append(*k, v.parse().unwrap());
        }
        ops.apply(&mut headers);
        let mut all: Vec<_> =
            headers.iter().map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn remove_then_set_then_add() {
        let ops = ops(&[("a", "set")], &[("a", "add"), ("b", "add")], &["a", "c"]);
        let got = after(&ops, &[("a", "old"), ("b", "old"), ("c", "old")]);
        assert_eq!(got, pairs(&[("a", "set"), ("a", "add"), ("b", "old"), ("b", "add")]));
    }

    #[test]
    fn an_empty_value_is_skipped() {
        let got = after(&ops(&[("a", "")], &[("a", "")], &[]), &[("a", "old")]);
        assert_eq!(got, pairs(&[("a", "old")]));
    }

    #[test]
    fn percent_signs() {
        assert_eq!(after(&ops(&[("a", "100%%")], &[], &[]), &[]), pairs(&[("a", "100%")]));
        for value in ["%REQ(X)%", "5%", "%%%", "a%%b%c"] {
            let compiled = HeaderOps::compile(&model(&[("a", value)], &[], &[]), Direction::Request);
            assert!(compiled.ops.is_empty(), "{value}");
            assert_eq!(compiled.problems[0].kind, ProblemKind::Formatter, "{value}");
        }
    }

    #[test]
    fn the_authority_is_not_a_header() {
        let both = model(&[("host", "s.com")], &[(":authority", "a.com")], &[]);
        let request = HeaderOps::compile(&both, Direction::Request);
        assert_eq!(request.authority.as_deref(), Some("s.com"));
        assert!(request.ops.is_empty() && request.problems.is_empty());
        let added = HeaderOps::compile(&model(&[], &[(":authority", "a.com")], &[]), Direction::Request);
        assert_eq!(added.authority.as_deref(), Some("a.com"));
        let response = HeaderOps::compile(&both, Direction::Response);
        assert_eq!(response.authority, None);
        assert_eq!(response.problems.len(), 2);
        let removed = HeaderOps::compile(&model(&[], &[], &["Host", ":path"]), Direction::Request);
        assert!(removed.ops.is_empty());
        assert_eq!(removed.problems.len(), 2);
    }

    #[test]
    fn both_directions_make_one_plan() {
        let headers = Headers {
            request: Some(model(&[("host", "b.com"), ("a", "1")], &[], &[])),
            response: Some(model(&[], &[("b", "%REQ(x)%")], &["c"])),
        };
        let (plan, problems) = HeaderPlan::compile(Some(&headers));
        assert_eq!(plan.authority.as_deref(), Some("b.com"));
        assert_eq!((plan.request.set.len(), plan.response.remove.len(), plan.response.add.len()), (1, 1, 0));
        assert_eq!(problems.len(), 1);
        assert_eq!(HeaderPlan::compile(None), (HeaderPlan::default(), vec![]));
    }

    #[test]
    fn a_value_that_no_header_can_carry() {
        let compiled = HeaderOps::compile(&model(&[("a", "x\ny"), ("b", "1")], &[], &[]), Direction::Request);
        assert_eq!(compiled.problems, [HeaderProblem { name: "a".into(), kind: ProblemKind::InvalidValue }]);
        assert_eq!(after(&compiled.ops, &[]), pairs(&[("b", "1")]));
    }

    #[test]
    fn with_one_destination_the_destination_wins() {
        let mut rule = plan(&[("a", "rule")], &[("b", "rule")], &[]);
        let mut destination = plan(&[("a", "destination")], &[("b", "destination")], &["b"]);
        rule.authority = Some("rule.com".into());
        destination.authority = Some("destination.com".into());
        let both = combine_single(&rule, &destination);
        let want = pairs(&[("a", "destination"), ("b", "rule"), ("b", "destination")]);
        assert_eq!(after(&both.request, &[("b", "old")]), want);
        assert_eq!(both.authority.as_deref(), Some("rule.com"));
    }

    #[test]
    fn with_several_destinations_the_rule_wins() {
        let rule = plan(&[("a", "rule")], &[("c", "rule")], &["b"]);
        let destination = plan(
            &[("a", "destination"), ("b", "destination"), ("c", "destination")],
            &[("a", "destination"), ("b", "destination")],
            &["d"],
        );
        let both = combine_weighted(&rule, &destination);
        let before = [("b", "old"), ("c", "old"), ("d", "old")];
        let mut two_steps = HeaderMap::new();
        for (k, v) in before {
            two_steps.append(k, v.parse().unwrap());
        }
        destination.request.apply(&mut two_steps);
        rule.request.apply(&mut two_steps);
        assert_eq!(two_steps.get_all("c").iter().count(), 2);
        let want = pairs(&[("a", "rule"), ("c", "destination"), ("c", "rule")]);
        assert_eq!(after(&both.request, &before), want);
        assert_eq!(two_steps.len(), want.len());
    }
}

//! Header operations: remove, then set, then add.
//!
//! Invariant: pseudo-headers and `host` are never edited as headers; naming them in a request block makes an authority
//! rewrite (Istio: route.go `TranslateHeadersOperations`). A value that is empty is skipped, as Envoy does. All values of
//! a block are made after its removes and before its sets and adds.

mod compile;
pub mod format;

use crate::header::lines::{is_single_in_requests, is_single_in_responses};
pub use compile::{CompiledOps, HeaderProblem, ProblemKind};
pub use format::{Facts, HeaderText, NoFacts};

use format::{Fact, Field};
use http::{HeaderMap, HeaderName, HeaderValue, header::Entry};
use smallvec::SmallVec;
use std::sync::Arc;

/// The operations of one direction, as one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// Removed first.
    pub remove: Box<[HeaderName]>,
    /// Then set, in this order; the last one of a name wins.
    pub set: Box<[(HeaderName, HeaderText)]>,
    /// Then added, in this order.
    pub add: Box<[(HeaderName, HeaderText)]>,
    /// A block that runs after this one and sees what it did.
    pub then: Option<Box<HeaderOps>>,
    /// Authority that the values of this block read, where that is no longer the request's own.
    pub authority: Option<Arc<str>>,
}

impl HeaderOps {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty() && self.then.is_none()
    }

    /// Whether a value reads the request: a block on a response then needs it kept.
    #[must_use]
    pub fn reads_request(&self) -> bool {
        let reads = |(_, text): &(HeaderName, HeaderText)| text.reads_request();
        self.set.iter().chain(&self.add).any(reads)
            || self.then.as_ref().is_some_and(|then| then.reads_request())
    }

    /// Does what the block says. Values that are always the same are not made, and ask no facts.
    pub fn apply(&self, headers: &mut HeaderMap, direction: Direction, facts: &dyn Facts) {
        for name in &self.remove {
            headers.remove(name);
        }
        let moved;
        let own = match &self.authority {
            Some(authority) => {
                moved = Moved { facts, authority };
                &moved
            }
            None => facts,
        };
        // Values that read no header come out the same whenever they are made.
        if self.set.iter().chain(&self.add).all(|(_, text)| !text.reads_headers()) {
            for (name, text) in &self.set {
                if let Some(value) = text.value(headers, direction, own) {
                    headers.insert(name, value);
                }
            }
            for (name, text) in &self.add {
                if let Some(value) = text.value(headers, direction, own) {
                    add(headers, direction, name, value);
                }
            }
        } else {
            let make = |list: &[(HeaderName, HeaderText)]| -> SmallVec<[Option<HeaderValue>; 4]> {
                list.iter().map(|(_, text)| text.value(headers, direction, own)).collect()
            };
            let (set, added) = (make(&self.set), make(&self.add));
            for ((name, _), value) in self.set.iter().zip(set) {
                if let Some(value) = value {
                    headers.insert(name, value);
                }
            }
            for ((name, _), value) in self.add.iter().zip(added) {
                if let Some(value) = value {
                    add(headers, direction, name, value);
                }
            }
        }
        if let Some(then) = &self.then {
            then.apply(headers, direction, facts);
        }
    }
}

/// Facts of a request that a destination has given another authority.
struct Moved<'f> {
    facts: &'f dyn Facts,
    authority: &'f str,
}

impl Facts for Moved<'_> {
    fn request(&self, field: &Field) -> Option<&[u8]> {
        match field {
            Field::Authority => Some(self.authority.as_bytes()),
            other => self.facts.request(other),
        }
    }

    fn fact(&self, fact: &Fact, out: &mut Vec<u8>) {
        self.facts.fact(fact, out);
    }
}

/// Appends a value: as a line of its own, or to the line where the name has but one (Envoy: inline headers).
fn add(headers: &mut HeaderMap, direction: Direction, name: &HeaderName, value: HeaderValue) {
    let single = || match direction {
        Direction::Request => is_single_in_requests(name),
        Direction::Response => is_single_in_responses(name),
    };
    match headers.entry(name) {
        // Most are added to heads that have no such name.
        Entry::Vacant(none) => drop(none.insert(value)),
        Entry::Occupied(mut lines) if single() => {
            let all = lines.iter().chain([&value]).map(HeaderValue::as_bytes);
            // Parts that are values make a value.
            if let Ok(joined) = HeaderValue::try_from(all.collect::<Vec<_>>().join(&b","[..])) {
                lines.insert(joined);
            }
        }
        Entry::Occupied(mut lines) => lines.append(value),
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

/// Everything that header operations do to one exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderPlan {
    /// On the request, before it is sent upstream.
    pub request: HeaderOps,
    /// On the response, and on local replies for the rule.
    pub response: HeaderOps,
    /// Authority to send upstream; `rewrite.authority` beats it.
    pub authority: Option<Arc<str>>,
    /// Authority that one of several destinations gives before the rule's own operations, which read it, and may give
    /// another. As long as nobody does, it is the one to send.
    pub passing: Option<Arc<str>>,
}

impl HeaderPlan {
    /// The authority that header operations give; `rewrite.authority` beats it.
    #[must_use]
    pub fn authority(&self) -> Option<&Arc<str>> {
        self.authority.as_ref().or(self.passing.as_ref())
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
        // A plan as it is compiled is one block.
        then: None,
        authority: None,
    };
    HeaderPlan {
        request: join(&rule.request, &destination.request),
        response: join(&rule.response, &destination.response),
        authority: rule.authority.clone().or_else(|| destination.authority.clone()),
        passing: None,
    }
}

/// The plan of one of several destinations: the destination's block runs first, then the rule's, so that the rule
/// wins (Istio: route.go `processWeightedDestination`).
#[must_use]
pub fn combine_weighted(rule: &HeaderPlan, destination: &HeaderPlan) -> HeaderPlan {
    HeaderPlan {
        request: one_after_the_other(&destination.request, &rule.request, destination.authority.as_ref()),
        // A response reads the authority as it was sent.
        response: one_after_the_other(&destination.response, &rule.response, None),
        authority: rule.authority.clone(),
        passing: destination.authority.clone(),
    }
}

/// The effect of two blocks: as one, in which what the second removes or sets undoes what the first did to that name;
/// where the second makes values, after the first, which it may read, as it may the `authority` that came with the first.
fn one_after_the_other(first: &HeaderOps, second: &HeaderOps, authority: Option<&Arc<str>>) -> HeaderOps {
    let makes = |(_, text): &(HeaderName, HeaderText)| text.literal().is_none();
    if [first, second].into_iter().any(|block| block.set.iter().chain(&block.add).any(makes)) {
        let second = HeaderOps { authority: authority.cloned(), ..second.clone() };
        return HeaderOps { then: Some(Box::new(second)), ..first.clone() };
    }
    let survives = |(name, _): &&(HeaderName, HeaderText)| {
        !second.remove.contains(name) && !second.set.iter().any(|(other, _)| other == name)
    };
    HeaderOps {
        remove: first.remove.iter().chain(&second.remove).cloned().collect(),
        set: first.set.iter().filter(survives).chain(&second.set).cloned().collect(),
        add: first.add.iter().filter(survives).chain(&second.add).cloned().collect(),
        then: None,
        authority: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config_model::istio::virtual_service::{HeaderOperations, Headers};

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
        ops.apply(&mut headers, Direction::Request, &NoFacts);
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
        for value in ["%NOPE%", "5%", "%%%", "a%%b%c"] {
            let compiled = HeaderOps::compile(&model(&[("a", value)], &[], &[]), Direction::Request);
            assert!(compiled.ops.is_empty(), "{value}");
            assert_eq!(compiled.problems[0].kind, ProblemKind::Formatter, "{value}");
        }
    }

    #[test]
    fn values_are_made_between_removes_and_sets() {
        let ops = ops(
            &[("o", "new"), ("was", "[%REQ(o)%]"), ("gone", "%REQ(r)%")],
            &[("copy", "%REQ(o)%")],
            &["r"],
        );
        let got = after(&ops, &[("o", "old"), ("r", "removed")]);
        assert_eq!(got, pairs(&[("copy", "old"), ("o", "new"), ("was", "[old]")]));
    }

    #[test]
    fn a_second_block_sees_what_the_first_did() {
        let destination = plan(&[("d", "made")], &[("r", "1")], &[]);
        let rule = plan(&[("seen", "%REQ(d)%")], &[], &["r"]);
        let both = combine_weighted(&rule, &destination);
        assert_eq!(after(&both.request, &[]), pairs(&[("d", "made"), ("seen", "made")]));
        assert!(both.request.reads_request() && !destination.request.reads_request());
    }

    #[test]
    fn what_stands_in_one_line_is_joined_when_added() {
        let add = ops(&[], &[("accept", "b"), ("cookie", "b")], &[]);
        let got = after(&add, &[("accept", "a"), ("cookie", "a")]);
        assert_eq!(got, pairs(&[("accept", "a,b"), ("cookie", "a"), ("cookie", "b")]));
        assert_eq!(after(&add, &[]), pairs(&[("accept", "b"), ("cookie", "b")]));
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
            response: Some(model(&[], &[("b", "%NOPE%")], &["c"])),
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
        destination.request.apply(&mut two_steps, Direction::Request, &NoFacts);
        rule.request.apply(&mut two_steps, Direction::Request, &NoFacts);
        assert_eq!(two_steps.get_all("c").iter().count(), 2);
        let want = pairs(&[("a", "rule"), ("c", "destination"), ("c", "rule")]);
        assert_eq!(after(&both.request, &before), want);
        assert_eq!(two_steps.len(), want.len());
    }
}

//! What is to be said of each resource: conditions, messages and errors, from what is in force and what was found.
//!
//! Invariant: the same configuration and the same findings give the same judgement, whoever judges. Of a resource that other gateways
//! serve, nothing is said unless something is wrong with it. Knows no API server and no clock.

mod served;
mod text;

use std::collections::{BTreeMap, HashMap};

use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics, Effect, Severity},
    meta::ResourceKey,
    set::AnyResource,
};

use crate::{listener::BindFailure, pipeline::Built};
use served::{Programmed, Served};
pub(super) use text::shortened;
use text::{sentence, text};

/// The resource is valid.
pub(super) const ACCEPTED: &str = "Accepted";
/// What it names is there and usable.
pub(super) const RESOLVED_REFS: &str = "ResolvedRefs";
/// It is in force.
pub(super) const PROGRAMMED: &str = "Programmed";
/// The conditions that are written here; all others are somebody else's.
pub(super) const TYPES: [&str; 3] = [ACCEPTED, RESOLVED_REFS, PROGRAMMED];

/// What is to be said of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The API server's identity of the object.
    pub(super) uid: String,
    /// The generation of the spec that was judged; `None` where it is not counted.
    pub(super) generation: Option<i64>,
    pub(super) conditions: Vec<Condition>,
    /// Each code once, the worst first.
    pub(super) messages: Vec<Message>,
    pub(super) errors: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// One of [`TYPES`].
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    /// One word in camel case.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Message {
    pub(super) severity: Severity,
    pub(super) code: Code,
}

/// An error, for an Event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) text: String,
}

/// Judges every resource of Istio's that is this gateway's business.
pub(super) fn judge(
    built: &Built,
    findings: &Diagnostics,
    failures: &[BindFailure],
) -> BTreeMap<ResourceKey, Judgement> {
    let mut about: HashMap<&ResourceKey, Vec<&Diagnostic>> = HashMap::new();
    for finding in findings {
        if let Some(key) = finding.resource.as_ref().filter(|key| is_istio(key)) {
            about.entry(key).or_default().push(finding);
        }
    }
    let served = Served::of(built, failures);
    let mut judgements = BTreeMap::new();
    for resource in built.validated.set().iter().filter(|resource| is_istio(resource.key())) {
        let findings = about.remove(resource.key()).unwrap_or_default();
        let programmed = served.programmed(&resource, &findings);
        if programmed.is_some() || findings.iter().any(|finding| is_worth(finding)) {
            let judgement = judge_one(Some(&resource), &findings, programmed);
            judgements.insert(resource.key().clone(), judgement);
        }
    }
    // What is left out has findings only.
    for (key, findings) in about {
        if findings.iter().any(|finding| is_worth(finding)) {
            judgements.insert(key.clone(), judge_one(None, &findings, None));
        }
    }
    judgements
}

fn is_istio(key: &ResourceKey) -> bool {
    key.kind.group().ends_with(".istio.io")
}

/// Whether it is worth telling where the resource is not this gateway's.
fn is_worth(finding: &Diagnostic) -> bool {
    finding.severity != Severity::Info
}

/// What a finding is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aspect {
    /// The resource itself.
    Itself,
    /// What it names.
    Reference,
    /// Whether all of it is in force.
    InForce,
}

fn aspect(code: Code) -> Aspect {
    match code {
        Code::REFERENCE_NOT_FOUND
        | Code::INVALID_CREDENTIAL
        | Code::DELEGATE_NOT_FOUND
        | Code::SUBSET_SELECTS_NOTHING
        | Code::UNKNOWN_DESTINATION_RULE_HOST => Aspect::Reference,
        Code::SERVER_DROPPED
        | Code::RULE_DROPPED
        | Code::CONFLICTING_GATEWAYS
        | Code::HOST_NOT_IN_GATEWAY
        | Code::NOT_YET_HONOURED
        | Code::REGEX => Aspect::InForce,
        _ => Aspect::Itself,
    }
}

fn judge_one(
    resource: Option<&AnyResource>,
    findings: &[&Diagnostic],
    programmed: Option<Programmed>,
) -> Judgement {
    let rejected = findings.iter().find(|finding| finding.effect == Effect::Rejected);
    let origin = rejected
        .or(findings.first().filter(|_| resource.is_none()))
        .and_then(|finding| finding.origin.as_ref())
        .or(resource.map(AnyResource::origin));
    let of = |wanted: Aspect| {
        findings.iter().copied().filter(move |finding| is_worth(finding) && aspect(finding.code) == wanted)
    };
    let mut conditions = Vec::with_capacity(TYPES.len());
    let mut condition = |kind, holds, reason, message| {
        conditions.push(Condition { kind, holds, reason, message });
    };
    if rejected.is_some() {
        let errors = findings.iter().copied().filter(|finding| finding.severity == Severity::Error);
        condition(ACCEPTED, false, "Invalid", text(errors));
    } else {
        condition(ACCEPTED, true, "Accepted", text(of(Aspect::Itself)));
    }
    match of(Aspect::Reference).next() {
        Some(first) => condition(RESOLVED_REFS, false, first.code.info().title, text(of(Aspect::Reference))),
        None => condition(RESOLVED_REFS, true, "ResolvedRefs", String::new()),
    }
    match programmed {
        _ if rejected.is_some() => {
            let instead = resource.map_or("it is not served", |_| "the version accepted last is served");
            condition(PROGRAMMED, false, "Invalid", instead.to_owned());
        }
        Some(Programmed::Nothing) => {
            let why = text(of(Aspect::InForce));
            let why = if why.is_empty() { "no request can meet a rule of it here".to_owned() } else { why };
            condition(PROGRAMMED, false, "NotServed", why);
        }
        Some(Programmed::Unbound(why)) => condition(PROGRAMMED, false, "ListenerNotBound", why),
        Some(Programmed::Yes) if of(Aspect::InForce).next().is_none() => {
            condition(PROGRAMMED, true, "Programmed", String::new());
        }
        Some(Programmed::Yes) => {
            condition(PROGRAMMED, true, "PartiallyProgrammed", text(of(Aspect::InForce)));
        }
        Some(Programmed::Partly(why)) => condition(PROGRAMMED, true, "PartiallyProgrammed", why),
        None => {}
    }
    let mut messages: Vec<Message> =
        findings.iter().map(|finding| Message { severity: finding.severity, code: finding.code }).collect();
    messages.sort_unstable();
    messages.dedup();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    Judgement {
        uid: origin.and_then(|origin| origin.object()).map_or_else(String::new, |(uid, _)| uid.to_owned()),
        generation: origin.and_then(|origin| origin.generation()),
        conditions,
        messages,
        errors: errors.map(|finding| Problem { code: finding.code, text: sentence(finding) }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use config_model::meta::Kind;

    use super::*;
    use crate::{
        pipeline::{
            Builder,
            testing::{GATEWAY, virtual_service},
        },
        settings::Settings,
        source::fixed::read,
    };

    fn built(texts: &[&str]) -> Built {
        let mut builder = Builder::new(Settings::default().identity());
        let states = texts.iter().map(|text| builder.build(&read("a.yaml", text)));
        states.last().unwrap()
    }

    fn judged(texts: &[&str]) -> BTreeMap<ResourceKey, Judgement> {
        let built = built(texts);
        judge(&built, &built.diagnostics, &[])
    }

    /// `Accepted True Accepted`, for each condition.
    fn conditions(judgements: &BTreeMap<ResourceKey, Judgement>, kind: Kind, name: &str) -> String {
        let judgement = &judgements[&ResourceKey::new(kind, "default", name)];
        let line = |c: &Condition| format!("{} {} {}", c.kind, c.holds, c.reason);
        judgement.conditions.iter().map(line).collect::<Vec<_>>().join(", ")
    }

    const GOOD: &str = "Accepted true Accepted, ResolvedRefs true ResolvedRefs, Programmed true Programmed";

    #[test]
    fn what_is_in_force_is_said_to_be() {
        let judgements = judged(&[&format!("{GATEWAY}{}", virtual_service("a", "a.example", 301))]);
        assert_eq!(conditions(&judgements, Kind::Gateway, "door"), GOOD);
        assert_eq!(conditions(&judgements, Kind::VirtualService, "a"), GOOD);
        assert!(
            judgements.values().all(|judgement| judgement.messages.is_empty() && judgement.errors.is_empty())
        );
    }

    #[test]
    fn a_name_of_nothing_is_an_unresolved_reference() {
        let lost = virtual_service("a", "a.example", 301)
            .replace("- redirect: {uri: /x, redirectCode: 301}", "- route: [{destination: {host: nobody}}]");
        let judgements = judged(&[&format!("{GATEWAY}{lost}")]);
        assert_eq!(
            conditions(&judgements, Kind::VirtualService, "a"),
            "Accepted true Accepted, ResolvedRefs false ReferencedResourceNotFound, Programmed true Programmed"
        );
        let judgement = &judgements[&ResourceKey::new(Kind::VirtualService, "default", "a")];
        let message = &judgement.conditions[1].message;
        assert!(message.starts_with("[IST0101] ") && message.contains("nobody"), "{message}");
        assert!(message.ends_with("(spec.http[0].route[0].destination.host)"), "{message}");
        assert_eq!(
            judgement.messages,
            [Message { severity: Severity::Error, code: Code::REFERENCE_NOT_FOUND }]
        );
        assert_eq!(judgement.errors.len(), 1);
    }

    #[test]
    fn what_is_refused_says_what_is_served_in_its_place() {
        let good = format!("{GATEWAY}{}", virtual_service("a", "a.example", 301));
        let bad = format!("{GATEWAY}{}", virtual_service("a", "a.example", 999));
        let never = judged(&[&bad]);
        let refused = "Accepted false Invalid, ResolvedRefs true ResolvedRefs, Programmed false Invalid";
        assert_eq!(conditions(&never, Kind::VirtualService, "a"), refused);
        let key = ResourceKey::new(Kind::VirtualService, "default", "a");
        assert_eq!(never[&key].conditions[2].message, "it is not served");
        let later = judged(&[&good, &bad]);
        assert_eq!(conditions(&later, Kind::VirtualService, "a"), refused);
        assert_eq!(later[&key].conditions[2].message, "the version accepted last is served");
    }

    #[test]
    fn of_other_gateways_only_what_is_wrong_is_said() {
        let other = GATEWAY.replace("istio: ingressgateway", "istio: egressgateway").replace("door", "other");
        let theirs = virtual_service("b", "b.example", 301).replace("[door]", "[other]");
        let judgements = judged(&[&format!("{GATEWAY}---{other}{theirs}")]);
        let names: Vec<&str> = judgements.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["door"]);
        let misspelt = other.replace("  selector", "  servrs: []\n  selector");
        let judgements = judged(&[&format!("{GATEWAY}---{misspelt}{theirs}")]);
        assert_eq!(
            conditions(&judgements, Kind::Gateway, "other"),
            "Accepted true Accepted, ResolvedRefs true ResolvedRefs"
        );
    }

    #[test]
    fn a_virtual_service_that_no_request_meets_is_not_in_force() {
        let narrow = GATEWAY.replace("hosts: ['*']", "hosts: [c.example]");
        let judgements = judged(&[&format!("{narrow}{}", virtual_service("a", "a.example", 301))]);
        let said = conditions(&judgements, Kind::VirtualService, "a");
        assert!(said.ends_with("Programmed false NotServed"), "{said}");
        let key = ResourceKey::new(Kind::VirtualService, "default", "a");
        assert!(judgements[&key].conditions[2].message.contains("IST0132"));
    }

    #[test]
    fn gateways_that_share_a_port_are_both_in_force_and_neither_where_it_is_not_bound() {
        let second = GATEWAY.replace("door", "second").replace("'*'", "b.example");
        let built = built(&[&format!("{GATEWAY}---{second}")]);
        let judgements = judge(&built, &built.diagnostics, &[]);
        for name in ["door", "second"] {
            assert_eq!(conditions(&judgements, Kind::Gateway, name), GOOD);
        }
        let failure = BindFailure {
            key: built.compiled.listeners.keys().next().unwrap().clone(),
            address: "0.0.0.0:80".into(),
            reason: "permission denied".into(),
        };
        let judgements = judge(&built, &built.diagnostics, &[failure]);
        for name in ["door", "second"] {
            let said = conditions(&judgements, Kind::Gateway, name);
            assert!(said.ends_with("Programmed false ListenerNotBound"), "{said}");
        }
        let key = ResourceKey::new(Kind::Gateway, "default", "second");
        assert!(judgements[&key].conditions[2].message.contains("permission denied"));
    }
}

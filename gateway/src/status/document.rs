//! From a judgement and an object as it is to the change of its status.
//!
//! Invariant: conditions of other types, messages of other writers and other fields are in the result as they were. A condition whose
//! status stays keeps its time. What would change nothing is no change, and an older judgement never replaces a newer one. Knows no
//! API server and no clock.

use config_model::diagnostic::{Code, Severity};
use serde_json::{Map, Value, json};

use super::judgement::{Condition, Judgement, Message, TYPES};

/// Who wrote a message, at the end of its URL, as Istio's own status writer marks its messages there.
const MARK: &str = "?ref=limen";
/// Where the pages are of what Istio's numbers mean (istio.io: `docs/reference/config/analysis`), and of what ours mean.
const ISTIO_PAGES: &str = "https://istio.io/latest/docs/reference/config/analysis";
const OUR_PAGES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/config-model/docs/codes");

/// The merge patch that makes the status say what was judged; `None` when it does, or when it says something newer.
pub(super) fn change(object: &Value, judgement: &Judgement, now: &str) -> Option<Value> {
    let old = conditions(object);
    if let Some(judged) = judgement.generation
        && ours(old).filter_map(observed).any(|observed| observed > judged)
    {
        return None;
    }
    // A type that is not judged just now is left as it is: another gateway's pods may have it in force.
    let mut new: Vec<Value> = old.to_vec();
    let mut changed = false;
    for condition in &judgement.conditions {
        let place = new.iter_mut().find(|one| one["type"] == condition.kind);
        let written = written(condition, judgement.generation, place.as_deref(), now);
        match place {
            Some(old) if is_same(old, &written) => {}
            Some(old) => {
                *old = written;
                changed = true;
            }
            None => {
                new.push(written);
                changed = true;
            }
        }
    }
    let old_messages = messages(object);
    let new_messages: Vec<Value> = old_messages
        .iter()
        .filter(|message| !is_ours(message))
        .cloned()
        .chain(judgement.messages.iter().map(message))
        .collect();
    changed |= new_messages != old_messages;
    changed.then(|| patch(object, new, new_messages))
}

/// The merge patch that takes back what was written about a generation or an earlier one; `None` when nothing of it is there.
pub(super) fn withdrawal(object: &Value, generation: Option<i64>) -> Option<Value> {
    let newer = |condition: &Value| match (observed(condition), generation) {
        (Some(observed), Some(judged)) => observed > judged,
        _ => false,
    };
    let (old, old_messages) = (conditions(object), messages(object));
    if ours(old).any(newer) {
        return None;
    }
    let new: Vec<Value> = old.iter().filter(|condition| !is_of_ours(condition)).cloned().collect();
    let new_messages: Vec<Value> = old_messages.iter().filter(|message| !is_ours(message)).cloned().collect();
    (new.len() < old.len() || new_messages.len() < old_messages.len())
        .then(|| patch(object, new, new_messages))
}

/// With the version that it was made from: the server refuses it when somebody else was faster.
fn patch(object: &Value, conditions: Vec<Value>, messages: Vec<Value>) -> Value {
    let mut status = Map::new();
    status.insert("conditions".into(), Value::Array(conditions));
    if !messages.is_empty() {
        status.insert("validationMessages".into(), Value::Array(messages));
    } else if object.pointer("/status/validationMessages").is_some_and(|messages| !messages.is_null()) {
        // In a merge patch, null removes the field.
        status.insert("validationMessages".into(), Value::Null);
    }
    json!({"metadata": {"resourceVersion": object.pointer("/metadata/resourceVersion")}, "status": status})
}

fn conditions(object: &Value) -> &[Value] {
    list(object, "/status/conditions")
}

fn messages(object: &Value) -> &[Value] {
    list(object, "/status/validationMessages")
}

fn list<'o>(object: &'o Value, path: &str) -> &'o [Value] {
    object.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_of_ours(condition: &Value) -> bool {
    TYPES.iter().any(|kind| condition["type"] == *kind)
}

fn ours(conditions: &[Value]) -> impl Iterator<Item = &Value> {
    conditions.iter().filter(|condition| is_of_ours(condition))
}

fn is_ours(message: &Value) -> bool {
    message["documentationUrl"].as_str().is_some_and(|url| url.ends_with(MARK))
}

/// Istio's schema lets it be a number or a text.
fn observed(condition: &Value) -> Option<i64> {
    let observed = &condition["observedGeneration"];
    observed.as_i64().or_else(|| observed.as_str()?.parse().ok())
}

fn written(condition: &Condition, generation: Option<i64>, old: Option<&Value>, now: &str) -> Value {
    let status = if condition.holds { "True" } else { "False" };
    let since = old.filter(|old| old["status"] == status).and_then(|old| old["lastTransitionTime"].as_str());
    let mut fields = Map::new();
    fields.insert("type".into(), condition.kind.into());
    fields.insert("status".into(), status.into());
    fields.insert("reason".into(), condition.reason.into());
    fields.insert("message".into(), condition.message.as_str().into());
    fields.insert("lastTransitionTime".into(), since.unwrap_or(now).into());
    if let Some(generation) = generation {
        fields.insert("observedGeneration".into(), generation.into());
    }
    Value::Object(fields)
}

/// Whether what is there says the same. Istio's definitions had no generation in conditions before 1.26 and drop it: that it is
/// missing is then no difference that writing could mend.
fn is_same(old: &Value, new: &Value) -> bool {
    let field = |name: &str| old[name] == new[name];
    let message = old["message"].as_str().unwrap_or("") == new["message"].as_str().unwrap_or("");
    let generation = observed(old).is_none_or(|old| Some(old) == observed(new));
    field("status") && field("reason") && message && generation
}

/// Istio's AnalysisMessageBase (istio.io/api: `analysis/v1alpha1/message.proto`).
fn message(message: &Message) -> Value {
    let level = match message.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    json!({
        "type": {"name": message.code.info().title, "code": message.code.as_str()},
        "level": level,
        "documentationUrl": page(message.code),
    })
}

fn page(code: Code) -> String {
    let number = code.as_str();
    if number.starts_with("IST") {
        format!("{ISTIO_PAGES}/{}/{MARK}", number.to_ascii_lowercase())
    } else {
        format!("{OUR_PAGES}/{number}.md{MARK}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::judgement::{ACCEPTED, PROGRAMMED};

    const NOW: &str = "2026-01-02T03:04:05Z";
    const BEFORE: &str = "2025-12-31T00:00:00Z";

    fn judgement(generation: i64, accepted: bool) -> Judgement {
        let condition = |kind, holds, reason| Condition { kind, holds, reason, message: String::new() };
        Judgement {
            uid: "u-1".into(),
            generation: Some(generation),
            conditions: vec![
                condition(ACCEPTED, accepted, if accepted { "Accepted" } else { "Invalid" }),
                condition(PROGRAMMED, true, "Programmed"),
            ],
            messages: vec![
                Message { severity: Severity::Error, code: Code::REFERENCE_NOT_FOUND },
                Message { severity: Severity::Warning, code: Code::SERVER_DROPPED },
            ],
            errors: Vec::new(),
        }
    }

    /// An object after the patch, as the server merges it.
    fn merged(mut object: Value, patch: &Value) -> Value {
        object["status"]["conditions"] = patch["status"]["conditions"].clone();
        if let Some(messages) = patch["status"].get("validationMessages") {
            object["status"]["validationMessages"] = messages.clone();
        }
        object
    }

    fn fresh() -> Value {
        json!({"metadata": {"resourceVersion": "7", "generation": 1}, "spec": {}})
    }

    #[test]
    fn the_first_status_says_all_in_the_shape_of_istio() {
        let patch = change(&fresh(), &judgement(1, true), NOW).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(
            patch["status"]["conditions"][0],
            json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": NOW, "observedGeneration": 1})
        );
        let messages = &patch["status"]["validationMessages"];
        assert_eq!(
            messages[0],
            json!({"type": {"name": "ReferencedResourceNotFound", "code": "IST0101"}, "level": "ERROR",
                "documentationUrl": "https://istio.io/latest/docs/reference/config/analysis/ist0101/?ref=limen"})
        );
        assert!(messages[1]["documentationUrl"].as_str().unwrap().ends_with("/codes/LIM0015.md?ref=limen"));
    }

    #[test]
    fn what_is_said_already_is_no_change_and_times_stay_with_their_status() {
        let first = merged(fresh(), &change(&fresh(), &judgement(1, true), BEFORE).unwrap());
        assert_eq!(change(&first, &judgement(1, true), NOW), None);
        let second = change(&first, &judgement(2, false), NOW).unwrap();
        let conditions = &second["status"]["conditions"];
        assert_eq!(
            (&conditions[0]["status"], &conditions[0]["lastTransitionTime"]),
            (&json!("False"), &json!(NOW))
        );
        assert_eq!(
            (&conditions[1]["observedGeneration"], &conditions[1]["lastTransitionTime"]),
            (&json!(2), &json!(BEFORE)),
            "a new generation is no transition"
        );
    }

    #[test]
    fn what_others_wrote_stays() {
        let mut object = fresh();
        let theirs = json!({"type": "Reconciled", "status": "True"});
        let said = json!({"type": {"code": "IST0001"}, "level": "INFO", "documentationUrl": "https://istio.io/x/?ref=status-controller"});
        object["status"] =
            json!({"observedGeneration": "9", "conditions": [theirs], "validationMessages": [said]});
        let patch = change(&object, &judgement(1, true), NOW).unwrap();
        assert_eq!(patch["status"].get("observedGeneration"), None);
        let object = merged(object, &patch);
        assert_eq!(object["status"]["conditions"][0], theirs);
        assert_eq!(object["status"]["conditions"].as_array().unwrap().len(), 3);
        assert_eq!(object["status"]["validationMessages"][0], said);
        let back = withdrawal(&object, Some(1)).unwrap();
        assert_eq!(back["status"], json!({"conditions": [theirs], "validationMessages": [said]}));
        assert_eq!(withdrawal(&merged(object, &back), Some(1)), None);
    }

    #[test]
    fn the_last_message_goes_with_its_field() {
        let object = merged(fresh(), &change(&fresh(), &judgement(1, true), NOW).unwrap());
        let clean = Judgement { messages: Vec::new(), ..judgement(1, true) };
        let patch = change(&object, &clean, NOW).unwrap();
        assert_eq!(patch["status"]["validationMessages"], Value::Null);
        assert!(patch["status"].as_object().unwrap().contains_key("validationMessages"));
    }

    #[test]
    fn an_older_judgement_replaces_nothing() {
        let object = merged(fresh(), &change(&fresh(), &judgement(3, true), NOW).unwrap());
        assert_eq!(change(&object, &judgement(2, false), NOW), None);
        assert_eq!(withdrawal(&object, Some(2)), None);
    }

    #[test]
    fn a_generation_that_the_definition_drops_is_not_written_for_ever() {
        let mut object = merged(fresh(), &change(&fresh(), &judgement(1, true), NOW).unwrap());
        for condition in object["status"]["conditions"].as_array_mut().unwrap() {
            condition.as_object_mut().unwrap().remove("observedGeneration");
        }
        assert_eq!(change(&object, &judgement(2, true), NOW), None);
    }
}

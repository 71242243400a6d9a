//! Lists: of one moment, in pages, each written once for as long as nothing of its type has changed.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Body, State,
    answer::{Ask, answered, refusal},
};

/// An answer that was written, and the version of its type that it is of.
pub(super) struct Written {
    version: u64,
    body: Bytes,
}

/// Answers a list.
pub(super) fn list(state: &mut State, ask: &Ask, uri: String) -> Response<Body> {
    if ask.query.contains_key("continue") && state.expiring > 0 {
        state.expiring -= 1;
        return expired();
    }
    let version = state.changed.get(ask.of.plural).copied().unwrap_or(0);
    let asked = (uri, ask.metadata_only);
    match state.written.get(&asked) {
        // A page goes on being of its moment: where it is asked for says which.
        Some(written) if written.version == version || ask.query.contains_key("continue") => {
            return answered(StatusCode::OK, written.body.clone());
        }
        _ => {}
    }
    let Some(value) = list_anew(state, ask) else { return expired() };
    let body = Bytes::from(value.to_string());
    state.written.insert(asked, Written { version, body: body.clone() });
    answered(StatusCode::OK, body)
}

fn expired() -> Response<Body> {
    refusal(410, "Expired", "The provided continue parameter is too old")
}

/// `None` when the page is of a list that is forgotten.
fn list_anew(state: &mut State, ask: &Ask) -> Option<Value> {
    let (version, mut items) = match ask.query.get("continue") {
        Some(token) => state.rests.remove(token)?,
        None => {
            let first = (ask.of.plural.to_owned(), String::new(), String::new());
            let objects =
                state.objects.range(first..).take_while(|((plural, ..), _)| plural == ask.of.plural);
            let wanted = objects.map(|(_, object)| object).filter(|object| ask.wants(object));
            (state.version, wanted.cloned().collect())
        }
    };
    let limit = ask.number("limit").map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if items.len() > limit && limit > 0 {
        let rest = items.split_off(limit);
        let token = format!("token-{version}-{}-{}", ask.of.plural, rest.len());
        metadata["continue"] = json!(token);
        metadata["remainingItemCount"] = json!(rest.len());
        state.rests.insert(token, (version, rest));
    }
    let items: Vec<Value> = items.iter().map(|object| ask.shown(object, true)).collect();
    let (kind, api_version) = if ask.metadata_only {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
    } else {
        let group = if ask.of.group.is_empty() { String::new() } else { format!("{}/", ask.of.group) };
        (format!("{}List", ask.of.kind), format!("{group}{}", ask.of.version))
    };
    Some(json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items}))
}

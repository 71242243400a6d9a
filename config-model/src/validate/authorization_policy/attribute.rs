//! Attributes that conditions may name, and the values that each takes (Istio: security.ValidateAttribute).

use super::{Policy, foreign_metadata, values};
use crate::istio::authorization_policy::Condition;

pub(super) fn check(check: &mut Policy<'_>, path: &str, condition: &Condition) {
    let key = condition.key.as_str();
    let rule = match of(key) {
        Ok(rule) => rule,
        Err(message) => {
            check.error(format!("{path}.key"), message);
            return;
        }
    };
    for (field, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        values::each(check, &format!("{path}.{field}"), list, rule);
        if key == "source.serviceAccount" {
            check.at_most(format_args!("{path}.{field}"), list.len(), 16);
        }
    }
    if key.starts_with(METADATA) {
        foreign_metadata(check, path, key);
    }
}

/// What Envoy's filters have set.
const METADATA: &str = "experimental.envoy.filters.";

/// What its values must be; or why there is no such attribute.
fn of(key: &str) -> Result<values::Form, String> {
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => Ok(values::network),
        "destination.port" => Ok(values::port),
        "source.serviceAccount" => Ok(values::service_account),
        "source.trustDomain" => Ok(values::wildcard),
        "source.namespace"
        | "source.principal"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter"
        | "connection.sni" => Ok(values::any),
        "destination.namespace" => Err(format!("attribute {key} is replaced by the metadata.namespace")),
        "destination.name" | "destination.user" => {
            Err(format!("deprecated attribute {key}: only supported in v1alpha1"))
        }
        _ if ["request.headers", "request.auth.claims", METADATA]
            .iter()
            .any(|name| key.starts_with(name)) =>
        {
            if has_name_in_brackets(key) {
                Ok(values::any)
            } else {
                Err(format!("bad key ({key}): should have format a[b]"))
            }
        }
        _ if key.starts_with("destination.labels") => {
            Err(format!("attribute {key} is replaced by the workload selector"))
        }
        _ => Err(format!("unknown attribute: {key}")),
    }
}

/// `a[b]`, with something inside.
fn has_name_in_brackets(key: &str) -> bool {
    let open = key.find('[').filter(|open| *open > 0);
    key.ends_with(']') && open.is_some_and(|open| open + 2 < key.len())
}

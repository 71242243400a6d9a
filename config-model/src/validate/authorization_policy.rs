//! What admission demands of an AuthorizationPolicy (Istio: ValidateAuthorizationPolicy, and the schema).

mod attribute;
mod values;

use super::{attachment, check::Check};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::{
        AuthorizationPolicy,
        authorization_policy::{Action, Operation, Rule, Source},
    },
    meta::Resource,
};

/// The annotation that makes a policy be evaluated and not enforced.
const DRY_RUN: &str = "istio.io/dry-run";

type Policy<'a> = Check<'a, AuthorizationPolicy>;

pub(super) fn check(resource: &Resource<AuthorizationPolicy>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    attachment::check(&mut check, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    dry_run(&mut check, spec.action);
    action(&mut check, spec);
    check.at_most("spec.rules", spec.rules.len(), 512);
    for (index, rule) in spec.rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        if spec.action == Action::Custom {
            before_authentication(&mut check, &path, rule);
        }
        check_rule(&mut check, &path, rule, spec.action);
    }
}

/// The words that Go's `strconv.ParseBool` knows; `None` for others.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn dry_run(check: &mut Policy<'_>, action: Action) {
    let Some(value) = check.resource.meta.annotations.get(DRY_RUN) else { return };
    let path = format!("metadata.annotations.{DRY_RUN}");
    match action {
        Action::Allow | Action::Deny if parse_bool(value).is_some() => {}
        Action::Allow | Action::Deny => {
            check.error(path, format!("invalid value {value:?}: use true or false"))
        }
        Action::Audit | Action::Custom => {
            let message = format!("dry run is for ALLOW and DENY only, not for {}", action.as_str());
            check.error(path, message);
        }
    }
}

fn action(check: &mut Policy<'_>, spec: &AuthorizationPolicy) {
    let named = spec.provider.as_ref().is_some_and(|provider| !provider.name.is_empty());
    match spec.action {
        Action::Custom if spec.rules.is_empty() => never(check, "CUSTOM"),
        Action::Custom if !named => check.error("spec.provider", "`provider.name` must not be empty"),
        Action::Deny if spec.rules.is_empty() => never(check, "DENY"),
        _ => {}
    }
    if spec.provider.is_some() && spec.action != Action::Custom {
        let message =
            format!("`provider` must not be with non CUSTOM action, found {}", spec.action.as_str());
        check.error("spec.provider", message);
    }
}

fn never(check: &mut Policy<'_>, action: &str) {
    check.refuse(
        "spec",
        format!("{action} action without `rules` is meaningless as it will never be triggered"),
        "add an empty rule `{}` if you want it be triggered for every request",
    );
}

/// A provider is asked before anybody is known, so that rules cannot be about who asks.
fn before_authentication(check: &mut Policy<'_>, path: &str, rule: &Rule) {
    for (index, from) in rule.from.iter().enumerate() {
        let Some(source) = &from.source else { continue };
        for (field, list) in [
            ("namespaces", &source.namespaces),
            ("notNamespaces", &source.not_namespaces),
            ("serviceAccounts", &source.service_accounts),
            ("notServiceAccounts", &source.not_service_accounts),
            ("trustDomains", &source.trust_domains),
            ("notTrustDomains", &source.not_trust_domains),
            ("principals", &source.principals),
            ("notPrincipals", &source.not_principals),
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
        ] {
            if !list.is_empty() {
                let path = format!("{path}.from[{index}].source.{field}");
                check.error(path, format!("{field} is currently not supported with CUSTOM action"));
            }
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        let key = condition.key.as_str();
        let of_peer = ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];
        if of_peer.contains(&key) || key.starts_with("request.auth.") {
            let path = format!("{path}.when[{index}].key");
            check.error(path, format!("{key} is currently not supported with CUSTOM action"));
        }
    }
}

fn check_rule(check: &mut Policy<'_>, path: &str, rule: &Rule, action: Action) {
    check.at_most(format_args!("{path}.from"), rule.from.len(), 512);
    for (index, from) in rule.from.iter().enumerate() {
        let path = format!("{path}.from[{index}]");
        match &from.source {
            None => check.error(path, "`from.source` must not be nil"),
            Some(source) => check_source(check, &format!("{path}.source"), source),
        }
    }
    for (index, to) in rule.to.iter().enumerate() {
        let path = format!("{path}.to[{index}]");
        match &to.operation {
            None => check.error(path, "`to.operation` must not be nil"),
            Some(operation) => check_operation(check, &format!("{path}.operation"), operation),
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        let path = format!("{path}.when[{index}]");
        if condition.key.is_empty() {
            check.error(path, "`key` must not be empty");
        } else if condition.values.is_empty() && condition.not_values.is_empty() {
            let message =
                format!("at least one of `values` or `notValues` must be set for key {}", condition.key);
            check.error(path, message);
        } else {
            attribute::check(check, &path, condition);
        }
    }
    if action == Action::Deny && denies_every_connection(rule) {
        check.warn(
            path,
            "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP attributes \
             in a DENY rule; it is recommended to explicitly specify the port",
        );
    }
}

/// What only HTTP has is left out of a DENY rule where connections are not HTTP: whether nothing remains.
fn denies_every_connection(rule: &Rule) -> bool {
    let sources: Vec<_> = rule.from.iter().filter_map(|from| from.source.as_ref()).collect();
    let operations: Vec<_> = rule.to.iter().filter_map(|to| to.operation.as_ref()).collect();
    let from_connection = sources.iter().any(|source| {
        let lists = [
            &source.principals,
            &source.not_principals,
            &source.namespaces,
            &source.not_namespaces,
            &source.service_accounts,
            &source.not_service_accounts,
            &source.ip_blocks,
            &source.not_ip_blocks,
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
        ];
        lists.iter().any(|list| !list.is_empty())
    });
    let to_connection = operations.iter().any(|to| !to.ports.is_empty() || !to.not_ports.is_empty());
    (!sources.is_empty() && operations.is_empty() && !from_connection)
        || (!operations.is_empty() && !to_connection)
}

fn check_source(check: &mut Policy<'_>, path: &str, source: &Source) {
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let of_peer = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    if accounts && of_peer.iter().any(|list| !list.is_empty()) {
        check.error(path, "cannot set serviceAccounts with namespaces or principals");
    }
    if *source == Source::default() {
        check.error(path, "`from.source` must not be empty");
    }
    let mut each = |field: &str, list: &[String], rule: values::Form| {
        values::each(check, &format!("{path}.{field}"), list, rule);
    };
    each("principals", &source.principals, values::any);
    each("notPrincipals", &source.not_principals, values::any);
    each("requestPrincipals", &source.request_principals, values::any);
    each("notRequestPrincipals", &source.not_request_principals, values::any);
    each("namespaces", &source.namespaces, values::any);
    each("notNamespaces", &source.not_namespaces, values::any);
    each("serviceAccounts", &source.service_accounts, values::service_account);
    each("notServiceAccounts", &source.not_service_accounts, values::service_account);
    each("ipBlocks", &source.ip_blocks, values::network);
    each("notIpBlocks", &source.not_ip_blocks, values::network);
    each("remoteIpBlocks", &source.remote_ip_blocks, values::network);
    each("notRemoteIpBlocks", &source.not_remote_ip_blocks, values::network);
    each("trustDomains", &source.trust_domains, values::trust_domain);
    each("notTrustDomains", &source.not_trust_domains, values::trust_domain);
    check.at_most(format_args!("{path}.serviceAccounts"), source.service_accounts.len(), 16);
    check.at_most(format_args!("{path}.notServiceAccounts"), source.not_service_accounts.len(), 16);
}

fn check_operation(check: &mut Policy<'_>, path: &str, operation: &Operation) {
    if *operation == Operation::default() {
        check.error(path, "`to.operation` must not be empty");
    }
    let mut each = |field: &str, list: &[String], rule: values::Form| {
        values::each(check, &format!("{path}.{field}"), list, rule);
    };
    each("hosts", &operation.hosts, values::any);
    each("notHosts", &operation.not_hosts, values::any);
    each("ports", &operation.ports, values::port);
    each("notPorts", &operation.not_ports, values::port);
    each("methods", &operation.methods, values::any);
    each("notMethods", &operation.not_methods, values::any);
    each("paths", &operation.paths, values::path);
    each("notPaths", &operation.not_paths, values::path);
}

/// What Envoy's own filters found out is known to no other proxy.
fn foreign_metadata(check: &mut Policy<'_>, path: &str, key: &str) {
    let message = format!(
        "{key} is not yet honoured: there are no filters of Envoy that could have set it; it counts as missing"
    );
    check.push(Diagnostic::new(Code::NOT_YET_HONOURED, message).at(format!("{path}.key")));
}

#[cfg(test)]
mod tests;

//! RequestAuthentications to the rules that tokens are judged by (Istio: pilot/pkg/security/authn).

use super::{Identity, attachment::attaches};
use crate::authn::{Audiences, Authentication, ClaimHeader, KeySource, Places, TokenRule};
use config_model::{
    istio::request_authentication::{JwtRule, Presence},
    validate::Validated,
};
use http::HeaderName;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Time to fetch an issuer's keys, where none is given.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Claims whose text is always a list.
const SPACE_DELIMITED: [&str; 2] = ["permission", "scope"];

/// Compiles the rules that are for this gateway: those of its own namespace before those of the mesh, the older first.
pub(super) fn compile(input: &Validated, identity: &Identity) -> Authentication {
    let root = input.mesh().root_namespace.as_str();
    let own = input.request_authentications().iter().filter(|resource| {
        let spec = &resource.spec;
        attaches(identity, root, &resource.key.namespace, spec.selector.as_ref(), spec.targets())
    });
    let (mut rules, mut of_mesh) = (Vec::new(), Vec::new());
    for resource in own {
        let policy: Arc<str> = format!("{}/{}", resource.key.namespace, resource.key.name).into();
        let list = if resource.key.namespace == identity.namespace { &mut rules } else { &mut of_mesh };
        list.extend(resource.spec.jwt_rules.iter().map(|rule| token_rule(&policy, rule)));
    }
    rules.extend(of_mesh);
    Authentication::new(rules)
}

fn token_rule(policy: &Arc<str>, rule: &JwtRule) -> TokenRule {
    let header = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
    let keys = if !rule.jwks.is_empty() {
        KeySource::Inline(rule.jwks.as_str().into())
    } else if !rule.jwks_uri.is_empty() {
        KeySource::Remote(rule.jwks_uri.as_str().into())
    } else {
        KeySource::Discovery(rule.issuer.as_str().into())
    };
    let claim_headers = rule.output_claim_to_headers.iter().filter_map(|output| {
        let path = output.claim.split('.').map(Box::from).collect();
        Some(ClaimHeader { path, header: header(&output.header)? })
    });
    let space_delimited: BTreeSet<&str> =
        rule.space_delimited_claims.iter().map(String::as_str).chain(SPACE_DELIMITED).collect();
    let headers =
        rule.from_headers.iter().filter_map(|from| Some((header(&from.name)?, from.prefix.as_str().into())));
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    TokenRule {
        policy: Arc::clone(policy),
        issuer: rule.issuer.as_str().into(),
        audiences: Audiences::new(&rule.audiences),
        keys,
        timeout: rule.timeout.map_or(TIMEOUT, |timeout| timeout.as_std()),
        required: rule.presence == Presence::Required,
        forward: rule.forward_original_token,
        payload_header: header(&rule.output_payload_to_header),
        claim_headers: claim_headers.collect(),
        space_delimited: space_delimited.into_iter().map(Box::from).collect(),
        places: Places::new(headers.collect(), texts(&rule.from_params), texts(&rule.from_cookies)),
    }
}

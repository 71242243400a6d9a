//! Which version of a kind the API server serves, if any.
//!
//! Invariant: a kind is absent only when the server has answered and does not list it. A server that fails to answer tells nothing.

use config_model::meta::Kind;
use kube::{Client, core::ApiResource};

/// What the server says about a kind.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub(crate) enum Served {
    /// It is served like this.
    As(ApiResource),
    /// It is not installed.
    Absent,
}

/// Looks for the first version of a kind that is both read here and served there.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn discover(client: &Client, kind: Kind) -> kube::Result<Served> {
    if let Some(plural) = built_in(kind) {
        return Ok(Served::As(resource(kind, "v1", plural)));
    }
    let groups = client.list_api_groups().await?;
    let Some(group) = groups.groups.into_iter().find(|group| group.name == kind.group()) else {
        return Ok(Served::Absent);
    };
    for version in kind.versions() {
        if !group.versions.iter().any(|served| served.version == *version) {
            continue;
        }
        let listed = client.list_api_group_resources(&format!("{}/{version}", kind.group())).await?;
        // A subresource such as `gateways/status` has the kind of its resource.
        let found = listed.resources.into_iter().find(|served| {
            served.kind == kind.as_str()
                && !served.name.contains('/')
                && served.verbs.iter().any(|verb| verb == "watch")
        });
        if let Some(found) = found {
            return Ok(Served::As(resource(kind, version, &found.name)));
        }
    }
    Ok(Served::Absent)
}

/// Kubernetes' own kinds are always there, each in the version in which it is stable.
fn built_in(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Endpoints => "endpoints",
        Kind::Secret => "secrets",
        Kind::ConfigMap => "configmaps",
        Kind::Namespace => "namespaces",
        Kind::Pod => "pods",
        Kind::Gateway
        | Kind::VirtualService
        | Kind::DestinationRule
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::Sidecar
        | Kind::WorkloadGroup
        | Kind::RequestAuthentication
        | Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::Telemetry => return None,
    })
}

fn resource(kind: Kind, version: &str, plural: &str) -> ApiResource {
    let group = kind.group();
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.as_str().to_owned(),
        plural: plural.to_owned(),
    }
}

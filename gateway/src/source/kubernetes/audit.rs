//! What a cluster holds beside the kinds that are read: resources of Istio and of the Gateway API, and Ingresses.
//!
//! Invariant: nothing is read that is not named here. One that Istio would apply to this gateway's pods is named by itself; of all others
//! of a kind it is said how many there are.

use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics, Severity},
    meta::{Kind, Origin},
    scalar::labels::is_subset_of,
};
use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};
use serde_json::Value;

use super::{Cluster, Home};

/// Where the Gateway API's kinds are, and Ingresses.
const GATEWAY_API: &str = "gateway.networking.k8s.io";
const INGRESS: &str = "networking.k8s.io";
/// Objects of a page of a list.
const PAGE: u32 = 500;

/// Says what of a cluster has no effect on this gateway because its kind is not read.
pub async fn unread(cluster: &Cluster, home: &Home) -> Diagnostics {
    let client = cluster.client();
    let mut found = Diagnostics::new();
    let kinds = match kinds(&client).await {
        Ok(kinds) => kinds,
        Err(error) => {
            found.push(unknown("which kinds are served", &error));
            return found;
        }
    };
    for kind in kinds {
        match list(&client, &kind).await {
            Ok(objects) => found.extend(judge(&kind, &objects, home)),
            // Defined and not served any more, or the other way round.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => found.push(unknown(&format!("every {}", kind.kind), &error)),
        }
    }
    found
}

fn unknown(what: &str, error: &kube::Error) -> Diagnostic {
    Diagnostic::new(Code::UNREADABLE, format!("{what} cannot be read: {error}"))
        .severity(Severity::Warning)
        .hint("grant the right to list it")
}

/// Kinds that have to do with traffic and are not read; each in the first version in which it is served, as the server orders them.
async fn kinds(client: &Client) -> kube::Result<Vec<ApiResource>> {
    let mut kinds: Vec<ApiResource> = Vec::new();
    for group in client.list_api_groups().await?.groups {
        let is_istio = group.name.ends_with(".istio.io");
        if !is_istio && group.name != GATEWAY_API && group.name != INGRESS {
            continue;
        }
        for version in group.versions {
            for resource in client.list_api_group_resources(&version.group_version).await?.resources {
                let is_read = Kind::from_name(&resource.kind).is_some_and(|kind| kind.group() == group.name);
                let is_other = group.name == INGRESS && resource.kind != "Ingress";
                let is_listed = resource.verbs.iter().any(|verb| verb == "list");
                let is_known =
                    kinds.iter().any(|known| known.group == group.name && known.kind == resource.kind);
                if is_read || is_other || is_known || !is_listed || resource.name.contains('/') {
                    continue;
                }
                kinds.push(ApiResource {
                    group: group.name.clone(),
                    version: version.version.clone(),
                    api_version: version.group_version.clone(),
                    kind: resource.kind,
                    plural: resource.name,
                });
            }
        }
    }
    kinds.sort_by(|a, b| (&a.group, &a.kind).cmp(&(&b.group, &b.kind)));
    Ok(kinds)
}

async fn list(client: &Client, kind: &ApiResource) -> kube::Result<Vec<DynamicObject>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let mut objects = Vec::new();
    let mut asked = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&asked).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => asked = asked.continue_token(&next),
            None => return Ok(objects),
        }
    }
}

fn judge(kind: &ApiResource, objects: &[DynamicObject], home: &Home) -> Vec<Diagnostic> {
    let (applied, others): (Vec<_>, Vec<_>) = objects.iter().partition(|object| applies(kind, object, home));
    let mut found: Vec<Diagnostic> = applied
        .into_iter()
        .map(|object| {
            let metadata = &object.metadata;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
            let message = format!(
                "{} {namespace}/{name} has no effect here; in Istio it applies to this gateway",
                kind.kind
            );
            Diagnostic::new(Code::IGNORED_KIND, message)
                .severity(Severity::Warning)
                .from_origin(Origin::of_object(
                    &text(&metadata.uid),
                    &text(&metadata.resource_version),
                    metadata.generation.unwrap_or(0),
                ))
                .hint("do what it does in another way before this gateway takes its place")
        })
        .collect();
    if !others.is_empty() {
        let message = format!("{} {} ({}): not read", others.len(), kind.kind, kind.api_version);
        found.push(Diagnostic::new(Code::IGNORED_KIND, message));
    }
    found
}

/// Whether Istio applies it to the pods of this gateway: it is in their namespace or in the root namespace, and selects them or selects
/// by nothing. What names its targets names none of ours.
fn applies(kind: &ApiResource, object: &DynamicObject, home: &Home) -> bool {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    if !kind.group.ends_with(".istio.io") || (namespace != home.namespace && namespace != home.root_namespace)
    {
        return false;
    }
    let at = |path: &str| object.data.pointer(path);
    let is_given = |field: &Value| !field.is_null() && field.as_array().is_none_or(|list| !list.is_empty());
    if ["/spec/targetRefs", "/spec/targetRef"].into_iter().filter_map(at).any(is_given) {
        return false;
    }
    let selector = ["/spec/workloadSelector/labels", "/spec/selector/matchLabels"]
        .into_iter()
        .find_map(|path| at(path)?.as_object());
    selector.is_none_or(|pairs| {
        let pairs = pairs.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        is_subset_of(&pairs.collect(), &home.labels)
    })
}

//! The requests that are made of the API server, and what they can fail with.
//!
//! Invariant: no request waits for ever. Which version of a kind is asked for is what the server serves.

use std::{collections::HashMap, time::Duration};

use config_model::meta::{Kind, ResourceKey};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::source::kubernetes::discovery::{Served, discover};

/// An answer that has not come in this time will not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Objects of a page of a list.
const PAGE: u32 = 500;
/// Whose the fields are in the server's bookkeeping.
const MANAGER: &str = "limen";

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The right to do so is missing.
    #[error("{0}")]
    Refused(String),
    /// The object, or its kind, is not there.
    #[error("it is not there")]
    Absent,
    /// Somebody else has changed it, or made it, in the meantime.
    #[error("it was changed in the meantime")]
    Conflict,
    /// The server does not take what it was given.
    #[error("{0}")]
    Invalid(String),
    /// Anything that may pass.
    #[error("{0}")]
    Failed(String),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => match status.code {
                403 => Failure::Refused(status.message),
                404 | 405 => Failure::Absent,
                409 => Failure::Conflict,
                400 | 422 => Failure::Invalid(status.message),
                _ => Failure::Failed(status.message),
            },
            error => Failure::Failed(error.to_string()),
        }
    }
}

/// Gives a request its time.
pub(super) async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::Failed("the API server has not answered in time".to_owned())),
    }
}

/// Istio's resources, as they are in the cluster.
pub(super) struct Resources {
    client: Client,
    served: HashMap<Kind, ApiResource>,
}

/// A page of a list.
pub(super) struct Page {
    /// What was listed: who, and the object as far as it matters here.
    pub(super) objects: Vec<(ResourceKey, Value)>,
    /// What to ask for the next page with; `None` on the last one.
    pub(super) next: Option<String>,
}

impl Resources {
    pub(super) fn new(client: Client) -> Resources {
        Resources { client, served: HashMap::new() }
    }

    /// How the server calls a kind.
    pub(super) async fn kind(&mut self, kind: Kind) -> Result<ApiResource, Failure> {
        if let Some(known) = self.served.get(&kind) {
            return Ok(known.clone());
        }
        match bounded(discover(&self.client, kind)).await? {
            Served::As(resource) => {
                self.served.insert(kind, resource.clone());
                Ok(resource)
            }
            Served::Absent => Err(Failure::Absent),
        }
    }

    async fn api(&mut self, key: &ResourceKey) -> Result<Api<DynamicObject>, Failure> {
        let resource = self.kind(key.kind).await?;
        Ok(Api::namespaced_with(self.client.clone(), &key.namespace, &resource))
    }

    /// The object: its version and its status.
    pub(super) async fn get(&mut self, key: &ResourceKey) -> Result<Value, Failure> {
        let api = self.api(key).await?;
        let found = bounded(api.get(&key.name)).await;
        self.forget_if_absent(key.kind, &found);
        Ok(seen(found?))
    }

    /// Objects of a kind.
    pub(super) async fn list(&mut self, kind: Kind, next: Option<&str>) -> Result<Page, Failure> {
        let resource = self.kind(kind).await?;
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut asked = ListParams::default().limit(PAGE);
        if let Some(next) = next {
            asked = asked.continue_token(next);
        }
        let found = bounded(api.list(&asked)).await;
        self.forget_if_absent(kind, &found);
        let found = found?;
        let key = |object: &DynamicObject| {
            let metadata = &object.metadata;
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            ResourceKey::new(kind, namespace, metadata.name.as_deref().unwrap_or_default())
        };
        let next = found.metadata.continue_.filter(|next| !next.is_empty());
        Ok(Page { objects: found.items.into_iter().map(|one| (key(&one), seen(one))).collect(), next })
    }

    /// Changes the status of an object by a merge patch.
    pub(super) async fn patch_status(&mut self, key: &ResourceKey, patch: &Value) -> Result<(), Failure> {
        let api = self.api(key).await?;
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let done = bounded(api.patch_status(&key.name, &parameters, &Patch::Merge(patch))).await;
        self.forget_if_absent(key.kind, &done);
        done.map(drop)
    }

    /// Another version of the definition may be there in its place.
    fn forget_if_absent<T>(&mut self, kind: Kind, answer: &Result<T, Failure>) {
        if let Err(Failure::Absent) = answer {
            self.served.remove(&kind);
        }
    }

    /// Tells an Event.
    pub(super) async fn create_event(&self, namespace: &str, event: &Event) -> Result<(), Failure> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        bounded(api.create(&PostParams::default(), event)).await.map(drop)
    }

    /// Counts an Event once more.
    pub(super) async fn patch_event(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<(), Failure> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        bounded(api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await.map(drop)
    }
}

/// What matters of an object here.
fn seen(object: DynamicObject) -> Value {
    json!({
        "metadata": {"resourceVersion": object.metadata.resource_version},
        "status": object.data.get("status"),
    })
}

//! An object on its way in: what the watcher needs of its metadata, and the object itself.
//!
//! Invariant: an object is taken apart once, by `config_model`; kube sees its name, namespace and version only.

use std::borrow::Cow;

use config_model::parse::Object;
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope, ObjectMeta},
};
use serde::{Deserialize, Deserializer};

/// An object of any kind. With `METADATA` the API is asked for nothing but its metadata.
#[derive(Debug, Clone)]
pub(super) struct Item<const METADATA: bool> {
    meta: ObjectMeta,
    pub(super) object: Object,
}

impl<'de, const METADATA: bool> Deserialize<'de> for Item<METADATA> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Object::deserialize(deserializer)?;
        let text = |field| Some(object.metadata(field)).filter(|text| !text.is_empty()).map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Item { meta, object })
    }
}

impl<const METADATA: bool> Resource for Item<METADATA> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn metadata_api() -> bool {
        METADATA
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

//! The resources whose annotations ask for policies, and the texts of ConfigMaps that they name.

use crate::annotated::{Annotated, Index, named};
use config_model::{
    annotation::ERROR_PAGES,
    diagnostic::{Code, Diagnostic, Diagnostics},
    meta::{Kind, Metadata, Origin, ResourceKey},
    validate::Validated,
};
use std::sync::Arc;

/// All of them, and what is not there of what they name.
pub(super) fn compile(input: &Validated) -> (Index, Diagnostics) {
    let services =
        input.virtual_services().iter().map(|resource| (&resource.key, &resource.meta, &resource.origin));
    let gateways = input.gateways().iter().map(|resource| (&resource.key, &resource.meta, &resource.origin));
    let mut findings = Diagnostics::new();
    let text = |namespace: &str, name: &str, key: &str| -> Option<Arc<str>> {
        let map = input.config_maps().get(&ResourceKey::new(Kind::ConfigMap, namespace, name))?;
        map.spec.data.get(key).map(|text| text.as_str().into())
    };
    let mut resources = Vec::new();
    for (key, metadata, origin) in gateways.chain(services) {
        let Some(annotated) = annotated(key, metadata) else { continue };
        for (name, entry) in named(&annotated.policies) {
            if text(&key.namespace, name, entry).is_none() {
                findings.push(missing(key, origin, name, entry));
            }
        }
        resources.push(annotated);
    }
    (Index::new(resources, text), findings)
}

fn annotated(key: &ResourceKey, metadata: &Metadata) -> Option<Arc<Annotated>> {
    Annotated::of(key.kind, metadata)
}

fn missing(key: &ResourceKey, origin: &Origin, name: &str, entry: &str) -> Diagnostic {
    let message =
        format!("Referenced ConfigMap not found: \"{}/{name}\" with the key {entry:?}", key.namespace);
    Diagnostic::new(Code::REFERENCE_NOT_FOUND, message)
        .about(key, origin)
        .at(format!("metadata.annotations.{ERROR_PAGES}"))
        .hint("responses stay as they are until it is there")
}

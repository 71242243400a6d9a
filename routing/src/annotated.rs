//! Policies that annotations of VirtualServices and Gateways ask for, as requests meet them.
//!
//! Invariant: what a VirtualService says of a policy counts before what its Gateway says, each policy by itself; a resource that asks
//! for nothing has nothing here.

use config_model::{
    annotation::{Annotations, Body, Setting},
    meta::{Kind, Metadata, ResourceKey},
};
use std::{collections::BTreeMap, sync::Arc};

/// What the annotations of one resource ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotated {
    /// The resource.
    pub resource: ResourceKey,
    /// What is asked for.
    pub policies: Annotations,
}

impl Annotated {
    /// Of a resource; `None`: it asks for nothing. What cannot be read is left out: validation has said so.
    #[must_use]
    pub fn of(kind: Kind, metadata: &Metadata) -> Option<Arc<Annotated>> {
        let (policies, _) = Annotations::read(&metadata.annotations);
        let resource = || ResourceKey::new(kind, &*metadata.namespace, &*metadata.name);
        (!policies.is_empty()).then(|| Arc::new(Annotated { resource: resource(), policies }))
    }
}

/// The setting that counts, and whose it is: the rule's, or else the server's.
#[must_use]
pub fn effective<'a, T>(
    rule: Option<&'a Annotated>,
    server: Option<&'a Annotated>,
    of: impl Fn(&'a Annotations) -> Option<&'a Setting<T>>,
) -> Option<(&'a ResourceKey, &'a T)> {
    let (said, setting) =
        [rule, server].into_iter().flatten().find_map(|said| Some((said, of(&said.policies)?)))?;
    Some((&said.resource, setting.on()?))
}

/// All resources that ask for something, and the texts that they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    resources: Vec<Arc<Annotated>>,
    /// By namespace, name of the ConfigMap, and key.
    texts: BTreeMap<(String, String, String), Arc<str>>,
}

impl Index {
    /// Of these resources; `text` finds a text by namespace, ConfigMap and key.
    #[must_use]
    pub fn new(resources: Vec<Arc<Annotated>>, text: impl Fn(&str, &str, &str) -> Option<Arc<str>>) -> Index {
        let mut index = Index { resources, texts: BTreeMap::new() };
        for resource in &index.resources {
            for (name, key) in named(&resource.policies) {
                let namespace = &resource.resource.namespace;
                if let Some(found) = text(namespace, name, key) {
                    index.texts.insert((namespace.clone(), name.to_owned(), key.to_owned()), found);
                }
            }
        }
        index
    }

    /// The resources, in no order.
    #[must_use]
    pub fn resources(&self) -> &[Arc<Annotated>] {
        &self.resources
    }

    /// The text of a page of a resource; `None`: nothing is there.
    #[must_use]
    pub fn text(&self, resource: &ResourceKey, body: &Body) -> Option<Arc<str>> {
        match body {
            Body::Inline(text) => Some(text.as_str().into()),
            Body::ConfigMap { name, key } => {
                self.texts.get(&(resource.namespace.clone(), name.clone(), key.clone())).cloned()
            }
        }
    }
}

/// The ConfigMaps, with their keys, that pages are taken from.
pub fn named(policies: &Annotations) -> impl Iterator<Item = (&str, &str)> {
    let pages = policies.error_pages.as_ref().and_then(Setting::on);
    pages.into_iter().flat_map(|pages| &pages.0).filter_map(|page| match &page.body {
        Body::Inline(_) => None,
        Body::ConfigMap { name, key } => Some((name.as_str(), key.as_str())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(kind: Kind, pairs: &[(&str, &str)]) -> Option<Arc<Annotated>> {
        let annotations =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Annotated::of(
            kind,
            &Metadata { name: "a".into(), namespace: "n".into(), annotations, ..Metadata::default() },
        )
    }

    #[test]
    fn each_policy_is_the_rules_before_the_servers() {
        assert!(annotated(Kind::Gateway, &[("other/rate-limit", "1")]).is_none());
        let server = annotated(
            Kind::Gateway,
            &[("limen.dev/max-request-body", "1Mi"), ("limen.dev/compression", "on")],
        );
        let rule = annotated(
            Kind::VirtualService,
            &[("limen.dev/max-request-body", "2Mi"), ("limen.dev/compression", "off")],
        );
        let limit = |rule: Option<&Arc<Annotated>>| {
            let found =
                effective(rule.map(|rule| &**rule), server.as_deref(), |said| said.max_request_body.as_ref());
            found.map(|(whose, bytes)| (whose.kind, *bytes))
        };
        assert_eq!(limit(rule.as_ref()), Some((Kind::VirtualService, 2 << 20)));
        assert_eq!(limit(None), Some((Kind::Gateway, 1 << 20)));
        let compression =
            |rule| effective(rule, server.as_deref(), |said| said.compression.as_ref()).is_some();
        assert!(compression(None) && !compression(rule.as_deref()), "off is a word too");
    }
}

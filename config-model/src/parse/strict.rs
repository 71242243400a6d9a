//! A document of which nothing is to be said, read into its type in one pass.
//!
//! Invariant: what comes out here is what the way over a tree of values gives, and gives without a finding. Whatever might be told there
//! (a value of another type, a null, a tag, a key twice, a field that is not known or not honoured) gives nothing here, so that the
//! document goes that way. Nothing is worded here.

use std::{cell::Cell, fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{
        DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess,
        SeqAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use crate::{
    istio,
    meta::{Kind, Metadata, Origin, Resource, ResourceKey},
    set::AnyResource,
    support::{self, Node},
};

use super::document;

/// The resource that a document is, where it is of one of the kinds that there are thousands of and nothing is to be said of it.
pub(super) fn read(text: &str, origin: &Origin, hash: u64) -> Option<AnyResource> {
    // Merged mappings are a matter of values.
    if text.contains("<<") {
        return None;
    }
    match kind_of(text)? {
        kind @ Kind::VirtualService => resource::<istio::VirtualService>(kind, text, origin, hash),
        kind @ Kind::DestinationRule => resource::<istio::DestinationRule>(kind, text, origin, hash),
        kind @ Kind::ServiceEntry => resource::<istio::ServiceEntry>(kind, text, origin, hash),
        _ => None,
    }
}

/// The kind by the first line that looks like it; whether it is, is seen once the document is read.
fn kind_of(text: &str) -> Option<Kind> {
    let named = text.lines().find_map(|line| line.strip_prefix("kind:"))?;
    Kind::from_name(named.trim())
}

fn resource<T: DeserializeOwned>(kind: Kind, text: &str, origin: &Origin, hash: u64) -> Option<AnyResource>
where
    AnyResource: From<Resource<T>>,
{
    let whole = Whole { spec: support::tree(kind).field("spec"), of: PhantomData::<T> };
    let (header, meta, spec) = whole.deserialize(serde_yaml::Deserializer::from_str(text)).ok()?;
    let (group, version) = header.api_version.rsplit_once('/')?;
    let is_kind = header.kind == kind.as_str() && group == kind.group() && kind.versions().contains(&version);
    let meta = document::settled(kind, meta).ok().filter(|_| is_kind)?;
    let key = ResourceKey::new(kind, meta.namespace.as_str(), meta.name.as_str());
    Some(Resource { key, meta, origin: origin.clone(), content_hash: hash, spec }.into())
}

#[derive(Default)]
struct Header {
    api_version: String,
    kind: String,
}

/// A whole object with a spec of that type.
struct Whole<T> {
    spec: Option<&'static Node>,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Whole<T> {
    type Value = (Header, Metadata, T);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Whole<T> {
    type Value = (Header, Metadata, T);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut header, mut meta, mut spec) = (Header::default(), None, None);
        while let Some(key) = map.next_key_seed(Seed::plain(PhantomData::<String>))? {
            match key.as_str() {
                "apiVersion" if header.api_version.is_empty() => {
                    header.api_version = map.next_value_seed(Seed::plain(PhantomData))?;
                }
                "kind" if header.kind.is_empty() => {
                    header.kind = map.next_value_seed(Seed::plain(PhantomData))?
                }
                "metadata" if meta.is_none() => meta = Some(map.next_value_seed(Seed::plain(PhantomData))?),
                "spec" if spec.is_none() => {
                    spec = Some(map.next_value_seed(Seed { seed: PhantomData, node: self.spec })?);
                }
                _ => return Err(other_way()),
            }
        }
        match (meta, spec) {
            (Some(meta), Some(spec)) => Ok((header, meta, spec)),
            _ => Err(other_way()),
        }
    }
}

/// Ends the reading; nobody sees what it says.
fn other_way<E: Error>() -> E {
    E::custom("")
}

/// Reads what `seed` reads, strictly; `node` is what the support table says of the field.
struct Seed<S> {
    seed: S,
    node: Option<&'static Node>,
}

impl<S> Seed<S> {
    fn plain(seed: S) -> Self {
        Seed { seed, node: None }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Strict { inner, node: self.node })
    }
}

/// Hands on what there is as what it is: never a number as a text because a text is wanted.
struct Strict<D> {
    inner: D,
    node: Option<&'static Node>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Look { visitor, node: self.node, keys: Keys::Free })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Look { visitor, node: self.node, keys: Keys::Fields })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Given { visitor, node: self.node })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Look { visitor: Variant(visitor), node: self.node, keys: Keys::Fields })
    }

    /// Fields that nobody knows are told.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(other_way())
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// Who tells a key that is there twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// The type that is read: they are its fields.
    Fields,
    /// We do: any may be there.
    Free,
}

/// A value on its way to who wants it.
struct Look<V> {
    visitor: V,
    node: Option<&'static Node>,
    keys: Keys,
}

impl<V> Look<V> {
    /// Unless something is to be said of the field, or of this value of it.
    fn silent<E: Error>(&self, value: Option<&str>) -> Result<(), E> {
        match self.node {
            Some(node) if !node.is_silent(value) => Err(other_way()),
            _ => Ok(()),
        }
    }
}

macro_rules! scalars {
    ($($visit:ident $of:ty,)*) => {
        $(fn $visit<E: Error>(self, value: $of) -> Result<V::Value, E> {
            self.silent(None)?;
            self.visitor.$visit(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Look<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    scalars! {
        visit_bool bool,
        visit_i64 i64,
        visit_u64 u64,
        visit_f64 f64,
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        self.silent(Some(text))?;
        self.visitor.visit_str(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.silent(None)?;
        // A list of the fields of a type, in their order, is read there too; nobody writes that.
        if self.keys == Keys::Fields {
            return Err(other_way());
        }
        self.visitor.visit_seq(Items { inner, node: self.node })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.silent(None)?;
        self.visitor.visit_map(Entries {
            inner,
            node: self.node,
            below: Cell::new(None),
            keys: self.keys,
            seen: Vec::new(),
        })
    }
}

/// A value that may be absent, and is not.
struct Given<V> {
    visitor: V,
    node: Option<&'static Node>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Given<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict { inner, node: self.node })
    }
}

/// One of several names.
struct Variant<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Variant<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        self.0.visit_enum(Named(name.into_deserializer()))
    }
}

struct Named<'n, E>(StrDeserializer<'n, E>);

impl<'de, E: Error> EnumAccess<'de> for Named<'_, E> {
    type Error = E;
    type Variant = <StrDeserializer<'de, E> as EnumAccess<'de>>::Variant;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), E> {
        self.0.variant_seed(seed)
    }
}

struct Items<A> {
    inner: A,
    node: Option<&'static Node>,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Seed { seed, node: self.node })
    }
}

struct Entries<A> {
    inner: A,
    node: Option<&'static Node>,
    /// Of the key that was read last.
    below: Cell<Option<&'static Node>>,
    keys: Keys,
    seen: Vec<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seen = (self.keys == Keys::Free).then_some(&mut self.seen);
        self.inner.next_key_seed(Key { seed, node: self.node, below: &self.below, seen })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Seed { seed, node: self.below.get() })
    }
}

/// A key on its way to who wants it.
struct Key<'k, S> {
    seed: S,
    node: Option<&'static Node>,
    below: &'k Cell<Option<&'static Node>>,
    seen: Option<&'k mut Vec<String>>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Key<'_, S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<S::Value, E> {
        if let Some(seen) = self.seen {
            if seen.iter().any(|other| other == name) {
                return Err(other_way());
            }
            seen.push(name.to_owned());
        }
        self.below.set(self.node.and_then(|node| node.field(name)));
        self.seed.deserialize(name.into_deserializer())
    }
}

#[cfg(test)]
mod tests;

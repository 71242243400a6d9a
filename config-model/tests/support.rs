//! Every field of the API has a row in the support table, and every row is a field.
//!
//! The fields are asked of the types themselves: a deserializer follows one path at a time and notes what a type would read there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where its expectation does, in helper functions too"
)]

use std::{cell::RefCell, collections::BTreeSet};

use config_model::{istio, meta::Kind, support};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

/// What stands at the end of a path: names of fields, and how many lists were passed on the way to them.
#[derive(Default)]
struct Found {
    fields: Vec<&'static str>,
    lists: usize,
}

/// Gives a type nothing but the fields of one path.
struct Follow<'a> {
    path: &'a [&'a str],
    lists: usize,
    found: &'a RefCell<Found>,
}

type Stop = de::value::Error;

fn stop() -> Stop {
    de::Error::custom("the end of the path")
}

impl<'de> Deserializer<'de> for Follow<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.found.borrow_mut().lists = self.lists;
        Err(stop())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(One(Some(Follow { lists: self.lists + 1, ..self })))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.path.split_first() {
            None => {
                *self.found.borrow_mut() = Found { fields: fields.to_vec(), lists: self.lists };
                Err(stop())
            }
            Some((name, rest)) => {
                visitor.visit_map(Entry { name, value: Follow { path: rest, lists: 0, ..self } })
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map enum identifier ignored_any
    }
}

struct One<'a>(Option<Follow<'a>>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        self.0.take().map(|value| seed.deserialize(value)).transpose()
    }
}

struct Entry<'a> {
    name: &'a str,
    value: Follow<'a>,
}

impl<'de> MapAccess<'de> for Entry<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        seed.deserialize(self.name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let Follow { path, lists, found } = self.value;
        seed.deserialize(Follow { path, lists, found })
    }
}

/// All paths of a kind, in the form of the table: `spec.http[].match[].uri`.
fn paths<T: for<'de> Deserialize<'de>>() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut open: Vec<(Vec<&'static str>, String)> = vec![(Vec::new(), "spec".to_owned())];
    while let Some((path, text)) = open.pop() {
        assert!(path.len() < 12, "{text}");
        let found = RefCell::new(Found::default());
        let _ = T::deserialize(Follow { path: &path, lists: 0, found: &found });
        let found = found.into_inner();
        if !path.is_empty() {
            all.insert(text.clone());
        }
        for field in found.fields {
            let mut path = path.clone();
            path.push(field);
            open.push((path, format!("{text}{}.{field}", "[]".repeat(found.lists))));
        }
    }
    all
}

fn of(kind: Kind) -> Option<BTreeSet<String>> {
    Some(match kind {
        Kind::Gateway => paths::<istio::Gateway>(),
        Kind::VirtualService => paths::<istio::VirtualService>(),
        Kind::DestinationRule => paths::<istio::DestinationRule>(),
        Kind::ServiceEntry => paths::<istio::ServiceEntry>(),
        Kind::WorkloadEntry => paths::<istio::WorkloadEntry>(),
        Kind::Sidecar => paths::<istio::Sidecar>(),
        Kind::WorkloadGroup => paths::<istio::WorkloadGroup>(),
        Kind::RequestAuthentication => paths::<istio::RequestAuthentication>(),
        Kind::Telemetry => paths::<istio::Telemetry>(),
        Kind::AuthorizationPolicy => paths::<istio::AuthorizationPolicy>(),
        Kind::PeerAuthentication => paths::<istio::PeerAuthentication>(),
        _ => return None,
    })
}

#[test]
fn every_field_has_a_row() {
    let mut count = 0;
    for kind in Kind::ALL {
        for path in of(kind).into_iter().flatten() {
            let below =
                |row: &str| row.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']));
            let parted = support::rows().any(|row| row.kind == kind && below(row.path));
            assert!(parted || support::of(kind, &path).is_some(), "{kind} {path} is under no row");
            count += 1;
        }
    }
    assert!(count > 400, "only {count} fields were found");
}

#[test]
fn every_row_is_a_field() {
    for row in support::rows() {
        let path = row.path.split('=').next().unwrap();
        let fields = of(row.kind).expect("a kind of Istio's");
        assert!(path == "spec" || fields.contains(path), "{} {path} is no field", row.kind);
        for name in row.below {
            let below = |text: &&String| {
                text.strip_prefix(path)
                    .is_some_and(|rest| rest.trim_start_matches("[]") == format!(".{name}"))
            };
            assert!(
                fields.iter().any(|text| below(&text)),
                "{} {path}: {name} is no field below it",
                row.kind
            );
        }
    }
}

//! Numbers as protobuf's JSON allows them: a number, an integral float, or a string that holds one.
//!
//! Used by `#[serde(deserialize_with = "…")]`. A value that does not fit the field's type is an error, never a wrap.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, de};

/// A wrapper whose `Deserialize` accepts every JSON form of an integer.
struct Int<T>(T);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Int<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Int<T>, D::Error> {
        deserializer.deserialize_any(IntVisitor(PhantomData)).map(Int)
    }
}

struct IntVisitor<T>(PhantomData<T>);

impl<T: TryFrom<i128>> IntVisitor<T> {
    fn fit<E: de::Error>(value: i128) -> Result<T, E> {
        T::try_from(value).map_err(|_| E::custom(format_args!("number {value} is out of range")))
    }
}

impl<T: TryFrom<i128>> de::Visitor<'_> for IntVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        Self::fit(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        Self::fit(value.into())
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the value is integral and within ±2^63, checked on the same line"
    )]
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        if value.fract() != 0.0 || value.abs() >= 9.2e18 {
            return Err(E::invalid_value(de::Unexpected::Float(value), &self));
        }
        Self::fit(value as i128)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        match text.parse::<i64>() {
            Ok(value) => Self::fit(value.into()),
            Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

/// An integer field.
///
/// # Errors
/// When the value is no whole number or does not fit `T`.
pub fn int<'de, D: Deserializer<'de>, T: TryFrom<i128>>(deserializer: D) -> Result<T, D::Error> {
    Int::deserialize(deserializer).map(|Int(value)| value)
}

/// An integer field that may be absent.
///
/// # Errors
/// As [`int`].
pub fn option_int<'de, D: Deserializer<'de>, T: TryFrom<i128>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Int<T>>::deserialize(deserializer)?.map(|Int(value)| value))
}

/// A list of integers.
///
/// # Errors
/// As [`int`], for any member.
pub fn ints<'de, D: Deserializer<'de>, T: TryFrom<i128>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Int<T>>::deserialize(deserializer)?.into_iter().map(|Int(value)| value).collect())
}

/// A map from names to integers.
///
/// # Errors
/// As [`int`], for any value.
pub fn int_map<'de, D: Deserializer<'de>, T: TryFrom<i128>>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    Ok(BTreeMap::<String, Int<T>>::deserialize(deserializer)?
        .into_iter()
        .map(|(key, Int(value))| (key, value))
        .collect())
}

/// A map whose keys are integers, which JSON writes as texts and YAML as either.
///
/// # Errors
/// As [`int`], for any key, and whatever is wrong with a value.
pub fn int_keys<'de, D: Deserializer<'de>, K: TryFrom<i128> + Ord, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<K, V>, D::Error> {
    struct Keys<K, V>(PhantomData<(K, V)>);

    impl<'de, K: TryFrom<i128> + Ord, V: Deserialize<'de>> de::Visitor<'de> for Keys<K, V> {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map by whole numbers")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((Int(key), value)) = map.next_entry::<Int<K>, V>()? {
                all.insert(key, value);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Keys(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sample {
        #[serde(deserialize_with = "int")]
        n: u16,
    }

    fn read(text: &str) -> Result<u16, serde_json::Error> {
        serde_json::from_str::<Sample>(&format!("{{\"n\":{text}}}")).map(|sample| sample.n)
    }

    #[test]
    fn all_forms_of_an_integer_are_read() {
        assert_eq!(read("80").unwrap(), 80);
        assert_eq!(read("\"80\"").unwrap(), 80);
        assert_eq!(read("80.0").unwrap(), 80);
        for bad in ["80.5", "65536", "-1", "\"eighty\"", "true", "null", "1e300"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
